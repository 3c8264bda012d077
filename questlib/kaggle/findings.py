"""The thirty checks of a kernel that is to run offline at its first push, and what was found."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Check(Enum):
    """One check: its number and what it says of a kernel that passes."""

    METADATA = 1, "metadata is strict JSON with known keys only"
    INTERNET_OFF = 2, "the internet is off, literally and on the wire"
    NAMES = 3, "id and title are valid and agree"
    CODE_FILE = 4, "language, kind and code file"
    SOURCES = 5, "sources are named as the client wants them"
    MACHINE = 6, "the machine shape is current"
    REFUSALS = 7, "a push that is refused with status 0 is an error"
    SIZE = 8, "what is posted is below 700 KB"
    TEXT_ON_WIRE = 9, "the text on the wire runs by itself"
    CLIENT = 10, "the client starts"
    NOTEBOOK = 11, "the notebook is valid and names its kernel"
    TRACES = 12, "no outputs, counts, paths or traces of a run"
    PARAMETERS = 13, "one cell of parameters, with production values"
    CODE = 14, "no exit, input, download or index in the code"
    RUNS = 15, "runs to its last cell under Kaggle's runner"
    IMPORTS = 16, "questlib imports from a read-only mount"
    WHEELS = 17, "wheel names survive and need no compiler"
    INSTALL = 18, "the install moves no other package"
    PACKAGES = 19, "no heavy package is shipped, and the image's suffice"
    MANGLED = 20, "runs after the upload has mangled names and archives"
    DATASETS = 21, "the upload of each dataset is complete"
    VERSIONS = 22, "an older version of a dataset is refused in words"
    MOUNTS = 23, "both mount layouts, weights one folder deeper too"
    MISSING_INPUT = 24, "a missing input is named, at once"
    WRITES = 25, "writes stay in /kaggle/working and /tmp, and small"
    NETWORK = 26, "nothing asks the network"
    HUB_CLOSED = 27, "the hub is closed before the first import"
    GPUS = 28, "0, 1 or 2 GPUs, and one that does not compute"
    HIDDEN_TEST = 29, "the hidden test may be anything"
    TIME = 30, "a submission stands early, and time suffices"

    def __init__(self, number: int, told: str) -> None:
        self.number = number
        self.told = told


PASSED, FAILED, UNCHECKED = "passed", "FAILED", "not checkable here"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one look at one check gave."""

    check: Check
    state: str  # PASSED, FAILED or UNCHECKED
    evidence: str  # what was seen


def judge(check: Check, wrong: Sequence[str], *, evidence: str) -> Finding:
    """Judge a check by what is wrong.

    Args:
        check: Which.
        wrong: What is wrong, with what to do; empty where all is well.
        evidence: What was seen where all is well.

    Returns:
        The finding.
    """
    return Finding(check=check, state=FAILED if wrong else PASSED, evidence="; ".join(wrong) or evidence)


def summarize(findings: Sequence[Finding]) -> list[Finding]:
    """Make one finding of all that concern a check.

    Args:
        findings: In any order.

    Returns:
        One for each of the thirty, in order: failed if any look failed, else passed if any passed. A check that nobody
        looked at is not checkable here.
    """
    merged = []
    for check in Check:
        found = [finding for finding in findings if finding.check == check]
        states = [state for state in (FAILED, PASSED, UNCHECKED) if any(one.state == state for one in found)]
        state = states[0] if states else UNCHECKED
        # What failed is all that matters then; else what could not be seen is said beside what was.
        said = [
            one.evidence if one.state in (state, PASSED) else f"{one.state}: {one.evidence}"
            for one in found
            if one.state == state or state != FAILED
        ]
        evidence = "; ".join(dict.fromkeys(said)) or "the rehearsal did not come this far"
        merged.append(Finding(check=check, state=state, evidence=evidence))
    return merged


def tabulate(findings: Sequence[Finding]) -> str:
    """Lay findings out as a table for a terminal, one line each."""
    lines = [f"{one.check.number:>2}  {one.state:<18}  {one.check.told:<56}  {one.evidence}" for one in findings]
    counts = ", ".join(
        f"{sum(one.state == state for one in findings)} {state}" for state in (PASSED, FAILED, UNCHECKED)
    )
    return "\n".join([*lines, counts])
