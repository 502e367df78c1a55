"""No hostile pickle runs code, imports a module, or takes memory and time: each is refused, or read as plain values."""

from __future__ import annotations

import codecs
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hostile_pickles import hostile

from loralab.data.safe_pickle import read_pickle
from loralab.errors import LoralabError

MAX_SECONDS = 3
"""Of the processor for one pickle, on a busy machine; the slowest takes 0.2 on an idle one."""
PICKLES = hostile()
_watched: list[str] = []
_armed = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _armed and (
        event.startswith(("os.", "subprocess.", "socket.", "ctypes.", "shutil.", "marshal.", "pickle.", "code.", "webbrowser."))
        or event in ("exec", "compile", "import")
        or (event == "open" and isinstance(arguments[2], int) and arguments[2] & 3)
    ):
        _watched.append(f"{event}{arguments!r:.100}")


sys.addaudithook(_audit)


def test_there_are_more_than_200() -> None:
    assert len({*PICKLES.values()}) > 200


def test_nothing_is_executed_imported_or_exhausted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    global _armed
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pkl"
    read_pickle(_written(path, b"](X\x01\x00\x00\x00ae."))  # what reading imports itself
    codecs.lookup("raw_unicode_escape"), codecs.lookup("unicode_escape")  # pickletools' own
    outcomes, messages = {"refused": 0, "read": 0}, dict[str, str]()
    for name, data in PICKLES.items():
        _written(path, data)
        modules, memory, start = {*sys.modules}, _peak(), time.process_time()
        _watched.clear()
        _armed = True
        try:
            columns = read_pickle(path).columns
            outcomes["read"] += 1
            cells = {type(cell) for values in columns.values() for cell in values}
            assert cells <= {str, int, float, bool, type(None), list}, name
        except LoralabError as error:
            outcomes["refused"] += 1
            messages[name] = str(error)
        finally:
            _armed = False
        assert not _watched, f"{name}: {_watched}"
        assert {*sys.modules} == modules, name
        assert time.process_time() - start < MAX_SECONDS, name
        grown = _peak() - memory
        assert grown < 150, f"{name}: {grown:.0f} MB"
    assert [file.name for file in tmp_path.iterdir()] == ["x.pkl"]
    assert outcomes["refused"] > 200
    assert not [name for name, message in messages.items() if len(message) > 700 or not message.isprintable()]


def _peak() -> float:
    """Return the most memory of the process so far in MB; 0 where it is not measured."""
    if sys.platform != "linux":
        return 0.0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
