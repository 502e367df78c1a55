"""The settings of a run: from a recipe, a YAML file, a run folder or a data file, with `key=value` overrides."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_origin

import yaml
from pydantic import Field, PrivateAttr, ValidationError, model_validator

from loralab.config import reference
from loralab.config.hints import other_names, similar_settings, similar_value, unknown_setting
from loralab.config.paths import local_path, similar_file, split_path
from loralab.config.run_settings import RUN_SETTINGS, read_run_settings
from loralab.config.schema import (
    COLUMN_SETTINGS,
    NONE_WORDS,
    DataConfig,
    LoraConfig,
    ModelConfig,
    SettingsSection,
    TrainConfig,
    type_parts,
)
from loralab.config.yaml_core import dump_yaml, parse_yaml, read_yaml, yaml_problem
from loralab.errors import LoralabError, suggest
from loralab.safe_files import exists

NAMED_SOURCES = ("sample", "ag_news")
LOW_LORA_RATE, HIGH_FULL_RATE = 1e-4, 2e-4
"""Learning rates below and above which training usually fails to learn: of LoRA, and of full fine-tuning."""
_VARIANT_REMARKS = {
    "ia3": "IA3 has neither rank nor alpha: lora.rank and lora.alpha have no effect",
    "vera": "VeRA has no alpha, so lora.alpha has no effect, and needs about ten times LoRA's learning rate",
    "adalora": "AdaLoRA starts with 1.5 times lora.rank and ends with lora.rank on average; the budget counts the start",
}


ONE_COLUMN = frozenset(f"data.{name}" for name in COLUMN_SETTINGS if name != "text")


class Config(SettingsSection):
    """Every setting of one run. Frozen: derive another with `config.override("lora.rank=4")`."""

    seed: int = Field(42, ge=0, description="seed of initialization, shuffling, dropout and augmentation")
    name: str | None = Field(None, description="the run's name; default: made from the recipe and the seed")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    tuning: Literal["lora", "full", "head"] = Field(
        "lora", description="lora: adapters and head; full: all weights, see model.freeze; head: the head alone"
    )
    lora: LoraConfig = LoraConfig()
    train: TrainConfig = TrainConfig()
    _notes: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _check_conflicts(self) -> Config:
        """Refuse settings that contradict each other or have no effect together."""
        if conflicts := [*_conflicts(self)]:
            raise ValueError("\n  ".join(conflicts))
        return self

    def override(self, *assignments: str) -> Config:
        """Return a copy with dotted `key=value` settings changed, validated like a file."""
        return _validate(_merge(self.model_dump(mode="json"), assignments), "the overrides")

    def fingerprint(self) -> str:
        """Return sixteen hex digits that are equal for equal settings, whatever the name."""
        text = json.dumps(self.model_dump(mode="json", exclude={"name"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def seed_for(self, purpose: str) -> int:
        """Return the seed of one purpose, such as init or shuffle. Each purpose has its own, so none depends on another's use."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{purpose}".encode()).digest()[:7])

    def flatten(self) -> dict[str, Any]:
        """Return every setting's value, as in JSON, by its dotted name."""
        values, split = self.model_dump(mode="json"), {name: name.partition(".")[::2] for name in setting_names()}
        return {name: values[section][inner] if inner else values[section] for name, (section, inner) in split.items()}

    def remarks(self) -> list[str]:
        """Return remarks on settings that are valid but rarely intended."""
        return [*self.notes, *_remarks(self)]

    @property
    def notes(self) -> tuple[str, ...]:
        """What `load_config` decided about the settings."""
        return self._notes

    def to_yaml(self) -> str:
        """Return every setting, defaults included, as YAML that `load_config` reads back."""
        return dump_yaml(self.model_dump(mode="json"))


