"""The functions of `import loralab`: the commands of the command line, on files or on data in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from loralab.config import Config, DataConfig, load_config
from loralab.config.loading import default_name
from loralab.config.paths import local_path
from loralab.data.folders import Parts
from loralab.data.in_memory import is_path, memory_parts, memory_table, read_parts, same_parts, write_parts
from loralab.data.types import TablePlace
from loralab.errors import LoralabError, RunFailed, import_optional
from loralab.results import Experiment, Page, Run, Scores
from loralab.storage import experiment_folder, run_folder
from loralab.tables import html_table, to_frame

if TYPE_CHECKING:
    import pandas

    from loralab.data.data_report import DataReport
    from loralab.diagnostics.diagnose import Diagnosis
    from loralab.experiments.run import ExperimentPlan
    from loralab.inference.classifier import Backend, Classifier
    from loralab.inference.export import Export
    from loralab.inference.model_soup import Soup
    from loralab.training.callbacks import Callback

Settings = Mapping[str, Any] | Sequence[str]
"""Settings by dotted name, such as {"lora.rank": 16}, or as on the command line, ["lora.rank=16"]."""
MEMORY = "data in memory"
"""`data.source` until the run's folder is known."""
P = ParamSpec("P")
T = TypeVar("T")
_FLAGS = {"overwrite": "overwrite=True", "resume": "resume=True", "accept": "accept=True"}
_OPTIONS = "name|runs|out|to|rank|seeds|points|over|space|objective|sampler|pruner|storage|where|jobs|ray-address|label|text"
_OPTION = re.compile(rf"--(?:({'|'.join(_FLAGS)})|({_OPTIONS}))\b")


def python_words(message: str) -> str:
    """Return a message with the options of the command line as arguments; the lines of commands stay as they are."""

    def argument(option: re.Match[str]) -> str:
        return _FLAGS[option[1]] if option[1] else option[2].replace("-", "_")

    return "\n".join(line if "loralab " in line else _OPTION.sub(argument, line) for line in message.split("\n"))


