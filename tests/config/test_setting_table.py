"""The table of all settings, and the JSON schema of settings files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from setting_cases import get, write

from loralab.config import Config, reference
from loralab.config.loading import config_schema, list_recipes, search_ranges, setting_names, setting_table
from loralab.config.reference import Setting
from loralab.config.schema import SettingsSection
from loralab.errors import LoralabError

RECIPES = [recipe.name for recipe in list_recipes()]


@pytest.mark.parametrize("setting", setting_table(), ids=lambda setting: setting.name)
def test_every_setting_has_a_type_a_description_and_a_default_that_can_be_written(setting: Setting) -> None:
    assert setting.type
    assert setting.description
    assert get(Config().override(f"{setting.name}={setting.default_text}"), setting.name) == setting.default
    if setting.limits:
        assert re.fullmatch(r"[<>≤≥] [\d.]+(, [<>≤≥] [\d.]+)?", setting.limits)


def test_limits_and_choices_of_settings() -> None:
    known = {setting.name: setting for setting in setting_table()}
    assert (known["data.max_length"].type, known["data.max_length"].limits) == ("whole number", "≥ 8")
    assert (known["train.head_learning_rate"].type, known["train.head_learning_rate"].limits) == ("number", "> 0")
    assert known["train.schedule"].choices == ("cosine", "linear", "constant")
    assert known["train.gradient_checkpointing"].type == "true or false"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("data.test", ("number or text", "≥ 0", "", "a number or text ≥ 0")),
        ("data.max_length", ("whole number", "≥ 8", "", "a whole number ≥ 8")),
        ("train.max_steps", ("whole number", "> 0", "", "a whole number > 0")),
        ("train.head_learning_rate", ("number", "> 0", "", "a number > 0")),
        ("lora.dropout", ("number", "≥ 0, < 1", "", "a number ≥ 0, < 1")),
        ("train.schedule", ("cosine, linear, constant", "", "cosine linear constant", "one of cosine, linear, constant")),
        ("train.gradient_checkpointing", ("true or false", "", "", "true or false")),
        ("model.base", ("text", "", "", "text")),
        ("data.text", ("list", "", "", "a list of names")),
        ("train.device", ("auto, cpu, cuda, cuda:N or mps", "", "", "auto, cpu, cuda, cuda:N or mps")),
        ("train.class_weights", ("balanced, list or {class: number}", "", "balanced", "balanced, list or {class: number}")),
    ],
)
def test_a_setting_has_its_type_limits_choices_and_requirement(name: str, expected: tuple[str, ...]) -> None:
    setting = next(setting for setting in setting_table() if setting.name == name)
    assert (setting.type, setting.limits, " ".join(setting.choices), setting.requirement) == expected


def test_tables_are_made_of_every_kind_of_setting() -> None:
    """A class of its own, so that alternatives and limits are known: None is no alternative, and limits go to each."""

    class Inner(SettingsSection):
        number: Annotated[float, Field(ge=1, lt=5)] | None = Field(2.5, description="a number")
        both: int | str = 4
        word: Literal["a"] | bool | None = None
        words: tuple[str, ...] = ("x", "y")
        choice: Literal["a", "b"] | int = "b"
        formed: str = Field("x", json_schema_extra={"form": "x or y"})
        anything: Any = None

    class Outer(SettingsSection):
        seed: int = 3
        inner: Inner = Inner()

    assert reference.setting_table(Outer) == (
        Setting("seed", "whole number", "", 3, ""),
        Setting("inner.number", "number", "≥ 1, < 5", 2.5, "a number"),
        Setting("inner.both", "whole number or text", "", 4, ""),
        Setting("inner.word", "a or true or false", "", None, "", ("a",)),
        Setting("inner.words", "list", "", ("x", "y"), ""),
        Setting("inner.choice", "a, b or whole number", "", "b", "", ("a", "b")),
        Setting("inner.formed", "x or y", "", "x", ""),
        Setting("inner.anything", "text", "", None, ""),
    )
    assert [row.default_text for row in reference.setting_table(Outer)] == ["3", "2.5", "4", "none", "x,y", "b", "x", "none"]
    assert [row.requirement for row in reference.setting_table(Outer)] == [
        "a whole number",
        "a number ≥ 1, < 5",
        "a whole number or text",
        "a or true or false",
        "a list of names",
        "a, b or a whole number",
        "x or y",
        "text",
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_the_schema_of_settings_files_accepts_the_recipes(name: str) -> None:
    schema = config_schema()
    recipe = next(recipe for recipe in list_recipes() if recipe.name == name)
    assert {*recipe.settings, "about", "search"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    for section, content in recipe.settings.items():
        if isinstance(content, dict):
            assert set(content) <= set(schema["$defs"][f"{section.capitalize()}Config"]["properties"])


def test_settings_match_by_name_description_and_other_names() -> None:
    assert {row.name for row in setting_table("lora.")} == {name for name in setting_names() if name.startswith("lora.")}
    assert [row.name for row in setting_table("lora_alpha")] == ["lora.alpha"]
    assert "train.patience" in [row.name for row in setting_table("early stopping")]
    assert len(setting_table()) == len(setting_names())
    with pytest.raises(LoralabError, match=r"no setting matches 'rnak'; did you mean 'lora\.rank'"):
        setting_table("rnak")
    with pytest.raises(LoralabError, match=r"^no setting matches 'zzzzzz': `loralab settings` lists all settings$"):
        setting_table("zzzzzz")
    assert [row.name for row in setting_table(" Lora.RANK ")] == ["lora.rank"]
    with pytest.raises(LoralabError, match=r"^no setting matches 'dropuot'; did you mean 'model\.dropout' or 'lora\.dropout'\?$"):
        setting_table("dropuot")


def test_the_schema_of_settings_files_has_a_title_and_free_sections() -> None:
    schema = config_schema()
    assert (schema["$schema"], schema["title"]) == ("https://json-schema.org/draft/2020-12/schema", "loralab settings")
    assert schema["properties"]["about"] == {
        "type": "object",
        "additionalProperties": True,
        "description": "notes, which loralab ignores",
    }
    assert schema["properties"]["search"] == {
        "type": "object",
        "additionalProperties": True,
        "description": "setting: choices or range, for loralab search",
    }


def test_ranges_to_search_come_from_a_recipe_or_a_file(tmp_path: Path) -> None:
    recipe = next(recipe for recipe in list_recipes() if recipe.name == "roberta-search")
    assert search_ranges("roberta-search") == recipe.search != {}
    for name in ("a.yaml", "b.yml"):
        assert search_ranges(write(tmp_path / name, "search: {lora.rank: [4, 8]}\nseed: 1")) == {"lora.rank": [4, 8]}
    assert search_ranges(write(tmp_path / "none.yaml", "seed: 1")) == {}
    assert search_ranges("quickstart") == search_ranges(tmp_path) == search_ranges("data.csv") == {}
    file = write(tmp_path / "list.yaml", "search: [lora.rank]")
    with pytest.raises(LoralabError) as error:
        search_ranges(file)
    assert str(error.value) == f"{file}: `search` holds a list, not ranges such as `lora.rank: [4, 8, 16]`"


def test_flat_settings_are_those_of_the_table() -> None:
    flat = Config().override("lora.layers=0-2", "seed=7", "train.class_weights=1,2").flatten()
    assert [*flat] == setting_names()
    assert (flat["lora.layers"], flat["seed"], flat["train.class_weights"], flat["data.test"]) == ("0-2", 7, [1.0, 2.0], None)
