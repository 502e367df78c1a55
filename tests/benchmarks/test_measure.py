"""The pure functions of the benchmarks, against numbers calculated by hand."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.few_shot import Outcome, summarize
from benchmarks.measure import Benchmark, Report, alternate
from benchmarks.prediction import best_batches, disagreements
from benchmarks.scaling import dimensions, exponent
from benchmarks.ways import floor_flops
from loralab.model.architectures import Dimensions

SMALL = Dimensions("bert", 2, 2, 1, 8, 10, 16, 2, 2)
REPORT = Report(
    "samples/s",
    {"ours": [90.0, 120.0, 100.0], "theirs": [10.0, 8.0, 20.0]},
    ("theirs",),
    {"loss": {"ours": 1.25}},
    {"rows": 48},
    remarks=["nothing else ran"],
)


def test_ways_alternate_and_the_first_round_is_left_out() -> None:
    calls: list[str] = []

    def way(name: str) -> int:
        calls.append(name)
        return len(calls)

    found = alternate({name: lambda name=name: way(name) for name in "ab"}, 2, str)  # type: ignore[misc]
    assert calls == ["a", "b"] * 3
    assert found == {"a": [3, 5], "b": [4, 6]}


def test_without_rounds_that_count_the_first_one_does() -> None:
    assert alternate({"a": lambda: 1, "b": lambda: 2}, 0, str) == {"a": [1], "b": [2]}


def test_a_table_has_medians_spreads_ratios_and_columns() -> None:
    header, ours, theirs, *rest = REPORT.table().splitlines()
    assert header.split() == ["samples/s", "spread", "×", "theirs", "loss"]
    assert ours.split() == ["ours", "100", "90-120", "10.00", "1.25"]
    assert theirs.split() == ["theirs", "10", "8-20", "1.00"]
    assert rest == ["rows: 48", "nothing else ran"]
    assert "FAILED: losses differ" in replace(REPORT, failures=["losses differ"]).table()


def suite_of(report: Report) -> Benchmark:
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rows", type=int, default=480)

    return Benchmark("small", "One line.\n\nMore.", add_options, lambda options: report, {"rows": 16})


def test_quick_lowers_defaults_and_not_what_is_asked_for() -> None:
    benchmark = suite_of(REPORT)
    assert benchmark.line == "One line."
    assert benchmark.parse([]).rows == 480
    assert benchmark.parse(["--quick"]).rows == 16
    assert benchmark.parse(["--quick", "--rows", "32"]).rows == 32


def test_the_json_says_all_and_a_failed_check_ends_with_1(tmp_path: Path) -> None:
    suite_of(REPORT).main(["--json", str(tmp_path / "new")])
    with pytest.raises(SystemExit) as ended:
        suite_of(replace(REPORT, failures=["losses differ"])).main(["--quick", "--json", str(tmp_path)])
    assert ended.value.code == 1
    found = json.loads((tmp_path / "small.json").read_text())
    assert found["ways"]["ours"] == {
        "median": 100.0,
        "lowest": 90.0,
        "highest": 120.0,
        "values": [90.0, 120.0, 100.0],
        "ratios": {"theirs": 10.0},
        "loss": 1.25,
    }
    assert found["failures"] == ["losses differ"]
    assert found["options"]["rows"] == 16
    assert {"date", "processor", "cores", "threads", "versions"} <= set(found["machine"])
    assert json.loads((tmp_path / "new" / "small.json").read_text())["failures"] == []


@pytest.mark.parametrize(
    ("how", "flops"),
    [
        # A layer of width 2 over 3 tokens: forward 24·4·3 + 4·2·9 = 360, backward 24·4·3 + 8·2·9 = 432, the lowest one's 432 - 108.
        ({"pooling": "mean"}, 360 + 360 + 432 + 324),
        ({"pooling": "mean", "top": 1}, 360 + 360 + 324),
        ({"pooling": "mean", "top": 1, "epochs": 3, "cache": "built"}, 120 + 360 + 324),
        ({"pooling": "mean", "top": 1, "epochs": 3, "cache": "found"}, 360 + 324),
        # One token leaves the highest: forward 20·4 + 4·4·3 + 4·2·3 = 152, backward 20·4 + 4·4·3 + 8·2·3 = 176.
        ({}, 360 + 152 + 176 + 324),
    ],
)
def test_the_floor_is_the_sum_of_its_products(how: dict[str, object], flops: float) -> None:
    assert floor_flops(SMALL, 3, **how) == pytest.approx(flops)  # type: ignore[arg-type]


def test_the_floor_of_minilm_on_news() -> None:
    found = [
        floor_flops(dimensions(384), 53.4, pooling="mean", epochs=3, **how)  # type: ignore[arg-type]
        for how in ({}, {"top": 3, "cache": "built"}, {"top": 3, "cache": "found"})
    ]
    assert [flops / 1e9 for flops in found] == pytest.approx([2.30, 1.32, 1.12], abs=0.005)


def test_the_best_batch_stands_for_a_pipeline() -> None:
    values = {"ours": [9.0], "pipeline fp32 1": [1.0, 9.0, 2.0], "pipeline fp32 8": [3.0, 3.0, 3.0], "pipeline bf16 32": [4.0]}
    assert best_batches(values) == (
        {"ours": [9.0], "pipeline fp32": [3.0, 3.0, 3.0], "pipeline bf16": [4.0]},
        {"pipeline fp32": "pipeline fp32 8", "pipeline bf16": "pipeline bf16 32"},
    )


def test_fp32_may_differ_in_ties_only_and_others_on_one_text_in_a_hundred() -> None:
    logits = np.array([[3.0, 0.0]] * 199 + [[1.0, 1.0001]])
    expected = ["a"] * 199 + ["b"]
    tie, one, three = ["a"] * 200, ["b", *expected[1:]], ["b", "b", "b", *expected[3:]]
    assert disagreements({"loralab fp32": tie, "onnxruntime": expected, "loralab bf16": one}, expected, logits) == []
    wrong = disagreements({"loralab fp32": one, "onnxruntime": three, "loralab": three}, expected, logits)
    assert [line.partition(":")[0] for line in wrong] == ["loralab fp32", "onnxruntime", "loralab"]


def test_an_exponent_is_the_slope_of_logarithms() -> None:
    assert exponent((1, 2, 4), [5.0, 20.0, 80.0]) == pytest.approx(2)


def test_draws_are_summed_up_by_way_and_shots() -> None:
    report = summarize([Outcome("zero-shot", 0, 0, 0.5, 0.0), Outcome("ours", 8, 0, 0.8, 2.0), Outcome("ours", 8, 1, 0.6, 4.0)])
    assert report.values == {"zero-shot": [0.5], "ours 8": [0.8, 0.6]}
    assert report.columns["mean"]["ours 8"] == pytest.approx(0.7)
    assert report.columns["deviation"] == {"ours 8": pytest.approx(0.1414, abs=1e-4)}
    assert report.columns["seconds"] == {"ours 8": 3.0}