def _in_python(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function raise errors in the words of Python."""

    @wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return function(*arguments, **named)
        except LoralabError as error:
            message = python_words(str(error))
            if message == str(error):
                raise
            raise type(error)(message) from error

    return call


@_in_python
def train(  # noqa: PLR0913 - one parameter per option of the command
    data: object = "quickstart",
    settings: Settings = (),
    *,
    recipe: str | Config | None = None,
    name: str | None = None,
    runs: str | Path = "runs",
    resume: bool = False,
    overwrite: bool = False,
    keep_data: bool = True,
    callbacks: Sequence[Callback] = (),
    verbose: bool | None = None,
) -> Run:
    """Fine-tune an encoder on labelled texts, test it, and return the run.

    Parameters
    ----------
    data : path, recipe, Config, or data in memory
        A data file or folder, a recipe, a settings file, a run folder, or rows in memory: a DataFrame of pandas or polars, an Arrow
        table, a `datasets.Dataset` or DatasetDict, a dict of columns, a list of dicts, (texts, labels), or a dict of these by part,
        such as {"train": frame, "test": other}. Columns are detected and printed; data.text and data.label name others.
    settings : mapping or sequence of str
        Settings by dotted name, such as {"lora.rank": 16}, or as ["lora.rank=16"]. `loralab settings` lists them.
    recipe : str or Config, default "quickstart"
        The recipe, settings file or settings to start from if `data` is a path or in memory.
    name : str, optional
        The run's name; default: made from the recipe or file, and the seed.
    runs : path, default "runs"
        The folder of all runs.
    resume, overwrite : bool, default False
        Continue an interrupted run of this name, to the same result; or replace a run of this name.
    keep_data : bool, default True
        Keep rows in memory in the run's folder, as Parquet. Otherwise diagnosing and resuming need the same rows again.
    callbacks : sequence of Callback
        Objects with `on_step_end`, `on_evaluate` or `on_train_end`; the first two stop training by returning True.
    verbose : bool, optional
        Print decisions and progress; default: in notebooks and terminals.

    Raises
    ------
    LoralabError
        For unusable data or settings, before anything is written.
    RunFailed
        If the run itself fails or is interrupted.

    """
    from loralab.pipeline import run_training
    from loralab.training.callbacks import listener_of

    config, rows, origin = _configure(data, settings, recipe)
    target = name or config.name or default_name(origin, config.seed)
    config = config.model_copy(update={"name": None})
    with ExitStack() as stack:
        announce, listeners = _progress(config, verbose, stack)
        summary = run_training(
            config,
            name=target,
            folder=runs,
            overwrite=overwrite,
            resume=resume,
            announce=announce,
            listeners=[*listeners, *map(listener_of, callbacks)],
            rows=rows,
            keep_rows=keep_data,
        )
    for callback in callbacks:
        if hook := getattr(callback, "on_train_end", None):
            hook(summary.folder)
    return Run(summary.folder)


@_in_python
def load(
    path: str | Path,
    *,
    revision: str | None = None,
    base: str | None = None,
    precision: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    backend: Backend = "auto",
) -> Classifier:
    """Load a trained model, which classifies texts.

    Parameters
    ----------
    path : path
        A run, a bundle, an export, a folder saved by peft, or a model on the hub, "user/name".
    revision : str, optional
        Branch, tag or commit of a model on the hub; default: main.
    base : path, optional
        The base encoder's folder, if it has moved.
    precision : {"auto", "fp32", "bf16", "fp16"}, optional
        Default: the run's, or auto where the device is slow in it.
    device : {"auto", "cpu", "cuda", "mps"}, default "auto"
        Where to compute.
    threads : int, optional
        CPU threads of predictions; default: torch's own number.
    backend : {"auto", "native", "onnx", "onnx-int8"}, default "auto"
        auto: an export as it is, a run natively.

    Raises
    ------
    LoralabError
        For a missing or damaged folder, and for another base than the run was trained on.
    """
    from loralab.inference.classifier import Classifier

    options: Any = {"revision": revision, "base": base, "precision": precision}
    return Classifier.load(path, device=device, threads=threads, backend=backend, **options)


@_in_python
def evaluate(model: Run | Classifier | str | Path, data: object, settings: Settings = ()) -> Scores:
    """Score a model on labelled rows.

    Parameters
    ----------
    model : Run, Classifier or path
        A run, its folder, a loaded model, or a model on the hub.
    data : path or data in memory
        The rows, as in `train`. Columns and label values are those of the run's training rows.
    settings : mapping or sequence of str
        Settings of `data` that say otherwise how to read the rows, such as {"data.text": "title"}.

    Returns
    -------
    Scores

    Raises
    ------
    LoralabError
        For a label that is no class of the run.
    """
    classifier = _classifier(model)
    result = classifier.evaluate_file(_place(data), _data_settings(settings))
    return Scores.from_mapping(result.scores, classifier.classes, [*map(str, result.notices)])


@_in_python
def diagnose(
    run: Run | str | Path, data: object = None, settings: Settings = (), *, texts: Sequence[str] = (), rows: int = 2000
) -> Diagnosis:
    """Analyse a run's errors: calibration, label errors, duplicates, drift, robustness, attributions. Its report shows them.

    Parameters
    ----------
    run : Run or path
        A complete run.
    data : path or data in memory, optional
        Rows to analyse, labelled or not; default: the run's test rows.
    settings : mapping or sequence of str
        Settings of `data` that say how to read the rows.
    texts : sequence of str
        Further texts whose words are explained.
    rows : int, default 2000
        Perturb at most so many rows in the robustness check.

    Raises
    ------
    LoralabError
        For a run that is not complete, and for training rows that changed since.
    """
    from loralab.diagnostics.diagnose import diagnose as diagnose_run
    from loralab.report.write import write_run_report

    folder = run.folder if isinstance(run, Run) else Path(run)
    file = None if data is None else _place(data)
    diagnosis = diagnose_run(folder, file=file, data=_data_settings(settings), inputs=texts, rows=rows)
    write_run_report(folder)
    return diagnosis


@_in_python
def export(
    run: Run | str | Path, to: str, out: str | Path | None = None, *, overwrite: bool = False, accept: bool = False
) -> Export:
    """Export a run for other libraries, and check that they give the same logits.

    Parameters
    ----------
    run : Run or path
        A complete run.
    to : {"merged", "peft", "sentence-transformers", "onnx", "onnx-int8"}
        merged: all weights, for Transformers; peft: the adapter and the head; onnx: fp32; onnx-int8: 8-bit matrix products.
    out : path, optional
        A new folder; default: the run's exports/FORMAT.
    overwrite : bool, default False
        Replace an earlier export.
    accept : bool, default False
        Keep 8 bits even if they cost accuracy.

    Raises
    ------
    LoralabError
        For a model without such a form.
    RunFailed
        If a check fails; the export is then discarded.
    """
    from loralab.inference.export import export_run

    folder = run.folder if isinstance(run, Run) else Path(run)
    return export_run(folder, to, None if out is None else Path(out), overwrite=overwrite, accept=accept)


@_in_python
def model_soup(
    runs: Sequence[Run | Experiment | str | Path], out: str | Path, *, rank: int | None = None, overwrite: bool = False
) -> Soup:
    """Average the weights of several runs into one model, as fast as one run and often slightly more accurate.

    Parameters
    ----------
    runs : sequence of Run, Experiment or path
        Runs that differ in their seeds, or an experiment with such trials.
    out : path
        A new folder for the model.
    rank : int, optional
        Rank of the averaged adapter; default: the sum of the runs' ranks, which is exact.
    overwrite : bool, default False
        Replace an earlier soup.

    Raises
    ------
    LoralabError
        For runs that differ in more than their weights.
    """
    from loralab.inference.model_soup import make_soup

    return make_soup([_folder(run) for run in runs], Path(out), rank=rank, overwrite=overwrite)


@_in_python
def check_data(data: object, settings: Settings = (), *, recipe: str | Config | None = None) -> DataCheck:
    """Return what training would decide about data, or refuse. Changes nothing.

    Parameters
    ----------
    data : path or data in memory
        As in `train`.
    settings : mapping or sequence of str
        The settings of the training.
    recipe : str or Config, default "quickstart"
        The recipe of the training.

    Returns
    -------
    DataCheck
        The report of each part, as text, table, frame and page; `refused` says whether training would stop.
    """
    from loralab.data.check import check_source

    config, rows, origin = _configure(data, settings, recipe)
    return DataCheck(origin, tuple(check_source(config.data, config.model, rows=rows)))


@_in_python
def load_sample() -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Return the training and test rows of the built-in sample as data frames: 800 and 400 news briefs in four classes.

    Columns: title, description, label, and border, another class that the brief could be mistaken for. The texts are CC0.
    """
    from loralab.data.folders import find_parts

    pandas = import_optional("pandas", "notebook")
    parts = find_parts("sample")
    train, test = (pandas.read_csv(files[0], keep_default_na=False) for files in (parts.train, parts.test))
    return train, test


@dataclass(frozen=True, repr=False)
class DataCheck:
    """Reports on the training, validation and test rows. source: what was checked."""

    source: str
    reports: tuple[DataReport, ...]

    @property
    def refused(self) -> bool:
        """Whether training would refuse the data."""
        return any(report.refused for report in self.reports)

    def to_frame(self) -> pandas.DataFrame:
        """Return one row per decision and problem: part, severity, message, rows, and what fixes it."""
        return to_frame(("part", "severity", "message", "rows", "fix"), self._rows())

    def report(self, path: str | Path = "data-report.html") -> Page:
        """Write the page with figures and examples, and return it."""
        from loralab.report.data_page import write_data_page

        write_data_page(Path(path), self.source, self.reports)
        return Page(Path(path))

    def _rows(self) -> list[tuple[Any, ...]]:
        own = [(report.part, notice) for report in self.reports for notice in (*report.findings, *report.notices)]
        return [(part, notice.severity, notice.message, [*notice.rows], notice.fix) for part, notice in own]

    def __repr__(self) -> str:
        from loralab.cli.data_display import show_data_report
        from loralab.cli.display import console

        with console.capture() as captured:
            show_data_report(self.reports)
        return python_words(captured.get().rstrip())

    def _repr_html_(self) -> str:
        counts = [(report.part, report.rows, str(report.columns), ", ".join(report.classes)) for report in self.reports]
        rows = [
            (part, severity, f"{message}{f'; {fix}' if fix else ''}", len(rows))
            for part, severity, message, rows, fix in self._rows()
        ]
        return html_table(("part", "rows", "columns", "classes"), counts) + html_table(
            ("part", "severity", "finding", "rows"), rows
        )


@_in_python
def experiment(  # noqa: PLR0913 - one parameter per option of the command
    kind: str,
    data: object = "quickstart",
    settings: Settings = (),
    *,
    points: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] | None = None,
    recipe: str | None = None,
    name: str | None = None,
    runs: str | Path = "runs",
    where: str = "here",
    jobs: int | None = None,
    overwrite: bool = False,
    verbose: bool | None = None,
) -> Experiment:
    """Run an experiment of many trials and write its report. The same call resumes it: complete trials are skipped.

    Parameters
    ----------
    kind : str
        seeds, grid, ablation, layers, augmentation, active, zero-shot, few-shot or scaling; `loralab experiment` explains them.
    data : path, recipe, or data in memory
        As in `train`.
    settings : mapping or sequence of str
        Settings of all trials, such as {"train.epochs": 2}.
    points : mapping, optional
        Setting → values to try, such as {"lora.rank": [4, 16]}; default: the kind's own.
    seeds : sequence of int, optional
        The seeds of every configuration; default: the kind's own.
    recipe : str, optional
        The recipe of all trials; several with commas between them.
    name : str, optional
        The experiment's name; default: kind and recipe.
    runs : path, default "runs"
        The folder of all runs and experiments.
    where : {"here", "processes", "ray"}, default "here"
        One after another, or several at a time; processes need a script that is guarded by `if __name__ == "__main__"`.
    jobs : int, optional
        Trials at a time; default: one per core.
    overwrite : bool, default False
        Replace an earlier experiment of this name.
    verbose : bool, optional
        Print decisions and progress; default: in notebooks and terminals.

    Raises
    ------
    LoralabError
        For unusable arguments, before anything is trained.
    RunFailed
        If trials failed; the others are kept.
    """
    from loralab.experiments.run import default_name as experiment_name
    from loralab.experiments.run import plan_experiment
    from loralab.experiments.spec import find_kind

    texts = {axis: tuple(map(_point, values)) for axis, values in (points or {}).items()}
    sources, fixed, rows = _sources(data, recipe)
    folder = Path(runs) / (name or experiment_name(kind, ["data"] if rows else sources))
    fixed += [*_kept_rows(rows, folder, overwrite), *_assignments(settings)]
    plan = plan_experiment(find_kind(kind), sources, fixed, texts, seeds)
    return _run_plan(plan, folder, overwrite=overwrite and rows is None, where=where, jobs=jobs, verbose=verbose)


