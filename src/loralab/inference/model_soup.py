"""Several runs → one bundle, the mean of their weights, tested on the rows that all of them were tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from loralab.errors import LoralabError
from loralab.inference.classifier import Classifier
from loralab.model.averaging import average
from loralab.model.bundle import load_bundle, save_bundle
from loralab.storage import run_folder
from loralab.storage.experiment_folder import find_runs
from loralab.storage.files import atomic_folder, write_errors, write_json

SOUP = "soup.json"


@dataclass(frozen=True)
class Soup:
    """What was made: `members` and their accuracies on the test rows, the soup's own, and the rank of its adapters.

    accuracy: None where the members were tested on different rows, because what one was tested on another may have been trained on.
    """

    folder: Path
    members: tuple[str, ...]
    accuracies: tuple[float, ...]
    accuracy: float | None
    test_rows: int
    rank: int | None


def make_soup(
    folders: Sequence[Path], out: Path, *, rank: int | None = None, base: str | None = None, overwrite: bool = False
) -> Soup:
    """Average the weights of finished runs, or of an experiment's trials, into a bundle at `out` (`loralab.model.averaging`).

    rank: of its adapters; by default the sum of the members' ranks, which loses nothing. Raises LoralabError for fewer than two
    runs, and for runs that are not of one kind.
    """
    members = list(dict.fromkeys(run for folder in folders for run in find_runs(folder)))
    if len(members) < 2:
        raise LoralabError("a soup wants two runs or more, or an experiment of as many trials")
    if rank is not None and rank < 1:
        raise LoralabError(f"--rank {rank}: a rank is 1 or more")
    if out.exists() and not overwrite:
        raise LoralabError(f"{out} exists: choose another --out, or replace it with --overwrite")
    if out.exists() and not (out / SOUP).is_file():
        raise LoralabError(f"{out} is not a soup: choose another --out")
    names = [str(run) for run in members]
    network, manifest = average((load_bundle(run_folder.model_folder(run), base) for run in members), names, rank)
    tokenizer = (run_folder.model_folder(members[0]) / "tokenizer.json").read_text(encoding="utf-8")
    with write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(out) as folder:
        save_bundle(folder, network, manifest, tokenizer)
        texts, truths = run_folder.read_test_texts(members[0]) if _tested_alike(members) else ([], [])
        found = Classifier.load(folder, base=base).predict(texts).labels if texts else []
        accuracy = float(np.mean([a == b for a, b in zip(found, truths, strict=True)])) if texts else None
        accuracies = tuple(float(run_folder.read_scores(run)["scores"]["accuracy"]) for run in members)
        own = manifest.lora.rank if manifest.tuning == "lora" else None
        soup = Soup(out, tuple(names), accuracies, accuracy, len(texts), own)
        write_json(folder / SOUP, {**asdict(soup), "folder": str(out)})
    return soup


def _tested_alike(members: Sequence[Path]) -> bool:
    """Whether all runs were tested on the same rows."""
    try:
        return len({run_folder.read_environment(run)["rows"]["test"]["fingerprint"] for run in members}) == 1
    except (KeyError, TypeError):
        return False
