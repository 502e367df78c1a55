"""The BERT family in one table: the only file with Hugging Face's names of tensors and settings.

Every architecture here is the post-norm encoder of Devlin et al. (2018). They differ in names, embeddings and classification head.
To add one, add a row to `ARCHITECTURES`. Encoders outside the family run through Transformers; `FOREIGN_LAYERS` has the names of
their linear maps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, StrictInt, ValidationError
from pydantic.dataclasses import dataclass as validated

from loralab.errors import LoralabError, suggest

ROLES = ("query", "key", "value", "output", "ffn_in", "ffn_out")
"""The linear maps of a layer that LoRA can adapt, with the same names for every architecture."""

PEFT_VARIANTS = ("dora", "adalora", "vera", "ia3")
"""The values of lora.variant that need peft."""

_BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
_DISTILBERT_LAYER = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "ffn_in": "ffn.lin1",
    "ffn_out": "ffn.lin2",
    "ffn_norm": "output_layer_norm",
}


@dataclass(frozen=True)
class Architecture:
    """Names of one `model_type`. head_dense: the layer before the classifier; masked: the parts of the masked-language head.

    `masked` is empty if checkpoints have no such head. It has the head's activation if that differs from the encoder's.
    """

    prefix: str
    layers: str
    layer: Mapping[str, str]
    head_dense: str
    head_out: str
    head_activation: str
    classes: tuple[str, ...]
    masked: Mapping[str, str]
    positions_from_padding: bool = False

    @property
    def pooler_in_base(self) -> bool:
        """Whether the head's dense layer belongs to the pretrained encoder (BERT's pooler), and is loaded and frozen with it."""
        return self.head_dense.startswith(self.prefix + ".")

    @property
    def saved_head(self) -> tuple[str, ...]:
        """The top-level modules of the head, as peft's `modules_to_save` names them."""
        names = (self.head_out,) if self.pooler_in_base else (self.head_dense, self.head_out)
        return tuple(dict.fromkeys(name.split(".")[0] for name in names))


def _classes(family: str) -> tuple[str, str]:
    """Transformers' classes of the encoder and the classifier."""
    return f"{family}Model", f"{family}ForSequenceClassification"


def _masked(transform: str, norm: str, decoder: str, bias: str) -> dict[str, str]:
    return {"dense": transform, "norm": norm, "decoder": decoder, "bias": bias}


_ROBERTA_HEAD = ("classifier.dense", "classifier.out_proj", "tanh")
_ROBERTA_MASKED = {**_masked("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias"), "activation": "gelu"}
_BERT_MASKED = _masked(*(f"cls.predictions.{part}" for part in ("transform.dense", "transform.LayerNorm", "decoder", "bias")))
_DISTILBERT_MASKED = _masked("vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias")
ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": Architecture(
        "bert", "encoder.layer", _BERT_LAYER, "bert.pooler.dense", "classifier", "tanh", _classes("Bert"), _BERT_MASKED
    ),
    "roberta": Architecture("roberta", "encoder.layer", _BERT_LAYER, *_ROBERTA_HEAD, _classes("Roberta"), _ROBERTA_MASKED, True),
    "xlm-roberta": Architecture(
        "roberta", "encoder.layer", _BERT_LAYER, *_ROBERTA_HEAD, _classes("XLMRoberta"), _ROBERTA_MASKED, True
    ),
    "electra": Architecture(
        "electra", "encoder.layer", _BERT_LAYER, "classifier.dense", "classifier.out_proj", "gelu", _classes("Electra"), {}
    ),
    "distilbert": Architecture(
        "distilbert",
        "transformer.layer",
        _DISTILBERT_LAYER,
        "pre_classifier",
        "classifier",
        "relu",
        _classes("DistilBert"),
        _DISTILBERT_MASKED,
    ),
}


