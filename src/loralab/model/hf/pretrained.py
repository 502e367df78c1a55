"""Build `HFClassifier` from a checkpoint through Transformers, or without weights from its sizes."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from loralab.config import LoraConfig, ModelConfig
from loralab.errors import LoralabError, import_optional
from loralab.model.architectures import PEFT_VARIANTS, Dimensions, HeadKind, Pooling, Sizes, read_dimensions, to_config
from loralab.model.checkpoints import (
    BASE_CONFIG,
    BaseCheckpoint,
    base_settings,
    check_minilm,
    choose_head,
    choose_pooling,
    read_json,
)
from loralab.model.hf.model import HFClassifier
from loralab.model.hf.peft_methods import in_layers
from loralab.model.tensor_files import check_parameters, tensor_names


def build_hf_model(
    base: BaseCheckpoint, classes: int, model: ModelConfig, *, tuning: str, lora: LoraConfig, init_seed: int
) -> HFClassifier:
    """Load the encoder through Transformers, draw new weights from `init_seed`, and choose what is trained."""
    check_minilm(base)
    head = choose_head(model.head, base.name)
    settings = read_json(base.folder / BASE_CONFIG)
    check_settings(settings, classes, head, base.shards(), base.name)
    with _seeded(init_seed), quiet():
        wrapped, _ = load_pretrained_model(base, configuration(settings, classes, base.name), head, model.quantize)
        pooling = _pooling(model.pooling, head, base.name)
        classifier = HFClassifier(wrapped, base.dims, classes, pooling=pooling, head=head, dropout=model.dropout)
        _choose_trained(classifier, tuning, lora, init_seed, model.freeze)
    return classifier


def check_settings(settings: Mapping[str, Any], classes: int, head: HeadKind, files: Sequence[Path], origin: str) -> None:
    """Raise LoralabError if a config.json asks for more layers or parameters than the files of weights can have."""
    layers, tensors = read_dimensions(settings, origin).layers, sum(len(tensor_names(path)) for path in files)
    if layers > 4 * tensors:  # ALBERT's layers share tensors
        raise LoralabError(
            f"{origin}: {BASE_CONFIG} asks for {layers:,} layers, but its weights have {tensors:,} tensors: it is damaged"
        )
    with quiet(), torch.device("meta"):
        model = _auto_class(head).from_config(configuration(settings, classes, origin), **_attention())
    check_parameters(sum(parameter.numel() for parameter in model.parameters()), files, origin)


def empty_hf_model(
    name: str,
    dims: Dimensions | Sizes,
    classes: int,
    model: ModelConfig,
    *,
    tuning: str,
    lora: LoraConfig,
    settings: Mapping[str, Any] | None = None,
) -> HFClassifier:
    """Build a model without weights: on the meta device to count, or on the CPU to load with the `settings` of a config.json.

    Without `settings` they are those of the base called `name`.
    """
    head = choose_head(model.head, name)
    device = "cpu" if settings else "meta"
    settings = settings or (to_config(dims) if isinstance(dims, Dimensions) else base_settings(name, model.revision))
    with quiet(), torch.device(device):
        wrapped = _auto_class(head).from_config(configuration(settings, classes, name), **_attention())
        classifier = HFClassifier(wrapped, dims, classes, pooling=_pooling(model.pooling, head, name), head=head, dropout=0.0)
        _choose_trained(classifier, tuning, lora, 0, model.freeze)
    return classifier


def _choose_trained(model: HFClassifier, tuning: str, lora: LoraConfig, seed: int, freeze: str | None) -> None:
    """`freeze` is for tuning=full: `embeddings`, layers such as `0-2`, or both, joined by commas."""
    if tuning == "lora":
        model.attach_lora(lora, seed)
    elif tuning == "head":
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    elif freeze:
        parts = [part.strip() for part in freeze.split(",")]
        if layers := ",".join(part for part in parts if part != "embeddings"):
            names = [name for name, _ in model.encoder.named_parameters()]
            for name in in_layers(names, model.dims, layers, "model.freeze"):
                model.encoder.get_parameter(name).requires_grad_(False)
        if "embeddings" in parts:
            model.encoder.embeddings.requires_grad_(False)


def _pooling(pooling: Pooling | Literal["auto"], head: HeadKind, name: str) -> Pooling:
    chosen = choose_pooling(pooling, name)
    if head == "default" and chosen == "mean":
        raise LoralabError(f"{name}: the default head has its own pooling: use model.head=linear with mean pooling")
    return chosen


def _auto_class(head: HeadKind) -> Any:
    if head == "prompt":
        raise LoralabError(
            "model.head=prompt needs the native model: BERT, RoBERTa, XLM-R or DistilBERT, model.quantize=none and without "
            f"lora.variant={'|'.join(PEFT_VARIANTS)}"
        )
    transformers = import_optional("transformers", "hf")
    return transformers.AutoModelForSequenceClassification if head == "default" else transformers.AutoModel


def configuration(settings: Mapping[str, Any], classes: int, name: str) -> Any:
    """Transformers' configuration with every dropout off. Raises LoralabError for an unknown architecture or bad values."""
    transformers = import_optional("transformers", "hf")
    model_type = settings.get("model_type")
    if model_type not in transformers.models.auto.modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise LoralabError(f"{name}: Transformers {transformers.__version__} cannot classify with architecture {model_type!r}")
    try:
        kept = {key: value for key, value in settings.items() if key not in ("id2label", "label2id")}
        config = transformers.AutoConfig.for_model(**{**kept, "num_labels": classes})
    except Exception as error:  # several libraries check these values, each with its own errors
        raise LoralabError(f"{name}: config.json: {error}") from error
    for key, value in vars(config).items():
        if "drop" in key and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, key, 0.0)
    if getattr(config, "use_cache", False):
        config.use_cache = False  # only generation uses it
    return config


