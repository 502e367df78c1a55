"""Any encoder that Transformers can classify with, and any method of peft's, behind the interface of the native network.

Slower than `model.network` and without its shortcuts. Transformers and peft are imported when such a network is built. Dropouts are
replaced by our seeded ones: those inside the encoder are off, as in the native network, those of the head and the adapters act.
No code from a checkpoint is ever run, and weights are read from safetensors alone.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from loralab.errors import LoralabError, need
from loralab.model.architectures import PEFT_VARIANTS, Dimensions, HeadKind, Pooling, Sizes, to_config
from loralab.model.checkpoints import BaseCheckpoint, base_settings, check_minilm, choose_head, choose_pooling, read_json
from loralab.model.dropout import Dropout, recomputed
from loralab.model.encoder import Head
from loralab.model.hf.peft_methods import Allocation, choose_maps, in_layers, method_config
from loralab.model.parameter_counts import Counts

if TYPE_CHECKING:
    from loralab.model.build import Lora


class HFClassifier(nn.Module):
    """A Transformers encoder, adapted or not, with the architecture's own head or a linear one.

    The head's parameters are named `head.…`, here as in `Network`. `allocation` is AdaLoRA's part in training, else None.
    """

    def __init__(
        self, model: Any, dims: Dimensions | Sizes, classes: int, *, pooling: Pooling, head: HeadKind, dropout: float
    ) -> None:
        super().__init__()
        self.dims, self.classes, self.pooling, self.head_kind = dims, classes, pooling, head
        self.compute_dtype = torch.float32
        self.allocation: Allocation | None = None
        self.maps: list[str] = []
        prefix = str(model.base_model_prefix) if head == "default" else ""
        self.encoder: Any = getattr(model, prefix) if prefix else model
        _replace_dropouts(self.encoder, 0.0)
        _replace_dropouts(model, dropout)
        self.head: nn.Module  # registered before the model, so that its parameters bear its name
        if head == "default":
            self.head = nn.ModuleDict({name: child for name, child in model.named_children() if name != prefix})
            for child in self.head.children():
                _compute_in_fp32(child)
        else:
            self.head = Head(dims.width, classes, None, dropout)
            nn.init.normal_(self.head.out.weight, std=0.02)
            nn.init.zeros_(self.head.out.bias)
            if getattr(model, "pooler", None) is not None:
                model.pooler = None  # it would be counted, and trained by nothing
        self.model: Any = model
        self.prefix = f"{prefix}." if prefix else ""
        self.base_parameters = _size(self.encoder)

    def adapt(self, lora: Lora, seed: int) -> None:
        """Freeze the encoder and put the adapters of `lora.variant` on it, with peft."""
        peft = need("peft", "generic")
        linear = [f"{self.prefix}{name}" for name, module in self.encoder.named_modules() if isinstance(module, nn.Linear)]
        self.maps = choose_maps(linear, self.dims, lora.targets, lora.layers)
        config = method_config(lora, self.maps, self.dims, seed)
        try:
            self.model = peft.get_peft_model(self.model, config)
        except (ValueError, TypeError) as error:
            raise LoralabError(f"lora.variant={lora.variant} does not fit {self.dims.model_type}: peft says: {error}") from error
        if lora.variant == "adalora":
            self.allocation = Allocation(self.model.base_model)
        _replace_dropouts(self.model, None)
        self.head.requires_grad_(True)

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """inputs: tokens (batch, time) int; mask: (batch, time) bool, True on real tokens → logits (batch, classes) fp32."""
        with torch.autocast(inputs.device.type, self.compute_dtype, enabled=self.compute_dtype != torch.float32):
            found = self.model(input_ids=inputs, attention_mask=mask.long())
        if self.head_kind == "default":
            logits: Tensor = found.logits
        else:
            hidden = found[0]
            weight = mask.to(hidden.dtype) / mask.sum(dim=1, keepdim=True)
            pooled = hidden[:, 0] if self.pooling == "cls" else torch.bmm(weight[:, None].to(hidden.dtype), hidden)[:, 0]
            logits = self.head(pooled.float())
        return logits.float()

    def freeze_to(self, dtype: torch.dtype) -> None:
        """Compute in `dtype` by autocast: frozen linear maps are stored in it; what is trained, norms and head stay fp32."""
        self.compute_dtype = dtype
        for module in self.encoder.modules():
            if isinstance(module, nn.Linear):
                for parameter in module.parameters(recurse=False):
                    if not parameter.requires_grad and parameter.is_floating_point():
                        parameter.data = parameter.data.to(dtype)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether activations are computed again in the backward pass (Chen et al. 2016), under the same dropout masks."""
        return bool(self.encoder.is_gradient_checkpointing)

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, wanted: bool) -> None:
        if wanted and not self.encoder.supports_gradient_checkpointing:
            raise LoralabError(f"train.gradient_checkpointing: {self.dims.model_type} does not offer it in Transformers")
        if wanted != self.gradient_checkpointing:
            self.encoder._set_gradient_checkpointing(enable=wanted, gradient_checkpointing_func=recomputed)

    def counts(self) -> Counts:
        """Count the parameters as they stand. AdaLoRA's are those it begins with; VeRA's shared matrices are drawn, not counted."""
        head, trainable = _size(self.head), sum(p.numel() for p in self.parameters() if p.requires_grad)
        return Counts(self.base_parameters, trainable - head if self.maps else 0, head, trainable)


