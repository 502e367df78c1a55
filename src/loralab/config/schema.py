"""Every setting of a run, by section: name, type, limits, default and meaning."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

NONE_WORDS = ("", "none", "None", "null", "~")
"""Texts that mean no value for a setting that may have none."""
DELIMITER_NAMES: Mapping[str, str] = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
"""Name → character that divides columns."""
COLUMN_SETTINGS = ("text", "label", "id", "group", "time", "weight")
"""Settings of `data` that name columns, which may be called `none`."""


def is_none_word(name: str, text: str) -> bool:
    """Return whether a text means no value for the setting of this name, without its section."""
    return text in NONE_WORDS and name not in COLUMN_SETTINGS and (name, text) != ("delimiter", "~")


def _number(value: object) -> object:
    """Read a number from text. Other text stays as it is."""
    if isinstance(value, str):
        try:
            return value if "_" in value else float(value)
        except ValueError:
            return value
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _numbers(value: object) -> object:
    """Read class weights: `1.3,1.3,1.2,0.2`, a list, a mapping, or the word `balanced`."""
    if isinstance(value, Mapping):
        return dict(_weight(name, weight) for name, weight in value.items())
    if isinstance(value, str) and "," in value:
        value = [_number(part.strip()) for part in value.split(",")]
    return tuple(value) if isinstance(value, list) else value


def _weight(name: object, weight: object) -> tuple[str, object]:
    """Return the name and the weight of a class. YAML reads `{a:1}`, without a space, as the name `a:1` without a weight."""
    if isinstance(name, str) and weight is None and ":" in name:
        name, _, weight = name.rpartition(":")
    return str(name).lower() if isinstance(name, bool) else str(name), _number(weight)


def _text(value: object) -> object:
    """Read a label or class name that looks like a number."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _words(value: object) -> object:
    """Split `title,body` into a tuple of names. A list becomes a tuple, a number a name."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list):
        return tuple(map(_text, value))
    name = _text(value)
    return (name,) if isinstance(name, str) else value


def _delimiter(value: str) -> str:
    """Check that a delimiter is one character or the name of one."""
    if len(value) != 1 and value not in DELIMITER_NAMES:
        raise ValueError(f"a delimiter is one character, or one of {', '.join(DELIMITER_NAMES)}")
    if value in ('"', "\n", "\r"):
        raise ValueError("a quote or a line break cannot divide columns")
    return value


def _column(value: object) -> object:
    """Read the name of a column: any text, also one that YAML reads as a number, a date or a truth value."""
    return str(value) if isinstance(value, (int, float, datetime.date)) and not isinstance(value, bool) else value


def _scores(value: object) -> object:
    """Read the names of scores. A text may be one name, or several with commas between them: the classes decide."""
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, str) else value


def _columns(value: object) -> object:
    """Read the names of columns. A text may be one name, or several with commas between them: the file decides."""
    return tuple(map(_column, value)) if isinstance(value, list) else (_column(value),)


def _layers(value: object) -> object:
    """Keep `9-11`, `9,10,11`, `9` or a list as text, because the encoder knows its number of layers; `all` is None."""
    if value == "all":
        return None
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
PositiveReal = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words, json_schema_input_type=list[str] | str)]
Columns = Annotated[tuple[str, ...], BeforeValidator(_columns, json_schema_input_type=list[str] | str)]
Scores = Annotated[tuple[str, ...], BeforeValidator(_scores, json_schema_input_type=list[str] | str)]
Column = Annotated[str, BeforeValidator(_column, json_schema_input_type=str | int)]
Layers = Annotated[str | None, BeforeValidator(_layers, json_schema_input_type=str | int | list[int] | None)]
Positive = Annotated[int, Field(gt=0)]
TorchOptimizer = Literal["adamw", "adam", "nadam", "radam", "adamax", "rmsprop", "adagrad", "sgd", "adafactor"]
Optimizer8bit = Literal["adamw_8bit", "paged_adamw_8bit", "lion_8bit"]
Portion = Annotated[Annotated[float, Field(ge=0, allow_inf_nan=False)] | str, BeforeValidator(_number)]


def type_parts(annotation: Any) -> list[Any]:
    """Return a type and its parts: for `int | None` itself, int and None."""
    return [annotation, *(part for argument in get_args(annotation) for part in type_parts(argument))]


class SettingsSection(BaseModel):
    """Settings that cannot change. Unknown names and values of another type are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _read_none(cls, values: Any) -> Any:
        """Read `none` as no value: None where a setting may be None, an empty tuple where it is a list of words."""
        if not isinstance(values, Mapping):
            return values
        return {name: cls._value(name, value) for name, value in values.items()}

    @classmethod
    def _value(cls, name: str, value: Any) -> Any:
        is_none = value is None or (isinstance(value, str) and is_none_word(name, value))
        if name not in cls.model_fields or not is_none:
            return value
        annotation = cls.model_fields[name].annotation
        parts = type_parts(annotation)
        if type(None) in parts:
            return None
        return "none" if "none" in parts else () if get_origin(annotation) is tuple else value


