"""Diagnose a trained run: read its rows again, ask it, and put everything into one result and `diagnosis.json`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loralab.data.clean import clean_text, replace_surrogates
from loralab.data.prepare import load_splits
from loralab.data.sources import read_examples
from loralab.data.splits import Splits, stratified
from loralab.data.types import Examples, Ints
from loralab.diagnostics import drift_sections, perturb, sections
from loralab.diagnostics.duplicates import find_duplicates
from loralab.diagnostics.sections import DiagnosisSection, ScoredExamples
from loralab.errors import LoralabError
from loralab.inference.classifier import Classifier
from loralab.metrics import softmax
from loralab.storage import run_folder

if TYPE_CHECKING:
    from loralab.diagnostics.attribution import Attribution

ROWS = 2000
"""Rows that are damaged for the robustness: each costs seven more predictions."""
MISTAKES, RIGHT = 6, 2
ALIKE = 0.5
"""Share of a row's five-word runs in one training row from which it counts as its copy."""
HELD_OUT = "the run's test rows were not trained on"
TAKEN_AS_HELD_OUT = "the file's rows are taken as not trained on (see the near-duplicates)"


@dataclass(frozen=True)
class Explained:
    """One text with what each of its words adds to the predicted class's logit; the words put together are the text."""

    text: str
    true: str | None
    predicted: str
    confidence: float
    tokens: list[tuple[str, float]]


@dataclass(frozen=True)
class Diagnosis:
    """Tables in the order they are to be read, and texts explained."""

    sections: list[DiagnosisSection]
    attributions: list[Explained]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as `diagnosis.json` holds it."""
        return asdict(self)


def diagnose(
    run: str | Path,
    *,
    file: str | Path | None = None,
    text: Sequence[str] | None = None,
    label: str | None = None,
    inputs: Sequence[str] = (),
    rows: int = ROWS,
    base: str | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda stage: None,
) -> Diagnosis:
    """Diagnose a run on its own test rows, or on a file's, labelled or not; write `diagnosis.json` into the run.

    text, label: the file's columns. inputs: texts to explain besides. rows: most rows to damage. Raises LoralabError when the
    folder is no complete run, or its rows have changed since it was trained.
    """
    folder = Path(run)
    scores = run_folder.read_scores(folder)
    progress("reading the rows")
    splits = _same_rows(folder)
    given = None if file is None else _read_file(Path(file), splits.classes, text, label)
    progress("loading the classifier")
    # As the run was tested, so that its scores are met again; `loralab predict` takes what is fast here.
    precision = run_folder.read_environment(folder).get("precision", "auto")
    classifier = Classifier.load(folder, base=base, precision=precision)
    progress(f"classifying {len(splits.test) if given is None else len(splits.test) + len(given):,} rows")
    own = ScoredExamples(splits.test, classifier.logits(splits.test.texts))
    judged = own if given is None else ScoredExamples(given, classifier.logits(given.texts))
    what = "the run's test rows" if file is None else Path(file).name
    found = examine(
        judged,
        own if given is not None else None,
        splits.train,
        classifier.logits,
        what=what,
        clean=classifier.manifest.clean,
        temperature=scores.get("temperature"),
        rows=rows,
        seed=seed,
        progress=progress,
    )
    progress("explaining texts")
    explained, table = _explain(folder, base, classifier, judged, inputs)
    diagnosis = Diagnosis([*found, table], explained)
    run_folder.write_json(folder / run_folder.DIAGNOSIS, diagnosis.as_dict())
    return diagnosis


def examine(
    judged: ScoredExamples,
    own: ScoredExamples | None,
    train: Examples,
    logits_of: Callable[[Sequence[str]], sections.Logits],
    *,
    what: str,
    clean: Sequence[str],
    temperature: float | None,
    rows: int,
    seed: int,
    progress: Callable[[str], None],
) -> list[DiagnosisSection]:
    """Return every section but the attributions. own: the run's test rows where `judged` are others."""
    labelled = judged.examples.labels is not None
    train, read = _as_read(train, clean), ScoredExamples(_as_read(judged.examples, clean), judged.logits)
    found: list[DiagnosisSection] = []
    reasons = []
    progress("comparing with the training rows")
    drifted, reason = drift_sections.compare(train, read, own)
    reasons.append(reason)
    pairs = find_duplicates(train.texts, read.examples.texts, ALIKE)
    copies, reason = sections.duplicates(read, train, pairs, ALIKE)
    reasons.append(reason)
    if labelled:
        calibrated, reason = sections.calibrate(judged, temperature)
        found += calibrated
        reasons.append(reason)
        suspects, reason = sections.label_errors(read, HELD_OUT if own is None else TAKEN_AS_HELD_OUT)
        reasons.append(reason)
    sample = _sample(judged, rows, seed)
    damaged = {}
    for kind in perturb.KINDS:
        progress(f"damaging {len(sample):,} texts: {kind}")
        damaged[kind] = logits_of(perturb.perturb_all(sample.examples.texts, kind, seed))
    fragile, reason = sections.robustness(sample, damaged)
    reasons.append(reason)
    found += [fragile, *([suspects] if labelled else []), copies, *drifted]
    return [sections.conclude(judged, own, what, reasons), *found]


