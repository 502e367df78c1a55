"""Many runs from Python: experiments, comparisons, searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loralab.api.arguments import (
    Settings,
    assignment,
    assignments,
    experiment_sources,
    in_python,
    is_shown,
    point_text,
    range_text,
    run_path,
)
from loralab.data.folders import Parts
from loralab.data.in_memory import read_parts, same_parts, write_parts
from loralab.errors import LoralabError, RunFailed
from loralab.results import Experiment, Run
from loralab.storage import experiment_folder

if TYPE_CHECKING:
    from loralab.experiments.run import ExperimentPlan


@in_python
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

    texts = {axis: tuple(map(point_text, values)) for axis, values in (points or {}).items()}
    sources, fixed, rows = experiment_sources(data, recipe)
    folder = Path(runs) / (name or experiment_name(kind, ["data"] if rows else sources))
    fixed += [*_kept_rows(rows, folder, overwrite), *assignments(settings)]
    plan = plan_experiment(find_kind(kind), sources, fixed, texts, seeds)
    return _run_plan(plan, folder, overwrite=overwrite and rows is None, where=where, jobs=jobs, verbose=verbose)


@in_python
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

    sources = [str(run_path(run)) for run in runs]
    plan = plan_experiment(find_kind("compare"), sources)
    target = Path(folder) / (name or experiment_name("compare", sources))
    return _run_plan(plan, target, overwrite=overwrite, where="here", jobs=None, verbose=verbose)


@in_python
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

    sources, fixed, rows = experiment_sources(data, recipe)
    folder = Path(runs) / (name or f"search-{'data' if rows else Path(sources[0]).stem}")
    fixed += [*_kept_rows(rows, folder, overwrite), *assignments(settings)]
    ranges = [f"{key}={range_text(value)}" for key, value in (over or {}).items()]
    options: Any = {"sampler": sampler, "pruner": pruner}
    objectives = (objective,) if isinstance(objective, str) else tuple(objective)
    plan = plan_search(sources[0], fixed, ranges=ranges, objectives=objectives, trials=trials, **options)
    with ExitStack() as stack:
        view: Any = None
        if is_shown(verbose):
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
        if is_shown(verbose):
            from loralab.cli.experiment_display import ExperimentView

            view = stack.enter_context(ExperimentView(folder, where))
        shown = {"announce": view.announce, "on_outcome": view.on_outcome, "on_progress": view.on_progress} if view else {}
        summary = run_experiment(plan, folder, choose_execution(where, jobs), overwrite=overwrite, **shown)
    write_experiment_report(folder, analyze_experiment(folder))
    if summary.failures:
        reasons = "".join(f"\n  {trial}: {reason}" for trial, reason in summary.failures.items())
        raise RunFailed(f"trials failed: {len(summary.failures)}; the same call runs them again{reasons}")
    return Experiment(folder)


def _kept_rows(rows: Parts | None, folder: Path, overwrite: bool) -> list[str]:
    """Store rows in memory in an experiment's folder, where its trials read them, and return the setting that names them.

    Raises LoralabError if the folder holds other rows or something else.
    """
    if rows is None:
        return []
    if overwrite:
        experiment_folder.remove_experiment(folder)
    target = folder / experiment_folder.ROWS
    if not target.is_dir():
        if folder.exists() and any(folder.iterdir()):
            raise LoralabError(f"{folder} exists and is not an experiment on data in memory: choose another --name or --runs")
        write_parts(rows, target)
    elif not same_parts(read_parts(target), rows):
        raise LoralabError(f"{folder} holds an experiment on other rows: choose another --name, or replace it with --overwrite")
    return [assignment("data.source", str(target))]
