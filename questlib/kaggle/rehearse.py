"""The rehearsal: what a push would upload, run as Kaggle would run it, and judged by the thirty checks."""

import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from questlib.attached import MANIFEST, REQUIREMENTS, WHEELS
from questlib.kaggle import sandbox
from questlib.kaggle.bundle import Order, production_parameters
from questlib.kaggle.check_datasets import check_datasets
from questlib.kaggle.check_metadata import check_metadata
from questlib.kaggle.check_notebook import LIMIT, check_notebook
from questlib.kaggle.findings import FAILED, PASSED, UNCHECKED, Check, Finding, has_failed, judge, summarize
from questlib.kaggle.hidden import SWAPS, cut_tables, swap_test
from questlib.kaggle.judgements import judge_limit, judge_outcomes, judge_probes
from questlib.kaggle.kernels import COMPETITION, KERNEL_METADATA, RECORD, hash_contents
from questlib.kaggle.manifest import hash_files, write_manifest
from questlib.kaggle.mounts import MOUNTS
from questlib.kaggle.sessions import HUB_NAME, SHORT_LIMIT_SECONDS, Outcome, Session, SessionKind, run_session
from questlib.kaggle.twin import make_twin
from questlib.parameters import TAG, read_cell, write_cell
from questlib.run_folder import read_json, write_json

logger = logging.getLogger(__name__)

N_QUESTIONS = 12


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What is rehearsed."""

    order: Order  # what the bundle was written by
    bundle: Path  # what `write_bundle` wrote
    data: Path  # folder of the tables, of which a few questions are used
    images: Sequence[str]  # Python minors of the images, such as "3.12"
    folder: Path  # takes inputs, outputs and logs

    @property
    def kernel_folder(self) -> Path:
        """The kernel's folder in the bundle."""
        return self.bundle / self.order.kernel


def rehearse(rehearsal: Rehearsal) -> list[Finding]:
    """Rehearse a kernel of a bundle, as far as it goes, and record the result in the bundle.

    Args:
        rehearsal: What is rehearsed.

    Returns:
        One finding for each of the thirty checks. What fails before anything runs ends the rehearsal there.
    """
    shutil.rmtree(rehearsal.folder, ignore_errors=True)
    rehearsal.folder.mkdir(parents=True)
    findings = list(check_statically(rehearsal.order, rehearsal.bundle))
    if not has_failed(findings):
        reason = sandbox.why_not()
        if reason:
            findings.append(Finding(check=Check.RUNS, state=FAILED, evidence=f"nothing could be run: {reason}"))
        else:
            findings += _check_wire(rehearsal)
    if not has_failed(findings):
        findings += _check_sessions(rehearsal)
    summary = summarize(findings)
    contents = hash_contents(rehearsal.bundle, kernel=rehearsal.order.kernel)
    record = {"contents": contents, "passed": not has_failed(summary)}
    lines = [{"check": one.check.number, "state": one.state, "evidence": one.evidence} for one in summary]
    write_json(rehearsal.kernel_folder / RECORD, record | {"findings": lines})
    return summary


def check_statically(order: Order, bundle: Path) -> Iterator[Finding]:
    """Check what can be seen before anything runs.

    Args:
        order: What the bundle was written by.
        bundle: What `write_bundle` wrote.

    Yields:
        Findings.
    """
    folder, datasets, slugs = bundle / order.kernel, bundle / "datasets", order.list_datasets()
    found = check_metadata(folder)
    yield from found
    yield from check_datasets(order.project, datasets, slugs=slugs)
    stated = {one.check for one in found if one.state == PASSED} >= {Check.METADATA, Check.SOURCES, Check.CODE_FILE}
    if stated and all((datasets / slug / MANIFEST).is_file() for slug in slugs):
        parameters = production_parameters(order, datasets=datasets)
        metadata = read_json(folder / KERNEL_METADATA)
        own = [source.split("/") for source in metadata["dataset_sources"] if source.startswith(f"{order.owner}/")]
        yield from check_notebook(
            folder / metadata["code_file"],  # what is pushed, whatever else lies there
            parameters=parameters,
            attached={*metadata["competition_sources"], *(slug for _, slug, *_ in own)},
        )
        yield judge_limit(parameters["time_limit_minutes"], has_gpu=metadata["enable_gpu"])


def _check_wire(rehearsal: Rehearsal) -> Iterator[Finding]:
    logger.info("pushing with the real client to a server on this machine")
    folder = rehearsal.folder / "wire"
    command = [sys.executable, "-m", "questlib.kaggle.wire", str(rehearsal.bundle), rehearsal.order.kernel, str(folder)]
    namespace = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    done = subprocess.run([*namespace, *command], capture_output=True, text=True)
    if done.returncode:
        yield judge(
            Check.CLIENT,
            [f"the client must start and push, however: {(done.stderr or done.stdout)[-500:]}"],
            evidence="",
        )
        return
    seen = json.loads(done.stdout.splitlines()[-1])
    yield judge(Check.CLIENT, [], evidence=seen["client"])
    body = seen["body"]
    internet = [] if body.get("enableInternet") is False else ["enableInternet is not false in what was posted"]
    yield judge(Check.INTERNET_OFF, internet, evidence="and so it was posted")
    accepted = [name for name, error in seen["refusals"].items() if not error]
    yield judge(
        Check.REFUSALS,
        [f"taken as accepted: {accepted}"] if accepted else [],
        evidence=f"{len(seen['refusals'])} refusals",
    )
    large = [f"the posted body has {seen['bytes']} bytes"] if seen["bytes"] >= LIMIT else []
    yield judge(Check.SIZE, large, evidence=f"{seen['bytes']} bytes were posted")
    wrong = []
    for slug in rehearsal.order.list_datasets():
        sent = hash_files(rehearsal.bundle / "datasets" / slug)
        if hash_files(folder / "datasets" / rehearsal.order.owner / slug) != sent:
            wrong.append(f"{slug} did not arrive whole")
    yield judge(Check.DATASETS, wrong, evidence="every file arrived")