def build_generic(
    base: BaseCheckpoint,
    classes: int,
    *,
    pooling: Pooling | Literal["auto"],
    head: HeadKind | Literal["auto"],
    dropout: float,
    tuning: str,
    lora: Lora,
    init_seed: int,
    freeze: str | None = None,
    quantize: str = "none",
) -> HFClassifier:
    """Load the encoder through Transformers, draw what is new from `init_seed`, and choose what is trained."""
    check_minilm(base)
    kind = choose_head(head, base.name)
    settings = read_json(base.folder / "config.json")
    with _seeded(init_seed), quiet():
        model = _load(base, _configuration(settings, classes, base.name), kind, quantize)
        network = HFClassifier(model, base.dims, classes, pooling=_pooling(pooling, kind, base.name), head=kind, dropout=dropout)
        _choose_trained(network, tuning, lora, init_seed, freeze)
    return network


def empty_generic(
    name: str,
    dims: Dimensions | Sizes,
    classes: int,
    *,
    pooling: Pooling | Literal["auto"],
    head: HeadKind | Literal["auto"],
    tuning: str,
    lora: Lora,
    freeze: str | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "meta",
) -> HFClassifier:
    """Build without weights, to count or to fill: `settings` is the encoder's config.json, found by `name` when not given."""
    kind = choose_head(head, name)
    found = settings or (to_config(dims) if isinstance(dims, Dimensions) else base_settings(name))
    with quiet(), torch.device(device):
        model = _automatic(kind).from_config(_configuration(found, classes, name), **_attention())
        network = HFClassifier(model, dims, classes, pooling=_pooling(pooling, kind, name), head=kind, dropout=0.0)
        _choose_trained(network, tuning, lora, 0, freeze)
    return network


def _choose_trained(network: HFClassifier, tuning: str, lora: Lora, seed: int, freeze: str | None) -> None:
    """`freeze` is for tuning=full: `embeddings`, layers such as `0-2`, or both, joined by commas."""
    if tuning == "lora":
        network.adapt(lora, seed)
    elif tuning == "head":
        network.requires_grad_(False)
        network.head.requires_grad_(True)
    elif freeze:
        parts = [part.strip() for part in freeze.split(",")]
        if layers := ",".join(part for part in parts if part != "embeddings"):
            names = [name for name, _ in network.encoder.named_parameters()]
            for name in in_layers(names, network.dims, layers, "model.freeze"):
                network.encoder.get_parameter(name).requires_grad_(False)
        if "embeddings" in parts:
            network.encoder.embeddings.requires_grad_(False)