def _same_rows(folder: Path) -> Splits:
    """Read the run's rows again. Raises LoralabError when they are not those it was trained and tested on."""
    config = run_folder.read_config(folder)
    splits, _ = load_splits(**config.data.division())
    trained = run_folder.read_environment(folder).get("rows")
    if trained is not None and {part: rows for part, rows in trained.items() if part != "augmented"} != splits.fingerprints():
        raise LoralabError(
            f"the rows of {config.data.source} are not those that {folder} was trained and tested on: "
            f"restore the file, or train again"
        )
    return splits


def _read_file(path: Path, classes: tuple[str, ...], text: Sequence[str] | None, label: str | None) -> Examples:
    return read_examples(path, text=text, label=label, classes=classes, need_labels=label is not None)[0]


def _as_read(examples: Examples, clean: Sequence[str]) -> Examples:
    """The texts as the network reads them: what cleaning takes away can neither drift nor be copied."""
    return replace(examples, texts=[clean_text(text, clean) for text in examples.texts])


def _sample(judged: ScoredExamples, rows: int, seed: int) -> ScoredExamples:
    """At most so many rows, drawn at random, classes in proportion where there are labels."""
    if rows >= len(judged):
        return judged
    random = np.random.default_rng(seed)
    labels = judged.examples.labels
    chosen: Ints = np.sort(random.permutation(len(judged))[:rows]) if labels is None else stratified(labels, rows, random)
    return ScoredExamples(judged.examples.take(chosen), judged.logits[chosen])


def _choose(judged: ScoredExamples, temperature: float) -> list[int]:
    """The most confident mistakes and right answers; without labels the least and the most confident answers."""
    by_confidence = np.argsort(-softmax(judged.logits, temperature).max(axis=1), kind="stable")
    if judged.examples.labels is None:
        return [*by_confidence[::-1][:MISTAKES].tolist(), *by_confidence[:RIGHT].tolist()]
    right = judged.right[by_confidence]
    return [*by_confidence[~right][:MISTAKES].tolist(), *by_confidence[right][:RIGHT].tolist()]


def _explain(
    folder: Path, base: str | None, classifier: Classifier, judged: ScoredExamples, inputs: Sequence[str]
) -> tuple[list[Explained], DiagnosisSection]:
    """Explain the user's own texts and a few of the rows, in fp32, with a second copy of the network."""
    from loralab.diagnostics.attribution import attribute, join_words
    from loralab.model.encoder import EncoderClassifier

    if not isinstance(classifier.network, EncoderClassifier):
        said = "An encoder that runs through Transformers cannot be explained yet: integrated gradients need the native network."
        return [], DiagnosisSection("Words that decided (integrated gradients)", said, (), ())
    examples, classes = judged.examples, classifier.classes
    chosen = _choose(judged, classifier.manifest.temperature)
    texts = [*inputs, *(examples.texts[i] for i in chosen)]
    truths = [*([None] * len(inputs)), *(None if examples.labels is None else classes[examples.labels[i]] for i in chosen)]
    answers = classifier.predict(texts)
    exact = Classifier.load(folder, base=base, precision="fp32", backend="native") if texts else classifier
    explained, found = [], []
    for i, text in enumerate(texts):
        read = replace_surrogates(clean_text(text, exact.manifest.clean))
        encoding = exact.tokenizer.encode(read)
        special = [bool(flag) for flag in encoding.special_tokens_mask]
        assert isinstance(exact.network, EncoderClassifier)
        attribution = attribute(exact.network, encoding.ids, special, int(answers.indices[i]))
        tokens = join_words(read, encoding, attribution.values)
        explained.append(Explained(read, truths[i], answers.labels[i], float(answers.confidence[i]), tokens))
        found.append(attribution)
    return explained, _completeness(explained, found)


def _completeness(explained: Sequence[Explained], found: Sequence[Attribution]) -> DiagnosisSection:
    """The proof of the attributions: their sum against the change of the logit."""
    incomplete = sum(not attribution.complete for attribution in found)
    state = "every sum is complete" if not incomplete else f"{incomplete} of {len(found)} sums are NOT complete: do not trust those"
    return DiagnosisSection(
        "Words that decided (integrated gradients)",
        f"{len(found)} texts explained; {state}.",
        ("predicted", "true", "logit change", "residual", "steps", "text"),
        tuple(
            (each.predicted, each.true or "", a.change, a.residual, a.steps, sections.shorten(each.text))
            for each, a in zip(explained, found, strict=True)
        ),
        "Logit change: of the predicted class, from the same text with every word blanked (padding) to the text; near or below 0 "
        "the blank text alone speaks for that class. The words' attributions add up to it but for the residual, at most 1 % of it "
        "(Sundararajan et al. 2017).",
    )
