"""Several classifiers on one encoder: equal weights are stored once, and layers that models share run once per text.

Models that adapt only their top layers have the lower layers in common. A batch may mix texts of all models:

embeddings → layers 0-2, equal in all models → layers 3-5 and head of model A on A's texts
                                             → layers 3-5 and head of model B on B's texts

The states between the two are kept for a while, so that a text that another model classifies next starts at layer 3. Adapters are
merged, as in `Classifier.load`, so the logits are those of each model on its own.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from loralab.data.batches import ModelInputs, collate, make_microbatches
from loralab.data.types import Encoded
from loralab.model.encoder import EncoderClassifier
from loralab.model.interface import ClassifierModel
from loralab.training.scoring import inference_tokens, run_batch, to_tensors

Logits = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
SERIAL = "_loralab_serial"
"""The attribute of a parameter with its number."""
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, eq=False)
class SharedModel:
    """A model in evaluation mode, with the layers that it has in common with others. Its weights do not change any more.

    prefix: what identifies the embeddings and the layers that others have too; depth: how many layers these are, 0 for none.
    """

    model: ClassifierModel
    pad_id: int
    prefix: str = ""
    depth: int = 0

    def among(self, others: Sequence[SharedModel]) -> SharedModel:
        """Return the same model with the deepest prefix that it has in common with one of the others."""
        if not isinstance(self.model, EncoderClassifier):
            return self
        depth = max((shared_depth(self, other) for other in others if other.model is not self.model), default=0)
        model = self.model
        parts = [model.embeddings, *list(model.layers)[:depth]]
        # A text, because its hash is computed once. The rest of what decides the states is the same for equal parameters.
        return replace(self, prefix=f"{self.pad_id} {[_serials(part) for part in parts]}", depth=depth)


@dataclass(frozen=True)
class TextOfModel:
    """The tokens of a text, special tokens included, and the model that classifies it."""

    model: SharedModel
    tokens: Tokens


class StateCache:
    """The last states of texts at the layers where models part, up to a number of bytes. Threads may share it."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._states: OrderedDict[tuple[str, bytes], Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, bytes]) -> Tensor | None:
        """Return the states (tokens, width) of a text, or None."""
        with self._lock:
            states = self._states.get(key)
            if states is not None:
                self._states.move_to_end(key)
            return states

    def put(self, key: tuple[str, bytes], states: Tensor) -> None:
        """Keep the states of a text, and forget those that were used longest ago."""
        with self._lock:
            if key in self._states:
                return
            self._states[key] = states
            self.bytes += states.nbytes
            while self.bytes > self.max_bytes:
                self.bytes -= self._states.popitem(last=False)[1].nbytes


def shared_depth(a: SharedModel, b: SharedModel) -> int:
    """Return how many layers above the embeddings two models have in common; 0 if their embeddings differ."""
    if not (isinstance(a.model, EncoderClassifier) and isinstance(b.model, EncoderClassifier)):
        return 0
    first, second = a.model, b.model
    alike = first.dims == second.dims and first.compute_dtype == second.compute_dtype and first.device == second.device
    if not alike or a.pad_id != b.pad_id or _serials(first.embeddings) != _serials(second.embeddings):
        return 0
    pairs = zip(first.layers, second.layers, strict=True)
    return next((depth for depth, (one, other) in enumerate(pairs) if _serials(one) != _serials(other)), len(first.layers))


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


def logits_of_texts(texts: Sequence[TextOfModel], cache: StateCache) -> list[Logits]:
    """Return the logits (classes,) fp32 of each text by its model, without the temperature."""
    states = _common_states(texts, cache)
    results: dict[int, Logits] = {}
    for shared, positions in _grouped(range(len(texts)), lambda i: texts[i].model).items():
        lengths = np.array([len(texts[i].tokens) for i in positions])
        tokens = inference_tokens(shared.model.device)
        for microbatch in make_microbatches(np.arange(len(positions)), lengths, tokens):
            chosen = [positions[i] for i in microbatch]
            with torch.inference_mode():
                logits = _classify(shared, [texts[i] for i in chosen], states)
            results.update(zip(chosen, logits, strict=True))
    return [results[i] for i in range(len(texts))]


def _common_states(texts: Sequence[TextOfModel], cache: StateCache) -> dict[tuple[str, bytes], Tensor]:
    """Return the states (tokens, width) of each different text at its model's depth, from the cache or computed together."""
    states: dict[tuple[str, bytes], Tensor] = {}
    missing: dict[tuple[str, bytes], TextOfModel] = {}
    for text in texts:
        if text.model.depth:
            key = _key(text)
            known = states.get(key)
            if known is None and (known := cache.get(key)) is None:
                missing[key] = text
            else:
                states[key] = known
    for group in _grouped(missing.items(), lambda item: item[1].model.prefix).values():
        lengths = np.array([len(text.tokens) for _, text in group])
        shared = group[0][1].model
        model = cast(EncoderClassifier, shared.model)
        for microbatch in make_microbatches(np.arange(len(group)), lengths, inference_tokens(model.device)):
            with torch.inference_mode():
                inputs, mask = to_tensors(_collate([group[i][1] for i in microbatch]), model.device)
                hidden = model.encode(model.embeddings(inputs, model.compute_dtype), mask, 0, shared.depth)
                for i, row in zip(microbatch, hidden, strict=True):
                    key = group[i][0]
                    states[key] = row[: lengths[i]].clone()  # not a view of all rows
                    cache.put(key, states[key])
    return states


def _classify(shared: SharedModel, texts: Sequence[TextOfModel], states: Mapping[tuple[str, bytes], Tensor]) -> Logits:
    """Return the logits (n, classes) of some texts of one model."""
    batch, model = _collate(texts), shared.model
    if not shared.depth:
        return run_batch(model, batch, model.device).float().cpu().numpy()
    mask = torch.from_numpy(batch.mask).to(model.device)
    first = states[_key(texts[0])]
    hidden = first.new_zeros(*mask.shape, first.shape[1])
    for row, text in zip(hidden, texts, strict=True):
        row[: len(text.tokens)] = states[_key(text)]
    return model(hidden, mask, shared.depth).float().cpu().numpy()


def _collate(texts: Sequence[TextOfModel]) -> ModelInputs:
    starts = np.concatenate([[0], np.cumsum([len(text.tokens) for text in texts])])
    encoded = Encoded(np.concatenate([text.tokens for text in texts]), starts, None, texts[0].model.pad_id)
    return collate(encoded, np.arange(len(texts)))


def _key(text: TextOfModel) -> tuple[str, bytes]:
    return text.model.prefix, text.tokens.tobytes()


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


_numbers = itertools.count()


def _serials(module: nn.Module) -> tuple[int, ...]:
    """Return a number for each parameter that no other ever gets: `id` returns those of deleted ones again."""
    for parameter in module.parameters():
        if not hasattr(parameter, SERIAL):
            setattr(parameter, SERIAL, next(_numbers))
    return tuple(getattr(parameter, SERIAL) for parameter in module.parameters())


def _equal(a: nn.Parameter, b: nn.Parameter) -> bool:
    return a is not b and a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