Size = Annotated[StrictInt, Field(gt=0, lt=1 << 31)]
Pooling = Literal["cls", "mean"] | StrictInt
"""What the head reads: the first token, the mean of all, or the token at a position (from 0, or if negative from the end)."""
HeadKind = Literal["default", "linear", "prompt"]
ModelType = Literal["bert", "roberta", "xlm-roberta", "electra", "distilbert"]
Activation = Literal["relu", "gelu", "gelu_new", "gelu_pytorch_tanh"]


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Dimensions:
    """The sizes that determine every parameter count. token_types: 0 if the encoder has no segment embedding."""

    model_type: ModelType
    layers: Size
    width: Size
    heads: Size
    ffn_width: Size
    vocabulary: Size
    positions: Size
    token_types: Annotated[StrictInt, Field(ge=0)]
    embedding_width: Size
    pad_id: Annotated[StrictInt, Field(ge=0)] = 0
    norm_eps: Annotated[float, Field(gt=0)] = 1e-12
    activation: Activation = "gelu"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads")

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.model_type]

    @property
    def first_position(self) -> int:
        """RoBERTa's positions start at the padding id plus one, the others' at zero."""
        return self.pad_id + 1 if self.architecture.positions_from_padding else 0

    @property
    def longest(self) -> int:
        """The maximum number of tokens of a text."""
        return self.positions - self.first_position

    def head_activation(self, head: HeadKind) -> str | None:
        """The activation after the head's dense layer; None if it has no such layer."""
        masked = self.architecture.masked.get("activation", self.activation)
        return {"default": self.architecture.head_activation, "prompt": masked}.get(head)

    def shape_of(self, role: str) -> tuple[int, int]:
        """Return (outputs, inputs) of a layer's linear map."""
        if role == "ffn_in":
            return self.ffn_width, self.width
        return (self.width, self.ffn_width) if role == "ffn_out" else (self.width, self.width)


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Sizes:
    """The sizes of an encoder outside the family that loralab needs. longest: maximum number of tokens of a text."""

    model_type: Annotated[str, Field(min_length=1)]
    layers: Size
    width: Size
    longest: Size
    pad_id: Annotated[StrictInt, Field(ge=0)]


_BERT_OUTPUTS = {role: _BERT_LAYER[role] for role in ROLES[3:]}
FOREIGN_LAYERS: Mapping[str, Mapping[str, str]] = {
    "deberta-v2": {
        "query": "attention.self.query_proj",
        "key": "attention.self.key_proj",
        "value": "attention.self.value_proj",
        **_BERT_OUTPUTS,
    },
    "deberta": {**dict.fromkeys(ROLES[:3], "attention.self.in_proj"), **_BERT_OUTPUTS},
    "modernbert": {**dict.fromkeys(ROLES[:3], "attn.Wqkv"), "output": "attn.Wo", "ffn_in": "mlp.Wi", "ffn_out": "mlp.Wo"},
    "albert": {
        "query": "albert_layers.0.attention.query",
        "key": "albert_layers.0.attention.key",
        "value": "albert_layers.0.attention.value",
        "output": "albert_layers.0.attention.dense",
        "ffn_in": "albert_layers.0.ffn",
        "ffn_out": "albert_layers.0.ffn_output",
    },
    "mpnet": {role: f"attention.attn.{role[0]}" if role in ROLES[:4] else _BERT_LAYER[role] for role in ROLES},
    "camembert": {role: _BERT_LAYER[role] for role in ROLES},
}
"""Path of each role below a layer, for encoders outside the family. Roles with the same path are computed by one map."""

_FOREIGN_KEYS = {
    "layers": ("num_hidden_layers", "n_layers", "num_layers"),
    "width": ("hidden_size", "dim", "d_model"),
    "longest": ("max_position_embeddings",),
    "pad_id": ("pad_token_id",),
}
_ENCODER_DECODERS = ("t5", "mt5", "umt5", "longt5", "switch_transformers", "bart", "mbart", "led", "plbart", "mvp", "blenderbot")
_DECODERS = ("gpt2", "gpt_neo", "gpt_neox", "gptj", "bloom", "falcon", "mpt", "llama", "mistral", "gemma", "phi", "opt")
_POSITIONS_FROM_PADDING = ("camembert", "mpnet", "longformer", "xlm-roberta-xl", "roberta-prelayernorm", "data2vec-text", "xmod")

_CONFIG_KEYS = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "ffn_width": "intermediate_size",
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
    "embedding_width": "embedding_size",
    "pad_id": "pad_token_id",
    "norm_eps": "layer_norm_eps",
    "activation": "hidden_act",
}
_DISTILBERT_KEYS = {
    "layers": "n_layers",
    "width": "dim",
    "heads": "n_heads",
    "ffn_width": "hidden_dim",
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
    "pad_id": "pad_token_id",
    "activation": "activation",
}


