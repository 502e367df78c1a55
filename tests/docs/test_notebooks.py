"""The notebooks run from start to end, offline and in an empty folder; their stored outputs are those of their code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "notebooks"))
import execute  # noqa: E402

sys.path.pop(0)
NOTEBOOKS = pytest.mark.parametrize("path", execute.NOTEBOOKS, ids=lambda path: path.stem)
MAX_BYTES = 400_000
"""Of a notebook with its outputs: a report shown inline has several times as many."""


def test_there_are_notebooks() -> None:
    assert [path.stem[:2] for path in execute.NOTEBOOKS] == ["01", "02", "03", "04"]


@NOTEBOOKS
def test_outputs_are_those_of_the_code(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata["loralab"]["digest"] == execute.digest(notebook), "the code has changed: make notebooks"
    assert [*execute.find_faults(notebook)] == []
    assert any(cell.get("outputs") for cell in notebook.cells)
    assert path.stat().st_size < MAX_BYTES


@NOTEBOOKS
def test_links_resolve(path: Path) -> None:
    import re

    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert [link for link in re.findall(r"\]\((?!https?://)([^)#]+)", text) if not (path.parent / link).exists()] == []


def test_faults_are_seen() -> None:
    def faults(*outputs: Any, count: int = 1) -> list[str]:
        cell = nbformat.v4.new_code_cell("x", execution_count=count, outputs=[*outputs])
        return [*execute.find_faults(nbformat.v4.new_notebook(cells=[cell]))]

    def stream(text: str, name: str = "stdout") -> Any:
        return nbformat.v4.new_output("stream", name=name, text=text)

    assert faults(stream("accuracy 0.9, runs/first, 3/4, a /b\n")) == []
    assert faults(count=2) == ["cell 1: not executed in order"]
    assert faults(stream("in /home/me/runs")) == ["cell 1: a path of this machine, /home/me/runs"]
    assert faults(stream("late", "stderr")) == ["cell 1: standard error: late"]
    assert "a warning" in faults(stream("FutureWarning: old"))[0]
    assert faults(nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])) == ["cell 1: ValueError"]


def test_pages_have_code_tables_and_images() -> None:
    pytest.importorskip("mkdocs")
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from notebook_pages import to_markdown
    finally:
        sys.path.pop(0)
    table = {
        "text/plain": "x",
        "text/html": '<style>td {color: red}</style>\n<table border="1">\n\n<td colspan="2">1 &lt; 2</td></table>',
    }
    outputs = [
        {"output_type": "stream", "text": ["a\n", "b\n"]},
        {"output_type": "display_data", "data": {"text/plain": "<Figure with 1 Axes>", "image/png": "AAEC"}},
        {"output_type": "execute_result", "data": table},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Go to [the next](02_next.ipynb)."]},
        {"cell_type": "code", "source": ["f()"], "outputs": outputs},
    ]
    images: dict[str, bytes] = {}
    page = to_markdown({"cells": cells}, "01_first", images)

    assert page.startswith("# Title\n\n[Open in Colab](https://")
    assert "[the next](02_next.md)" in page
    assert "```python\nf()\n```" in page
    assert "```text\na\nb\n```" in page
    assert '<div class="notebook-output"><table> <td colspan="2">1 &lt; 2</td></table></div>' in page
    assert "![Figure with 1 Axes](01_first_01.png)" in page
    assert images == {"01_first_01.png": b"\x00\x01\x02"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@NOTEBOOKS
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = execute.execute(path, tmp_path)
    assert [*execute.find_faults(notebook)] == []
