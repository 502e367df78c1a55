"""Memory and size of a run beside full fine-tuning: measured values, and counts worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_run import edit, make_run

from loralab.report.memory import MemoryRow, format_mb, memory_rows
from loralab.report.run_data import read_run
from loralab.report.write import write_report
from loralab.storage import run_folder


def test_full_fine_tuning_is_computed_from_base_and_head(tmp_path: Path) -> None:
    """The run has 1,000 base, 60 adapter and 40 head parameters, and trains 100 with 8 bytes of optimizer state each."""
    rows = {row.name: row for row in memory_rows(read_run(make_run(tmp_path / "run")))}
    assert rows["trainable parameters"] == MemoryRow("trainable parameters", "100", "1,040")
    assert rows["gradients"] == MemoryRow("gradients", "0.0004 MB", format_mb(1040 * 4 / 1e6))
    assert rows["optimizer state (adamw)"] == MemoryRow("optimizer state (adamw)", "0.0008 MB", format_mb(1040 * 8 / 1e6))
    assert rows["saved model on disk, without its base"] == MemoryRow(
        "saved model on disk, without its base", "0.5 MB", format_mb(1040 * 4 / 1e6)
    )
    assert rows["process, peak in training"] == MemoryRow("process, peak in training", "900 MB", None)
    assert not any(name.startswith("GPU") for name in rows)  # it was not measured


def test_a_full_run_has_measurements_only(tmp_path: Path) -> None:
    rows = memory_rows(read_run(make_run(tmp_path / "run", tuning="full")))
    assert len(rows) == 7
    assert all(row.full is None for row in rows)


def test_a_run_that_trained_nothing_counts_adamw(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run")
    edit(made / run_folder.SCORES, counts={"base": 1000, "adapter": 0, "head": 40, "trainable": 0}, memory={"optimizer": 0.0})
    rows = {row.name: row.full for row in memory_rows(read_run(made))}
    assert rows == {"trainable parameters": "1,040", "optimizer state (adamw)": format_mb(1040 * 8 / 1e6)}


def test_a_run_without_measurements_has_no_table(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run")
    assert "Memory and size" in write_report(made).read_text(encoding="utf-8")
    edit(made / run_folder.SCORES, memory=None, timing=None)
    assert memory_rows(read_run(made)) == []
    assert "Memory and size" not in write_report(made).read_text(encoding="utf-8")


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1,234 MB"), (99.94, "99.9 MB"), (0.0004, "0.0004 MB"), (0.0, "0 MB")])
def test_megabytes_have_three_digits(value: float, text: str) -> None:
    assert format_mb(value) == text
