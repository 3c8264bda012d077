"""The thirty checks of a kernel that is to run offline at its first push, and what was found."""

from collections.abc import Sequence
from dataclasses import dataclass

CHECKS: dict[int, str] = {
    1: "metadata is strict JSON with known keys only",
    2: "the internet is off, literally and on the wire",
    3: "id and title are valid and agree",
    4: "language, kind and code file",
    5: "sources are named as the client wants them",
    6: "the machine shape is current",
    7: "a push that is refused with status 0 is an error",
    8: "what is posted is below 700 KB",
    9: "the text on the wire runs by itself",
    10: "the client starts",
    11: "the notebook is valid and names its kernel",
    12: "no outputs, counts, paths or traces of a run",
    13: "one cell of parameters, with production values",
    14: "no exit, input, download or index in the code",
    15: "runs to its last cell under Kaggle's runner",
    16: "questlib imports from a read-only mount",
    17: "wheel names survive and need no compiler",
    18: "the install moves no other package",
    19: "no heavy package is shipped, and the image's suffice",
    20: "runs after the upload has mangled names and archives",
    21: "the upload of each dataset is complete",
    22: "an older version of a dataset is refused in words",
    23: "both mount layouts, weights one folder deeper too",
    24: "a missing input is named, at once",
    25: "writes stay in /kaggle/working and /tmp, and small",
    26: "nothing asks the network",
    27: "the hub is closed before the first import",
    28: "0, 1 or 2 GPUs, and one that does not compute",
    29: "the hidden test may be anything",
    30: "a submission stands early, and time suffices",
}
PASSED, FAILED, UNCHECKED = "passed", "FAILED", "not checkable here"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one look at one check gave.

    Args:
        check: Its number.
        state: "passed", "FAILED" or "not checkable here".
        evidence: What was seen.
    """

    check: int
    state: str
    evidence: str


def judge(check: int, wrong: Sequence[str], *, evidence: str) -> Finding:
    """Judge a check by what is wrong.

    Args:
        check: Its number.
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
    for check in CHECKS:
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
    lines = [f"{one.check:>2}  {one.state:<18}  {CHECKS[one.check]:<56}  {one.evidence}" for one in findings]
    counts = ", ".join(
        f"{sum(one.state == state for one in findings)} {state}" for state in (PASSED, FAILED, UNCHECKED)
    )
    return "\n".join([*lines, counts])
