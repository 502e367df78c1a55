"""One frozen, strict, typed tree of settings: from a recipe, a YAML file or a data file, plus `key=value` overrides."""

from __future__ import annotations

import difflib
import hashlib
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from loralab.config.schema import DataConfig, LoraConfig, ModelConfig, SettingsSection, TrainConfig
from loralab.errors import LoralabError, suggest

NAMED_SOURCES = ("sample", "ag_news")
MAX_YAML_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """YAML without aliases: ten lines of them can stand for a terabyte, and no settings need any."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        return super().compose_node(parent, index)


_UNUSED = {
    "ia3": "it has neither rank nor alpha: lora.rank and lora.alpha are not used",
    "vera": "it has no alpha, and wants a learning rate about ten times LoRA's: lora.alpha is not used",
    "adalora": "it starts with 1.5 times lora.rank and ends with lora.rank on average; the budget counts the start",
}


class Config(SettingsSection):
    """Every setting of one run. Frozen: derive another with `config.override("lora.rank=4")`."""

    seed: int = Field(42, ge=0)
    name: str | None = Field(None, description="the run's name; default: made from the recipe and the seed")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    tuning: Literal["lora", "full", "head"] = "lora"
    lora: LoraConfig = LoraConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        """A setting that would do nothing is refused."""
        if self.model.freeze and self.tuning != "full":
            raise ValueError(f"model.freeze={self.model.freeze} is for tuning=full: tuning={self.tuning} freezes the whole encoder")
        data = self.data
        for name, idle in (("augment_ratio", (0, 0.25)), ("augment_strength", (0.1,))):
            if not data.augment and getattr(data, name) not in idle:
                raise ValueError(f"data.{name}={getattr(data, name):g} is for data.augment, which names no technique")
        if data.back_translation and "back_translation" not in data.augment:
            raise ValueError("data.back_translation has no effect without data.augment=back_translation")
        if len(data.back_translation) not in (0, 2):
            raise ValueError(
                "data.back_translation needs two checkpoints, forward and back, such as "
                "data.back_translation=Helsinki-NLP/opus-mt-en-fr,Helsinki-NLP/opus-mt-fr-en"
            )
        if problem := _prompt_problem(data.template, self.model, self.train.head_init):
            raise ValueError(problem)
        return self

    def override(self, *assignments: str) -> Config:
        """Return a copy with dotted `key=value` settings changed, validated like a file."""
        return _validate(_merge(self.model_dump(mode="json"), assignments), "the overrides")

    def fingerprint(self) -> str:
        """Sixteen hex digits that are equal for equal settings (the name aside)."""
        text = json.dumps(self.model_dump(mode="json", exclude={"name"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def stream(self, purpose: str) -> int:
        """Return the seed of one purpose (init, shuffle, augment, ...): one stream each, so that none depends on another's use."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{purpose}".encode()).digest()[:7])

    def remarks(self) -> list[str]:
        """Say which settings are allowed but seldom meant."""
        found = []
        if self.tuning == "lora" and self.train.learning_rate < 1e-4:
            found = [f"train.learning_rate={self.train.learning_rate:g} suits full fine-tuning; LoRA usually wants 2e-4 to 1e-3"]
        if self.tuning == "lora" and self.lora.variant in _UNUSED:
            found.append(f"lora.variant={self.lora.variant}: {_UNUSED[self.lora.variant]}")
        prompt = self.model.head == "prompt"
        if prompt and self.data.template == "{}":
            found.append(
                "data.template={}: nothing but the mask follows the text; write a sentence, such as 'This is news about {}.'"
            )
        if self.data.descriptions and not prompt and self.train.head_init not in ("descriptions", "probe+descriptions"):
            found.append(
                f"data.descriptions are not read with train.head_init={self.train.head_init}: use descriptions or probe+descriptions"
            )
        return found

    def to_yaml(self) -> str:
        """Every setting, defaults included, as YAML that `load_config` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _prompt_problem(template: str, model: ModelConfig, head_init: str) -> str:
    """What does not go with model.head=prompt, or only with it; empty where all agrees."""
    if model.head != "prompt":
        return "data.template: {text} is for model.head=prompt" if "{text}" in template else ""
    if model.pooling != "auto":
        return f"model.pooling={model.pooling} is for other heads: model.head=prompt reads the mask"
    if head_init in ("probe", "probe+descriptions"):
        return (
            f"train.head_init={head_init} would undo the words that model.head=prompt begins with: use train.head_init=descriptions"
        )
    if template.count("{}") > 1 or template.count("{text}") > 1:
        return f"data.template={template!r}: model.head=prompt takes one {{}}, for the mask, and at most one {{text}}"
    return ""


@dataclass(frozen=True)
class Recipe:
    """A shipped set of differences from the defaults, with where it comes from and what its source claims."""

    name: str
    summary: str
    source: str
    claim: str
    settings: Mapping[str, Any]
    search: Mapping[str, Any]


def list_recipes() -> list[Recipe]:
    """Return the shipped recipes, in order of name."""
    folder = resources.files("loralab.config") / "recipes"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return [_recipe(f.name.removesuffix(".yaml"), f.read_text(encoding="utf-8")) for f in files]


def load_config(source: str | Path = "quickstart", overrides: Sequence[str] = ()) -> Config:
    """Return the settings of a recipe, a YAML file, or quickstart on a data file, with `key=value` overrides applied.

    Raises LoralabError for an unknown recipe or setting (the nearest match offered) and for a value out of range.
    """
    settings, origin = _find(str(source))
    return _validate(_merge(settings, overrides), origin)


def search_ranges(source: str | Path) -> dict[str, Any]:
    """Return the section `search` of a recipe or a settings file, setting → choices or range; empty where it has none."""
    for recipe in list_recipes():
        if recipe.name == str(source):
            return dict(recipe.search)
    found = read_yaml(Path(source)).get("search") if str(source).endswith((".yaml", ".yml")) else None
    if found is not None and not isinstance(found, dict):
        raise LoralabError(f"{source}: `search` holds a {type(found).__name__}, not ranges such as `lora.rank: [4, 8, 16]`")
    return found or {}


def setting_names() -> list[str]:
    """Return every setting's dotted name, such as `lora.rank`."""
    return [name for name, _ in describe_settings()]


