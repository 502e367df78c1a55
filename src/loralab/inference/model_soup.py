"""Model soup: average the weights of several runs into one bundle (Wortsman et al. 2022) and test it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from loralab.errors import LoralabError
from loralab.inference.classifier import Classifier
from loralab.model.averaging import average
from loralab.model.bundle import load_bundle, save_bundle
from loralab.model.manifest import read_manifest
from loralab.model.parameter_counts import ParameterCounts
from loralab.safe_files import read_text
from loralab.storage import run_folder, run_predictions
from loralab.storage.experiment_folder import find_runs
from loralab.storage.files import atomic_folder
from loralab.storage.run_folder import SOUP
from loralab.storage.sealed import write_sealed


@dataclass(frozen=True)
class Soup:
    """A model soup: its members with their test accuracies, its own test accuracy, and the rank of its adapters.

    accuracies: of the members with test rows. accuracy: None without test rows, and if the members have different ones, since one
    member may have been trained on another's test rows.
    parameters: of adapters and head, which a run would train. budget: the smallest `lora.max_trainable` of the members, if any;
    fitting_rank: the highest rank within it, None if no adapter fits.
    """

    folder: Path
    members: tuple[str, ...]
    accuracies: tuple[float, ...]
    accuracy: float | None
    test_rows: int
    rank: int | None
    parameters: int
    budget: int | None
    fitting_rank: int | None

    @property
    def over_budget(self) -> bool:
        """Whether the soup has more parameters than its members were allowed to train."""
        return self.budget is not None and self.rank is not None and self.parameters > self.budget

    def remark(self) -> str:
        """Return by how much the soup is over its members' budget, and what fits; empty if it is not."""
        if not self.over_budget:
            return ""
        fix = f"--rank {self.fitting_rank} fits and keeps the largest singular directions" if self.fitting_rank else "no rank fits"
        return (
            f"adapters and head of the soup have {self.parameters:,} parameters, over the runs' budget "
            f"lora.max_trainable={self.budget:,}: {fix}"
        )


def make_soup(
    folders: Sequence[Path], out: Path, *, rank: int | None = None, base: str | None = None, overwrite: bool = False
) -> Soup:
    """Average the weights of complete runs, or of an experiment's trials, into a bundle at `out` (`loralab.model.averaging`).

    rank: of the soup's adapters; the default, the sum of the members' ranks, is exact. Raises LoralabError for fewer than two runs,
    and for runs that differ in more than their weights.
    """
    members = list(dict.fromkeys(run for folder in folders for run in find_runs(folder)))
    if len(members) < 2:
        raise LoralabError("a model soup needs at least two runs, or an experiment with at least two complete trials")
    if rank is not None and rank < 1:
        raise LoralabError(f"--rank {rank}: the rank must be at least 1")
    if out.exists() and not overwrite:
        raise LoralabError(f"{out} exists: choose another --out, or replace it with --overwrite")
    if out.exists() and not (out / SOUP).is_file():
        raise LoralabError(f"{out} is not a soup: choose another --out")
    names = [str(run) for run in members]
    model, manifest = average((load_bundle(run_folder.model_folder(run), base) for run in members), names, rank)
    tokenizer = _shared_tokenizer(members)
    with atomic_folder(out) as folder:
        save_bundle(folder, model, manifest, tokenizer)
        texts, truths = run_predictions.read_test_texts(members[0]) if _share_test_rows(members) else ([], [])
        predicted = Classifier.load(folder, base=base).predict(texts).labels if texts else []
        accuracy = float(np.mean([a == b for a, b in zip(predicted, truths, strict=True)])) if texts else None
        scores = [run_folder.read_scores(run)["scores"] for run in members]
        accuracies = tuple(float(own["accuracy"]) for own in scores if own)
        soup_rank = manifest.lora.rank if manifest.tuning == "lora" else None
        counts, budget = model.parameter_counts(), _budget(members)
        fitting = _fitting_rank(counts, budget, soup_rank)
        size = counts.adapter + counts.head
        soup = Soup(out, tuple(names), accuracies, accuracy, len(texts), soup_rank, size, budget, fitting)
        write_sealed(folder / SOUP, {**asdict(soup), "folder": str(out)})
    return soup


def _budget(members: Sequence[Path]) -> int | None:
    """Return the smallest parameter budget that a member was trained under."""
    budgets = (read_manifest(run_folder.model_folder(run)).lora.max_trainable for run in members)
    return min((budget for budget in budgets if budget is not None), default=None)


def _fitting_rank(counts: ParameterCounts, budget: int | None, rank: int | None) -> int | None:
    """Return the highest rank of all adapters with which they and the head are within the budget."""
    if budget is None or rank is None:
        return None
    return max(0, budget - counts.head) // (counts.adapter // rank) or None


def _shared_tokenizer(members: Sequence[Path]) -> str:
    """Return the members' tokenizer, prompt template included. Raises LoralabError if they differ: the weights would not fit."""
    tokenizers = [read_text(run_folder.model_folder(run) / "tokenizer.json") for run in members]
    for run, tokenizer in zip(members, tokenizers, strict=True):
        if tokenizer != tokenizers[0]:
            raise LoralabError(
                f"{run} and {members[0]} read texts differently (tokenizer, data.max_length, data.template or descriptions): "
                "a model soup needs runs that differ only in their weights"
            )
    return tokenizers[0]


def _share_test_rows(members: Sequence[Path]) -> bool:
    """Return whether all runs have the same test rows."""
    try:
        return len({run_folder.read_environment(run)["rows"]["test"]["fingerprint"] for run in members}) == 1
    except (KeyError, TypeError):
        return False
