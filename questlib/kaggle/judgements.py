"""Checks 9, 15, 16, 18, 20 and 22 to 30: what the sessions of a rehearsal show."""

from collections.abc import Iterator, Sequence

from questlib.kaggle.findings import UNCHECKED, Check, Finding, judge
from questlib.kaggle.sessions import HUB_NAME, SHORT_LIMIT_SECONDS, Outcome, SessionKind

_MOST_FILES, _MOST_BYTES = 500, 20 * 1000**3
_AT_ONCE = 5.0  # seconds
_TIME_LIMIT = 2 * 3600.0


def judge_outcomes(outcomes: Sequence[Outcome]) -> Iterator[Finding]:
    """Judge sessions that must succeed.

    Args:
        outcomes: Of sessions with the public and with hidden tests.

    Yields:
        Findings.
    """
    faults = [fault for fault in (one.find_fault() for one in outcomes) if fault]
    public = [one for one in outcomes if one.session.kind is SessionKind.PUBLIC_TEST]
    hidden = [one for one in outcomes if one.session.kind is SessionKind.HIDDEN_TEST]
    twins = dict.fromkeys(one.session.twin.versions for one in outcomes)
    yield judge(
        Check.TEXT_ON_WIRE,
        [one.find_fault() for one in public if one.find_fault()],
        evidence="run as it came over the wire",
    )
    incomplete = [one.session.name for one in outcomes if one.status == 0 and not one.is_complete]
    ended = [f"the last cell was not run: {incomplete}"] if incomplete else []
    yield judge(Check.RUNS, faults + ended, evidence=f"{len(outcomes)} sessions in {'; '.join(twins)}")
    yield judge(
        Check.INSTALL,
        list(_judge_packages(outcomes)),
        evidence="questlib and the locked wheels were added, nothing moved",
    )
    yield judge(Check.MANGLED, faults, evidence="inputs were mangled as the upload does")
    seen = dict.fromkeys(
        f"{one.session.layout} layout, weights {'one folder deeper' if one.session.is_deeper else 'at the top'}"
        for one in public
    )
    yield judge(Check.MOUNTS, faults, evidence=", ".join(seen))
    yield judge(Check.WRITES, list(_judge_writes(outcomes)), evidence="all else was read-only")
    yield from _judge_network(outcomes)
    yield judge(Check.GPUS, faults, evidence="0 GPUs")
    yield Finding(check=Check.GPUS, state=UNCHECKED, evidence="1 or 2 GPUs that compute: none is here")
    swaps = ", ".join(dict.fromkeys(one.session.swap for one in hidden))
    wrong = [one.find_fault() for one in hidden if one.find_fault()]
    yield judge(Check.HIDDEN_TEST, wrong, evidence=f"a valid submission each for: {swaps}")
    yield from _judge_time(public)
    yield from _judge_limit(outcomes)


def _judge_packages(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for one in outcomes:
        added = {line.split("==")[0].lower() for line in one.seen.get("installed", [])}
        removed = one.seen.get("removed", [])
        if removed or not added or not added <= {"questlib", "bitsandbytes"}:
            yield f"{one.session.name}: added {sorted(added)}, removed {removed}"


def _judge_writes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for one in outcomes:
        if "Read-only file system" in one.error:
            yield f"{one.session.name}: {one.error}"
        sizes = [path.stat().st_size for path in one.working.rglob("*") if path.is_file()]
        if len(sizes) >= _MOST_FILES or sum(sizes) >= _MOST_BYTES:
            yield f"{one.session.name}: {len(sizes)} files of {sum(sizes) / 1e9:.1f} GB"


def _judge_network(outcomes: Sequence[Outcome]) -> Iterator[Finding]:
    traced = [one for one in outcomes if one.seen.get("connects") is not None]
    wrong = [f"{one.session.name}: {one.seen['connects'][0]}" for one in traced if one.seen["connects"]]
    yield judge(Check.NETWORK, wrong, evidence=f"{len(outcomes)} sessions had no network")
    if not traced:
        yield Finding(check=Check.NETWORK, state=UNCHECKED, evidence="attempts: strace is not installed")


def _judge_time(public: Sequence[Outcome]) -> Iterator[Finding]:
    late = [one.session.name for one in public if one.status == 0 and one.first_submission is None]
    stood = [one for one in public if one.first_submission is not None]
    times = ", ".join(f"{one.first_submission:.0f} s of {one.seconds:.0f} s" for one in stood)
    yield judge(
        Check.TIME, [f"no submission stood: {late}"] if late else [], evidence=f"a submission stood after {times}"
    )
    yield Finding(check=Check.TIME, state=UNCHECKED, evidence="the whole test within 2 hours on two T4s: none is here")


def _judge_limit(outcomes: Sequence[Outcome]) -> Iterator[Finding]:
    for one in outcomes:
        if one.session.kind is SessionKind.SHORT_LIMIT:
            fault = one.find_fault()
            if not fault and one.seconds > SHORT_LIMIT_SECONDS:
                fault = f"{one.session.name}: {one.seconds:.0f} s under a limit of {SHORT_LIMIT_SECONDS} s"
            evidence = f"under a limit of {SHORT_LIMIT_SECONDS} s work for hours ended after {one.seconds:.0f} s"
            yield judge(Check.TIME, [fault] if fault else [], evidence=evidence)


def judge_probes(outcomes: Sequence[Outcome]) -> Iterator[Finding]:
    """Judge sessions that must fail in words, and the one that looks at the library alone.

    Args:
        outcomes: Of the probes.

    Yields:
        Findings.
    """
    expected = {
        SessionKind.OLDER_WHEELS: (Check.VERSIONS, "an older version of the dataset questlib-wheels is mounted"),
        SessionKind.NO_TABLES: (Check.MISSING_INPUT, "google-quest-challenge"),
        SessionKind.HUB_NAME: (Check.HUB_CLOSED, HUB_NAME),
    }
    for one in outcomes:
        if one.session.kind is SessionKind.LIBRARY:
            fault = [] if one.status == 0 else [f"{one.session.name}: {one.error or one.log}"]
            yield judge(Check.IMPORTS, fault, evidence="every module of a kernel, from files that were not installed")
            yield judge(Check.GPUS, fault, evidence="two GPUs that do not compute are passed over")
            continue
        check, words = expected[one.session.kind]
        wrong = []
        if one.status == 0 or words not in one.error:
            wrong.append(f"{one.session.name}: the error must say {words!r}, however: {one.error!r}")
        elif one.error_seconds > _AT_ONCE:
            wrong.append(f"{one.session.name}: told after {one.error_seconds:.1f} s")
        told = one.error.split(": ", 1)[-1][:90]
        yield judge(check, wrong, evidence=f"told in {one.error_seconds:.1f} s: {told}")
