"""The command line: parse, call one function, print. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from loralab.cli.experiments import experiment, experiment_help, report, search, soup
from loralab.cli.streams import safe_stdio
from loralab.errors import LoralabError

INTERRUPTED = 130

app = typer.Typer(
    name="loralab",
    help="Fine-tune text classifiers with LoRA: on a laptop or a GPU, under a parameter budget, and honestly.",
    epilog="Begin with: loralab train quickstart    or with your own rows: loralab train reviews.csv",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Settings = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as lora.rank=16 seed=1.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/quickstart-s42.")]


def main() -> None:
    """Run the command line; a LoralabError becomes one message and its exit code, a bug keeps its traceback."""
    with safe_stdio() as output:
        try:
            app()
        except LoralabError as error:
            from loralab.training.distributed import exit_with, report_error

            report_error(f"loralab: {error}")
            exit_with(error.exit_code)
        except SystemExit as end:
            if end.code == INTERRUPTED:  # click's code for Ctrl-C; ours is that of every run that did not end well
                print("loralab: interrupted", file=sys.stderr)
                sys.exit(1)
            if not end.code and (problem := output.lost()):
                print(f"loralab: standard output: {problem}; all was done, and not all could be said", file=sys.stderr)
                sys.exit(1)
            raise


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE|YAML|DATA", help="A recipe, a settings file, or a data file.")],
    settings: Settings = None,
    name: Annotated[str | None, typer.Option(help="The run's name; default: the recipe's and the seed.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped, to the same result.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run of this name.")] = False,
    track: Annotated[list[str] | None, typer.Option(help="Also show it in tensorboard, wandb or mlflow; repeat for more.")] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the run's report at its end.")] = True,
) -> None:
    """Fine-tune an encoder and test it.

    \b
    loralab train quickstart                       minilm on the built-in sample
    loralab train reviews.csv                      quickstart on your rows; columns are guessed and said
    loralab train reviews.csv data.text=title,body data.label=stars
    loralab train roberta-million-budget seed=1    under a million trainable parameters
    loralab train quickstart --track tensorboard   and --track wandb, --track mlflow: offline, in the run's folder
    torchrun --nproc-per-node 4 -m loralab train quickstart    one run by 4 processes, or 4 GPUs
    \b
    `loralab recipes` lists the recipes, `loralab settings` every setting.
    """
    from loralab.config.loading import default_name, load_config

    if resume and overwrite:
        raise LoralabError("--resume goes on with a run and --overwrite replaces it: choose one")
    from loralab.training.distributed import Distributed

    distributed = Distributed.join()
    config = distributed.run_everywhere(
        load_config, recipe, settings or []
    )  # before the slow imports: a misspelt setting is told at once
    from loralab.integrations.trackers import open_trackers

    name = config.name or name or default_name(recipe, config.seed)
    trackers = distributed.run_everywhere(open_trackers, track or [], config, runs / name)
    from loralab.cli.display import TrainingView
    from loralab.pipeline import run_training

    run = partial(run_training, config, name=name, folder=runs, overwrite=overwrite, resume=resume, distributed=distributed)
    if not distributed.is_main:  # the first process alone speaks and writes
        run()
        distributed.leave()
        return
    with TrainingView(config) as view, trackers:
        summary = run(announce=view.announce, listeners=[view.listen, *trackers.listeners])
        trackers.finish(summary)
    view.summarise(summary)
    page = None
    if report:
        from loralab.report.write import write_report

        page = write_report(summary.folder)
    for line in trackers.look():
        print(f"tracked     {line}")
    view.point_on(summary.folder, page)
    distributed.leave()


@app.command()
def predict(
    run: RunFolder,
    input_: Annotated[list[str] | None, typer.Option("--input", metavar="TEXT", help="A text; repeat for more.")] = None,
    file: Annotated[Path | None, typer.Option(help="CSV, TSV, JSONL, Parquet, pickle, or a saved dataset.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the file's predictions go.")] = None,
    format_: Annotated[str, typer.Option("--format", help="csv, jsonl or submission (ID,Label).")] = "csv",
    text: Annotated[str | None, typer.Option(help="Text column or columns, such as title,body.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out when it exists.")] = False,
    base: Annotated[str | None, typer.Option(help="Where the base encoder lies, when it has moved.")] = None,
) -> None:
    """Classify texts, or every row of a file.

    \b
    loralab predict runs/quickstart-s42 --input "Oil slips below $50" --input "Cup final goes to penalties"
    loralab predict runs/quickstart-s42 --file new.csv --out labels.csv
    loralab predict runs/quickstart-s42 --file test_unlabelled.pkl --format submission --out submission.csv
    """
    if bool(input_) == (file is not None):
        raise LoralabError("say what to classify: either --input TEXT (again for more) or --file FILE")
    if file is not None and out is None:
        raise LoralabError("--file needs --out FILE, where the predictions go")
    if out is not None and out.exists() and not overwrite:
        raise LoralabError(f"{out} exists: choose another --out, or replace it with --overwrite")
    from loralab.cli import display
    from loralab.inference.classifier import Classifier

    classifier = Classifier.load(run, base=base)
    if input_:
        display.show_predictions(input_, classifier.predict(input_))
    if file is not None and out is not None:
        columns = text.split(",") if text else None
        with display.counting(f"classifying {file}") as progress:
            rows = classifier.predict_file(file, out, text=columns, format=format_, progress=progress)
        print(f"{rows:,} rows classified → {out}")


@app.command()
def export(
    run: RunFolder,
    to: Annotated[str, typer.Option(help="merged, peft, onnx or onnx-int8.")],
    out: Annotated[Path | None, typer.Option(help="A new folder; default: RUN/exports/FORM.")] = None,
    base: Annotated[str | None, typer.Option(help="Where the base encoder lies, when it has moved.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run in the form that others read. It is checked on the run's test texts, and refused where it answers otherwise.

    \b
    merged      all weights, the adapter added in; opens in Transformers where the head is the architecture's own
    peft        the adapter, for peft
    onnx        fp32, for ONNX Runtime
    onnx-int8   products in 8 bits: a quarter of the size, and faster on a processor without bf16
    \b
    loralab export runs/quickstart-s42 --to onnx
    loralab predict runs/quickstart-s42/exports/onnx --input "Oil slips below $50"
    """
    from loralab.cli import display
    from loralab.inference.export import export_run

    found = export_run(run, to, out, base=base, overwrite=overwrite)
    _print_json(asdict(found)) if as_json else display.show_export(found)


