"""What a run is made of before its first step: rows, tokens, network, loss, cache. Nothing is written yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from loralab import metrics
from loralab.cache import cache_folder
from loralab.config import Config
from loralab.data.augment import Rewrite, augment, check_techniques, needs_synonyms, remark, word_rewrites
from loralab.data.clean import check_steps
from loralab.data.encode import encode_once, load_tokenizer
from loralab.data.prepare import class_names_as_texts, load_splits, remarks
from loralab.data.prompt import Prompt, set_prompt
from loralab.data.select import Splits
from loralab.data.sources import Columns
from loralab.data.values import Encoded, Examples
from loralab.data.wordnet import find_wordnet
from loralab.model import device
from loralab.model.build import Lora, build_network, check_counts
from loralab.model.bundle import Manifest
from loralab.model.counts import Counts
from loralab.model.generic import GenericNetwork
from loralab.model.network import Network
from loralab.model.storage import Base, resolve_base
from loralab.model.translate import load_back_translation
from loralab.training import prefix_cache
from loralab.training.loss import Loss, resolve_class_weights
from loralab.training.prefix_cache import PrefixCache
from loralab.training.schedule import count_steps
from loralab.training.together import ALONE, World

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
    processes: int = 1


@dataclass(frozen=True)
class Ready:
    """All that a run is made of, before its first step.

    `parts`: the splits' rows as tokens, by the splits' names. `names`: what the classes are called, where the head starts from it.
    """

    plan: Plan
    network: Network | GenericNetwork
    tokenizer: Tokenizer
    parts: Mapping[str, Encoded]
    names: Encoded | None
    loss: Loss
    manifest: Manifest


def prepare(config: Config, target: Path, world: World = ALONE) -> Ready:
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
    setting = device.place(network, config.train.precision, config.train.threads or world.threads)
    manifest = describe_model(config, base, network, splits.classes)

    tokenize = partial(encode_once, tokenizer=tokenizer, clean=config.data.clean, pad_id=base.dims.pad_id)
    parts = {name: tokenize(rows) for name, rows in splits.merged().parts().items()}
    if isinstance(network, GenericNetwork) and network.allocation is not None:
        steps = config.train.batch_size, config.train.epochs, config.train.max_steps
        network.allocation.check_steps(count_steps(len(parts["train"]), *steps))
    cache = plan_cache(config, network, parts, manifest, setting)
    notes = (*added, *remarks(splits), *config.remarks(), *(prompt.remarks if prompt else ()))
    plan = Plan(target, splits, columns, counts, setting, cache, notes, world.size)
    start = tokenize(names) if names and not prompt else None
    return Ready(plan, network, tokenizer, parts, start, loss, manifest)


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
    metrics.check_stop_on(config.train.stop_on, splits.classes)
    weights = resolve_class_weights(config.train.class_weights, splits.classes, splits.merged().train.require_labels())
    return Loss(weights, config.train.label_smoothing, config.train.focal_gamma)


def choose_names(config: Config, splits: Splits) -> Examples | None:
    """What the classes are called, as labelled texts, where the head is to start from it; the words alone for a prompt's mask."""
    prompt = config.model.head == "prompt"
    wanted = prompt or config.train.warm_start in ("names", "both")
    template = "{}" if prompt else config.data.template
    return class_names_as_texts(splits.classes, config.data.descriptions, template) if wanted else None


def make_network(config: Config, base: Base, classes: int, prompt: Prompt | None = None) -> tuple[Network | GenericNetwork, Counts]:
    """Load and adapt the encoder; count what will be trained, and refuse it over the budget."""
    lora = Lora(**config.lora.model_dump(exclude={"max_trainable", "plus_ratio"}))
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
        folder=cache_folder(),
        identity=f"{manifest.base_sha256}/{setting}/{metadata.version('torch')}",
    )
