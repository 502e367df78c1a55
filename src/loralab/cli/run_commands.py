"""Commands on finished runs: predict, evaluate, diagnose, report, export, push, soup."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from loralab.cli.options import (
    AsJson,
    Base,
    LabelColumn,
    Model,
    ModelRevision,
    ReadingSettings,
    RunFolder,
    TextColumns,
    print_json,
    reading_settings,
)
from loralab.cli.streams import say
from loralab.errors import LoralabError

if TYPE_CHECKING:
    from loralab.inference.prediction_files import LabelValues, Predictions
    from loralab.integrations.hub import Form, Upload

STDIN = Path("-")


def predict(
    run: Model,
    settings: ReadingSettings = None,
    input_: Annotated[list[str] | None, typer.Option("--input", metavar="TEXT", help="A text; repeatable.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="CSV, TSV, JSONL, Parquet, pickle or a saved dataset; -: one text per line from standard input."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the predictions; required with --file FILE.")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="Format of --out: csv (the default), jsonl, or submission (id and label).")
    ] = None,
    text: TextColumns = None,
    id_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Id column. Default: id or the like; row numbers if the file has none.")
    ] = None,
    template: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A sample submission: its header, ids, order and kind of labels are used.")
    ] = None,
    label_values: Annotated[
        str | None,
        typer.Option(
            metavar="raw|names|index",
            help="Labels of a submission: values of the training file (raw; the default if the file has ids), class names, or "
            "class indices from 0 (the default if it has none).",
        ),
    ] = None,
    keep_columns: Annotated[bool, typer.Option("--keep-columns", help="Keep the file's columns in the output.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="In CSV, write cells that a spreadsheet would run as formulas without a ' in front.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing --out.")] = False,
    base: Base = None,
    revision: ModelRevision = None,
    as_json: AsJson = False,
) -> None:
    """Classify texts, or every row of a file.

    \b
    loralab predict runs/quickstart-s42 --input "Oil slips below $50" --input "Cup final goes to penalties"
    cat texts.txt | loralab predict runs/quickstart-s42
    loralab predict runs/quickstart-s42 --file new.csv --out labels.csv
    loralab predict runs/quickstart-s42 --file new.csv --out new-labelled.csv --keep-columns
    loralab predict runs/quickstart-s42 --file test_unlabelled.pkl --format submission --out submission.csv
    loralab predict runs/quickstart-s42 --file test.csv --template sample_submission.csv --out submission.csv
    loralab predict USER/NAME --input "Oil slips below $50"      a model on the Hugging Face hub
    """
    if input_ and file is not None:
        raise LoralabError("--input and --file are both set: choose one")
    if file not in (None, STDIN) and out is None:
        raise LoralabError("--file needs --out FILE for the predictions")
    if out is not None and out.exists() and not overwrite:
        raise LoralabError(f"{out} exists: choose another --out, or replace it with --overwrite")
    if (keep_columns or id_column) and file in (None, STDIN):
        raise LoralabError(f"{'--keep-columns' if keep_columns else '--id-column'} needs --file FILE: texts have no columns")
    texts = input_ or (read_texts() if file in (None, STDIN) else None)
    from loralab.cli import display
    from loralab.inference.classifier import Classifier
    from loralab.inference.prediction_files import OutputFormat

    default = "submission" if template or label_values else "csv"
    form = OutputFormat(format_ or default, keep_columns, raw, template, cast("LabelValues | None", label_values))
    data = reading_settings(text, None, [*(settings or ()), *([f"data.id={id_column}"] if id_column else ())])
    classifier = Classifier.load(run, base=base, revision=revision)
    if texts is not None and out is None:
        predictions = classifier.predict(texts)
        print_json(prediction_rows(texts, predictions)) if as_json else display.show_predictions(texts, predictions)
        display.show_notices(classifier.text_notices(texts))
        return
    assert out is not None
    with display.counting(f"classifying {file or 'texts'}") as progress:
        if texts is not None:
            report = classifier.predict_to_file(texts, out, format=form)
        else:
            assert file is not None
            report = classifier.predict_file(file, out, data, format=form, progress=progress)
    display.show_reading(report.columns, report.facts)
    display.show_notices(report.notices)
    if texts is None:
        display.show_distribution(report.predicted, classifier.training_rows)
    if as_json:
        notices = [str(notice) for notice in report.notices]
        read = {"columns": report.columns, "read": report.facts, "notices": notices}
        print_json({"rows": report.rows, "out": out, **read, "predicted": report.predicted})
    else:
        say(f"{report.rows:,} row{'s' * (report.rows != 1)} classified → {out}")


def read_texts() -> list[str]:
    """Return the lines of standard input that are not blank. Raises LoralabError for a terminal and for input without text."""
    from loralab.cli.display import show_notices
    from loralab.data.types import Notice

    if sys.stdin is None or sys.stdin.isatty():
        raise LoralabError("no texts: pass --input TEXT, --file FILE, or texts on standard input, one per line")
    try:
        lines = [line.rstrip("\r\n") for line in sys.stdin]
    except UnicodeDecodeError as error:
        raise LoralabError(f"standard input is not {error.encoding} text: {error}") from error
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise LoralabError("no texts: standard input is empty; pass --input TEXT or --file FILE, or one text per line")
    if len(texts) < len(lines):
        show_notices([Notice(f"{len(lines) - len(texts):,} of {len(lines):,} lines are blank and left out")])
    return texts


def prediction_rows(texts: list[str], predictions: Predictions) -> list[dict[str, Any]]:
    """Return each text with its label, confidence and probabilities, rounded to five digits as in prediction files."""
    rows = [[round(value, 5) for value in row] for row in predictions.probabilities.tolist()]
    return [
        {"text": text, "label": label, "confidence": max(row), "probabilities": dict(zip(predictions.classes, row, strict=True))}
        for text, label, row in zip(texts, predictions.labels, rows, strict=True)
    ]


def evaluate(
    run: Model,
    file: Annotated[Path, typer.Option(help="A labelled file.", show_default=False)],
    settings: ReadingSettings = None,
    text: TextColumns = None,
    label: LabelColumn = None,
    base: Base = None,
    revision: ModelRevision = None,
    as_json: AsJson = False,
) -> None:
    """Score a run on a labelled file.

    Macro F1 is the mean over the classes that have rows; with --json, macro_f1_all counts the others as 0.

    \b
    loralab evaluate runs/quickstart-s42 --file test.csv
    """
    from loralab.cli import display
    from loralab.inference.classifier import Classifier

    classifier = Classifier.load(run, base=base, revision=revision)
    result = classifier.evaluate_file(file, reading_settings(text, label, settings))
    display.show_reading(result.columns, result.facts)
    display.show_notices(result.notices)
    print_json(result.scores) if as_json else display.show_scores(result.scores, classifier.classes, "row")


def diagnose(
    run: RunFolder,
    settings: ReadingSettings = None,
    file: Annotated[Path | None, typer.Option(help="Analyse this file's rows instead of the run's test rows.")] = None,
    text: TextColumns = None,
    label: LabelColumn = None,
    input_: Annotated[list[str] | None, typer.Option("--input", metavar="TEXT", help="Explain this text too; repeatable.")] = None,
    rows: Annotated[int, typer.Option(help="Perturb at most this many rows in the robustness check.", min=1)] = 2000,
    base: Base = None,
    as_json: AsJson = False,
) -> None:
    """Analyse errors: calibration, label errors, duplicates, drift.

    Also checks robustness to typos and explains mistakes with token attributions. The results go into the run's report.

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
        diagnosis = diagnose_run(
            run,
            file=file,
            data=reading_settings(text, label, settings),
            inputs=input_ or (),
            rows=rows,
            base=base,
            progress=progress,
        )
    page = write_report(run)  # with the diagnosis
    print_json(diagnosis.as_dict()) if as_json else display.show_diagnosis(diagnosis, run / DIAGNOSIS, page)


