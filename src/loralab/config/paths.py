"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path

from loralab.errors import LoralabError, suggest


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
