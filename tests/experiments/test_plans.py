"""Plans as functions of settings: counts, names, factors and configs of the trials."""

from __future__ import annotations

import re
from itertools import product

import pytest

from loralab.config import load_config
from loralab.data.splits import load_splits
from loralab.errors import LoralabError
from loralab.experiments.plans import MAX_NAME_LENGTH, apply_points, make_plan, parse_points, parse_seeds, trial_name
from loralab.experiments.run import default_name, plan_experiment
from loralab.experiments.spec import KINDS, ExperimentKind, find_kind
from loralab.storage.experiment_folder import Trial

GRID = KINDS["grid"]


def plan(
    kind: str, *settings: str, recipes: tuple[str, ...] = ("quickstart",), seeds: tuple[int, ...] = (1,), **points: str
) -> list[Trial]:
    """The trials of a kind; points by the settings' names with __ for the dot."""
    typed = parse_points([f"{axis.replace('__', '.')}={values}" for axis, values in points.items()])
    return [*make_plan(find_kind(kind), recipes, settings, typed, seeds).trials]


# --- every kind ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "trials"),
    # quickstart's own targets, rank, 2r and dropout are among ablation's 15 points: 4 of them, and 1e-3, equal the centre
    [("seeds", 5), ("grid", 12), ("ablation", 1 + 17 - 5), ("layers", 15), ("few-shot", 18), ("scaling", 12)],
)
def test_each_kind_has_its_trials(kind: str, trials: int) -> None:
    found = make_plan(find_kind(kind), ["quickstart"], [], {}).trials
    assert len(found) == trials
    assert len({trial.config.fingerprint() for trial in found}) == trials


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("active", "compare")])
def test_names_are_unique_and_fit_for_every_file_system(kind: str) -> None:
    found = make_plan(find_kind(kind), ["quickstart", "distilbert-study"], [], {}).trials
    assert len({trial.name.casefold() for trial in found}) == len(found)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+_-]*", trial.name) and len(trial.name) <= MAX_NAME_LENGTH for trial in found)


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.axes], ids=lambda kind: kind.name)
def test_a_description_names_every_axis_point_and_seed(kind: ExperimentKind) -> None:
    told = kind.describe()
    assert all(f"{axis}={','.join(points)}" in told for axis, points in kind.axes.items())
    assert ",".join(map(str, kind.seeds)) in told
    assert kind.question in told


# --- designs -------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_with_every_seed() -> None:
    found = plan("grid", seeds=(7, 8), lora__rank="2,4", train__epochs="1,2,3")
    wanted = [{"lora.rank": r, "train.epochs": float(e), "seed": s} for r, e, s in product((2, 4), (1, 2, 3), (7, 8))]
    assert [dict(trial.factors) for trial in found] == wanted
    assert [(t.config.lora.rank, t.config.train.epochs, t.config.seed) for t in found] == [tuple(w.values()) for w in wanted]


def test_one_at_a_time_varies_one_setting() -> None:
    found = plan("ablation", lora__dropout="0,0.2", train__weight_decay="0.1")
    assert [dict(trial.factors) for trial in found] == [
        {"seed": 1},
        {"lora.dropout": 0.0, "seed": 1},
        {"lora.dropout": 0.2, "seed": 1},
        {"train.weight_decay": 0.1, "seed": 1},
    ]
    own = load_config("quickstart")
    assert found[3].config.lora == own.lora
    assert found[1].config.train == own.train


def test_equal_points_are_one_trial() -> None:
    assert [dict(t.factors) for t in plan("ablation", lora__rank="16,4")] == [{"seed": 1}, {"lora.rank": 4, "seed": 1}]
    assert [t.factors["train.learning_rate"] for t in plan("grid", train__learning_rate="1e-3,0.001,2e-3")] == [1e-3, 2e-3]


def test_alpha_scales_with_the_rank() -> None:
    found = plan("grid", lora__rank="2,8")
    assert [(t.config.lora.rank, t.config.lora.alpha) for t in found] == [(2, 4.0), (8, 16.0)]  # quickstart: 32 / 16
    assert [t.config.lora.alpha for t in plan("grid", "lora.alpha=16", lora__rank="2,8")] == [2.0, 8.0]
    assert [t.config.lora.alpha for t in plan("grid", lora__rank="2,8", lora__alpha="5")] == [5.0, 5.0]


def test_a_multiple_of_the_rank_is_alpha() -> None:
    found = plan("grid", lora__rank="4,8", lora__alpha="0.5r,2r,10")
    assert [t.config.lora.alpha for t in found] == [2.0, 8.0, 10.0, 4.0, 16.0, 10.0]
    assert [t.factors["lora.alpha"] for t in found[:3]] == ["0.5r", "2r", 10.0]


