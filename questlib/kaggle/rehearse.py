"""The rehearsal: what a push would upload, run as Kaggle would run it, and judged by the thirty checks."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from questlib.artifacts import read_json, write_json
from questlib.attached import MANIFEST, WHEELS
from questlib.kaggle import sandbox
from questlib.kaggle.bundle import KERNEL_METADATA, KERNELS, production_parameters, set_parameters
from questlib.kaggle.check_datasets import check_datasets
from questlib.kaggle.check_metadata import check_metadata
from questlib.kaggle.check_notebook import LIMIT, check_notebook
from questlib.kaggle.findings import FAILED, UNCHECKED, Finding, judge, summarize
from questlib.kaggle.hidden import SWAPS, cut_tables, swap_test
from questlib.kaggle.judgements import judge_outcomes, judge_probes
from questlib.kaggle.manifest import fingerprint_of, hash_files
from questlib.kaggle.sessions import Outcome, Session, run_session
from questlib.kaggle.twin import make_twin

logger = logging.getLogger(__name__)

COMPETITION = "google-quest-challenge"
RECORD = "rehearsal.json"
N_QUESTIONS = 12


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What is rehearsed.

    Args:
        project: The project's root.
        bundle: What `write_bundle` wrote.
        kernel: "train" or "predict".
        profile: What the bundle was written with.
        data: Folder of the tables, of which a few questions are used.
        images: Python minors of the images, such as "3.12".
        layouts: Mount layouts.
        folder: Takes inputs, outputs and logs.
    """

    project: Path
    bundle: Path
    kernel: str
    profile: str
    data: Path
    images: Sequence[str]
    layouts: Sequence[str]
    folder: Path


def rehearse(rehearsal: Rehearsal) -> list[Finding]:
    """Rehearse a kernel of a bundle, as far as it goes, and record the result in the bundle.

    Args:
        rehearsal: What is rehearsed.

    Returns:
        One finding for each of the thirty checks. What fails before anything runs ends the rehearsal there.
    """
    shutil.rmtree(rehearsal.folder, ignore_errors=True)
    rehearsal.folder.mkdir(parents=True)
    findings = list(check_statically(rehearsal))
    if not _failed(findings):
        reason = sandbox.why_not()
        if reason:
            findings.append(Finding(check=15, state=FAILED, evidence=f"nothing could be run: {reason}"))
        else:
            findings += _check_wire(rehearsal)
    if not _failed(findings):
        findings += _check_sessions(rehearsal)
    summary = summarize(findings)
    record = {"contents": hash_contents(rehearsal.bundle, kernel=rehearsal.kernel), "passed": not _failed(summary)}
    lines = [{"check": one.check, "state": one.state, "evidence": one.evidence} for one in summary]
    write_json(rehearsal.bundle / rehearsal.kernel / RECORD, record | {"findings": lines})
    return summary


