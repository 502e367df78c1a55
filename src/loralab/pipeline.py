"""The whole route: texts → tokens → micro-batches → model → scores → run folder. Read this page first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from loralab import metrics
from loralab.config import Config
from loralab.config.loading import listed_settings
from loralab.data.folders import Parts
from loralab.data.in_memory import read_parts, write_parts
from loralab.data.types import Encoded, Examples
from loralab.errors import Interrupted, RunFailed
from loralab.inference.saved_scores import saved_logits
from loralab.model.bundle import save_bundle
from loralab.model.device import thread_limit
from loralab.model.interface import ClassifierModel
from loralab.model.manifest import read_manifest
from loralab.model.parameter_counts import ParameterCounts
from loralab.storage import run_folder
from loralab.storage.files import atomic_folder, size_mb, write_errors
from loralab.storage.temporaries import lock_folder
from loralab.training.callbacks import Listener
from loralab.training.checkpoint import Checkpoint
from loralab.training.distributed import ALONE, Distributed, available_cores
from loralab.training.head_init import initialize_head
from loralab.training.optimizers import build_optimizer
from loralab.training.process import (
    explain_out_of_memory,
    peak_gpu_mb,
    peak_process_mb,
    process_mb,
    reset_peak_memory,
    restored_globals,
)
from loralab.training.scoring import last_linear
from loralab.training.setup import RunComponents, RunPlan, build_run, data_summary
from loralab.training.trainer import Callbacks, FitResult, Objective, Trainer, TrainingData

LOCK_SECONDS = 2.0
"""Processes that were killed may hold their run for a moment: one that resumes it waits."""
START_SECONDS = 60.0
"""To wait for another process that starts a run in the same folder of runs."""


@dataclass(frozen=True)
class RunSummary:
    """The outcome of a run. `scores` are on the test rows, `validation` on the rows that chose the weights.

    Both are those of the saved model, as `predict` and `evaluate` load it. Without test rows (data.test=0) `scores` is empty.
    temperature: fitted on the validation rows; calibrated: the test rows' loss, ece and brier with it. Both None without
    validation rows, calibrated also without test rows. seconds: from reading the data to the test scores.

    timing, in seconds: preparation (reading, tokenizing, loading, caching), cache (the part of it that fills the feature cache),
    training (the steps), step (their median), evaluation (on validation rows, with checkpoints) and test (of the saved model).
    Compare costs by training: the first of several runs fills the caches that the others use.
    memory, in MB of 10⁶ bytes: start (the process before the run), process and gpu (their peaks until the last step), gradients,
    optimizer (its state), checkpoint and model (files on disk). A value that was not measured is None.
    """

    name: str
    folder: Path
    scores: Mapping[str, float]
    validation: Mapping[str, float]
    temperature: float | None
    calibrated: Mapping[str, float] | None
    classes: tuple[str, ...]
    counts: ParameterCounts
    steps: int
    best_step: int
    stopped_early: bool
    stopped_by_callback: bool
    seconds: float
    samples_per_second: float
    timing: Mapping[str, float | None]
    memory: Mapping[str, float | None]


def run_training(  # noqa: PLR0913 - public: everything about a run that is not a setting
    config: Config,
    *,
    name: str = "run",
    folder: str | Path = "runs",
    overwrite: bool = False,
    resume: bool = False,
    announce: Callable[[RunPlan], None] = lambda plan: None,
    listeners: Sequence[Listener] = (),
    distributed: Distributed = ALONE,
    rows: Parts | None = None,
    keep_rows: bool = True,
) -> RunSummary:
    """Train, test and save one run in `folder`/`name` (`config.name` wins over `name`).

    rows: tables in memory in place of `data.source`. The run keeps them, unless not `keep_rows`: then it can only be resumed and
    diagnosed with the same rows given again.

    `resume` continues an interrupted run from its last evaluation and gives the same adapter, bit for bit on a CPU. `announce`
    receives the plan before the first step, `listeners` every step and evaluation. Raises LoralabError for unusable input, before
    anything is written, and RunFailed if the run itself fails or is interrupted.

    Under torchrun every process calls this with its `Distributed.join()`. The main process alone writes and calls `announce` and
    `listeners`. The call leaves torch's threads and random state, the environment and the warning filters as they were.
    """
    target = Path(folder) / (config.name or name)
    threads = config.train.threads or distributed.threads
    if overwrite and rows is None and run_folder.is_own_rows(config, target):  # they go with the run that is replaced
        rows = read_parts(target / run_folder.ROWS)
    if rows is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"source": str(target / run_folder.ROWS)})})
    with restored_globals(), thread_limit(threads), explain_out_of_memory(), ExitStack() as lock:
        options: Any = {"rows": rows, "keep_rows": keep_rows, "lock": lock}
        session = start_session(config, target, overwrite, resume, announce, listeners, distributed, **options)
        return finish_session(session, session.trainer.fit())


@dataclass(frozen=True)
class TrainingSession:
    """A run before its first step, with an open folder.

    started: time.perf_counter() when the run began; preparation, cache: seconds as in `RunSummary.timing`; start_mb: memory then.
    """

    config: Config
    components: RunComponents
    folder: run_folder.RunFolder
    encoded: Mapping[str, Encoded]
    trainer: Trainer
    distributed: Distributed
    started: float
    preparation: float
    cache: float
    start_mb: float


def start_session(  # noqa: PLR0913 - the arguments of run_training
    config: Config,
    target: Path,
    overwrite: bool = False,
    resume: bool = False,
    announce: Callable[[RunPlan], None] = lambda plan: None,
    listeners: Sequence[Listener] = (),
    distributed: Distributed = ALONE,
    *,
    rows: Parts | None = None,
    keep_rows: bool = True,
    lock: ExitStack,
) -> TrainingSession:
    """Do everything before the first step. Arguments as in `run_training`. lock: gets the lock of the run's folder."""
    started, start_mb = time.perf_counter(), process_mb()
    reset_peak_memory()
    distributed.run_on_main(run_folder.check_available, target, overwrite, resume)
    components = distributed.run_everywhere(build_run, config, target, distributed, rows)
    plan, model, manifest = components.plan, components.model, components.manifest
    distributed.check_same(settings=config.fingerprint(), base=manifest.base_sha256, rows=plan.splits.fingerprints())
    distributed.run_on_main(announce, plan)

    write_rows = partial(write_parts, rows) if rows is not None and keep_rows else None
    with ExitStack() as starting:
        distributed.run_on_main(lock_starts, target.parent, starting)
        if target.is_dir():  # that another process trains in it is said before it is replaced
            with ExitStack() as probe:
                distributed.run_on_main(lock_run, target, probe, LOCK_SECONDS if resume else 0.0)
        folder = distributed.run_on_main(open_folder, config, components, overwrite, resume, write_rows)
        distributed.run_on_main(lock_run, folder.folder, lock)
    checkpoint = distributed.run_on_main(Checkpoint.load_if_any, folder.checkpoint)
    distributed.run_on_main(folder.rewind_log, checkpoint.step if checkpoint else 0)
    caching = time.perf_counter()
    encoded = distributed.main_first(add_hidden_states, components, listeners if distributed.is_main else ())
    cache = time.perf_counter() - caching
    start_head(config, model, encoded["train"], components.descriptions)
    trainer = Trainer(
        model,
        build_optimizer(model, config.train, loraplus_lr_ratio(config)),
        TrainingData(encoded["train"], encoded.get("validation"), config.seed_for("shuffle")),
        Objective(components.loss, partial(metrics.scores, classes=manifest.classes, names=tracked(config, manifest.classes))),
        config.train,
        Callbacks((folder.log, *listeners), folder.save_checkpoint),
        distributed,
    )
    if checkpoint is not None:
        trainer.restore(checkpoint)
    preparation = time.perf_counter() - started
    return TrainingSession(config, components, folder, encoded, trainer, distributed, started, preparation, cache, start_mb)


