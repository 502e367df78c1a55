"""Classify texts with a trained run: in memory, or from a file of any size into CSV, JSON Lines or a submission."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from loralab.config import DataConfig
from loralab.data.clean import check_steps
from loralab.data.labels import ClassTable
from loralab.data.readers import local_path
from loralab.data.sources import RawExamples, read_examples, stream_texts
from loralab.data.tokenize import encode, load_tokenizer
from loralab.data.types import Encoded, Examples
from loralab.errors import LoralabError, suggest
from loralab.inference.onnx_model import ONNX, OnnxClassifier
from loralab.metrics import scores, softmax
from loralab.model import device
from loralab.model.bundle import load_bundle
from loralab.model.interface import ClassifierModel
from loralab.model.manifest import Manifest, read_manifest
from loralab.storage import run_folder
from loralab.storage.files import atomic_write, write_errors
from loralab.training.scoring import features_and_logits, last_linear, logits_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Backend = Literal["auto", "native", "onnx", "onnx-int8"]
FORMATS = ("csv", "jsonl", "submission")
SUBMISSION_HEADER = ("ID", "Label")
CSV_COLUMNS = ("id", "text", "label", "confidence")


@dataclass(frozen=True)
class Predictions:
    """Predicted labels (class names) and probabilities (n, classes) fp32, one row per text in input order.

    The probabilities use the temperature that was fitted on the run's validation rows.
    """

    labels: list[str]
    probabilities: npt.NDArray[np.float32]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """The probability of each predicted class: (n,)."""
        highest: npt.NDArray[np.float32] = self.probabilities.max(axis=1)
        return highest

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """The index of each predicted class: (n,)."""
        indices: npt.NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return indices


def choose_folder(path: Path, backend: Backend = "auto") -> Path:
    """Return the folder that a backend reads: the run's bundle, one of its exports, or `path` itself if it is one of these."""
    if backend not in get_args(Backend):
        raise LoralabError(f"there is no backend {backend!r}; valid: {', '.join(get_args(Backend))}")
    if backend in ("auto", "native") or (path / ONNX).is_file():
        if backend.startswith("onnx") and (exported := run_folder.export_format(path)) not in (None, backend):
            raise LoralabError(
                f"{path} is an {exported} export, not {backend}: load it with backend={exported!r} or backend='auto'"
            )
        return run_folder.model_folder(path)
    folder = path / run_folder.EXPORTS / backend
    if not (folder / ONNX).is_file():
        raise LoralabError(f"{path} has no {backend} export yet: loralab export {path} --to {backend}")
    return folder


def check_cleaning(manifest: Manifest, folder: Path) -> None:
    """Raise LoralabError for a cleaning step that this version does not have."""
    try:
        check_steps(manifest.clean)
    except LoralabError as error:
        raise LoralabError(f"{folder}: {error}") from error


