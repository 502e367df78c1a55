"""Classify texts with a trained run: in memory, or a file of any size into a CSV, JSON Lines or submission file."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from loralab.data.clean import check_steps
from loralab.data.sources import read_examples, stream_texts
from loralab.data.tokenize import encode, load_tokenizer
from loralab.data.types import Encoded, Examples
from loralab.errors import LoralabError
from loralab.inference.onnx_model import ONNX, OnnxClassifier
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


@dataclass(frozen=True)
class Predictions:
    """One row a text, in input order. labels: class names; probabilities: (n, classes) fp32, rows sum to 1.

    The probabilities are those at the temperature that was fitted on the run's validation rows.
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
        """The number of each predicted class: (n,)."""
        numbers: npt.NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return numbers


def choose_folder(path: Path, backend: Backend = "auto") -> Path:
    """Return the folder that a backend reads: the run's bundle, one of its exports, or the path itself where it is one of these."""
    if backend not in get_args(Backend):
        raise LoralabError(f"there is no backend {backend!r}; valid: {', '.join(get_args(Backend))}")
    if backend in ("auto", "native") or (path / ONNX).is_file():
        if backend.startswith("onnx") and (form := run_folder.export_format(path)) not in (None, backend):
            raise LoralabError(f"{path} is an export as {form}, not {backend}: load it with backend={form!r}, or as it is")
        return run_folder.model_folder(path)
    exported = path / run_folder.EXPORTS / backend
    if not (exported / ONNX).is_file():
        raise LoralabError(f"{path} has no {backend} export yet: loralab export {path} --to {backend}")
    return exported


def check_cleaning(manifest: Manifest, folder: Path) -> None:
    """Raise LoralabError for a cleaning step that this version does not have."""
    try:
        check_steps(manifest.clean)
    except LoralabError as error:
        raise LoralabError(f"{folder}: {error}") from error


class Classifier:
    """A trained network with its tokenizer, cleaning and class names; the adapter is merged where the network is native."""

    def __init__(self, network: ClassifierModel, manifest: Manifest, tokenizer: Tokenizer, threads: int | None = None) -> None:
        self.network = network
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
        """Load a run, a bundle, an export, or a folder that peft saved; offline where the base is on this disk.

        `base` says where the base lies when it has moved. `backend`: native; onnx or onnx-int8, where `loralab export` wrote it;
        auto: an export as it is and a run natively, which was the faster in fp32 too (docs/lab). Raises LoralabError for a
        missing or damaged folder, and for a base that is not the one trained on.
        """
        folder = choose_folder(Path(path), backend)
        if (folder / ONNX).is_file():
            if backend == "native":
                raise LoralabError(f"{folder} is an ONNX export: load the run that it was made of")
            manifest = read_manifest(folder)
            check_cleaning(manifest, folder)
            tokenizer = load_tokenizer(folder, min(manifest.max_length, manifest.dims.longest))
            return cls(OnnxClassifier(folder / ONNX, threads), manifest, tokenizer)
        network, manifest = load_bundle(folder, base)
        check_cleaning(manifest, folder)
        has_tokenizer = (folder / "tokenizer.json").is_file()  # a folder that peft saved may have none
        tokenizer = load_tokenizer(
            folder if has_tokenizer else Path(manifest.base_folder), min(manifest.max_length, manifest.dims.longest)
        )
        network.merge()
        network.requires_grad_(False)  # what was trained whole is cast once, not in every pass
        device.move_to_device(network, precision)
        return cls(network, manifest, tokenizer, threads)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    def predict(self, texts: Sequence[str]) -> Predictions:
        """Classify texts, in their order. Raises LoralabError for a value that is not a text."""
        return self._predictions(self.logits(texts))

    def predict_with_features(self, texts: Sequence[str]) -> tuple[Predictions, npt.NDArray[np.float32]]:
        """Classify texts, one at least, and tell in the same pass what the last linear map reads of each: (n, width) fp32."""
        if not list(self.network.head.parameters()):
            raise LoralabError("an ONNX file tells its logits only: load the run with backend='native'")
        with device.thread_limit(self.threads):
            features, logits = features_and_logits(self.network, self._encode(texts), last_linear(self.network.head))
        return self._predictions(logits), features

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return what the network says of each text, before temperature and softmax: (n, classes) fp32."""
        encoded = self._encode(texts)
        with device.thread_limit(self.threads):
            return logits_of(self.network, encoded) if len(encoded) else np.zeros((0, len(self.classes)), dtype=np.float32)

    def _encode(self, texts: Sequence[str]) -> Encoded:
        if isinstance(texts, str):
            raise LoralabError("predict takes a list of texts, not one text: write predict([text])")
        if odd := [text for text in texts if not isinstance(text, str)]:
            raise LoralabError(f"predict takes texts, not {type(odd[0]).__name__}: {odd[0]!r}")
        examples = Examples(texts, None, np.arange(len(texts)), self.classes)
        return encode(examples, tokenizer=self.tokenizer, clean=self.manifest.clean, pad_id=self.manifest.dims.pad_id)

    def _predictions(self, logits: npt.NDArray[np.float32]) -> Predictions:
        logits = logits / np.float32(self.manifest.temperature)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = shifted / shifted.sum(axis=1, keepdims=True)
        return Predictions([self.classes[i] for i in probabilities.argmax(axis=1)], probabilities, self.classes)

    def evaluate(self, path: str | Path, *, text: Sequence[str] | None = None, label: str | None = None) -> dict[str, float]:
        """Score a labelled file: see `loralab.metrics.scores`. Raises LoralabError for labels that are not this run's."""
        from loralab.metrics import scores

        examples, _ = read_examples(Path(path), text=text, label=label, classes=self.classes, need_labels=True)
        return scores(self.logits(examples.texts), examples.require_labels(), self.classes)

    def predict_file(
        self,
        path: str | Path,
        out: str | Path,
        *,
        text: Sequence[str] | None = None,
        form: str = "csv",
        progress: Callable[[int], None] = lambda rows: None,
    ) -> int:
        """Classify a file chunk by chunk into `out`, which appears whole or not at all; return the number of rows.

        form: csv (id, text, label, confidence, one column a class), jsonl (the same), or submission (ID, Label as numbers from 0).
        """
        if form not in FORMATS:
            raise LoralabError(f"there is no format {form!r}; valid: {', '.join(FORMATS)}")
        target = Path(out)
        if not target.parent.is_dir():
            raise LoralabError(f"there is no folder {target.parent} to write {target.name} into")
        if target.is_dir():
            raise LoralabError(f"{target} is a folder: name a file for the predictions")
        if target.exists() and Path(path).exists() and target.samefile(path):
            raise LoralabError(f"{target} is the file to be classified: name another one for the predictions")
        done = 0
        with write_errors(target), atomic_write(target) as file:
            write = _writer(file, form, self.classes)
            for texts in stream_texts(Path(path), text):
                write(done, texts, self.predict(texts))
                done += len(texts)
                progress(done)
            if done == 0:
                raise LoralabError(f"{path} has no rows")
            if form == "submission":
                file.flush()
                check_submission(Path(file.name), done, len(self.classes))
        return done