@_in_python
def compare(
    runs: Sequence[Run | Experiment | str | Path],
    *,
    name: str | None = None,
    folder: str | Path = "runs",
    overwrite: bool = False,
    verbose: bool | None = None,
) -> Experiment:
    """Compare finished runs or experiments that have the same test rows.

    Parameters
    ----------
    runs : sequence of Run, Experiment or path
        At least two.
    name : str, optional
        The comparison's name; default: made from those of the runs.
    folder : path, default "runs"
        The folder of the comparison.
    overwrite : bool, default False
        Replace an earlier comparison of this name.
    verbose : bool, optional
        Print decisions and progress; default: in notebooks and terminals.

    Returns
    -------
    Experiment
    """
    from loralab.experiments.run import default_name as experiment_name
    from loralab.experiments.run import plan_experiment
    from loralab.experiments.spec import find_kind

    sources = [str(_folder(run)) for run in runs]
    plan = plan_experiment(find_kind("compare"), sources)
    target = Path(folder) / (name or experiment_name("compare", sources))
    return _run_plan(plan, target, overwrite=overwrite, where="here", jobs=None, verbose=verbose)


@_in_python
def search(  # noqa: PLR0913 - one parameter per option of the command
    data: object = "quickstart",
    settings: Settings = (),
    *,
    over: Mapping[str, Any] | None = None,
    trials: int = 20,
    objective: str | Sequence[str] = "accuracy",
    sampler: str = "tpe",
    pruner: str = "median",
    recipe: str | None = None,
    name: str | None = None,
    runs: str | Path = "runs",
    jobs: int = 1,
    storage: str | None = None,
    overwrite: bool = False,
    verbose: bool | None = None,
) -> Experiment:
    """Tune hyperparameters with Optuna on the validation rows. The same call resumes an interrupted search.

    Parameters
    ----------
    data : path, recipe, or data in memory
        As in `train`.
    settings : mapping or sequence of str
        Settings of all trials, such as {"train.epochs": 2}.
    over : mapping, optional
        Setting → choices, or a range such as "1e-4..1e-2:log"; default: the recipe's space.
    trials : int, default 20
        Number of trials over all calls.
    objective : str or two of them, default "accuracy"
        A score of the validation rows; two, such as ["accuracy", "trainable"], for a Pareto front.
    sampler : {"tpe", "random", "grid"}, default "tpe"
        How points are chosen.
    pruner : {"none", "median", "hyperband"}, default "median"
        How unpromising trials are ended early.
    recipe : str, optional
        The recipe of all trials.
    name : str, optional
        The search's name; default: search and the recipe.
    runs : path, default "runs"
        The folder of all runs and experiments.
    jobs : int, default 1
        Trials at a time, one process each.
    storage : str, optional
        A PostgreSQL URL that several machines share.
    overwrite : bool, default False
        Replace an earlier search of this name.
    verbose : bool, optional
        Print decisions and progress; default: in notebooks and terminals.

    Returns
    -------
    Experiment
        Its `best` holds the best settings: `train(data, recipe=search.best)`.
    """
    from loralab.experiments.search import plan_search, run_search
    from loralab.report.write import write_report

    sources, fixed, rows = _sources(data, recipe)
    folder = Path(runs) / (name or f"search-{'data' if rows else Path(sources[0]).stem}")
    fixed += [*_kept_rows(rows, folder, overwrite), *_assignments(settings)]
    ranges = [f"{key}={_range(value)}" for key, value in (over or {}).items()]
    options: Any = {"sampler": sampler, "pruner": pruner}
    objectives = (objective,) if isinstance(objective, str) else tuple(objective)
    plan = plan_search(sources[0], fixed, ranges=ranges, objectives=objectives, trials=trials, **options)
    with ExitStack() as stack:
        view: Any = None
        if _shown(verbose):
            from loralab.cli.experiment_display import SearchView

            view = stack.enter_context(SearchView(folder, jobs))
        shown = {"announce": view.announce, "on_trial_end": view.on_trial_end} if view else {}
        run_search(plan, folder, jobs=jobs, storage=storage, overwrite=overwrite and rows is None, **shown)
    write_report(folder)
    return Experiment(folder)