def test_lists_are_joined_by_plus_and_none_keeps_its_text() -> None:
    found = plan("grid", lora__targets="value,query+value", lora__layers="top2,all")
    assert [(t.config.lora.targets, t.config.lora.layers) for t in found[1:3]] == [(("value",), None), (("query", "value"), "top2")]
    assert [t.factors["lora.layers"] for t in found] == ["top2", "all", "top2", "all"]
    assert found[2].factors["lora.targets"] == "query+value"


def test_a_plus_makes_a_list_only_for_settings_that_take_one() -> None:
    base = load_config("quickstart")
    points = {"train.monitor": "f1:C++", "data.template": "Code in {}: A+B", "train.learning_rate": "1e+0"}
    config, factors = apply_points(base, points)
    assert (config.train.monitor, config.data.template) == ("f1:C++", "Code in {}: A+B")
    assert factors == {"train.monitor": "f1:C++", "data.template": "Code in {}: A+B", "train.learning_rate": 1.0}
    config, factors = apply_points(base, {"lora.layers": "0+2-3", "lora.targets": "query+value", "train.class_weights": "2+1+1+1"})
    assert (config.lora.layers, config.lora.targets) == ("0,2-3", ("query", "value"))
    assert config.train.class_weights == (2, 1, 1, 1)
    assert factors["train.class_weights"] == "2.0+1.0+1.0+1.0"


def test_several_recipes_are_a_factor_even_with_equal_settings(tmp_path: object) -> None:
    same = f"{tmp_path}/same.yaml"
    with open(same, "w", encoding="utf-8") as file:
        file.write(load_config("quickstart").to_yaml())
    found = plan("seeds", recipes=("quickstart", same), seeds=(1, 2))
    assert [(t.factors["recipe"], t.factors["seed"]) for t in found] == [*product(("quickstart", same), (1, 2))]
    assert "recipe" not in plan("seeds")[0].factors


def test_fixed_settings_override_the_kinds_own() -> None:
    found = make_plan(find_kind("few-shot"), ["quickstart"], ["data.validation=0.2", "lora.rank=3"], {})
    assert {(t.config.data.validation, t.config.lora.rank) for t in found.trials} == {(0.2, 3)}
    assert found.spec.fixed == ("data.validation=0.2", "lora.rank=3")
    assert make_plan(find_kind("few-shot"), ["quickstart"], [], {}).spec.fixed == ("data.validation=0",)


def test_the_spec_has_the_points_of_every_factor() -> None:
    found = make_plan(GRID, ["quickstart"], [], {"lora.rank": ("4", "2")}, [5, 6]).spec
    assert found.varied == {"lora.rank": [4, 2], "seed": [5, 6]}


def test_resampling_changes_training_rows_only() -> None:
    splits = [
        load_splits(trial.config.data)[0].fingerprints() for trial in plan("few-shot", seeds=(1, 2), data__shots_per_class="5")
    ]
    assert splits[0]["test"] == splits[1]["test"]
    assert splits[0]["train"]["fingerprint"] != splits[1]["train"]["fingerprint"]
    assert plan("layers")[0].config.data.sample_seed is None


# --- names ---------------------------------------------------------------------------------------------------------


def test_a_name_contains_the_factors() -> None:
    assert trial_name({"lora.rank": 4, "train.monitor": "f1:Sci/Tech", "seed": 1}) == "rank-4_monitor-f1-Sci-Tech_seed-1"


def test_an_experiment_is_named_after_kind_and_recipe_once() -> None:
    assert default_name("few-shot", ["few-shot"]) == "few-shot"
    assert default_name("grid", ["quickstart", "data/reviews.csv"]) == "grid-quickstart-reviews"
    assert len(default_name("compare", ["r" * 300])) == 80


def test_an_ambiguous_setting_is_named_in_full() -> None:
    found = plan("ablation", lora__dropout="0.3", model__dropout="0.3")
    assert [trial.name for trial in found] == ["seed-1", "lora.dropout-0.3_seed-1", "model.dropout-0.3_seed-1"]