def load_pretrained_model(
    base: BaseCheckpoint, config: Any, head: HeadKind = "default", quantize: str = "none"
) -> tuple[Any, list[str]]:
    """Load safetensors. Returns the model and the names of the head's tensors that are not in the file and were drawn.

    Raises LoralabError if an encoder tensor is missing or misshapen.
    """
    arguments: dict[str, Any] = {"quantization_config": _eight_bits(), "device_map": {"": 0}} if quantize == "8bit" else {}
    try:
        model, report = _auto_class(head).from_pretrained(
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
    except Exception as error:  # Transformers, safetensors and the hub's client raise different errors
        raise LoralabError(f"{base.name}: Transformers cannot load this checkpoint: {error}") from error
    prefix = f"{model.base_model_prefix}." if head == "default" else ""
    absent = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    needed = sorted(key for key in absent if key.startswith(prefix) and not (head == "linear" and key.startswith("pooler.")))
    if needed:
        hint = ": use model.head=linear" if ".pooler." in needed[0] else "; is the file complete?"
        raise LoralabError(f"{base.name}: the checkpoint has no tensor {needed[0]!r} of the shape that config.json implies{hint}")
    return model, absent


def _attention() -> dict[str, str]:
    """At news length the CPU's flash kernel is slower than plain products (docs/lab)."""
    return {} if torch.cuda.is_available() else {"attn_implementation": "eager"}


def _eight_bits() -> Any:
    if not torch.cuda.is_available():
        raise LoralabError("model.quantize=8bit needs a CUDA device, and there is none: use model.quantize=none")
    import_optional("bitsandbytes", "8bit")
    return import_optional("transformers", "hf").BitsAndBytesConfig(load_in_8bit=True)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, which Transformers and peft use, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide Transformers' reports and progress bars. The caller checks what matters in them."""
    logging = import_optional("transformers", "hf").utils.logging
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
