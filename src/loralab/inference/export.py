"""Export a run as merged weights, a peft folder, ONNX, or ONNX with 8-bit weights. Every export is checked before it is kept."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined

from loralab.config import DataConfig
from loralab.data.sources import load_source
from loralab.data.types import Encoded
from loralab.errors import LoralabError, RunFailed, suggest
from loralab.inference.classifier import Classifier
from loralab.inference.onnx_model import INPUTS, ONNX, OnnxClassifier, quantize, to_onnx
from loralab.model.bundle import load_bundle, save_bundle
from loralab.model.checkpoints import read_json
from loralab.model.interface import ClassifierModel
from loralab.model.manifest import MANIFEST, Manifest
from loralab.model.peft_files import ADAPTER_CONFIG
from loralab.storage import run_folder
from loralab.storage.files import atomic_folder, write_json
from loralab.training.scoring import logits_of

FORMATS = ("merged", "peft", "onnx", "onnx-int8")
CONFIG = "config.json"
CHECKED_ROWS, BATCH_SIZES = 256, (1, 7, 32)
TOLERANCE = {"merged": 1e-5, "peft": 1e-5, "onnx": 1e-4}
"""The largest allowed difference of a logit."""
MIN_AGREEMENT = 0.99
"""The smallest allowed share of equal predictions in 8 bits, where logits differ by design."""


@dataclasses.dataclass(frozen=True)
class Export:
    """An export and its check: the largest difference of a logit and the share of equal predictions over `rows` texts.

    remark: a restriction of the folder.
    """

    folder: Path
    format: str
    megabytes: float
    rows: int
    largest_difference: float
    agreement: float
    remark: str = ""


def export_run(run: Path, format: str, out: Path | None = None, *, base: str | None = None, overwrite: bool = False) -> Export:
    """Export a run to `out` (default: the run's exports/FORMAT) and check it on the run's own test texts.

    format: merged (all weights under Transformers' names, adapters added), peft (the adapter in peft's format), onnx (fp32) or
    onnx-int8 (8-bit matrix products). Each folder has the tokenizer; all but peft have its settings and a README. Logits are
    compared at batch sizes 1, 7 and 32. An export is discarded if a logit differs by more than TOLERANCE, or if 8 bits give fewer
    than MIN_AGREEMENT equal predictions. Raises LoralabError for a format or run that cannot be exported, RunFailed if
    the check fails.
    """
    if format not in FORMATS:
        raise LoralabError(f"--to {format}: there is no such format{suggest(format, FORMATS)}; valid: {', '.join(FORMATS)}")
    bundle = run_folder.model_folder(run)
    target = out or run / run_folder.EXPORTS / format
    if target.exists() and not overwrite:
        raise LoralabError(f"{target} exists: choose another --out, or replace it with --overwrite")
    if target.exists() and not (target / run_folder.EXPORT_CHECK).is_file():
        raise LoralabError(f"{target} is not an export: choose another --out")
    classifier = Classifier.load(run, base=base, precision="fp32", backend="native")
    if not classifier.manifest.native:
        raise LoralabError(f"{run} uses Transformers and peft, which open {bundle} directly: it needs no export")
    texts = run_folder.read_test_texts(run, CHECKED_ROWS)[0] or load_source(DataConfig()).train.texts[:CHECKED_ROWS]
    encoded = classifier.encode(texts)
    with atomic_folder(target) as folder:
        reloaded = _WRITERS[format](classifier, bundle, folder, base)
        difference, agreement = check(classifier.model, reloaded, encoded, format)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        opens = format != "merged" or (folder / CONFIG).is_file()
        remark = "" if opens else f"only loralab reads this folder: {_restriction(classifier.manifest)}"
        result = Export(target, format, size, len(encoded), difference, agreement, remark)
        write_json(folder / run_folder.EXPORT_CHECK, {**dataclasses.asdict(result), "folder": str(target)})
    return result


def check(original: ClassifierModel, exported: ClassifierModel, encoded: Encoded, format: str) -> tuple[float, float]:
    """Return the largest difference of a logit and the share of equal predictions. Raises RunFailed beyond the tolerance."""
    expected = _batched_logits(original, encoded, 32)
    logits = np.stack([_batched_logits(exported, encoded, size) for size in BATCH_SIZES])
    difference = float(np.abs(logits - expected).max())
    agreement = float((logits.argmax(axis=2) == expected.argmax(axis=1)).mean(axis=1).min())
    if not difference <= TOLERANCE.get(format, np.inf):  # also for NaN
        raise RunFailed(
            f"a logit of the {format} export differs by {difference:.2g}, more than {TOLERANCE[format]:g}: the export was discarded"
        )
    if format == "onnx-int8" and agreement < MIN_AGREEMENT:
        raise RunFailed(
            f"in 8 bits {agreement:.1%} of {len(encoded)} predictions are equal; {MIN_AGREEMENT:.0%} are required: the export was "
            "discarded; use --to onnx"
        )
    return difference, agreement


def _batched_logits(model: ClassifierModel, encoded: Encoded, size: int) -> npt.NDArray[np.float32]:
    parts = (np.arange(start, min(start + size, len(encoded))) for start in range(0, len(encoded), size))
    return np.concatenate([logits_of(model, encoded, rows=rows) for rows in parts])


def _merged(classifier: Classifier, bundle: Path, folder: Path, base: str | None) -> ClassifierModel:
    model: Any = classifier.model
    manifest = dataclasses.replace(classifier.manifest, tuning="full")
    save_bundle(folder, model, manifest, classifier.tokenizer.to_str())
    settings = Path(manifest.base_folder) / CONFIG
    if manifest.pooling == "cls" and manifest.head == "default" and settings.is_file():  # Transformers knows this architecture
        names = {str(i): name for i, name in enumerate(manifest.classes)}
        architecture = model.dims.architecture.classes[1]
        ids = {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}
        write_json(folder / CONFIG, {**read_json(settings), "architectures": [architecture], "dtype": "float32", **ids})
    _write_usage(classifier, folder, "merged", "" if (folder / CONFIG).is_file() else _restriction(manifest))
    return load_bundle(folder)[0]


def _peft(classifier: Classifier, bundle: Path, folder: Path, base: str | None) -> ClassifierModel:
    if not (bundle / ADAPTER_CONFIG).is_file():
        raise LoralabError(f"{bundle} has no adapter (tuning={classifier.manifest.tuning}): use --to merged")
    for path in bundle.iterdir():
        shutil.copyfile(path, folder / path.name)
    return load_bundle(folder, base)[0]


def _onnx(classifier: Classifier, bundle: Path, folder: Path, base: str | None) -> ClassifierModel:
    model: Any = classifier.model
    to_onnx(model, folder / ONNX)
    for name in (MANIFEST, "tokenizer.json"):
        shutil.copyfile(bundle / name, folder / name)
    _write_usage(classifier, folder, "onnx")
    return OnnxClassifier(folder / ONNX)


def _onnx_int8(classifier: Classifier, bundle: Path, folder: Path, base: str | None) -> ClassifierModel:
    _onnx(classifier, bundle, folder, base)
    fp32 = folder / "fp32.onnx"
    (folder / ONNX).rename(fp32)
    quantize(fp32, folder / ONNX)
    fp32.unlink()
    return OnnxClassifier(folder / ONNX)


def _restriction(manifest: Manifest) -> str:
    """Return why Transformers has no class for a merged model."""
    return f"Transformers has no classifier with pooling={manifest.pooling} and head={manifest.head}"


def _write_usage(classifier: Classifier, folder: Path, format: str, restriction: str = "") -> None:
    """Write a README, and tokenizer_config.json: Transformers then cuts texts where the run did, and makes no token_type_ids."""
    manifest = classifier.manifest
    max_length = min(manifest.max_length, manifest.dims.longest)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, "model_input_names": [*INPUTS]}
    pad = classifier.tokenizer.id_to_token(manifest.dims.pad_id)
    write_json(folder / "tokenizer_config.json", {**settings, **({"pad_token": pad} if pad else {})})
    loader = PackageLoader("loralab.inference")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 - Markdown
    readme = environment.get_template("README.md.jinja").render(
        format=format,
        restriction=restriction,
        temperature=f"{manifest.temperature:.6g}",
        max_length=max_length,
        clean=manifest.clean,
        classes=manifest.classes,
    )
    (folder / "README.md").write_text(readme, encoding="utf-8")


_WRITERS: dict[str, Callable[[Classifier, Path, Path, str | None], ClassifierModel]] = {
    "merged": _merged,
    "peft": _peft,
    "onnx": _onnx,
    "onnx-int8": _onnx_int8,
}
