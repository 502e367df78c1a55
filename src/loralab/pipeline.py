"""The whole route: text → tokens → batches → network → scores → run folder. Read this page first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from loralab.model.generic import GenericNetwork
from loralab.model.network import Network
from loralab.model.storage import Base, resolve_base
from loralab.training.callbacks import Listener, Watch
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
    setting: device.Setting
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
    loss, score = choose_loss_and_score(config, splits)

    base = resolve_base(config.model.base)
    tokenizer = load_tokenizer(base.folder, min(config.data.max_length, base.dims.longest))
    tokenize = partial(encode, tokenizer=tokenizer, clean=config.data.clean, pad_id=base.dims.pad_id)
    network, counts = make_network(config, base, len(splits.classes))
    setting = device.place(network, config.train.precision, config.train.threads)

    announce(Plan(target, splits, columns, counts, setting, (*remarks(splits), *config.remarks())))
    manifest = describe_model(config, base, network, splits.classes)
    run = open_run(config, target, splits, setting, manifest, overwrite, resume)
    checkpoint = Checkpoint.load_if_any(run.checkpoint)
    run.rewind_log(checkpoint.step if checkpoint else 0)
    result = fit(
        network,
        tokenize(splits.train),
        tokenize(splits.validation) if splits.validation else None,
        loss=loss,
        score=score,
        watch=Watch(config.train.stop_on, config.train.patience, config.train.min_delta),
        seed=config.stream("shuffle"),
        optimisation=Optimisation(**config.train.model_dump(include=Optimisation.names())),
        listeners=(run.log, *listeners),
        resume=checkpoint,
        keep=run.keep_checkpoint,
    )
    with runs.atomic_folder(run.model) as model_folder:
        save_bundle(model_folder, network, manifest, tokenizer.to_str())
    stop_if_interrupted(result, target)
    scores = score(logits_of(network, tokenize(splits.test)), splits.test.require_labels())
    outcome = {key: getattr(result, key) for key in ("steps", "best_step", "stopped_early", "samples_per_second")}
    seconds = time.perf_counter() - began
    summary = RunSummary(target.name, target, scores, result.scores, splits.classes, counts, seconds=seconds, **outcome)
    run.write_scores({**asdict(summary), "folder": str(target), "fingerprint": config.fingerprint()})
    return summary


def choose_loss_and_score(config: Config, splits: Splits) -> tuple[Loss, Callable[..., dict[str, float]]]:
    """Check what to train for and what to stop on, before anything costs time."""
    metrics.check_stop_on(config.train.stop_on, splits.classes)
    weights = resolve_class_weights(config.train.class_weights, splits.classes, splits.train.require_labels())
    loss = Loss(weights, config.train.label_smoothing, config.train.focal_gamma)
    return loss, partial(metrics.scores, classes=splits.classes, also=config.train.stop_on)


def make_network(config: Config, base: Base, classes: int) -> tuple[Network | GenericNetwork, Counts]:
    """Load and adapt the encoder; count what will be trained, and refuse it over the budget."""
    lora = Lora(**config.lora.model_dump(exclude={"max_trainable"}))
    shape = config.model.model_dump(exclude={"base"})
    init, dropout = config.stream("init"), config.stream("dropout")
    network = build_network(base, classes, **shape, tuning=config.tuning, lora=lora, init_seed=init, dropout_seed=dropout)
    return network, check_counts(network, tuning=config.tuning, lora=lora, max_trainable=config.lora.max_trainable)


def describe_model(config: Config, base: Base, network: Network | GenericNetwork, classes: tuple[str, ...]) -> Manifest:
    """Write down what the weights alone do not say."""
    return Manifest(
        base=base.name,
        base_folder=str(base.folder.resolve()),
        base_sha256=base.identity(),
        dims=base.dims,
        classes=classes,
        pooling=network.pooling,
        head=network.head_kind,
        tuning=config.tuning,
        clean=config.data.clean,
        max_length=config.data.max_length,
        lora=config.lora.model_dump(mode="json", exclude={"max_trainable"}),
        quantize=config.model.quantize,
    )


def open_run(
    config: Config, target: Path, splits: Splits, setting: device.Setting, manifest: Manifest, overwrite: bool, resume: bool
) -> runs.Run:
    """Make the run's folder, or reopen it when its settings, rows, base and setting are the same."""
    base = {"name": manifest.base, "sha256": manifest.base_sha256}
    facts = {**asdict(setting), "base": base, "classes": [*splits.classes], "rows": splits.fingerprints()}
    return runs.reopen(target, config, facts) if resume else runs.create(target, config, facts, overwrite)


def stop_if_interrupted(result: Fit, target: Path) -> None:
    """After Ctrl-C the best weights are saved by now; say so, and leave the run incomplete."""
    if result.interrupted:
        raise RunFailed(
            f"interrupted after step {result.steps}: the weights of step {result.best_step}, the best so far, are saved.\n"
            f"  Use them: loralab predict {target} --input TEXT\n  Go on: the same command with --resume"
        )