def _conflicts(config: Config) -> Iterator[str]:
    data, model = config.data, config.model
    if model.freeze and config.tuning != "full":
        yield (
            f"model.freeze={model.freeze} has no effect with tuning={config.tuning}, which freezes the whole encoder: "
            "add tuning=full, or remove model.freeze"
        )
    for name, unused in (("augment_ratio", (0, 0.25)), ("augment_strength", (0.1,))):
        if not data.augment and getattr(data, name) not in unused:
            yield f"data.{name} has no effect without a technique: add data.augment=swap, or remove data.{name}"
    if data.back_translation and "back_translation" not in data.augment:
        yield "data.back_translation has no effect without the technique: add data.augment=back_translation"
    if len(data.back_translation) not in (0, 2):
        yield (
            "data.back_translation needs two checkpoints, forward and back: write "
            "data.back_translation=Helsinki-NLP/opus-mt-en-fr,Helsinki-NLP/opus-mt-fr-en"
        )
    if model.head != "prompt":
        if "{text}" in data.template:
            yield "{text} in data.template has no effect without a prompt: add model.head=prompt"
        return
    if model.pooling != "auto":
        yield f"model.pooling={model.pooling} has no effect with model.head=prompt, which reads the mask: write model.pooling=auto"
    if config.train.head_init in ("probe", "probe+descriptions"):
        yield (
            f"train.head_init={config.train.head_init} would replace the words that model.head=prompt starts from: write "
            "train.head_init=descriptions"
        )
    if data.template.count("{}") > 1 or data.template.count("{text}") > 1:
        yield (
            f"data.template={data.template!r}: model.head=prompt takes one {{}}, for the mask, and at most one {{text}}, such as "
            "'{text} This is news about {}.'"
        )


def _remarks(config: Config) -> Iterator[str]:
    lora, train, rate = config.lora, config.train, f"train.learning_rate={config.train.learning_rate:g}"
    if config.tuning == "lora" and train.learning_rate < LOW_LORA_RATE:
        yield f"{rate} suits full fine-tuning; LoRA usually needs 2e-4 to 1e-3"
    if config.tuning == "full" and train.learning_rate > HIGH_FULL_RATE:
        yield f"{rate} suits LoRA; full fine-tuning usually needs 1e-5 to 1e-4"
    if config.tuning == "lora" and lora.variant in _VARIANT_REMARKS:
        yield f"lora.variant={lora.variant}: {_VARIANT_REMARKS[lora.variant]}"
    if config.tuning == "lora" and lora.variant != "loraplus" and lora.loraplus_lr_ratio != LoraConfig().loraplus_lr_ratio:
        yield f"lora.loraplus_lr_ratio has no effect with lora.variant={lora.variant}: use lora.variant=loraplus"
    if config.data.validation == 0:
        for name in ("monitor", "patience", "min_delta"):
            if getattr(train, name) != getattr(TrainConfig(), name):
                yield f"train.{name} has no effect without validation rows: set data.validation, such as data.validation=0.1"
    if config.data.sample_seed is not None and not (config.data.max_train_samples or config.data.shots_per_class):
        yield "data.sample_seed has no effect without data.max_train_samples or data.shots_per_class"
    prompt = config.model.head == "prompt"
    if prompt and config.data.template == "{}":
        yield "data.template={}: the prompt is the bare mask; write a sentence, such as 'This is news about {}.'"
    if config.data.descriptions and not prompt and train.head_init not in ("descriptions", "probe+descriptions"):
        yield f"data.descriptions has no effect with train.head_init={train.head_init}: use descriptions or probe+descriptions"


@dataclass(frozen=True)
class Recipe:
    """A shipped set of differences from the defaults, with its source and the score that the source claims."""

    name: str
    summary: str
    source: str
    claim: str
    settings: Mapping[str, Any]
    search: Mapping[str, Any]


@cache
def list_recipes() -> tuple[Recipe, ...]:
    """Return the shipped recipes, in order of name."""
    folder, recipes = resources.files("loralab.config") / "recipes", []
    for file in sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name):
        content = parse_yaml(file.read_text(encoding="utf-8"))
        about, search = content.pop("about"), content.pop("search", {})
        recipes.append(Recipe(file.name.removesuffix(".yaml"), **about, settings=content, search=search))
    return tuple(recipes)


def load_config(source: str | Path = "quickstart", overrides: Sequence[str] = ()) -> Config:
    """Return the settings of `source`: a recipe, a YAML file, a run folder, or quickstart on a data file.

    overrides: settings to change, as on the command line, such as ["lora.rank=4"]. Raises LoralabError for an unknown recipe or
    setting, with the nearest match, and for a value of another type or out of range.
    """
    settings, origin = _find(str(source))
    merged, notes = _merge(settings, overrides), tuple[str, ...]()
    if not any(override.startswith("data.classes=") for override in overrides):
        merged, notes = _drop_classes(settings, merged, origin)
    config = _validate(merged, origin)
    config._notes = notes
    return config


