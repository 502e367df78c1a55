"""The command line: parse, call one function, print. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from loralab.errors import LoralabError, RunFailed

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
    try:
        app()
    except LoralabError as error:
        print(f"loralab: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # click's code for Ctrl-C; ours is that of every run that did not end well
            print("loralab: interrupted", file=sys.stderr)
            sys.exit(1)
        raise
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output, such as head, has gone: no error of ours
        sys.exit(0)


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
    \b
    `loralab recipes` lists the recipes, `loralab settings` every setting.
    """
    from loralab.config import default_name, load_config

    if resume and overwrite:
        raise LoralabError("--resume goes on with a run and --overwrite replaces it: choose one")
    config = load_config(recipe, settings or [])  # before the slow imports: a misspelt setting is told at once
    from loralab.track import open_trackers

    name = config.name or name or default_name(recipe, config.seed)
    trackers = open_trackers(track or [], config, runs / name)
    from loralab.console import TrainingView
    from loralab.pipeline import run_training

    with TrainingView(config) as view, trackers:
        summary = run_training(
            config,
            name=name,
            folder=runs,
            overwrite=overwrite,
            resume=resume,
            announce=view.announce,
            listeners=[view.listen, *trackers.listeners],
        )
        trackers.finish(summary)
    view.summarise(summary)
    page = None
    if report:
        from loralab.report.write import write_report

        page = write_report(summary.folder)
    for line in trackers.look():
        print(f"tracked     {line}")
    view.point_on(summary.folder, page)


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
    from loralab import console
    from loralab.classifier import Classifier

    classifier = Classifier.load(run, base=base)
    if input_:
        console.show_predictions(input_, classifier.predict(input_))
    if file is not None and out is not None:
        columns = text.split(",") if text else None
        with console.counting(f"classifying {file}") as progress:
            rows = classifier.predict_file(file, out, text=columns, form=format_, progress=progress)
        print(f"{rows:,} rows classified → {out}")


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
    from loralab import console
    from loralab.classifier import Classifier

    classifier = Classifier.load(run, base=base)
    scores = classifier.evaluate(file, text=text.split(",") if text else None, label=label)
    _print_json(scores) if as_json else console.show_scores(scores, classifier.classes)


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
    from loralab import console
    from loralab.diagnose.run import diagnose as diagnose_run
    from loralab.report.write import write_report
    from loralab.runs import DIAGNOSIS

    with console.working() as progress:
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
    _print_json(found.as_dict()) if as_json else console.show_diagnosis(found, run / DIAGNOSIS, page)


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
    from loralab import console
    from loralab.describe import describe as describe_target

    if log:
        from loralab.report.tables import read_tables
        from loralab.report.texts import training_log

        print(training_log(read_tables(Path(target))), end="")
        return

    facts = describe_target(target, settings or [])
    _print_json(facts) if as_json else console.show_facts(facts)


@app.command()
def report(run: RunFolder) -> None:
    """Make a run's report from its files: page, figures, model card, tables, log as text. A run that was stopped has one too.

    \b
    loralab report runs/quickstart-s42
    """
    from loralab.report.write import write_report

    print(f"report      {write_report(run)}")


def _experiment_help() -> str:
    from loralab.experiments.kinds import KINDS

    kinds = "\n".join(f"{kind.name:<11} {kind.asks}" for kind in KINDS.values())
    return f"""Ask a question that takes many runs. A second call goes on where the first was stopped.

    \b\n{kinds}\n\n\b
    loralab experiment                                 the kinds with what they vary, their points and seeds
    loralab experiment seeds distilbert-study --seeds 42,123,456
    loralab experiment grid quickstart --points lora.rank=4,16 --points lora.targets=value,query+value
    loralab experiment active reviews.csv --points strategy=random,margin --points labels=100,500,1000
    loralab experiment compare runs/A runs/B           finished runs, or experiments, on the test rows that they share"""


@app.command(help=_experiment_help())
def experiment(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="What to ask; see above.")] = None,
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE|RUN", help="A recipe, a settings or data file; or several.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE|RUN", help="Settings of all trials.")] = None,
    points: Annotated[list[str] | None, typer.Option(metavar="SETTING=A,B,...", help="What to vary; again for more.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="1,2,3", help="The seeds of every point.")] = None,
    where: Annotated[str | None, typer.Option(help="here, processes or ray; default: processes where there are cores.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Trials at a time; default: one per core.", min=1)] = None,
    name: Annotated[str | None, typer.Option(help="The experiment's name; default: kind and recipe.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier experiment of this name.")] = False,
) -> None:
    from loralab.experiments.kinds import KINDS, find_kind
    from loralab.experiments.plans import parse_points, parse_seeds
    from loralab.experiments.run import plan_experiment, run_experiment

    if kind is None or recipe is None:
        print("\n\n".join(each.describe() for each in (KINDS.values() if kind is None else [find_kind(kind)])))
        return
    asked = find_kind(kind)
    many, changes = ([recipe, *(settings or [])], []) if asked.design == "runs" else (recipe.split(","), settings or [])
    plan = plan_experiment(asked, many, changes, parse_points(points or []), parse_seeds(seeds) if seeds else None)
    from loralab.console import ExperimentView
    from loralab.experiments.execute import choose_where

    folder = runs / (name or "-".join([kind, *(Path(each).stem for each in many)])[:80])
    place = choose_where(where)
    with ExperimentView(folder, place) as view:
        summary = run_experiment(
            plan, folder, where=place, jobs=jobs, overwrite=overwrite, announce=view.announce, tell=view.tell, say=view.say
        )
    view.summarise(summary)
    if summary.failures:
        raise RunFailed(f"trials failed: {len(summary.failures)}, each said above; the same command tries them again")


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
    from loralab import console
    from loralab.describe import budget as solve

    found = solve(recipe, settings or [], max_trainable)
    _print_json([asdict(fit) for fit in found]) if as_json else console.show_budget(found, max_trainable)


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the recipes: what each does, where it comes from, what its source claims."""
    from loralab import console
    from loralab.config import list_recipes

    found = list_recipes()
    if as_json:
        _print_json([{"name": r.name, "summary": r.summary, "source": r.source, "claim": r.claim} for r in found])
    else:
        console.show_recipes(found)


@app.command()
def settings(as_json: AsJson = False) -> None:
    """List every setting with its default and meaning."""
    from loralab import console
    from loralab.config import describe_settings

    found = dict(describe_settings())
    _print_json(found) if as_json else console.show_settings(found)


@app.command()
def clean(
    text: Annotated[str, typer.Argument(help="A text.")],
    steps: Annotated[str, typer.Option(help="Steps, in order.")] = "escapes,html,urls,whitespace",
) -> None:
    """Show a text before and after each cleaning step.

    \b
    loralab clean 'Oil #39;s high: lt;b gt;$50 lt;/b gt; see http://example.org'
    """
    from loralab import console
    from loralab.data.clean import show_steps

    console.show_cleaning(show_steps(text, [step.strip() for step in steps.split(",") if step.strip()]))


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
    from loralab import console
    from loralab.data.check import check_source

    reports = check_source(file, test=test, text=text.split(",") if text else None, label=label)
    _print_json([asdict(report) for report in reports]) if as_json else console.show_data(reports)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can do: versions, cores, fast precision, GPU, minilm, hub."""
    from loralab import console
    from loralab.describe import examine_machine

    facts = examine_machine()
    _print_json(facts) if as_json else console.show_facts(facts)


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, default=str, ensure_ascii=False))
