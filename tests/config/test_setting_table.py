"""The table of all settings, and the JSON schema of settings files."""

from __future__ import annotations

import re

import pytest
from setting_cases import get

from loralab.config import Config
from loralab.config.loading import config_schema, list_recipes, setting_names, setting_table
from loralab.config.reference import Setting
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
    with pytest.raises(LoralabError, match="`loralab settings` lists all settings"):
        setting_table("zzzzzz")