def listed_settings(config: Config) -> dict[str, Any]:
    """Return the settings that a list of runs shows: JSON is read ten times as fast as config.yaml."""
    return {"encoder": config.model.base, "data": config.data.source, "seed": config.seed}


def search_ranges(source: str | Path) -> dict[str, Any]:
    """Return the section `search` of a recipe or a settings file, setting → choices or range; empty if it has none."""
    for recipe in list_recipes():
        if recipe.name == str(source):
            return dict(recipe.search)
    ranges = read_yaml(Path(source)).get("search") if str(source).endswith((".yaml", ".yml")) else None
    if ranges is not None and not isinstance(ranges, dict):
        raise LoralabError(f"{source}: `search` holds a {type(ranges).__name__}, not ranges such as `lora.rank: [4, 8, 16]`")
    return ranges or {}


def setting_table(pattern: str = "") -> list[reference.Setting]:
    """Return settings with type, limits, default and description.

    pattern: part of a name here or in another library, or of a description; empty for all. Raises LoralabError if none matches.
    """
    rows = reference.setting_table(Config)
    word = pattern.strip().lower()
    elsewhere = other_names().renamed.get(word)
    matching = [row for row in rows if word in row.name or word in row.description.lower() or row.name == elsewhere]
    if not matching:
        close = similar_settings(word, [row.name for row in rows])
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ": `loralab settings` lists all settings"
        raise LoralabError(f"no setting matches {pattern!r}{hint}")
    return matching


def setting_names() -> list[str]:
    """Return every setting's dotted name, such as `lora.rank`."""
    return [setting.name for setting in reference.setting_table(Config)]


def setting_types(name: str) -> list[Any]:
    """Return a setting's type and its parts, by its dotted name: for `int | None` itself, int and None."""
    section, _, inner = name.partition(".")
    fields: Mapping[str, Any] = Config.model_fields
    return type_parts((fields[section].annotation.model_fields[inner] if inner else fields[section]).annotation)


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of a settings file, for editors."""
    schema = Config.model_json_schema(mode="validation")
    free = {"type": "object", "additionalProperties": True}
    schema["properties"] |= {
        "about": {**free, "description": "notes, which loralab ignores"},
        "search": {**free, "description": "setting: choices or range, for loralab search"},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "loralab settings"}


def default_name(source: str | Path, seed: int) -> str:
    """Return the name of a run without one: the stem of the recipe or file, and the seed."""
    stem = Path(source).name.split(".")[0] or "run"
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)
    return f"{safe}-s{seed}"


def _find(source: str) -> tuple[dict[str, Any], str]:
    """Return the settings of a source and how messages call it."""
    recipes = {recipe.name: recipe for recipe in list_recipes()}
    if source in recipes:
        return dict(recipes[source].settings), f"recipe {source}"
    path = local_path(source)
    if exists(path / RUN_SETTINGS):
        return read_run_settings(path / RUN_SETTINGS), str(path / RUN_SETTINGS)
    if path.suffix in (".yaml", ".yml"):
        content = {key: value for key, value in read_yaml(path).items() if key not in ("about", "search")}
        return _nest(content, source), source
    if source in NAMED_SOURCES or split_path(path)[0].exists():
        settings = dict(recipes["quickstart"].settings)
        settings["data"] = {**settings.get("data", {}), "source": source}
        return settings, f"quickstart on {source}"
    if path.suffix or len(path.parts) > 1:
        raise LoralabError(f"there is no file {source}{similar_file(path)}")
    raise LoralabError(
        f"{source!r} is neither a recipe nor a file{suggest(source, recipes)}\n"
        f"  recipes: {', '.join(recipes)}\n"
        "  or give a settings file (.yaml), a run folder or a data file (.csv, .jsonl, .parquet, ...)"
    )


def _drop_classes(before: Mapping[str, Any], after: dict[str, Any], origin: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Leave out the class names of a recipe if the data is another's, and say so: they name the classes of the recipe's own."""
    old, new = (settings.get("data", {}) for settings in (before, after))
    kept = not origin.startswith("recipe ") or old.get("source") == new.get("source")
    if kept or not old.get("classes"):
        return after, ()
    names = ",".join(old["classes"])
    train = after.get("train", {})
    others = ["train.monitor=macro_f1"] if ":" in str(train.get("monitor", "")) else []
    others += ["train.class_weights=balanced"] if isinstance(train.get("class_weights"), Mapping) else []
    note = f"the class names of {origin} are left out, because data.source is another: "
    note += f"for other classes write {' '.join(others)}; " if others else ""
    note += f"if it has the recipe's classes under numbers, write data.classes={names}"
    return {**after, "data": {key: value for key, value in new.items() if key != "classes"}}, (note,)


