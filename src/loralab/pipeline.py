"""The whole route: text → tokens → batches → network → scores → run folder. Read this page first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from loralab import metrics, runs
from loralab.config import Config
from loralab.data.values import Encoded, Examples
from loralab.errors import RunFailed
from loralab.model.bundle import save_bundle
from loralab.model.counts import Counts
from loralab.model.generic import GenericNetwork
from loralab.model.network import Network
from loralab.ready import Plan, Ready, prepare
from loralab.training.callbacks import Listener, Watch
from loralab.training.checkpoint import Checkpoint
from loralab.training.engine import Fit, Optimisation, fit
from loralab.training.scoring import logits_of
from loralab.training.warm_start import last_linear, warm_start


@dataclass(frozen=True)
class RunSummary:
    """What a run came to: plain data. `scores` are on the test rows, `validation` on the rows that chose the weights.

    `temperature` was fitted on the validation rows; `calibrated` are the test rows' loss, ece and brier with it. None without
    validation rows.
    """

    name: str
    folder: Path
    scores: Mapping[str, float]
    validation: Mapping[str, float]
    temperature: float | None
    calibrated: Mapping[str, float] | None
    classes: tuple[str, ...]
    counts: Counts
    steps: int
    best_step: int
    stopped_early: bool
    seconds: float
    samples_per_second: float


def run_training(
    config: Config,
    *,
    name: str = "run",
    folder: str | Path = "runs",
    overwrite: bool = False,
    resume: bool = False,
    announce: Callable[[Plan], None] = lambda plan: None,
    listeners: Sequence[Listener] = (),
) -> RunSummary:
    """Train, test and save one run as `folder`/`name` (`config.name` wins over `name`).

    `resume` goes on with a run that was stopped, from its last evaluation, to the same adapter, bit for bit on a CPU.
    `announce` is told the plan before the first step, `listeners` every step and evaluation. Raises LoralabError for
    unusable input, before anything is written, and RunFailed when the run itself fails or is interrupted.
    """
    began = time.perf_counter()
    target = Path(folder) / (config.name or name)
    runs.check_free(target, overwrite, resume)
    ready = prepare(config, target)
    announce(ready.plan)

    run = open_run(config, ready, overwrite, resume)
    checkpoint = Checkpoint.load_if_any(run.checkpoint)
    run.rewind_log(checkpoint.step if checkpoint else 0)
    network = ready.network
    parts = {name: ready.plan.cache.keep(network, part, listeners) for name, part in ready.parts.items()}
    start_head(config, network, parts["train"], ready.names)
    result = fit(
        network,
        parts["train"],
        parts.get("validation"),
        loss=ready.loss,
        score=partial(score_validation, classes=ready.manifest.classes, also=config.train.stop_on),
        watch=Watch(config.train.stop_on, config.train.patience, config.train.min_delta),
        seed=config.stream("shuffle"),
        optimisation=choose_optimisation(config),
        listeners=(run.log, *listeners),
        resume=checkpoint,
        keep=run.keep_checkpoint,
    )
    temperature = result.scores.get("temperature")
    with runs.atomic_folder(run.model) as model_folder:
        save_bundle(model_folder, network, replace(ready.manifest, temperature=temperature or 1.0), ready.tokenizer.to_str())
    stop_if_interrupted(result, target)
    logits = logits_of(network, parts["test"])
    run.write_predictions(*prediction_rows(ready.plan.splits.test, logits, temperature or 1.0))
    summary = summarise(config, ready, result, logits, temperature, time.perf_counter() - began)
    run.write_scores({**asdict(summary), "folder": str(target), "fingerprint": config.fingerprint()})
    return summary


def score_validation(logits: metrics.Logits, labels: metrics.Labels, *, classes: Sequence[str], also: str) -> dict[str, float]:
    """Score an evaluation, and fit the temperature that a run which keeps these weights will use."""
    return {**metrics.scores(logits, labels, classes, also), "temperature": metrics.fit_temperature(logits, labels)}


def start_head(config: Config, network: Network | GenericNetwork, train: Encoded, names: Encoded | None) -> None:
    """Give the head something to begin with, where that is wanted. Where nothing will be trained, no label is looked at."""
    fitted = train if config.train.warm_start in ("fit", "both") and config.train.epochs else None
    if fitted is not None or names is not None:
        warm_start(network, last_linear(network.head), fitted, names)


def choose_optimisation(config: Config) -> Optimisation:
    """Pick the engine's settings out of the configuration."""
    ratio = config.lora.plus_ratio if config.tuning == "lora" and config.lora.variant == "loraplus" else 1.0
    return Optimisation(**config.train.model_dump(include=Optimisation.names()), plus_ratio=ratio)


def prediction_rows(test: Examples, logits: metrics.Logits, temperature: float) -> tuple[list[str], Iterator[list[object]]]:
    """The header and the lines of predictions.csv."""
    header = ["row", "true", "predicted", "confidence", *(f"logit:{name}" for name in test.classes), "text"]
    probabilities = metrics.softmax(logits, temperature)
    facts = zip(
        test.rows, test.require_labels(), probabilities.argmax(axis=1), probabilities.max(axis=1), logits, test.texts, strict=True
    )
    return header, (
        [row, test.classes[true], test.classes[found], f"{sure:.5f}", *(f"{value:.4f}" for value in values), text]
        for row, true, found, sure, values, text in facts
    )


def open_run(config: Config, ready: Ready, overwrite: bool, resume: bool) -> runs.Run:
    """Make the run's folder, or reopen it when its settings, rows, base and setting are the same."""
    plan, manifest = ready.plan, ready.manifest
    base = {"name": manifest.base, "sha256": manifest.base_sha256}
    facts = {**asdict(plan.setting), "base": base, "classes": [*manifest.classes], "rows": plan.splits.fingerprints()}
    return runs.reopen(plan.folder, config, facts) if resume else runs.create(plan.folder, config, facts, overwrite)


def stop_if_interrupted(result: Fit, target: Path) -> None:
    """After Ctrl-C the best weights are saved by now; say so, and leave the run incomplete."""
    if result.interrupted:
        raise RunFailed(
            f"interrupted after step {result.steps}: the weights of step {result.best_step}, the best so far, are saved.\n"
            f"  Use them: loralab predict {target} --input TEXT\n  Go on: the same command with --resume"
        )


def summarise(
    config: Config, ready: Ready, result: Fit, logits: metrics.Logits, temperature: float | None, seconds: float
) -> RunSummary:
    """Score the test rows and gather what the run came to."""
    plan, classes = ready.plan, ready.manifest.classes
    labels = plan.splits.test.require_labels()
    return RunSummary(
        name=plan.folder.name,
        folder=plan.folder,
        scores=metrics.scores(logits, labels, classes, config.train.stop_on),
        validation=result.scores,
        temperature=temperature,
        calibrated=metrics.probability_scores(logits, labels, temperature) if temperature else None,
        classes=classes,
        counts=plan.counts,
        steps=result.steps,
        best_step=result.best_step,
        stopped_early=result.stopped_early,
        seconds=seconds,
        samples_per_second=result.samples_per_second,
    )
