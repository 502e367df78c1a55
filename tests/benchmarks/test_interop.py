"""The table of agreement with other libraries: a part of it, and what its page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.interop import BASES, COLUMNS, LIMIT, NO_WEIGHTS, PAGE, SPREAD, agreement, page

REFUSED = {("RUN/model", "pipeline"), ("--to peft", "pipeline")}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["bert (cased)", "xlm-roberta", "deberta-v3"])
def test_every_cell_agrees_or_is_refused(name: str, tmp_path: Path) -> None:
    cells = agreement(name, tmp_path)
    assert set(cells) == {SPREAD, *COLUMNS}
    assert float(cells.pop(SPREAD)) > 0.1
    for column, cell in cells.items():
        if column in REFUSED:
            assert cell.startswith("refused: ")
            assert NO_WEIGHTS in cell
        else:
            assert float(cell) <= LIMIT, column


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_form_without_a_class_is_refused_with_the_reason(tmp_path: Path) -> None:
    cells = agreement("albert", tmp_path, ["model.pooling=mean", "model.head=linear"])
    assert "no albert classifier with pooling=mean and head=linear" in cells["--to merged", "pipeline"]
    assert not (tmp_path / "run" / "exports" / "merged").exists()
    assert all(float(cells[column]) <= LIMIT for column in COLUMNS if column not in REFUSED and "merged" not in column[0])


def test_the_page_marks_disagreement_and_numbers_reasons() -> None:
    cells = dict.fromkeys(COLUMNS, "3e-07") | {SPREAD: "0.6", COLUMNS[0]: "**2e-01**", COLUMNS[1]: f"refused: x {NO_WEIGHTS} y"}
    shown = page({"a": cells, "b": {**cells, COLUMNS[2]: "refused: another reason"}}, "command")
    assert "| a | 0.6 | **2e-01** | refused (1) | 3e-07 |" in shown
    assert "| b | 0.6 | **2e-01** | refused (1) | refused (2) |" in shown
    assert "2. another reason" in shown


def test_the_published_page_has_every_base_and_no_disagreement() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(BASES) == 10
    assert all(f"\n| {name} | " in text for name in BASES)
    assert "**" not in text