def check_statically(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Check what can be seen before anything runs.

    Args:
        rehearsal: What is rehearsed.

    Yields:
        Findings.
    """
    bundle, described = rehearsal.bundle, KERNELS[rehearsal.kernel]
    datasets = bundle / "datasets"
    yield from check_metadata(bundle / rehearsal.kernel)
    slugs = [WHEELS, described.weights]
    found = check_datasets(rehearsal.project, datasets, slugs=slugs)
    yield from found
    if all((datasets / slug / MANIFEST).is_file() for slug in slugs):
        parameters = production_parameters(
            rehearsal.project, kernel=rehearsal.kernel, profile=rehearsal.profile, datasets=datasets
        )
        notebook = bundle / rehearsal.kernel / described.notebook
        yield from check_notebook(notebook, parameters=parameters, attached={COMPETITION, *slugs})


def refuse_unrehearsed(bundle: Path, *, kernel: str) -> None:
    """Refuse a kernel that was not rehearsed as it is, or failed.

    Args:
        bundle: What `write_bundle` wrote.
        kernel: "train" or "predict".

    Raises:
        RuntimeError: If so.
    """
    path = bundle / kernel / RECORD
    record = read_json(path) if path.is_file() else {}
    if not record.get("passed") or record["contents"] != hash_contents(bundle, kernel=kernel):
        raise RuntimeError(
            f"{bundle / kernel} must have passed its rehearsal as it is, however it has not; rehearse it"
        )


def hash_contents(bundle: Path, *, kernel: str) -> str:
    """Hash what a push of a kernel would upload."""
    folders = [bundle / kernel, *(bundle / "datasets" / slug for slug in (WHEELS, KERNELS[kernel].weights))]
    hashes = {
        f"{folder.name}/{name}": digest
        for folder in folders
        for name, digest in hash_files(folder).items()
        if name != RECORD
    }
    return fingerprint_of(hashes)


def _failed(findings: Sequence[Finding]) -> bool:
    return any(finding.state == FAILED for finding in findings)


def _check_wire(rehearsal: Rehearsal) -> Iterator[Finding]:
    logger.info("pushing with the real client to a server on this machine")
    folder = rehearsal.folder / "wire"
    command = [sys.executable, "-m", "questlib.kaggle.wire", str(rehearsal.bundle), rehearsal.kernel, str(folder)]
    namespace = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    done = subprocess.run([*namespace, *command], capture_output=True, text=True)
    if done.returncode:
        yield judge(
            10, [f"the client must start and push, however: {(done.stderr or done.stdout)[-500:]}"], evidence=""
        )
        return
    seen = json.loads(done.stdout.splitlines()[-1])
    yield judge(10, [], evidence=seen["client"])
    body = seen["body"]
    internet = [] if body.get("enableInternet") is False else ["enableInternet is not false in what was posted"]
    yield judge(2, internet, evidence="and so it was posted")
    accepted = [name for name, error in seen["refusals"].items() if not error]
    yield judge(7, [f"taken as accepted: {accepted}"] if accepted else [], evidence=f"{len(seen['refusals'])} refusals")
    large = [f"the posted body has {seen['bytes']} bytes"] if seen["bytes"] >= LIMIT else []
    yield judge(8, large, evidence=f"{seen['bytes']} bytes were posted")
    owner = read_json(rehearsal.bundle / rehearsal.kernel / KERNEL_METADATA)["id"].split("/")[0]
    wrong = []
    for slug in (WHEELS, KERNELS[rehearsal.kernel].weights):
        sent = hash_files(rehearsal.bundle / "datasets" / slug)
        if hash_files(folder / "datasets" / owner / slug) != sent:
            wrong.append(f"{slug} did not arrive whole")
    yield judge(21, wrong, evidence="every file arrived")


def _check_sessions(rehearsal: Rehearsal) -> Iterator[Finding]:
    metadata = read_json(rehearsal.bundle / rehearsal.kernel / KERNEL_METADATA)
    owner = metadata["id"].split("/")[0]
    wire = rehearsal.folder / "wire"
    text = (wire / "kernels" / metadata["id"] / "kernel.ipynb").read_text(encoding="utf-8")
    # What is mounted is what arrived, not what lies in the bundle.
    datasets = [wire / "datasets" / owner / slug for slug in (WHEELS, KERNELS[rehearsal.kernel].weights)]
    tables = rehearsal.folder / "tables"
    public = cut_tables(rehearsal.data, tables / "public" / COMPETITION, n_questions=N_QUESTIONS)
    hidden = {name: swap_test(public, tables / name / COMPETITION, swap=swap) for name, swap in SWAPS.items()}
    sessions: list[Session] = []
    probes: list[Session] = []
    for place, image in enumerate(rehearsal.images):
        twin = make_twin(image)
        for number, layout in enumerate(rehearsal.layouts):
            base = Session(
                name=f"Python {image}, {layout} layout",
                text=text,
                twin=twin,
                layout=layout,
                is_deeper=(number + place) % 2 == 0,
                owner=owner,
                datasets=datasets,
                competition=public,
            )
            sessions.append(base)
            sessions += [
                replace(base, name=f"{base.name}, {name}", competition=folder, is_rerun=True)
                for name, folder in hidden.items()
            ]
        probes += _list_probes(replace(base, name=f"Python {image}"), folder=rehearsal.folder)
    outcomes = _run_all([*sessions, *probes], folder=rehearsal.folder)
    yield from judge_outcomes(outcomes[: len(sessions)])
    yield from judge_probes(outcomes[len(sessions) :])
    for twin in {one.twin.image: one.twin for one in sessions}.values():
        if twin.stands_in:
            yield Finding(check=15, state=UNCHECKED, evidence=twin.stands_in)


def _run_all(sessions: Sequence[Session], *, folder: Path) -> list[Outcome]:
    n_cores = os.cpu_count() or 1
    n_workers = min(len(sessions), n_cores)
    with ThreadPoolExecutor(n_workers) as pool:
        return list(
            pool.map(
                lambda numbered: run_session(
                    numbered[1], folder / f"session-{numbered[0]:02d}", threads=max(1, n_cores // n_workers)
                ),
                enumerate(sessions),
            )
        )


def _list_probes(base: Session, *, folder: Path) -> list[Session]:
    """Runs that must fail, each in its own words, and one that looks at the library alone."""
    older = folder / "older" / base.twin.image / WHEELS
    shutil.copytree(next(path for path in base.datasets if path.name == WHEELS), older)
    manifest = read_json(older / MANIFEST)
    write_json(older / MANIFEST, manifest | {"fingerprint": "0" * 64})
    datasets = [older if path.name == WHEELS else path for path in base.datasets]
    name = "encoder" if any("encoder" in path.name for path in base.datasets) else "run"
    return [
        replace(base, name=f"{base.name}, older wheels", datasets=datasets),
        replace(base, name=f"{base.name}, no tables", competition=None),
        replace(base, name=f"{base.name}, hub name", text=_with_parameters(base.text, {name: "some-owner/some-model"})),
        replace(base, name=f"{base.name}, library", text=_probe_library(base.text)),
    ]


def _with_parameters(text: str, values: dict[str, Any]) -> str:
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = set_parameters("".join(cell["source"]), values)
    return json.dumps(notebook)


def _probe_library(text: str) -> str:
    notebook = json.loads(text)
    code = Path(__file__).with_name("probe.py").read_text(encoding="utf-8")
    parameters = next(cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", []))
    described: dict[str, Any] = {
        "cell_type": "code",
        "id": "probe",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    probe = described | {"source": code}
    return json.dumps(notebook | {"cells": [parameters, probe]})
