"""Snapshots of Hugging Face hub repositories: from the local cache, or downloaded. Never pickles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from loralab.errors import LoralabError

MODEL_FILES = ("*.safetensors", "*.json", "*.txt")
"""What `Classifier.load` downloads of a model: weights, settings and the tokenizer, never a pickle."""
_NESTED = ("*/*",)
MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def model_id(path: Path, *, known_to_be_remote: bool = False) -> str | None:
    """Return the hub id that a missing path may be; None if it is a local path.

    `runs/news` is a local path where a folder `runs` exists: a misspelt run is not looked up on the hub, unless it is
    `known_to_be_remote`.
    """
    name = path.as_posix()
    return name if MODEL_ID.fullmatch(name) and (known_to_be_remote or not path.parent.exists()) else None


def snapshot_commit(folder: Path) -> str | None:
    """Return the commit of a snapshot in the hub's cache, which is the folder's name; None for another folder."""
    return folder.name if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name) else None


def cached_snapshot(repo_id: str, revision: str | None, patterns: Sequence[str], required: Sequence[str] = ()) -> Path:
    """Return a snapshot that the cache has, without a request to the hub; else download the files that match `patterns`.

    required: names of which the snapshot must have one. A cached snapshot without them is completed. Raises the errors of
    huggingface_hub, and FileNotFoundError without a required file.
    """
    from huggingface_hub import snapshot_download

    def download(local: bool) -> Path:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(patterns), local_files_only=local))

    def is_complete(folder: Path) -> bool:
        return not required or any((folder / name).is_file() for name in required)

    try:
        folder = download(local=True)
        if is_complete(folder):
            return folder
    except OSError:
        pass  # not in the cache
    folder = download(local=False)
    if not is_complete(folder):
        raise FileNotFoundError(required[0])
    return folder


def download_model(repo_id: str, revision: str | None = None) -> Path:
    """Return the newest snapshot of a model, or the cached one if the hub cannot be reached.

    A commit that is in the cache needs no request. Raises LoralabError that says which of model, revision, access and network is
    missing.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    at = f" at revision {revision!r}" if revision else ""
    lead = f"there is no run {repo_id} on this disk, and"
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(MODEL_FILES), ignore_patterns=list(_NESTED)))
    except GatedRepoError as error:
        raise LoralabError(f"{lead} the hub gives {repo_id} only to accepted users: ask for access on its page") from error
    except RepositoryNotFoundError as error:
        raise LoralabError(
            f"{lead} the hub has no model {repo_id}, or it is private: check its name; for a private model run `hf auth login`, "
            "or set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise LoralabError(
            f"the model {repo_id} on the hub has no revision {revision!r}: pass a branch, a tag or a whole commit hash"
        ) from error
    except Exception as error:  # the hub's client raises errors of several libraries when there is no network
        raise LoralabError(
            f"{lead} {repo_id}{at} could not be downloaded from the Hugging Face hub ({type(error).__name__}): check the name and "
            "the network; a model that was downloaded before also loads without one"
        ) from error
