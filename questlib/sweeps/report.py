"""The report of a sweep: a notebook that is executed, one HTML file, a CSV table, and the best setting as a profile."""

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
import yaml
from matplotlib import pyplot
from matplotlib.figure import Figure
from optuna.exceptions import ExperimentalWarning
from optuna.visualization import matplotlib as pictures
from papermill.exceptions import PapermillExecutionError

from questlib.charts import BLUE, ORANGE, PALE, clean, new_figure
from questlib.data import Tables, read_tables
from questlib.run import write_report
from questlib.run_folder import write_text
from questlib.sweeps.definition import PLACES, Sweep, read_sweep
from questlib.sweeps.results import as_study, find_frontier, is_missing, read_runs, read_study
from questlib.sweeps.space import ABOUT, SUMMARY
from questlib.sweeps.study import open_existing, refuse_other_tables

TABLE, BEST = "trials.csv", "best.yaml"
NOTEBOOK = Path("notebooks/sweep_report.ipynb")
_STORAGE = "QUESTLIB_STORAGE"


def write_sweep_report(
    sweep_file: Path | None, runs: Sequence[Path], *, folder: Path, data: str | None, storage: str | None
) -> Path:
    """Execute the notebook of the report into a folder; give the HTML file."""
    out = folder.resolve()
    # Asked before there is a notebook, what cannot be read is told in a line and leaves nothing.
    _read(sweep_file, runs, folder=out, data=data, storage=storage)
    out.mkdir(parents=True, exist_ok=True)
    executed = out / NOTEBOOK.name
    parameters = {
        "sweep": str(sweep_file.resolve()) if sweep_file else "", "runs": [str(run.resolve()) for run in runs],
        "folder": str(out), "data": data or "",
    }  # fmt: skip
    if storage:
        os.environ[_STORAGE] = storage
    try:
        papermill.execute_notebook(
            str(NOTEBOOK),
            str(executed),
            parameters=parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=str(Path.cwd()),
        )
    except PapermillExecutionError as error:
        raise RuntimeError(f"the report failed with {error.ename}: {error.evalue}; {executed} shows where") from error
    write_report(executed, out / "report.html")
    return out / "report.html"


def load(
    sweep_file: str, runs: Sequence[str], *, folder: str, data: str
) -> tuple[pd.DataFrame, Tables | None, Sweep | None]:
    """Read the trials of a sweep, or any runs, and the tables to compare them on, None where only scores can be.

    A database that machines share is named by the environment: its URL may hold a password, and reports are shown.
    """
    trials, tables, sweep = _read(
        Path(sweep_file) if sweep_file else None, [Path(run) for run in runs],
        folder=Path(folder), data=data, storage=os.environ.get(_STORAGE),
    )  # fmt: skip
    write_text(Path(folder) / TABLE, trials.to_csv(index=False))
    return trials, tables, sweep


def _read(
    sweep_file: Path | None, runs: Sequence[Path], *, folder: Path, data: str | None, storage: str | None
) -> tuple[pd.DataFrame, Tables | None, Sweep | None]:
    if sweep_file is None:
        tables = read_tables(data) if data else None
        return read_runs(runs, objective=Sweep.objective, tables=tables), tables, None
    sweep = read_sweep(sweep_file)
    study = open_existing(sweep, folder=folder, storage=storage or None)
    tables = read_tables(data or str(sweep.base["data"]))
    refuse_other_tables(study, tables)
    # Of another objective nothing is known question by question.
    compared = tables if sweep.objective == Sweep.objective else None
    return read_study(study, trials_folder=folder / "trials"), compared, sweep


def write_best_profile(sweep: Sweep, settings: pd.DataFrame, *, folder: str) -> str:
    """Write the best setting as a profile that `make run PROFILE=` takes; give its text."""
    best = settings.iloc[0]
    parameters = [name for name in settings if name not in ("setting", *SUMMARY)]
    chosen = {name: best[name] for name in parameters if not is_missing(best[name])}
    given = {name: value for name, value in sweep.profile_with(chosen).items() if name not in PLACES}
    text = f"# The best of the sweep {sweep.name}: {settings['mean'].iloc[0]:.4f} in {sweep.objective}.\n"
    text += yaml.safe_dump(given, sort_keys=False, default_flow_style=None, width=120)
    write_text(Path(folder) / BEST, text)
    return text


def describe_trials(settings: pd.DataFrame, trials: pd.DataFrame) -> str:
    """Say in a line what there is: settings, and trials by what became of them."""
    states = ", ".join(f"{number} {state}" for state, number in trials["state"].value_counts().items())
    return f"{len(settings)} settings in {len(trials)} trials ({states}), {trials['seconds'].sum() / 60:.1f} minutes"