def finish_session(session: TrainingSession, result: FitResult) -> RunSummary:
    """Do everything after the last step: save the model, score the saved model, complete the folder."""
    config, components, folder, distributed = session.config, session.components, session.folder, session.distributed
    ended, peaks = time.perf_counter(), {"process": peak_process_mb(session.start_mb), "gpu": peak_gpu_mb(components.model.device)}
    if distributed.is_main:
        save_model(folder, components, result.temperature or 1.0)
    stop_if_interrupted(result, folder.folder)
    session.trainer.release()
    result, logits = distributed.run_on_main(score_saved_model, session, result)
    summary = summarize(session, result, logits, ended, peaks)
    if distributed.is_main:
        test = components.plan.splits.test
        if test is not None and logits is not None:
            folder.write_predictions(*prediction_rows(test, logits, result.temperature or 1.0))
        folder.write_scores(
            {
                **asdict(summary),
                "folder": str(folder.folder),
                "fingerprint": config.fingerprint(),
                "settings": listed_settings(config),
            }
        )
    return summary


def score_saved_model(session: TrainingSession, result: FitResult) -> tuple[FitResult, metrics.Logits | None]:
    """Score the saved model. Return the result with its validation scores and temperature, and its logits of any test rows.

    Writes the temperature, fitted on the validation rows, into the model's folder. The main process alone computes, on the cores of
    the others too, so that the scores are those of `evaluate`.
    """
    config, components, folder = session.config, session.components, session.folder
    parts = {name: session.encoded[name] for name in ("validation", "test") if name in session.encoded}
    threads = None if session.distributed.size == 1 or config.train.threads else available_cores()
    with thread_limit(threads):
        logits = saved_logits(folder.model, components.model, parts, config.train.device)
    labels = parts["validation"].labels if "validation" in logits else None
    if labels is None:
        return result, logits.get("test")
    scores = metrics.scores(logits["validation"], labels, components.manifest.classes, tracked(config, components.manifest.classes))
    temperature = metrics.fit_temperature(logits["validation"], labels)
    with write_errors(folder.model):
        replace(read_manifest(folder.model), temperature=temperature).write(folder.model)
    return replace(result, scores=scores, temperature=temperature), logits.get("test")


