"""The feature cache: hidden states below the lowest trained layer, computed once, in memory or in files that later runs reuse.

The layers below are frozen and have no dropout, so their output for a text never changes. Training above it gives the same result
with and without the cache, and each epoch saves the forward pass of those layers.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from loralab.data.batches import collate, make_microbatches
from loralab.data.types import Encoded, Hidden, Ints
from loralab.errors import LoralabError, RunFailed
from loralab.model.encoder import EncoderClassifier
from loralab.model.interface import ClassifierModel
from loralab.storage.files import file_lock
from loralab.training import parallel
from loralab.training.callbacks import CacheProgress, Listener
from loralab.training.scoring import inference_tokens

FORMAT = 3
"""The format of cache files, part of their names. 3: the states end with checksums."""
SUFFIX, UNFINISHED = ".hidden.npy", ".new"
_BLOCK = 1 << 24
"""Bytes of one checksum. zlib's CRC-32 reads 7 GB/s on one core, SHA-256 2 GB/s."""
_log = logging.getLogger(__name__)
_STORED = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.uint16}


@dataclass(frozen=True)
class PrefixCache:
    """What is cached, and where. place: memory, disk or off; reason: of the place.

    start: the layer that the hidden states enter; size: their bytes; reusable: bytes of them in files of earlier runs.
    identity: of base, device and precision; limit: most bytes of all files in `folder`.
    """

    place: str
    reason: str
    start: int = 0
    size: int = 0
    reusable: int = 0
    folder: Path = Path()
    identity: str = ""
    limit: float = 0.0

    def add_hidden_states(self, model: ClassifierModel, rows: Encoded, listeners: Sequence[Listener] = ()) -> Encoded:
        """Return `rows` with their hidden states, from an earlier run or computed now."""
        if self.place == "off":
            return rows
        encoder = _encoder(model)
        shape, dtype = (len(rows.tokens), encoder.dims.width), _STORED[encoder.compute_dtype]

        def compute(target: Hidden) -> None:
            _compute(target, encoder, rows, self.start, listeners)

        if self.place == "memory":
            hidden: Hidden = np.empty(shape, dtype=dtype)
            compute(hidden)
        else:
            path = _path(self.folder, encoder, self.start, rows, self.identity)
            hidden = _find_or_create(path, shape, dtype, compute, self.limit)
        return replace(rows, hidden=hidden, start=self.start)


def plan(
    model: ClassifierModel, parts: Sequence[Encoded], *, place: str, limit: float, epochs: float, folder: Path, identity: str
) -> PrefixCache:
    """Decide whether and where to cache the hidden states of these parts.

    place: auto, memory, disk or off; limit: in bytes. The cache is off if nothing below is frozen, if nothing is trained, and with
    auto if the states do not fit. Raises LoralabError if they do not fit into the place that the settings name.
    """
    if not model.supports_feature_cache:
        return PrefixCache("off", "this encoder runs through Transformers, which starts at the first layer")
    encoder = _encoder(model)
    start = encoder.first_trained_layer()
    if place == "off" or not start or epochs == 0:
        reason = "the first layer is trained, so no hidden states stay the same" if not start else "nothing is trained"
        return PrefixCache("off", "train.feature_cache=off" if place == "off" else reason)
    itemsize = np.dtype(_STORED[encoder.compute_dtype]).itemsize
    sizes = {
        _path(folder, encoder, start, part, identity): len(part.tokens) * encoder.dims.width * itemsize
        for part in parts
        if len(part)
    }
    size, reusable = sum(sizes.values()), sum(size for path, size in sizes.items() if path.is_file())
    chosen = "memory" if place == "memory" else "disk"
    too_small = f"train.feature_cache_gb={limit / 1e9:g}" if size > limit else ""
    if chosen == "disk":
        remove_unfinished(folder)
        if size - reusable > _free(folder):
            too_small = f"the free space of {folder}"
    if too_small:
        reason = f"{size / 1e9:.2f} GB of hidden states are more than {too_small}"
        if place != "auto":
            raise LoralabError(f"train.feature_cache={place}: {reason}; use train.feature_cache=off")
        return PrefixCache("off", reason)
    return PrefixCache(chosen, f"layers below {start} are frozen", start, size, reusable, folder, identity, limit)


def remove_unfinished(folder: Path) -> None:
    """Delete the files that killed processes left half-filled. A file that a process is filling is locked, and stays."""
    for path in folder.glob(f".*{UNFINISHED}"):
        lock = _lock_path(path)
        with contextlib.suppress(OSError, NotImplementedError), file_lock(lock, wait=False) as acquired:
            if acquired:
                path.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)


def _encoder(model: ClassifierModel) -> EncoderClassifier:
    """Return the model as the one class that `supports_feature_cache`."""
    return cast(EncoderClassifier, model)


def _compute(target: Hidden, model: EncoderClassifier, rows: Encoded, start: int, listeners: Sequence[Listener]) -> None:
    """Compute hidden states into `target` (tokens, width).

    Every micro-batch is computed by one thread, so the states do not depend on the number of threads.
    """
    device = model.device

    def compute(positions: Ints) -> int:
        batch = collate(rows, positions)
        with torch.inference_mode():
            mask = torch.from_numpy(batch.mask).to(device)
            embedded = model.embeddings(torch.from_numpy(batch.inputs).to(device), model.compute_dtype)
            hidden = model.encode(embedded, mask, 0, start)[mask].cpu()
        states = (hidden.view(torch.uint16) if hidden.dtype == torch.bfloat16 else hidden).numpy()
        lengths = rows.lengths[positions]
        for position, end, length in zip(positions, np.cumsum(lengths), lengths, strict=True):
            target[rows.starts[position] : rows.starts[position + 1]] = states[end - length : end]
        return len(states)

    was_training, done = model.training, 0
    model.eval()
    microbatches = list(make_microbatches(np.arange(len(rows)), rows.lengths, inference_tokens(device)))
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    with parallel.one_thread():
        for tokens in parallel.parallel_map(compute, microbatches, workers):
            done += tokens
            for listener in listeners:
                listener(CacheProgress(done, len(rows.tokens)))
    model.train(was_training)


