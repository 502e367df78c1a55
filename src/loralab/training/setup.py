"""What a run is made of before its first step: rows, tokens, network, loss, cache. Nothing is written yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from loralab import metrics
from loralab.config import Config
from loralab.data.augment import Rewrite, augment, check_techniques, needs_synonyms, remark, word_rewrites
from loralab.data.back_translation import load_back_translation
from loralab.data.clean import check_steps
from loralab.data.prepare import class_names_as_texts, load_splits, remarks
from loralab.data.prompt import Prompt, set_prompt
from loralab.data.sources import Columns
from loralab.data.splits import Splits
from loralab.data.tokenize import load_tokenizer, tokenize_cached
from loralab.data.types import Encoded, Examples
from loralab.data.wordnet import find_wordnet
from loralab.model import device
from loralab.model.build import Lora, build_network, check_counts
from loralab.model.bundle import Manifest
from loralab.model.checkpoints import BaseCheckpoint, resolve_base
from loralab.model.encoder import EncoderClassifier
from loralab.model.hf.model import HFClassifier
from loralab.model.parameter_counts import Counts
from loralab.storage.cache import cache_folder
from loralab.training import prefix_cache
from loralab.training.distributed import ALONE, Distributed
from loralab.training.loss import Loss, resolve_class_weights
from loralab.training.prefix_cache import PrefixCache
from loralab.training.schedule import count_steps

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class RunPlan:
    """What a run is about to do, told before step 1."""

    folder: Path
    splits: Splits
    columns: Columns
    counts: Counts
    setting: device.DeviceConfig
    cache: PrefixCache
    remarks: tuple[str, ...]
    processes: int = 1


@dataclass(frozen=True)
class RunComponents:
    """All that a run is made of, before its first step.

    `parts`: the splits' rows as tokens, by the splits' names. `names`: what the classes are called, where the head starts from it.
    """

    plan: RunPlan
    network: EncoderClassifier | HFClassifier
    tokenizer: Tokenizer
    parts: Mapping[str, Encoded]
    names: Encoded | None
    loss: Loss
    manifest: Manifest


def build_run(config: Config, target: Path, world: Distributed = ALONE) -> RunComponents:
    """Read the rows, load and adapt the encoder, and decide what to do, writing nothing and waiting for nobody."""
    check_steps(config.data.clean)
    check_techniques(config.data.augment)
    splits, columns = load_splits(**config.data.division())
    splits, added = augment_rows(config, splits)
    loss, names = choose_loss(config, splits), choose_names(config, splits)

    base = resolve_base(config.model.base)
    tokenizer = load_tokenizer(base.folder, min(config.data.max_length, base.dims.longest))
    prompt = set_prompt(tokenizer, config.data.template, names) if names and config.model.head == "prompt" else None
    network, counts = make_network(config, base, len(splits.classes), prompt)
    setting = device.move_to_device(network, config.train.precision, config.train.threads or world.threads)
    manifest = describe_model(config, base, network, splits.classes)

    tokenize = partial(tokenize_cached, tokenizer=tokenizer, clean=config.data.clean, pad_id=base.dims.pad_id)
    parts = {name: tokenize(rows) for name, rows in splits.merged().parts().items()}
    if isinstance(network, HFClassifier) and network.allocation is not None:
        steps = config.train.batch_size, config.train.epochs, config.train.max_steps
        network.allocation.check_steps(count_steps(len(parts["train"]), *steps))
    cache = plan_cache(config, network, parts, manifest, setting)
    notes = (*added, *remarks(splits), *config.remarks(), *(prompt.remarks if prompt else ()))
    plan = RunPlan(target, splits, columns, counts, setting, cache, notes, world.size)
    start = tokenize(names) if names and not prompt else None
    return RunComponents(plan, network, tokenizer, parts, start, loss, manifest)


def augment_rows(config: Config, splits: Splits) -> tuple[Splits, list[str]]:
    """Make more rows of the training rows, where that is wanted, and say how many."""
    data = config.data
    if not data.augment or not data.augment_ratio:
        return splits, []
    rewrites = load_rewrites(data.augment, data.augment_strength, data.back_translation)
    ratio, seed = data.augment_ratio, config.stream("augment")
    rows, made = augment(splits.train, rewrites, ratio=ratio, seed=seed, clean=data.clean)
    return replace(splits, augmented=rows), [remark(made, round(ratio * len(splits.train)))]


def load_rewrites(techniques: Sequence[str], strength: float, pair: Sequence[str]) -> dict[str, Rewrite]:
    """Return the techniques by name; WordNet is read and translators are loaded where one needs them."""
    rewrites = word_rewrites(techniques, strength, find_wordnet().synonyms if needs_synonyms(techniques) else None)
    if "back_translation" in techniques:
        there, back = pair
        rewrites["back_translation"] = load_back_translation(there, back)
    return rewrites


def choose_loss(config: Config, splits: Splits) -> Loss:
    """Check what to train for and what to stop on, before anything costs time."""
    metrics.check_stop_on(config.train.monitor, splits.classes)
    weights = resolve_class_weights(config.train.class_weights, splits.classes, splits.merged().train.require_labels())
    return Loss(weights, config.train.label_smoothing, config.train.focal_gamma)


def choose_names(config: Config, splits: Splits) -> Examples | None:
    """What the classes are called, as labelled texts, where the head is to start from it; the words alone for a prompt's mask."""
    prompt = config.model.head == "prompt"
    wanted = prompt or config.train.head_init in ("descriptions", "probe+descriptions")
    template = "{}" if prompt else config.data.template
    return class_names_as_texts(splits.classes, config.data.descriptions, template) if wanted else None


def make_network(
    config: Config, base: BaseCheckpoint, classes: int, prompt: Prompt | None = None
) -> tuple[EncoderClassifier | HFClassifier, Counts]:
    """Load and adapt the encoder; count what will be trained, and refuse it over the budget."""
    lora = Lora(**config.lora.model_dump(exclude={"max_trainable", "loraplus_lr_ratio"}))
    shape = config.model.model_dump(exclude={"base"})
    if prompt:
        shape |= {"pooling": prompt.place, "words": prompt.words}
    init, dropout = config.stream("init"), config.stream("dropout")
    network = build_network(base, classes, **shape, tuning=config.tuning, lora=lora, init_seed=init, dropout_seed=dropout)
    network.gradient_checkpointing = config.train.gradient_checkpointing
    counts = check_counts(
        network, tuning=config.tuning, lora=lora, freeze=config.model.freeze, max_trainable=config.lora.max_trainable
    )
    return network, counts


def describe_model(
    config: Config, base: BaseCheckpoint, network: EncoderClassifier | HFClassifier, classes: tuple[str, ...]
) -> Manifest:
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
        lora=config.lora.model_dump(mode="json", exclude={"max_trainable", "loraplus_lr_ratio"}),
        quantize=config.model.quantize,
    )


def plan_cache(
    config: Config,
    network: EncoderClassifier | HFClassifier,
    parts: Mapping[str, Encoded],
    manifest: Manifest,
    setting: device.DeviceConfig,
) -> PrefixCache:
    """Decide what is kept of the frozen layers below the lowest trained one."""
    return prefix_cache.plan(
        network,
        list(parts.values()),
        setting=config.train.feature_cache,
        limit=config.train.feature_cache_gb * 1e9,
        epochs=config.train.epochs,
        folder=cache_folder(),
        identity=f"{manifest.base_sha256}/{setting}/{metadata.version('torch')}",
    )
