"""Every shipped recipe counts what its source counts, and trains two steps on a tiny encoder of its own architecture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import done
from tiny import CLASSES, make_checkpoint, topics, write_csv

from loralab import Classifier, Config, load_config
from loralab.config.loading import list_recipes
from loralab.info import count_parameters
from loralab.model import dropout
from loralab.model.architectures import parse_layers, resolve_targets
from loralab.model.checkpoints import base_dimensions, is_sentence_encoder
from loralab.pipeline import run_training

RECIPES = [recipe.name for recipe in list_recipes()]

GOLDEN = {  # adapter, head, trainable, total: the exact arithmetic of the design; None where it gives no number
    "roberta-class-weights": (294_912, 593_668, 888_580, 124_943_620),
    "roberta-latent-layers": (73_728, 593_668, 667_396, None),
    "roberta-million-budget": (405_504, 593_668, 999_172, None),
    "roberta-search": (294_912, 593_668, 888_580, 124_943_620),
    "distilbert-study": (147_456, 593_668, 741_124, None),
    # Transformers' DistilBertForSequenceClassification with 4 labels: 66,955,010 with 2, and 769 for each more
    "distilbert-baseline": (0, 593_668, 66_956_548, 66_956_548),
}


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    pool, dropout.POOL = dropout.POOL, 1 << 16  # masks for a tiny encoder: what they hold does not matter here
    yield
    dropout.POOL = pool


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training part large enough for 240 validation rows, and a test part."""
    folder = tmp_path_factory.mktemp("data")
    write_csv(folder / "train.csv", topics(80))
    write_csv(folder / "test.csv", topics(6, seed=1))
    return folder


def flat(config: Config) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for section, content in config.model_dump(mode="json").items():
        settings |= (
            {f"{section}.{key}": value for key, value in content.items()} if isinstance(content, dict) else {section: content}
        )
    return settings


def test_recipes_are_those_of_the_golden_table_and_our_own() -> None:
    assert set(RECIPES) == {*GOLDEN, "quickstart", "few-shot"}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_two_steps_with_its_own_settings(name: str, data: Path, tmp_path: Path) -> None:
    recipe = load_config(name)
    dims = base_dimensions(recipe.model.base)
    sentences = is_sentence_encoder(recipe.model.base)
    base = make_checkpoint(tmp_path / "base", dims.model_type, layers=dims.layers, sentence_encoder=sentences)
    config = recipe.override(f"model.base={base}", f"data.source={data}", "train.max_steps=2", "data.max_test_samples=12")
    before, after = flat(recipe), flat(config)
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"model.base", "data.source", "train.max_steps", "data.max_test_samples"}

    summary = run_training(config, folder=tmp_path / "runs")
    assert summary.steps == 2
    assert summary.counts == count_parameters(config)[1]
    assert sum(summary.scores[f"true:{label}"] for label in CLASSES) == 12
    events = [json.loads(line) for line in (summary.folder / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["StepEnd", "StepEnd", *(["EvalEnd"] if recipe.data.validation != 0 else [])]
    if recipe.tuning == "lora":
        written = json.loads((summary.folder / "model" / "adapter_config.json").read_text())
        assert (written["r"], written["lora_alpha"]) == (recipe.lora.rank, recipe.lora.alpha)
        adapted = len(resolve_targets(recipe.lora.targets)) * len(parse_layers(recipe.lora.layers, dims.layers))
        assert len(written["target_modules"]) == adapted
    if recipe.data.classes:
        assert summary.classes == recipe.data.classes == CLASSES
    assert len(Classifier.load(summary.folder).predict(["a goal", "a chip"])) == 2


@pytest.mark.parametrize("name", GOLDEN)
def test_describe_gives_the_golden_counts_without_weights(name: str) -> None:
    adapter, head, trainable, total = GOLDEN[name]
    counts = json.loads(done("describe", name, "--json"))["parameters"]
    assert (counts["adapter"], counts["head"], counts["trainable"]) == (adapter, head, trainable)
    if total is not None:
        assert counts["total"] == total
    assert counts["total"] == counts["base"] + counts["adapter"] + counts["head"]
    out = done("describe", name)
    assert all(f"{number:,}" in out for number in (adapter, head, trainable, counts["base"]))


@pytest.mark.parametrize(
    ("settings", "trainable"),
    [
        (["lora.rank=22", "lora.targets=value"], 999_172),
        (["lora.rank=23", "lora.targets=value"], 1_017_604),
        (["lora.rank=11"], 999_172),
        (["lora.layers=9-11"], 667_396),
        (["model.base=distilbert-base-uncased"], 741_124),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_describe_with_settings_gives_the_rest_of_the_golden_table(settings: list[str], trainable: int) -> None:
    assert json.loads(done("describe", "roberta-class-weights", *settings, "--json"))["parameters"]["trainable"] == trainable


def test_quickstart_counts_what_it_trains() -> None:
    counts = json.loads(done("describe", "quickstart", "--json"))["parameters"]
    adapter = 6 * 16 * (4 * (384 + 384) + 2 * (384 + 1536))  # layers x rank x (inputs + outputs) of the six maps
    assert (counts["adapter"], counts["head"], counts["trainable"]) == (adapter, 385 * 4, adapter + 385 * 4)


@pytest.mark.parametrize("name", ["roberta-million-budget"])
def test_recipe_with_a_budget_says_what_is_left(name: str) -> None:
    assert json.loads(done("describe", name, "--json"))["parameters"]["budget"] == "1,000,000 (828 left)"
    over = json.loads(done("describe", name, "lora.rank=23", "--json"))["parameters"]["budget"]
    assert over == "1,000,000 (17,604 OVER)"


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_holds_only_differences_with_source_and_claim(name: str) -> None:
    (recipe,) = [recipe for recipe in list_recipes() if recipe.name == name]
    assert recipe.summary
    assert recipe.source
    assert recipe.claim
    plain, own = flat(Config()), flat(load_config(name))
    stated = {
        f"{section}.{key}" if isinstance(content, dict) else section
        for section, content in recipe.settings.items()
        for key in (content if isinstance(content, dict) else [section])
    }
    assert {key for key in plain if plain[key] != own[key]} <= stated