def read_dimensions(config: Mapping[str, Any], origin: str) -> Dimensions | Sizes:
    """Read a Hugging Face `config.json`: `Dimensions` for the family, `Sizes` for another encoder.

    Raises LoralabError if one is missing or not supported.
    """
    kind: Any = config.get("model_type")
    if kind not in ARCHITECTURES:
        return _read_sizes(config, kind, origin)
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise LoralabError(f"{origin}: only absolute position embeddings are supported, not {config['position_embedding_type']!r}")
    keys = _DISTILBERT_KEYS if kind == "distilbert" else _CONFIG_KEYS
    sizes = {name: config[key] for name, key in keys.items() if config.get(key) is not None}
    sizes.setdefault("token_types", 0 if kind == "distilbert" else 2)
    sizes.setdefault("pad_id", 1 if ARCHITECTURES[kind].positions_from_padding else 0)
    if "width" in sizes:
        sizes.setdefault("embedding_width", sizes["width"])
    try:
        return Dimensions(model_type=kind, **sizes)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]) if problem["loc"] else ""
        key = keys.get(name, name)
        if problem["type"] == "missing":
            raise LoralabError(f"{origin}: config.json has no {key!r}; is the checkpoint complete?") from error
        if name == "activation":
            valid = ", ".join(get_args(Activation))
            raise LoralabError(f"{origin}: activation {problem['input']!r} is not supported; supported: {valid}") from error
        raise LoralabError(f"{origin}: config.json: {key or 'its sizes'}: {problem['msg']}") from error


def _read_sizes(config: Mapping[str, Any], kind: Any, origin: str) -> Sizes:
    if config.get("is_encoder_decoder") or kind in _ENCODER_DECODERS:
        raise LoralabError(
            f"{origin}: {kind!r} is an encoder-decoder, and loralab trains encoders: use model.base=minilm, roberta-base, "
            "microsoft/deberta-v3-small or another encoder"
        )
    sizes: dict[str, Any] = {
        name: next((config[key] for key in keys if config.get(key) is not None), None) for name, keys in _FOREIGN_KEYS.items()
    }
    try:
        if kind in _POSITIONS_FROM_PADDING:
            sizes["longest"] -= sizes["pad_id"] + 1
        return Sizes(model_type=kind, **sizes)
    except (ValidationError, TypeError) as error:
        missing = [_FOREIGN_KEYS[name][0] for name, value in sizes.items() if value is None]
        if kind in _DECODERS:
            raise LoralabError(
                f"{origin}: {kind!r} is a decoder, whose tokens see only those before them, and loralab trains encoders: use "
                "model.base=minilm, roberta-base, microsoft/deberta-v3-small or another encoder"
            ) from error
        problem = f" and its config.json has no {missing[0]!r}" if missing else ""
        raise LoralabError(
            f"{origin}: architecture {kind!r} is not one of {', '.join(ARCHITECTURES)}{problem}; "
            f"other architectures need an encoder that Transformers can classify with"
        ) from error


def family(dims: Dimensions | Sizes, origin: str) -> Dimensions:
    """Return the sizes if they are of the BERT family. Raises LoralabError for other encoders."""
    if isinstance(dims, Dimensions):
        return dims
    raise LoralabError(f"{origin}: architecture {dims.model_type!r} is not supported here; supported: {', '.join(ARCHITECTURES)}")


def is_native(dims: Dimensions | Sizes, *, tuning: str, variant: str, quantize: str) -> bool:
    """Whether the native `EncoderClassifier` supports the settings. Otherwise Transformers and peft do (`model.hf`)."""
    return isinstance(dims, Dimensions) and quantize == "none" and (tuning != "lora" or variant not in PEFT_VARIANTS)


def to_config(dims: Dimensions) -> dict[str, Any]:
    """Return `config.json` with the sizes of an encoder of the family."""
    keys = _DISTILBERT_KEYS if dims.model_type == "distilbert" else _CONFIG_KEYS
    return {"model_type": dims.model_type, **{key: getattr(dims, name) for name, key in keys.items()}}


def layer_paths(model_type: str) -> Mapping[str, str]:
    """Return the path of each role below a layer; empty for an encoder that is not in the tables."""
    if model_type in ARCHITECTURES:
        return {role: ARCHITECTURES[model_type].layer[role] for role in ROLES}
    return FOREIGN_LAYERS.get(model_type, {})


