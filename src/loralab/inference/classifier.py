"""Classify texts with a trained run: in memory, or from a file of any size into CSV, JSON Lines or a submission."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from loralab.config import DataConfig
from loralab.config.paths import local_path
from loralab.data.clean import check_steps
from loralab.data.columns import Columns
from loralab.data.labels import ClassTable
from loralab.data.sources import RawExamples, read_examples
from loralab.data.tokenize import encode, load_tokenizer
from loralab.data.types import Encoded, Examples, MemoryTable, Notice, TablePlace
from loralab.errors import LoralabError
from loralab.inference.onnx_model import ONNX, OnnxClassifier
from loralab.inference.prediction_files import (
    CsvWriter,
    InputRows,
    JsonLinesWriter,
    OutputFormat,
    PredictionInput,
    PredictionReport,
    Predictions,
    PredictionWriter,
    TextChecks,
    check_format,
    check_target,
    read_input,
)
from loralab.inference.submissions import SubmissionWriter, Template, choose_labels, labels_like, read_template
from loralab.metrics import scores, softmax
from loralab.model.bundle import load_bundle
from loralab.model.checkpoints import BASE_CONFIG
from loralab.model.device import choose_device, move_to_device, recorded_precision, thread_limit
from loralab.model.interface import ClassifierModel
from loralab.model.manifest import MANIFEST, Manifest, read_manifest
from loralab.model.peft_files import ADAPTER_CONFIG
from loralab.model.snapshots import download_model, model_id
from loralab.safe_files import check_folder, exists
from loralab.storage import run_folder
from loralab.storage.files import atomic_write, write_errors
from loralab.training.scoring import features_and_logits, last_linear, logits_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Backend = Literal["auto", "native", "onnx", "onnx-int8"]


@dataclass(frozen=True)
class FileScores:
    """The scores of a labelled file, its columns and format, and the decisions taken."""

    scores: dict[str, float]
    columns: Columns
    facts: Mapping[str, Any]
    notices: tuple[Notice, ...]


def local_folder(path: Path, revision: str | None = None) -> Path:
    """Return the path of a folder on this disk, or download the model of a hub id. Local folders win.

    Raises LoralabError if there is neither, for a revision of a local folder, and for a hub model that loralab cannot open.
    """
    if path.exists():
        if revision is not None:
            raise LoralabError(f"revision={revision!r}: {path} is a local folder and has no revisions: leave the revision out")
        return path
    name = model_id(path, known_to_be_remote=revision is not None)
    if name is None:
        return path
    folder = download_model(name, revision)
    if (folder / MANIFEST).is_file() or (folder / ADAPTER_CONFIG).is_file():
        return folder
    if (folder / BASE_CONFIG).is_file():
        raise LoralabError(
            f"the model {name} on the hub has no {MANIFEST}: loralab opens models that `loralab push` published and adapters of "
            "peft, but no other Transformers checkpoints: open it with transformers.pipeline, or train from it with "
            f"model.base={name}"
        )
    raise LoralabError(f"the repository {name} on the hub holds neither a model of loralab ({MANIFEST}) nor an adapter of peft")


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
    if exists(path / run_folder.EXPORTS):
        check_folder(path / run_folder.EXPORTS)
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
        precision: str | None = None,
        device: str = "auto",
        threads: int | None = None,
        backend: Backend = "auto",
        revision: str | None = None,
    ) -> Classifier:
        """Load a run, a bundle, an export, a folder saved by peft, or a hub id (`user/name`) of a model in one of these forms.

        Works offline if the model and its base encoder are on this disk. A local folder wins over a hub id of the same name.
        revision: branch, tag or commit of a hub id; None: main.
        base: the encoder's folder, if it has moved. precision: auto, fp32, bf16 or fp16; None: the run's `train.precision`, or auto
        where the device is slow in it. device: as in `train.device`. threads: CPU threads of predictions; None: torch's own number.
        backend: native; onnx or onnx-int8 (after `loralab export`); auto: an export as it is, a run natively. Raises LoralabError
        for a missing or damaged folder, and for another base than the run was trained on.
        """
        folder = choose_folder(local_folder(Path(path), revision), backend)
        if (folder / ONNX).is_file():
            if backend == "native":
                raise LoralabError(f"{folder} is an ONNX export: load the run it was exported from")
            manifest = read_manifest(folder)
            manifest.check_files(folder)
            check_cleaning(manifest, folder)
            tokenizer = load_tokenizer(folder, min(manifest.max_length, manifest.dims.longest))
            return cls(OnnxClassifier(folder / ONNX, threads), manifest, tokenizer)
        model, manifest = load_bundle(folder, base)
        check_cleaning(manifest, folder)
        has_tokenizer = (folder / "tokenizer.json").is_file()  # folders saved by peft may have none
        tokenizer = load_tokenizer(
            folder if has_tokenizer else manifest.base_path or folder, min(manifest.max_length, manifest.dims.longest)
        )
        model.merge()
        model.requires_grad_(False)  # so that fully trained weights are cast once, here, and not in every batch
        move_to_device(model, precision or recorded_precision(manifest.precision, choose_device(device)), device)
        return cls(model, manifest, tokenizer, threads)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    @property
    def class_table(self) -> ClassTable:
        """The classes and the label values that stand for them in the training file."""
        values = (self.manifest.data.values if self.manifest.data else None) or {}
        return ClassTable(self.classes, tuple(tuple(values.get(name, ())) for name in self.classes))

    @property
    def training_rows(self) -> Mapping[str, int]:
        """Labelled rows of the training file by class name; empty if the run does not know them."""
        return (self.manifest.data.rows if self.manifest.data else None) or {}

    def read_labelled(self, path: str | TablePlace, data: DataConfig | None = None) -> tuple[Examples, RawExamples]:
        """Read the labelled rows of a file, or of a table in memory, as the run's data contract says, and everything about it.

        data: settings of `data` that say otherwise. Raises LoralabError for a label that is not a class of the run.
        """
        place = path if isinstance(path, MemoryTable) else local_path(path)
        return read_examples(place, data or DataConfig(), self.class_table, self.manifest.data)

    def predict(self, texts: Sequence[str]) -> Predictions:
        """Classify texts: a list, or a series or array of texts. Raises LoralabError for a value that is not a str."""
        texts = texts if isinstance(texts, str) else [*texts]
        return self._predictions(self.logits(texts), texts)

    def predict_with_features(self, texts: Sequence[str]) -> tuple[Predictions, npt.NDArray[np.float32]]:
        """Classify texts (at least one). Also return the features (n, width) fp32 that enter the last linear map."""
        if not list(self.model.head.parameters()):
            raise LoralabError("an ONNX model returns only logits: load the run with backend='native'")
        with thread_limit(self.threads):
            features, logits = features_and_logits(self.model, self.encode(texts), last_linear(self.model.head))
        return self._predictions(logits, texts), features

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the logits of each text, without the temperature: (n, classes) fp32."""
        return self._logits(self.encode(texts))

    def _logits(self, encoded: Encoded) -> npt.NDArray[np.float32]:
        with thread_limit(self.threads):
            return logits_of(self.model, encoded) if len(encoded) else np.zeros((0, len(self.classes)), dtype=np.float32)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Clean and tokenize texts. Raises LoralabError for a value that is not a str."""
        if isinstance(texts, str):
            raise LoralabError("predict takes a list of texts, not one text: write predict([text])")
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise LoralabError(f"predict takes texts, not {type(text).__name__}: item {position} is {text!r}")
        examples = Examples(texts, None, np.arange(len(texts)), self.classes)
        return encode(examples, tokenizer=self.tokenizer, clean=self.manifest.clean, pad_id=self.manifest.dims.pad_id)

    def _predictions(self, logits: npt.NDArray[np.float32], texts: Sequence[str]) -> Predictions:
        probabilities = softmax(logits, self.manifest.temperature).astype(np.float32)
        return Predictions([self.classes[i] for i in probabilities.argmax(axis=1)], probabilities, self.classes, texts)

    def evaluate(self, path: str | TablePlace, data: DataConfig | None = None) -> dict[str, float]:
        """Score a labelled file (see `loralab.metrics.scores`). Arguments and errors as in `read_labelled`."""
        return self.evaluate_file(path, data).scores

    def evaluate_file(self, path: str | TablePlace, data: DataConfig | None = None) -> FileScores:
        """Score a labelled file, and return how it was read as well. Arguments and errors as in `read_labelled`."""
        examples, raw = self.read_labelled(path, data)
        encoded, checks = self.encode(examples.texts), self.text_checks()
        checks.add(examples.texts, examples.rows.tolist(), encoded)
        result = scores(self._logits(encoded), examples.require_labels(), self.classes)
        return FileScores(result, raw.columns, raw.facts or {}, (*raw.notices, *checks.notices()))

    def text_checks(self) -> TextChecks:
        """Return an empty collection of remarks on texts."""
        longest = min(self.manifest.max_length, self.manifest.dims.longest)
        return TextChecks(len(self.tokenizer.encode("").ids), longest, self.manifest.base)

    def text_notices(self, texts: Sequence[str]) -> list[Notice]:
        """Return remarks on texts whose class says little about them."""
        checks = self.text_checks()
        checks.add(texts, range(len(texts)), self.encode(texts))
        return checks.notices()

    def predict_file(
        self,
        path: str | Path,
        out: str | Path,
        data: DataConfig | None = None,
        *,
        format: OutputFormat | str = "csv",
        template: str | Path | None = None,
        progress: Callable[[int], None] = lambda rows: None,
    ) -> PredictionReport:
        """Classify a file of any size and write the predictions to `out` atomically.

        data: settings of `data` that say how to read the file; the run's data contract decides the rest. format: how to write, or
        one of its names. template: a sample submission; the predictions are written in its form. progress: called with the number
        of finished rows. Raises LoralabError for a file that cannot be read, and for a submission that would not be accepted.
        """
        source, target = local_path(path), local_path(out)
        if target.exists() and source.exists() and target.samefile(source):
            raise LoralabError(f"{target} is the input file: give another file name for the predictions")
        output = check_format(format if template is None else OutputFormat("submission", template=local_path(template)))
        sample = read_template(output.template) if output.template else None
        preferred = () if sample is None else sample.id_names(self._label_column)
        check_target(target)
        rows = read_input(source, data or DataConfig(), self.manifest.data, preferred)
        return self._write(rows, target, output, sample, progress)

    def predict_to_file(self, texts: Sequence[str], out: str | Path, *, format: OutputFormat | str = "csv") -> PredictionReport:
        """Classify texts and write the predictions to `out` atomically, with the position of each text as its id."""
        output, target = check_format(format), local_path(out)
        template = read_template(output.template) if output.template else None
        check_target(target)
        source = PredictionInput("the input", [InputRows(0, texts)])
        return self._write(source, target, output, template, lambda rows: None)

    def _write(
        self,
        source: PredictionInput,
        target: Path,
        format: OutputFormat,
        template: Template | None,
        progress: Callable[[int], None],
    ) -> PredictionReport:
        done, checks, predicted = 0, self.text_checks(), Counter(dict.fromkeys(self.classes, 0))
        with write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        with write_errors(target), atomic_write(target) as file:
            writer = self._writer(file, source, format, template)
            for rows in source.rows:
                encoded = self.encode(rows.texts)
                checks.add(rows.texts, range(rows.first, rows.first + len(rows.texts)), encoded)
                predictions = self._predictions(self._logits(encoded), rows.texts)
                predicted.update(predictions.labels)
                writer.write(rows, predictions)
                done += len(rows.texts)
                progress(done)
            if done == 0:
                raise LoralabError(f"{source.name} has no rows")
            written = writer.finish()
        return source.report(done, [*checks.notices(), *written], predicted)

    def _writer(self, file: IO[str], source: PredictionInput, format: OutputFormat, template: Template | None) -> PredictionWriter:
        if format.name == "csv":
            return CsvWriter(file, source, format)
        if format.name == "jsonl":
            return JsonLinesWriter(file, source, format)
        kind = format.label_values
        if kind is None and template is not None:
            labels = labels_like(template, self.class_table, self._label_column, source.names)
        else:
            labels = choose_labels(self.class_table, kind or ("index" if source.id_name is None else "raw"))
        return SubmissionWriter(file, source, labels, self._label_column, template)

    @property
    def _label_column(self) -> str | None:
        return self.manifest.data.label if self.manifest.data else None