def check_submission(path: Path, rows: int, classes: int) -> None:
    """Raise LoralabError unless the file holds `rows` lines ID,Label with IDs 0, 1, 2, ... in order and labels below `classes`."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        if tuple(next(lines, ())) != SUBMISSION_HEADER:
            raise LoralabError(f"{path}: the header is not {','.join(SUBMISSION_HEADER)}")
        number = -1
        for number, line in enumerate(lines):
            if len(line) != 2 or line[0] != str(number):
                raise LoralabError(f"{path}: line {number + 2} is {line}, where ID {number} belongs")
            if not line[1].isdecimal() or int(line[1]) >= classes:
                raise LoralabError(f"{path}: label {line[1]!r} of ID {number} is not a class number 0-{classes - 1}")
    if number + 1 != rows:
        raise LoralabError(f"{path}: {number + 1} rows, where {rows} were to be classified")


def _writer(file: IO[str], form: str, classes: tuple[str, ...]) -> Callable[[int, Sequence[str], Predictions], None]:
    """Return a function that writes predictions whose first row has the number given."""
    if form == "jsonl":

        def write_json(first: int, texts: Sequence[str], found: Predictions) -> None:
            for row, label, confidence, values in _rows(first, found):
                chances = dict(zip(classes, values, strict=True))
                line = {"id": row, "text": texts[row - first], "label": label, "confidence": confidence, "probabilities": chances}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

        return write_json
    table = csv.writer(file, lineterminator="\n")
    if form == "submission":
        table.writerow(SUBMISSION_HEADER)
        return lambda first, texts, found: table.writerows((first + i, int(index)) for i, index in enumerate(found.indices))
    table.writerow(["id", "text", "label", "confidence", *classes])
    return lambda first, texts, found: table.writerows(
        [row, texts[row - first], label, confidence, *values] for row, label, confidence, values in _rows(first, found)
    )


def _rows(first: int, found: Predictions) -> Iterator[tuple[int, str, float, list[float]]]:
    rounded = np.round(found.probabilities.astype(np.float64), 5)
    for i, (label, values) in enumerate(zip(found.labels, rounded.tolist(), strict=True)):
        yield first + i, label, max(values), values
