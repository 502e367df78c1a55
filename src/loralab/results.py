"""What Python users work with: scores, runs, experiments and pages, read from their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loralab import metrics
from loralab.config import Config
from loralab.errors import LoralabError, import_optional, suggest
from loralab.metrics import table
from loralab.safe_files import exists
from loralab.storage import experiment_folder, run_folder, run_predictions
from loralab.tables import html_table, text_table, to_frame

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from loralab.inference.classifier import Classifier
    from loralab.inference.prediction_files import Predictions
    from loralab.report.experiments.analysis import ExperimentAnalysis

PAGE_HEIGHT = 800
"""Height of a page in a notebook, in pixels."""


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class. true, predicted: its rows and how often it was predicted. The others are None without rows."""

    precision: float | None
    recall: float | None
    f1: float | None
    true: int
    predicted: int


@dataclass(frozen=True, repr=False)
class Scores:
    """Scores on labelled rows; `loralab.metrics.scores` defines them.

    rows: their number. loss: mean cross entropy in nats. macro_f1: mean F1 of the classes that have rows; macro_f1_all counts the
    others as 0. balance: the lowest F1 of a class over the highest. mcc: Matthews' correlation; kappa: Cohen's; ece: expected
    calibration error; brier: Brier score. per_class: `ClassScores` by class name. others: further tracked scores by name.
    notices: what reading the rows decided.
    """

    rows: int
    accuracy: float
    macro_f1: float
    macro_f1_all: float
    balance: float
    mcc: float
    kappa: float
    loss: float
    ece: float
    brier: float
    per_class: Mapping[str, ClassScores]
    others: Mapping[str, float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @classmethod
    def from_mapping(cls, scores: Mapping[str, float], classes: Sequence[str], notices: Sequence[str] = ()) -> Scores:
        """Return the scores of `loralab.metrics.scores`, or of scores.json."""
        per_class = {
            row["class"]: ClassScores(row["precision"], row["recall"], row["f1"], int(row["true"]), int(row["predicted"]))
            for row in table(scores, classes)
        }
        overall = {name: float(scores[name]) for name in _OVERALL}
        kinds = ("precision:", "recall:", "f1:", "true:", "predicted:")
        others = {name: value for name, value in scores.items() if name not in _OVERALL and not name.startswith(kinds)}
        rows = sum(own.true for own in per_class.values())
        return cls(rows, **overall, per_class=per_class, others=others, notices=tuple(notices))

    @classmethod
    def from_predictions(cls, predictions: Predictions, labels: Sequence[str]) -> Scores:
        """Return the scores of predictions against the true class names, one per text.

        The loss is that of the calibrated probabilities. Raises LoralabError for a label that is no class.
        """
        number = {name: i for i, name in enumerate(predictions.classes)}
        if unknown := [label for label in labels if label not in number]:
            raise LoralabError(f"label {unknown[0]!r} is not a class{suggest(unknown[0], number)}: {', '.join(number)}")
        if len(labels) != len(predictions):
            raise LoralabError(f"{len(labels):,} labels do not fit {len(predictions):,} predictions")
        log_p = np.log(predictions.probabilities.clip(np.finfo(np.float32).tiny))
        return cls.from_mapping(
            metrics.scores(log_p, np.array([number[label] for label in labels]), predictions.classes), predictions.classes
        )

    def to_frame(self) -> pandas.DataFrame:
        """Return one row per class: precision, recall, f1, true, predicted."""
        return to_frame(_CLASS_COLUMNS, self._class_rows()).set_index("class")

    def _class_rows(self) -> list[tuple[Any, ...]]:
        return [(name, own.precision, own.recall, own.f1, own.true, own.predicted) for name, own in self.per_class.items()]

    def _headline(self) -> str:
        return f"accuracy {self.accuracy:.4f}, macro F1 {self.macro_f1:.4f}, loss {self.loss:.4f} on {self.rows:,} rows"

    def __repr__(self) -> str:
        return f"Scores: {self._headline()}\n{text_table(_CLASS_COLUMNS, self._class_rows())}"

    def _repr_html_(self) -> str:
        return html_table(_CLASS_COLUMNS, self._class_rows(), self._headline())


_OVERALL = tuple(own.name for own in fields(Scores) if own.name not in ("rows", "per_class", "others", "notices"))
_CLASS_COLUMNS = ("class", "precision", "recall", "f1", "true", "predicted")


@dataclass(frozen=True)
class Page:
    """A report: shown inline as the last value of a notebook's cell; its path elsewhere."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> None:
        """Open the page in a browser."""
        import webbrowser

        webbrowser.open(self.path.resolve().as_uri())

    def _repr_html_(self) -> str:
        content = escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{content}" style="width: 100%; height: {PAGE_HEIGHT}px; border: 0" title="report"></iframe>'


class Run:
    """A run in its folder. Everything is read from there, when it is asked for.

    Raises LoralabError for a folder that is no run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.config: Config = run_folder.read_config(self.folder)
        self._temporary: object = None
        """Keeps a temporary folder as long as this object."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.resolve().name

    @property
    def complete(self) -> bool:
        """Whether training has ended and the scores are written."""
        return exists(self.folder / run_folder.SCORES)

    @cached_property
    def result(self) -> Mapping[str, Any]:
        """The contents of scores.json. Raises LoralabError for a run that is not complete."""
        return run_folder.read_scores(self.folder)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the model."""
        return tuple(run_folder.read_environment(self.folder)["classes"])

    @property
    def scores(self) -> Scores | None:
        """The scores on the test rows; None without test rows."""
        return Scores.from_mapping(self.result["scores"], self.classes) if self.result["scores"] else None

    @property
    def validation(self) -> Scores | None:
        """The scores on the validation rows, which chose the weights; None without validation rows."""
        return Scores.from_mapping(self.result["validation"], self.classes) if self.result["validation"] else None

    @property
    def notices(self) -> tuple[str, ...]:
        """What was decided about the rows and settings, as it was printed."""
        from loralab.data.types import Notice

        data = run_folder.read_data(self.folder)
        read = [Notice(**{**own, "rows": tuple(own["rows"])}) for part in data.get("notices", {}).values() for own in part]
        return (*map(str, read), *data.get("remarks", ()))

    @property
    def predictions(self) -> pandas.DataFrame:
        """One row per test row: row, its number; true, the label; predicted, confidence, the logits, and the text.

        Raises LoralabError for a run without them.
        """
        columns: Any = dict.fromkeys(("true", "predicted", "text"), str)
        with run_predictions.prediction_errors(self.folder):
            file = run_predictions.open_predictions(self.folder)
            if file is None:
                raise LoralabError(f"{self.folder} has no predictions of test rows: it has no test rows, or is not complete")
            with file:
                frame: pandas.DataFrame = import_optional("pandas", "notebook").read_csv(file, dtype=columns, keep_default_na=False)
        return frame

    @property
    def log(self) -> pandas.DataFrame:
        """One row per optimizer step; the scores of an evaluation are in the row of its step, in columns `validation NAME`."""
        steps: dict[int, dict[str, Any]] = {}
        for event in run_folder.read_log(self.folder):
            row = steps.setdefault(event["step"], {"step": event["step"], "epoch": event.get("epoch")})
            if event["event"] == "StepEnd":
                row |= {name: event[name] for name in ("loss", "learning_rate", "gradient_norm", "samples", "seconds")}
            elif event["event"] == "EvalEnd":
                row |= {f"validation {name}": value for name, value in event["scores"].items()}
        columns = dict.fromkeys(name for row in steps.values() for name in row)
        return to_frame([*columns], [[row.get(name) for name in columns] for row in steps.values()])

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures of its report, by name, as matplotlib Figures with their titles. A notebook shows them."""
        from loralab.report.figures.run_figures import draw_run_figures
        from loralab.report.figures.style import titled_figure
        from loralab.report.run_data import read_run

        return {drawing.name: titled_figure(drawing) for drawing in draw_run_figures(read_run(self.folder))}

    def classifier(self, **options: Any) -> Classifier:
        """Return the trained model. options: as in `Classifier.load`."""
        from loralab.inference.classifier import Classifier

        return Classifier.load(self.folder, **options)

    def report(self) -> Page:
        """Write the report and return its page."""
        from loralab.report.write import write_run_report

        return Page(write_run_report(self.folder))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish the model with its card on the Hugging Face hub, and return the commit's URL.

        repo_id: "user/name". options: as in `loralab.integrations.hub.push_to_hub`, such as what="peft" or private=True. Raises
        LoralabError for a missing token and for a repository that it may not write.
        """
        from loralab.integrations.hub import push_to_hub

        return push_to_hub(self.folder, repo_id, **options)

    def _facts(self) -> list[tuple[str, str]]:
        folder = "in a temporary folder" if self._temporary else str(self.folder)
        facts = [("run", folder), ("encoder", f"{self.config.model.base}, {self.config.tuning}")]
        if not self.complete:
            return [*facts, ("state", "not complete")]
        facts.append(("trained", f"{self.result['counts']['trainable']:,} parameters, {self.result['steps']:,} steps"))
        for name, scores in (("test", self.scores), ("validation", self.validation)):
            if scores is not None:
                facts.append((name, f"accuracy {scores.accuracy:.4f}, macro F1 {scores.macro_f1:.4f} on {scores.rows:,} rows"))
        return facts

    def __repr__(self) -> str:
        return "\n".join(f"{name:<11} {value}" for name, value in self._facts())

    def _repr_html_(self) -> str:
        return html_table(("", ""), self._facts())


class Experiment:
    """An experiment or search in its folder: its trials are runs.

    Raises LoralabError for a folder that is no experiment.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        spec = experiment_folder.read_experiment(self.folder).spec
        self.kind, self.question = spec.kind, spec.question

    @cached_property
    def _analysis(self) -> ExperimentAnalysis:
        from loralab.report.experiments.profiles import analyze_experiment

        return analyze_experiment(self.folder)

    @property
    def runs(self) -> tuple[Run, ...]:
        """The complete trials. Raises LoralabError if there are none."""
        return tuple(Run(folder) for folder in experiment_folder.find_runs(self.folder))

    @property
    def findings(self) -> tuple[str, ...]:
        """What the trials show, as sentences with their uncertainty."""
        from loralab.report.experiments.findings import findings

        return tuple(findings(self._analysis))

    @property
    def best(self) -> Config:
        """The best settings of a search. Raises LoralabError for other experiments, and without a complete trial."""
        from loralab.config import load_config

        path = self.folder / experiment_folder.BEST
        if not path.is_file():
            reason = "no trial is complete" if self.kind == "search" else f"{self.kind} compares; a search chooses"
            raise LoralabError(f"{self.folder} has no best settings: {reason}")
        experiment_folder.read_search(self.folder)  # has the checksum of best.yaml
        return load_config(path)

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures of its report, by name, as matplotlib Figures with their titles. A notebook shows them."""
        from loralab.report.experiments.profiles import draw_experiment_figures
        from loralab.report.figures.style import titled_figure

        return {drawing.name: titled_figure(drawing) for drawing in draw_experiment_figures(self._analysis)}

    def to_frame(self) -> pandas.DataFrame:
        """Return one row per trial: what varies, its scores, costs and state."""
        from loralab.report.experiments.result_tables import trial_table

        trials = trial_table(self._analysis.data)
        return to_frame(trials.columns, trials.rows)

    def summary(self) -> pandas.DataFrame:
        """Return one row per configuration: mean scores over its seeds, with intervals."""
        from loralab.report.experiments.result_tables import flat_cells, point_table

        return to_frame(*flat_cells(point_table(self._analysis.data, self._analysis.score)))

    def report(self) -> Page:
        """Write the report and return its page."""
        from loralab.report.write import write_experiment_report

        return Page(write_experiment_report(self.folder, self._analysis))

    def __repr__(self) -> str:
        return "\n".join([f"{self.kind}: {self.question}", f"folder: {self.folder}", *(f"- {own}" for own in self.findings)])

    def _repr_html_(self) -> str:
        listed = "".join(f"<li>{escape(own)}</li>" for own in self.findings)
        return f"<div><p><b>{escape(self.kind)}</b>: {escape(self.question)}</p><ul>{listed}</ul></div>"
