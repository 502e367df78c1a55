"""Products with frozen weights, packed once into the layout that the CPU reads fastest.

torch repacks a weight in every bf16 product, and passes fp32 products to a library that is slow on some CPUs. oneDNN's own layout,
which torch's compiler uses too, is computed once per weight: bf16 products take 0.9 of the time and are equal bit for bit, fp32
products take 0.45. Without a gradient the activation is part of the product (docs/lab).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, MutableMapping
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

V = TypeVar("V")

_GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
"""torch's `approximate` of each form of GELU (Hendrycks and Gimpel 2016), by its name in config.json."""


def activate(x: Tensor, activation: str) -> Tensor:
    """Return relu, tanh or a form of gelu of x."""
    if activation == "relu":
        return F.relu(x)
    return torch.tanh(x) if activation == "tanh" else F.gelu(x, approximate=_GELU[activation])


def packed_linear(x: Tensor, weight: Tensor, bias: Tensor, activation: str | None = None) -> Tensor:
    """Return x Wᵀ + bias, activated. x: (..., inputs); weight: (outputs, inputs). A frozen weight and bias get no gradient."""
    if weight.requires_grad or bias.requires_grad:
        y = F.linear(x, weight, bias)
    elif torch.is_grad_enabled() and x.requires_grad:
        y = _FrozenLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    else:
        return forward(x, weight, bias, activation)
    return y if activation is None else activate(y, activation)


def forward(x: Tensor, weight: Tensor, bias: Tensor, activation: str | None = None) -> Tensor:
    """Return x Wᵀ + bias, activated, without a gradient."""
    packed = _packed(x, weight)
    if packed is not None:
        return packed.forward(x, bias, activation)
    y = F.linear(x, weight, bias)
    return y if activation is None else activate(y, activation)


def backward(gradient: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of `forward` with respect to x, from that of y (..., outputs)."""
    # In bf16 a second layout costs the CPU's caches what it saves.
    packed = _packed(gradient, weight) if weight.dtype == torch.float32 else None
    return gradient @ weight if packed is None else packed.backward(gradient)


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return backward(gradients[0], *ctx.saved_tensors), None, None


class PackedWeight(Generic[V]):
    """A cache of values made from weights. A value is made again when its weight changes, and freed with it."""

    def __init__(self, make: Callable[[Tensor], V]) -> None:
        self.make = make
        self.cache: MutableMapping[Tensor, tuple[int, Tensor, V]] = WeakTensorKeyDictionary()
        self.lock = threading.Lock()

    def of(self, weight: Tensor) -> V:
        """Return the value of a weight. Threads that call it at the same time get the same value."""
        with self.lock:
            entry = self.cache.get(weight)
            if entry is None or entry[0] != weight._version or entry[1].data_ptr() != weight.data_ptr():
                plain = weight.detach()  # a reference, so that no other tensor gets this address
                self.cache[weight] = entry = weight._version, plain, self.make(plain)
            return entry[2]


class _Packed:
    """A weight in oneDNN's layout, and its transpose, made for the first backward pass."""

    def __init__(self, weight: Tensor) -> None:
        self.plain = weight
        self.rows: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.columns: Tensor | None = None

    def forward(self, x: Tensor, bias: Tensor, activation: str | None) -> Tensor:
        name, approximate = ("gelu", _GELU[activation]) if activation in _GELU else (activation or "none", "")
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.rows, bias, name, [], approximate)
        return y

    def backward(self, gradient: Tensor) -> Tensor:
        if self.columns is None:
            self.columns = torch.ops.mkldnn._reorder_linear_weight(self.plain.t().contiguous())
        x: Tensor = torch.ops.mkldnn._linear_pointwise(gradient, self.columns, None, "none", [], "")
        return x


def _onednn_dtypes() -> tuple[torch.dtype, ...]:
    """The dtypes that oneDNN multiplies on this CPU."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return ()
    return (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)


_dtypes = _onednn_dtypes()
_layouts = PackedWeight(_Packed)


def _packed(x: Tensor, weight: Tensor) -> _Packed | None:
    """The packed weight for an input on the CPU. None if oneDNN does not support it, or the model is being exported."""
    supported = x.device.type == "cpu" and x.dtype == weight.dtype and weight.dtype in _dtypes
    # Neither a temporary cast of a weight, nor an inference tensor, which has no version counter.
    permanent = isinstance(weight, nn.Parameter) and not weight.is_inference()
    if not (supported and permanent) or torch.compiler.is_compiling():
        return None
    return _layouts.of(weight)
