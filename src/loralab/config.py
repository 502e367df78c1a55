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
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from loralab.errors import LoralabError, nearest

NAMED_SOURCES = ("sample", "ag_news")
MAX_YAML_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """YAML without aliases: ten lines of them can stand for a terabyte, and no settings need any."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        return super().compose_node(parent, index)


def _number(value: object) -> object:
    """YAML 1.1 reads `2e-4` as text; a number is meant."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _words(value: object) -> object:
    """`title,description`, a list or a single name become a tuple of names."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _layers(value: object) -> object:
    """`9-11`, `9,10,11`, `9` or a list: kept as text, because the number of layers is the encoder's to know."""
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _off(value: object) -> object:
    """YAML 1.1 reads `off` as false; the word is meant."""
    return "off" if value is False else value


def _warm_start(value: object) -> object:
    """`true` and `false`, from when fitting was the only choice."""
    return {True: "fit", False: "none"}[value] if isinstance(value, bool) else value


def _text(value: object) -> object:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _numbers(value: object) -> object:
    """Class weights: `1.3,1.3,1.2,0.2`, a list, a mapping, or the word `balanced`."""
    if isinstance(value, str) and "," in value:
        value = [_number(part.strip()) for part in value.split(",")]
    return tuple(value) if isinstance(value, list) else value


def _part(value: object) -> object:
    """A fraction (`0.1`), a number of rows (`240`) or the name of a file."""
    return _number(value)


Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Positive = Annotated[int, Field(gt=0)]
Part = Annotated[Annotated[float, Field(allow_inf_nan=False)] | str, BeforeValidator(_part)]


_UNUSED = {
    "ia3": "it has neither rank nor alpha: lora.rank and lora.alpha are not used",
    "vera": "it has no alpha, and wants a learning rate about ten times LoRA's: lora.alpha is not used",
    "adalora": "it starts with 1.5 times lora.rank and ends with lora.rank on average; the budget counts the start",
}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class DataConfig(_Section):
    """Where the texts come from, what is done to them, and how they are divided."""

    source: str = Field("sample", description="sample, ag_news, or the path of a file or folder")
    text: Words | None = Field(None, description="text column or columns, joined by a space; guessed when not given")
    label: Annotated[str | None, BeforeValidator(_text)] = Field(None, description="label column; guessed when not given")
    classes: Words = Field((), description="class names in order, for files that number their labels")
    test: Part | None = Field(None, description="test file, or the fraction or rows held out; default: the source's own, else 0.2")
    validation: Part = Field(0.1, description="validation file, or the fraction or number of training rows held out")
    split_seed: int = Field(0, description="seed of every split; apart from `seed`, so that seeds share their test rows")
    train_limit: Positive | None = Field(None, description="train on this many rows, classes in proportion")
    test_limit: Positive | None = Field(None, description="test on this many rows, classes in proportion")
    shots_per_class: Positive | None = Field(None, description="train on this many rows of each class")
    indices: str | None = Field(None, description="file of training row numbers to use, one a line, from 0")
    clean: Words = Field(("escapes", "html", "urls", "whitespace"), description="cleaning steps, in order; empty for none")
    descriptions: Annotated[Mapping[str, Words], Field(min_length=2)] | None = Field(
        None, description="{class: [phrase, ...]} for train.warm_start=names or both; default: the classes' names"
    )
    template: str = Field("{}", pattern=r"\{\}", description="the text that a description is set into, such as 'News about {}.'")
    max_length: int = Field(128, ge=8, le=512, description="tokens kept of a text, special tokens included")

    def selection(self) -> dict[str, Any]:
        """The settings that choose rows, as `data.prepare.load_splits` takes them."""
        return self.model_dump(exclude={"clean", "max_length", "descriptions", "template"})


