"""Commands on recipes, settings, parameter counts and the environment."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from loralab.cli.options import AsJson, Settings, print_json, register, setting_argument, source_argument
from loralab.cli.streams import say

Target = Annotated[str, source_argument("RECIPE|YAML|DATA|RUN", "A recipe, a settings file, a data file or a run's folder.")]
config_app = typer.Typer(
    help="Show complete settings, or the schema of settings files.", no_args_is_help=True, rich_markup_mode=None
)


def recipes(as_json: AsJson = False) -> None:
    """List the recipes with their source and the score it claims.

    \b
    loralab recipes
    """
    from loralab.cli import display
    from loralab.config.loading import list_recipes

    listed = list_recipes()
    if as_json:
        print_json([{"name": r.name, "summary": r.summary, "source": r.source, "claim": r.claim} for r in listed])
    else:
        display.show_recipes(listed)


def settings(
    pattern: Annotated[
        str,
        setting_argument("PATTERN", "A part of a setting's name or description, such as lora or rate. Default: all settings."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List settings with type, limits, default and description.

    \b
    loralab settings
    loralab settings lora
    """
    from loralab.cli import display
    from loralab.config.loading import setting_table

    rows = setting_table(pattern)
    print_json([asdict(row) for row in rows]) if as_json else display.show_settings(rows)


def show(source: Target, settings: Settings = None, as_json: AsJson = False) -> None:
    """Print every setting as YAML, defaults included.

    The source is a recipe, a settings file, a data file or a run.

    \b
    loralab config show quickstart
    loralab config show reviews.yaml train.epochs=5 > longer.yaml
    """
    from loralab.config import load_config

    config = load_config(source, settings or [])
    print_json(config.model_dump(mode="json")) if as_json else say(config.to_yaml(), end="")


def schema() -> None:
    """Print the JSON schema of settings files, for editors.

    \b
    loralab config schema > loralab.schema.json
    """
    from loralab.config.loading import config_schema

    print_json(config_schema())


register(config_app, show)
register(config_app, schema)


def describe(
    target: Target,
    settings: Settings = None,
    log: Annotated[bool, typer.Option("--log", help="Print a run's training log as text.")] = False,
    as_json: AsJson = False,
) -> None:
    """Count the parameters of a recipe or run without weights.

    Prints base, adapter, head and trainable parameters, and the scores of a complete run.

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

        say(training_log(read_run(Path(target))), end="")
        return
    facts = describe_target(target, settings or [])
    print_json(facts) if as_json else display.show_facts(facts)


def budget(
    recipe: Annotated[str, source_argument("RECIPE", "A recipe, a settings file or a data file.")],
    max_trainable: Annotated[int, typer.Option(help="Budget of trainable parameters.", min=1, show_default=False)],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Find the largest rank within a parameter budget.

    Prints the rank and the trainable parameters for each choice of targets and layers.

    \b
    loralab budget roberta-million-budget --max-trainable 1000000
    """
    from loralab.cli import display
    from loralab.info import budget_options

    options = budget_options(recipe, settings or [], max_trainable)
    print_json([asdict(option) for option in options]) if as_json else display.show_budget(options, max_trainable)


def doctor(as_json: AsJson = False) -> None:
    """Show environment information: versions, cores, GPU, precision.

    \b
    loralab doctor
    """
    from loralab.cli import display
    from loralab.info import environment_info

    facts = environment_info()
    print_json(facts) if as_json else display.show_facts(facts)
