"""Runs with row weights (data.weight): equal weights change nothing, and weights reach training, resumed runs and processes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tiny import topics

from loralab import LoralabError, load_config
from loralab.pipeline import RunSummary, run_training

COUNT = 80
Train = Callable[..., RunSummary]


@pytest.fixture
def train(tiny: Path, tmp_path: Path) -> Train:
    """Train on 80 rows with the given weights, or without weights, into the folder `name`."""

    def trained(name: str, weights: Sequence[object] | None, *more: str, **options: object) -> RunSummary:
        source = tmp_path / "topics.csv" if weights is None else tmp_path / f"{name}.csv"
        with source.open("w", encoding="utf-8", newline="") as file:
            rows = zip(topics(COUNT // 4), weights or [1] * COUNT, strict=True)
            csv.writer(file).writerows([["text", "label", "w"], *([*row, weight] for row, weight in rows)])
        own = [f"model.base={tiny}", "train.learning_rate=0.01", "train.epochs=2", "train.precision=fp32"]
        own += ["train.batch_size=8", "data.validation=12", *([] if weights is None else ["data.weight=w"])]
        return run_training(load_config(source, [*own, *more]), name=name, folder=tmp_path / "runs", **options)  # type: ignore[arg-type]

    return trained


def adapter(run: RunSummary) -> bytes:
    """Return the adapter's file, which has the head too."""
    return (run.folder / "model" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("settings", [[], ["train.class_weights=balanced", "train.head_init=probe", "train.label_smoothing=0.1"]])
def test_equal_weights_give_the_adapter_of_a_run_without_weights(train: Train, settings: list[str]) -> None:
    plain, equal = train("plain", None, *settings), train("equal", [0.3] * COUNT, *settings)
    assert adapter(plain) == adapter(equal)
    assert dict(plain.scores) == dict(equal.scores)


@pytest.mark.parametrize(
    "settings", [["train.feature_cache=off"], ["train.feature_cache=memory", "lora.layers=2"], ["train.head_init=probe"]]
)
def test_weights_change_the_adapter_and_not_the_scores_rows(train: Train, settings: list[str]) -> None:
    plain = train("plain", None, *settings)
    weighted = train("weighted", [0.5 + i % 6 * 0.5 for i in range(COUNT)], *settings)
    assert adapter(plain) != adapter(weighted)
    counts = [{name: value for name, value in run.scores.items() if name.startswith("true:")} for run in (plain, weighted)]
    assert counts[0] == counts[1]
    rows = [json.loads((run.folder / "environment.json").read_text())["rows"] for run in (plain, weighted)]
    assert rows[0]["test"] == rows[1]["test"]
    notices = json.loads((weighted.folder / "data.json").read_text())["notices"]["train"]
    assert "row weights: column 'w', from 0.5 to 3" in [notice["message"] for notice in notices]


def test_only_the_ratios_of_weights_matter(train: Train) -> None:
    weights = [2.0 ** (i % 3) for i in range(COUNT)]
    first, second = train("first", weights), train("second", [4 * weight for weight in weights])
    assert adapter(first) == adapter(second)


def test_the_label_of_a_row_of_weight_zero_has_no_effect(train: Train, tmp_path: Path) -> None:
    pairs = topics(COUNT // 4)
    adapters = []
    for name, label in (("one", "Sports"), ("two", "World")):
        rows = [[text, label if i % 10 == 0 else own, int(i % 10 != 0)] for i, (text, own) in enumerate(pairs)]
        path = tmp_path / f"labels-{name}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text", "label", "w"], *rows])
        settings = [
            f"data.source={path}",
            "data.test=0",
            "data.validation=0",
            "train.class_weights=balanced",
            "train.head_init=probe",
        ]
        adapters.append(adapter(train(name, [1, 0] * (COUNT // 2), *settings)))
    assert adapters[0] == adapters[1]


def test_a_resumed_run_gives_the_same_adapter(train: Train) -> None:
    weights = [1.0 + i % 4 for i in range(COUNT)]
    whole = train("whole", weights)

    def interrupt(event: object) -> None:
        if getattr(event, "step", 0) == 9:
            raise KeyboardInterrupt

    with pytest.raises(LoralabError, match="--resume"):
        train("cut", weights, listeners=[interrupt])
    assert adapter(train("cut", weights, resume=True)) == adapter(whole)
    with pytest.raises(LoralabError, match="--resume"):
        train("changed", weights, listeners=[interrupt])
    with pytest.raises(LoralabError, match="cannot be resumed to the same result: rows"):
        train("changed", weights[::-1], resume=True)
