"""Export a run for Transformers, peft, sentence-transformers or ONNX Runtime. Every export is checked before it is kept.

The check has two parts: loralab reads the export back, and the library it is made for reads it in a process without loralab.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined

from loralab.config import DataConfig
from loralab.data.clean import clean_text, replace_surrogates
from loralab.data.sources import load_source
from loralab.data.types import Encoded
from loralab.errors import LoralabError, RunFailed, suggest
from loralab.inference import outside
from loralab.inference.classifier import Classifier
from loralab.inference.export_formats import SENTENCE, WRITERS, ExportSource, check_exportable
from loralab.inference.quantized import AccuracyComparison, compare_accuracy, labelled_texts
from loralab.model.bundle import find_base
from loralab.model.hub_files import base_config, base_reference
from loralab.model.interface import ClassifierModel
from loralab.model.tensor_files import HEAD_WEIGHTS
from loralab.safe_files import check_folder, exists
from loralab.storage import run_folder, run_predictions
from loralab.storage.files import atomic_folder
from loralab.storage.sealed import record_files, write_sealed
from loralab.training.scoring import logits_of

FORMATS = tuple(WRITERS)
INT8 = "onnx-int8"
CHECKED_ROWS, OUTSIDE_ROWS = 256, 16
BATCH_SIZES = {1: 24, 7: 49, 32: CHECKED_ROWS + len(outside.HARD_TEXTS)}
"""How many texts are compared in batches of each size. Small batches are slow."""
TOLERANCE = 1e-4
"""The largest allowed difference of a logit, for logits up to 20; in proportion for larger ones, which fp32 rounds more."""
Logits = npt.NDArray[np.float32]
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Export:
    """An export and its check: the largest difference of a logit and the share of equal predictions over `rows` texts.

    outside: the packages that read it in a process of their own, with the largest difference there; empty if they are not
    installed. accuracy: of 8 bits, on labelled rows. remark: what a user should know.
    """

    folder: Path
    format: str
    megabytes: float
    rows: int
    largest_difference: float
    agreement: float
    temperature: float
    outside: str = ""
    outside_difference: float | None = None
    accuracy: AccuracyComparison | None = None
    remark: str = ""


def export_run(
    run: Path,
    format: str,
    out: Path | None = None,
    *,
    base: str | None = None,
    overwrite: bool = False,
    accept: bool = False,
    progress: Progress = lambda stage: None,
) -> Export:
    """Export a run to `out` (default: the run's exports/FORMAT) and check it.

    format: merged (all weights, for Transformers), peft (the adapter), sentence-transformers, onnx (fp32) or onnx-int8. Logits are
    divided by the run's temperature, so their softmax gives the run's probabilities. An export is discarded if a logit differs by
    more than TOLERANCE, or if McNemar's test shows that 8 bits cost accuracy; `accept` keeps the latter. progress: receives what is
    done now. Raises LoralabError, before anything is written, for a model without such a form, and RunFailed if a check fails.
    """
    if format not in FORMATS:
        raise LoralabError(f"--to {format}: there is no such format{suggest(format, FORMATS)}; valid: {', '.join(FORMATS)}")
    bundle = run_folder.model_folder(run)
    target = out or run / run_folder.EXPORTS / format
    if exists(run / run_folder.EXPORTS):
        check_folder(run / run_folder.EXPORTS)
    if target.exists() and not overwrite:
        raise LoralabError(f"{target} exists: choose another --out, or replace it with --overwrite")
    if target.exists() and not (target / run_folder.EXPORT_CHECK).is_file():
        raise LoralabError(f"{target} is not an export: choose another --out")
    progress("loading the run")
    classifier = Classifier.load(run, base=base, precision="fp32", backend="native")
    manifest = classifier.manifest
    texts = run_predictions.read_test_texts(run, CHECKED_ROWS)[0] or list(load_source(DataConfig()).train.texts[:CHECKED_ROWS])
    texts = [*outside.HARD_TEXTS, *texts]
    encoded = classifier.encode(texts)
    source = ExportSource(
        classifier.model, manifest, classifier.tokenizer.to_str(), base_config(manifest, bundle), bundle, base, largest=0.0
    )
    check_exportable(source, format)
    labelled = labelled_texts(run, manifest.classes) if format == INT8 else None
    if format == INT8 and labelled is None and not accept:
        raise LoralabError(f"{run} has no labelled rows to compare 8 bits with fp32 on: keep the export unchecked with --accept")
    progress(f"predicting {len(texts):,} texts with the run")
    expected = logits_of(classifier.model, encoded) / np.float32(manifest.temperature)
    source = dataclasses.replace(source, largest=float(np.linalg.norm(expected, axis=1).max()))
    before = logits_of(classifier.model, classifier.encode(labelled.texts)) if labelled else None
    with atomic_folder(target) as folder:
        progress(f"writing the {format} export")
        reloaded = WRITERS[format](source, folder)
        _write_readme(source, folder, format)
        difference, agreement = 0.0, 1.0
        if reloaded is not None:
            progress("comparing the export with the run")
            difference, agreement = check(expected, reloaded, encoded, format)
        accuracy = None
        if labelled is not None and before is not None and reloaded is not None:
            progress(f"comparing accuracy on {len(labelled.texts):,} {labelled.split} rows")
            accuracy = compare_accuracy(labelled, before, logits_of(reloaded, classifier.encode(labelled.texts)))
            if accuracy.worse and not accept:
                raise RunFailed(f"{accuracy}: the export was discarded; use --to onnx, or keep it with --accept")
        kind = format.removesuffix("-int8")
        remark = accuracy.caution if accuracy else ""
        if missing := outside.missing_packages(kind):
            closed = f"not opened outside loralab, because {' and '.join(missing)} is not installed"
            remark = "; ".join(filter(None, (remark, closed)))
        else:
            progress(f"opening the export with {' and '.join(outside.PACKAGES[kind])}, in a process without loralab")
            some = len(outside.HARD_TEXTS) + OUTSIDE_ROWS
            slack = 2 * difference if format == INT8 else 0.0  # 8-bit logits depend on the batch, whose range sets the scale
            there = _check_outside(source, folder, kind, texts[:some], expected[:some], slack)
            if reloaded is None:
                difference, agreement = there, 1.0
        result = Export(
            target,
            format,
            megabytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6,
            rows=len(encoded),
            largest_difference=difference,
            agreement=agreement,
            temperature=manifest.temperature,
            outside="" if missing else ", ".join(outside.PACKAGES[kind]),
            outside_difference=None if missing else there,
            accuracy=accuracy,
            remark=remark,
        )
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        content = {**dataclasses.asdict(result), "folder": str(target), "run": run_folder.run_identity(run)}
        write_sealed(folder / run_folder.EXPORT_CHECK, content, record_files(folder, names))
    return result


def check(expected: Logits, exported: ClassifierModel, encoded: Encoded, format: str) -> tuple[float, float]:
    """Return the largest difference of a logit and the share of equal predictions. Raises RunFailed beyond the tolerance."""
    difference, agreement = 0.0, 1.0
    for size, rows in BATCH_SIZES.items():
        logits = _batched_logits(exported, encoded, size, min(rows, len(encoded)))
        reference = expected[: len(logits)]
        difference = float(np.maximum(difference, np.abs(logits - reference).max()))  # keeps NaN
        agreement = min(agreement, float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()))
    if format != INT8:
        _require(difference, expected, f"the {format} export")
    return difference, agreement


def _check_outside(source: ExportSource, folder: Path, kind: str, texts: Sequence[str], expected: Logits, slack: float) -> float:
    """Return the largest difference of a logit from another library's. Raises RunFailed beyond the tolerance."""
    manifest = source.manifest
    base = str(find_base(manifest, source.base).folder) if kind == "peft" else ""
    cleaned = [replace_surrogates(clean_text(text, manifest.clean)) for text in texts]
    (logits,) = outside.run_jobs([outside.job(kind, folder, manifest, base)], cleaned)
    if isinstance(logits, str):
        raise RunFailed(f"the {kind} export does not open outside loralab ({logits}): it was discarded")
    difference = float(np.abs(logits - expected).max())
    _require(difference - slack, expected, f"the {kind} export, read by {outside.PACKAGES[kind][-1]},")
    return difference


def _require(difference: float, expected: Logits, export: str) -> None:
    limit = TOLERANCE * max(1.0, float(np.abs(expected).max()) / 20)
    if not difference <= limit:  # also for NaN
        raise RunFailed(f"a logit of {export} differs by {difference:.2g}, more than {limit:.2g}: the export was discarded")


def _batched_logits(model: ClassifierModel, encoded: Encoded, size: int, rows: int) -> Logits:
    parts = (np.arange(start, min(start + size, rows)) for start in range(0, rows, size))
    return np.concatenate([logits_of(model, encoded, rows=rows) for rows in parts])


def _write_readme(source: ExportSource, folder: Path, format: str) -> None:
    """Write README.md: the contract of the input and output, and code that runs."""
    manifest = source.manifest
    name, revision = base_reference(manifest)
    environment = Environment(  # noqa: S701 - Markdown
        loader=PackageLoader("loralab.inference"), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    readme = environment.get_template("README.md.jinja").render(
        format=format.removesuffix("-int8"),
        title={"merged": "Merged", "peft": "peft", SENTENCE: "sentence-transformers"}.get(format, "ONNX"),
        temperature=f"{manifest.temperature:.6g}",
        max_length=min(manifest.max_length, manifest.dims.longest),
        clean=manifest.clean,
        classes=manifest.classes,
        pooling=manifest.pooling,
        head_file=(folder / HEAD_WEIGHTS).is_file(),
        added_layer=format == "merged" and manifest.pooling == "mean",
        base=name,
        revision=revision,
        sha256=manifest.base_sha256,
    )
    (folder / "README.md").write_text(readme, encoding="utf-8")
