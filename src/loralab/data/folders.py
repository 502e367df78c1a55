"""Sources by name, and the training, validation and test files of a folder, an archive or a workbook."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from shlex import quote
from typing import Any

from loralab.config.paths import local_path, similar_file, split_path
from loralab.config.run_settings import ROWS_FOLDER, RUN_SETTINGS
from loralab.data.columns import list_names
from loralab.data.formats import data_files, stem_of
from loralab.data.readers import inner_tables
from loralab.data.types import Notice, TablePlace
from loralab.errors import LoralabError

AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")
AG_NEWS_HUB = ("fancyzhx/ag_news", {"train": "data/train-00000-of-00001.parquet", "test": "data/test-00000-of-00001.parquet"})
Part = tuple[TablePlace, ...]
"""The files of one part, in order: one file, several shards, or a table in memory."""
PART_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}
"""Words in names by the part that they stand for."""
MAX_DEPTH = 2
"""Levels of folders below a source in which its parts are looked for, as in `default/train`."""
_SHARD = re.compile(r"[-_. (]*(?P<number>\d+)(?:[-_]of[-_](?P<count>\d+))?\)?(?:[-_][0-9a-f]{16})?$")
"""The end of a shard's name: -00000-of-00002, -1, (1), or -00000-of-00001-0123456789abcdef."""


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
    if not split_path(path)[0].exists():
        if path.name == ROWS_FOLDER and (path.parent / RUN_SETTINGS).is_file():
            raise LoralabError(
                f"{path.parent} was trained on rows in memory, which it does not keep (keep_data=False): give the rows again, "
                "or a file of rows"
            )
        raise LoralabError(f"there is no file or folder {source}{similar_file(path)}; data sets by name: sample, ag_news")
    if path.is_dir():
        return Parts((path,)) if _is_saved_dataset(path) else _folder_parts(path)
    names = inner_tables(path)
    if not names:
        return Parts((path,))
    if parts := _choose(path, _tables(path / name for name in names)):
        return parts
    raise LoralabError(
        f"{path} holds several tables ({list_names(names)}): name one, such as data.source={quote(str(path / names[0]))}"
    )


