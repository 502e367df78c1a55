"""Multi-run commands: `loralab experiment` and `loralab search`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from loralab.cli.options import AsJson, Runs, Source, check_name, print_json, setting_argument, source_argument
from loralab.cli.streams import say
from loralab.errors import LoralabError, RunFailed


def experiment_help() -> str:
    """Return the help of `loralab experiment`, with the kinds of experiments."""
    from loralab.experiments.spec import KINDS

    kinds = "\n".join(f"{kind.name:<12} {kind.question}" for kind in KINDS.values())
    return f"""Run a multi-run experiment and report on it. The same command resumes it: completed trials are skipped.

    \b\n{kinds}\n\n\b
    loralab experiment                                 the kinds with their points, seeds and commands
    loralab experiment seeds distilbert-study --seeds 42,123,456
    loralab experiment grid quickstart --points lora.rank=4,16 --points lora.targets=value,query+value
    loralab experiment active reviews.csv --points strategy=random,margin --points labels=100,500,1000
    loralab experiment compare runs/A runs/B           finished runs or experiments with the same test rows"""


def experiment(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="The kind, see above.", show_default=False)] = None,
    recipe: Annotated[
        str | None,
        source_argument("RECIPE|RUN", "A recipe, a settings file or a data file; several with commas between them."),
    ] = None,
    settings: Annotated[list[str] | None, setting_argument("KEY=VALUE|RUN", "Settings of all trials.")] = None,
    points: Annotated[
        list[str] | None, typer.Option(metavar="SETTING=A,B,...", help="A setting to vary and its values; repeatable.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="1,2,3", help="The seeds of every configuration.")] = None,
    where: Annotated[
        str | None, typer.Option(help="here, processes or ray. Default: processes with several cores and no GPU, else here.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Trials at a time. Default: one per core, or per GPU of a Ray cluster.", min=1)
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A Ray cluster. Default: Ray on this machine.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The experiment's name. Default: kind and recipe.")] = None,
    runs: Runs = Path("runs"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier experiment of this name.")] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write a report at the end.")] = True,
    as_json: AsJson = False,
) -> None:
    from loralab.experiments.plans import parse_points, parse_seeds
    from loralab.experiments.run import default_name, plan_experiment, run_experiment
    from loralab.experiments.spec import KINDS, find_kind

    if kind is None or recipe is None:
        kinds = [*KINDS.values()] if kind is None else [find_kind(kind)]
        print_json([asdict(item) for item in kinds]) if as_json else say("\n\n".join(item.describe() for item in kinds))
        return
    chosen = find_kind(kind)
    sources, fixed = ([recipe, *(settings or [])], []) if chosen.design == "runs" else (recipe.split(","), settings or [])
    plan = plan_experiment(chosen, sources, fixed, parse_points(points or []), parse_seeds(seeds) if seeds else None)
    from loralab.cli.experiment_display import ExperimentView
    from loralab.experiments.execute import choose_execution

    folder = runs / check_name(name or default_name(kind, sources))
    execution = choose_execution(where, jobs, ray_address)
    with ExperimentView(folder, execution.where) as view:
        summary = run_experiment(
            plan,
            folder,
            execution,
            overwrite=overwrite,
            announce=view.announce,
            on_outcome=view.on_outcome,
            on_progress=view.on_progress,
        )
    from loralab.cli.display import show_remark
    from loralab.report.experiments.findings import findings
    from loralab.report.experiments.profiles import analyze_experiment
    from loralab.report.experiments.reading_notes import reading_notes
    from loralab.report.experiments.result_tables import summary_table, trial_table
    from loralab.report.write import figure_remark, write_experiment_report

    analysis = analyze_experiment(folder)
    page = write_experiment_report(folder, analysis) if report else None
    show_remark(figure_remark(page) if page else "")
    configurations, sentences = summary_table(analysis.data, analysis.score), findings(analysis)
    if as_json:
        tables = {"trials": trial_table(analysis.data), "configurations": configurations}
        rows = {name: [dict(zip(table.columns, row, strict=True)) for row in table.rows] for name, table in tables.items()}
        print_json({"folder": summary.folder, **rows, "findings": sentences, "report": page})
    else:
        view.summarise(summary, configurations, sentences, reading_notes(analysis), page)
    if summary.failures:
        reasons = "".join(f"\n  {trial}: {reason}" for trial, reason in summary.failures.items())
        raise RunFailed(f"trials failed: {len(summary.failures)}; the same command runs them again{reasons}")


experiment.__doc__ = experiment_help()


def search(
    recipe: Source,
    settings: Annotated[list[str] | None, setting_argument("KEY=VALUE", "Settings of all trials.")] = None,
    over: Annotated[
        list[str] | None, typer.Option(metavar="SETTING=RANGE", help="A setting to search and its range; repeatable.")
    ] = None,
    space: Annotated[Path | None, typer.Option(help="A YAML file with a range or choices per setting.")] = None,
    trials: Annotated[int, typer.Option(help="Number of trials over all calls and machines.", min=1)] = 20,
    jobs: Annotated[int, typer.Option(help="Trials at a time, one process each.", min=1)] = 1,
    sampler: Annotated[str, typer.Option(help="tpe, random or grid.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="none, median or hyperband: prunes unpromising trials.")] = "median",
    objective: Annotated[
        list[str] | None,
        typer.Option(help="A score of the validation rows. Default: accuracy. Give two for a Pareto front, such as trainable."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="A PostgreSQL database that several machines share: postgresql://...")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The search's name. Default: search and the recipe.")] = None,
    runs: Runs = Path("runs"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier search of this name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tune hyperparameters with Optuna. The same command resumes an interrupted search.

    \b
    loralab search roberta-search --trials 20 --jobs 2     the recipe's search space
    loralab search reviews.csv lora.max_trainable=500000   the default space; larger models are not trained
    loralab search quickstart --over lora.rank=4,8,16 --over lora.alpha=1r,2r --over train.learning_rate=1e-4..1e-2:log
    loralab search quickstart --objective accuracy --objective trainable
    """
    from loralab.experiments.search import plan_search, run_search

    if over and space:
        raise LoralabError("--over and --space both set the search space: choose one")
    options: Any = {"sampler": sampler, "pruner": pruner, "objectives": objective or ["accuracy"]}
    plan = plan_search(recipe, settings or [], ranges=space or over or (), trials=trials, **options)
    from loralab.cli.experiment_display import SearchView

    folder = runs / check_name(name or f"search-{Path(recipe).stem}")
    with SearchView(folder, jobs) as view:
        summary = run_search(
            plan,
            folder,
            jobs=jobs,
            storage=storage,
            overwrite=overwrite,
            announce=view.announce,
            on_trial_end=view.on_trial_end,
        )
    from loralab.cli.display import show_remark
    from loralab.report.write import figure_remark, write_report

    page = write_report(folder)
    show_remark(figure_remark(page))
    if as_json:
        from loralab.storage.experiment_folder import read_search

        print_json({"folder": folder, **read_search(folder), "report": page})
    else:
        view.summarise(summary, page)
