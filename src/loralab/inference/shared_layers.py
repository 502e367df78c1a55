"""Several classifiers on one encoder: equal weights are stored once, and layers that models share run once for all texts.

Models that adapt only their top layers have the lower layers in common. A batch may mix texts of all models. It goes through the
common layers together and splits where the models differ:

embeddings → layers 0-2, equal in all models → layers 3-5 and head of model A on A's texts
                                             → layers 3-5 and head of model B on B's texts

Adapters are merged, as in `Classifier.load`, so the logits are those of each model on its own. A text that several models classify
goes through the common layers once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from loralab.data.batches import collate, make_microbatches
from loralab.data.types import Encoded, Ints
from loralab.model.encoder import EncoderClassifier
from loralab.model.interface import ClassifierModel
from loralab.training.scoring import inference_tokens, run_batch, to_tensors

Logits = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class SharedModel:
    """A model in evaluation mode, with what says which of its parts other models share. Its weights do not change any more.

    embeddings, layers: identities of the parameters, of the embeddings and of each layer. Models that the native encoder does not
    compute have none, and share nothing.
    """

    model: ClassifierModel
    pad_id: int
    embeddings: Hashable = field(init=False)
    layers: tuple[Hashable, ...] = field(init=False)

    def __post_init__(self) -> None:
        native = isinstance(self.model, EncoderClassifier)
        model = cast(EncoderClassifier, self.model)
        settings = (model.dims, model.compute_dtype, model.device, self.pad_id) if native else id(self)
        object.__setattr__(self, "embeddings", (settings, _ids(model.embeddings) if native else ()))
        object.__setattr__(self, "layers", tuple(map(_ids, model.layers)) if native else ())

    def shared_depth(self, other: SharedModel) -> int:
        """Return how many layers above the embeddings both have in common, if their embeddings are the same."""
        if self.embeddings != other.embeddings:
            return 0
        return next((i for i, (a, b) in enumerate(zip(self.layers, other.layers, strict=True)) if a != b), len(self.layers))


@dataclass(frozen=True)
class TextOfModel:
    """The tokens of a text, special tokens included, and the model that classifies it."""

    model: SharedModel
    tokens: Tokens


def share_weights(model: ClassifierModel, others: Iterable[ClassifierModel]) -> int:
    """Replace the parameters of `model` that are equal to those of other native models. Returns the bytes that this saves."""
    if not isinstance(model, EncoderClassifier):
        return 0
    known = [dict(other.named_parameters()) for other in others if isinstance(other, EncoderClassifier) and other is not model]
    saved = 0
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            full_name = f"{path}.{name}" if path else name
            for parameters in known:
                other = parameters.get(full_name)
                if other is not None and _equal(parameter, other):
                    setattr(module, name, other)
                    saved += parameter.nbytes
                    break
    return saved


def logits_of_texts(texts: Sequence[TextOfModel]) -> list[Logits]:
    """Return the logits (classes,) fp32 of each text by its model, without the temperature."""
    results: dict[int, Logits] = {}
    groups: dict[Hashable, list[int]] = {}  # texts that can ride in one micro-batch: their models have the same embeddings
    for i, text in enumerate(texts):
        groups.setdefault(text.model.embeddings, []).append(i)
    for group in groups.values():
        lengths = np.array([len(texts[i].tokens) for i in group])
        for microbatch in make_microbatches(np.arange(len(group)), lengths, inference_tokens(texts[group[0]].model.model.device)):
            results.update(_run(texts, [group[i] for i in microbatch]))
    return [results[i] for i in range(len(texts))]


@dataclass
class _Demand:
    """A model, and what it classifies: (position of the result, row of the micro-batch)."""

    model: SharedModel
    pairs: list[tuple[int, int]] = field(default_factory=list)

    @property
    def rows(self) -> Ints:
        return np.unique([row for _, row in self.pairs])


def _run(texts: Sequence[TextOfModel], positions: Sequence[int]) -> Iterator[tuple[int, Logits]]:
    """Run one micro-batch of texts whose models have the same embeddings. Yields positions and logits."""
    rows: dict[bytes, int] = {}  # a text of several models is one row
    unique: list[Tokens] = []
    demands: dict[SharedModel, _Demand] = {}
    for position in positions:
        text = texts[position]
        row = rows.setdefault(text.tokens.tobytes(), len(unique))
        if row == len(unique):
            unique.append(text.tokens)
        demands.setdefault(text.model, _Demand(text.model)).pairs.append((position, row))
    starts = np.concatenate([[0], np.cumsum([len(tokens) for tokens in unique])])
    first = texts[positions[0]].model
    batch, model = collate(Encoded(np.concatenate(unique), starts, None, first.pad_id), np.arange(len(unique))), first.model
    with torch.inference_mode():
        if not isinstance(model, EncoderClassifier):
            values = run_batch(model, batch, model.device).float().cpu().numpy()
            yield from ((position, values[row]) for demand in demands.values() for position, row in demand.pairs)
            return
        inputs, mask = to_tensors(batch, model.device)
        yield from _descend(
            [*demands.values()], _States(model.embeddings(inputs, model.compute_dtype), mask, np.arange(len(unique))), 0
        )


@dataclass(frozen=True)
class _States:
    """Hidden states (batch, time, width) and mask (batch, time) of some rows of the micro-batch; rows: their numbers, ascending."""

    hidden: Tensor
    mask: Tensor
    rows: Ints

    def take(self, rows: Ints) -> _States:
        """Return the states of some of these rows, cut to the longest."""
        if len(rows) == len(self.rows):
            return self
        index = torch.from_numpy(np.searchsorted(self.rows, rows)).to(self.hidden.device)
        mask = self.mask[index]
        longest = int(mask.sum(dim=1).max())
        return _States(self.hidden[index, :longest], mask[:, :longest], rows)


def _descend(demands: Sequence[_Demand], states: _States, start: int) -> Iterator[tuple[int, Logits]]:
    """Run the layers from `start` on: together while the models agree, then each group of equal models on its own rows."""
    models = [cast(EncoderClassifier, demand.model.model) for demand in demands]
    layers = len(models[0].layers)
    stop = min((demands[0].model.shared_depth(demand.model) for demand in demands[1:]), default=layers)
    pooled_only = all(model.pooling == "cls" for model in models)
    hidden = models[0].encode(states.hidden, states.mask, start, stop, pooled_only=pooled_only)
    states = _States(hidden, states.mask, states.rows)
    if stop == layers:
        for model, demand in zip(models, demands, strict=True):
            chosen = states.take(demand.rows)
            logits = model.classify(chosen.hidden, chosen.mask).cpu().numpy()
            yield from ((position, logits[np.searchsorted(chosen.rows, row)]) for position, row in demand.pairs)
        return
    branches: dict[Hashable, list[_Demand]] = {}
    for demand in demands:
        branches.setdefault(demand.model.layers[stop], []).append(demand)
    for branch in branches.values():
        yield from _descend(branch, states.take(np.unique(np.concatenate([demand.rows for demand in branch]))), stop)


def _ids(module: nn.Module) -> tuple[int, ...]:
    return tuple(id(parameter) for parameter in module.parameters())


def _equal(a: nn.Parameter, b: nn.Parameter) -> bool:
    return a is not b and a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
