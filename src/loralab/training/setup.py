"""Build the components of a run: rows, tokens, model, loss, feature cache. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from loralab import metrics
from loralab.config import Config
from loralab.data.augment import Rewrite, augment, augmentation_remark, check_techniques, needs_synonyms, word_rewrites
from loralab.data.back_translation import DEFAULT_PAIR, load_back_translation
from loralab.data.clean import check_steps, clean_text
from loralab.data.folders import Parts
from loralab.data.labels import ClassTable, class_counts
from loralab.data.prompt import Prompt, description_texts, set_prompt
from loralab.data.row_weights import scale_weights
from loralab.data.sources import Source
from loralab.data.split_remarks import split_remarks
from loralab.data.splits import Splits, load_splits
from loralab.data.text_notices import text_notices
from loralab.data.tokenize import load_tokenizer, tokenize_cached, tokenizer_remarks
from loralab.data.types import Encoded, Examples
from loralab.data.wordnet import find_wordnet
from loralab.errors import LoralabError
from loralab.model import device
from loralab.model.build import PromptHead, TrainableModel, build_model, check_counts
from loralab.model.checkpoints import BaseCheckpoint, resolve_base
from loralab.model.default_head import merged_obstacle
from loralab.model.manifest import Manifest
from loralab.model.parameter_counts import ParameterCounts
from loralab.storage.cache import cache_folder
from loralab.storage.data_contract import DataContract
from loralab.training import prefix_cache
from loralab.training.distributed import ALONE, Distributed
from loralab.training.loss import Loss, resolve_class_weights
from loralab.training.prefix_cache import PrefixCache
from loralab.training.schedule import count_steps, warmup_remarks

if TYPE_CHECKING:
    from tokenizers import Tokenizer


MAX_NOTICE_ROWS = 100
"""Most row numbers that data.json lists for a notice."""


@dataclass(frozen=True)
class RunPlan:
    """What a run will do, known before its first step. cached_parts: the splits with rows in the feature cache."""

    folder: Path
    splits: Splits
    source: Source
    counts: ParameterCounts
    device: device.DeviceConfig
    cache: PrefixCache
    remarks: tuple[str, ...]
    processes: int = 1
    cached_parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunComponents:
    """The parts of a run before its first step.

    encoded: the tokenized rows by split name. descriptions: tokenized class descriptions, if the head starts from them.
    """

    plan: RunPlan
    model: TrainableModel
    tokenizer: Tokenizer
    encoded: Mapping[str, Encoded]
    descriptions: Encoded | None
    loss: Loss
    manifest: Manifest


def build_run(config: Config, target: Path, distributed: Distributed = ALONE, rows: Parts | None = None) -> RunComponents:
    """Read the rows, load and adapt the encoder, and plan the run. Writes nothing and waits for no other process.

    `model.device.thread_limit` decides the number of threads.
    """
    check_steps(config.data.clean)
    check_techniques(config.data.augment)
    splits, source = load_splits(config.data, rows)
    splits, augmentation_remarks = augment_rows(config, splits)
    loss, descriptions = build_loss(config, splits, source.classes), describe_classes(config, splits)

    base = resolve_base(config.model.base, config.model.revision)
    longest = min(config.data.max_length, base.dims.longest)
    tokenizer = load_tokenizer(base.folder, longest)
    prompt = set_prompt(tokenizer, config.data.template, descriptions) if descriptions and config.model.head == "prompt" else None
    model, counts = load_model(config, base, len(splits.classes), prompt)
    placement = device.move_to_device(model, config.train.precision, config.train.device)
    manifest = build_manifest(config, base, model, source.contract)

    tokenize = partial(tokenize_cached, tokenizer=tokenizer, clean=config.data.clean, pad_id=base.dims.pad_id)
    encoded = {name: tokenize(rows) for name, rows in splits.merged().parts().items()}
    encoded["train"] = replace(encoded["train"], weights=scale_weights(splits.merged().train.weights))
    steps = count_steps(len(encoded["train"]), config.train.batch_size, config.train.epochs, config.train.max_steps)
    if model.allocation is not None:
        model.allocation.check_steps(steps)
    cached_parts = [part for part in encoded if part != "test" or tested_from_cache(config)]
    cache = plan_cache(config, model, [encoded[part] for part in cached_parts], manifest, placement)
    notes = (
        *(str(notice) for notices in source.notices.values() for notice in notices),
        *augmentation_remarks,
        *split_remarks(splits),
        *config.remarks(),
        *tokenizer_remarks(base.folder),
        *_length_remarks(config, base),
        *text_notices(encoded, splits.merged().parts(), longest, base.name, base.dims.longest),
        *warmup_remarks(config.train.warmup, steps),
        *placement.remarks(),
        *(prompt.remarks if prompt else ()),
        *_export_remarks(model),
    )
    plan = RunPlan(target, splits, source, counts, placement, cache, notes, distributed.size, tuple(cached_parts))
    head_descriptions = tokenize(descriptions) if descriptions and not prompt else None
    return RunComponents(plan, model, tokenizer, encoded, head_descriptions, loss, manifest)


def _export_remarks(model: TrainableModel) -> list[str]:
    """Report a head that `loralab export --to merged` will refuse, while settings can still change."""
    obstacle = merged_obstacle(model)
    advice = "for a merged export train with model.pooling=cls model.head=default; --to onnx works with any head"
    return [f"loralab export --to merged will not be possible: {obstacle}; {advice}"] if obstacle else []


def _length_remarks(config: Config, base: BaseCheckpoint) -> list[str]:
    """Report a limit that the encoder cannot reach."""
    if config.data.max_length <= base.dims.longest:
        return []
    return [f"data.max_length={config.data.max_length}: {base.name} reads {base.dims.longest} tokens of a text at most"]


def data_summary(plan: RunPlan) -> dict[str, object]:
    """Return how the data was read and split, for data.json: columns, format, classes with their values, rows, notices."""
    source, parts = plan.source, plan.splits.parts()
    counts = {part: class_counts(rows.require_labels(), rows.classes) for part, rows in parts.items()}
    classes = {
        name: {"values": values, "rows": {part: counts[part][name] for part in parts}}
        for name, values in source.classes.as_dict().items()
    }
    notices = {
        part: [{**asdict(notice), "rows": notice.rows[:MAX_NOTICE_ROWS]} for notice in notices]
        for part, notices in source.notices.items()
    }
    read = {str(notice) for notices in source.notices.values() for notice in notices}
    contract = {key: value for key, value in asdict(source.contract).items() if key not in ("values", "rows")}
    return {
        **contract,
        "classes": classes,
        "notices": notices,
        "remarks": [remark for remark in plan.remarks if remark not in read],
    }


def augment_rows(config: Config, splits: Splits) -> tuple[Splits, list[str]]:
    """Add augmented training rows if the settings ask for them, and return a remark with their number."""
    data = config.data
    if not data.augment or not data.augment_ratio:
        return splits, []
    rewrites = load_rewrites(data.augment, data.augment_strength, data.back_translation, config.train.device)
    ratio, seed = data.augment_ratio, config.seed_for("augment")
    rows, made = augment(splits.train, rewrites, ratio=ratio, seed=seed, clean=data.clean)
    texts = (clean_text(text, data.clean) for text in splits.train.texts)
    remarks = [augmentation_remark(made, round(ratio * len(splits.train)), texts, data.augment)]
    if "back_translation" in data.augment and not data.back_translation:
        remarks.append(f"data.back_translation is not set: {' and '.join(DEFAULT_PAIR)} were used")
    return replace(splits, augmented=rows), remarks


def load_rewrites(
    techniques: Sequence[str], strength: float, pair: Sequence[str] = (), device_name: str = "auto"
) -> dict[str, Rewrite]:
    """Return the augmentation techniques by name. Loads WordNet and two translation models, `pair` or DEFAULT_PAIR, if needed."""
    rewrites = word_rewrites(techniques, strength, find_wordnet().synonyms if needs_synonyms(techniques) else None)
    if "back_translation" in techniques:
        forward, backward = pair or DEFAULT_PAIR
        rewrites["back_translation"] = load_back_translation(forward, backward, device_name)
    return rewrites


def build_loss(config: Config, splits: Splits, table: ClassTable) -> Loss:
    """Check the monitored and tracked scores and return the loss. Class weights name classes or their values in the file."""
    try:
        held_out = splits.validation
        counts = class_counts(held_out.require_labels(), splits.classes) if held_out is not None and len(held_out) else None
        for name in metrics.tracked_scores(config.train.monitor, config.train.track, splits.classes):
            setting = "train.monitor" if name == config.train.monitor else "train.track"
            metrics.check_monitor(name, splits.classes, counts, setting)
    except LoralabError as error:
        raise LoralabError("\n  ".join((str(error), *config.notes))) from error
    spec = config.train.class_weights
    if isinstance(spec, Mapping):
        spec = {name if (i := table.match(name)) is None else table.names[i]: weight for name, weight in spec.items()}
    train = splits.merged().train
    labels, row_weights = train.require_labels(), scale_weights(train.weights)
    weights = resolve_class_weights(spec, splits.classes, labels, row_weights)
    loss = Loss(weights, config.train.label_smoothing, config.train.focal_gamma)
    return loss if row_weights is None else loss.with_row_weights(labels, row_weights)


def describe_classes(config: Config, splits: Splits) -> Examples | None:
    """Return the class descriptions as labelled texts, or without their template for a prompt; None if nothing uses them."""
    prompt = config.model.head == "prompt"
    if not prompt and config.train.head_init not in ("descriptions", "probe+descriptions"):
        return None
    return description_texts(splits.classes, config.data.descriptions, "{}" if prompt else config.data.template)


def load_model(
    config: Config, base: BaseCheckpoint, classes: int, prompt: Prompt | None = None
) -> tuple[TrainableModel, ParameterCounts]:
    """Load and adapt the encoder. Raises LoralabError if more parameters would be trained than `lora.max_trainable`."""
    model = build_model(
        base,
        classes,
        config.model,
        tuning=config.tuning,
        lora=config.lora,
        init_seed=config.seed_for("init"),
        dropout_seed=config.seed_for("dropout"),
        prompt=PromptHead(prompt.place, prompt.words) if prompt else None,
    )
    model.gradient_checkpointing = config.train.gradient_checkpointing
    return model, check_counts(model, tuning=config.tuning, lora=config.lora, freeze=config.model.freeze)


def build_manifest(config: Config, base: BaseCheckpoint, model: TrainableModel, data: DataContract) -> Manifest:
    """Return what a saved model needs besides its weights."""
    return Manifest(
        base=base.name,
        base_folder=str(base.folder.resolve()),
        base_sha256=base.identity(),
        base_revision=base.revision,
        base_license=base.license(),
        dims=base.dims,
        classes=tuple(data.values or ()),
        pooling=model.pooling,
        head=model.head_kind,
        tuning=config.tuning,
        clean=config.data.clean,
        max_length=min(config.data.max_length, base.dims.longest),
        lora=config.lora,
        quantize=config.model.quantize,
        data=data,
        precision=config.train.precision,
    )


def tested_from_cache(config: Config) -> bool:
    """Return whether the saved model computes the frozen layers as training does, so that the test can start from the cache.

    Full fine-tuning and gradient checkpointing train without the kernels that the saved model uses.
    """
    return config.tuning != "full" and not config.train.gradient_checkpointing


def plan_cache(
    config: Config,
    model: TrainableModel,
    parts: Sequence[Encoded],
    manifest: Manifest,
    placement: device.DeviceConfig,
) -> PrefixCache:
    """Decide where to cache the hidden states of the frozen layers below the lowest trained one."""
    kernels = "kernels" if placement.kernels else "torch"
    return prefix_cache.plan(
        model,
        parts,
        place=config.train.feature_cache,
        limit=config.train.feature_cache_gb * 1e9,
        epochs=config.train.epochs,
        folder=cache_folder(),
        identity=f"{manifest.base_sha256}/{placement.device}/{placement.precision}/{kernels}/{metadata.version('torch')}",
    )
