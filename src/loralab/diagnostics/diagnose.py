"""Diagnose a trained run: score its rows again, run every check, and write diagnosis.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from loralab.config import DataConfig
from loralab.config.loading import NAMED_SOURCES
from loralab.config.paths import local_path
from loralab.data.clean import clean_text, replace_surrogates
from loralab.data.hold_out import stratified
from loralab.data.sources import read_raw
from loralab.data.splits import Splits, load_splits
from loralab.data.types import Examples, Ints, MemoryTable, TablePlace
from loralab.diagnostics import perturb, sections
from loralab.diagnostics.calibration import calibration_sections
from loralab.diagnostics.drift_sections import drift_sections
from loralab.diagnostics.duplicates import find_duplicates
from loralab.diagnostics.sections import DiagnosisSection, ScoredExamples
from loralab.errors import LoralabError
from loralab.inference.classifier import Classifier
from loralab.metrics import softmax
from loralab.storage import run_folder

if TYPE_CHECKING:
    from loralab.diagnostics.attribution import Attribution
    from loralab.model.encoder import EncoderClassifier

MAX_PERTURBED = 2000
"""Rows of the robustness check: each costs seven more predictions."""
MAX_ERRORS, MAX_CORRECT = 6, 2
"""Rows with token attributions."""
DUPLICATE_SHARE = 0.5
HELD_OUT = "the run's test rows were held out of training"
ASSUMED_HELD_OUT = "the file's rows are assumed to be held out of training (see near-duplicates)"


@dataclass(frozen=True)
class ExplainedText:
    """A text with the attribution of each word to the predicted class's logit; the words joined are the text."""

    text: str
    true: str | None
    predicted: str
    confidence: float
    tokens: list[tuple[str, float]]


@dataclass(frozen=True)
class Diagnosis:
    """The sections in order, and the texts with token attributions."""

    sections: list[DiagnosisSection]
    attributions: list[ExplainedText]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, the contents of diagnosis.json."""
        return asdict(self)


@dataclass(frozen=True)
class DiagnosedRows:
    """The rows to diagnose, scored, and their name. train: the run's training rows.

    own: the run's test rows if `rows` are of a file; None otherwise, and for a run without test rows. held_out: why the rows count
    as held out of training.
    """

    name: str
    rows: ScoredExamples
    own: ScoredExamples | None
    train: Examples
    held_out: str


def diagnose(  # noqa: PLR0913 - public: one parameter per option of the command
    run: str | Path,
    *,
    file: str | TablePlace | None = None,
    data: DataConfig | None = None,
    inputs: Sequence[str] = (),
    rows: int = MAX_PERTURBED,
    base: str | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda stage: None,
) -> Diagnosis:
    """Diagnose a run on its own test rows or on a file's, labelled or not, and write diagnosis.json into the run.

    data: settings that say how to read the file. inputs: further texts for token attributions. rows: at most so many are perturbed.
    Raises LoralabError for a folder that is not a complete run, for data that changed since training, and for a run without test
    rows if there is no file.
    """
    folder = Path(run)
    scores = run_folder.read_scores(folder)
    progress("reading the rows")
    splits = read_run_splits(folder)
    if splits.test is None and file is None:
        raise LoralabError(f"{folder} has no test rows (data.test=0): give a labelled file with --file FILE")
    progress("loading the classifier")
    classifier = Classifier.load(folder, base=base)
    place = file if file is None or isinstance(file, MemoryTable) else local_path(file)
    given = None if place is None else _read_file(classifier, place, data or DataConfig())
    progress(f"classifying {len(splits.test or ()) + len(given or ()):,} rows")
    own = None if splits.test is None else ScoredExamples(splits.test, classifier.logits(splits.test.texts))
    if place is not None and given is not None:
        rows_of_file = ScoredExamples(given, classifier.logits(given.texts))
        diagnosed = DiagnosedRows(place.name, rows_of_file, own, splits.train, ASSUMED_HELD_OUT)
    else:
        assert own is not None
        diagnosed = DiagnosedRows("the run's test rows", own, None, splits.train, HELD_OUT)
    checks = _run_checks(diagnosed, classifier, scores.get("temperature"), rows, seed, progress)
    progress("computing token attributions")
    explained, table = _explain(folder, base, classifier, diagnosed.rows, inputs)
    diagnosis = Diagnosis([*checks, table], explained)
    run_folder.write_diagnosis(folder, diagnosis.as_dict())
    return diagnosis


def read_run_splits(folder: Path) -> Splits:
    """Read a run's rows again. Raises LoralabError when they are not those of its training."""
    config = run_folder.read_config(folder)
    hint = f"\n  {folder} was trained on {config.data.source}, a path from the folder of that command: run this one there, too"
    relative = config.data.source not in NAMED_SOURCES and not local_path(config.data.source).is_absolute()
    try:
        splits, _ = load_splits(config.data)
    except LoralabError as error:
        raise LoralabError(f"{error}{hint if relative else ''}") from error
    trained = run_folder.read_environment(folder).get("rows")
    if trained is not None and {part: rows for part, rows in trained.items() if part != "augmented"} != splits.fingerprints():
        raise LoralabError(
            f"the rows of {config.data.source} are not those that {folder} was trained and tested on: "
            f"restore the file, or train again{hint if relative else ''}"
        )
    return splits


