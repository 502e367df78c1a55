"""The commands of many runs, `loralab experiment`, `search` and `report`: parse, call one function, print."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from loralab.errors import LoralabError, RunFailed


def experiment_help() -> str:
    """What `loralab experiment --help` says: the kinds there are."""
    from loralab.experiments.spec import KINDS

    kinds = "\n".join(f"{kind.name:<11} {kind.question}" for kind in KINDS.values())
    return f"""Ask a question that takes many runs. A second call goes on where the first was stopped.

    \b\n{kinds}\n\n\b
    loralab experiment                                 the kinds with what they vary, their points and seeds
    loralab experiment seeds distilbert-study --seeds 42,123,456
    loralab experiment grid quickstart --points lora.rank=4,16 --points lora.targets=value,query+value
    loralab experiment seeds quickstart --where together     on a GPU: trials with adapters of one shape, in one pass
    loralab experiment active reviews.csv --points strategy=random,margin --points labels=100,500,1000
    loralab experiment compare runs/A runs/B           finished runs, or experiments, on the test rows that they share"""


def experiment(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="What to ask; see above.")] = None,
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE|RUN", help="A recipe, a settings or data file; or several.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE|RUN", help="Settings of all trials.")] = None,
    points: Annotated[list[str] | None, typer.Option(metavar="SETTING=A,B,...", help="What to vary; again for more.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="1,2,3", help="The seeds of every point.")] = None,
    where: Annotated[str | None, typer.Option(help="here, together, processes or ray; default: processes if cores.")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Trials at a time; default: one per core, on a GPU cluster per GPU, together 8.", min=1)
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A Ray cluster; default: a Ray of this machine.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The experiment's name; default: kind and recipe.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier experiment of this name.")] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the experiment's report at its end.")] = True,
) -> None:
    """Run an experiment's trials and report on them; see experiment_help."""
    from loralab.experiments.plans import parse_points, parse_seeds
    from loralab.experiments.run import default_name, plan_experiment, run_experiment
    from loralab.experiments.spec import KINDS, find_kind

    if kind is None or recipe is None:
        print("\n\n".join(each.describe() for each in (KINDS.values() if kind is None else [find_kind(kind)])))
        return
    asked = find_kind(kind)
    many, changes = ([recipe, *(settings or [])], []) if asked.design == "runs" else (recipe.split(","), settings or [])
    plan = plan_experiment(asked, many, changes, parse_points(points or []), parse_seeds(seeds) if seeds else None)
    from loralab.cli.experiment_display import ExperimentView
    from loralab.experiments.execute import choose_execution

    folder = runs / (name or default_name(kind, many))
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
    from loralab.report.experiments.findings import findings
    from loralab.report.experiments.profiles import analyze_experiment
    from loralab.report.experiments.result_tables import summary_table
    from loralab.report.write import write_experiment_report

    analysis = analyze_experiment(folder)
    page = write_experiment_report(folder, analysis) if report else None
    view.summarise(summary, summary_table(analysis.data, analysis.score), findings(analysis), page)
    if summary.failures:
        raise RunFailed(f"trials failed: {len(summary.failures)}, each said above; the same command tries them again")


def search(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE|YAML|DATA", help="A recipe, a settings file, or a data file.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that are held.")] = None,
    over: Annotated[list[str] | None, typer.Option(metavar="SETTING=RANGE", help="What to search; again for more.")] = None,
    space: Annotated[Path | None, typer.Option(help="A YAML file of setting: choices or range.")] = None,
    trials: Annotated[int, typer.Option(help="Trials in all, over every call and machine.", min=1)] = 20,
    jobs: Annotated[int, typer.Option(help="Trials at a time, each in a process of its own.", min=1)] = 1,
    sampler: Annotated[str, typer.Option(help="tpe, random or grid.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="none, median or hyperband: stops hopeless trials at an evaluation.")] = "median",
    objective: Annotated[
        list[str] | None, typer.Option(help="A score of the validation rows, default accuracy; or two, such as trainable.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="postgresql://...: a database that several machines share.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The search's name; default: search and the recipe's.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier search of this name.")] = False,
) -> None:
    """Search for the best settings. A second call goes on where the first was stopped or killed.

    \b
    loralab search roberta-search --trials 20 --jobs 2     the recipe's own space
    loralab search reviews.csv lora.max_trainable=500000   what is usual; what is over the budget is not run
    loralab search quickstart --over lora.rank=4,8,16 --over lora.alpha=1r,2r --over train.learning_rate=1e-4..1e-2:log
    loralab search quickstart --objective accuracy --objective trainable
    """
    from loralab.experiments.search import plan_search, run_search

    if over and space:
        raise LoralabError("--over and --space both give the search space: use one of them")
    options: Any = {"sampler": sampler, "pruner": pruner, "objectives": objective or ["accuracy"]}
    plan = plan_search(recipe, settings or [], ranges=space or over or (), trials=trials, **options)
    from loralab.cli.experiment_display import SearchView

    folder = runs / (name or f"search-{Path(recipe).stem}")
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
    from loralab.report.write import write_report

    view.summarise(summary, write_report(folder))


def report(
    path: Annotated[Path, typer.Argument(metavar="RUN|EXPERIMENT|FOLDER", help="A run, an experiment, or a folder of them.")],
) -> None:
    """Make a report from files alone: page, figures, tables. What was stopped has one too.

    \b
    loralab report runs/quickstart-s42        a run: with its model card and log as text
    loralab report runs/grid-quickstart       an experiment: what was asked, varied, held and found
    loralab report runs                       a dashboard over all runs and experiments of a folder
    """
    from loralab.report.write import write_report

    print(f"report      {write_report(path)}")


def soup(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN|EXPERIMENT...", help="Finished runs that differ in their seed.")],
    out: Annotated[Path, typer.Option(help="A new folder for the bundle.")],
    rank: Annotated[int | None, typer.Option(help="Cut the adapter to this rank; default: the sum of theirs.", min=1)] = None,
    base: Annotated[str | None, typer.Option(help="Where the base encoder lies, when it has moved.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier soup.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Average the weights of several runs into one classifier, as fast as each of them and often a little better.

    \b
    loralab experiment seeds few-shot --seeds 1,2,3 --name few
    loralab soup runs/few --out runs/few-soup
    loralab predict runs/few-soup --input "Oil slips below $50"
    """
    from loralab.inference.model_soup import make_soup

    found = make_soup(runs, out, rank=rank, base=base, overwrite=overwrite)
    if as_json:
        print(json.dumps(asdict(found), indent=2, default=str, ensure_ascii=False))
    else:
        from loralab.cli.experiment_display import show_soup

        show_soup(found)