class ModelConfig(_Section):
    """The encoder and what stands on top of it."""

    base: str = Field("minilm", description="minilm, a hub id such as roberta-base, or a folder with a checkpoint")
    pooling: Literal["auto", "cls", "mean"] = Field("auto", description="auto: mean for minilm, else cls")
    head: Literal["auto", "own", "linear"] = Field("auto", description="own: the architecture's; auto: linear for minilm, else own")
    dropout: Real = Field(0.1, ge=0, lt=1, description="dropout inside the classification head")
    freeze: Annotated[str | None, BeforeValidator(_layers)] = Field(
        None, description="tuning=full: what is not trained, such as embeddings or embeddings,0-2"
    )
    quantize: Literal["none", "8bit"] = Field("none", description="8bit: frozen weights in 8 bits (bitsandbytes, CUDA only)")


class LoraConfig(_Section):
    """Low-rank adapters (Hu et al. 2021)."""

    rank: Positive = 8
    alpha: Real = Field(16.0, gt=0, description="scale: alpha / rank, or alpha / sqrt(rank) with variant rslora")
    dropout: Real = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    targets: Words = Field(("query", "value"), description="query, key, value, output, ffn_in, ffn_out, or all")
    layers: Annotated[str | None, BeforeValidator(_layers)] = Field(
        None, description="9-11 or 0,5,9-11, from 0, or top3; default: all"
    )
    variant: Literal["lora", "rslora", "loraplus", "pissa", "dora", "adalora", "vera", "ia3"] = Field(
        "lora", description="lora, rslora, loraplus, pissa natively; dora, adalora, vera, ia3 through peft (slower)"
    )
    plus_ratio: Real = Field(16.0, ge=1, description="loraplus: the learning rate of B over that of A")
    max_trainable: Positive | None = Field(None, description="refuse to train more parameters than this")


class TrainConfig(_Section):
    """The optimisation, counted in examples; `tokens_per_pass` only cuts a step into passes."""

    epochs: Annotated[Real, Field(ge=0, description="may be fractional; 0 trains nothing")] = 3.0
    max_steps: Positive | None = Field(None, description="stop after this many steps, whatever epochs says")
    batch_size: Positive = Field(16, description="examples per optimiser step")
    tokens_per_pass: Positive = Field(
        8192, description="most padded tokens in one pass; changes speed, and results only by which dropout masks are drawn"
    )
    learning_rate: Real = Field(1e-3, gt=0)
    head_learning_rate: Real | None = Field(None, gt=0, description="default: learning_rate")
    warm_start: Annotated[Literal["none", "fit", "names", "both"], BeforeValidator(_warm_start)] = Field(
        "none",
        description="what the head begins as; none: drawn; fit: logistic regression on the training rows; names: the classes' "
        "names or descriptions; both: the regression, drawn towards the names",
    )
    weight_decay: Real = Field(0.01, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Real = Field(0.06, ge=0, description="steps, or a fraction of all steps when below 1")
    class_weights: Annotated[Literal["balanced"] | Mapping[str, Real] | tuple[Real, ...] | None, BeforeValidator(_numbers)] = Field(
        None, description="balanced, a list in class order, or {name: weight}"
    )
    label_smoothing: Real = Field(0.0, ge=0, lt=1)
    focal_gamma: Real = Field(0.0, ge=0)
    eval_every: Positive | None = Field(None, description="evaluate every so many steps; default: every epoch")
    stop_on: str = Field("loss", description="validation score that picks the best weights: loss, accuracy, macro_f1, f1:NAME, ...")
    patience: Positive | None = Field(None, description="stop after so many evaluations without a better score")
    min_delta: Real = Field(0.0, ge=0, description="how much better is better")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: bf16 where the processor is fast in it")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass: less memory, more time")
    cache: Annotated[Literal["auto", "memory", "disk", "off"], BeforeValidator(_off)] = Field(
        "auto",
        description="keep the hidden states below the lowest trained layer: auto: on disk where they fit, and for later runs",
    )
    cache_gb: Real = Field(8.0, gt=0, description="most GB that kept hidden states may take, in memory or on disk")
    threads: Positive | None = Field(None, description="processor threads; default: one per core")