def _run_plan(
    plan: ExperimentPlan, folder: Path, *, overwrite: bool, where: str, jobs: int | None, verbose: bool | None
) -> Experiment:
    """Run an experiment's trials and write its report."""
    from loralab.experiments.execute import choose_execution
    from loralab.experiments.run import run_experiment
    from loralab.report.experiments.profiles import analyze_experiment
    from loralab.report.write import write_experiment_report

    with ExitStack() as stack:
        view: Any = None
        if _shown(verbose):
            from loralab.cli.experiment_display import ExperimentView

            view = stack.enter_context(ExperimentView(folder, where))
        shown = {"announce": view.announce, "on_outcome": view.on_outcome, "on_progress": view.on_progress} if view else {}
        summary = run_experiment(plan, folder, choose_execution(where, jobs), overwrite=overwrite, **shown)
    write_experiment_report(folder, analyze_experiment(folder))
    if summary.failures:
        reasons = "".join(f"\n  {trial}: {reason}" for trial, reason in summary.failures.items())
        raise RunFailed(f"trials failed: {len(summary.failures)}; the same call runs them again{reasons}")
    return Experiment(folder)


def _configure(data: object, settings: Settings, recipe: str | Config | None) -> tuple[Config, Parts | None, str]:
    """Return the settings of a run, its rows if they are in memory, and what it is named after."""
    if isinstance(data, Config):
        return data.override(*_assignments(settings)), None, "run"
    assignments = _assignments(settings)
    if is_path(data) and recipe is None:
        return load_config(str(data), assignments), None, str(data)
    source = str(data) if is_path(data) else MEMORY  # another than the recipe's: its class names are not these rows'
    assignments = [_assignment("data.source", source), *assignments]
    rows = None if is_path(data) else memory_parts(data)
    base = recipe or "quickstart"
    config = base.override(*assignments) if isinstance(base, Config) else load_config(base, assignments)
    return config, rows, str(data) if rows is None else "data"


