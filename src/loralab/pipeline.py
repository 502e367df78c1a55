"""The whole route: text → tokens → batches → network → scores → run folder. Read this page first."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loralab import metrics, runs
from loralab.config import Config
from loralab.data.clean import check_steps
from loralab.data.encode import encode, load_tokenizer
from loralab.data.prepare import load_splits, remarks
from loralab.data.select import Splits
from loralab.data.sources import Columns
from loralab.errors import RunFailed
from loralab.model import device
from loralab.model.build import Lora, build_network, check_counts
from loralab.model.bundle import Manifest, save_bundle
from loralab.model.counts import Counts
from loralab.model.storage import resolve_base
from loralab.training.callbacks import Event, Listener, Watch
from loralab.training.checkpoint import Checkpoint
from loralab.training.engine import Fit, Optimisation, fit
from loralab.training.loss import Loss, resolve_class_weights
from loralab.training.scoring import logits_of


@dataclass(frozen=True)
class Plan:
    """What a run is about to do, told before step 1."""

    folder: Path
    splits: Splits
    columns: Columns
    counts: Counts
    device: str
    precision: str
    threads: int
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class RunSummary:
    """What a run came to: plain data. `scores` are on the test rows, `validation` on the rows that chose the weights."""

    name: str
    folder: Path
    scores: Mapping[str, float]
    validation: Mapping[str, float]
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
    check_steps(config.data.clean)
    splits, columns = load_splits(**config.data.model_dump(exclude={"clean", "max_length"}))
    classes, labels = splits.train.classes, splits.train.require_labels()
    metrics.check_stop_on(config.train.stop_on, classes)
    loss = Loss(
        resolve_class_weights(config.train.class_weights, classes, labels), config.train.label_smoothing, config.train.focal_gamma
    )
    score = partial(metrics.scores, classes=classes, also=config.train.stop_on)

    base = resolve_base(config.model.base)
    tokenizer = load_tokenizer(base.folder, min(config.data.max_length, base.dims.longest))
    tokenize = partial(encode, tokenizer=tokenizer, clean=config.data.clean, pad_id=base.dims.pad_id)
    lora = Lora(**config.lora.model_dump(exclude={"max_trainable"}))
    network = build_network(
        base,
        len(classes),
        **config.model.model_dump(exclude={"base"}),
        tuning=config.tuning,
        lora=lora,
        init_seed=config.stream("init"),
        dropout_seed=config.stream("dropout"),
    )
    counts = check_counts(network, tuning=config.tuning, lora=lora, max_trainable=config.lora.max_trainable)
    threads = device.set_threads(config.train.threads)
    where, precision = device.place(network, config.train.precision)

    announce(Plan(target, splits, columns, counts, where, precision, threads, (*remarks(splits), *config.remarks())))
    identity = base.identity()
    facts = {
        "device": where,
        "precision": precision,
        "threads": threads,
        "base": {"name": base.name, "sha256": identity},
        "rows": {part: {"count": len(rows), "fingerprint": rows.fingerprint()} for part, rows in splits.parts().items()},
    }
    run = runs.reopen(target, config, facts) if resume else runs.create(target, config, facts, overwrite)
    checkpoint = last_checkpoint(run)
    result = fit(
        network,
        tokenize(splits.train),
        tokenize(splits.validation) if splits.validation else None,
        loss=loss,
        score=score,
        watch=Watch(config.train.stop_on, config.train.patience, config.train.min_delta),
        seed=config.stream("shuffle"),
        optimisation=Optimisation(**config.train.model_dump(include=Optimisation.names())),
        listeners=(partial(log_event, run), *listeners),
        resume=checkpoint,
        keep=partial(keep_checkpoint, run),
    )
    manifest = Manifest(
        base=base.name,
        base_folder=str(base.folder.resolve()),
        base_sha256=identity,
        dims=base.dims,
        classes=classes,
        pooling=network.pooling,
        head=network.head_kind,
        tuning=config.tuning,
        clean=config.data.clean,
        max_length=config.data.max_length,
        lora=dataclasses.asdict(lora),
    )
    with runs.atomic_folder(run.model) as model_folder:
        save_bundle(model_folder, network, manifest, tokenizer.to_str())
    stop_if_interrupted(result, run)
    scores = score(logits_of(network, tokenize(splits.test)), splits.test.require_labels())
    summary = RunSummary(
        name=target.name,
        folder=target,
        scores=scores,
        validation=result.scores,
        classes=classes,
        counts=counts,
        steps=result.steps,
        best_step=result.best_step,
        stopped_early=result.stopped_early,
        seconds=time.perf_counter() - began,
        samples_per_second=result.samples_per_second,
    )
    run.write_scores({**dataclasses.asdict(summary), "folder": str(target), "fingerprint": config.fingerprint()})
    return summary


def last_checkpoint(run: runs.Run) -> Checkpoint | None:
    """Read the state to go on from, if there is one, and rewind the log to it."""
    checkpoint = Checkpoint.load(run.checkpoint) if run.checkpoint.is_file() else None
    run.rewind_log(checkpoint.values["step"] if checkpoint else 0)
    return checkpoint


def keep_checkpoint(run: runs.Run, checkpoint: Checkpoint) -> None:
    """Replace the run's checkpoint."""
    with run.writing():
        checkpoint.save(run.checkpoint)


def log_event(run: runs.Run, event: Event) -> None:
    """Write one event into the run's log."""
    run.log({"event": type(event).__name__, **dataclasses.asdict(event)})


def stop_if_interrupted(result: Fit, run: runs.Run) -> None:
    """After Ctrl-C the best weights are saved by now; say so, and leave the run incomplete."""
    if result.interrupted:
        raise RunFailed(
            f"interrupted after step {result.steps}: the weights of step {result.best_step}, the best so far, are saved.\n"
            f"  Use them: loralab predict {run.folder} --input TEXT\n  Go on: the same command with --resume"
        )