class Config(_Section):
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
        return self

    def override(self, *assignments: str) -> Config:
        """Return a copy with dotted `key=value` settings changed, validated like a file."""
        return _validate(_merge(self.model_dump(mode="json"), assignments), "the overrides")

    def fingerprint(self) -> str:
        """Sixteen hex digits that are equal for equal settings (the name aside)."""
        text = json.dumps(self.model_dump(mode="json", exclude={"name"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def stream(self, purpose: str) -> int:
        """Return the seed of one purpose (init, shuffle, dropout): one stream each, so that none depends on another's use."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{purpose}".encode()).digest()[:7])

    def remarks(self) -> list[str]:
        """Say which settings are allowed but seldom meant."""
        found = []
        if self.tuning == "lora" and self.train.learning_rate < 1e-4:
            found = [f"train.learning_rate={self.train.learning_rate:g} suits full fine-tuning; LoRA usually wants 2e-4 to 1e-3"]
        if self.tuning == "lora" and self.lora.variant in _UNUSED:
            found.append(f"lora.variant={self.lora.variant}: {_UNUSED[self.lora.variant]}")
        if self.data.descriptions and self.train.warm_start not in ("names", "both"):
            found.append(f"data.descriptions are not read with train.warm_start={self.train.warm_start}: use names or both")
        return found

    def to_yaml(self) -> str:
        """Every setting, defaults included, as YAML that `load_config` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


@dataclass(frozen=True)
class Recipe:
    """A shipped set of differences from the defaults, with where it comes from and what its source claims."""

    name: str
    summary: str
    source: str
    claim: str
    settings: Mapping[str, Any]


def list_recipes() -> list[Recipe]:
    """Return the shipped recipes, in order of name."""
    folder = resources.files("loralab") / "recipes"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return [_recipe(f.name.removesuffix(".yaml"), f.read_text(encoding="utf-8")) for f in files]


def load_config(source: str | Path = "quickstart", overrides: Sequence[str] = ()) -> Config:
    """Return the settings of a recipe, a YAML file, or quickstart on a data file, with `key=value` overrides applied.

    Raises LoralabError for an unknown recipe or setting (the nearest match offered) and for a value out of range.
    """
    settings, origin = _find(str(source))
    return _validate(_merge(settings, overrides), origin)


def setting_names() -> list[str]:
    """Return every setting's dotted name, such as `lora.rank`."""
    return [name for name, _ in describe_settings()]


def describe_settings() -> Iterator[tuple[str, str]]:
    """Yield every setting's dotted name with its default and meaning."""
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Section):
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
    about = content.pop("about")
    return Recipe(name, about["summary"], about["source"], about["claim"], content)


def _find(source: str) -> tuple[dict[str, Any], str]:
    recipes = {recipe.name: recipe for recipe in list_recipes()}
    if source in recipes:
        return dict(recipes[source].settings), f"recipe {source}"
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        return _read_yaml(path), source
    if source in NAMED_SOURCES or path.exists():
        settings = dict(recipes["quickstart"].settings)
        settings["data"] = {**settings.get("data", {}), "source": source}
        return settings, f"quickstart on {source}"
    raise LoralabError(
        f"{source!r} is neither a recipe nor a file{nearest(source, recipes)}\n"
        f"  recipes: {', '.join(recipes)}\n  or give a settings file (.yaml) or a data file (.csv, .jsonl, .parquet, ...)"
    )


def _read_yaml(path: Path) -> dict[str, Any]:
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
    content.pop("about", None)
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
            parsed = yaml.load(value, _Loader) if value else None  # noqa: S506 - a SafeLoader
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise LoralabError(f"{key}: {reprlib.repr(value)} cannot be read: {error}") from error
        section, dot, name = key.partition(".")
        if not dot:
            merged[section] = parsed
        elif isinstance(merged.setdefault(section, {}), dict):
            merged[section][name] = parsed
    if merged.get("data", {}) and isinstance(merged["data"], dict) and merged["data"].get("clean", ()) is None:
        merged["data"]["clean"] = ()
    return merged


def _nearest_setting(key: str, names: Sequence[str]) -> str:
    """The closest dotted name; a bare `rank` finds `lora.rank`."""
    hint = nearest(key, names)
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