def describe_settings() -> Iterator[tuple[str, str]]:
    """Yield every setting's dotted name with its default and meaning."""
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsSection):
            for inner, subfield in field.annotation.model_fields.items():
                yield f"{name}.{inner}", f"{subfield.default}  {subfield.description or ''}".rstrip()
        else:
            yield name, f"{field.default}  {field.description or ''}".rstrip()


def default_name(source: str | Path, seed: int) -> str:
    """Return the name a run gets when the user gives none: the recipe's or file's stem, and the seed."""
    stem = Path(source).name.split(".")[0] or "run"
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)
    return f"{safe}-s{seed}"


def _recipe(name: str, text: str) -> Recipe:
    content = yaml.safe_load(text)
    about, search = content.pop("about"), content.pop("search", {})
    return Recipe(name, about["summary"], about["source"], about["claim"], content, search)


def _find(source: str) -> tuple[dict[str, Any], str]:
    recipes = {recipe.name: recipe for recipe in list_recipes()}
    if source in recipes:
        return dict(recipes[source].settings), f"recipe {source}"
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        return {key: value for key, value in read_yaml(path).items() if key not in ("about", "search")}, source
    if source in NAMED_SOURCES or path.exists():
        settings = dict(recipes["quickstart"].settings)
        settings["data"] = {**settings.get("data", {}), "source": source}
        return settings, f"quickstart on {source}"
    raise LoralabError(
        f"{source!r} is neither a recipe nor a file{suggest(source, recipes)}\n"
        f"  recipes: {', '.join(recipes)}\n  or give a settings file (.yaml) or a data file (.csv, .jsonl, .parquet, ...)"
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a settings file as it stands. Raises LoralabError where it is none."""
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise LoralabError(f"{path} is over {MAX_YAML_BYTES} bytes: that is not a settings file")
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise LoralabError(f"cannot read the settings file {path}: {error}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise LoralabError(f"{path} holds a {type(content).__name__}, not settings such as `lora: {{rank: 8}}`")
    return content


def _merge(settings: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return `settings` with each `a.b=value` set; the value is read as YAML."""
    merged: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in settings.items()}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise LoralabError(f"{assignment!r} is not a setting: write key=value, such as lora.rank=16")
        names = setting_names()
        if key not in names:
            raise LoralabError(f"unknown setting {key!r}{_nearest_setting(key, names)}")
        try:
            plain = key == "data.template" and value[:1] not in ("'", '"')  # its braces and colons mean something to YAML
            parsed = value if plain else yaml.load(value, _Loader) if value else None  # noqa: S506 - a SafeLoader
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise LoralabError(f"{key}: {reprlib.repr(value)} cannot be read: {error}") from error
        section, dot, name = key.partition(".")
        if not dot:
            merged[section] = parsed
        elif isinstance(merged.setdefault(section, {}), dict):
            merged[section][name] = parsed
    if isinstance(merged.get("data"), dict):
        for name in ("clean", "augment", "back_translation"):  # `data.clean=` means none
            if merged["data"].get(name, ()) is None:
                merged["data"][name] = ()
    return merged


def _nearest_setting(key: str, names: Sequence[str]) -> str:
    """The closest dotted name; a bare `rank` finds `lora.rank`."""
    hint = suggest(key, names)
    if hint:
        return hint
    last = {name.rsplit(".", 1)[-1]: name for name in names}
    close = difflib.get_close_matches(key.rsplit(".", 1)[-1], list(last), n=1)
    return f"; did you mean {last[close[0]]!r}?" if close else f"\n  settings: {', '.join(names)}"


def _validate(settings: Mapping[str, Any], origin: str) -> Config:
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        names = setting_names()
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"][:2])
            if problem["type"] == "extra_forbidden":
                lines.append(f"unknown setting {key!r}{_nearest_setting(key, names)}")
            elif not key:  # a rule between settings, not of one
                lines.append(problem["msg"].removeprefix("Value error, "))
            else:
                lines.append(f"{key} = {reprlib.repr(problem['input'])}: {problem['msg']}")
        unique = list(dict.fromkeys(lines))
        raise LoralabError(f"{origin}: " + "\n  ".join(unique)) from error
