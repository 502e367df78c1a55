"""Every setting of a run by section: its name, type, limits, default and meaning; read leniently, held strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


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
    """`9-11`, `9,10,11`, `9` or a list: kept as text, because the number of layers is the encoder's to know; `all` is None."""
    if value == "all":
        return None
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _off(value: object) -> object:
    """YAML 1.1 reads `off` as false; the word is meant."""
    return "off" if value is False else value


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


class SettingsSection(BaseModel):
    """Settings that cannot change and refuse names they do not have."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class DataConfig(SettingsSection):
    """Where the texts come from, what is done to them, and how they are divided."""

    source: str = Field("sample", description="sample, ag_news, or the path of a file or folder")
    text: Words | None = Field(None, description="text column or columns, joined by a space; guessed when not given")
    label: Annotated[str | None, BeforeValidator(_text)] = Field(None, description="label column; guessed when not given")
    classes: Words = Field((), description="class names in order, for files that number their labels")
    test: Part | None = Field(None, description="test file, or the fraction or rows held out; default: the source's own, else 0.2")
    validation: Part = Field(0.1, description="validation file, or the fraction or number of training rows held out")
    split_seed: int = Field(0, description="seed of every split; apart from `seed`, so that seeds share their test rows")
    sample_seed: int | None = Field(
        None, description="seed of the rows that max_train_samples and shots_per_class draw; default: split_seed"
    )
    max_train_samples: Positive | None = Field(None, description="train on this many rows, classes in proportion")
    max_test_samples: Positive | None = Field(None, description="test on this many rows, classes in proportion")
    shots_per_class: Positive | None = Field(None, description="train on this many rows of each class")
    train_indices: str | None = Field(None, description="file of training row numbers to use, one a line, from 0")
    clean: Words = Field(("escapes", "html", "urls", "whitespace"), description="cleaning steps, in order; empty for none")
    descriptions: Annotated[Mapping[str, Words], Field(min_length=2)] | None = Field(
        None,
        description="{class: [phrase, ...]} for train.head_init=descriptions, and model.head=prompt; default: the classes' names",
    )
    template: str = Field(
        "{}",
        pattern=r"\{\}",
        description="the text that a description is set into, such as 'News about {}.'; with model.head=prompt {} is the mask, and "
        "the text comes first or in the place of {text}",
    )
    max_length: int = Field(128, ge=8, le=512, description="tokens kept of a text, special tokens included")
    augment: Words = Field((), description="more training rows: synonym, insertion, deletion, swap, back_translation, in turns")
    augment_ratio: Real = Field(0.25, ge=0, description="new rows for each training row; 0 for none")
    augment_strength: Real = Field(0.1, gt=0, le=1, description="share of a text's words changed, or of those deleted")
    back_translation: Words = Field(
        (), description="two Marian checkpoints, forward and back: folders or hub ids; default: Helsinki-NLP/opus-mt-en-fr and -fr-en"
    )


class ModelConfig(SettingsSection):
    """The encoder and what stands on top of it."""

    base: str = Field("minilm", description="minilm, a hub id such as roberta-base, or a folder with a checkpoint")
    pooling: Literal["auto", "cls", "mean"] = Field("auto", description="auto: mean for minilm, else cls")
    head: Literal["auto", "default", "linear", "prompt"] = Field(
        "auto",
        description="own: the architecture's; prompt: the masked-language head over the classes' words, see data.template; auto: "
        "linear for minilm, else own",
    )
    dropout: Real = Field(0.1, ge=0, lt=1, description="dropout inside the classification head")
    freeze: Annotated[str | None, BeforeValidator(_layers)] = Field(
        None, description="tuning=full: what is not trained, such as embeddings or embeddings,0-2"
    )
    quantize: Literal["none", "8bit"] = Field("none", description="8bit: frozen weights in 8 bits (bitsandbytes, CUDA only)")


class LoraConfig(SettingsSection):
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
    loraplus_lr_ratio: Real = Field(16.0, ge=1, description="loraplus: the learning rate of B over that of A")
    max_trainable: Positive | None = Field(None, description="refuse to train more parameters than this")


class TrainConfig(SettingsSection):
    """The optimisation, counted in examples; `max_tokens_per_microbatch` only cuts a step into passes."""

    epochs: Annotated[Real, Field(ge=0, description="may be fractional; 0 trains nothing")] = 3.0
    max_steps: Positive | None = Field(None, description="stop after this many steps, whatever epochs says")
    batch_size: Positive = Field(16, description="examples per optimiser step")
    max_tokens_per_microbatch: Positive = Field(
        8192, description="most padded tokens in one pass; changes speed, and results only by which dropout masks are drawn"
    )
    learning_rate: Real = Field(1e-3, gt=0)
    head_learning_rate: Real | None = Field(None, gt=0, description="default: learning_rate")
    head_init: Literal["random", "probe", "descriptions", "probe+descriptions"] = Field(
        "random",
        description="initial weights of the head. random; probe: logistic regression on the training rows; descriptions: embeddings of "
        "data.descriptions or the class names; probe+descriptions: the regression, regularized towards the descriptions",
    )
    optimizer: Literal[
        "adamw",
        "adam",
        "nadam",
        "radam",
        "adamax",
        "rmsprop",
        "adagrad",
        "sgd",
        "adafactor",
        "adamw_8bit",
        "paged_adamw_8bit",
        "lion_8bit",
    ] = Field("adamw", description="torch's optimizer of this name, sgd with momentum 0.9; *_8bit: bitsandbytes' (CUDA only)")
    weight_decay: Real = Field(0.01, ge=0)
    max_grad_norm: Real = Field(1.0, gt=0, description="clip the norm of the gradient to this value")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Real = Field(0.06, ge=0, description="steps, or a fraction of all steps when below 1")
    class_weights: Annotated[Literal["balanced"] | Mapping[str, Real] | tuple[Real, ...] | None, BeforeValidator(_numbers)] = Field(
        None, description="balanced, a list in class order, or {name: weight}"
    )
    label_smoothing: Real = Field(0.0, ge=0, lt=1)
    focal_gamma: Real = Field(0.0, ge=0)
    eval_steps: Positive | None = Field(None, description="evaluate every so many steps; default: every epoch")
    monitor: str = Field("loss", description="validation score that picks the best weights: loss, accuracy, macro_f1, f1:NAME, ...")
    patience: Positive | None = Field(None, description="stop after so many evaluations without a better score")
    min_delta: Real = Field(0.0, ge=0, description="how much better is better")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:N or mps; auto: a GPU if there is one"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: bf16 where the processor is fast in it")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass: less memory, more time")
    feature_cache: Annotated[Literal["auto", "memory", "disk", "off"], BeforeValidator(_off)] = Field(
        "auto",
        description="keep the hidden states below the lowest trained layer: auto: on disk where they fit, and for later runs",
    )
    feature_cache_gb: Real = Field(8.0, gt=0, description="most GB that kept hidden states may take, in memory or on disk")
    threads: Positive | None = Field(
        None, description="processor threads of one process; default: one per core, shared among a host's processes"
    )