class DataConfig(SettingsSection):
    """The texts: their source, cleaning, splits and augmentation."""

    source: str = Field("sample", description="sample, ag_news, or the path of a file or folder")
    text: Columns | None = Field(None, description="text column or columns, joined by a space; default: detected")
    label: Column | None = Field(None, description="label column; default: detected")
    id: Column | None = Field(None, description="column of row ids; default: id or the like, if the file has one")
    delimiter: Annotated[str, AfterValidator(_delimiter)] | None = Field(
        None, description="character between columns, or tab; default: detected"
    )
    header: bool | None = Field(None, description="whether the first line names the columns; default: detected")
    quotes: bool | None = Field(None, description="whether double quotes enclose fields; default: detected")
    encoding: str | None = Field(None, description="encoding of text files, such as utf-8 or cp1252; default: detected")
    group: Column | None = Field(None, description="column of groups, such as authors: rows of one group stay in one split")
    time: Column | None = Field(None, description="column of times: the latest rows are the test, those before them validation")
    weight: Column | None = Field(None, description="column of row weights: how much each training row counts in the loss")
    strict: bool = Field(False, description="refuse rows without a label instead of leaving them out")
    classes: Words = Field((), description="class names in order, for files that number their labels")
    test: Portion | None = Field(
        None, description="test file, or fraction or number of rows held out, 0: none; default: the source's test rows, else 0.2"
    )
    validation: Portion | None = Field(
        None,
        description="validation file, or fraction or number of training rows held out, 0: none; default: the source's validation "
        "rows, else 0.1",
    )
    split_seed: int = Field(0, description="seed of the splits, independent of `seed`: runs with other seeds share their test rows")
    sample_seed: int | None = Field(
        None, description="seed of the rows that max_train_samples and shots_per_class sample; default: split_seed"
    )
    max_train_samples: Positive | None = Field(None, description="train on this many rows, classes in proportion")
    max_test_samples: Positive | None = Field(None, description="test on this many rows, classes in proportion")
    shots_per_class: Positive | None = Field(None, description="train on this many rows per class")
    train_indices: str | None = Field(None, description="file with the training row numbers to use, from 0, one per line")
    clean: Words = Field(
        ("escapes", "html", "urls", "whitespace"), description="cleaning steps in order: escapes, html, urls, whitespace; none: off"
    )
    descriptions: Annotated[Mapping[str, Words], Field(min_length=2)] | None = Field(
        None,
        description="{class: [phrase, ...]}, for train.head_init=descriptions and model.head=prompt; default: the class names",
    )
    template: str = Field(
        "{}",
        pattern=r"\{\}",
        description="sentence around a class description, such as 'News about {}.'; with model.head=prompt {} is the mask, and the "
        "text comes first or replaces {text}",
        json_schema_extra={"form": "text with {}"},
    )
    max_length: int = Field(128, ge=8, description="tokens kept per text, special tokens included; at most the encoder's positions")
    augment: Words = Field(
        (), description="data augmentation techniques, applied in turn: synonym, insertion, deletion, swap, back_translation"
    )
    augment_ratio: Real = Field(0.25, ge=0, description="augmented rows per training row; 0: none")
    augment_strength: Real = Field(0.1, gt=0, le=1, description="fraction of a text's words that augmentation changes")
    back_translation: Words = Field(
        (), description="two Marian checkpoints, forward and back; default: Helsinki-NLP/opus-mt-en-fr and opus-mt-fr-en"
    )


class ModelConfig(SettingsSection):
    """The encoder and its classification head."""

    base: str = Field("minilm", description="encoder: minilm, a hub id such as roberta-base, or a folder with a checkpoint")
    revision: str | None = Field(None, description="branch, tag or commit of a base on the hub; default: main")
    pooling: Literal["auto", "cls", "mean"] = Field("auto", description="auto: mean for minilm, else cls")
    head: Literal["auto", "default", "linear", "prompt"] = Field(
        "auto",
        description="default: the architecture's head; prompt: the masked-language head over the classes' words, see data.template;"
        " auto: linear for minilm, else default",
    )
    dropout: Real = Field(0.1, ge=0, lt=1, description="dropout inside the head")
    freeze: Layers = Field(None, description="parts not trained with tuning=full, such as embeddings or embeddings,0-2")
    quantize: Literal["none", "8bit"] = Field("none", description="8bit: frozen weights in 8 bits (bitsandbytes, CUDA only)")


