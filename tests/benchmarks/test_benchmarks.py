"""Every benchmark runs on the sample with small numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_checkpoint

from benchmarks import __main__ as suite
from benchmarks import memory, ways

# The reference systems emit warnings.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def result(name: str, folder: Path, base: Path | str = "minilm", *more: str) -> dict[str, Any]:
    [benchmark] = [known for known in suite.BENCHMARKS if known.name == name]
    benchmark.main(["--quick", "--json", str(folder), "--base", str(base), *more])
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    assert all(value > 0 for way in content["ways"].values() for value in way["values"])
    return content


def test_training(tmp_path: Path, tiny: Path, topics_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = result("training", tmp_path, tiny, "--data", str(topics_csv), "--test", str(topics_csv), "--accuracy-seeds", "1")
    assert list(report["ways"]) == ["loralab", "hf-tuned", "hf-default"]
    padding = {way: figures["padding"] for way, figures in report["ways"].items()}
    assert 1 <= padding["loralab"] <= padding["hf-tuned"] < padding["hf-default"]
    assert padding["hf-default"] == pytest.approx(128 / report["facts"]["mean tokens"])
    assert set(report["facts"]["accuracy by seed"]) == {"loralab", "hf-tuned"}

    load = ways.load_bundle

    def scaled(*arguments: Any) -> Any:
        model, manifest = load(*arguments)
        for _, _, adapter in model.adapters():
            adapter.scale *= 4
        return model, manifest

    monkeypatch.setattr(ways, "load_bundle", scaled)
    with pytest.raises(SystemExit):
        result("training", tmp_path, tiny, "--data", str(topics_csv))


def test_cached(tmp_path: Path, tiny: Path, topics_csv: Path) -> None:
    report = result("cached", tmp_path, tiny, "--data", str(topics_csv))
    loss = {way: figures["loss"] for way, figures in report["ways"].items()}
    assert loss["top"] == pytest.approx(loss["cached"], abs=0.02)
    assert {"hf-tuned", "hf-default", "reused", "all"} < set(report["ways"])


def test_trials(tmp_path: Path, tiny: Path) -> None:
    report = result("trials", tmp_path, tiny)
    assert report["ways"]["here"]["accuracy"] == report["ways"]["processes"]["accuracy"]
    assert report["ways"]["here"]["in training"] > report["ways"]["here"]["median"]


def test_prediction(tmp_path: Path) -> None:
    report = result("prediction", tmp_path)
    assert report["ways"]["onnxruntime"]["agreement"] == report["ways"]["pipeline fp32"]["agreement"] == 1
    assert {"loralab", "loralab bf16", "loralab onnx", "pipeline bf16"} < set(report["ways"])


def test_serving(tmp_path: Path, topics_csv: Path) -> None:
    # Widths that the kernels compute: in torch's bf16, rounding depends on the batch, and answers differ by 0.002.
    base = make_checkpoint(tmp_path / "bert", hidden_size=64, intermediate_size=128)
    report = result("serving", tmp_path, base, "--data", str(topics_csv), "--test", str(topics_csv), "--parts", "speed", "minute")
    assert list(report["ways"]) == ["loralab", "pipeline fp32", "pipeline bf16"]
    assert all({f"texts/s, {clients}", f"p99 ms, {clients}"} < set(report["ways"]["loralab"]) for clients in (1, 8, 64))
    assert report["facts"]["answers in 1 s"] > 1
    assert report["facts"]["largest difference of a probability from offline"] < 1e-3


def test_cold_start(tmp_path: Path, tiny: Path) -> None:
    report = result("cold-start", tmp_path, tiny)
    assert report["ways"]["loralab --help"]["median"] < report["ways"]["pipeline"]["median"]


def test_memory(tmp_path: Path, tiny: Path) -> None:
    report = result("memory", tmp_path, tiny)
    assert {"growth of predict, rows, MB", "growth of train, rows, MB", "growth of train, steps, MB"} == set(report["facts"])
    assert min(way["median"] for way in report["ways"].values()) > 100
    assert memory.peak_of(["--help"]) < 100  # not the peak of this process, which is larger


def test_scaling(tmp_path: Path) -> None:
    report = result("scaling", tmp_path, "minilm", "--axes", "rows", "rank")
    assert set(report["facts"]) == {"exponent of rows", "exponent of rank"}
    assert report["ways"]["rows 64"]["median"] > report["ways"]["rows 8"]["median"]


def test_gpu(tmp_path: Path) -> None:
    report = result("gpu", tmp_path)
    assert list(report["ways"]) == ["loralab", "cached", "hf-tuned"]
    assert report["facts"]["2 x 64 rows, seconds of training"] > 0


def test_few_shot_and_the_suite_by_names(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suite.main(["--help"])
    output = capsys.readouterr().out
    assert all(f"{benchmark.name} " in output and benchmark.line in output for benchmark in suite.BENCHMARKS)
    with pytest.raises(SystemExit):
        suite.main(["trainings"])
    suite.main(["few-shot", "--quick", "--json", str(tmp_path), "--base", str(tiny)])
    assert [path.name for path in tmp_path.iterdir()] == ["few-shot.json"]
