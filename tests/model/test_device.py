"""Devices are checked, precision=auto picks what is fast, slow choices get a remark, and the thread count is restored."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from loralab.errors import LoralabError
from loralab.model import device
from loralab.model.device import DeviceConfig, choose_device, choose_precision, thread_limit

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, capability: int = 8, bf16: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (capability, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 or including_emulation)


def test_auto_is_cuda_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert choose_device() == CPU
    gpus(monkeypatch, 2)
    assert choose_device() == choose_device("cuda") == CUDA
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == CPU


def test_mps_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(LoralabError, match=r"train\.device=mps: .*no Apple GPU.*auto or cpu"):
        choose_device("mps")


@pytest.mark.parametrize(
    ("count", "setting", "words"),
    [
        (0, "cuda", r"train\.device=cuda: torch finds no CUDA device"),
        (0, "cuda:0", r"train\.device=cuda:0: torch finds no CUDA device"),
        (2, "cuda:2", r"train\.device=cuda:2: the last CUDA device is cuda:1"),
        (1, "gpu", r"train\.device='gpu' is not a device; valid: auto, cpu, cuda, cuda:N, mps"),
        (1, "cuda:x", "not a device"),
        (1, "cuda:-1", "not a device"),
        (1, "", "not a device"),
    ],
)
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, count: int, setting: str, words: str) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(LoralabError, match=words):
        choose_device(setting)


@pytest.mark.parametrize(
    ("capability", "bf16", "expected"), [(9, True, torch.bfloat16), (7, False, torch.float16), (6, False, torch.float32)]
)
def test_auto_precision_of_a_gpu(monkeypatch: pytest.MonkeyPatch, capability: int, bf16: bool, expected: torch.dtype) -> None:
    """An H100 has bf16, a T4 (7.5) tensor cores for fp16 only, a GTX 1080 (6.1) neither."""
    gpus(monkeypatch, 1, capability, bf16)
    assert choose_precision("auto", CUDA) == expected


@pytest.mark.parametrize("fast", [True, False])
def test_auto_precision_of_a_cpu(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_precision("auto", CPU) == (torch.bfloat16 if fast else torch.float32)
    assert choose_precision("auto", torch.device("mps")) == torch.float32
    assert bool(DeviceConfig("cpu", "bf16", 1).remarks()) is not fast


def test_precision_as_chosen() -> None:
    for name, dtype in device.PRECISIONS.items():
        assert choose_precision(name, CPU) == dtype
        assert device.precision_name(dtype) == name
    with pytest.raises(LoralabError, match=r"precision 'int4' is unknown; valid: auto, fp32, bf16, fp16"):
        choose_precision("int4", CPU)


def test_fp16_on_a_cpu_gets_a_remark() -> None:
    (remark,) = DeviceConfig("cpu", "fp16", 1).remarks()
    assert "twenty times" in remark
    for config in (("cpu", "fp32"), ("cuda", "fp16"), ("mps", "fp16")):
        assert DeviceConfig(*config, 1).remarks() == []


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_the_thread_count_is_restored(threads: Any) -> None:
    before = torch.get_num_threads()
    with thread_limit(threads):
        assert torch.get_num_threads() == (threads or before)
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), thread_limit(threads):
        raise KeyError
    assert torch.get_num_threads() == before