def _load(path: Path, shape: tuple[int, int], dtype: npt.DTypeLike, *, report: bool = False) -> Hidden | None:
    """Map an earlier run's file and mark it as recently used. Return None if there is no intact one.

    report: log a damaged one.
    """
    if not path.exists():
        return None
    with contextlib.suppress(OSError, ValueError, EOFError):
        states: Hidden = np.load(path, mmap_mode="r", allow_pickle=False)
        if states.shape == shape and states.dtype == dtype:
            checks = _checksums(states)
            with path.open("rb") as file:
                file.seek(-len(checks), os.SEEK_END)
                intact = file.tell() == _data_start(shape, dtype) + states.nbytes and file.read() == checks
            if intact:
                os.utime(path)
                return states
    if report:
        _log.warning("%s is damaged: its hidden states are computed again", path)
    return None


def _checksums(states: Hidden) -> bytes:
    """Return the CRC-32 of each block of the states' bytes, four bytes each, and that of these."""
    content: Any = states.reshape(-1).view(np.uint8) if states.size else b""
    blocks = range(0, len(content), _BLOCK)
    workers = min(torch.get_num_threads(), max(1, len(blocks)))
    with ThreadPoolExecutor(workers) as pool:  # zlib releases the interpreter's lock
        values = [*pool.map(lambda start: zlib.crc32(content[start : start + _BLOCK]), blocks)]
    listed = struct.pack(f"<{len(values)}I", *values)
    return listed + struct.pack("<I", zlib.crc32(listed))


def _header(shape: tuple[int, int], dtype: npt.DTypeLike) -> bytes:
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def _data_start(shape: tuple[int, int], dtype: npt.DTypeLike) -> int:
    """Return where the states start in a file."""
    return len(_header(shape, dtype))


def _find_or_create(
    path: Path, shape: tuple[int, int], dtype: npt.DTypeLike, compute: Callable[[Hidden], None], limit: float
) -> Hidden:
    """Return the hidden states of an earlier run or of another process that is computing them, or compute them.

    A file appears under its name when it is complete.
    """
    states = _load(path, shape, dtype)
    if states is not None:
        return states
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(path):
            states = _load(path, shape, dtype, report=True)  # another process may have released the lock
            if states is None:
                states = _create(path, shape, dtype, compute, limit)
        return states
    except OSError as error:
        raise RunFailed(
            f"cannot write hidden states to {path.parent}: {error.strerror or error}; use train.feature_cache=off"
        ) from error


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time create `path`. Without file locks several may, each into its own temporary file."""
    lock = _lock_path(path)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(lock))
        except (OSError, NotImplementedError):
            yield
            return
        for unfinished in path.parent.glob(f".{path.name}.*{UNFINISHED}"):  # of a killed process, which had the lock before
            unfinished.unlink(missing_ok=True)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows does not delete open files
                lock.unlink()


def _lock_path(path: Path) -> Path:
    """Return the lock of a cache file, or of one of its temporary files."""
    return path.with_name(f".{path.name.lstrip('.').partition('.')[0]}.lock")


def _create(path: Path, shape: tuple[int, int], dtype: npt.DTypeLike, compute: Callable[[Hidden], None], limit: float) -> Hidden:
    """Fill a temporary file, map it, and rename it. The mapping stays readable if the file is deleted (POSIX)."""
    header = _header(shape, dtype)
    start, total = len(header), len(header) + shape[0] * shape[1] * np.dtype(dtype).itemsize
    _make_room(path.parent, limit - total)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
    try:
        try:
            os.write(handle, header)
            _allocate(handle, total)
        finally:
            os.close(handle)
        target: Any = np.memmap(name, dtype=dtype, mode="r+", offset=start, shape=shape)
        compute(target)
        target.flush()
        with open(name, "ab") as file:
            file.write(_checksums(target))
        states: Hidden = np.load(name, mmap_mode="r", allow_pickle=False)
        os.replace(name, path)
        return states
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _allocate(handle: int, size: int) -> None:
    """Reserve the space where the system can: writing into a mapped hole of a full disk kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)


def _make_room(folder: Path, limit: float) -> None:
    """Delete the least recently used files until all take at most `limit` bytes. Files that are being filled count and stay.

    A process that has a deleted file mapped can still read it (POSIX).
    """
    remove_unfinished(folder)
    with contextlib.suppress(OSError):
        files = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in folder.glob(f"*{SUFFIX}"))
        total = sum(size for _, size, _ in files) + sum(p.stat().st_size for p in folder.glob(f".*{UNFINISHED}"))
        for _, size, path in files:
            if total > limit:
                path.unlink(missing_ok=True)
                total -= size


def _path(folder: Path, model: EncoderClassifier, start: int, rows: Encoded, identity: str) -> Path:
    """Return the file of one part, named by everything that decides its contents: model, tokens, and lengths."""
    digest = hashlib.sha256(f"{FORMAT}/{identity}/{model.dims}/{model.compute_dtype}/{start}/".encode())
    digest.update(rows.starts.tobytes() + rows.tokens.tobytes())
    return folder / f"{digest.hexdigest()[:32]}{SUFFIX}"


def _free(folder: Path) -> int:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free
