"""Break runs in every way that a machine can, and show what was lost.

Kills at random moments, signals, full disks, and slow machines under a time limit; a tiny encoder, the committed
sample, real processes. Every run must leave a valid submission, and gone on with it must end as if nothing had
happened.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from slowed import copy_rows

from questlib.data import read_table
from questlib.run_folder import OUT_OF_FOLD, SUBMISSION, TEST_PREDICTIONS
from questlib.schema import ID, TARGETS
from questlib.submission import check_submission

PROJECT = Path(__file__).parents[1]
SAMPLE = PROJECT / "notebooks/sample"
MEMBERS = "[{name: tiny, kind: transformer}, {name: words, kind: lexical}]"
OPTIONS = {
    "members": MEMBERS, "folds_to_train": "2", "max_length": "64", "stages.full.epochs": "12",
    "stages.head.epochs": "2", "patience": "0", "evaluate_every": "20", "precision": "fp32",
}  # fmt: skip
TOLERANCE = 1e-6
_ON_A_DISK = """
size="$1" out="$2" log="$3" kept="$4"; shift 4
mount -t tmpfs -o size="$size" tmpfs "$out"
"$@" > "$log" 2>&1; status=$?
find "$out" -name ".unfinished-*" | wc -l
cp "$out/run/submission.csv" "$kept" 2> /dev/null
exit $status
"""


def command(out: Path, encoder: Path, **changes: str) -> list[str]:
    """Give the command of a run; `changes` are parameters, with a full stop in their names where they reach inside."""
    options = OPTIONS | changes | {"encoder": str(encoder)}
    given = [part for name, value in options.items() for part in ("-p", name, value)]
    return [sys.executable, "-m", "questlib", "run", "--data", str(SAMPLE), "--out", str(out), *given]


def start(out: Path, encoder: Path, **changes: str) -> subprocess.Popen:
    """Start a run; its log lies beside its folder."""
    log = out.with_suffix(".log").open("a")
    return subprocess.Popen(command(out, encoder, **changes), cwd=PROJECT, stdout=log, stderr=log)


def find_submission_fault(out: Path, *, n_copies: int = 1) -> str:
    """Say what is wrong with what stands; empty where it is valid, or none stands yet."""
    if not (out / SUBMISSION).exists():
        return ""
    sample = copy_rows(read_table(SAMPLE / "sample_submission.csv", columns=(ID, *TARGETS)), n_copies)
    try:
        frame = read_table(out / SUBMISSION, columns=(ID,))
        check_submission(frame, columns=list(sample.columns), ids=sample[ID].to_numpy())
    except ValueError as error:
        return str(error)
    return ""


def find_difference(out: Path, whole: Path) -> str:
    """Say where a run's predictions differ from those of the run that was left alone; empty where nowhere."""
    names = [SUBMISSION]
    names += [
        path.relative_to(whole).as_posix() for each in (OUT_OF_FOLD, TEST_PREDICTIONS) for path in whole.rglob(each)
    ]
    for name in names:
        one, other = (read_table(folder / name, columns=(ID, *TARGETS))[list(TARGETS)] for folder in (out, whole))
        distance = float(np.abs(one.to_numpy() - other.to_numpy()).max())
        if distance > TOLERANCE:
            return f"{name} differs by {distance:.2g}"
    return ""


