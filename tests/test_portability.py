"""loralab imports without POSIX: no fcntl, no fork hooks, no posix_fallocate, no affinity."""

from __future__ import annotations

import subprocess
import sys

IMPORT_EVERYTHING = """
import importlib, os, pkgutil, sys

OPTIONAL = {"ray", "optuna", "psycopg", "transformers", "peft", "onnx", "onnxruntime", "mlflow", "wandb", "tensorboard"}

def import_all():
    package = importlib.import_module("loralab")
    for module in pkgutil.walk_packages(package.__path__, "loralab."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in OPTIONAL:
                raise

import_all()  # other packages may use what this system has
for name in [name for name in sys.modules if name.partition(".")[0] == "loralab"]:
    del sys.modules[name]
for name in ("fcntl", "resource", "termios", "grp", "pwd"):
    sys.modules[name] = None  # importing it fails
for name in ("register_at_fork", "posix_fallocate", "sched_getaffinity", "fork", "getuid"):
    delattr(os, name)
import_all()
"""


def test_the_package_imports_without_warnings() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", "import loralab"], check=True)


def test_every_module_imports_without_posix() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_EVERYTHING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