def _sources(data: object, recipe: str | None) -> tuple[list[str], list[str], Parts | None]:
    """Return the recipes of an experiment, the setting of its data, and its rows if they are in memory."""
    recipes = recipe.split(",") if recipe else ["quickstart"]
    if not is_path(data):
        return recipes, [], memory_parts(data)
    return (recipes, [_assignment("data.source", str(data))], None) if recipe else (str(data).split(","), [], None)


def _kept_rows(rows: Parts | None, folder: Path, overwrite: bool) -> list[str]:
    """Store rows in memory in an experiment's folder, where its trials read them, and return the setting that names them.

    Raises LoralabError if the folder holds other rows or something else.
    """
    if rows is None:
        return []
    if overwrite:
        experiment_folder.remove_experiment(folder)
    target = folder / run_folder.ROWS
    if not target.is_dir():
        if folder.exists() and any(folder.iterdir()):
            raise LoralabError(f"{folder} exists and is not an experiment on data in memory: choose another --name or --runs")
        write_parts(rows, target)
    elif not same_parts(read_parts(target), rows):
        raise LoralabError(f"{folder} holds an experiment on other rows: choose another --name, or replace it with --overwrite")
    return [_assignment("data.source", str(target))]


def _assignments(settings: Settings) -> list[str]:
    """Return settings as on the command line."""
    if isinstance(settings, str):
        raise LoralabError(f"settings={settings!r}: give a dict such as {{'lora.rank': 16}}, or a list such as ['lora.rank=16']")
    return [_assignment(*item) for item in settings.items()] if isinstance(settings, Mapping) else [*settings]


