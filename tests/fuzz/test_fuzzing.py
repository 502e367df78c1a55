"""Seeds and changed seeds of every target cause nothing but results and LoralabErrors. `make fuzz` runs many more, by coverage."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz_guard import Guard
from fuzz_targets import TARGETS, Function
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
WITHOUT_SERVER = [name for name, target in TARGETS.items() if not target.slow]


@st.composite
def changed(draw: Callable[..., object], seeds: list[bytes]) -> bytes:
    """Draw a seed with a few pieces cut out, replaced, repeated or moved in from another seed."""
    data: bytes = draw(st.sampled_from(seeds))  # type: ignore[assignment]
    for _ in range(draw(st.integers(0, 4))):  # type: ignore[call-overload]
        start: int = draw(st.integers(0, len(data)))  # type: ignore[assignment]
        end = min(len(data), start + draw(st.sampled_from([0, 1, 2, 8, 64])))  # type: ignore[operator]
        other: bytes = draw(st.sampled_from(seeds))  # type: ignore[assignment]
        piece = draw(st.one_of(st.binary(max_size=4), st.just(data[start:end] * 2), st.just(other[start:end])))
        data = data[:start] + piece + data[end:]  # type: ignore[operator]
    return data


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return Guard(tmp_path_factory.mktemp("fuzz"))


def fuzz(name: str, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    target, folder = TARGETS[name], guard.scratch / name.replace(" ", "-")
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(guard.scratch))
    function, seeds = target.prepare(folder), [*target.seeds()]
    for data in seeds:  # twice: the first time imports what the packages import late, which the guard would report
        guard.run(function, data)
    problems = {data: problem for data in (*seeds, b"", b"\x00") if (problem := guard.run(function, data))}
    assert not problems
    _search(function, guard, seeds)


def _search(function: Function, guard: Guard, seeds: list[bytes]) -> None:
    @settings(max_examples=EXAMPLES, suppress_health_check=[*HealthCheck], database=None)
    @given(changed(seeds))  # type: ignore[arg-type]
    def search(data: bytes) -> None:
        problem = guard.run(function, data)
        assert problem is None, f"{problem.place}: {problem.detail}"

    search()


@pytest.mark.parametrize("name", WITHOUT_SERVER)
def test_only_results_and_own_errors_come_out(name: str, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz(name, guard, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*TARGETS} - {*WITHOUT_SERVER}))
def test_only_results_and_own_errors_come_out_of_slow_readers(name: str, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz(name, guard, monkeypatch)


def test_the_guard_reports_what_an_input_must_not_cause(guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz_guard.MAX_SECONDS", 0.1)

    def case(action: Callable[[], object]) -> str:
        problem = guard.run(lambda _: action(), b"")
        return problem.place if problem else ""

    assert case(lambda: None) == ""
    assert case(lambda: [][1]).startswith("IndexError in ")
    assert case(lambda: (guard.scratch / "inside").write_bytes(b"")) == ""
    assert case(lambda: (tmp_path / "outside").write_bytes(b"")) == "open"
    assert case(lambda: (tmp_path / "folder").mkdir()) == "os.mkdir"
    assert case(lambda: eval("1")) == "exec"
    assert case(lambda: os.system("true")) == "os.system"
    assert case(_busy) == "time"


def _busy() -> None:
    start = time.process_time()
    while time.process_time() - start < 0.2:
        pass
