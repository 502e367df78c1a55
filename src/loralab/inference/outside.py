"""Check an export with the libraries it is made for, in a process that cannot import loralab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.model.manifest import Manifest

PROGRAM = Path(__file__).with_name("outside_program.py")
PACKAGES = {
    "merged": ("transformers",),
    "pipeline": ("transformers",),
    "peft": ("transformers", "peft"),
    "sentence-transformers": ("sentence_transformers",),
    "onnx": ("transformers", "onnxruntime"),
}
"""What each format needs for the check."""
HARD_TEXTS = (
    "",
    "Title Case and CAPITALS: McDonald's in New York",
    "Ærøskøbing, café, naïve, Straße, São Paulo, Ångström",
    "emoji 🚀 👩‍👩‍👧 ☕️ in a text",
    "  spaces\n\tand tabs  ",
    "中文 текст عربى ไทย",
    "one long text of many words, which is cut at the limit " * 60,
)
SIZES, TIMEOUT = (1, 5), 900


def missing_packages(kind: str) -> list[str]:
    """Return the packages that the check of a format needs and that are not installed."""
    return [name for name in PACKAGES[kind] if find_spec(name) is None]


def job(kind: str, folder: Path, manifest: Manifest, base: str = "", tokenizer: str = "") -> dict[str, Any]:
    """Describe an export for the program. base: the encoder's folder, for peft. tokenizer: another tokenizer's folder, for ONNX."""
    content = {"kind": kind, "folder": str(folder), "base": base, "tokenizer": tokenizer, "classes": [*manifest.classes]}
    return {**content, "pooling": manifest.pooling, "max_length": min(manifest.max_length, manifest.dims.longest)}


def run_jobs(jobs: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[npt.NDArray[np.float32] | str]:
    """Open exports in one process. Returns for each the logits of cleaned texts (sizes, n, classes), in batches of each of SIZES.

    An export that does not open has the last line of its error instead.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path, out = Path(temporary) / "jobs.json", Path(temporary)
        content = {"jobs": [*jobs], "texts": [*texts], "sizes": SIZES, "out": temporary}
        path.write_text(json.dumps(content), encoding="utf-8")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-P", str(PROGRAM), str(path)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)  # noqa: S603
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
            return [reason for _ in jobs]
        files = [(out / f"{i}.npy", out / f"{i}.txt") for i in range(len(jobs))]
        return [np.load(logits) if logits.is_file() else error.read_text(encoding="utf-8") for logits, error in files]
