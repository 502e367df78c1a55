"""Settings from recipes, files, runs and overrides: values, remarks, fingerprints, seeds and YAML."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from setting_cases import OTHER, get, refused, write

import loralab
from loralab.config import Config, load_config
from loralab.config.loading import default_name, list_recipes, setting_names
from loralab.config.run_settings import END_OF_SETTINGS
from loralab.config.schema import NONE_WORDS
from loralab.config.yaml_core import dump_yaml, parse_yaml
from loralab.errors import LoralabError

RECIPES = [recipe.name for recipe in list_recipes()]


# Recipes and sources


def test_golden_settings_of_a_recipe() -> None:
    config = load_config("roberta-class-weights")
    assert config.model.base == "roberta-base"
    assert (config.lora.rank, config.lora.alpha, config.lora.targets) == (8, 16.0, ("query", "value"))
    assert config.train.class_weights == {"World": 1.3, "Sports": 1.3, "Business": 1.2, "Sci/Tech": 0.2}
    assert config.train.monitor == "f1:Business"
    assert load_config("roberta-latent-layers").lora.layers == "top3"  # 9-11 of its twelve, and any other encoder's top three
    assert load_config("roberta-million-budget").lora.max_trainable == 1_000_000


def test_a_data_file_is_quickstart_on_it(tmp_path: Path) -> None:
    file = write(tmp_path / "reviews.csv", "text,label\n")
    config = load_config(file)
    assert config == load_config("quickstart", [f"data.source={file}"])
    assert load_config("sample") == load_config("quickstart")


def test_a_settings_file_is_read_and_its_about_left_out(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mine.yaml", "about: {summary: s, source: t, claim: u}\nlora: {rank: 4}\ntrain: {learning_rate: 2e-4}\n"
    )
    config = load_config(file, ["lora.alpha=4"])
    assert (config.lora.rank, config.lora.alpha, config.train.learning_rate) == (4, 4.0, 2e-4)
    assert load_config(str(file)).lora.alpha == 16.0


def test_a_run_folder_gives_the_settings_of_the_run(tmp_path: Path) -> None:
    config = load_config("roberta-search", ["lora.rank=3", "name=mine"])
    write(tmp_path / "config.yaml", config.to_yaml() + END_OF_SETTINGS)
    assert load_config(tmp_path) == config
    assert load_config(str(tmp_path), ["seed=1"]) == config.override("seed=1")
    write(tmp_path / "config.yaml", config.to_yaml())
    assert "config.yaml is cut off" in refused(tmp_path)


def test_an_empty_settings_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "a.yaml", "")) == Config()
    assert load_config(write(tmp_path / "b.yml", "# only a remark\n")) == Config()


# Overrides and their values


def changed(config: Config, name: str, value: str) -> Config:
    needed = {  # refused where it would do nothing
        "model.freeze": "tuning=full",
        "data.augment_ratio": "data.augment=swap",
        "data.augment_strength": "data.augment=swap",
        "data.back_translation": "data.augment=back_translation",
    }
    return config.override(*([needed[name]] if name in needed else []), f"{name}={value}")


def test_every_setting_can_be_overridden() -> None:
    assert {*OTHER, "name"} == set(setting_names())
    default = Config()
    for name, value in OTHER.items():
        assert get(changed(default, name, value), name) != get(default, name), name


def test_an_augmentation_ratio_of_zero_is_valid() -> None:
    config = Config().override("data.augment=swap,deletion", "data.augment_strength=0.3")
    assert config.override("data.augment_ratio=0").data.augment_ratio == 0
    assert Config().override("data.augment_ratio=0").data.augment == ()
    assert config.override("data.augment_strength=0.1", "data.augment=").data == Config().data


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("train.learning_rate=2e-4", 2e-4),
        ("train.learning_rate=2.0e-4", 2e-4),
        ("train.learning_rate=1", 1.0),
        ("train.warmup=100", 100.0),
        ("data.text=title,body", ("title,body",)),  # one column or two: the file decides
        ("data.text=0", ("0",)),
        ("data.text=on", ("on",)),
        ("data.label=Topic: main", "Topic: main"),
        ("data.label=[label]", "[label]"),
        ("data.label='a'", "a"),
        ("data.label=#label", "#label"),
        ("train.monitor=f1:Toys: games", "f1:Toys: games"),
        ("train.class_weights={0: 1, 1: 5}", {"0": 1.0, "1": 5.0}),
        ("train.class_weights={no:1, yes:2.5}", {"no": 1.0, "yes": 2.5}),
        ("data.text=[title, body]", ("title", "body")),
        ("data.text=title", ("title",)),
        ("data.label=2", "2"),
        ("data.clean=", ()),
        ("data.clean=[]", ()),
        ("data.clean=html,urls", ("html", "urls")),
        ("data.validation=held_out.csv", "held_out.csv"),
        ("data.validation=0.1", 0.1),
        ("data.validation=240", 240.0),
        ("data.test=null", None),
        ("data.label=none", None),
        ("data.text=None", None),
        ("train.patience=none", None),
        ("lora.layers=~", None),
        ("data.clean=none", ()),
        ("data.classes=None", ()),
        ("model.quantize=None", "none"),
        ("data.classes=[yes, no]", ("yes", "no")),
        ("data.classes=1,2", ("1", "2")),
        ("data.classes=[1, 2]", ("1", "2")),
        ("data.label=on", "on"),
        ("train.feature_cache=off", "off"),
        ("train.learning_rate=1E-4", 1e-4),
        ("name=1e5", "1e5"),
        ("name=2001-01-01", "2001-01-01"),
        ("name=12:30", "12:30"),
        ("name=true", "true"),
        ("lora.layers=9-11", "9-11"),
        ("lora.layers=9", "9"),
        ("lora.layers=0,5,9-11", "0,5,9-11"),
        ("lora.layers=[9, 10]", "9,10"),
        ("lora.layers=", None),
        ("lora.targets=all", ("all",)),
        ("train.class_weights=1.3,1.3,1.2,0.2", (1.3, 1.3, 1.2, 0.2)),
        ("train.class_weights=1,1,2,2e-1", (1.0, 1.0, 2.0, 0.2)),
        ("train.class_weights=[1, 1.5]", (1.0, 1.5)),
        ("train.class_weights={World: 1.3, Sci/Tech: 2}", {"World": 1.3, "Sci/Tech": 2.0}),
        ("train.class_weights=balanced", "balanced"),
        ("train.class_weights=null", None),
        ("train.monitor=balance:Business/Sci-Tech", "balance:Business/Sci-Tech"),
        ("name=mine", "mine"),
    ],
)
def test_values_of_overrides(assignment: str, expected: object) -> None:
    name = assignment.partition("=")[0]
    result = get(load_config("quickstart", [assignment]), name)
    assert result == expected
    assert type(result) is type(expected)


def test_dotted_settings_of_a_file_are_those_of_its_sections(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "a.yaml", "lora.rank: 4\nlora: {alpha: 8}\ntrain.epochs: 1\n"))
    assert (config.lora.rank, config.lora.alpha, config.train.epochs) == (4, 8.0, 1.0)
    assert "lora.rank is set twice" in refused(write(tmp_path / "b.yaml", "lora.rank: 4\nlora: {rank: 8}\n"))


# What stays equal


def test_a_config_is_frozen_and_an_override_makes_another() -> None:
    config = load_config("quickstart")
    with pytest.raises(ValidationError):
        config.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        config.lora.rank = 3  # type: ignore[misc]
    other = config.override("lora.rank=3", "seed=1")
    assert (other.lora.rank, other.seed) == (3, 1)
    assert (config.lora.rank, config.seed) == (16, 42)
    assert other.override(f"lora.rank={config.lora.rank}", f"seed={config.seed}") == config


def test_an_override_is_validated_like_a_file() -> None:
    with pytest.raises(LoralabError, match=r"lora\.rank=0"):
        Config().override("lora.rank=0")
    with pytest.raises(LoralabError, match=r"write lora\.rank=0"):
        Config().override("rank=0")


def test_the_fingerprint_is_equal_for_equal_settings_and_differs_for_each() -> None:
    default = Config()
    prints = {name: changed(default, name, value).fingerprint() for name, value in OTHER.items()}
    prints["default"] = default.fingerprint()
    assert len(set(prints.values())) == len(OTHER) + 1
    for name, value in OTHER.items():
        assert changed(Config(), name, value).fingerprint() == prints[name]


def test_the_fingerprint_ignores_the_name_and_how_a_value_was_written() -> None:
    default = Config()
    assert default.override("name=other").fingerprint() == default.fingerprint()
    one, other = (
        default.override(f"train.class_weights={text}") for text in ("{World: 2, Sports: 3}", "{Sports: 3.0, World: 2.0}")
    )
    assert one == other
    assert one.fingerprint() == other.fingerprint()
    assert default.override("data.classes=a,b").fingerprint() == default.override("data.classes=[a, b]").fingerprint()
    assert default.override("lora.alpha=16").fingerprint() == default.fingerprint()


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    code = "from loralab.config.loading import load_config; print(load_config('roberta-class-weights').fingerprint())"
    result = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(loralab.__file__).parents[1])},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert result == {load_config("roberta-class-weights").fingerprint()}


def test_seeds_differ_by_purpose_and_run_seed() -> None:
    purposes, seeds = ("init", "shuffle", "dropout"), range(20)
    result = {(purpose, seed): Config(seed=seed).seed_for(purpose) for purpose in purposes for seed in seeds}
    assert len(set(result.values())) == len(result)
    assert all(0 <= value < 2**56 for value in result.values())
    assert Config(seed=3, name="x").seed_for("init") == result["init", 3]
    assert Config(seed=3).override("data.split_seed=9").seed_for("init") == result["init", 3]


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_gives_the_same_settings_back(tmp_path: Path, name: str) -> None:
    config = load_config(name)
    again = load_config(write(tmp_path / "a.yaml", config.to_yaml()))
    assert again == config
    assert again.fingerprint() == config.fingerprint()


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda name: name not in NONE_WORDS)
reals = st.floats(1e-12, 1e6)
trees: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    seed=st.integers(0, 2**63),
    name=st.none() | names,
    data=st.fixed_dictionaries(
        {"source": names, "label": st.none() | names, "text": st.none() | st.lists(names, min_size=1, max_size=3)},
        optional={"validation": st.floats(0, 1), "clean": st.lists(names, max_size=2), "classes": st.lists(names, max_size=3)},
    ),
    lora=st.fixed_dictionaries({"alpha": reals, "rank": st.integers(1, 512), "layers": st.none() | names}),
    train=st.fixed_dictionaries(
        {
            "learning_rate": reals,
            "monitor": names,
            "class_weights": st.none()
            | st.just("balanced")
            | st.lists(reals, min_size=1, max_size=4)
            | st.dictionaries(names, reals, max_size=3),
        }
    ),
)


@settings(max_examples=25, deadline=None, database=None, phases=[Phase.explicit, Phase.generate])
@given(tree=trees)
def test_yaml_and_overrides_lose_nothing(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]) -> None:
    file = tmp_path_factory.getbasetemp() / "tree.yaml"
    config = load_config(write(file, dump_yaml(tree)))
    assert (config.seed, config.name, config.data.source) == (tree["seed"], tree["name"], tree["data"]["source"])
    assert (config.train.monitor, config.train.learning_rate) == (tree["train"]["monitor"], tree["train"]["learning_rate"])
    again = load_config(write(file, config.to_yaml()))
    assert again == config
    assert again.fingerprint() == config.fingerprint()
    assert config.override() == config
    assert config.override("tuning=full").override(f"tuning={config.tuning}") == config


@pytest.mark.parametrize("word", ["none", "None", "null", "~", ""])
def test_none_in_a_file_is_no_value(word: str, tmp_path: Path) -> None:
    text = f"name: {word}\nlora: {{layers: {word}}}\ntrain:\n  patience: {word}\ndata:\n  clean: {word}\n"
    assert load_config(write(tmp_path / "a.yaml", text)) == Config().override("data.clean=")


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "false", "False", "FALSE"])
def test_booleans_are_those_of_yaml_1_2(word: str) -> None:
    assert Config().override(f"train.gradient_checkpointing={word}").train.gradient_checkpointing is (word.lower() == "true")


def test_settings_without_effect_are_remarked() -> None:
    unused = Config().override("data.validation=0", "train.patience=3", "train.monitor=accuracy", "data.sample_seed=1")
    remarks = "\n".join(unused.remarks())
    for name in ("train.patience", "train.monitor", "data.sample_seed"):
        assert f"{name} has no effect without" in remarks
    assert unused.override("data.validation=0.1", "data.max_train_samples=100").remarks() == []


def test_a_low_rate_is_remarked_for_lora_only() -> None:
    low = Config().override("train.learning_rate=2e-5")
    assert "train.learning_rate=2e-05" in low.remarks()[0]
    assert low.override("tuning=full").remarks() == []
    assert "suits LoRA" in Config().override("tuning=full").remarks()[0]
    assert "use lora.variant=loraplus" in Config().override("lora.loraplus_lr_ratio=4").remarks()[0]
    assert Config().remarks() == []


@pytest.mark.parametrize(
    ("assignments", "remarks"),
    [
        (["train.learning_rate=9e-5"], ["train.learning_rate=9e-05 suits full fine-tuning; LoRA usually needs 2e-4 to 1e-3"]),
        (["train.learning_rate=1e-4"], []),
        (["tuning=head", "train.learning_rate=1e-5"], []),
        (
            ["tuning=full", "train.learning_rate=3e-4"],
            ["train.learning_rate=0.0003 suits LoRA; full fine-tuning usually needs 1e-5 to 1e-4"],
        ),
        (["tuning=full", "train.learning_rate=2e-4", "lora.variant=ia3", "lora.loraplus_lr_ratio=4"], []),
        (["lora.variant=ia3"], ["lora.variant=ia3: IA3 has neither rank nor alpha: lora.rank and lora.alpha have no effect"]),
        (
            ["lora.loraplus_lr_ratio=4"],
            ["lora.loraplus_lr_ratio has no effect with lora.variant=lora: use lora.variant=loraplus"],
        ),
        (["lora.loraplus_lr_ratio=4", "lora.variant=loraplus"], []),
        *(
            (
                ["data.validation=0", f"train.{name}={value}"],
                [f"train.{name} has no effect without validation rows: set data.validation, such as data.validation=0.1"],
            )
            for name, value in (("monitor", "accuracy"), ("patience", "2"), ("min_delta", "0.1"))
        ),
        (
            ["data.sample_seed=0"],
            ["data.sample_seed has no effect without data.max_train_samples or data.shots_per_class"],
        ),
        (["data.sample_seed=0", "data.shots_per_class=4"], []),
        (
            ["model.head=prompt"],
            ["data.template={}: the prompt is the bare mask; write a sentence, such as 'This is news about {}.'"],
        ),
        (["model.head=prompt", "data.template=On {}.", "data.descriptions={a: b, c: d}"], []),
        (
            ["data.descriptions={a: b, c: d}", "train.head_init=probe"],
            ["data.descriptions has no effect with train.head_init=probe: use descriptions or probe+descriptions"],
        ),
        (["data.descriptions={a: b, c: d}", "train.head_init=probe+descriptions"], []),
    ],
)
def test_remarks_say_what_has_no_effect_and_what_to_do(assignments: list[str], remarks: list[str]) -> None:
    assert Config().override(*assignments).remarks() == remarks


@pytest.mark.parametrize(
    ("source", "name"),
    [("quickstart", "quickstart-s42"), ("data/my reviews.csv.gz", "my-reviews-s42"), ("../x.csv", "x-s42"), (".csv", "run-s42")],
)
def test_a_runs_default_name_is_a_plain_word(source: str, name: str) -> None:
    assert default_name(source, 42) == name


def test_unused_descriptions_are_remarked() -> None:
    described = Config().override("data.descriptions={a: [b], c: [d, e]}")
    assert described.data.descriptions == {"a": ("b",), "c": ("d", "e")}
    assert "train.head_init=random" in described.remarks()[0]
    assert described.override("train.head_init=descriptions").remarks() == []


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "12:30", "2001-01-01", "1_000", "0b1", "=", "<<"])
def test_yaml_1_1_words_are_text(text: str) -> None:
    assert parse_yaml(text) == text
    assert parse_yaml(dump_yaml([text])) == [text]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("012", 12), ("0x1F", 31), ("0o17", 15), (".5", 0.5), ("TRUE", True), ("~", None), ("-.INF", float("-inf"))],
)
def test_scalars_of_the_core_schema(text: str, value: object) -> None:
    assert parse_yaml(text) == value
    assert type(parse_yaml(text)) is type(value)
    assert parse_yaml(dump_yaml([text])) == [text]
    assert parse_yaml(dump_yaml([value])) == [value]


@pytest.mark.parametrize("text", ["a\x85b", "a\u2028b", "\u2029", "a\nb", "ü: y"])
def test_line_breaks_of_unicode_survive_a_settings_file(text: str) -> None:
    assert parse_yaml(dump_yaml({"a": text})) == {"a": text}


def test_class_names_of_a_recipe_stay_if_they_are_given(tmp_path: Path) -> None:
    """The remark on names that are left out says to write them."""
    recipe, source = "roberta-million-budget", f"data.source={tmp_path / 'train.csv'}"
    names = load_config(recipe).data.classes
    assert names
    assert not load_config(recipe, [source]).data.classes
    assert load_config(recipe, [source, f"data.classes={','.join(names)}"]).data.classes == names


def test_yaml_keeps_the_order_and_every_letter() -> None:
    text = Config().override("name=Läden").to_yaml()
    assert text.startswith("seed: 42\nname: Läden\ndata:\n  source: sample\n")
    assert dump_yaml(["plain words", "yes", "a\u2028b"]) == "- plain words\n- 'yes'\n- \"a\\Lb\"\n"
