"""Commands import heavy packages only if they need them, and `--help` is fast."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "peft", "datasets", "matplotlib", "huggingface_hub", "safetensors", "tokenizers")
LOADED = f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
COMMAND = f"""
import sys
from loralab.cli.main import main
sys.argv = ["loralab", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
{LOADED}
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done


def loaded(done: subprocess.CompletedProcess[str]) -> str:
    return next(line for line in done.stderr.splitlines() if line.startswith("LOADED"))


def test_importing_loralab_imports_no_heavy_package() -> None:
    assert loaded(run(f"import sys, loralab; loralab.load_config; {LOADED}")) == "LOADED []"


@pytest.mark.slow
def test_a_heavy_import_is_detected() -> None:
    assert "'torch'" in loaded(run(f"import sys, loralab; loralab.Classifier; {LOADED}"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], "Usage"),
        (["train", "--help"], "KEY=VALUE"),
        (["recipes"], "roberta-million-budget"),
        (["--version"], "loralab"),
        (["config", "show", "quickstart"], "rank: 16"),
        pytest.param(["config", "schema"], "properties", marks=pytest.mark.slow),
        pytest.param(["settings", "--json"], "lora.rank", marks=pytest.mark.slow),
        (["describe", "roberta-class-weights", "--json"], "888580"),
        pytest.param(
            ["budget", "roberta-million-budget", "--max-trainable", "1000000", "--json"], "999172", marks=pytest.mark.slow
        ),
        pytest.param(["clean", "oil #39;s up"], "oil's up", marks=pytest.mark.slow),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_without_a_model_imports_no_torch(arguments: list[str], expected: str) -> None:
    done = run(COMMAND, *arguments)
    assert expected in done.stdout
    assert loaded(done) == "LOADED []"


def test_help_takes_under_half_a_second() -> None:
    script = Path(sys.executable).parent / "loralab"
    command = [str(script)] if script.is_file() else [sys.executable, "-c", "from loralab.cli.main import main; main()"]
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, check=True)
        seconds.append(time.perf_counter() - began)
        assert "Usage" in done.stdout
    assert min(seconds) < 0.5, seconds


def test_public_names() -> None:
    import loralab

    assert sorted(loralab.__all__) == sorted(name for names in loralab._HOMES.values() for name in names)
    for name in loralab.__all__:
        assert getattr(loralab, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        loralab.nothing  # noqa: B018


IGNORED = """
import signal, time, weakref
import loralab.cli.main

class Node:
    pass

def command():
    node = Node()
    reference = weakref.ref(node, lambda _: signal.raise_signal(signal.SIGINT))
    del node
    time.sleep(20)

loralab.cli.main.main = command
from loralab.__main__ import main
main()
"""


def test_ctrl_c_where_python_ignores_exceptions_interrupts_all_the_same() -> None:
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", IGNORED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "loralab: interrupted\n")
    assert time.monotonic() - start < 15


def test_ctrl_c_that_an_extension_turns_into_another_error_interrupts() -> None:
    """As matplotlib does: its C++ code reads arrays, and calls any error of that an invalid matrix."""
    code = """
import signal
import loralab.cli.main

def command():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ValueError("Invalid affine transformation matrix") from None

loralab.cli.main.main = command
from loralab.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "loralab: interrupted\n")


def test_reading_a_csv_imports_no_pandas(tmp_path: Path) -> None:
    """Which takes up to a second, where it is installed."""
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(50)))
    checked = "print('LOADED', 'pandas' in sys.modules, file=sys.stderr)"
    assert loaded(run(COMMAND.replace(LOADED, checked), "check", str(path))) == "LOADED False"