def report(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|EXPERIMENT|FOLDER", help="A run, an experiment, or a folder that holds some.", show_default=False
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Write the report of a run, an experiment or a folder.

    A run or experiment that is not complete has a report too.

    \b
    loralab report runs/quickstart-s42        a run: page, figures, model card, log as text
    loralab report runs/grid-quickstart       an experiment: page, figures, tables
    loralab report runs                       a dashboard of all runs and experiments in a folder
    """
    from loralab.cli.display import show_remark
    from loralab.report.write import figure_remark, write_report

    page = write_report(path)
    show_remark(figure_remark(page))
    print_json({"report": page}) if as_json else say(f"report      {page}")


def export(
    run: RunFolder,
    to: Annotated[str, typer.Option(help="merged, peft, sentence-transformers, onnx or onnx-int8.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="A new folder. Default: RUN/exports/FORMAT.")] = None,
    base: Base = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    accept: Annotated[bool, typer.Option("--accept", help="Keep 8 bits even if they cost accuracy.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a model for Transformers, peft or ONNX Runtime.

    Logits include the temperature, so their softmax gives the probabilities of `loralab predict`. The export is compared with the
    run, also by its own library in a process without loralab, and discarded if logits differ.

    \b
    merged                  all weights, with the adapter merged, for Transformers and its pipelines
    peft                    the adapter and the head in peft's format
    sentence-transformers   encoder, pooling and head as modules
    onnx                    fp32 for ONNX Runtime
    onnx-int8               8-bit matrix products: a quarter of the size, faster on CPUs without bf16; discarded if McNemar's test
                            on the validation rows shows that they cost accuracy
    \b
    loralab export runs/quickstart-s42 --to onnx
    loralab predict runs/quickstart-s42/exports/onnx --input "Oil slips below $50"
    """
    from loralab.cli import display
    from loralab.inference.export import export_run

    with display.working() as progress:
        result = export_run(run, to, out, base=base, overwrite=overwrite, accept=accept, progress=progress)
    print_json(asdict(result)) if as_json else display.show_export(result)


def push(
    run: RunFolder,
    repo_id: Annotated[
        str, typer.Argument(metavar="REPO_ID", help="USER/NAME on the hub, created if missing.", show_default=False)
    ],
    form: Annotated[str, typer.Option("--as", metavar="FORM", help="bundle, peft or merged.")] = "bundle",
    private: Annotated[bool, typer.Option("--private", help="Create a private repository; refuse one that is public.")] = False,
    revision: Annotated[str | None, typer.Option(help="The branch, created if missing. Default: main.")] = None,
    message: Annotated[str | None, typer.Option(help="The commit's message.")] = None,
    base: Base = None,
    as_json: AsJson = False,
) -> None:
    """Publish a complete run's model on the Hugging Face hub.

    Uploads the model, its settings and the model card as one commit. Rows, predictions, logs and paths of this machine are never
    uploaded. Log in first with `hf auth login`, or set HF_TOKEN to a token with write access.

    \b
    bundle   the run's model folder, with class names, cleaning and temperature; opens in loralab and peft
    peft     the adapter and the head in peft's format, as `loralab export --to peft`; opens in peft and loralab
    merged   all weights, as `loralab export --to merged`; opens in Transformers' pipeline and loralab
    \b
    loralab push runs/quickstart-s42 USER/news-classifier --private
    loralab push runs/quickstart-s42 USER/news-classifier --as merged --revision merged
    loralab predict USER/news-classifier --input "Oil slips below $50"
    """
    from loralab.cli import display
    from loralab.integrations.hub import push_to_hub

    uploads: list[Upload] = []

    def announce(upload: Upload) -> None:
        uploads.append(upload)
        if not as_json:
            display.show_upload(upload)

    with display.working() as progress:
        url = push_to_hub(
            run,
            repo_id,
            what=cast("Form", form),
            private=private,
            revision=revision,
            commit_message=message,
            base=base,
            announce=announce,
            progress=progress,
        )
    print_json({"url": url, "files": uploads[0].megabytes}) if as_json else say(f"published   {url}")


def soup(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN|EXPERIMENT", help="Complete runs with different seeds, or an experiment.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the model.", show_default=False)],
    rank: Annotated[
        int | None, typer.Option(help="Rank of the averaged adapter. Default: the sum of the runs' ranks.", min=1)
    ] = None,
    base: Base = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier soup.")] = False,
    as_json: AsJson = False,
) -> None:
    """Average the weights of several runs into one model.

    Such a model soup is as fast as each of its runs and often slightly more accurate. Without --rank the average is exact, and
    its adapters are as large as those of all runs together. --rank of one run makes them as small as one run's.

    \b
    loralab experiment seeds few-shot --seeds 1,2,3 --name few
    loralab soup runs/few --out runs/few-soup
    loralab soup runs/few --rank 8 --out runs/few-small
    loralab predict runs/few-soup --input "Oil slips below $50"
    """
    from loralab.inference.model_soup import make_soup

    result = make_soup(runs, out, rank=rank, base=base, overwrite=overwrite)
    if as_json:
        print_json(asdict(result))
    else:
        from loralab.cli.experiment_display import show_soup

        show_soup(result)