def _pooling(pooling: Pooling | Literal["auto"], head: HeadKind, name: str) -> Pooling:
    chosen = choose_pooling(pooling, name)
    if head == "default" and chosen == "mean":
        raise LoralabError(f"{name}: the architecture's own head has its own pooling here: use model.head=linear with mean pooling")
    return chosen


def _automatic(head: HeadKind) -> Any:
    if head == "prompt":
        raise LoralabError(
            "model.head=prompt needs the native network: BERT, RoBERTa, XLM-R or DistilBERT with model.quantize=none and without "
            f"lora.variant={'|'.join(PEFT_VARIANTS)}"
        )
    transformers = need("transformers", "generic")
    return transformers.AutoModelForSequenceClassification if head == "default" else transformers.AutoModel


def _configuration(settings: Mapping[str, Any], classes: int, name: str) -> Any:
    """Transformers' configuration, with every dropout off. Raises LoralabError for an architecture it does not know."""
    transformers = need("transformers", "generic")
    kind = settings.get("model_type")
    known = transformers.models.auto.modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if kind not in known:
        raise LoralabError(
            f"{name}: architecture {kind!r} is not one that Transformers {transformers.__version__} can classify with"
        )
    try:
        named = {key: value for key, value in settings.items() if key not in ("id2label", "label2id")}
        config = transformers.AutoConfig.for_model(**{**named, "num_labels": classes})
    except Exception as error:  # several libraries check these values, each with errors of its own
        raise LoralabError(f"{name}: config.json: {error}") from error
    for key, value in vars(config).items():
        if "drop" in key and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, key, 0.0)
    if getattr(config, "use_cache", False):
        config.use_cache = False  # it is for generation
    return config


def _load(base: BaseCheckpoint, config: Any, head: HeadKind, quantize: str) -> Any:
    """Load safetensors. Raises LoralabError when one of the encoder's is missing or misshapen; a head is drawn where it is."""
    arguments: dict[str, Any] = {"quantization_config": _eight_bits(), "device_map": {"": 0}} if quantize == "8bit" else {}
    try:
        model, report = _automatic(head).from_pretrained(
            base.folder,
            config=copy.deepcopy(config),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
            **_attention(),
            **arguments,
        )
    except Exception as error:  # Transformers, safetensors and the hub's client each raise their own
        raise LoralabError(f"{base.name}: Transformers cannot load this checkpoint: {error}") from error
    prefix = f"{model.base_model_prefix}." if head == "default" else ""
    missing = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    lost = sorted(key for key in missing if key.startswith(prefix) and not (head == "linear" and key.startswith("pooler.")))
    if lost:
        hint = ": use model.head=linear" if ".pooler." in lost[0] else "; is the file complete?"
        raise LoralabError(f"{base.name}: the checkpoint has no tensor {lost[0]!r} of the shape its config.json says{hint}")
    return model


def _attention() -> dict[str, str]:
    """At news length the CPU's flash kernel is slower than plain products (docs/log.md)."""
    return {} if torch.cuda.is_available() else {"attn_implementation": "eager"}


def _eight_bits() -> Any:
    if not torch.cuda.is_available():
        raise LoralabError("model.quantize=8bit needs a CUDA device, and there is none here: use model.quantize=none")
    need("bitsandbytes", "8bit")
    return need("transformers", "generic").BitsAndBytesConfig(load_in_8bit=True)


def _replace_dropouts(module: nn.Module, p: float | None) -> None:
    """Put our seeded dropout in the place of every one of torch's, with probability `p`, or None: its own."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(parent, name, Dropout(child.p if p is None else p))


def _compute_in_fp32(module: nn.Module) -> None:
    """Let a part of the head compute in fp32 whatever the encoder computes in."""
    forward = module.forward

    def run(hidden: Tensor, *others: Any, **named: Any) -> Any:
        with torch.autocast(hidden.device.type, enabled=False):
            return forward(hidden.float(), *others, **named)

    module.forward = run


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Transformers and peft draw from torch's global stream: give them one of their own, and leave the global one as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Transformers' reports and progress bars off the terminal; what matters in them is checked and raised."""
    logging = need("transformers", "generic").utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
