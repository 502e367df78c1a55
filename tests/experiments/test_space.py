"""The search space: parsing, sampling, refusals. No Optuna, no network."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest

from loralab import Config, LoralabError, load_config
from loralab.config.loading import list_recipes, search_ranges
from loralab.experiments.plans import apply_points
from loralab.experiments.space import default_ranges, make_space, parse_over


class Draws:
    """Samples at random, like Optuna's trials, and records the requests."""

    def __init__(self, seed: int = 0) -> None:
        self.random, self.asked = random.Random(seed), list[tuple[Any, ...]]()

    def suggest_categorical(self, name: str, choices: Sequence[str], /) -> str:
        self.asked.append((name, tuple(choices)))
        return self.random.choice(list(choices))

    def suggest_int(self, name: str, low: int, high: int, /, *, step: int, log: bool) -> int:
        self.asked.append((name, low, high, step, log))
        return self.random.randrange(low, high + 1, step)

    def suggest_float(self, name: str, low: float, high: float, /, *, step: float | None, log: bool) -> float:
        self.asked.append((name, low, high, step, log))
        return self.random.uniform(low, high)


@pytest.mark.parametrize(
    ("name", "typed", "asked"),
    [
        ("lora.rank", "4,8,16", ("4", "8", "16")),
        ("lora.rank", [4, 8], ("4", "8")),
        ("lora.targets", [["query", "value"], "all"], ("query+value", "all")),
        ("lora.rank", "2..16/2", (2, 16, 2, False)),
        ("lora.rank", "1..64:log", (1, 64, 1, True)),
        ("lora.dropout", "0..1e-1", (0.0, 0.1, None, False)),
        ("lora.dropout", "0..0.2/0.05", (0.0, 0.2, 0.05, False)),
        ("train.epochs", "2..3", (2.0, 3.0, None, False)),
        ("train.patience", "1..3", (1, 3, 1, False)),
        ("train.learning_rate", "1e-5..1e-3:log", (1e-5, 1e-3, None, True)),
        ("lora.alpha", "0.5r..4r:log", (0.5, 4.0, None, True)),
        ("train.class_weights", ["balanced", None], ("balanced", "none")),
        ("lora.layers", [None, "top3"], ("none", "top3")),
        ("lora.layers", "0-2", ("0-2",)),
        ("data.max_length", "32..128", (32, 128, 1, False)),
        ("train.max_steps", "10..20", (10, 20, 1, False)),
        ("data.augment_strength", "0.1..0.5", (0.1, 0.5, None, False)),
        ("train.head_learning_rate", "1..2", (1.0, 2.0, None, False)),
    ],
)
def test_ranges_as_typed(name: str, typed: object, asked: tuple[Any, ...]) -> None:
    draws = Draws()
    base = Config().override("data.augment=swap")
    point = make_space(base, {name: typed}).suggest(draws)
    assert apply_points(base, point)
    assert draws.asked == [(name, asked) if isinstance(asked[0], str) else (name, *asked)]


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"lora.rnk": "4,8"}, "did you mean 'lora.rank'"),
        ({"lora.rank": "4,banana"}, r"lora\.rank='banana'"),
        ({"lora.rank": "0..8"}, "whole number > 0"),
        ({"lora.rank": "1.5..8"}, "takes whole numbers"),
        ({"lora.rank": "8..4"}, "must be above the lower"),
        ({"lora.rank": "4,4"}, "different choices"),
        ({"lora.rank": ""}, "different choices"),
        ({"lora.dropout": "0..0.5:log"}, "must start above 0"),
        ({"lora.dropout": "0..0.2/0.5"}, "at most the length of the range"),
        ({"lora.dropout": "0..x"}, "is not a range"),
        ({"lora.dropout": "0..2"}, "< 1"),
        ({"lora.rank": "1r,2r"}, r"only lora\.alpha"),
        ({"lora.alpha": "1r..4"}, "both ends"),
        ({"train.learning_rate": "1e-4-1e-2"}, r"did you mean 1e-4\.\.1e-2\?"),
        ({"train.learning_rate": "1e-4-1e-2:log"}, r"did you mean 1e-4\.\.1e-2:log\?"),
        ({"lora.rank": "4-16"}, r"did you mean 4\.\.16\?"),
        ({"seed": "1,2,3"}, "chance"),
        ({"data.validation": "0.1,0.2"}, "same validation rows"),
        ({}, "empty"),
    ],
)
def test_invalid_ranges_are_refused(ranges: dict[str, object], message: str) -> None:
    with pytest.raises(LoralabError, match=message):
        make_space(Config(), ranges)


