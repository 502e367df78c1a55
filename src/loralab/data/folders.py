"""Sources by name, and the training, validation and test files of a folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from loralab.config.paths import local_path, similar_file
from loralab.data.readers import PACKED, READABLE
from loralab.data.types import MAX_LISTED, Notice
from loralab.errors import LoralabError

AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")
AG_NEWS_HUB = ("fancyzhx/ag_news", {"train": "data/train-00000-of-00001.parquet", "test": "data/test-00000-of-00001.parquet"})
Part = tuple[Path, ...]
"""The files of one part, in order: one file, or several shards."""
_NAMES = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation"}
_NAMES |= {"dev": "validation", "eval": "validation", "test": "test", "testing": "test"}
_STEM = re.compile(r"(?P<part>[a-z]+)(?:[-_. ]?\d+(?:-of-\d+)?)?(?:[-_][0-9a-f]{16})?", re.ASCII)
"""train, train-1, train_00000-of-00002, train-00000-of-00001-0123456789abcdef"""
_SUBFOLDERS = ("", "data", "default", "plain_text")
"""Where snapshots of the hub keep their files."""


@dataclass(frozen=True)
class Parts:
    """The files of a source: training rows, and validation and test rows if it has them; what was decided."""

    train: Part
    validation: Part = ()
    test: Part = ()
    notices: tuple[Notice, ...] = ()


def find_parts(source: str) -> Parts:
    """Return the files of a source: `sample`, `ag_news`, a file, or a folder.

    Raises LoralabError for a source that does not exist, a folder without training files, and several files for one part.
    """
    if source == "sample":
        folder = Path(str(resources.files("loralab.data") / "sample"))
        return Parts((folder / "train.csv",), test=(folder / "test.csv",))
    if source == "ag_news":
        return Parts((_fetch_ag_news("train"),), test=(_fetch_ag_news("test"),))
    path = local_path(source)
    if not path.exists():
        raise LoralabError(f"there is no file or folder {source}{similar_file(path)}; data sets by name: sample, ag_news")
    if not path.is_dir() or _is_saved_dataset(path):
        return Parts((path,))
    for name in _SUBFOLDERS:
        if (path / name).is_dir() and (parts := _parts_of(path / name)).get("train"):
            return Parts(parts["train"], parts.get("validation", ()), parts.get("test", ()), _unused(path / name, parts))
    names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    listed = _shorten(names) or "nothing"
    expected = "train.csv, .jsonl, .parquet or the like, or a saved dataset in train/"
    raise LoralabError(f"{source} has no training part: expected {expected}; it holds {listed}")


def _is_saved_dataset(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` wrote a folder."""
    return (folder / "state.json").is_file()


def _parts_of(folder: Path) -> dict[str, Part]:
    """Return the files by part. A folder of a part, such as train/, holds a saved dataset or shards."""
    found = defaultdict[str, list[Path]](list)
    for path in sorted(folder.iterdir()):
        stem, suffix = _split_name(path)
        match = _STEM.fullmatch(stem)
        part = _NAMES.get(match["part"]) if match else None
        if part is None:
            continue
        if path.is_dir():
            found[part] += [path] if _is_saved_dataset(path) else [file for file in sorted(path.iterdir()) if _split_name(file)[1]]
        elif suffix:
            found[part].append(path)
    return {part: _shards(files) for part, files in found.items() if files}


def _shards(files: Sequence[Path]) -> Part:
    """Return the shards of a part in order. Raises LoralabError for files that are no shards of one table."""
    suffixes = {_split_name(path)[1] for path in files}
    numbered = all(re.search(r"\d", _split_name(path)[0]) for path in files)
    if len(files) > 1 and (len(suffixes) > 1 or not numbered):
        names = _shorten([path.name for path in files])
        raise LoralabError(
            f"{files[0].parent} has several files for one part ({names}): name the ones to read with data.source, data.validation "
            f"and data.test, or move the others"
        )
    return tuple(sorted(files, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)]))


def _split_name(path: Path) -> tuple[str, str]:
    """Return the name without suffixes, in lower case, and the suffix of a readable format, or the empty text."""
    name = path.name.casefold()
    for packed in ("", *PACKED):
        for suffix in READABLE:
            if name.endswith(suffix + packed) and len(name) > len(suffix + packed):
                return name.removesuffix(suffix + packed), suffix
    return name, ""


def _unused(folder: Path, parts: dict[str, Part]) -> tuple[Notice, ...]:
    """Return a notice on data files of a folder that belong to no part."""
    used = {path for files in parts.values() for path in files}
    others = [path.name for path in sorted(folder.iterdir()) if path.is_file() and path not in used and _split_name(path)[1]]
    return (Notice(f"not used: {_shorten(others)} in {folder}"),) if others else ()


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def _fetch_ag_news(part: str) -> Path:
    """Return the file of one part, from the local Hugging Face cache or else from the hub."""
    from huggingface_hub import snapshot_download

    repository, files = AG_NEWS_HUB
    options: dict[str, Any] = {"repo_type": "dataset", "allow_patterns": list(files.values())}
    try:
        try:
            path = Path(snapshot_download(repository, local_files_only=True, **options)) / files[part]
            if path.is_file():
                return path
        except OSError:
            pass  # not in the cache: download it
        return Path(snapshot_download(repository, **options)) / files[part]
    except Exception as error:  # the hub's client raises errors of several libraries when there is no network
        raise LoralabError(
            f"data.source=ag_news is not cached, and downloading it failed ({type(error).__name__}).\n"
            f"  Use a folder with the published train.csv, test.csv and classes.txt: data.source=FOLDER,\n"
            f"  or the data set that loralab includes: data.source=sample"
        ) from error
