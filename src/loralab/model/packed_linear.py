"""Products with frozen weights, which are laid out once as a processor reads them fastest.

torch lays a weight out anew in every bf16 product, and gives fp32 products to a library that is slow on some processors. oneDNN's
own layout, which torch's compiler uses too, is found once for each weight: bf16 products take 0.9 of the time and are the same bit
for bit, fp32 products take 0.45. Without a gradient the activation is part of the product (docs/log.md).
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
"""Its approximation in each form of GELU (Hendrycks and Gimpel 2016), by the names of checkpoints' configs."""


def activate(x: Tensor, activation: str) -> Tensor:
    """Return relu, tanh or a form of gelu of x."""
    if activation == "relu":
        return F.relu(x)
    return torch.tanh(x) if activation == "tanh" else F.gelu(x, approximate=_GELU[activation])


def packed_linear(x: Tensor, weight: Tensor, bias: Tensor, activation: str | None = None) -> Tensor:
    """Return x Wᵀ + bias, activated; differentiable in x alone where weight (outputs, inputs) is frozen. x: (..., inputs)."""
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
    """Return the gradient of `forward` to x, from its gradient (..., outputs) to y."""
    packed = _packed(gradient, weight) if weight.dtype == torch.float32 else None  # bf16's would cost the caches what it saves
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
    """What is made of a weight once, for as long as the weight lives and stays what it is."""

    def __init__(self, make: Callable[[Tensor], V]) -> None:
        self.make = make
        self.known: MutableMapping[Tensor, tuple[int, Tensor, V]] = WeakTensorKeyDictionary()
        self.making = threading.Lock()

    def of(self, weight: Tensor) -> V:
        """What was made of a weight. Threads that ask at once get the same, so it lives as long as the weight stays what it is."""
        with self.making:
            known = self.known.get(weight)
            if known is None or known[0] != weight._version or known[1].data_ptr() != weight.data_ptr():
                plain = weight.detach()  # kept alive, so that its address is nobody else's
                self.known[weight] = known = weight._version, plain, self.make(plain)
            return known[2]


class _Packed:
    """A weight in oneDNN's layout, and its transpose once a gradient has asked for it."""

    def __init__(self, weight: Tensor) -> None:
        self.plain = weight
        self.rows: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.columns: Tensor | None = None

    def forward(self, x: Tensor, bias: Tensor, activation: str | None) -> Tensor:
        name, form = ("gelu", _GELU[activation]) if activation in _GELU else (activation or "none", "")
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.rows, bias, name, [], form)
        return y

    def backward(self, gradient: Tensor) -> Tensor:
        if self.columns is None:
            self.columns = torch.ops.mkldnn._reorder_linear_weight(self.plain.t().contiguous())
        x: Tensor = torch.ops.mkldnn._linear_pointwise(gradient, self.columns, None, "none", [], "")
        return x


def _onednn_types() -> tuple[torch.dtype, ...]:
    """The types that oneDNN multiplies on this processor."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return ()
    return (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)


_types = _onednn_types()
_layouts = PackedWeight(_Packed)


def _packed(x: Tensor, weight: Tensor) -> _Packed | None:
    """The layout of a weight that x meets on a processor; None where oneDNN has none, or the network is being exported."""
    fits = x.device.type == "cpu" and x.dtype == weight.dtype and weight.dtype in _types
    lasts = isinstance(weight, nn.Parameter) and not weight.is_inference()  # neither a cast made for one pass, nor without versions
    if not (fits and lasts) or torch.compiler.is_compiling():
        return None
    return _layouts.of(weight)