@app.command()
def evaluate(
    run: RunFolder,
    file: Annotated[Path, typer.Option(help="A labelled file.")],
    text: Annotated[str | None, typer.Option(help="Text column or columns.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column.")] = None,
    base: Annotated[str | None, typer.Option(help="Where the base encoder lies, when it has moved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a run on a labelled file.

    \b
    loralab evaluate runs/quickstart-s42 --file held_out.csv
    """
    from loralab.cli import display
    from loralab.inference.classifier import Classifier

    classifier = Classifier.load(run, base=base)
    scores = classifier.evaluate(file, text=text.split(",") if text else None, label=label)
    _print_json(scores) if as_json else display.show_scores(scores, classifier.classes)


@app.command()
def diagnose(
    run: RunFolder,
    file: Annotated[Path | None, typer.Option(help="Look at this file's rows, not at the run's test rows.")] = None,
    text: Annotated[str | None, typer.Option(help="The file's text column or columns.")] = None,
    label: Annotated[str | None, typer.Option(help="The file's label column; without labels less can be said.")] = None,
    input_: Annotated[list[str] | None, typer.Option("--input", metavar="TEXT", help="Explain this text too; repeatable.")] = None,
    rows: Annotated[int, typer.Option(help="Most rows to damage for the robustness.", min=1)] = 2000,
    base: Annotated[str | None, typer.Option(help="Where the base encoder lies, when it has moved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look for what a score comes from: calibration, fragility, wrong labels, copies of training rows, drift; explain mistakes.

    \b
    loralab diagnose runs/quickstart-s42
    loralab diagnose runs/quickstart-s42 --file competition.csv --label label
    loralab diagnose runs/quickstart-s42 --input "Oil slips below $50"
    """
    from loralab.cli import display
    from loralab.diagnostics.diagnose import diagnose as diagnose_run
    from loralab.report.write import write_report
    from loralab.storage.run_folder import DIAGNOSIS

    with display.working() as progress:
        found = diagnose_run(
            run,
            file=file,
            text=text.split(",") if text else None,
            label=label,
            inputs=input_ or (),
            rows=rows,
            base=base,
            progress=progress,
        )
    page = write_report(run)  # it shows the diagnosis
    _print_json(found.as_dict()) if as_json else display.show_diagnosis(found, run / DIAGNOSIS, page)


@app.command()
def describe(
    target: Annotated[str, typer.Argument(metavar="RUN|RECIPE", help="A run's folder, a recipe, or a settings file.")],
    settings: Settings = None,
    log: Annotated[bool, typer.Option("--log", help="Print a run's whole training log as text.")] = False,
    as_json: AsJson = False,
) -> None:
    """Count parameters (base, adapter, head, trainable) of a run or a recipe; needs no weights.

    \b
    loralab describe roberta-class-weights
    loralab describe roberta-class-weights lora.rank=22 lora.targets=value
    loralab describe runs/quickstart-s42 --log
    """
    from loralab.cli import display
    from loralab.info import describe as describe_target

    if log:
        from loralab.report.run_data import read_run
        from loralab.report.text_files import training_log

        print(training_log(read_run(Path(target))), end="")
        return

    facts = describe_target(target, settings or [])
    _print_json(facts) if as_json else display.show_facts(facts)


app.command()(report)
app.command(help=experiment_help())(experiment)
app.command()(search)
app.command()(soup)


@app.command()
def budget(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe or a settings file.")],
    max_trainable: Annotated[int, typer.Option(help="Most trainable parameters.", min=1)],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Solve the budget: the largest rank for each choice of targets and layers.

    \b
    loralab budget roberta-million-budget --max-trainable 1000000
    """
    from loralab.cli import display
    from loralab.info import budget as solve

    found = solve(recipe, settings or [], max_trainable)
    _print_json([asdict(fit) for fit in found]) if as_json else display.show_budget(found, max_trainable)


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the recipes: what each does, where it comes from, what its source claims."""
    from loralab.cli import display
    from loralab.config.loading import list_recipes

    found = list_recipes()
    if as_json:
        _print_json([{"name": r.name, "summary": r.summary, "source": r.source, "claim": r.claim} for r in found])
    else:
        display.show_recipes(found)


@app.command()
def settings(as_json: AsJson = False) -> None:
    """List every setting with its default and meaning."""
    from loralab.cli import display
    from loralab.config.loading import describe_settings

    found = dict(describe_settings())
    _print_json(found) if as_json else display.show_settings(found)


@app.command()
def clean(
    text: Annotated[str, typer.Argument(help="A text.")],
    steps: Annotated[str, typer.Option(help="Steps, in order.")] = "escapes,html,urls,whitespace",
) -> None:
    """Show a text before and after each cleaning step.

    \b
    loralab clean 'Oil #39;s high: lt;b gt;$50 lt;/b gt; see http://example.org'
    """
    from loralab.cli import display
    from loralab.data.clean import show_steps

    display.show_cleaning(show_steps(text, [step.strip() for step in steps.split(",") if step.strip()]))


@app.command()
def augment(
    text: Annotated[str, typer.Argument(help="A text.")],
    technique: Annotated[list[str] | None, typer.Option(help="A technique; repeatable. Default: all but back_translation.")] = None,
    strength: Annotated[float, typer.Option(help="Share of the words changed.", min=0.0, max=1.0)] = 0.1,
    back_translation: Annotated[str, typer.Option(metavar="FORWARD,BACK", help="Two Marian checkpoints.")] = "",
    seed: Annotated[int, typer.Option(help="Another seed, other changes.", min=0)] = 42,
) -> None:
    """Show what each technique of data.augment makes of a text.

    \b
    loralab augment 'Oil prices fall to the lowest level of the year' --strength 0.2
    """
    from loralab.cli import display
    from loralab.data.augment import TECHNIQUES, check_techniques, show_techniques
    from loralab.training.setup import load_rewrites

    pair = [name.strip() for name in back_translation.split(",") if name.strip()]
    techniques = technique or (TECHNIQUES if pair else TECHNIQUES[:-1])
    check_techniques(techniques)
    if pair and (len(pair) != 2 or "back_translation" not in techniques):
        raise LoralabError("--back-translation needs two Marian checkpoints, FORWARD,BACK, and the technique back_translation")
    display.show_augmentation(show_techniques(text, load_rewrites(techniques, strength, pair), seed))


@app.command()
def data(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file, a folder with train and test parts, or sample.")],
    test: Annotated[str | None, typer.Option(help="A test file to compare with.")] = None,
    text: Annotated[str | None, typer.Option(help="Text column or columns.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what is in a file and what is wrong with it: row numbers (from 0) and the fix. Changes nothing.

    \b
    loralab data reviews.csv
    loralab data train.csv --test test.csv
    """
    from loralab.cli import display
    from loralab.data.validate import check_source

    reports = check_source(file, test=test, text=text.split(",") if text else None, label=label)
    _print_json([asdict(report) for report in reports]) if as_json else display.show_data(reports)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can do: versions, cores, fast precision, GPU, minilm, hub."""
    from loralab.cli import display
    from loralab.info import examine_machine

    facts = examine_machine()
    _print_json(facts) if as_json else display.show_facts(facts)


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, default=str, ensure_ascii=False))
