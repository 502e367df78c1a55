"""Every benchmark runs to its end on the sample, with numbers so small that they show nothing but that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as suite
from benchmarks import memory, ways

# The reference systems warn about themselves.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def found(name: str, folder: Path, base: Path | str = "minilm", *more: str) -> dict[str, Any]:
    [benchmark] = [each for each in suite.BENCHMARKS if each.name == name]
    benchmark.main(["--quick", "--json", str(folder), "--base", str(base), *more])
    told: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    assert all(value > 0 for way in told["ways"].values() for value in way["values"])
    return told


def test_training(tmp_path: Path, tiny: Path, topics_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = found("training", tmp_path, tiny, "--data", str(topics_csv), "--test", str(topics_csv), "--accuracy-seeds", "1")
    assert list(told["ways"]) == ["loralab", "fair", "reference"]
    padding = {way: each["padding"] for way, each in told["ways"].items()}
    assert 1 <= padding["loralab"] <= padding["fair"] < padding["reference"]
    assert padding["reference"] == pytest.approx(128 / told["facts"]["mean tokens"])
    assert set(told["facts"]["accuracy by seed"]) == {"loralab", "fair"}

    load = ways.load_bundle

    def scaled(*arguments: Any) -> Any:
        network, manifest = load(*arguments)
        for _, _, adapter in network.adapters():
            adapter.scale *= 4
        return network, manifest

    monkeypatch.setattr(ways, "load_bundle", scaled)
    with pytest.raises(SystemExit):
        found("training", tmp_path, tiny, "--data", str(topics_csv))


def test_cached(tmp_path: Path, tiny: Path, topics_csv: Path) -> None:
    told = found("cached", tmp_path, tiny, "--data", str(topics_csv))
    loss = {way: each["loss"] for way, each in told["ways"].items()}
    assert loss["top"] == pytest.approx(loss["cached"], abs=0.02)
    assert {"fair", "reference", "found", "all"} < set(told["ways"])


def test_trials(tmp_path: Path, tiny: Path) -> None:
    told = found("trials", tmp_path, tiny)
    assert told["ways"]["here"]["accuracy"] == told["ways"]["processes"]["accuracy"]
    assert told["ways"]["here"]["in training"] > told["ways"]["here"]["median"]


def test_prediction(tmp_path: Path) -> None:
    told = found("prediction", tmp_path)
    assert told["ways"]["onnxruntime"]["agreement"] == told["ways"]["pipeline fp32"]["agreement"] == 1
    assert {"loralab", "loralab bf16", "loralab onnx", "pipeline bf16"} < set(told["ways"])


def test_cold_start(tmp_path: Path, tiny: Path) -> None:
    told = found("cold-start", tmp_path, tiny)
    assert told["ways"]["loralab --help"]["median"] < told["ways"]["pipeline"]["median"]


def test_memory(tmp_path: Path, tiny: Path) -> None:
    told = found("memory", tmp_path, tiny)
    assert {"growth of predict, rows, MB", "growth of train, rows, MB", "growth of train, steps, MB"} == set(told["facts"])
    assert min(way["median"] for way in told["ways"].values()) > 100
    assert memory.peak_of(["--help"]) < 100  # not this process's own, which is larger


def test_scaling(tmp_path: Path) -> None:
    told = found("scaling", tmp_path, "minilm", "--axes", "rows", "rank")
    assert set(told["facts"]) == {"exponent of rows", "exponent of rank"}
    assert told["ways"]["rows 64"]["median"] > told["ways"]["rows 8"]["median"]


def test_gpu(tmp_path: Path) -> None:
    told = found("gpu", tmp_path)
    assert list(told["ways"]) == ["loralab", "launched", "cached", "one", "together", "fair"]
    assert told["facts"]["2 x 64 rows, seconds of training"] > 0
    assert told["ways"]["loralab"]["loss"] == told["ways"]["launched"]["loss"]  # a processor has no graphs


def test_few_shot_and_the_suite_by_names(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suite.main(["--help"])
    said = capsys.readouterr().out
    assert all(f"{benchmark.name} " in said and benchmark.line in said for benchmark in suite.BENCHMARKS)
    with pytest.raises(SystemExit):
        suite.main(["trainings"])
    suite.main(["few-shot", "--quick", "--json", str(tmp_path), "--base", str(tiny)])
    assert [path.name for path in tmp_path.iterdir()] == ["few-shot.json"]
