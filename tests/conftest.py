"""Fixtures of all tests. Tests import helpers with `from tiny import ...`: pytest puts this folder on the path."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported: no test waits for the hub
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ["LORALAB_CACHE"] = tempfile.mkdtemp(prefix="loralab-cache-")  # an empty cache for each test session
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # no warning when a test forks

from tiny import make_checkpoint, topics, write_csv

atexit.register(shutil.rmtree, os.environ["LORALAB_CACHE"], ignore_errors=True)

# The same examples in every run, however long they take: a change fails for what it does, not by chance or for other load.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

# Tiny models train ten times as fast on one thread as on two that compete with other processes for the cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Reset the number of threads after every test."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT: 3 layers, width 32, 4 classes."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture(scope="session")
def topics_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 trivially learnable rows under the header text,label: 30 of each class."""
    return write_csv(tmp_path_factory.mktemp("topics") / "topics.csv", topics(30))
