"""Execute the notebooks and store their outputs: `python notebooks/execute.py [NAME...]`, or `make notebooks`.

A notebook runs in an empty temporary folder, as on a machine that has nothing but loralab. Outputs that name a path of this machine
or contain a warning are reported. The notebook keeps a digest of the code that made its outputs, which a test compares.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
NOTEBOOKS = tuple(sorted(FOLDER.glob("*.ipynb")))
TIMEOUT = 1200
"""Seconds for one cell, on a busy machine."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ABSOLUTE = re.compile(r"(?<![\w./:-])/(?:home|root|tmp|usr|work|opt|mnt|var|private|Users)/\S*|[A-Z]:\\\\")


def execute(path: Path, folder: Path) -> Any:
    """Return a notebook with fresh outputs, executed in `folder`. Raises CellExecutionError for a cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),  # for `!loralab`
        "COLUMNS": "100",
        "HF_HUB_OFFLINE": "1",
        "PYTHONHASHSEED": "0",
    }
    client = NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.record_timing = False
    client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _clean_streams(cell.outputs)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "loralab": {"digest": digest(notebook)},
    }
    return notebook


def digest(notebook: Any) -> str:
    """Return a digest of a notebook's code."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16]


def find_faults(notebook: Any) -> Iterator[str]:
    """Yield what outputs must not contain."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        if cell.execution_count != number:
            yield f"cell {number}: not executed in order"
        for output in cell.outputs:
            texts = [output.get("text", ""), *(text for kind, text in output.get("data", {}).items() if kind.startswith("text/"))]
            if output.output_type == "error":
                yield f"cell {number}: {output.ename}"
            if output.get("name") == "stderr":
                yield f"cell {number}: standard error: {output.text[:200]}"
            for text in texts:
                if path := _ABSOLUTE.search(text):
                    yield f"cell {number}: a path of this machine, {path[0]}"
                if "Warning" in text:
                    yield f"cell {number}: a warning: {text[:200]}"


def _clean_streams(outputs: list[Any]) -> list[Any]:
    """Return outputs with consecutive texts of one stream as one, where they were cut is a matter of time; without colours."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            output.text = _ANSI.sub("", output.text)  # ipykernel makes programs print colours
    return joined


def main(names: list[str]) -> int:
    """Execute the named notebooks, by default all. Returns 1 if an output has a fault."""
    failed = 0
    for path in NOTEBOOKS:
        if names and path.stem not in names and path.name not in names:
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, Path(folder))
        faults = [*find_faults(notebook)]
        for fault in faults:
            print(f"{path.name}: {fault}", file=sys.stderr)
        failed += bool(faults)
        nbformat.write(notebook, path)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s, {path.stat().st_size / 1000:.0f} kB")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
