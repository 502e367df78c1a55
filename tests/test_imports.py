"""What a command loads before it is needed: no torch for counting, listing and help, and help at once."""

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


def test_the_package_loads_nothing_heavy_until_a_name_is_used() -> None:
    assert loaded(run(f"import sys, loralab; loralab.load_config; {LOADED}")) == "LOADED []"


@pytest.mark.slow
def test_heavy_loading_would_be_seen() -> None:
    assert "'torch'" in loaded(run(f"import sys, loralab; loralab.run_training; {LOADED}"))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "Usage"),
        (["train", "--help"], "KEY=VALUE"),
        (["recipes"], "roberta-million-budget"),
        pytest.param(["settings", "--json"], '"lora.rank"', marks=pytest.mark.slow),
        (["describe", "roberta-class-weights", "--json"], "888580"),
        pytest.param(
            ["budget", "roberta-million-budget", "--max-trainable", "1000000", "--json"], "999172", marks=pytest.mark.slow
        ),
        pytest.param(["clean", "oil #39;s up"], "oil's up", marks=pytest.mark.slow),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_that_needs_no_network_loads_no_torch(arguments: list[str], shown: str) -> None:
    done = run(COMMAND, *arguments)
    assert shown in done.stdout
    assert loaded(done) == "LOADED []"


def test_help_answers_in_under_half_a_second() -> None:
    script = Path(sys.executable).parent / "loralab"
    command = [str(script)] if script.is_file() else [sys.executable, "-c", "from loralab.cli.main import main; main()"]
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, check=True)
        seconds.append(time.perf_counter() - began)
        assert "Usage" in done.stdout
    assert min(seconds) < 0.5, seconds


def test_every_public_name_is_there_and_no_other() -> None:
    import loralab

    assert set(loralab.__all__) == set(loralab._HOMES)
    for name in loralab.__all__:
        assert getattr(loralab, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        loralab.nothing  # noqa: B018