def open_folder(
    config: Config,
    components: RunComponents,
    overwrite: bool,
    resume: bool,
    write_rows: Callable[[Path], None] | None = None,
) -> run_folder.RunFolder:
    """Create the run's folder, with rows in memory. With `resume` reopen it, if settings, rows, base and device are unchanged."""
    plan, manifest = components.plan, components.manifest
    facts = {
        "processes": plan.processes,
        **asdict(plan.device),
        "base": {"name": manifest.base, "sha256": manifest.base_sha256, "revision": manifest.base_revision},
        "classes": [*manifest.classes],
        "rows": plan.splits.fingerprints(),
    }
    if resume:
        return run_folder.reopen(plan.folder, config, facts)
    return run_folder.create(plan.folder, config, facts, overwrite, data_summary(plan), write_rows)


def lock_run(folder: Path, stack: ExitStack, seconds: float = 0.0) -> None:
    """Lock a run's folder until `stack` is closed, or this process dies. Raises RunFailed if another process trains in it.

    seconds: to wait for the other. Without file locks nothing is locked.
    """
    if not stack.enter_context(lock_folder(folder, seconds)):
        raise RunFailed(f"another process is training {folder}: wait for it, or choose another --name")


def lock_starts(folder: Path, stack: ExitStack) -> None:
    """Let one process at a time start a run in `folder`, until `stack` is closed.

    Otherwise a second one could replace a run between its first appearance and its lock. Raises RunFailed after START_SECONDS.
    """
    with suppress(OSError):  # if it cannot be made, neither can the run, which says so
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.R_OK) and not stack.enter_context(lock_folder(folder, START_SECONDS)):
        raise RunFailed(
            f"another process has been starting a run in {folder} for {START_SECONDS:.0f} seconds: end it, and try again"
        )


def add_hidden_states(components: RunComponents, listeners: Sequence[Listener]) -> dict[str, Encoded]:
    """Return the rows of every split, those in the plan's feature cache with their hidden states."""
    plan, encoded = components.plan, components.encoded
    cached = {name: plan.cache.add_hidden_states(components.model, encoded[name], listeners) for name in plan.cached_parts}
    return {**encoded, **cached}


