"""Settings: recipes, files and overrides, what is refused and how, and what stays equal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loralab.config import Config, load_config
from loralab.config.hints import _CONVERTED, _LEAVE_OUT, _OTHER_NAMES
from loralab.config.loading import MAX_YAML_BYTES, config_schema, default_name, list_recipes, setting_names, setting_table
from loralab.config.reference import Setting
from loralab.config.schema import NONE_WORDS
from loralab.config.yaml_core import dump_yaml, parse_yaml
from loralab.errors import LoralabError

RECIPES = [recipe.name for recipe in list_recipes()]
OTHER: dict[str, str] = {
    "seed": "7",
    "data.source": "reviews.csv",
    "data.text": "title,body",
    "data.label": "stars",
    "data.classes": "bad,good",
    "data.test": "0.3",
    "data.validation": "240",
    "data.split_seed": "1",
    "data.sample_seed": "1",
    "data.max_train_samples": "100",
    "data.max_test_samples": "100",
    "data.shots_per_class": "8",
    "data.train_indices": "rows.txt",
    "data.clean": "html",
    "data.max_length": "64",
    "data.augment": "swap",
    "data.augment_ratio": "0.5",
    "data.augment_strength": "0.2",
    "data.back_translation": "en-fr,fr-en",
    "data.descriptions": "{World: [war, elections], Sports: football}",
    "data.template": "News about {}.",
    "model.base": "roberta-base",
    "model.pooling": "cls",
    "model.head": "default",
    "model.dropout": "0.2",
    "model.freeze": "embeddings",
    "model.quantize": "8bit",
    "tuning": "full",
    "lora.rank": "4",
    "lora.alpha": "4",
    "lora.dropout": "0.1",
    "lora.targets": "key",
    "lora.layers": "9-11",
    "lora.variant": "rslora",
    "lora.loraplus_lr_ratio": "4",
    "lora.max_trainable": "1000000",
    "train.epochs": "1",
    "train.max_steps": "10",
    "train.batch_size": "8",
    "train.max_tokens_per_microbatch": "4096",
    "train.learning_rate": "2e-4",
    "train.head_learning_rate": "1e-3",
    "train.head_init": "probe+descriptions",
    "train.weight_decay": "0.03",
    "train.schedule": "linear",
    "train.warmup": "100",
    "train.class_weights": "balanced",
    "train.label_smoothing": "0.2",
    "train.focal_gamma": "2",
    "train.eval_steps": "50",
    "train.optimizer": "sgd",
    "train.max_grad_norm": "0.5",
    "train.device": "cpu",
    "train.monitor": "macro_f1",
    "train.patience": "3",
    "train.min_delta": "0.001",
    "train.precision": "fp32",
    "train.gradient_checkpointing": "true",
    "train.feature_cache": "off",
    "train.feature_cache_gb": "2",
    "train.threads": "2",
}
"""Every setting but the name, with a value that is not its default."""


def get(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refused(*arguments: Any) -> str:
    with pytest.raises(LoralabError) as caught:
        load_config(*arguments)
    assert caught.value.exit_code == 2
    return str(caught.value)


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


def test_an_empty_settings_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "a.yaml", "")) == Config()
    assert load_config(write(tmp_path / "b.yml", "# only a remark\n")) == Config()


def test_an_unknown_recipe_is_told_with_the_nearest_and_all() -> None:
    message = refused("roberta-searhc")
    assert "'roberta-searhc' is neither a recipe nor a file; did you mean 'roberta-search'?" in message
    assert all(name in message for name in RECIPES)


def test_a_missing_file_is_told() -> None:
    assert "nowhere.yaml" in refused("nowhere.yaml")
    assert "nowhere.csv" in refused("nowhere.csv")


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


CONFLICTS = [
    ["model.freeze=0-2"],
    ["data.augment_ratio=0.5"],
    ["data.augment_strength=0.3"],
    ["data.back_translation=a,b"],
    ["data.augment=swap", "data.back_translation=a,b"],
    ["data.augment=back_translation", "data.back_translation=a"],
    ["data.template={text} is about {}."],
    ["model.head=prompt", "train.head_init=random", "model.pooling=cls"],
    ["model.head=prompt", "train.head_init=probe"],
]


@pytest.mark.parametrize("assignments", CONFLICTS, ids=" ".join)
def test_the_fix_of_a_conflict_works_when_pasted(assignments: list[str]) -> None:
    message = refused("roberta-search", assignments)
    assert assignments[-1].partition("=")[0] in message
    fix = re.search(r"(?:add|write)\s(\S+=[^\s]+)", message)
    assert fix, message
    load_config("roberta-search", [*assignments, fix[1].rstrip(",")])


def test_every_conflict_is_named_at_once() -> None:
    message = refused("quickstart", ["model.freeze=0", "data.augment_ratio=2", "data.template={text} {}"])
    assert all(name in message for name in ("model.freeze", "data.augment_ratio", "model.head=prompt"))


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["data.augment=swap", "data.augment_ratio=-1"], "data.augment_ratio=-1"),
        (["data.augment=swap", "data.augment_strength=0"], "data.augment_strength=0"),
    ],
)
def test_augmentation_out_of_range_is_refused(assignments: list[str], said: str) -> None:
    assert said in refused("quickstart", assignments)


def test_no_augmentation_is_a_point_of_a_study_over_it() -> None:
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
        ("data.text=title,body", ("title", "body")),
        ("data.text=title, body", ("title", "body")),
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
def test_values_are_read_as_meant(assignment: str, expected: object) -> None:
    name = assignment.partition("=")[0]
    found = get(load_config("quickstart", [assignment]), name)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("assignment", "nearest"),
    [
        ("lora.rnak=4", "lora.rank"),
        ("rank=4", "lora.rank"),
        ("learning_rate=1e-3", "train.learning_rate"),
        ("batch_size=4", "train.batch_size"),
        ("max_lenght=64", "data.max_length"),
        ("train.rank=4", "lora.rank"),
        ("Seed=4", "seed"),
        ("model.bsae=minilm", "model.base"),
        ("optimizer=sgd", "train.optimizer"),
        ("max_grad_norm=2", "train.max_grad_norm"),
        ("lora.learning_rate=1e-3", "train.learning_rate"),
    ],
)
def test_an_unknown_setting_is_told_with_the_nearest(assignment: str, nearest: str) -> None:
    key = assignment.partition("=")[0]
    assert f"unknown setting {key!r}; did you mean {nearest!r}?" in refused("quickstart", [assignment])
    load_config("quickstart", [nearest + assignment[len(key) :]])


@pytest.mark.parametrize(("text", "key"), [("lora: {rnak: 4}", "lora.rnak"), ("train: {rank: 4}", "train.rank")])
def test_an_unknown_setting_in_a_file_is_told_the_same_way(tmp_path: Path, text: str, key: str) -> None:
    message = refused(write(tmp_path / "a.yaml", text))
    assert f"unknown setting {key!r}; did you mean 'lora.rank'?" in message


def test_every_unknown_setting_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "a.yaml", "lora: {rnak: 4, alhpa: 2}\nsede: 1\n"))
    assert all(key in message for key in ("'lora.rnak'", "'lora.alhpa'", "'sede'", "'lora.rank'", "'lora.alpha'", "'seed'"))


@pytest.mark.parametrize("assignment", ["zzzzzz=1", "=3", "lora=8", "dropout=0.1", "train.lr=1", "rank_=4", "a.b.c=1"])
def test_a_message_names_three_settings_at_most_and_the_command_that_lists_them(assignment: str) -> None:
    message = refused("quickstart", [assignment])
    named = [name for name in setting_names() if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", message)]
    assert len(named) <= 3
    assert named or "`loralab settings`" in message


def test_two_settings_with_one_last_word_are_both_named() -> None:
    assert "did you mean 'model.dropout' or 'lora.dropout'?" in refused("quickstart", ["dropout=0.1"])


SAMPLE_VALUES = {
    "target_modules": ["q_proj,v_proj", "all-linear", "['query', 'value']", "query_key_value_dense,lin1"],
    "optim": ["adamw_torch", "adamw_bnb_8bit", "paged_adamw_8bit", "adafactor", "adamw_torch_fused", "lomo"],
    **{key: ["eval_loss", "f1", "eval_accuracy", "loss"] for key in ("metric_for_best_model", "eval_metric", "metric")},
    "lora_target_modules": ["q_lin,v_lin"],
    "gradient_accumulation_steps": ["4", "x"],
    "per_device_train_batch_size": ["8"],
    "lr_scheduler_type": ["cosine", "linear", "constant_with_warmup", "polynomial"],
    "mixed_precision": ["fp16", "bf16", "no"],
    "init_lora_weights": ["pissa", "gaussian"],
    "evaluation_strategy": ["epoch", "steps", "no"],
}


@pytest.mark.parametrize("name", sorted({*_OTHER_NAMES, *_CONVERTED, *_LEAVE_OUT}))
@pytest.mark.parametrize("prefix", ["", "train."])
def test_what_to_write_for_another_librarys_setting_works_when_pasted(name: str, prefix: str, tmp_path: Path) -> None:
    values = SAMPLE_VALUES.get(name) or [{**OTHER, "name": "mine"}.get(_OTHER_NAMES.get(name, ""), "true")]
    for value in values:
        message = refused("quickstart", [f"{prefix}{name}={value}"])
        assert message.startswith(f"unknown setting '{prefix}{name}'")
        if name in _LEAVE_OUT:
            assert "leave it out; " in message
            continue
        fix = re.search(r": write ([a-z_.]+=.+?)(?: for | \(|$)", message)
        assert fix, message
        config = load_config("quickstart", [fix[1]])
        assert config.override(fix[1]) == config
        if not prefix:  # the same in a file, as YAML
            told = refused(write(tmp_path / "mine.yaml", f"{name}: {value}\n"))
            line = re.search(r": write ([a-z_.]+: .+?)(?: for | \(|$)", told)
            assert line, told
            from_file = load_config(write(tmp_path / "fixed.yaml", line[1] + "\n"))
            assert from_file == Config().override(fix[1])


def test_several_unknown_settings_are_named_at_once() -> None:
    message = refused("quickstart", ["r=4", "lora_alpha=8", "fp16=true"])
    assert all(fix in message for fix in ("lora.rank=4", "lora.alpha=8", "train.precision=fp16"))


def test_dotted_settings_of_a_file_are_those_of_its_sections(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "a.yaml", "lora.rank: 4\nlora: {alpha: 8}\ntrain.epochs: 1\n"))
    assert (config.lora.rank, config.lora.alpha, config.train.epochs) == (4, 8.0, 1.0)
    assert "lora.rank is set twice" in refused(write(tmp_path / "b.yaml", "lora.rank: 4\nlora: {rank: 8}\n"))


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    assert "'rank' occurs more than once" in refused(write(tmp_path / "a.yaml", "lora:\n  rank: 4\n  rank: 8\n"))


def test_a_misspelt_section_is_named(tmp_path: Path) -> None:
    assert "did you mean the section 'train'?" in refused(write(tmp_path / "a.yaml", "trian: {epochs: 3}\n"))


@pytest.mark.parametrize("setting", setting_table(), ids=lambda setting: setting.name)
def test_every_setting_has_a_type_a_description_and_a_default_that_can_be_written(setting: Setting) -> None:
    assert setting.type
    assert setting.description
    assert get(Config().override(f"{setting.name}={setting.default_text}"), setting.name) == setting.default
    if setting.limits:
        assert re.fullmatch(r"[<>≤≥] [\d.]+(, [<>≤≥] [\d.]+)?", setting.limits)


def test_limits_and_choices_of_settings() -> None:
    known = {setting.name: setting for setting in setting_table()}
    assert (known["data.max_length"].type, known["data.max_length"].limits) == ("whole number", "≥ 8, ≤ 512")
    assert (known["train.head_learning_rate"].type, known["train.head_learning_rate"].limits) == ("number", "> 0")
    assert known["train.schedule"].choices == ("cosine", "linear", "constant")
    assert known["train.gradient_checkpointing"].type == "true or false"


@pytest.mark.parametrize("name", RECIPES)
def test_the_schema_of_settings_files_accepts_the_recipes(name: str) -> None:
    schema = config_schema()
    recipe = next(recipe for recipe in list_recipes() if recipe.name == name)
    assert {*recipe.settings, "about", "search"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    for section, content in recipe.settings.items():
        if isinstance(content, dict):
            assert set(content) <= set(schema["$defs"][f"{section.capitalize()}Config"]["properties"])


def test_an_override_without_a_value_sign_is_told() -> None:
    assert "write key=value" in refused("quickstart", ["lora.rank"])


@pytest.mark.parametrize(
    "assignment",
    [
        "lora.rank=0",
        "lora.rank=-1",
        "lora.rank=abc",
        "lora.rank=8.5",
        "lora.rank=true",
        "lora.rank=",
        "lora.alpha=0",
        "lora.dropout=1",
        "lora.dropout=-0.1",
        "lora.variant=dorra",
        "lora.targets=",
        "lora.targets=[]",
        "train.head_learning_rate=0",
        "train.optimizer=adamww",
        "train.device=gpu",
        "train.max_grad_norm=0",
        "train.gradient_checkpointing=yes",
        "seed=-1",
        "seed=1.5",
        "seed=yes",
        "tuning=none",
        "model.pooling=max",
        "model.head=big",
        "model.dropout=1.0",
        "data.max_length=4",
        "data.max_length=513",
        "data.max_train_samples=0",
        "train.learning_rate=0",
        "train.learning_rate=-1e-3",
        "train.learning_rate=fast",
        "train.learning_rate=nan",
        "train.epochs=-1",
        "train.epochs=true",
        "train.max_steps=0",
        "train.batch_size=0",
        "train.schedule=step",
        "train.label_smoothing=1",
        "train.focal_gamma=-1",
        "train.eval_steps=0",
        "train.patience=0",
        "train.min_delta=-0.1",
        "train.precision=fp8",
        "train.class_weights=equal",
        "train.class_weights=a,b",
        "train.class_weights={World: heavy}",
        "train.class_weights=2",
        "train.monitor=",
        "data.text={a: b}",
    ],
)
def test_a_value_out_of_range_or_of_another_kind_is_told_with_its_name_and_value(assignment: str) -> None:
    name = assignment.partition("=")[0]
    message = refused("quickstart", [assignment])
    assert f"{name}=" in message
    assert "must be " in message
    assert "recipe quickstart" in message
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("lora.rank=four", "lora.rank='four': must be a whole number > 0 (rank of each adapter (r))"),
        ("lora.rank=", "lora.rank=none: must be a whole number > 0"),
        ("lora.dropout=1", "lora.dropout=1: must be a number ≥ 0, < 1"),
        ("data.max_length=4", "data.max_length=4: must be a whole number ≥ 8, ≤ 512"),
        ("seed=true", "seed=True: must be a whole number ≥ 0"),
        ("train.schedule=cosin", "train.schedule='cosin': must be one of cosine, linear, constant; did you mean 'cosine'?"),
        ("lora.variant=dorra", "adalora, vera, ia3; did you mean 'dora'?"),
        ("train.gradient_checkpointing=on", "train.gradient_checkpointing='on': must be true or false"),
        ("train.device=gpu", "train.device='gpu': must be auto, cpu, cuda, cuda:N or mps"),
        ("data.template=News", "data.template='News': must be text with {}"),
        ("data.text={a: b}", "data.text={'a': 'b'}: must be a list of names"),
        ("train.class_weights=equal", "train.class_weights='equal': must be balanced, list or {class: number}"),
    ],
)
def test_a_message_says_what_a_value_must_be(assignment: str, message: str) -> None:
    assert message in refused("quickstart", [assignment])


@pytest.mark.parametrize(
    "assignment",
    [
        "train.learning_rate=inf",
        "train.learning_rate=.inf",
        "lora.alpha=inf",
        "train.epochs=inf",
        "train.warmup=inf",
        "train.class_weights=nan,1,1,1",
        "train.class_weights=inf,1,1,1",
        "train.class_weights={World: .nan}",
        "data.validation=.inf",
    ],
)
def test_infinity_and_not_a_number_are_refused(assignment: str) -> None:
    refused("quickstart", [assignment])


@pytest.mark.parametrize("assignment", ["lora.rank=[", "name='a", "name={a", "seed=*x"])
def test_a_value_that_is_no_yaml_is_told(assignment: str) -> None:
    assert "cannot be read" in refused("quickstart", [assignment])


@pytest.mark.parametrize("key", ["lora", "train", "data"])
def test_a_whole_section_is_no_setting(key: str) -> None:
    assert f"unknown setting {key!r}" in refused("quickstart", [f"{key}=3"])


@pytest.mark.parametrize("text", ["lora: 3", "lora: [rank]", "lora: rank", "data:"])
def test_a_section_that_is_no_mapping_is_told_with_overrides_too(tmp_path: Path, text: str) -> None:
    section = text[:4]
    key = "lora.rank=4" if section == "lora" else "data.split_seed=1"
    for overrides in ([], [key]):
        assert f"{section}=" in refused(write(tmp_path / "a.yaml", text), overrides)


# Files that are no settings


@pytest.mark.parametrize(
    ("text", "what"), [("- 1\n- 2", "list"), ("abc", "str"), ("3", "int"), ("2001-01-01", "str"), ("yes", "str"), ("true", "bool")]
)
def test_a_file_that_holds_no_mapping_is_told(tmp_path: Path, text: str, what: str) -> None:
    assert f"holds a {what}" in refused(write(tmp_path / "a.yaml", text))


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "# " + "x" * MAX_YAML_BYTES)
    assert "that is not a settings file" in refused(file)
    assert load_config(write(tmp_path / "b.yaml", "# " + "x" * (MAX_YAML_BYTES - 2))) == Config()


@pytest.mark.parametrize(
    "content",
    [
        b"lora: {rank",
        b"\xff\xfe\x00lora",
        b"name: \x00",
        b"a: 1\n---\nb: 2",
        b"lora: !!python/object/apply:os.system ['true']",
        b"seed: *nothing",
        b"? [a]\n: 1\n",
        b"seed: " + b"9" * 5000,
        b"lora: " + b"[" * 20000,
        b"{a: " * 5000,
    ],
    ids=["cut", "binary", "nul", "two", "tag", "anchor", "key", "digits", "brackets", "braces"],
)
def test_damaged_and_hostile_yaml_is_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    assert "a.yaml" in refused(tmp_path / "a.yaml")


@pytest.mark.parametrize("value", ["2001-99-99", "9" * 5000, "[" * 20000], ids=["date", "digits", "brackets"])
def test_hostile_yaml_in_an_override_is_one_message(value: str) -> None:
    assert "seed" in refused("quickstart", [f"seed={value}"])


@pytest.mark.parametrize("text", ["1: 2", "lora: {1: 2}", "~: 2", "lora: &a {rank: *a}", "data: {text: &a [*a]}"])
def test_odd_keys_and_loops_are_one_message(tmp_path: Path, text: str) -> None:
    assert len(refused(write(tmp_path / "a.yaml", text))) < 1000


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
READ = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from loralab.config import load_config
from loralab.errors import LoralabError
for file in sys.argv[1:]:
    try:
        load_config(file)
    except LoralabError as error:
        print(len(str(error)))
"""


