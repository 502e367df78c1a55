"""`loralab train`."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from loralab.cli.options import OUTPUT, AsJson, Runs, Settings, Source, check_name, print_json
from loralab.cli.streams import say
from loralab.errors import LoralabError


def train(
    recipe: Source,
    settings: Settings = None,
    name: Annotated[str | None, typer.Option(help="The run's name. Default: the file's `name`, else recipe and seed.")] = None,
    runs: Runs = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run; the result is the same.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run of this name.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse rows without a label; otherwise they are left out.")] = False,
    track: Annotated[
        list[str] | None, typer.Option(metavar="TRACKER", help="Also log to tensorboard, wandb or mlflow; repeatable.")
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write a report at the end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Fine-tune an encoder, test it and write a report.

    \b
    loralab train quickstart                       minilm on the built-in sample
    loralab train reviews.csv                      quickstart on your rows; columns are detected and printed
    loralab train reviews.csv data.text=title,body data.label=stars
    loralab train roberta-million-budget seed=1    under a million trainable parameters
    loralab train quickstart --track tensorboard   or wandb, mlflow: offline, in the run's folder
    torchrun --nproc-per-node 4 -m loralab train quickstart    one run on 4 processes or GPUs
    \b
    `loralab recipes` lists the recipes, `loralab settings` every setting.
    """
    from loralab.config.loading import default_name, load_config

    if resume and overwrite:
        raise LoralabError("--resume continues a run and --overwrite replaces it: choose one")
    from loralab.training.distributed import Distributed

    distributed = Distributed.join()
    assignments = [*(settings or ()), *(["data.strict=true"] if strict else ())]
    config = distributed.run_everywhere(load_config, recipe, assignments)  # before slow imports, to report mistakes at once
    if name and config.name:
        config = config.model_copy(update={"name": name})
    from loralab.integrations.trackers import Trackers

    name = check_name(config.name or name or default_name(recipe, config.seed))
    trackers = distributed.run_everywhere(Trackers, track or [], config, runs / name)
    from loralab.cli.training_display import TrainingView
    from loralab.pipeline import run_training

    run = partial(run_training, config, name=name, folder=runs, overwrite=overwrite, resume=resume, distributed=distributed)
    if not distributed.is_main:  # only the main process prints and writes
        run()
        distributed.leave()
        return
    with TrainingView(config) as view, trackers:
        summary = run(announce=view.announce, listeners=[view.listen, *trackers.listeners])
        trackers.finish(summary)
    page = None
    if not as_json:
        view.summarise(summary)
    if report:
        from loralab.cli.display import show_remark
        from loralab.report.write import figure_remark, write_report

        page = write_report(summary.folder)
        show_remark(figure_remark(page))
    if as_json:
        print_json({**asdict(summary), "report": page})
    else:
        for line in () if OUTPUT.quiet else trackers.hints():
            say(f"tracked     {line}")
        view.show_next(summary.folder, page)
    distributed.leave()
