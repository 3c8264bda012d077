"""The report of a run: one HTML file that opens offline, drawn from the run folder alone, finished or not."""

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from questlib import report
from questlib.charts import BLUE, ORANGE
from questlib.clock import read_sessions
from questlib.comparison import MEAN, MEAN_WITHOUT_RARE, name_machine, read_run
from questlib.data import read_table
from questlib.executed import Executed, Shown
from questlib.marks import check_outputs
from questlib.pieces import Html, show_table
from questlib.recipe import Recipe
from questlib.run_folder import (
    BLENDED,
    ENSEMBLE,
    INPUTS,
    OUTPUTS,
    RECIPE,
    REPORT,
    RUN,
    SCORES,
    SUBMISSION,
    TIMELINE,
    read_json,
    write_text,
)
from questlib.schema import ID, TARGETS

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
_TEMPLATES.globals |= {"blue": BLUE, "orange": ORANGE}


class _Section(NamedTuple):
    title: str
    note: str
    body: Html


class _Run:
    """What a run folder holds, as far as it is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if self.has(RUN, OUTPUTS):
            check_outputs(folder)
        # People leave notebooks of their own beside it, which declare nothing, or no members.
        notebooks = [each for each in map(Executed, sorted(folder.glob("*.ipynb"))) if each.parameters]
        self.executed = max(notebooks, key=lambda each: "members" in each.parameters, default=None)
        self.record = read_run(folder) if self.has(RUN, OUTPUTS) else None
        self.recipe = Recipe.from_dict(read_json(folder / RECIPE)).without_paths() if self.has(RECIPE, INPUTS) else None
        self.is_scored = self.has(RECIPE, INPUTS, SCORES, ENSEMBLE, BLENDED)
        self.leaks = self.score is not None and read_json(folder / SCORES)["leaks"]
        self.sessions = read_sessions(folder)

    def has(self, *names: str) -> bool:
        return all((self.folder / name).is_file() for name in names)

    @property
    def state(self) -> str:
        if self.executed is None:  # a run of one's own code, or what is left of one
            return "finished" if self.has(OUTPUTS) else "unfinished"
        if self.executed.is_ended:
            return "finished"
        if self.executed.failure is None:
            return "broken off"
        return "interrupted" if self.executed.failure.name == "KeyboardInterrupt" else "failed"

    @property
    def score(self) -> dict[str, Any] | None:
        if self.record is not None:
            return self.record["score"]
        return read_json(self.folder / SCORES)["nested"]["scores"]["tied"] if self.is_scored else None


def write_page(run_folder: Path) -> Path:
    """Write a run's report into its folder; where the run failed, its error comes first, and then what there is.

    Raises:
        FileNotFoundError: If the folder holds nothing that a run leaves.
        ValueError: If the run came to its end and a file is not what it wrote, or one cannot be read.
    """
    if not any((run_folder / name).exists() for name in (RECIPE, TIMELINE, RUN)) and not list(
        run_folder.glob("*.ipynb")
    ):
        raise FileNotFoundError(f"{run_folder} must be a run folder, however it holds none of a run's files")
    run = _Run(run_folder)
    page = _TEMPLATES.get_template("page.html").render(
        title=_title(run),
        name=run_folder.resolve().name,
        state=run.state,
        failure=None if run.executed is None else run.executed.failure,
        score=run.score,
        protocol=report.describe_protocol(run_folder) if run.is_scored else "",
        facts=dict(_list_facts(run)),
        warnings=_list_warnings(run),
        notes=[note["note"] for session in run.sessions for note in session.get("notes", [])],
        sections=list(_list_sections(run)),
        log="" if run.executed is None else run.executed.log,
    )
    write_text(run_folder / REPORT, page)
    return run_folder / REPORT


def _title(run: _Run) -> str:
    came_of_it = run.state if run.state != "finished" or run.score is None else f"{run.score['mean']:.4f}"
    return f"{run.folder.resolve().name}: {came_of_it} - report of a QUEST run"


def _list_facts(run: _Run) -> Iterator[tuple[str, str]]:
    record = run.record
    if run.recipe is not None:
        hashes = read_json(run.folder / INPUTS)["encoder"]  # by titles such as "0 (model)"
        encoders = (f"{title.partition('(')[2][:-1]} ({digest[:8]})" for title, digest in hashes.items())
        yield "Encoders", ", ".join(encoders) or "none"
        members = (each.name + f" ({each.kind})" * (each.name != each.kind) for each in run.recipe.members)
        yield "Members", ", ".join(members)
    if record is not None:
        data, rows = record["data"], record["data"]["n_rows"]
        told = f"{rows['train.csv']:,} rows to learn from, {rows['test.csv']:,} to predict"
        yield "Data", f"{data['name']} ({data['sha256']['train.csv'][:8]}): {told}"
    elif run.has(INPUTS):
        yield "Data", f"train.csv {read_json(run.folder / INPUTS)['train.csv'][:8]}"
    yield "Submission", _describe_submission(run)
    seconds = sum(session.get("seconds", 0.0) for session in run.sessions)
    limit = run.sessions[-1].get("limit_seconds") if run.sessions else None
    of_limit = f" of {limit / 60:g}" if limit and len(run.sessions) == 1 else ""
    sessions = f" in {len(run.sessions)} sessions" if len(run.sessions) > 1 else ""
    if seconds:
        yield "Minutes", f"{seconds / 60:.1f}{of_limit}{sessions}"
    if record is not None:
        source = record["questlib"]
        yield "Machine", name_machine(record["machine"])
        yield "Profile", record["profile"] or "none was named"
        yield "Begun", str(record["start"]).replace("T", " ").replace("+00:00", " UTC")
        yield "questlib", " at ".join([source["version"], *([source["commit"][:12]] if source["commit"] else [])])


def _describe_submission(run: _Run) -> str:
    if not run.has(SUBMISSION):
        return "none was written"
    n_rows = len(read_table(run.folder / SUBMISSION, columns=(ID, *TARGETS)))  # in [0, 1], or refused
    if not run.has(ENSEMBLE):
        return f"stands, {n_rows:,} rows, of what was there first: nothing is blended yet"
    folds = read_json(run.folder / ENSEMBLE)["folds"]
    made_of = ", ".join(
        f"{len(each)} {'fold' if len(each) == 1 else 'folds'} of {name}" for name, each in folds.items()
    )
    return f"stands, {n_rows:,} rows, blended and tied: {made_of}"


def _list_warnings(run: _Run) -> Iterator[str]:
    if run.leaks:
        yield "The split leaks: a question stands on both sides, and every score here reads too high."
    if run.state != "finished":
        told = {"failed": "failed", "unfinished": f"left no {OUTPUTS}, its last word"}
        state = told.get(run.state, f"was {run.state}")
        yield f"The run {state}: scores and submission, if there are any, are of what was finished by then."
    elif run.recipe is not None and run.record is None:
        yield f"There is no {RUN}: this run is of an older questlib, and what only that file tells is left out."


def _list_sections(run: _Run) -> Iterator[_Section]:
    folder = run.folder
    if run.is_scored:
        yield _Section(
            "Scores",
            "All on the same rows, of whose questions members, blend and ties have seen others."
            if run.leaks
            else "All on the same questions, which no member, blend or tie has seen.",
            show_table(report.summarize_scores(folder), bars=[MEAN, MEAN_WITHOUT_RARE]),
        )
        yield _Section(
            "Members",
            "Each member as it is, on all that it predicted out of fold, one random row per question.",
            show_table(report.summarize_members(folder)),
        )
    curves = [f"<figure>{picture.to_svg()}</figure>" for picture in report.plot_learning_curves(folder)]
    if curves:
        yield _Section("Learning curves", "", _side_by_side(curves))
    if run.is_scored:
        yield _Section(
            "Scores per target",
            f"Spearman on {'rows' if run.leaks else 'questions'} that nothing was fitted on: as submitted, blended, "
            "and of every member alone.",
            report.show_targets(folder),
        )
        yield _Section(
            "Ties",
            "Blended predictions out of fold, the lowest first, from 0 to 1. Shaded rows share one value: there the "
            "ratings are tied too, and unseen questions gain by it.",
            report.show_run_ties(folder),
        )
        yield _Section(
            "Distributions",
            "Ratings (grey, where the run kept them) and blended predictions out of fold (coloured) of the same rows, "
            "from 0 to 1, each as high as its own highest bar.",
            report.show_run_distributions(folder),
        )
    if run.executed is not None:
        yield from _list_pictures(run.executed)
    if run.sessions and "steps" in run.sessions[-1]:
        yield _Section("Time", "", report.show_time(folder))
    course = report.summarize_course(folder)
    if len(course) > 2 * len(run.sessions):  # more than how each session began and ended
        yield _Section("Course", "What was planned, and what came of it.", show_table(course, decimals=1))
    yield from _list_settings(run)


def _list_pictures(executed: Executed) -> Iterator[_Section]:
    pictures = [*executed.find_pictures("explore.plot_coverage"), *executed.find_pictures("explore.plot_nulls")]
    shown = [each for each in pictures if not each.alt.startswith("No nulls")]
    if shown:
        note = "How much of title, body and answer fits."
        note += "" if len(shown) == len(pictures) else " No input column of train or test holds a null."
        yield _Section("Coverage of tokens", note, _side_by_side(map(_show_picture, shown)))


def _list_settings(run: _Run) -> Iterator[_Section]:
    changes = None if run.executed is None else run.executed.list_changes()
    if changes is not None and len(changes):
        yield _Section("Parameters that differ from the defaults", "", show_table(changes))
    if run.recipe is not None:
        table = show_table(report.describe_parameters(run.folder))
        folded = Html(f"<details><summary>By member, defaults too</summary>{table}</details>")
        yield _Section("All parameters", "", folded)
    if run.record is not None:
        facts = {name: run.record[name] for name in ("questlib", "machine", "encoders", "data")}
        yield _Section("Versions", "", show_table(report.lay_out(facts)))


def _side_by_side(pictures: Iterable[str]) -> Html:
    return Html(f"<div class='pictures'>{''.join(pictures)}</div>")


def _show_picture(shown: Shown) -> str:
    return f"<figure class='card'><img alt='{escape(shown.alt)}' src='data:image/png;base64,{shown.png}'></figure>"
