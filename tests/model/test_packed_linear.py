"""Products with packed frozen weights equal torch's; a changed weight is packed again."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch
import torch.nn.functional as F
from reference import ours
from torch import Tensor, nn

from loralab.config import LoraConfig
from loralab.model import packed_linear as module
from loralab.model.packed_linear import packed_linear

NEAR = {torch.float32: 1e-5, torch.bfloat16: 2**-8}  # of the largest value
onednn = pytest.mark.skipif(len(module._dtypes) < 2, reason="oneDNN does not multiply both types here")


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def frozen(outputs: int, inputs: int, dtype: torch.dtype = torch.float32) -> tuple[nn.Parameter, nn.Parameter]:
    weight, bias = drawn(outputs, inputs, dtype=dtype, seed=1), drawn(outputs, dtype=dtype, seed=2)
    return nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)


def laid_out() -> int:
    """The number of packed weights since the test began."""
    gc.collect()
    return len(module._layouts.cache)


def near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= NEAR[found.dtype] * expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 16), (7, 16), (3, 5, 16), (2, 1, 16)])
def test_a_frozen_product_and_its_gradient_equal_torchs(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    weight, bias = frozen(24, 16, dtype)
    x = drawn(*shape, dtype=dtype).requires_grad_()
    gradient = drawn(*shape[:-1], 24, dtype=dtype, seed=3)
    y = packed_linear(x, weight, bias)
    expected = F.linear(x, weight, bias)
    assert y.shape == expected.shape
    assert near(y, expected)
    (back,) = torch.autograd.grad(y, x, gradient)
    (expected_back,) = torch.autograd.grad(expected, x, gradient)
    assert near(back, expected_back)
    with torch.no_grad():
        assert torch.equal(packed_linear(x, weight, bias), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "gelu_new", "gelu_pytorch_tanh"])
def test_an_activation_inside_the_product_is_the_activation(dtype: torch.dtype, activation: str) -> None:
    weight, bias = frozen(24, 16, dtype)
    x = drawn(5, 16, dtype=dtype)
    exact = module.activate(F.linear(x.float(), weight.float(), bias.float()), activation).to(dtype)
    inside = packed_linear(x, weight, bias, activation)
    after = packed_linear(x.clone().requires_grad_(), weight, bias, activation)
    assert after.requires_grad
    assert near(inside, exact)
    assert near(after, exact)


def test_trained_weights_get_their_gradients() -> None:
    for trained in range(2):
        pair = frozen(4, 8)
        pair[trained].requires_grad_()
        packed_linear(drawn(3, 8), *pair).sum().backward()
        assert pair[trained].grad is not None


@onednn
def test_a_frozen_weight_is_packed_once_and_freed_with_the_weight() -> None:
    weight, bias = frozen(4, 8)
    before = laid_out()
    packed_linear(drawn(3, 8), weight, bias)
    first = module._layouts.cache[weight][2]
    packed_linear(drawn(5, 8), weight, bias)
    assert module._layouts.cache[weight][2] is first
    assert laid_out() == before + 1
    del weight
    assert laid_out() == before


def test_a_temporary_cast_is_not_packed() -> None:
    weight, bias = frozen(4, 8)
    before = laid_out()
    with torch.no_grad():
        cast = weight.to(torch.bfloat16)
        packed_linear(drawn(3, 8, dtype=torch.bfloat16), cast, bias.to(torch.bfloat16))
    assert laid_out() == before


def change_in_place(weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight[1] += 1


def change_storage(weight: nn.Parameter) -> None:
    weight.data = weight.data + 1


@pytest.mark.parametrize("change", [change_in_place, change_storage])
def test_a_changed_weight_is_packed_again(change: Callable[[nn.Parameter], None]) -> None:
    weight, bias = frozen(4, 8)
    x = drawn(3, 8).requires_grad_()
    packed_linear(x, weight, bias).sum().backward()
    change(weight)
    x.grad = None
    y = packed_linear(x, weight, bias)
    y.sum().backward()
    assert near(y, F.linear(x, weight, bias))
    assert x.grad is not None
    assert near(x.grad, weight.sum(0).expand(3, 8))


@onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_frozen_maps_of_a_model_are_packed(tiny: Path, dtype: torch.dtype) -> None:
    model = ours(tiny, tuning="lora", lora=LoraConfig(rank=2, targets=("query",)))
    model.freeze_to(dtype)
    model(torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.bool)).sum().backward()
    maps = [projection.weight for layer in model.layers for projection in layer.projections()]
    assert all(weight in module._layouts.cache for weight in maps)
    transposed = sum(module._layouts.cache[weight][2].columns is not None for weight in maps)
    assert transposed == (len(maps) - 1 if dtype == torch.float32 else 0)  # the lowest map's input needs no gradient


@pytest.mark.slow
def test_bf16_works_without_onednn_support() -> None:
    code = """
import torch
from loralab.model import packed_linear as module
weight, bias = (torch.nn.Parameter(torch.ones(*shape, dtype=torch.bfloat16), requires_grad=False) for shape in ((4, 8), (4,)))
assert module.packed_linear(torch.ones(3, 8, dtype=torch.bfloat16), weight, bias).tolist() == [[9.0] * 4] * 3
assert module._dtypes in ((), (torch.float32,)), module._dtypes
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}  # as on a processor without AVX-512
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_a_weight_is_packed_once_for_all_threads() -> None:
    """Otherwise the first thread would compute with memory that the second has freed."""
    together, made = Barrier(4), []

    def make(weight: Tensor) -> list[int]:
        time.sleep(0.05)
        made.append(weight)
        return [len(made)]

    derived, weight = module.PackedWeight(make), frozen(4, 8)[0]

    def ask(_: int) -> list[int]:
        together.wait(10)
        return derived.of(weight)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert len(made) == 1
    assert all(each is found[0] for each in found)


def test_threads_share_a_packed_weight() -> None:
    weight, bias = frozen(64, 32)
    inputs = [drawn(9, 32, seed=seed).requires_grad_() for seed in range(40)]

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        y = packed_linear(x, weight, bias)
        return y.detach(), torch.autograd.grad(y.sum(), x)[0]

    with ThreadPoolExecutor(8) as pool:
        for x, (y, gradient) in zip(inputs, pool.map(both, inputs), strict=True):
            assert near(y, F.linear(x, weight, bias))
            assert near(gradient, weight.sum(0).expand(9, 32))
