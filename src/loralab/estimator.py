"""`LoraTextClassifier`: a scikit-learn classifier of texts. Fitting is an ordinary run; predicting loads its model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted

from loralab.api.arrays import (
    json_label,
    label_array,
    label_of_json,
    label_values,
    name_classes,
    sort_classes,
    text_columns,
    text_of,
)
from loralab.api.estimator_settings import SETTINGS, parameter_words
from loralab.api.runs import train
from loralab.data.folders import Parts
from loralab.data.in_memory import labelled_table
from loralab.data.labels import sort_names
from loralab.data.types import MemoryTable
from loralab.errors import LoralabError
from loralab.inference.classifier import Classifier
from loralab.storage.files import TemporaryFolder, atomic_folder
from loralab.storage.run_folder import MANIFEST, MODEL
from loralab.storage.sealed import check_file_record, read_sealed, record_files, write_sealed

if TYPE_CHECKING:
    from loralab.training.callbacks import Callback

ESTIMATOR = "estimator.json"
"""The file that `save` adds to a model's folder: parameters and classes."""


class LoraTextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify texts by an encoder that is fine-tuned with LoRA.

    A parameter that is None has the recipe's value; the defaults below are those of `quickstart`. Equal parameters and rows give
    the same model as the command line, bit for bit on a CPU.

    Parameters
    ----------
    recipe : str, default="quickstart"
        The recipe or settings file to start from; `loralab.list_recipes()` lists the recipes.
    base : str, default=None
        The encoder: minilm, a hub id such as "roberta-base", or a folder with a checkpoint. None: minilm.
    revision : str, default=None
        Branch, tag or commit of a base on the hub. None: its main branch.
    tuning : {"lora", "full", "head"}, default=None
        What is trained: adapters and head, all weights, or the head alone. None: lora.
    rank : int, default=None
        Rank of the adapters. None: 16.
    alpha : float, default=None
        Scaling of the adapters: alpha / rank. None: 32.
    dropout : float, default=None
        Dropout on the adapters' input, a probability. None: 0.1.
    targets : list of str, default=None
        Adapted matrices: query, key, value, output, ffn_in, ffn_out, or all. None: all.
    layers : str, default=None
        Adapted layers from 0, such as "9-11" or "top3". None: all.
    max_trainable : int, default=None
        Budget: refuse to train more parameters than this. None: no budget.
    epochs : float, default=None
        Passes over the training rows. None: 4.
    batch_size : int, default=None
        Rows per optimizer step. None: 32.
    learning_rate : float, default=None
        Peak learning rate. None: 1e-3.
    label_smoothing : float, default=None
        Probability that is moved from the true class to all classes. None: 0.1.
    class_weight : dict or "balanced", default=None
        Weight of each class in the loss, by label; "balanced": inverse to the class sizes. None: 1.
    monitor : str, default=None
        The score of the validation rows that chooses the weights, such as "accuracy", "macro_f1" or "f1:LABEL". None: loss.
    patience : int, default=None
        Stop after so many evaluations without improvement. None: never.
    validation_fraction : float or int, default=None
        Fraction or number of rows that `fit` holds out to choose the weights and the temperature; 0: none. None: 0.1.
    max_length : int, default=None
        Tokens that are read of a text. None: 128.
    clean : list of str, default=None
        Cleaning steps: escapes, html, urls, whitespace. None: no cleaning.
    augment : list of str, default=None
        Augmentation techniques: synonym, insertion, deletion, swap, back_translation. None: no augmentation.
    text : str or list of str, default=None
        Text columns, if X is a data frame; several are joined by a space. None: detected, or the only column.
    device : str, default=None
        auto, cpu, cuda or mps. None: auto.
    precision : str, default=None
        auto, fp32, bf16 or fp16. None: auto.
    threads : int, default=None
        CPU threads. None: the physical cores.
    settings : dict, default=None
        Further settings by dotted name, such as {"train.head_init": "random"}; `loralab settings` lists them.
    random_state : int or RandomState, default=None
        Seed of initialization, shuffling, dropout and augmentation. None: 42, so that equal calls give equal models.
    runs : path, default=None
        A folder in which every `fit` keeps its run. None: a temporary folder, deleted with the estimator.
    verbose : bool, default=False
        Print decisions and progress.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, as they were given, sorted.
    run_ : Run
        The run of `fit`: validation scores, notices (what was decided about the rows), log, figures, report. Absent after
        `load` and unpickling.
    classifier_ : Classifier
        The trained model.
    text_columns_ : tuple of str
        The text columns of a data frame; ("text",) for other texts.

    Examples
    --------
    >>> from loralab import LoraTextClassifier
    >>> texts = ["Shares fall on profit warning", "Late goal wins the cup"] * 20
    >>> clf = LoraTextClassifier(epochs=1).fit(texts, ["Business", "Sports"] * 20)
    >>> clf.predict(["Striker scores twice"]).tolist()
    ['Sports']

    """

    _temporary: TemporaryFolder | None = None

    def __init__(  # noqa: PLR0913 - an estimator's parameters
        self,
        recipe: str = "quickstart",
        *,
        base: str | None = None,
        revision: str | None = None,
        tuning: str | None = None,
        rank: int | None = None,
        alpha: float | None = None,
        dropout: float | None = None,
        targets: Sequence[str] | None = None,
        layers: str | None = None,
        max_trainable: int | None = None,
        epochs: float | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        label_smoothing: float | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        monitor: str | None = None,
        patience: int | None = None,
        validation_fraction: float | None = None,
        max_length: int | None = None,
        clean: Sequence[str] | None = None,
        augment: Sequence[str] | None = None,
        text: str | Sequence[str] | None = None,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        settings: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        runs: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.recipe = recipe
        self.base = base
        self.revision = revision
        self.tuning = tuning
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.targets = targets
        self.layers = layers
        self.max_trainable = max_trainable
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.monitor = monitor
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.max_length = max_length
        self.clean = clean
        self.augment = augment
        self.text = text
        self.device = device
        self.precision = precision
        self.threads = threads
        self.settings = settings
        self.random_state = random_state
        self.runs = runs
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        validation_data: tuple[Any, Any] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Self:
        """Fine-tune the encoder on texts and their labels.

        Parameters
        ----------
        X : sequence of str, or data frame, of shape (n_samples,)
            The texts: a list, Series or array; or a data frame with the columns that `text` names.
        y : sequence of shape (n_samples,), or str
            The labels, of any hashable type; the name of the label column if X is a data frame.
        sample_weight : sequence of float of shape (n_samples,), default=None
            Weight of each row in the loss.
        validation_data : (X, y), default=None
            Rows that choose the weights and the temperature, instead of held-out training rows.
        callbacks : sequence of Callback
            See `loralab.Callback`.

        Returns
        -------
        self

        """
        label = y if isinstance(y, str) else None
        columns = text_columns(X, self.text, label)
        labels, dtype = label_values(X[label] if label is not None else y)
        check_consistent_length(*columns.values(), labels, sample_weight)
        classes = sort_classes(labels)
        names = dict(zip(classes, name_classes(classes), strict=True))
        order = sort_names(names.values())  # as in a file of these labels
        number = {own: order.index(names[own]) for own in classes}
        weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        weighted = {own for own, weight in zip(labels, weights, strict=True) if weight} if weights is not None else {*labels}
        if not weighted:
            raise ValueError("every sample_weight is zero: give some rows a weight above zero")
        if len(weighted) < 2:
            raise ValueError(f"y has one class, {labels[0]!r}, in rows with a weight: a classifier needs at least two")

        def table(columns: Mapping[str, Sequence[object]], labels: Sequence[Any], weights: Any = None) -> MemoryTable:
            return labelled_table(columns, label, [number[own] for own in labels], order, weights)

        rows = table(columns, labels, weights)
        parts = Parts((rows,))
        if validation_data is not None:
            held_out, (truths, _) = text_columns(validation_data[0], list(columns), label), label_values(validation_data[1])
            check_consistent_length(*held_out.values(), truths)
            if unknown := [own for own in truths if own not in number]:
                raise ValueError(f"validation_data has the label {unknown[0]!r}, which no training row has")
            parts = replace(parts, validation=(table(held_out, truths),))
        runs, name = self._new_folder()
        try:
            self.run_ = train(
                parts,
                self._settings(list(columns), rows.table.column_names, names),
                recipe=self.recipe,
                name=name,
                runs=runs,
                callbacks=callbacks,
                verbose=self.verbose,
            )
        except LoralabError as error:
            with suppress(OSError):  # a reserved name whose run never began
                (runs / name).rmdir()
            raise type(error)(parameter_words(str(error))) from error
        self.run_._temporary = self._temporary
        self.classes_ = label_array(classes, dtype)
        self.text_columns_ = tuple(columns)
        self._load_model(self.run_.folder / MODEL, [names[own] for own in classes])
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the label of each text, (n_samples,), as it was given to `fit`."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: npt.NDArray[Any] = self.classes_[best]
        return labels

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        """Return the calibrated probability of each class, (n_samples, n_classes) float32, columns in the order of `classes_`."""
        check_is_fitted(self, "classifier_")
        columns = text_columns(X, list(self.text_columns_), None)
        texts = [" ".join(filter(None, row)) for row in zip(*(map(text_of, own) for own in columns.values()), strict=True)]
        probabilities: npt.NDArray[np.float32] = self.classifier_.predict(texts).probabilities[:, self._order]
        return probabilities

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the fitted model and the parameters into a new folder, which `load` and `loralab predict` read.

        Raises LoralabError for an existing folder, unless `overwrite`, and for labels that JSON cannot hold.
        """
        check_is_fitted(self, "classifier_")
        target = Path(path)
        if target.exists() and not (overwrite and (target / ESTIMATOR).is_file()):
            raise LoralabError(f"{target} exists: choose another folder, or replace a saved estimator with overwrite=True")
        state = {
            "parameters": {name: _json_parameter(name, value) for name, value in self.get_params(deep=False).items()},
            "classes": [json_label(own) for own in self.classes_.tolist()],
            "names": self._names,
            "text_columns": [*self.text_columns_],
        }
        with atomic_folder(target) as folder:
            for file in _files(self._folder):
                shutil.copyfile(file, folder / file.name)
            write_sealed(folder / ESTIMATOR, state, record_files(folder, [MANIFEST]))
        return target

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load a saved estimator. Raises LoralabError for a folder that `save` did not write, and for a damaged one."""
        folder = Path(path)
        sealed = read_sealed(folder / ESTIMATOR, "LoraTextClassifier.save writes it; loralab.load reads other models")
        check_file_record(folder / MANIFEST, MANIFEST, sealed.files, folder / ESTIMATOR, "save the estimator again")
        state = sealed.content
        try:
            estimator = cls(**state["parameters"])
            estimator.classes_ = label_array([*map(label_of_json, state["classes"])])
            estimator.text_columns_ = tuple(state["text_columns"])
            names = [*map(str, state["names"])]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LoralabError(f"{folder / ESTIMATOR} is damaged ({error!r}): save the estimator again") from error
        estimator._load_model(folder, names)
        return estimator

    def __sklearn_tags__(self) -> Any:
        """Say that the input is a sequence of texts, not an array of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = tags.input_tags.string = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the contents of the model's files, which may be gone where it is unpickled."""
        state = {name: value for name, value in super().__getstate__().items() if name not in _NOT_PICKLED}
        if "_folder" in state:
            state["_folder"] = {file.name: file.read_bytes() for file in _files(self._folder)}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Write the model's files into a temporary folder and load them."""
        files = state.pop("_folder", None)
        super().__setstate__(state)
        if files is not None:
            self._temporary = TemporaryFolder()
            for name, content in files.items():
                (self._temporary.path / name).write_bytes(content)
            self._load_model(self._temporary.path, self._names)

    def _load_model(self, folder: Path, names: Sequence[str]) -> None:
        """Load the model. names: of the classes, in the order of `classes_`."""
        self.classifier_ = Classifier.load(folder, device=self.device or "auto", threads=self.threads)
        self._folder, self._names = folder, [*names]
        self._order = [self.classifier_.classes.index(name) for name in names]

    def _new_folder(self) -> tuple[Path, str]:
        """Return the folder of runs and the name of a new run."""
        self._temporary = None
        if self.runs is None:
            self._temporary = TemporaryFolder()
            return self._temporary.path, "fit"
        folder = Path(self.runs)
        folder.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            with suppress(FileExistsError):
                (folder / f"fit-{number:04d}").mkdir()  # no other process takes the name
                return folder, f"fit-{number:04d}"
        raise AssertionError("numbers do not end")

    def _settings(self, text: list[str], columns: Sequence[str], names: Mapping[Any, str]) -> dict[str, Any]:
        """Return the settings of a run. columns: of the training rows; names: of the classes by label."""
        label, *weight = [name for name in columns if name not in text]
        values = {setting: getattr(self, name) for name, setting in SETTINGS.items()}
        if isinstance(self.class_weight, Mapping):
            if unknown := [own for own in self.class_weight if own not in names]:
                raise ValueError(f"class_weight has the label {unknown[0]!r}, which no training row has")
            values["train.class_weights"] = {names[own]: weight for own, weight in self.class_weight.items()}
        if isinstance(self.random_state, (int, np.integer)):
            values["seed"] = int(self.random_state)
        elif self.random_state is not None:
            values["seed"] = int(check_random_state(self.random_state).randint(2**31))
        rows = {"data.text": text, "data.label": label, "data.test": 0, **({"data.weight": weight[0]} if weight else {})}
        return {**{name: value for name, value in values.items() if value is not None}, **rows, **(self.settings or {})}


_NOT_PICKLED = ("classifier_", "run_", "_temporary")


def _files(folder: Path) -> list[Path]:
    """Return the files of a model. Raises LoralabError if they are gone."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name != ESTIMATOR] if folder.is_dir() else []
    if not files:
        raise LoralabError(f"the model's files in {folder} are gone: load or fit the estimator again")
    return files


def _json_parameter(name: str, value: Any) -> Any:
    if isinstance(value, np.random.RandomState):
        raise LoralabError(f"{name} holds a generator, which a file cannot: set it to a whole number before saving")
    return value.item() if isinstance(value, np.generic) else str(value) if isinstance(value, Path) else value