def _is_saved_dataset(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` wrote a folder."""
    return (folder / "state.json").is_file()


def _folder_parts(folder: Path) -> Parts:
    if parts := _search(folder, MAX_DEPTH):
        return parts
    files = data_files(folder)
    if len(files) == 1 and _part_of(stem_of(files[0])) is None and not _is_submission(files[0]):
        return Parts(
            (files[0],), notices=(Notice(f"{files[0].name} is the only data file of {folder}: its rows are for training"),)
        )
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir() if not entry.name.startswith("."))
    expected = "train.csv, .jsonl, .parquet or the like, or a saved dataset in train/"
    other = next((file for file in files if not _part_of(stem_of(file)) and not _is_submission(file)), None)
    advice = f": name the training file, such as data.source={quote(str(other))}" if other else ""
    raise LoralabError(f"{folder} has no training part: expected {expected}; it holds {list_names(entries) or 'nothing'}{advice}")


def _is_submission(file: Path) -> bool:
    return "submission" in file.name.casefold()


def _search(folder: Path, depth: int) -> Parts | None:
    """Return the parts of a folder, or else those of the one folder in it that has a training part."""
    tables = _tables(data_files(folder))
    folders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))
    for entry in folders:
        if _part_of(entry.name) or _is_saved_dataset(entry):
            tables += [(files, entry.name) for files in _folder_tables(entry)]
    if parts := _choose(folder, tables):
        return replace(parts, notices=(*parts.notices, *_other_folders(folder, folders)))
    below = {} if not depth else {entry: own for entry in folders if (own := _search(entry, depth - 1))}
    if len(below) > 1:
        options = " or ".join(f"data.source={quote(str(entry))}" for entry in below)
        raise LoralabError(f"{folder} has several folders with a training part: write {options}")
    for entry, parts in below.items():
        notices = (
            parts.notices
            if any("the files are in" in notice.message for notice in parts.notices)
            else (Notice(f"the files are in {entry}"), *parts.notices)
        )
        return replace(parts, notices=notices)
    return None


def _other_folders(folder: Path, folders: Sequence[Path]) -> list[Notice]:
    """Return a notice on folders of parts within a folder that has its own."""
    others = [entry for entry in folders if not _part_of(entry.name) and any(_part_of(stem_of(f)) for f in data_files(entry))]
    return [Notice(f"not used: {list_names([f'{entry.name}/' for entry in others])} in {folder}")] if others else []


def _folder_tables(folder: Path) -> list[Part]:
    """Return the tables of a folder called `train` or the like: a saved dataset, or files."""
    return [(folder,)] if _is_saved_dataset(folder) else [files for files, _ in _tables(data_files(folder))]


def _tables(files: Iterable[Path]) -> list[tuple[Part, str]]:
    """Return the tables that files hold and the name of each. Shards of one table have one name but for their numbers.

    Raises LoralabError if a shard is missing.
    """
    groups = defaultdict[tuple[str, str], list[tuple[int, int, Path]]](list)
    for file in files:
        stem = stem_of(file).casefold()
        shard = _SHARD.search(stem)
        name, number, count = (stem[: shard.start()], int(shard["number"]), int(shard["count"] or 0)) if shard else (stem, -1, 0)
        groups[name if shard else f"{stem}\0", file.name[len(stem) :].casefold()].append((number, count, file))
    return [(_in_order(shards), name.rstrip("\0")) for (name, _), shards in groups.items()]


def _in_order(shards: Sequence[tuple[int, int, Path]]) -> Part:
    shards = sorted(shards)
    files = tuple(file for _, _, file in shards)
    counts = {count for _, count, _ in shards}
    missing = max(counts) - len(shards)
    if len(counts) > 1 or missing > 0:
        problem = f"{missing} of {max(counts)} shards are missing" if len(counts) == 1 else "shards of several tables"
        raise LoralabError(f"{files[0].parent}: {problem}: it has {list_names([file.name for file in files])}")
    return files


def _part_of(name: str) -> tuple[str, bool] | None:
    """Return the part that a name says, and whether it says nothing else; None for no part or several."""
    words = [word for word in re.split(r"[\W\d_]+", name.casefold()) if word]
    parts = {part for part, own in PART_WORDS.items() if {*words} & {*own}}
    return (parts.pop(), len(words) == 1) if len(parts) == 1 else None


def _choose(source: Path, tables: Sequence[tuple[Part, str]]) -> Parts | None:
    """Return the parts by the names of tables; None without a training part. Names that are but the part's word come first."""
    candidates: dict[str, list[Part]] = {}
    for part in PART_WORDS:
        named = [(files, match[1]) for files, name in tables if (match := _part_of(name)) and match[0] == part]
        exact = [files for files, alone in named if alone]
        candidates[part] = exact or [files for files, _ in named]
    if not candidates["train"]:
        return None
    for part, several in candidates.items():
        if len(several) > 1:
            raise LoralabError(_ambiguous(source, part, candidates))
    chosen = {part: files[0] if files else () for part, files in candidates.items()}
    used = {*chosen.values()}
    others = [_label(files) for files, _ in tables if files not in used]
    names = dict(tables)
    notices = [Notice(f"{part}: {_label(files)}") for part, files in chosen.items() if files and names[files].casefold() != part]
    notices += [Notice(f"not used: {list_names(others)} in {source}")] if others else []
    return Parts(chosen["train"], chosen["validation"], chosen["test"], tuple(notices))


def _label(files: Part) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} to {files[-1].name}"


def _ambiguous(source: Path, part: str, candidates: Mapping[str, Sequence[Part]]) -> str:
    """Return the message for several tables of one part, with settings for the first of them."""
    names = list_names([_label(files) for files in candidates[part]])
    first = {name: tables[0][0] for name, tables in candidates.items() if tables}
    settings = " ".join(f"data.{'source' if name == 'train' else name}={quote(str(path))}" for name, path in first.items())
    return f"{source} has several files for one part, {part}: {names}: move the others, or name the files, such as {settings}"


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
