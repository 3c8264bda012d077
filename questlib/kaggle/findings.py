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
# Of a summary only: some looks passed and others could not be taken here, or none was taken at all.
PARTLY, NOT_RUN = "partly checkable here", "not run"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one look at one check gave."""

    check: Check
    state: str  # PASSED, FAILED or UNCHECKED; in a summary also PARTLY or NOT_RUN
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


def has_failed(findings: Sequence[Finding]) -> bool:
    """Tell whether any check failed."""
    return any(finding.state == FAILED for finding in findings)


def summarize(findings: Sequence[Finding]) -> list[Finding]:
    """Make one finding of all that concern a check.

    Args:
        findings: In any order.

    Returns:
        One for each of the thirty, in order: failed if any look failed, passed if all passed, partly checkable here if
        only some could be taken. What nobody looked at was not run.
    """
    merged = []
    for check in Check:
        found = [finding for finding in findings if finding.check == check]
        states = {one.state for one in found}
        if FAILED in states:  # what failed is all that matters then
            state, found = FAILED, [one for one in found if one.state == FAILED]
        else:
            state = PARTLY if len(states) > 1 else next(iter(states), NOT_RUN)
        said = [
            f"{one.state}: {one.evidence}" if state == PARTLY and one.state == UNCHECKED else one.evidence
            for one in found
        ]
        merged.append(Finding(check=check, state=state, evidence="; ".join(dict.fromkeys(said))))
    return merged


def tabulate(summary: Sequence[Finding], *, not_run: str) -> str:
    """Lay a summary out as a table for a terminal, one line each, failures last.

    Args:
        summary: One finding for each check.
        not_run: Why checks were not run, where any were not: they share a line.

    Returns:
        The lines; the last one counts.
    """
    lines = [
        f"{one.check.number:>2}  {one.state:<21}  {one.check.told:<56}  {one.evidence}"
        for state in (PASSED, PARTLY, UNCHECKED, FAILED)
        for one in summary
        if one.state == state
    ]
    n_failed = sum(one.state == FAILED for one in summary)
    left = [str(one.check.number) for one in summary if one.state == NOT_RUN]
    if left:
        lines.insert(len(lines) - n_failed, f"    {NOT_RUN:<21}  {not_run}: {', '.join(left)}")
    counts = {state: sum(one.state == state for one in summary) for state in (PASSED, PARTLY, UNCHECKED, NOT_RUN)}
    told = [f"{count} {state}" for state, count in counts.items() if count or state == PASSED]
    return "\n".join([*lines, ", ".join([*told, f"{n_failed} {FAILED}"])])
