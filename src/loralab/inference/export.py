"""A run in the form that others read: merged weights, a peft folder, ONNX, ONNX in 8 bits. Each checks itself or is refused."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.data.sources import load_source
from loralab.data.tokenize import encode
from loralab.data.types import Encoded, Examples
from loralab.errors import LoralabError, RunFailed, nearest
from loralab.inference.classifier import Classifier
from loralab.model.bundle import load_bundle, save_bundle
from loralab.model.checkpoints import read_json
from loralab.model.interface import ClassifierModel
from loralab.model.manifest import MANIFEST
from loralab.model.peft_files import ADAPTER_CONFIG
from loralab.storage import run_folder
from loralab.storage.files import atomic_folder, write_errors, write_json
from loralab.training.scoring import logits_of

FORMS = ("merged", "peft", "onnx", "onnx-int8")
CONFIG = "config.json"
CHECKED_ROWS, BATCHES = 256, (1, 7, 32)
CLOSE = {"merged": 1e-5, "peft": 1e-5, "onnx": 1e-4}
"""The largest difference of a logit that an export may show."""
AGREEMENT = 0.99
"""The least share of equal predictions that 8 bits may show: their logits are others."""


@dataclasses.dataclass(frozen=True)
class Export:
    """What was written, and how close it came: the largest logit difference and the share of equal predictions over `rows`."""

    folder: Path
    form: str
    megabytes: float
    rows: int
    largest_difference: float
    agreement: float


def export_run(run: Path, form: str, out: Path | None = None, *, base: str | None = None, overwrite: bool = False) -> Export:
    """Write a run as merged, peft, onnx or onnx-int8 into `out`, and check it on the run's own test texts.

    merged: all weights under Transformers' names, the adapter added in; peft: the adapter in peft's format; onnx: fp32; onnx-int8:
    products in 8 bits. Each folder has the tokenizer. Logits are compared at batches of 1, 7 and 32; an export that differs by more
    than CLOSE, or in 8 bits agrees on fewer than AGREEMENT of the predictions, is not kept. Raises LoralabError for a
    form or run that cannot be exported, RunFailed where the check fails.
    """
    if form not in FORMS:
        raise LoralabError(f"--to {form}: there is no such form{nearest(form, FORMS)}; valid: {', '.join(FORMS)}")
    bundle = run_folder.model_folder(run)
    target = out or run / run_folder.EXPORTS / form
    if target.exists() and not overwrite:
        raise LoralabError(f"{target} exists: choose another --out, or replace it with --overwrite")
    if target.exists() and not (target / run_folder.EXPORT_CHECK).is_file():
        raise LoralabError(f"{target} is not an export: choose another --out")
    classifier = Classifier.load(run, base=base, precision="fp32", backend="native")
    if not classifier.manifest.native:
        raise LoralabError(f"{run} runs through Transformers and peft: {bundle} opens there as it is; there is nothing to export")
    texts = run_folder.read_test_texts(run, CHECKED_ROWS)[0] or load_source("sample").train.texts[:CHECKED_ROWS]
    encoded = _encoded(classifier, texts)
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(target) as folder:
        again = _WRITERS[form](classifier, bundle, folder, base)
        found = check(classifier.network, again, encoded, form)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        result = Export(target, form, size, len(encoded), *found)
        write_json(folder / run_folder.EXPORT_CHECK, {**dataclasses.asdict(result), "folder": str(target)})
    return result


def check(ours: ClassifierModel, theirs: ClassifierModel, encoded: Encoded, form: str) -> tuple[float, float]:
    """Return the largest difference of a logit and the share of equal predictions. Raises RunFailed beyond what `form` allows."""
    expected = _by_batches(ours, encoded, 32)
    found = np.stack([_by_batches(theirs, encoded, batch) for batch in BATCHES])
    worst = float(np.abs(found - expected).max())
    agreement = float((found.argmax(axis=2) == expected.argmax(axis=1)).mean(axis=1).min())
    if not worst <= CLOSE.get(form, np.inf):  # NaN too
        raise RunFailed(f"the {form} export differs by {worst:.2g} in a logit, where {CLOSE[form]:g} is allowed: nothing was kept")
    if form == "onnx-int8" and agreement < AGREEMENT:
        raise RunFailed(
            f"in 8 bits {agreement:.1%} of {len(encoded)} predictions are the same, where {AGREEMENT:.0%} are asked: nothing was "
            "kept; use --to onnx"
        )
    return worst, agreement


def _by_batches(network: ClassifierModel, encoded: Encoded, size: int) -> npt.NDArray[np.float32]:
    parts = (np.arange(start, min(start + size, len(encoded))) for start in range(0, len(encoded), size))
    return np.concatenate([logits_of(network, encoded, rows=rows) for rows in parts])


def _encoded(classifier: Classifier, texts: Sequence[str]) -> Encoded:
    manifest = classifier.manifest
    examples = Examples(list(texts), None, np.arange(len(texts)), classifier.classes)
    return encode(examples, tokenizer=classifier.tokenizer, clean=manifest.clean, pad_id=manifest.dims.pad_id)


def _merged(classifier: Classifier, bundle: Path, folder: Path, base: str | None) -> ClassifierModel:
    network: Any = classifier.network
    manifest = dataclasses.replace(classifier.manifest, tuning="full")
    save_bundle(folder, network, manifest, classifier.tokenizer.to_str())
    settings = Path(manifest.base_folder) / CONFIG
    if manifest.pooling == "cls" and manifest.head == "default" and settings.is_file():  # a classifier that Transformers knows
        names = {str(i): name for i, name in enumerate(manifest.classes)}
        architecture = network.dims.architecture.classes[1]
        ids = {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}
        write_json(folder / CONFIG, {**read_json(settings), "architectures": [architecture], "dtype": "float32", **ids})
    return load_bundle(folder)[0]


def _peft(classifier: Classifier, bundle: Path, folder: Path, base: str | None) -> ClassifierModel:
    if not (bundle / ADAPTER_CONFIG).is_file():
        raise LoralabError(f"{bundle} has no adapter (tuning={classifier.manifest.tuning}): use --to merged")
    for path in bundle.iterdir():
        shutil.copyfile(path, folder / path.name)
    return load_bundle(folder, base)[0]


def _onnx(classifier: Classifier, bundle: Path, folder: Path, base: str | None) -> ClassifierModel:
    from loralab.inference.onnx_model import ONNX, OnnxClassifier, to_onnx

    network: Any = classifier.network
    to_onnx(network, folder / ONNX)
    for name in (MANIFEST, "tokenizer.json"):
        shutil.copyfile(bundle / name, folder / name)
    return OnnxClassifier(folder / ONNX)


def _onnx_int8(classifier: Classifier, bundle: Path, folder: Path, base: str | None) -> ClassifierModel:
    from loralab.inference.onnx_model import ONNX, OnnxClassifier, quantize

    _onnx(classifier, bundle, folder, base)
    whole = folder / "whole.onnx"
    (folder / ONNX).rename(whole)
    quantize(whole, folder / ONNX)
    whole.unlink()
    return OnnxClassifier(folder / ONNX)


_WRITERS: dict[str, Callable[[Classifier, Path, Path, str | None], ClassifierModel]] = {
    "merged": _merged,
    "peft": _peft,
    "onnx": _onnx,
    "onnx-int8": _onnx_int8,
}
