"""Checks 9, 15, 16, 18, 20 and 22 to 30: what the sessions of a rehearsal show."""

from collections.abc import Iterator, Sequence

from packaging.utils import canonicalize_name

from questlib.kaggle.findings import UNCHECKED, Check, Finding, judge
from questlib.kaggle.kernels import CPU_MINUTES, GPU_MINUTES
from questlib.kaggle.mounts import MOUNTS
from questlib.kaggle.output import refuse_unlike
from questlib.kaggle.sessions import HUB_NAME, SHORT_LIMIT_SECONDS, Outcome, SessionKind

_MOST_FILES, _MOST_BYTES = 500, 20 * 1000**3
_AT_ONCE = 5.0  # seconds
_CLOSED = "HF_HUB_OFFLINE=1"  # what an encoder that is not here is told with
_EARLY = 0.6  # of a session: here it trains for seconds, and to install and import takes half a minute


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
    ended += [told for one in outcomes if one.status == 0 and one.is_complete for told in _judge_output(one)]
    yield judge(Check.RUNS, faults + ended, evidence=f"{len(outcomes)} sessions in {'; '.join(twins)}")
    yield judge(
        Check.INSTALL,
        list(_judge_packages(outcomes)),
        evidence="questlib and the locked wheels were added, nothing moved",
    )
    yield judge(Check.MANGLED, faults, evidence="inputs were mangled as the upload does")
    seen = dict.fromkeys(one.session.mounted for one in outcomes)
    yield judge(Check.MOUNTS, faults, evidence=", ".join(map(str, seen)))
    if missed := [str(each) for each in MOUNTS if each not in seen]:
        yield Finding(check=Check.MOUNTS, state=UNCHECKED, evidence=f"no session had: {', '.join(missed)}")
    yield judge(Check.WRITES, list(_judge_writes(outcomes)), evidence="all else was read-only")
    yield from _judge_network(outcomes, what="sessions")
    yield judge(Check.GPUS, faults, evidence="0 GPUs")
    yield Finding(check=Check.GPUS, state=UNCHECKED, evidence="1 or 2 GPUs that compute: none is here")
    swaps = ", ".join(dict.fromkeys(one.session.swap for one in hidden))
    wrong = [one.find_fault() for one in hidden if one.find_fault()]
    yield judge(Check.HIDDEN_TEST, wrong, evidence=f"a valid submission each for: {swaps}")
    yield from _judge_time(public)
    yield from _judge_limit(outcomes)


def _judge_output(one: Outcome) -> Iterator[str]:
    # As `make output` judges it when it is fetched.
    try:
        refuse_unlike(one.working, kernel=one.session.name)
    except RuntimeError as error:
        yield str(error)


def _judge_packages(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for one in outcomes:
        wheels = [path for folder in one.session.datasets for path in folder.glob("*.whl")]
        shipped = {canonicalize_name(path.name.split("-")[0]) for path in wheels}
        added = {canonicalize_name(line.split("==")[0]) for line in one.seen.get("installed", [])}
        removed = one.seen.get("removed", [])
        if removed or not added or added != shipped:
            yield f"{one.session.name}: shipped {sorted(shipped)}, added {sorted(added)}, removed {removed}"


def _judge_writes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for one in outcomes:
        if "Read-only file system" in one.error:
            yield f"{one.session.name}: {one.error}"
        sizes = [path.stat().st_size for path in one.working.rglob("*") if path.is_file()]
        if len(sizes) >= _MOST_FILES or sum(sizes) >= _MOST_BYTES:
            yield f"{one.session.name}: {len(sizes)} files of {sum(sizes) / 1e9:.1f} GB"


def _judge_network(outcomes: Sequence[Outcome], *, what: str) -> Iterator[Finding]:
    traced = [one for one in outcomes if one.seen.get("connects") is not None]
    wrong = [f"{one.session.name}: {one.seen['connects'][0]}" for one in traced if one.seen["connects"]]
    yield judge(Check.NETWORK, wrong, evidence=f"{len(outcomes)} {what} had no network")
    if not traced:
        yield Finding(check=Check.NETWORK, state=UNCHECKED, evidence="attempts: strace is not installed")


def _judge_time(public: Sequence[Outcome]) -> Iterator[Finding]:
    told = [(one, one.first_submission) for one in public if one.status == 0]
    times = ", ".join(f"after {first:.0f} s of {one.seconds:.0f} s" if first else "never" for one, first in told)
    late = [one for one, first in told if first is None or (one.session.trains and first > _EARLY * one.seconds)]
    stood = f"a submission stood {times}"
    yield judge(Check.TIME, [f"{stood}: a training must leave one early"] if late else [], evidence=stood)
    yield Finding(check=Check.TIME, state=UNCHECKED, evidence="the whole test on Kaggle's machine")


def judge_limit(minutes: float, *, has_gpu: bool) -> Finding:
    """Judge whether a kernel's own limit, in minutes, keeps it within what the competition gives."""
    most = GPU_MINUTES if has_gpu else CPU_MINUTES
    told = f"time_limit_minutes is {minutes:g} of the {most} that a kernel with{'' if has_gpu else 'out'} a GPU has"
    wrong = [] if 0 < minutes <= most else [f"{told}: choose one between"]
    return judge(Check.TIME, wrong, evidence=told)


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
    yield from _judge_network(outcomes, what="probes")
    for one in outcomes:
        if one.session.kind is SessionKind.LIBRARY:
            fault = [] if one.status == 0 else [f"{one.session.name}: {one.error or one.log}"]
            yield judge(Check.IMPORTS, fault, evidence="every module of a kernel, from the mounted wheel itself")
            yield judge(Check.GPUS, fault, evidence="two GPUs that do not compute are passed over")
            continue
        check, words = expected[one.session.kind]
        wrong = []
        if one.status == 0 or words not in one.error:
            wrong.append(f"{one.session.name}: the error must say {words!r}, however: {one.error!r}")
        elif check is Check.HUB_CLOSED and one.session.trains and _CLOSED not in one.error:  # a run is on no hub
            wrong.append(f"{one.session.name}: the hub must be closed ({_CLOSED}), however: {one.error!r}")
        elif one.error_seconds > _AT_ONCE:
            wrong.append(f"{one.session.name}: its cell told after {one.error_seconds:.1f} s")
        told = one.error.split(": ", 1)[-1][:90]
        when = f"told by its cell in {one.error_seconds:.1f} s, {one.seconds:.0f} s after the start"
        yield judge(check, wrong, evidence=f"{when}: {told}")