def _run_checks(
    data: DiagnosedRows,
    classifier: Classifier,
    temperature: float | None,
    max_perturbed: int,
    seed: int,
    progress: Callable[[str], None],
) -> list[DiagnosisSection]:
    """Return every section except the attributions."""
    labelled = data.rows.examples.labels is not None
    cleaning = classifier.manifest.clean
    train, cleaned = _clean(data.train, cleaning), ScoredExamples(_clean(data.rows.examples, cleaning), data.rows.logits)
    progress("comparing with the training rows")
    drift, drift_hypothesis = drift_sections(train, cleaned, data.own)
    pairs = find_duplicates(train.texts, cleaned.examples.texts, DUPLICATE_SHARE)
    duplicates, duplicate_hypothesis = sections.duplicate_section(cleaned, train, pairs, DUPLICATE_SHARE)
    hypotheses = [drift_hypothesis, duplicate_hypothesis]
    calibration: list[DiagnosisSection] = []
    label_errors: list[DiagnosisSection] = []
    if labelled:
        calibration, hypothesis = calibration_sections(data.rows, temperature)
        hypotheses.append(hypothesis)
        suspects, hypothesis = sections.label_error_section(cleaned, data.held_out)
        label_errors.append(suspects)
        hypotheses.append(hypothesis)
    sample = _sample(data.rows, max_perturbed, seed)
    perturbed = {}
    for kind in perturb.KINDS:
        progress(f"perturbing {len(sample):,} texts: {kind}")
        perturbed[kind] = classifier.logits([perturb.perturb(text, kind, seed) for text in sample.examples.texts])
    robustness, hypothesis = sections.robustness_section(sample, perturbed)
    hypotheses.append(hypothesis)
    summary = sections.summary_section(data.rows, data.own, data.name, hypotheses)
    return [summary, *calibration, robustness, *label_errors, duplicates, *drift]


def _read_file(classifier: Classifier, path: TablePlace, data: DataConfig) -> Examples:
    """Return the labelled rows of a file, or all of its rows if it has no labels."""
    raw = read_raw(path, data, classifier.manifest.data)
    if raw.columns.label is None or (data.label is None and not any(label is not None for label in raw.labels)):
        return Examples(raw.texts, None, np.arange(len(raw.texts)), classifier.classes)
    return classifier.read_labelled(path, data)[0]


def _clean(examples: Examples, steps: Sequence[str]) -> Examples:
    """Clean the texts as the model reads them: what cleaning removes is neither drift nor a copy."""
    return replace(examples, texts=[clean_text(text, steps) for text in examples.texts])


def _sample(rows: ScoredExamples, max_rows: int, seed: int) -> ScoredExamples:
    """Return at most `max_rows` random rows, stratified where there are labels."""
    if max_rows >= len(rows):
        return rows
    rng = np.random.default_rng(seed)
    labels = rows.examples.labels
    chosen: Ints = np.sort(rng.permutation(len(rows))[:max_rows]) if labels is None else stratified(labels, max_rows, rng)
    return ScoredExamples(rows.examples.take(chosen), rows.logits[chosen])


def _choose_explained(rows: ScoredExamples, temperature: float) -> list[int]:
    """Return the most confident errors and correct predictions; without labels the least and the most confident predictions."""
    by_confidence = np.argsort(-softmax(rows.logits, temperature).max(axis=1), kind="stable")
    if rows.examples.labels is None:
        return [*by_confidence[::-1][:MAX_ERRORS].tolist(), *by_confidence[:MAX_CORRECT].tolist()]
    correct = rows.correct[by_confidence]
    return [*by_confidence[~correct][:MAX_ERRORS].tolist(), *by_confidence[correct][:MAX_CORRECT].tolist()]


def _explain(
    folder: Path, base: str | None, classifier: Classifier, rows: ScoredExamples, inputs: Sequence[str]
) -> tuple[list[ExplainedText], DiagnosisSection]:
    """Compute attributions of the inputs and of a few rows, in fp32 with a second copy of the model."""
    from loralab.diagnostics.attribution import attribute, join_words

    if not classifier.model.supports_feature_cache:  # then no layer's input can be set, as the gradients need
        note = "Token attributions need loralab's own encoder; this one runs through Transformers."
        return [], DiagnosisSection("Token attributions (integrated gradients)", note, (), ())
    examples, classes = rows.examples, classifier.classes
    chosen = _choose_explained(rows, classifier.manifest.temperature)
    texts = [*inputs, *(examples.texts[i] for i in chosen)]
    labels = [*([None] * len(inputs)), *(None if examples.labels is None else classes[examples.labels[i]] for i in chosen)]
    predictions = classifier.predict(texts)
    exact = Classifier.load(folder, base=base, precision="fp32", backend="native") if texts else classifier
    model = cast("EncoderClassifier", exact.model)
    explained, attributions = [], []
    for i, text in enumerate(texts):
        cleaned = replace_surrogates(clean_text(text, exact.manifest.clean))
        encoding = exact.tokenizer.encode(cleaned)
        special = [bool(flag) for flag in encoding.special_tokens_mask]
        attribution = attribute(model, encoding.ids, special, int(predictions.indices[i]))
        tokens = join_words(cleaned, encoding, attribution.values)
        explained.append(ExplainedText(cleaned, labels[i], predictions.labels[i], float(predictions.confidence[i]), tokens))
        attributions.append(attribution)
    return explained, _completeness_section(explained, attributions)


def _completeness_section(explained: Sequence[ExplainedText], attributions: Sequence[Attribution]) -> DiagnosisSection:
    """Return each attribution's sum against the change of the logit."""
    incomplete = sum(not attribution.complete for attribution in attributions)
    warning = f"{incomplete} of {len(attributions)} are NOT complete: do not rely on those" if incomplete else "all are complete"
    rows = (
        (text.predicted, text.true or "", a.change, a.residual, a.steps, sections.excerpt(text.text))
        for text, a in zip(explained, attributions, strict=True)
    )
    return DiagnosisSection.of("attributions", f"{len(attributions)} texts; {warning}.", rows)