KNOWN: Mapping[str, Dimensions] = {
    "roberta-base": Dimensions("roberta", 12, 768, 12, 3072, 50265, 514, 1, 768, 1, 1e-5),
    "roberta-large": Dimensions("roberta", 24, 1024, 16, 4096, 50265, 514, 1, 1024, 1, 1e-5),
    "xlm-roberta-base": Dimensions("xlm-roberta", 12, 768, 12, 3072, 250002, 514, 1, 768, 1, 1e-5),
    "bert-base-uncased": Dimensions("bert", 12, 768, 12, 3072, 30522, 512, 2, 768),
    "bert-base-cased": Dimensions("bert", 12, 768, 12, 3072, 28996, 512, 2, 768),
    "distilbert-base-uncased": Dimensions("distilbert", 6, 768, 12, 3072, 30522, 512, 0, 768),
    "google/electra-small-discriminator": Dimensions("electra", 12, 256, 4, 1024, 30522, 512, 2, 128),
    "google/electra-base-discriminator": Dimensions("electra", 12, 768, 12, 3072, 30522, 512, 2, 768),
}
"""Published sizes of popular hub encoders, so that counts and budgets need no download."""


EMBEDDINGS = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "project": "embeddings_project",
}
"""Names of the embedding's parts, the same in all of the family."""


def resolve_targets(targets: Sequence[str]) -> tuple[str, ...]:
    """Return roles in their fixed order; `all` is every role. Raises LoralabError for an unknown name."""
    chosen = set(ROLES) if "all" in targets else set(targets)
    unknown = sorted((chosen | set(targets)) - {*ROLES, "all"})
    if unknown or not chosen:
        word = unknown[0] if unknown else ""
        raise LoralabError(f"lora.targets: {word!r} is not a target{suggest(word, ROLES)}; valid: {', '.join(ROLES)}, all")
    return tuple(role for role in ROLES if role in chosen)


def parse_layers(spec: str | None, layers: int, setting: str = "lora.layers") -> tuple[int, ...]:
    """Read `9-11`, `0,5,9-11`, `top3` or None (all) as layer numbers from 0. Raises LoralabError for a missing layer."""
    if spec is None:
        return tuple(range(layers))
    chosen: set[int] = set()
    for part in spec.split(","):
        if top := re.fullmatch(r"\s*top(\d{1,4})\s*", part):
            if not 0 < int(top[1]) <= layers:
                raise LoralabError(f"{setting}: {part.strip()} of an encoder of {layers} layers; valid: top1 to top{layers}")
            chosen.update(range(layers - int(top[1]), layers))
            continue
        match = re.fullmatch(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?", part)
        if match is None:
            raise LoralabError(f"{setting}: {part!r} is neither a layer nor a range; write 9-11, 0,5,9-11 or top3")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last >= layers:
            raise LoralabError(f"{setting}: {part.strip()} is outside this encoder's layers 0-{layers - 1}")
        chosen.update(range(first, last + 1))
    return tuple(sorted(chosen))


def parse_frozen(spec: str | None, layers: int) -> tuple[bool, tuple[int, ...]]:
    """Read model.freeze, such as `embeddings,0-2`: whether the embeddings are frozen, and which layers."""
    if spec is None:
        return False, ()
    parts = [part.strip() for part in spec.split(",")]
    numbers = ",".join(part for part in parts if part != "embeddings")
    return "embeddings" in parts, parse_layers(numbers, layers, "model.freeze") if numbers else ()


def role_path(dims: Dimensions, layer: int, role: str) -> str:
    """Return the module path of a linear map inside the encoder, such as `encoder.layer.3.attention.self.query`."""
    return f"{dims.architecture.layers}.{layer}.{dims.architecture.layer[role]}"


def parse_role_path(dims: Dimensions, path: str) -> tuple[int, str] | None:
    """Return (layer, role) of a module path, with or without prefixes before it; None when it is not a layer's map."""
    match = re.fullmatch(rf"(?:.*\.)?{re.escape(dims.architecture.layers)}\.(\d+)\.(.+)", path)
    roles = {name: role for role, name in dims.architecture.layer.items() if role in ROLES}
    return (int(match[1]), roles[match[2]]) if match and match[2] in roles else None


def canonical_name(dims: Dimensions, name: str) -> str:
    """Return a checkpoint's tensor name without the encoder's prefix and with today's norm names (`gamma` is `weight`)."""
    name = name.removeprefix(dims.architecture.prefix + ".")
    if name.endswith(".gamma"):
        return name.removesuffix("gamma") + "weight"
    return name.removesuffix("beta") + "bias" if name.endswith(".beta") else name