def test_alpha_follows_the_sampled_rank() -> None:
    space = make_space(Config(), {"lora.rank": "2..64:log", "lora.alpha": "0.5r..4r"})
    seen = set()
    for seed in range(50):
        points = space.suggest(Draws(seed))
        config, factors = apply_points(Config(), points)
        assert config.lora.alpha == pytest.approx(float(points["lora.alpha"].removesuffix("r")) * config.lora.rank)
        assert 0.5 <= config.lora.alpha / config.lora.rank <= 4
        assert factors["lora.alpha"] == points["lora.alpha"]
        seen.add(config.lora.rank)
    assert len(seen) > 10


def test_sampled_numbers_have_four_digits_and_stay_in_range() -> None:
    space = make_space(Config(), {"train.learning_rate": "0.00012345..0.00012349", "lora.dropout": "0..0.2"})
    for seed in range(20):
        points = space.suggest(Draws(seed))
        assert 0.00012345 <= float(points["train.learning_rate"]) <= 0.00012349
        assert len(points["lora.dropout"].lstrip("0.")) <= 4
        assert (
            space.points(
                {"train.learning_rate": float(points["train.learning_rate"]), "lora.dropout": float(points["lora.dropout"])}
            )
            == points
        )


def test_combinations_are_complete_and_unique() -> None:
    space = make_space(Config(), {"lora.rank": "4..8/2", "lora.dropout": "0..0.2/0.1", "lora.targets": "value,query+value"})
    found = [space.points(values) for values in space.combinations()]
    wanted = itertools.product(("4", "6", "8"), ("0", "0.1", "0.2"), ("value", "query+value"))
    assert found == [dict(zip(("lora.rank", "lora.dropout", "lora.targets"), each, strict=True)) for each in wanted]
    assert space.size == 18
    endless = make_space(Config(), {"lora.dropout": "0..0.2"})
    assert endless.size is None
    with pytest.raises(LoralabError, match=r"lora\.dropout=0\.\.0\.2 is continuous"):
        list(endless.combinations())


def test_the_published_space_is_shipped() -> None:
    """r, alpha, dropout, learning rate, epochs."""
    space = make_space(load_config("roberta-search"), search_ranges("roberta-search"))
    draws = Draws()
    space.suggest(draws)
    assert draws.asked == [
        ("lora.rank", ("4", "8", "16")),
        ("lora.alpha", ("8", "16", "32")),
        ("lora.dropout", 0.05, 0.2, None, False),
        ("train.learning_rate", ("1e-05", "2e-05", "3e-05")),
        ("train.epochs", ("2", "3")),
    ]
    configs = [apply_points(load_config("roberta-search"), space.suggest(Draws(seed)))[0] for seed in range(30)]
    assert {c.train.learning_rate for c in configs} == {1e-5, 2e-5, 3e-5}
    assert {(c.lora.rank, c.lora.alpha) for c in configs} > {(4, 32.0), (16, 8.0)}


@pytest.mark.parametrize("recipe", [recipe.name for recipe in list_recipes()])
def test_every_recipe_has_a_space(recipe: str) -> None:
    base = load_config(recipe)
    space = make_space(base, search_ranges(recipe) or default_ranges(base))
    for seed in range(5):
        apply_points(base, space.suggest(Draws(seed)))


def test_over_is_one_range_per_setting() -> None:
    assert parse_over(["lora.rank=4,8", "lora.alpha=1r..4r:log"]) == {"lora.rank": "4,8", "lora.alpha": "1r..4r:log"}
    for given in (["lora.rank"], ["lora.rank=4", "lora.rank=8"]):
        with pytest.raises(LoralabError, match="once per setting"):
            parse_over(given)


def test_another_librarys_setting_is_named_as_here() -> None:
    with pytest.raises(LoralabError, match=r"write lora\.alpha=8,16"):
        make_space(load_config("quickstart"), {"lora_alpha": "8,16"})
