"""The whole route: text → tokens → batches → network → scores → run folder. Read this page first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from loralab import metrics
from loralab.config import Config
from loralab.data.types import Encoded, Examples
from loralab.errors import Interrupted
from loralab.model.bundle import save_bundle
from loralab.model.encoder import EncoderClassifier
from loralab.model.hf.model import HFClassifier
from loralab.model.parameter_counts import Counts
from loralab.storage import run_folder
from loralab.training.callbacks import EarlyStopping, Listener
from loralab.training.checkpoint import Checkpoint
from loralab.training.distributed import ALONE, Distributed
from loralab.training.head_init import initialize_head
from loralab.training.scoring import last_linear, logits_among
from loralab.training.setup import RunComponents, RunPlan, build_run
from loralab.training.trainer import FitResult, Optimisation, Trainer


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
    announce: Callable[[RunPlan], None] = lambda plan: None,
    listeners: Sequence[Listener] = (),
    world: Distributed = ALONE,
) -> RunSummary:
    """Train, test and save one run as `folder`/`name` (`config.name` wins over `name`).

    `resume` goes on with a run that was stopped, from its last evaluation, to the same adapter, bit for bit on a CPU.
    `announce` is told the plan before the first step, `listeners` every step and evaluation. Raises LoralabError for
    unusable input, before anything is written, and RunFailed when the run itself fails or is interrupted.

    Under torchrun every process calls this with its `World.join()`; the first one alone writes, announces and tells listeners.
    """
    begun = start_session(
        config,
        Path(folder) / (config.name or name),
        overwrite,
        resume,
        announce,
        listeners=listeners if world.is_main else (),
        world=world,
    )
    return finish_session(begun, begun.loop.run())


@dataclass(frozen=True)
class TrainingSession:
    """A run before its first step: its folder is there, its loop is ready to go. `began`: when, by time.perf_counter."""

    config: Config
    ready: RunComponents
    run: run_folder.RunFolder
    parts: Mapping[str, Encoded]
    loop: Trainer
    world: Distributed
    began: float


def start_session(
    config: Config,
    target: Path,
    overwrite: bool = False,
    resume: bool = False,
    announce: Callable[[RunPlan], None] = lambda plan: None,
    listeners: Sequence[Listener] = (),
    world: Distributed = ALONE,
) -> TrainingSession:
    """The way to the first step, arguments as in `run_training`."""
    began = time.perf_counter()
    world.run_on_main(run_folder.check_free, target, overwrite, resume)
    ready = world.run_everywhere(build_run, config, target, world)
    world.check_same(settings=config.fingerprint(), base=ready.manifest.base_sha256, rows=ready.plan.splits.fingerprints())
    world.run_on_main(announce, ready.plan)

    run = world.run_on_main(open_run, config, ready, overwrite, resume)
    checkpoint = world.run_on_main(Checkpoint.load_if_any, run.checkpoint)
    world.run_on_main(run.rewind_log, checkpoint.step if checkpoint else 0)
    parts = world.main_first(keep_hidden, ready, listeners)
    start_head(config, ready.network, parts["train"], ready.names)
    loop = Trainer(
        ready.network,
        parts["train"],
        parts.get("validation"),
        loss=ready.loss,
        score=partial(score_validation, classes=ready.manifest.classes, also=config.train.monitor),
        watch=EarlyStopping(config.train.monitor, config.train.patience, config.train.min_delta),
        seed=config.stream("shuffle"),
        optimisation=choose_optimisation(config),
        listeners=(run.log, *listeners),
        resume=checkpoint,
        keep=run.keep_checkpoint,
        world=world,
    )
    return TrainingSession(config, ready, run, parts, loop, world, began)


def finish_session(begun: TrainingSession, result: FitResult) -> RunSummary:
    """The way from the last step: save the model, test it, complete the folder."""
    config, ready, run, world = begun.config, begun.ready, begun.run, begun.world
    temperature = result.scores.get("temperature")
    if world.is_main:
        save_model(run, ready, temperature or 1.0)
    stop_if_interrupted(result, run.folder)
    logits = logits_among(world, ready.network, begun.parts["test"])
    summary = summarise(config, ready, result, logits, temperature, time.perf_counter() - begun.began)
    if world.is_main:
        run.write_predictions(*prediction_rows(ready.plan.splits.test, logits, temperature or 1.0))
        run.write_scores({**asdict(summary), "folder": str(run.folder), "fingerprint": config.fingerprint()})
    return summary


def keep_hidden(ready: RunComponents, listeners: Sequence[Listener]) -> dict[str, Encoded]:
    """The rows of every split, with their hidden states where they are kept."""
    return {name: ready.plan.cache.keep(ready.network, part, listeners) for name, part in ready.parts.items()}


def save_model(run: run_folder.RunFolder, ready: RunComponents, temperature: float) -> None:
    """Write the bundle, whole or not at all."""
    with run_folder.atomic_folder(run.model) as folder:
        save_bundle(folder, ready.network, replace(ready.manifest, temperature=temperature), ready.tokenizer.to_str())


def score_validation(logits: metrics.Logits, labels: metrics.Labels, *, classes: Sequence[str], also: str) -> dict[str, float]:
    """Score an evaluation, and fit the temperature that a run which keeps these weights will use."""
    return {**metrics.scores(logits, labels, classes, also), "temperature": metrics.fit_temperature(logits, labels)}


def start_head(config: Config, network: EncoderClassifier | HFClassifier, train: Encoded, names: Encoded | None) -> None:
    """Give the head something to begin with, where that is wanted. Where nothing will be trained, no label is looked at."""
    fitted = train if config.train.head_init in ("probe", "probe+descriptions") and config.train.epochs else None
    if fitted is not None or names is not None:
        initialize_head(network, last_linear(network.head), fitted, names)


def choose_optimisation(config: Config) -> Optimisation:
    """Pick the engine's settings out of the configuration."""
    ratio = config.lora.loraplus_lr_ratio if config.tuning == "lora" and config.lora.variant == "loraplus" else 1.0
    return Optimisation(**config.train.model_dump(include=Optimisation.names()), loraplus_lr_ratio=ratio)


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


def open_run(config: Config, ready: RunComponents, overwrite: bool, resume: bool) -> run_folder.RunFolder:
    """Make the run's folder, or reopen it when its settings, rows, base and setting are the same."""
    plan, manifest = ready.plan, ready.manifest
    base = {"name": manifest.base, "sha256": manifest.base_sha256}
    rows = plan.splits.fingerprints()
    facts = {"processes": plan.processes, **asdict(plan.setting), "base": base, "classes": [*manifest.classes], "rows": rows}
    return run_folder.reopen(plan.folder, config, facts) if resume else run_folder.create(plan.folder, config, facts, overwrite)


def stop_if_interrupted(result: FitResult, target: Path) -> None:
    """After Ctrl-C the best weights are saved by now; say so, and leave the run incomplete."""
    if result.interrupted:
        raise Interrupted(
            f"interrupted after step {result.steps}: the weights of step {result.best_step}, the best so far, are saved.\n"
            f"  Use them: loralab predict {target} --input TEXT\n  Go on: the same command with --resume"
        )


def summarise(
    config: Config, ready: RunComponents, result: FitResult, logits: metrics.Logits, temperature: float | None, seconds: float
) -> RunSummary:
    """Score the test rows and gather what the run came to."""
    plan, classes = ready.plan, ready.manifest.classes
    labels = plan.splits.test.require_labels()
    return RunSummary(
        name=plan.folder.name,
        folder=plan.folder,
        scores=metrics.scores(logits, labels, classes, config.train.monitor),
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
