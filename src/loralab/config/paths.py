"""Paths as users write them."""

from __future__ import annotations

import re
from pathlib import Path

from loralab.errors import LoralabError, suggest

MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
"""What `model.base=minilm` is on the Hugging Face hub."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def hub_id(base: str) -> str | None:
    """Return the hub id of a base encoder; None for a local folder."""
    if base == "minilm":
        return MINILM_HUB_ID
    return base if _HUB_ID.fullmatch(base) and not Path(base).exists() else None


def local_path(path: str | Path) -> Path:
    """Return the path with ~ replaced. Raises LoralabError for an address, with the command that downloads it."""
    text = str(path)
    if text.startswith(("http:/", "https:/")):
        address = text if "://" in text else text.replace(":/", "://", 1)
        raise LoralabError(f"{address} is an address: download it first, with `curl -LO {address}`, and name the file")
    if text.startswith("hf:/"):
        repository = text.removeprefix("hf:/").lstrip("/").removeprefix("datasets/")
        name = "/".join(repository.split("/")[:2])
        raise LoralabError(
            f"{text} is on the Hugging Face hub: download it first, with `hf download --repo-type dataset {name} --local-dir "
            f"{name.rpartition('/')[2]}`, and name the folder"
        )
    return Path(text).expanduser()


def split_path(path: Path) -> tuple[Path, str]:
    """Return the file of a path and the rest, which names a table in it, as in `book.xlsx/Sheet2` or `data.zip/train.csv`."""
    if not path.exists():
        for parent in path.parents:
            if parent.is_file():
                return parent, path.relative_to(parent).as_posix()
    return path, ""


def similar_file(path: Path) -> str:
    """Return `; did you mean 'train.csv'?` for a misspelt name in an existing folder."""
    return suggest(path.name, sorted(entry.name for entry in path.parent.iterdir())) if path.parent.is_dir() else ""