def _check_sessions(rehearsal: Rehearsal) -> Iterator[Finding]:
    # What is mounted is what arrived, not what lies in the bundle.
    wire = rehearsal.folder / "wire"
    arrived = wire / "kernels" / read_json(rehearsal.kernel_folder / KERNEL_METADATA)["id"]
    posted = read_json(arrived / "request.json")
    tables = rehearsal.folder / "tables"
    public = cut_tables(rehearsal.data, tables / "public" / COMPETITION, n_questions=N_QUESTIONS)
    hidden = {name: swap_test(public, tables / name / COMPETITION, swap=swap) for name, swap in SWAPS.items()}
    sessions: list[Session] = []
    probes: list[Session] = []
    for image in rehearsal.images:
        base = Session(
            text=(arrived / "kernel.ipynb").read_text(encoding="utf-8"),
            twin=make_twin(image),
            owner=rehearsal.order.owner,
            trains=rehearsal.order.kernel == "train",
            datasets=[wire / "datasets" / source for source in posted["datasetDataSources"]],
            competition=public if COMPETITION in posted["competitionDataSources"] else None,
        )
        sessions.append(base)
        sessions += [
            replace(base, kind=SessionKind.HIDDEN_TEST, swap=name, competition=hidden[name], mounted=mounted)
            for name, mounted in zip(hidden, itertools.cycle(MOUNTS), strict=False)
        ]
        if rehearsal.order.kernel == "train":
            sessions.append(replace(base, kind=SessionKind.SHORT_LIMIT, text=_shorten_limit(base.text)))
        probes += _list_probes(base, rehearsal)
    outcomes = _run_all([*sessions, *probes], folder=rehearsal.folder)
    yield from judge_outcomes(outcomes[: len(sessions)])
    yield from judge_probes(outcomes[len(sessions) :])
    for twin in {one.twin.image: one.twin for one in sessions}.values():
        if twin.stands_in:
            yield Finding(check=Check.RUNS, state=UNCHECKED, evidence=twin.stands_in)


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


def _list_probes(base: Session, rehearsal: Rehearsal) -> list[Session]:
    """Runs that must fail, each in its own words, and one that looks at the library alone."""
    older = rehearsal.folder / "older" / base.twin.image / WHEELS
    shutil.copytree(next(path for path in base.datasets if path.name == WHEELS), older)
    with (older / REQUIREMENTS).open("a", encoding="utf-8") as stream:
        stream.write("# an older version, whole in itself\n")
    write_manifest(older)
    datasets = [older if path.name == WHEELS else path for path in base.datasets]
    return [
        replace(base, kind=SessionKind.OLDER_WHEELS, datasets=datasets),
        replace(base, kind=SessionKind.NO_TABLES, competition=None),
        replace(base, kind=SessionKind.HUB_NAME, text=_name_hub(base.text)),
        replace(base, kind=SessionKind.LIBRARY, text=_probe_library(base.text)),
    ]


def _name_hub(text: str) -> str:
    member = {"name": "hub", "kind": "transformer", "encoder": HUB_NAME}
    return _change(text, lambda values: {"run": HUB_NAME} if "run" in values else {"members": [member]})


def _shorten_limit(text: str) -> str:
    """Work for hours, and no time for it."""

    def lengthen(values: dict[str, Any]) -> dict[str, Any]:
        long = {"stages": [stage | {"epochs": 300.0} for stage in values.get("stages", ())], "patience": 0}
        return values | {name: long[name] for name in long if name in values}  # a member may have its own

    return _change(
        text,
        lambda values: (
            lengthen(values)
            | {
                "time_limit_minutes": SHORT_LIMIT_SECONDS / 60,
                "members": [lengthen(member) for member in values["members"]],
            }
        ),
    )


def _change(text: str, choose: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """Give parameters other values, as chosen from those that they have."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if TAG in cell["metadata"].get("tags", []):
            source = "".join(cell["source"])
            cell["source"] = write_cell(source, choose(read_cell(source)))
    return json.dumps(notebook)


def _probe_library(text: str) -> str:
    notebook = json.loads(text)
    code = Path(__file__).with_name("probe.py").read_text(encoding="utf-8")
    parameters = next(cell for cell in notebook["cells"] if TAG in cell["metadata"].get("tags", []))
    described: dict[str, Any] = {
        "cell_type": "code",
        "id": "probe",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    probe = described | {"source": code}
    return json.dumps(notebook | {"cells": [parameters, probe]})