def list_children(process: subprocess.Popen) -> list[psutil.Process]:
    """List what a process has started, as far as it lives."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def break_run(out: Path, encoder: Path, *, after: float, how: str, **changes: str) -> tuple[str, float]:
    """Start a run, end it after some seconds, and tell what was wrong and how long the end took."""
    process = start(out, encoder, **changes)
    time.sleep(after)
    children = list_children(process)
    begun = time.monotonic()
    if how == "kill the kernel" and children:
        children[0].kill()
    else:
        process.send_signal({"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM}.get(how, signal.SIGKILL))
    try:
        status = process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        return f"{how} was not heard", time.monotonic() - begun
    took = time.monotonic() - begun
    time.sleep(0.3)
    left = [child.pid for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    if left:
        return f"processes {left} outlived it", took
    expected = {"SIGINT": 130, "SIGTERM": 143}.get(how)
    # Minus the signal: it came before Python had read our code.
    if expected is not None and status not in (expected, 128 - expected, 0):
        return f"status {status} for {expected}", took
    if expected is not None and took > 12:
        return f"it took {took:.0f} s to end", took
    return find_submission_fault(out), took


def stress_kills(
    folder: Path, encoder: Path, *, n_kills: int, seed: int, jobs: int = 1, **changes: str
) -> Iterator[dict]:
    """Kill runs at random moments, go on with each, and compare with a run that was left alone."""
    whole, *others = [folder / f"whole-{number}" for number in range(jobs)]
    begun = time.monotonic()
    for out, process in [(out, start(out, encoder, **changes)) for out in (whole, *others)]:
        if process.wait() != 0:
            raise RuntimeError(f"the run that is left alone must succeed; see {out.with_suffix('.log')}")
    seconds = time.monotonic() - begun
    sys.stdout.write(f"a run that is left alone takes {seconds:.1f} s\n")
    for out in others:
        fault = find_difference(out, whole)
        yield {"kind": "killed", "how": "left alone", "after": seconds, "took": 0.0, "stood": True, "fault": fault}
    draw = random.Random(seed)
    hows = [draw.choice(["kill", "kill", "kill the kernel", "SIGINT", "SIGTERM"]) for _ in range(n_kills)]
    afters = [draw.uniform(0.5, 0.95 * seconds) for _ in range(n_kills)]

    def kill(number: int) -> dict:
        out, how, after = folder / f"killed-{number}", hows[number], afters[number]
        fault, took = break_run(out, encoder, after=after, how=how, **changes)
        stood = (out / SUBMISSION).exists()
        status = start(out, encoder, **changes).wait()
        fault = fault or (f"status {status} when gone on with" if status else find_difference(out, whole))
        if not fault:
            shutil.rmtree(out)
        return {"kind": "killed", "how": how, "after": after, "took": took, "stood": stood, "fault": fault}

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(kill, range(n_kills))


def stress_disk(folder: Path, encoder: Path) -> Iterator[dict]:
    """Run on disks of growing size until one suffices; what does not fit must be told by name, and nothing be half."""
    for size in ("300k", "600k", "1m", "1500k", "2m", "3m", "4m", "6m", "8m", "12m", "24m", "48m"):
        out, log, kept = (folder / f"disk-{size}{suffix}" for suffix in ("", ".log", "-submission"))
        out.mkdir(exist_ok=True)
        kept.mkdir(exist_ok=True)
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _ON_A_DISK, "sh", size, out, log, kept,
             *command(out / "run", encoder)],
            cwd=PROJECT, capture_output=True, text=True,
        )  # fmt: skip
        told = log.read_text() if log.exists() else done.stderr
        fault = find_submission_fault(kept)
        if done.stdout.strip() != "0":
            fault = f"{done.stdout.strip()} files are half-written"
        elif done.returncode and "the disk must have room for" not in told and "No space left" not in told:
            fault = f"status {done.returncode} without a word of the disk: {told[-300:]}"
        stood = (kept / SUBMISSION).exists()
        yield {"kind": "disk", "how": size, "status": done.returncode, "stood": stood, "fault": fault}
        if done.returncode == 0:
            return


def stress_limits(folder: Path, encoder: Path, *, n_runs: int, seed: int, jobs: int = 1) -> Iterator[dict]:
    """Run slowed machines under a time limit."""
    draw = random.Random(seed)
    cases = []
    for number in range(n_runs):
        how = draw.choice(["steps", "test", "disk", "install"])
        slowness = {"steps": draw.uniform(0.05, 0.6), "disk": draw.uniform(0.1, 0.5), "install": draw.uniform(2, 15)}
        cases.append({
            "out": str(folder / f"slow-{number}"), "encoder": str(encoder), "limit": draw.uniform(45, 80), "how": how,
            "slowness": slowness.get(how, 0.1),
        })  # fmt: skip

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(run_slowed, cases)


def run_slowed(case: dict) -> dict:
    """Run a slowed machine under a limit in seconds, and tell what was wrong."""
    out, limit = Path(case["out"]), case["limit"]
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("slowed.py")), json.dumps(case)],
        cwd=PROJECT, capture_output=True, text=True,
    )  # fmt: skip
    took = time.monotonic() - begun
    timeline = json.loads((out / "timeline.json").read_text()) if (out / "timeline.json").exists() else {}
    plans = [each["plan"] for each in timeline.get("plan", [])]
    is_whole = bool(plans) and " of " not in plans[-1].replace("epochs of", "").replace("folds of", "")
    fault = find_submission_fault(out, n_copies=10 if case["how"] == "test" else 1)
    if done.returncode:
        fault = f"status {done.returncode}: {done.stderr[-300:]}"
    elif not (out / SUBMISSION).exists():
        fault = "no submission"
    elif took > limit:
        fault = f"{took:.1f} s for {limit:.1f} s"
    elif took < 0.85 * limit and not is_whole:
        fault = f"only {took / limit:.0%} of the limit was used: {plans[-1:]}"
    if not fault:
        shutil.rmtree(out)
    return {"kind": "limit", "how": case["how"], "after": limit, "used": took / limit, "plans": plans, "fault": fault}


@contextmanager
def make_place(kept: Path | None) -> Iterator[Path]:
    """Give a folder, which is removed at the end where none is named."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        yield Path(folder)


def main() -> int:
    """Break runs, print a line for each and a summary; 1 where one had a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="runs that are killed")
    parser.add_argument("--limits", type=int, default=20, help="slowed runs under a limit")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, which share the cores")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, help="keeps what went wrong (a temporary folder)")
    parser.add_argument("--json", type=Path, help="file for all results")
    parsed = parser.parse_args()
    sys.path.insert(0, str(PROJECT / "tests"))
    import toy

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // parsed.jobs))
    with make_place(parsed.folder) as folder:
        encoder = folder / "tiny"
        encoder.mkdir(exist_ok=True)
        toy.write_encoder(encoder)
        results = [
            *_told(stress_kills(folder, encoder, n_kills=parsed.kills, seed=parsed.seed, jobs=parsed.jobs)),
            *_told(stress_disk(folder, encoder)),
            *_told(stress_limits(folder, encoder, n_runs=parsed.limits, seed=parsed.seed, jobs=parsed.jobs)),
        ]
    if parsed.json:
        parsed.json.parent.mkdir(parents=True, exist_ok=True)
        parsed.json.write_text(json.dumps(results, indent=1) + "\n")
    for kind in ("killed", "disk", "limit"):
        own = [result for result in results if result["kind"] == kind]
        wrong = [result for result in own if result["fault"]]
        sys.stdout.write(f"{kind}: {len(own)} runs, {len(wrong)} with a fault\n")
    return int(any(result["fault"] for result in results))


def _told(results: Iterator[dict]) -> Iterator[dict]:
    for result in results:
        numbers = {name: round(value, 2) if isinstance(value, float) else value for name, value in result.items()}
        sys.stdout.write(json.dumps(numbers) + "\n")
        sys.stdout.flush()
        yield result


if __name__ == "__main__":
    sys.exit(main())
