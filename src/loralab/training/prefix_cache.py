"""The hidden states below the lowest trained layer, computed once and kept: in memory, or in a file for later runs too.

Everything below that layer is frozen and has no dropout, so its output for a text never changes: training above it is the same
with and without the cache, and each epoch saves those layers' forward pass.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from loralab.data.batches import collate, make_microbatches
from loralab.data.types import Encoded, Hidden, Ints
from loralab.errors import LoralabError, RunFailed
from loralab.training import parallel
from loralab.training.callbacks import CacheProgress, Listener
from loralab.training.scoring import pass_size

FORMAT = 1
SUFFIX = ".hidden.npy"
_STORED = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.uint16}


@dataclass(frozen=True)
class PrefixCache:
    """What is kept, and where: `place` is memory, disk or off, for the `reason` given.

    The hidden states enter layer `start`; `size` is their bytes, of which `found` lie on the disk from earlier runs.
    `identity` names base, device and precision; `limit`: most bytes that all files in `folder` may take.
    """

    place: str
    reason: str
    start: int = 0
    size: int = 0
    found: int = 0
    folder: Path = Path()
    identity: str = ""
    limit: float = 0.0

    def keep(self, network: Any, part: Encoded, listeners: Sequence[Listener] = ()) -> Encoded:
        """Return `part` with its hidden states: an earlier run's, or computed now at the speed of inference."""
        if self.place == "off":
            return part
        shape, dtype = (len(part.tokens), network.dims.width), _STORED[network.compute_dtype]

        def compute(target: Hidden) -> None:
            _fill(target, network, part, self.start, listeners)

        if self.place == "memory":
            hidden: Hidden = np.empty(shape, dtype=dtype)
            compute(hidden)
        else:
            path = _path(self.folder, network, self.start, part, self.identity)
            hidden = _find_or_make(path, shape, dtype, compute, self.limit)
        return replace(part, hidden=hidden, start=self.start)


def plan(
    network: Any, parts: Sequence[Encoded], *, setting: str, limit: float, epochs: float, folder: Path, identity: str
) -> PrefixCache:
    """Decide whether and where to keep the hidden states of these parts.

    `setting` is auto, memory, disk or off; `limit` is in bytes. Off, and why, when nothing below is frozen or nothing is trained,
    and with auto when they would not fit. Raises LoralabError when a place that was asked for is too small.
    """
    if not hasattr(network, "first_trained"):
        return PrefixCache("off", "this encoder runs through Transformers, which starts at the first layer")
    start = network.first_trained()
    if setting == "off" or not start or epochs == 0:
        reason = "no layer below the lowest trained one is frozen" if not start else "nothing is trained"
        return PrefixCache("off", "train.feature_cache=off" if setting == "off" else reason)
    itemsize = np.dtype(_STORED[network.compute_dtype]).itemsize
    sizes = {
        _path(folder, network, start, part, identity): len(part.tokens) * network.dims.width * itemsize
        for part in parts
        if len(part)
    }
    size, found = sum(sizes.values()), sum(size for path, size in sizes.items() if path.is_file())
    place = "memory" if setting == "memory" else "disk"
    too_small = f"train.feature_cache_gb={limit / 1e9:g}" if size > limit else ""
    if place == "disk" and size - found > _free(folder):
        too_small = f"what is free under {folder}"
    if too_small:
        reason = f"{size / 1e9:.2f} GB of hidden states are more than {too_small}"
        if setting != "auto":
            raise LoralabError(f"train.feature_cache={setting}: {reason}; use train.feature_cache=off")
        return PrefixCache("off", reason)
    return PrefixCache(place, f"layers below {start} are frozen", start, size, found, folder, identity, limit)


def _fill(target: Hidden, network: Any, part: Encoded, start: int, listeners: Sequence[Listener]) -> None:
    """Compute hidden states pass by pass into `target` (total, width)."""
    device = next(network.parameters()).device

    def run(positions: Ints) -> int:
        batch = collate(part, positions)
        with torch.inference_mode():
            mask = torch.from_numpy(batch.mask).to(device)
            embedded = network.embeddings(torch.from_numpy(batch.inputs).to(device), network.compute_dtype)
            hidden = network.encode(embedded, mask, 0, start)[mask].cpu()
        rows = (hidden.view(torch.uint16) if hidden.dtype == torch.bfloat16 else hidden).numpy()
        lengths = part.lengths[positions]
        for position, end, length in zip(positions, np.cumsum(lengths), lengths, strict=True):
            target[part.starts[position] : part.starts[position + 1]] = rows[end - length : end]
        return len(rows)

    was_training, done = network.training, 0
    network.eval()
    passes = list(make_microbatches(np.arange(len(part)), part.lengths, pass_size(device)))
    for tokens in parallel.parallel_map(run, passes, parallel.num_workers(network, len(part))):
        done += tokens
        for listener in listeners:
            listener(CacheProgress(done, len(part.tokens)))
    network.train(was_training)