def _nest(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Move dotted keys of a file, such as `lora.rank`, into their sections."""
    nested = {key: dict(value) if isinstance(value, Mapping) else value for key, value in content.items()}
    names = setting_names()
    for key in [key for key in content if key in names and "." in key]:
        section, _, name = key.partition(".")
        inner = nested.setdefault(section, {})
        if not isinstance(inner, dict) or name in inner:
            raise LoralabError(f"{source}: {key} is set twice: keep one of the two")
        inner[name] = nested.pop(key)
    return nested


def _merge(settings: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return `settings` with each `section.name=value` applied."""
    merged: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in settings.items()}
    names = setting_names() if assignments else []
    unknown = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise LoralabError(f"{assignment!r} is not a setting: write key=value, such as lora.rank=16")
        if key not in names:
            unknown.append(unknown_setting(key, text, names))
            continue
        section, dot, name = key.partition(".")
        if not dot:
            merged[section] = _parse_value(key, text)
        elif isinstance(merged.setdefault(section, {}), dict):
            merged[section][name] = _parse_value(key, text)
    if unknown:
        raise LoralabError("\n  ".join(unknown))
    return merged


def _parse_value(key: str, text: str) -> Any:
    """Read the value of an override: text as it is if the setting takes text only, unless it is quoted or a list; else YAML."""
    if text in NONE_WORDS and (key, text) != ("data.delimiter", "~"):
        return None
    types = setting_types(key)
    plain = str in types and not any(kind in (int, float, bool) or get_origin(kind) is Mapping for kind in types)
    if plain and text[0] not in ("'", '"', "["):
        return text
    try:
        value = parse_yaml(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        if plain:
            return text
        raise LoralabError(f"{key}: {reprlib.repr(text)} cannot be read: {yaml_problem(error)}") from error
    readable = str if key in ONE_COLUMN else str | list
    return text if plain and not isinstance(value, readable) else value


def _validate(settings: Mapping[str, Any], origin: str) -> Config:
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        lines = dict.fromkeys(_describe(problem, settings, origin) for problem in error.errors())
        raise LoralabError(f"{origin}: " + "\n  ".join(lines)) from error


def _describe(problem: Mapping[str, Any], settings: Mapping[str, Any], origin: str) -> str:
    """Return the message for one of pydantic's errors: which setting, its value, what it must be."""
    place = [str(part) for part in problem["loc"][:2]]
    key, known = ".".join(place), {setting.name: setting for setting in reference.setting_table(Config)}
    if problem["type"] == "extra_forbidden":
        message = unknown_setting(key, problem["input"], [*known])
        in_file = origin.endswith((".yaml", ".yml"))
        return re.sub(r"(: write \S+?)=", r"\1: ", message, count=1) if in_file else message
    if not key:  # a conflict between settings
        return str(problem["msg"]).removeprefix("Value error, ")
    value: Any = settings
    for part in place:
        value = value.get(part, problem["input"]) if isinstance(value, Mapping) else problem["input"]
    shown = "none" if value is None else reprlib.repr(value)
    if key not in known:
        required = "a section of settings, such as lora: {rank: 8}" if key in Config.model_fields else problem["msg"]
        return f"{key}={shown}: must be {required}"
    setting = known[key]
    nearest = similar_value(key, value, setting.choices, whole=setting.type == "whole number")
    about = "" if setting.choices else f" ({setting.description})"
    if problem["type"] == "value_error":  # a rule of our own
        return f"{key}={shown}: {str(problem['msg']).removeprefix('Value error, ')}{about}"
    return f"{key}={shown}: must be {setting.requirement}{about}{nearest}"