def show_table(frame: pd.DataFrame, *, title: str) -> str:
    """Give a table in HTML whose columns sort by a click on their heads, without anything from elsewhere."""
    known = [name for name in frame if name in (*ABOUT, *SUMMARY)]
    varied = [name for name in frame if name not in known]
    first = [name for name in known if name in ("trial", "setting", "seed")]
    later = [name for name in known if name not in (*first, "folder")]
    shown = _shorten_names(frame[[*first, *varied, *later]], varied)
    shown = shown.mask(shown.eq("")).dropna(axis="columns", how="all")
    table = shown.to_html(
        index=False, na_rep="", float_format=lambda value: f"{value:.4g}", border=0, classes="sortable"
    )
    style = "<style>.sortable th { white-space: normal; }</style>"
    wide = "<div style='overflow-x: auto; white-space: nowrap'>"
    return f"{style}<h3>{title}</h3>{wide}{table}</div>{_SORT}"


_SORT = """<script>
document.querySelectorAll("table.sortable:not(.ready)").forEach(table => {
  table.classList.add("ready");
  table.querySelectorAll("th").forEach((head, place) => {
    head.style.cursor = "pointer"; head.title = "sort";
    head.onclick = () => {
      const rows = [...table.tBodies[0].rows], up = head.dataset.up = head.dataset.up === "1" ? "" : "1";
      const key = row => row.cells[place].textContent, number = text => text === "" ? -Infinity : Number(text);
      rows.sort((a, b) => { const [x, y] = [key(a), key(b)];
        return (isNaN(number(x)) || isNaN(number(y)) ? x.localeCompare(y) : number(x) - number(y)) * (up ? 1 : -1); });
      table.tBodies[0].append(...rows);
    };
  });
});
</script>"""


def plot_frontier(trials: pd.DataFrame) -> Figure:
    """Draw score against seconds; what no other trial beats in both is marked."""
    done = trials.dropna(subset=["value", "seconds"])
    figure = new_figure(width=9, height=4.5)
    axes = clean(figure.subplots(), grid="y")
    axes.scatter(done["seconds"] / 60, done["value"], color=PALE, label="trials")
    front = done.loc[find_frontier(trials)[lambda marks: marks].index].sort_values("seconds")
    axes.plot(front["seconds"] / 60, front["value"], "o-", color=ORANGE, label="nothing is better in less time")
    for row in front.itertuples():
        axes.annotate(
            str(row.trial), (row.seconds / 60, row.value), xytext=(4, 6), textcoords="offset points", fontsize=8
        )
    axes.set(title="Score against time", xlabel="minutes of a trial", ylabel="score")
    axes.legend(fontsize=8)
    return figure


def plot_settings(settings: pd.DataFrame) -> Figure:
    """Draw every setting's mean with its standard error, best on top, those that cannot be told from it in colour."""
    figure = new_figure(width=9, height=1.2 + 0.35 * len(settings))
    axes = clean(figure.subplots())
    for place, row in enumerate(settings.to_dict("records")):
        error = row["standard error"]
        color = PALE if row["verdict"].startswith("worse") else ORANGE if row["verdict"] == "best" else BLUE
        axes.errorbar(row["mean"], place, xerr=None if np.isnan(error) else error, fmt="o", color=color, capsize=3)
    axes.set_yticks(range(len(settings)), [f"setting {number}" for number in settings["setting"]])
    axes.invert_yaxis()
    axes.set(title="Mean of each setting and its standard error (blue: as good as the best, by all that is known)")
    axes.set_xlabel("score")
    return figure


def plot_study(trials: pd.DataFrame) -> list[Figure]:
    """Draw Optuna's history, importances, slices and parallel coordinates, as far as there is enough to draw."""
    trials = _shorten_names(trials, list(trials.columns[len(ABOUT) :]))
    study = as_study(trials)
    values = {name: [each for each in trials[name] if not is_missing(each)] for name in trials.columns[len(ABOUT) :]}
    varied = [name for name, each in values.items() if len(set(map(json.dumps, each))) > 1]
    figures = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of pictures: they may look otherwise one day
        if len(study.trials) >= 2 and varied:
            figures.append(_figure_of(pictures.plot_optimization_history(study)))
            if len(varied) > 1 and len({trial.value for trial in study.trials}) > 1:
                figures.append(_figure_of(pictures.plot_param_importances(study), height=1.5 + 0.5 * len(varied)))
                figures.append(_figure_of(pictures.plot_parallel_coordinate(study, params=varied), width=11, height=5))
            figures.append(_figure_of(pictures.plot_slice(study, params=varied), width=3 + 4 * len(varied)))
    return figures


def _figure_of(axes: object, *, width: float = 9, height: float = 4.5) -> Figure:
    first = np.atleast_1d(np.asarray(axes, dtype=object)).flat[0]
    figure = first.get_figure()
    figure.set_size_inches(width, height)
    pyplot.close(figure)  # pyplot would show it once more
    return figure


def _shorten_names(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    # As much of a dotted name, from its end, as tells it from the others and from what else stands in the table.
    short, others = {}, [*ABOUT, *SUMMARY, *names]
    for name in names:
        parts = name.split(".")
        ends = (".".join(parts[at:]) for at in range(len(parts) - 1, -1, -1))
        short[name] = next(
            (end for end in ends if sum(other == end or other.endswith(f".{end}") for other in others) == 1), name
        )
    return table.rename(columns=short)
