"""The command `loralab search`: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


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

    chosen: Any = {"sampler": sampler, "pruner": pruner, "objectives": objective or ["accuracy"]}
    plan = plan_search(recipe, settings or [], over=over or [], space=space, trials=trials, **chosen)
    from loralab.report.search import write_search_figures
    from loralab.search_view import SearchView

    folder = runs / (name or f"search-{Path(recipe).stem}")
    with SearchView(folder, jobs) as view:
        found = run_search(plan, folder, jobs=jobs, storage=storage, overwrite=overwrite, announce=view.announce, tell=view.tell)
    view.summarise(found, write_search_figures(folder))
