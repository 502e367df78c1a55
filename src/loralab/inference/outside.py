"""Check an export with the libraries it is made for, in a process that cannot import loralab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loralab.errors import RunFailed
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


def outside_logits(
    kind: str, folder: Path, texts: Sequence[str], manifest: Manifest, base: str = "", tokenizer: str = ""
) -> npt.NDArray[np.float32]:
    """Return the logits of cleaned texts (sizes, n, classes), in batches of each of SIZES.

    base: the encoder's folder, for peft. tokenizer: the folder of another tokenizer, for ONNX. Raises RunFailed if the export does
    not open.
    """
    with tempfile.TemporaryDirectory() as temporary:
        job, out = Path(temporary) / "job.json", Path(temporary) / "logits.npy"
        content: dict[str, object] = {
            "kind": kind,
            "folder": str(folder),
            "base": base,
            "tokenizer": tokenizer,
            "classes": [*manifest.classes],
        }
        content |= {"pooling": manifest.pooling, "max_length": min(manifest.max_length, manifest.dims.longest)}
        job.write_text(json.dumps({**content, "texts": [*texts], "sizes": SIZES, "out": str(out)}), encoding="utf-8")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-P", str(PROGRAM), str(job)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)  # noqa: S603
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
            raise RunFailed(f"the {kind} export does not open outside loralab ({reason}): it was discarded")
        logits: npt.NDArray[np.float32] = np.load(out)
        return logits
