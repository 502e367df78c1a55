"""The whole route: text → tokens → batches → network → scores → run folder. Read this page first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from loralab import metrics, runs
from loralab.config import Config
from loralab.data.clean import check_steps
from loralab.data.encode import encode, load_tokenizer
from loralab.data.prepare import load_splits, remarks
from loralab.data.select import Splits
from loralab.data.sources import Columns
from loralab.data.values import Encoded, Examples
from loralab.errors import RunFailed
from loralab.model import device
from loralab.model.build import Lora, build_network, check_counts
from loralab.model.bundle import Manifest, save_bundle
from loralab.model.counts import Counts
from loralab.model.generic import GenericNetwork
from loralab.model.network import Network
from loralab.model.storage import Base, resolve_base
from loralab.training import prefix_cache
from loralab.training.callbacks import Listener, Watch
from loralab.training.checkpoint import Checkpoint
from loralab.training.engine import Fit, Optimisation, fit
from loralab.training.loss import Loss, resolve_class_weights
from loralab.training.prefix_cache import PrefixCache
from loralab.training.scoring import logits_of
from loralab.training.warm_start import last_linear, warm_start

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Plan:
    """What a run is about to do, told before step 1."""

    folder: Path
    splits: Splits
    columns: Columns
    counts: Counts
    setting: device.Setting
    cache: PrefixCache
    remarks: tuple[str, ...]


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


@dataclass(frozen=True)
class Ready:
    """All that a run is made of, before its first step. `parts`: the splits' rows as tokens, by the splits' names."""

    plan: Plan
    network: Network | GenericNetwork
    tokenizer: Tokenizer
    parts: Mapping[str, Encoded]
    loss: Loss
    manifest: Manifest


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
    start_head(config, network, parts["train"])
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


def prepare(config: Config, target: Path) -> Ready:
    """Read the rows, load and adapt the encoder, and decide what to do, writing nothing."""
    check_steps(config.data.clean)
    splits, columns = load_splits(**config.data.model_dump(exclude={"clean", "max_length"}))
    loss = choose_loss(config, splits)

    base = resolve_base(config.model.base)
    tokenizer = load_tokenizer(base.folder, min(config.data.max_length, base.dims.longest))
    network, counts = make_network(config, base, len(splits.classes))
    setting = device.place(network, config.train.precision, config.train.threads)
    manifest = describe_model(config, base, network, splits.classes)

    tokenize = partial(encode, tokenizer=tokenizer, clean=config.data.clean, pad_id=base.dims.pad_id)
    parts = {name: tokenize(rows) for name, rows in splits.parts().items()}
    cache = plan_cache(config, network, parts, manifest, setting)
    plan = Plan(target, splits, columns, counts, setting, cache, (*remarks(splits), *config.remarks()))
    return Ready(plan, network, tokenizer, parts, loss, manifest)


def choose_loss(config: Config, splits: Splits) -> Loss:
    """Check what to train for and what to stop on, before anything costs time."""
    metrics.check_stop_on(config.train.stop_on, splits.classes)
    weights = resolve_class_weights(config.train.class_weights, splits.classes, splits.train.require_labels())
    return Loss(weights, config.train.label_smoothing, config.train.focal_gamma)


def score_validation(logits: metrics.Logits, labels: metrics.Labels, *, classes: Sequence[str], also: str) -> dict[str, float]:
    """Score an evaluation, and fit the temperature that a run which keeps these weights will use."""
    return {**metrics.scores(logits, labels, classes, also), "temperature": metrics.fit_temperature(logits, labels)}


def start_head(config: Config, network: Network | GenericNetwork, train: Encoded) -> None:
    """Fit the head before the first step, where it is wanted and something will be trained."""
    if config.train.warm_start and config.train.epochs:
        warm_start(network, train, last_linear(network.head))


def choose_optimisation(config: Config) -> Optimisation:
    """Pick the engine's settings out of the configuration."""
    ratio = config.lora.plus_ratio if config.tuning == "lora" and config.lora.variant == "loraplus" else 1.0
    return Optimisation(**config.train.model_dump(include=Optimisation.names()), plus_ratio=ratio)


def make_network(config: Config, base: Base, classes: int) -> tuple[Network | GenericNetwork, Counts]:
    """Load and adapt the encoder; count what will be trained, and refuse it over the budget."""
    lora = Lora(**config.lora.model_dump(exclude={"max_trainable", "plus_ratio"}))
    shape = config.model.model_dump(exclude={"base"})
    init, dropout = config.stream("init"), config.stream("dropout")
    network = build_network(base, classes, **shape, tuning=config.tuning, lora=lora, init_seed=init, dropout_seed=dropout)
    network.gradient_checkpointing = config.train.gradient_checkpointing
    counts = check_counts(
        network, tuning=config.tuning, lora=lora, freeze=config.model.freeze, max_trainable=config.lora.max_trainable
    )
    return network, counts


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
        lora=config.lora.model_dump(mode="json", exclude={"max_trainable", "plus_ratio"}),
        quantize=config.model.quantize,
    )


def plan_cache(
    config: Config,
    network: Network | GenericNetwork,
    parts: Mapping[str, Encoded],
    manifest: Manifest,
    setting: device.Setting,
) -> PrefixCache:
    """Decide what is kept of the frozen layers below the lowest trained one."""
    return prefix_cache.plan(
        network,
        list(parts.values()),
        setting=config.train.cache,
        limit=config.train.cache_gb * 1e9,
        epochs=config.train.epochs,
        folder=prefix_cache.default_folder(),
        identity=f"{manifest.base_sha256}/{setting}/{metadata.version('torch')}",
    )


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
