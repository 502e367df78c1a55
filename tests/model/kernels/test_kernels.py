"""The C kernels against torch in fp64, under the address sanitizer, and how they are compiled and cached."""

from __future__ import annotations

import logging
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from loralab.model import kernels
from loralab.model.kernels import Kernels, fused_layers, library, missing_reason

BF16 = 2**-8  # between neighbours, of their size


def needed() -> Kernels:
    found = kernels.load_kernels()
    if found is None:
        pytest.skip(str(missing_reason()))
    return found


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine without compiled kernels; returns its cache folder."""
    needed()
    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "FLAGS", ["-O1", *library.FLAGS[1:]])  # compiles in half the time
    kernels._load_or_reason.cache_clear()
    yield tmp_path / "cache" / "kernels"
    kernels._load_or_reason.cache_clear()


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale).bfloat16()


def test_gelu_and_its_slope_of_every_bf16_number() -> None:
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)
    x = numbers[numbers.isfinite() & (numbers.abs() < 1e18)]
    x = x[: len(x) // 64 * 64].view(-1, 64)
    y, slope, bias = torch.empty_like(x), torch.empty_like(x), torch.zeros(64, dtype=torch.bfloat16)
    identity = fused_layers._to_panels(torch.eye(64).bfloat16())
    needed()("linear", x, len(x), 64, identity, bias, None, None, y, slope, 64, 1)
    exact = x.double().requires_grad_()
    expected = F.gelu(exact)
    (derivative,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(y.double(), expected.detach(), rtol=BF16, atol=3e-7)
    torch.testing.assert_close(slope.double(), derivative, rtol=BF16, atol=3e-7)


@pytest.mark.parametrize(("rows", "width"), [(1, 64), (5, 192), (13, 768)])
def test_a_norm_of_a_sum_and_its_gradient(rows: int, width: int) -> None:
    x, residual, d = drawn(rows, width), drawn(rows, width, seed=1, scale=3.0) + 5, drawn(rows, width, seed=2)
    weight, bias = drawn(width, seed=3).float(), drawn(width, seed=4).float()
    y, deviations, normal = torch.empty_like(x), torch.empty(rows), x.clone()
    needed()("add_norm", normal, residual, weight, bias, 1e-5, rows, width, y, deviations)
    needed()("add_norm_backward", d, normal, weight, deviations, rows, width)
    exact = x.double().requires_grad_()
    expected = F.layer_norm(exact + residual.double(), (width,), weight.double(), bias.double(), 1e-5)
    (gradient,) = torch.autograd.grad(expected, exact, d.double())
    torch.testing.assert_close(y.double(), expected.detach(), rtol=BF16, atol=BF16)
    torch.testing.assert_close(normal.double(), gradient, rtol=4 * BF16, atol=4 * BF16 * float(gradient.abs().max()))


@pytest.mark.parametrize("size", [16, 32, 48, 64, 128])
@pytest.mark.parametrize("first", [0, 1])
def test_attention_and_its_gradient(size: int, first: int) -> None:
    lengths, heads, scale = [1, 2, 15, 16, 61, 121], 2, 1 / math.sqrt(size)
    starts = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    total, width = int(starts[-1]), heads * size
    queries = len(lengths) if first else total
    qkv, d = drawn(total, 3 * width, scale=2.0), drawn(queries, width, seed=1)
    context, logsums, back = torch.empty(queries, width, dtype=torch.bfloat16), torch.empty(queries, heads), torch.empty_like(qkv)
    needed()("attention", qkv, starts, len(lengths), heads, size, scale, first, context, logsums)
    needed()("attention_backward", qkv, starts, len(lengths), heads, size, scale, first, logsums, d, back)
    exact = qkv.double().requires_grad_()
    parts = []
    for begin, end in pairwise(starts.tolist()):
        query, key, value = exact[begin:end].view(-1, 3, heads, size).permute(1, 2, 0, 3)
        attended = torch.softmax(query @ key.mT * scale, dim=-1) @ value
        parts.append(attended[:, : first or None].transpose(0, 1).flatten(1))
    expected = torch.cat(parts)
    (gradient,) = torch.autograd.grad(expected, exact, d.double())
    assert (context.double() - expected).norm() < BF16 * expected.norm()
    assert (back.double() - gradient).norm() < BF16 * gradient.norm()


def test_a_library_is_compiled_once(fresh: Path) -> None:
    assert kernels.load_kernels() is not None
    (path,) = fresh.iterdir()
    made = path.stat()
    kernels._load_or_reason.cache_clear()
    assert kernels.load_kernels() is not None
    assert path.stat() == made


def test_no_library_is_loaded_from_a_folder_that_others_can_write(fresh: Path) -> None:
    fresh.mkdir(parents=True)
    fresh.chmod(0o777)
    assert kernels.load_kernels() is not None
    assert list(fresh.iterdir()) == []


def test_without_a_cache_folder_kernels_are_compiled_for_this_process(fresh: Path) -> None:
    fresh.parent.write_text("a file where a folder should be")
    assert kernels.load_kernels() is not None


def test_a_failing_compiler_is_reported(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho this compiler is too old >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with caplog.at_level(logging.WARNING):
        assert kernels.load_kernels() is None
    assert "this compiler is too old" in caplog.text
    assert "this compiler is too old" in str(missing_reason())
    assert list(fresh.iterdir()) == []


@pytest.mark.usefixtures("fresh")
def test_the_reason_for_missing_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install gcc" in str(missing_reason())
    monkeypatch.setenv("LORALAB_KERNELS", "off")
    kernels._load_or_reason.cache_clear()
    assert missing_reason() == "LORALAB_KERNELS=off"
    assert kernels.load_kernels() is None


@pytest.mark.parametrize(
    ("feature", "there", "reason"), [("_is_amx_tile_supported", True, "AMX"), ("_is_avx512_bf16_supported", False, "AVX")]
)
@pytest.mark.usefixtures("fresh")
def test_unsupported_processors(monkeypatch: pytest.MonkeyPatch, feature: str, there: bool, reason: str) -> None:
    monkeypatch.setattr(torch.cpu, feature, lambda: there)
    assert reason in str(missing_reason())


SHAPES = """
import random, torch
from loralab.config import LoraConfig
from loralab.model.architectures import Dimensions
from loralab.model.kernels import missing_reason
from loralab.model.encoder import EncoderClassifier
assert missing_reason() is None, missing_reason()
torch.set_num_threads(1)
draw = random.Random(0).choice
for trial in range(40):
    (width, heads), layers = draw([(64, 1), (64, 4), (128, 2), (192, 4)]), draw([1, 2, 3])
    dims = Dimensions("bert", layers, width, heads, draw([64, 192]), 50, 256, 2, width)
    model = EncoderClassifier(dims, 3, pooling=draw(["cls", "mean"]))
    targets = draw([("query", "value"), ("all",), ("key",), ("output", "ffn_in"), ("ffn_out",)])
    model.attach_lora(LoraConfig(rank=draw([1, 3, 8, 17, 40]), dropout=draw([0, 0.3]), targets=targets))
    model.embeddings.requires_grad_(draw([True, False]))
    model.freeze_to(torch.bfloat16)
    lengths = torch.tensor([draw([1, 2, 3, 16, 17, 59, 60, 61, 125]) for _ in range(draw([1, 2, 5]))])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = torch.randint(0, 50, mask.shape)
    assert model.uses_kernels
    model.train()(tokens, mask).sum().backward()
    with torch.inference_mode():
        model.eval()(tokens, mask)
print("no error")
"""


@pytest.mark.slow
def test_no_access_out_of_bounds(tmp_path: Path) -> None:
    needed()
    sanitiser = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    if not shutil.which("gcc") or not os.path.isabs(sanitiser):
        pytest.skip("gcc has no address sanitiser here")
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\nexec gcc -fsanitize=address "$@"\n')
    compiler.chmod(0o755)
    environment = {**os.environ, "CC": str(compiler), "LORALAB_CACHE": str(tmp_path), "LD_PRELOAD": sanitiser}
    done = subprocess.run(
        [sys.executable, "-c", SHAPES],
        env={**environment, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stdout == "no error\n", done.stderr[-3000:]