def _assignment(name: str, value: Any) -> str:
    """Return a setting as on the command line: texts as they are, unless they would be read as YAML; other values as JSON."""
    if isinstance(value, str):
        return f"{name}={json.dumps(value, ensure_ascii=False) if value[:1] in QUOTED else value}"
    return f"{name}={'none' if value is None else json.dumps(value, ensure_ascii=False, default=_plain)}"


QUOTED = ("[", "'", '"', "{")
"""First characters of a text that an assignment would read as YAML."""


def _plain(value: Any) -> Any:
    """Return a number of NumPy, a path, or a sequence as JSON has them."""
    return value.item() if hasattr(value, "item") else str(value) if isinstance(value, Path) else list(value)


def _point(value: Any) -> str:
    """Return a point of an experiment as on the command line."""
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _range(value: Any) -> str:
    """Return a range of a search as on the command line."""
    return value if isinstance(value, str) else ",".join(map(_point, value))


def _data_settings(settings: Settings) -> DataConfig:
    """Return settings of `data`, such as {"data.text": "title"}."""
    return load_config("quickstart", ["data.clean=none", *_assignments(settings)]).data if settings else DataConfig()


def _place(data: object) -> TablePlace:
    """Return a file, or one table in memory."""
    return local_path(str(data)) if is_path(data) else memory_table(data, "the rows")


def _folder(run: Run | Experiment | str | Path) -> Path:
    return run.folder if isinstance(run, (Run, Experiment)) else Path(run)


def _classifier(model: Run | Classifier | str | Path) -> Classifier:
    from loralab.inference.classifier import Classifier

    return model if isinstance(model, Classifier) else Classifier.load(_folder(model))


def _shown(verbose: bool | None) -> bool:
    """Return whether to print progress: in notebooks and terminals unless told otherwise."""
    from loralab.cli.display import console

    return (console.is_jupyter or console.is_terminal) if verbose is None else verbose


def _progress(config: Config, verbose: bool | None, stack: ExitStack) -> tuple[Callable[[Any], None], list[Callable[[Any], Any]]]:
    """Return what announces a run and listens to it: nothing if nothing is shown."""
    if not _shown(verbose):
        return lambda plan: None, []
    from loralab.cli.training_display import TrainingView

    view = stack.enter_context(TrainingView(config))
    return view.announce, [view.listen]