def _load(path: Path, shape: tuple[int, int], dtype: npt.DTypeLike) -> Hidden | None:
    """Map an earlier run's file, and mark it as used; None when there is none that fits."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        kept: Hidden = np.load(path, mmap_mode="r", allow_pickle=False)
        if kept.shape == shape and kept.dtype == dtype:
            os.utime(path)
            return kept
    return None


def _find_or_make(
    path: Path, shape: tuple[int, int], dtype: npt.DTypeLike, compute: Callable[[Hidden], None], limit: float
) -> Hidden:
    """Return an earlier run's hidden states, those that another process is making now, or make them.

    A file appears whole under its name or not at all, the least recently used ones making room for it.
    """
    found = _load(path, shape, dtype)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path) as (handle, name):
            found = _load(path, shape, dtype)
            if found is None:
                found = _make(handle, name, shape, dtype, compute, limit)
                os.replace(name, path)
        return found
    except OSError as error:
        raise RunFailed(
            f"cannot keep hidden states in {path.parent}: {error.strerror or error}; use train.feature_cache=off"
        ) from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[tuple[int, Path]]:
    """Give the file in which `path` is made to one process at a time; it is gone afterwards, or renamed."""
    try:
        handle, name = _turn(path)
    except (ImportError, OSError):  # a system or a disk without locks: each process makes a file of its own
        handle, own = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        name = Path(own)
    try:
        yield handle, name
    finally:
        with contextlib.suppress(OSError):
            if _same(handle, name):
                name.unlink()
        os.close(handle)


def _turn(path: Path) -> tuple[int, Path]:
    """Open the file in which `path` is made once no other process holds it. The system takes it from one that dies."""
    import fcntl

    name = path.with_name(f".{path.name}.new")
    while True:
        handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _same(handle, name):
                return handle, name
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # who held it has finished it or given it up: another has its name by now, or none


def _same(handle: int, name: Path) -> bool:
    """True where an open file still has this name."""
    return name.exists() and os.path.samestat(os.fstat(handle), name.stat())


def _make(
    handle: int, name: Path, shape: tuple[int, int], dtype: npt.DTypeLike, compute: Callable[[Hidden], None], limit: float
) -> Hidden:
    """Fill an open file, whatever lay in it, and map it: it can be read to the end from here on, also when it is deleted."""
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    start, total = header.tell(), header.tell() + shape[0] * shape[1] * np.dtype(dtype).itemsize
    _make_room(name.parent, limit - total)
    os.truncate(handle, 0)
    os.write(handle, header.getvalue())
    _reserve(handle, total)
    target: Any = np.memmap(name, dtype=dtype, mode="r+", offset=start, shape=shape)
    compute(target)
    target.flush()
    made: Hidden = np.load(name, mmap_mode="r", allow_pickle=False)
    return made


def _reserve(handle: int, size: int) -> None:
    """Take the space now, where the system can: writing into a mapped hole of a disk that has filled up kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)


def _make_room(folder: Path, limit: float) -> None:
    """Remove the files that were used longest ago until the others take at most `limit` bytes. This run's own are the newest.

    A process that has one of them mapped reads on: a deleted file's contents stay as long as it is mapped (POSIX).
    """
    with contextlib.suppress(OSError):
        files = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in folder.glob(f"*{SUFFIX}"))
        held = sum(size for _, size, _ in files)
        for _, size, path in files:
            if held > limit:
                path.unlink(missing_ok=True)
                held -= size


def _path(folder: Path, network: Any, start: int, part: Encoded, identity: str) -> Path:
    """The file of one part: named by all that decides its contents. The tokens stand for data, cleaning, tokenizer and length."""
    digest = hashlib.sha256(f"{FORMAT}/{identity}/{network.dims}/{network.compute_dtype}/{start}/".encode())
    digest.update(part.starts.tobytes() + part.tokens.tobytes())
    return folder / f"{digest.hexdigest()[:32]}{SUFFIX}"


def _free(folder: Path) -> int:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free
