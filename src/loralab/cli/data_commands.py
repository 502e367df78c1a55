"""Commands on data: check, init, clean, augment."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loralab.cli.options import OUTPUT, AsJson, LabelColumn, Settings, TextColumns, print_json
from loralab.cli.streams import say
from loralab.errors import LoralabError

if TYPE_CHECKING:
    from loralab.config import Config
    from loralab.data.check import Verify

DataFile = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="A file, a folder with train and test files, a settings file, or sample.", show_default=False
    ),
]
TestFile = Annotated[str | None, typer.Option(metavar="FILE", help="A test file.")]
Text = Annotated[str, typer.Argument(help="A text.", show_default=False)]


def check(
    file: DataFile,
    settings: Settings = None,
    test: TestFile = None,
    text: TextColumns = None,
    label: LabelColumn = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page, with figures and examples.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing page.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check what training would decide or refuse. Changes nothing.

    Prints how each file is read, the rows per class and split, and each problem with its rows and what fixes it. Rows count from 0.
    Exits with code 2 if training would refuse the data. Takes the settings of loralab train.

    \b
    loralab check reviews.csv
    loralab check train.csv --test test.csv data.max_length=256
    loralab check reviews.csv --html reviews.html
    """
    from loralab.cli.data_display import show_data_report
    from loralab.cli.display import working
    from loralab.data.check import check_source

    if html is not None and html.exists() and not overwrite:
        raise LoralabError(f"{html} exists: choose another --html, or replace it with --overwrite")
    config = _config(file, settings, test, text, label)
    with working() as show_stage:
        show_stage(f"checking {file}")
        reports = check_source(config.data, config.model, _settings_check(config))
    if html is not None:
        from loralab.report.data_page import write_data_page

        write_data_page(html, file, reports)
    print_json([report.as_dict() for report in reports]) if as_json else show_data_report(reports)
    if html is not None and not as_json and not OUTPUT.quiet:
        say(f"page        {html}")
    if any(report.refused for report in reports):
        raise typer.Exit(2)


def _config(file: str, settings: list[str] | None, test: str | None, text: str | None, label: str | None) -> Config:
    """Return the settings with which `loralab train FILE` would train."""
    from loralab.config import load_config

    options = [f"data.{key}={name}" for key, name in (("text", text), ("label", label)) if name]
    config = load_config(file, [*(settings or ()), *options])
    return config if test is None else config.model_copy(update={"data": config.data.model_copy(update={"test": test})})


def _settings_check(config: Config) -> Verify | None:
    """Return a check of the settings that name classes; None without any, because it loads torch."""
    if config.train.monitor == "loss" and config.train.class_weights is None and config.data.descriptions is None:
        return None
    from loralab.training.setup import build_loss, describe_classes

    return lambda splits, table: (build_loss(config, splits, table), describe_classes(config, splits))


def init(
    file: DataFile,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The settings file. Default: DATA's name with .yaml.")] = None,
    test: TestFile = None,
    text: TextColumns = None,
    label: LabelColumn = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing settings file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented settings file for your data.

    It holds the detected columns and how the file is read, the classes, the row counts, your settings and the others that `loralab
    train DATA` uses.

    \b
    loralab init reviews.csv
    loralab init train.csv lora.rank=4 --test test.csv --out news.yaml
    """
    from loralab.cli.settings_file import settings_file
    from loralab.data.check import check_source
    from loralab.storage.files import atomic_write, write_errors

    target = out or Path(f"{Path(file).name.split('.')[0] or 'settings'}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise LoralabError(f"{target} is not the name of a settings file: it must end in .yaml")
    if target.exists() and not overwrite:
        raise LoralabError(f"{target} exists: choose another --out, or replace it with --overwrite")
    if not target.parent.is_dir():
        raise LoralabError(f"there is no folder {target.parent} for {target.name}: create it first")
    config = _config(file, settings, test, text, label)
    reports = check_source(config.data, config.model, _settings_check(config))
    if reports[0].columns.label is None:
        raise LoralabError(f"{file} has no label column that can be detected: name it with --label COLUMN")
    content = settings_file(config, reports, target)
    with write_errors(target), atomic_write(target) as stream:
        stream.write(content)
    if as_json:
        print_json({"settings": target, "data": [report.as_dict() for report in reports]})
        return
    say(f"written     {target}")
    if not OUTPUT.quiet:
        if problems := sum(len(report.findings) for report in reports):
            say(f"problems    {problems}: loralab check {shlex.quote(str(target))}")
        say(f"next        loralab train {shlex.quote(str(target))}")


def clean(
    text: Text,
    steps: Annotated[str, typer.Option(help="Steps, in order.")] = "escapes,html,urls,whitespace",
    as_json: AsJson = False,
) -> None:
    """Show a text before and after each cleaning step.

    \b
    loralab clean 'Oil #39;s high: lt;b gt;$50 lt;/b gt; see http://example.org'
    """
    from loralab.cli import display
    from loralab.data.clean import show_steps

    texts = show_steps(text, [step.strip() for step in steps.split(",") if step.strip()])
    print_json([{"step": step, "text": cleaned} for step, cleaned in texts]) if as_json else display.show_cleaning(texts)


def augment(
    text: Text,
    technique: Annotated[
        list[str] | None, typer.Option(help="A technique; repeatable. Default: all without models to load.")
    ] = None,
    strength: Annotated[float, typer.Option(help="Fraction of the words changed.", min=0.0, max=1.0)] = 0.1,
    back_translation: Annotated[
        str, typer.Option(metavar="FORWARD,BACK", help="Two Marian checkpoints for back_translation.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of the changes.", min=0)] = 42,
    as_json: AsJson = False,
) -> None:
    """Show the result of each augmentation technique on a text.

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
    texts = show_techniques(text, load_rewrites(techniques, strength, pair), seed)
    print_json([{"technique": name, "text": changed} for name, changed in texts]) if as_json else display.show_augmentation(texts)