def test_long_names_are_cut_and_stay_apart() -> None:
    names = [trial_name({"data.source": "x" * 300, "seed": seed}) for seed in (1, 2)]
    assert names[0] != names[1]
    assert [len(name) for name in names] == [MAX_NAME_LENGTH] * 2


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings", "points", "seeds", "message"),
    [
        ("layers", [], {"lora.rank": ("2",)}, None, "--points lora.rank: layers varies lora.layers"),
        ("seeds", [], {"lora.rank": ("2",)}, None, "seeds varies nothing else"),
        ("grid", [], {"lora.rnk": ("2",)}, None, "did you mean 'lora.rank'?"),
        ("grid", [], {"seed": ("1", "2")}, None, "--points seed"),
        ("grid", [], {"lora.rank": ("2", "2")}, None, "lora.rank=2,2: give different points"),
        ("grid", [], {"lora.rank": ()}, None, "give different points"),
        ("grid", [], {"lora.rank": ("two",)}, None, "lora.rank='two'"),
        ("grid", ["lora.rnk=2"], {}, None, "unknown setting 'lora.rnk'"),
        ("grid", [], {}, (1, 1), "--seeds 1,1: give different whole numbers"),
        ("grid", [], {}, (), "give different whole numbers"),
        ("grid", ["seed=3"], {}, None, "seed cannot be set here: use --seeds"),
        ("grid", ["name=x"], {}, None, "name cannot be set here"),
        ("layers", ["lora.layers=top1"], {}, None, "layers varies it; use --points lora.layers=..."),
        ("few-shot", ["data.sample_seed=1"], {}, None, "each of --seeds samples its own rows"),
        ("active", ["data.train_indices=x"], {}, None, "active chooses the rows"),
        ("active", ["data.shots_per_class=3"], {}, None, "data.shots_per_class=null"),
        ("active", [], {"strategy": ("entropie",)}, None, "did you mean 'entropy'?"),
        ("active", [], {"labels": ("50", "many")}, None, "'many' is not a number of rows"),
        (
            "grid",
            [],
            {"lora.rank": tuple(map(str, range(1, 102))), "lora.alpha": tuple(map(str, range(1, 101)))},
            None,
            "10,100 trials",
        ),
        ("grid", [], {"train.monitor": ("f1:a/b", "f1:a-b")}, None, "differ by more than punctuation"),
    ],
)
def test_invalid_plans_are_refused(
    kind: str, settings: list[str], points: dict[str, tuple[str, ...]], seeds: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(LoralabError, match=re.escape(message)):
        plan_experiment(find_kind(kind), ["quickstart"], settings, points, seeds)


def test_a_fixed_setting_is_the_centre_of_one_at_a_time() -> None:
    found = plan("ablation", "lora.dropout=0.3", lora__dropout="0")
    assert [t.config.lora.dropout for t in found] == [0.3, 0.0]


def test_an_enormous_grid_is_refused_at_once() -> None:
    points = {f"train.{name}": tuple(str(i / 1000) for i in range(1, 1000)) for name in ("warmup", "weight_decay", "learning_rate")}
    with pytest.raises(LoralabError, match="997,002,999 trials are more than the limit of 10,000"):
        make_plan(GRID, ["quickstart"], [], points)


def test_unknown_kinds_and_recipes_name_the_nearest() -> None:
    with pytest.raises(LoralabError, match="did you mean 'layers'"):
        find_kind("layer")
    with pytest.raises(LoralabError, match="did you mean 'quickstart'"):
        plan("seeds", recipes=("quickstrat",))
    with pytest.raises(LoralabError, match="names a recipe twice"):
        plan("seeds", recipes=("quickstart", "quickstart"))


@pytest.mark.parametrize("given", [["lora.rank"], ["lora.rank=2", "lora.rank=4"]])
def test_points_are_given_once_per_setting(given: list[str]) -> None:
    with pytest.raises(LoralabError, match="once per setting"):
        parse_points(given)


def test_points_and_seeds_are_parsed() -> None:
    assert parse_points(["lora.rank=2, 4,8", "tuning=full"]) == {"lora.rank": ("2", "4", "8"), "tuning": ("full",)}
    assert parse_seeds("1, 2,30") == (1, 2, 30)
    for odd in ("1,x", "", "1,,2", "-1"):
        with pytest.raises(LoralabError, match="whole numbers"):
            parse_seeds(odd)


def test_no_augmentation_is_one_point() -> None:
    found = plan("augmentation", seeds=(1,), data__augment="swap,synonym+deletion", data__augment_ratio="0,0.25,0.5")
    told = [(trial.factors["data.augment"], trial.factors["data.augment_ratio"]) for trial in found]
    assert told == [("none", 0), ("swap", 0.25), ("swap", 0.5), ("synonym+deletion", 0.25), ("synonym+deletion", 0.5)]
    assert (found[0].config.data.augment, found[0].config.data.augment_ratio) == ((), 0)
    assert found[-1].config.data.augment == ("synonym", "deletion")


def test_recipe_keeps_the_recipes_value_and_none_unsets_it() -> None:
    none, recipe = (trial.config for trial in make_plan(KINDS["zero-shot"], ["few-shot"], [], {}).trials)
    assert none.data.descriptions is None
    assert recipe.data.descriptions is not None
    assert (recipe.train.epochs, recipe.train.head_init, recipe.data.validation) == (0, "descriptions", 0)
    assert len(make_plan(KINDS["zero-shot"], ["quickstart"], [], {}).trials) == 1  # without descriptions both points are equal