class Classifier:
    """A trained model with its tokenizer, cleaning steps and class names. Adapters of a native model are merged."""

    def __init__(self, model: ClassifierModel, manifest: Manifest, tokenizer: Tokenizer, threads: int | None = None) -> None:
        self.model = model
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.threads = threads

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        base: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
        backend: Backend = "auto",
    ) -> Classifier:
        """Load a run, a bundle, an export, or a folder saved by peft. Works offline if the base encoder is on this disk.

        base: the encoder's folder, if it has moved. precision: auto, fp32, bf16 or fp16. threads: CPU threads of predictions; None:
        torch's own number. backend: native; onnx or onnx-int8 (after `loralab export`); auto: an export as it is, a run natively.
        Raises LoralabError for a missing or damaged folder, and for another base than the run was trained on.
        """
        folder = choose_folder(Path(path), backend)
        if (folder / ONNX).is_file():
            if backend == "native":
                raise LoralabError(f"{folder} is an ONNX export: load the run it was exported from")
            manifest = read_manifest(folder)
            check_cleaning(manifest, folder)
            tokenizer = load_tokenizer(folder, min(manifest.max_length, manifest.dims.longest))
            return cls(OnnxClassifier(folder / ONNX, threads), manifest, tokenizer)
        model, manifest = load_bundle(folder, base)
        check_cleaning(manifest, folder)
        has_tokenizer = (folder / "tokenizer.json").is_file()  # folders saved by peft may have none
        tokenizer = load_tokenizer(
            folder if has_tokenizer else Path(manifest.base_folder), min(manifest.max_length, manifest.dims.longest)
        )
        model.merge()
        model.requires_grad_(False)  # so that fully trained weights are cast once, here, and not in every batch
        device.move_to_device(model, precision)
        return cls(model, manifest, tokenizer, threads)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    @property
    def class_table(self) -> ClassTable:
        """The classes and the label values that stand for them in the training file."""
        values = (self.manifest.data.values if self.manifest.data else None) or {}
        return ClassTable(self.classes, tuple(tuple(values.get(name, ())) for name in self.classes))

    def read_labelled(self, path: str | Path, data: DataConfig | None = None) -> tuple[Examples, RawExamples]:
        """Read the labelled rows of a file as the run's data contract says, and everything about the file.

        data: settings of `data` that say otherwise. Raises LoralabError for a label that is not a class of the run.
        """
        return read_examples(local_path(path), data or DataConfig(), self.class_table, self.manifest.data)

    def predict(self, texts: Sequence[str]) -> Predictions:
        """Classify texts. Raises LoralabError for a value that is not a str."""
        return self._predictions(self.logits(texts))

    def predict_with_features(self, texts: Sequence[str]) -> tuple[Predictions, npt.NDArray[np.float32]]:
        """Classify texts (at least one). Also return the features (n, width) fp32 that enter the last linear map."""
        if not list(self.model.head.parameters()):
            raise LoralabError("an ONNX model returns only logits: load the run with backend='native'")
        with device.thread_limit(self.threads):
            features, logits = features_and_logits(self.model, self._encode(texts), last_linear(self.model.head))
        return self._predictions(logits), features

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the logits of each text, without the temperature: (n, classes) fp32."""
        encoded = self._encode(texts)
        with device.thread_limit(self.threads):
            return logits_of(self.model, encoded) if len(encoded) else np.zeros((0, len(self.classes)), dtype=np.float32)

    def _encode(self, texts: Sequence[str]) -> Encoded:
        if isinstance(texts, str):
            raise LoralabError("predict takes a list of texts, not one text: write predict([text])")
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise LoralabError(f"predict takes texts, not {type(text).__name__}: item {position} is {text!r}")
        examples = Examples(texts, None, np.arange(len(texts)), self.classes)
        return encode(examples, tokenizer=self.tokenizer, clean=self.manifest.clean, pad_id=self.manifest.dims.pad_id)

    def _predictions(self, logits: npt.NDArray[np.float32]) -> Predictions:
        probabilities = softmax(logits, self.manifest.temperature).astype(np.float32)
        return Predictions([self.classes[i] for i in probabilities.argmax(axis=1)], probabilities, self.classes)

    def evaluate(self, path: str | Path, data: DataConfig | None = None) -> dict[str, float]:
        """Score a labelled file (see `loralab.metrics.scores`). Arguments and errors as in `read_labelled`."""
        examples, _ = self.read_labelled(path, data)
        return scores(self.logits(examples.texts), examples.require_labels(), self.classes)

    def predict_file(
        self,
        path: str | Path,
        out: str | Path,
        data: DataConfig | None = None,
        *,
        format: str = "csv",
        progress: Callable[[int], None] = lambda rows: None,
    ) -> int:
        """Classify a file of any size and write the predictions to `out`. Arguments and result as in `predict_to_file`."""
        target = Path(out)
        if target.exists() and Path(path).exists() and target.samefile(path):
            raise LoralabError(f"{target} is the input file: give another file name for the predictions")
        return self.predict_to_file(
            stream_texts(Path(path), data or DataConfig(), self.manifest.data),
            target,
            source=str(path),
            format=format,
            progress=progress,
        )

    def predict_to_file(
        self,
        chunks: Iterable[Sequence[str]],
        out: str | Path,
        *,
        source: str = "the input",
        format: str = "csv",
        progress: Callable[[int], None] = lambda rows: None,
    ) -> int:
        """Classify texts in chunks and write the predictions to `out` atomically. Returns the number of rows.

        source: what messages call the texts. format: csv (id, text, label, confidence, a column per class), jsonl (the same
        fields), or submission (ID and Label, the class index from 0). progress: called with the number of finished rows.
        """
        if format not in FORMATS:
            raise LoralabError(f"there is no format {format!r}{suggest(format, FORMATS)}; valid: {', '.join(FORMATS)}")
        target = Path(out)
        if not target.parent.is_dir():
            raise LoralabError(f"there is no folder {target.parent} for {target.name}: create it first")
        if target.is_dir():
            raise LoralabError(f"{target} is a folder: give a file name for the predictions")
        done = 0
        with write_errors(target), atomic_write(target) as file:
            write = _writer(file, format, self.classes)
            for texts in chunks:
                write(done, texts, self.predict(texts))
                done += len(texts)
                progress(done)
            if done == 0:
                raise LoralabError(f"{source} has no rows")
            if format == "submission":
                file.flush()
                check_submission(Path(file.name), done, len(self.classes))
        return done


def check_submission(path: Path, rows: int, classes: int) -> None:
    """Raise LoralabError unless the file has `rows` lines ID,Label with the IDs 0, 1, 2, ... and labels below `classes`."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        if tuple(next(lines, ())) != SUBMISSION_HEADER:
            raise LoralabError(f"{path}: the header is not {','.join(SUBMISSION_HEADER)}")
        number = -1
        for number, line in enumerate(lines):
            if len(line) != 2 or line[0] != str(number):
                raise LoralabError(f"{path}: line {number + 2} is {line}, expected ID {number}")
            if not line[1].isdecimal() or int(line[1]) >= classes:
                raise LoralabError(f"{path}: label {line[1]!r} of ID {number} is not a class index from 0 to {classes - 1}")
    if number + 1 != rows:
        raise LoralabError(f"{path}: {number + 1} rows instead of {rows}")