class LoraConfig(SettingsSection):
    """Low-rank adapters (Hu et al. 2021), for tuning=lora."""

    rank: Positive = Field(8, description="rank of each adapter (r)")
    alpha: Real = Field(16.0, gt=0, description="scaling: alpha / rank, or alpha / sqrt(rank) with variant rslora")
    dropout: Real = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    targets: Words = Field(
        ("query", "value"), min_length=1, description="adapted matrices: query, key, value, output, ffn_in, ffn_out, or all"
    )
    layers: Layers = Field(None, description="adapted layers from 0: 9-11, 0,5,9-11, or top3; default: all")
    variant: Literal["lora", "rslora", "loraplus", "pissa", "dora", "adalora", "vera", "ia3"] = Field(
        "lora", description="dora, adalora, vera and ia3 run through peft, which is slower"
    )
    loraplus_lr_ratio: Real = Field(16.0, ge=1, description="learning rate of B over that of A, with variant loraplus")
    max_trainable: Positive | None = Field(None, description="budget: do not train more parameters than this")


class TrainConfig(SettingsSection):
    """Optimization, evaluation and hardware."""

    epochs: Real = Field(3.0, ge=0, description="passes over the training rows, may be fractional; 0: no training")
    max_steps: Positive | None = Field(None, description="stop after this many optimizer steps, even if epochs are left")
    batch_size: Positive = Field(16, description="examples per optimizer step, over all micro-batches and processes")
    max_tokens_per_microbatch: Positive = Field(
        8192, description="padded tokens per micro-batch: less memory if lower; gradients accumulate over the batch"
    )
    learning_rate: Real = Field(1e-3, gt=0, description="peak learning rate")
    head_learning_rate: PositiveReal | None = Field(None, description="peak learning rate of the head; default: learning_rate")
    head_init: Literal["random", "probe", "descriptions", "probe+descriptions"] = Field(
        "random",
        description="initial head. probe: logistic regression on the training rows; descriptions: embeddings of data.descriptions"
        " or the class names; probe+descriptions: the regression, regularized towards the descriptions",
    )
    optimizer: Literal[TorchOptimizer, Optimizer8bit] = Field(
        "adamw", description="optimizer of torch; sgd with momentum 0.9; *_8bit: bitsandbytes (CUDA only)"
    )
    weight_decay: Real = Field(0.01, ge=0, description="weight decay, not applied to biases and norms")
    max_grad_norm: Real = Field(1.0, gt=0, description="clip the gradient to this norm")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="learning rate after the warm-up")
    warmup: Real = Field(0.06, ge=0, description="warm-up: a fraction of all steps if below 1, else a number of steps")
    class_weights: Annotated[Literal["balanced"] | Mapping[str, Real] | tuple[Real, ...] | None, BeforeValidator(_numbers)] = Field(
        None,
        description="weights of the loss, a list in class order; balanced: inverse to the class sizes",
        json_schema_extra={"form": "balanced, list or {class: number}"},
    )
    label_smoothing: Real = Field(0.0, ge=0, lt=1, description="probability moved from the true class to all classes")
    focal_gamma: Real = Field(0.0, ge=0, description="exponent of the focal loss; 0: cross-entropy")
    eval_steps: Positive | None = Field(None, description="evaluate every this many optimizer steps; default: every epoch")
    monitor: str = Field(
        "loss",
        description="validation score that selects the best weights: loss, accuracy, macro_f1, f1:CLASS, balance, ...",
    )
    track: Scores = Field(
        (), description="further scores to show at each evaluation and on the test rows, such as f1:CLASS,balance,macro_f1"
    )
    patience: Positive | None = Field(
        None, description="early stopping after this many evaluations without improvement; default: off"
    )
    min_delta: Real = Field(0.0, ge=0, description="minimum improvement of the monitored score")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="auto: a CUDA GPU if there is one, else the CPU",
        json_schema_extra={"form": "auto, cpu, cuda, cuda:N or mps"},
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 if the device computes it fast, else fp16 on GPUs with tensor cores, else fp32"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass: less memory, slower")
    feature_cache: Literal["auto", "memory", "disk", "off"] = Field(
        "auto",
        description="cache the hidden states below the lowest trained layer; auto: on disk, for later runs too, if they fit",
    )
    feature_cache_gb: Real = Field(8.0, gt=0, description="size limit of the feature cache in GB")
    threads: Positive | None = Field(
        None, description="CPU threads per process; default: the physical cores, divided among the processes of the host"
    )