def start_head(config: Config, model: ClassifierModel, train: Encoded, descriptions: Encoded | None) -> None:
    """Initialize the head as `train.head_init` says. A run without training does not read the labels."""
    probe = train if config.train.head_init in ("probe", "probe+descriptions") and config.train.epochs else None
    if probe is not None or descriptions is not None:
        initialize_head(model, last_linear(model.head), probe, descriptions)


def tracked(config: Config, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the monitored score and those of `train.track`."""
    return metrics.tracked_scores(config.train.monitor, config.train.track, classes)


def loraplus_lr_ratio(config: Config) -> float:
    """Return the learning rate of LoRA's B over that of A: 1 unless the variant is LoRA+."""
    return config.lora.loraplus_lr_ratio if config.tuning == "lora" and config.lora.variant == "loraplus" else 1.0


def save_model(folder: run_folder.RunFolder, components: RunComponents, temperature: float) -> None:
    """Write the model's folder atomically."""
    with atomic_folder(folder.model) as temporary:
        save_bundle(
            temporary, components.model, replace(components.manifest, temperature=temperature), components.tokenizer.to_str()
        )


def stop_if_interrupted(result: FitResult, folder: Path) -> None:
    """Raise Interrupted after Ctrl-C, with the best weights saved and the run incomplete."""
    if result.interrupted:
        raise Interrupted(
            f"interrupted after step {result.steps}: the weights of step {result.best_step}, the best so far, are saved.\n"
            f"  Use them: loralab predict {folder} --input TEXT\n  Resume: the same command with --resume"
        )


def summarize(
    session: TrainingSession, result: FitResult, logits: metrics.Logits | None, ended: float, peaks: Mapping[str, float | None]
) -> RunSummary:
    """Score the test rows and collect the outcome.

    logits: of the test rows, if there are some. ended: time.perf_counter() after the last step; peaks: of memory until then.
    """
    config, plan, classes = session.config, session.components.plan, session.components.manifest.classes
    scores: Mapping[str, float] = {}
    calibrated = None
    if plan.splits.test is not None and logits is not None:
        labels = plan.splits.test.require_labels()
        scores = metrics.scores(logits, labels, classes, tracked(config, classes))
        calibrated = metrics.probability_scores(logits, labels, result.temperature) if result.temperature else None
    return RunSummary(
        name=plan.folder.name,
        folder=plan.folder,
        scores=scores,
        validation=result.scores,
        temperature=result.temperature,
        calibrated=calibrated,
        classes=classes,
        counts=plan.counts,
        steps=result.steps,
        best_step=result.best_step,
        stopped_early=result.stopped_early,
        stopped_by_callback=result.stopped_by_callback,
        seconds=time.perf_counter() - session.started,
        samples_per_second=result.samples_per_second,
        timing={
            "preparation": session.preparation,
            "cache": session.cache,
            "training": result.train_seconds,
            "step": result.step_seconds,
            "evaluation": result.evaluation_seconds,
            "test": time.perf_counter() - ended,
        },
        memory={
            "start": session.start_mb,
            **peaks,
            "gradients": result.gradient_mb,
            "optimizer": result.optimizer_mb,
            "checkpoint": size_mb(session.folder.checkpoint),
            "model": size_mb(session.folder.model),
        },
    )


def prediction_rows(test: Examples, logits: metrics.Logits, temperature: float) -> tuple[list[str], Iterator[list[object]]]:
    """Return the header and the lines of predictions.csv."""
    header = ["row", "true", "predicted", "confidence", *(f"logit:{name}" for name in test.classes), "text"]
    probabilities = metrics.softmax(logits, temperature).astype(np.float32)  # as `Predictions` has them
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    columns = zip(test.rows, test.require_labels(), predicted, confidence, logits, test.texts, strict=True)
    return header, (
        [row, test.classes[label], test.classes[guess], f"{share:.5f}", *(f"{value:.4f}" for value in values), text]
        for row, label, guess, share, values, text in columns
    )