def class_columns(classes: Sequence[str]) -> list[str]:
    """Return the CSV column of each class: its name, or class:NAME for a class named like one of the other columns."""
    return [f"class:{name}" if name in CSV_COLUMNS else name for name in classes]


def _writer(file: IO[str], format: str, classes: tuple[str, ...]) -> Callable[[int, Sequence[str], Predictions], None]:
    """Return a function that writes predictions, given the number of their first row and the texts."""
    if format == "jsonl":

        def write_lines(first: int, texts: Sequence[str], predictions: Predictions) -> None:
            for row, label, confidence, values in _rows(first, predictions):
                probabilities = dict(zip(classes, values, strict=True))
                line = {"id": row, "text": texts[row - first], "label": label, "confidence": confidence}
                file.write(json.dumps({**line, "probabilities": probabilities}, ensure_ascii=False) + "\n")

        return write_lines
    table = csv.writer(file, lineterminator="\n")
    if format == "submission":
        table.writerow(SUBMISSION_HEADER)
        return lambda first, texts, predictions: table.writerows(
            (first + i, int(index)) for i, index in enumerate(predictions.indices)
        )
    table.writerow([*CSV_COLUMNS, *class_columns(classes)])
    return lambda first, texts, predictions: table.writerows(
        [row, texts[row - first], label, confidence, *values] for row, label, confidence, values in _rows(first, predictions)
    )


def _rows(first: int, predictions: Predictions) -> Iterator[tuple[int, str, float, list[float]]]:
    """Yield row number, label, confidence and probabilities, rounded to five digits."""
    rounded = np.round(predictions.probabilities.astype(np.float64), 5)
    for i, (label, values) in enumerate(zip(predictions.labels, rounded.tolist(), strict=True)):
        yield first + i, label, max(values), values