def test_a_yaml_bomb_is_refused_at_once_with_a_short_message(tmp_path: Path) -> None:
    places = ("lora: {rank: *a9}", "data: {text: *a9}", "train: {class_weights: *a9}", "lora: {layers: *a9}", "*a9 : 1")
    files = [write(tmp_path / f"{i}.yaml", f"{BOMB}{place}\n") for i, place in enumerate(places)]
    done = subprocess.run([sys.executable, "-c", READ, *map(str, files)], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    lengths = [int(line) for line in done.stdout.split()]
    assert len(lengths) == len(places)
    assert max(lengths) < 100_000


def test_a_long_value_is_told_in_a_short_message(tmp_path: Path) -> None:
    assert len(refused(write(tmp_path / "a.yaml", f"lora: {{rank: {'x' * 500_000}}}"))) < 10_000


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
    with pytest.raises(LoralabError, match=r"did you mean 'lora\.rank'"):
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
    assert default.override("data.text=a,b").fingerprint() == default.override("data.text=[a, b]").fingerprint()
    assert default.override("lora.alpha=16").fingerprint() == default.fingerprint()


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    code = "from loralab.config.loading import load_config; print(load_config('roberta-class-weights').fingerprint())"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {load_config("roberta-class-weights").fingerprint()}


def test_streams_differ_by_purpose_and_seed_and_stay() -> None:
    purposes, seeds = ("init", "shuffle", "dropout"), range(20)
    found = {(purpose, seed): Config(seed=seed).stream(purpose) for purpose in purposes for seed in seeds}
    assert len(set(found.values())) == len(found)
    assert all(0 <= value < 2**56 for value in found.values())
    assert Config(seed=3, name="x").stream("init") == found["init", 3]
    assert Config(seed=3).override("data.split_seed=9").stream("init") == found["init", 3]


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_gives_the_same_settings_back(tmp_path: Path, name: str) -> None:
    config = load_config(name)
    again = load_config(write(tmp_path / "a.yaml", config.to_yaml()))
    assert again == config
    assert again.fingerprint() == config.fingerprint()


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda name: name not in NONE_WORDS)
reals = st.floats(1e-12, 1e6)
trees = st.builds(
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


def test_a_low_rate_is_remarked_for_lora_only() -> None:
    low = Config().override("train.learning_rate=2e-5")
    assert "train.learning_rate=2e-05" in low.remarks()[0]
    assert low.override("tuning=full").remarks() == []
    assert "suits LoRA" in Config().override("tuning=full").remarks()[0]
    assert "use lora.variant=loraplus" in Config().override("lora.loraplus_lr_ratio=4").remarks()[0]
    assert Config().remarks() == []


@pytest.mark.parametrize(
    ("source", "name"),
    [("quickstart", "quickstart-s42"), ("data/my reviews.csv.gz", "my-reviews-s42"), ("../x.csv", "x-s42"), (".csv", "run-s42")],
)
def test_a_runs_default_name_is_a_plain_word(source: str, name: str) -> None:
    assert default_name(source, 42) == name


def test_descriptions_that_nobody_reads_are_remarked_on() -> None:
    described = Config().override("data.descriptions={a: [b], c: [d, e]}")
    assert described.data.descriptions == {"a": ("b",), "c": ("d", "e")}
    assert "train.head_init=random" in described.remarks()[0]
    assert described.override("train.head_init=descriptions").remarks() == []


def test_a_template_without_a_place_for_the_description_is_refused() -> None:
    assert "data.template" in refused("quickstart", ["data.template=News"])


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "12:30", "2001-01-01", "1_000", "0b1", "=", "<<"])
def test_words_of_yaml_1_1_are_text(text: str) -> None:
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


def test_settings_are_found_by_name_description_and_their_names_elsewhere() -> None:
    assert {row.name for row in setting_table("lora.")} == {name for name in setting_names() if name.startswith("lora.")}
    assert [row.name for row in setting_table("lora_alpha")] == ["lora.alpha"]
    assert "train.patience" in [row.name for row in setting_table("early stopping")]
    assert len(setting_table()) == len(setting_names())
    with pytest.raises(LoralabError, match=r"no setting matches 'rnak'; did you mean 'lora\.rank'"):
        setting_table("rnak")
    with pytest.raises(LoralabError, match="`loralab settings` lists all settings"):
        setting_table("zzzzzz")
