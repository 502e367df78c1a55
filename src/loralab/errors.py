"""The errors loralab raises on purpose: one root, so that callers need one `except`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class LoralabError(Exception):
    """What the user gave cannot be used: the message says what, which value and what to do (exit code 2)."""

    exit_code = 2


class RunFailed(LoralabError):
    """The input was fine and the run was not: a diverged loss, a full disk, an interruption (exit code 1)."""

    exit_code = 1


class Interrupted(RunFailed):
    """Ctrl-C: what was running can be resumed."""


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return `"; did you mean 'rank'?"` for the closest of `valid`, or an empty string when none is close."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def need(package: str, extra: str) -> ModuleType:
    """Import an optional package, or say which extra installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise LoralabError(f"this needs the package {package!r}: pip install 'loralab[{extra}]'") from error
