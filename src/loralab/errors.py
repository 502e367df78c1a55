"""The errors that loralab raises on purpose, all of them LoralabError."""

from __future__ import annotations

import difflib
import importlib
import re
import shlex
from collections.abc import Iterable
from types import ModuleType

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys, or that reorder what it shows. Line breaks and tabs stay."""


class LoralabError(Exception):
    """The input is unusable (exit code 2). The message says what is wrong, which value, and what to do."""

    exit_code = 2


class RunFailed(LoralabError):
    """The input was usable and the run failed: a diverged loss, a full disk, an interruption (exit code 1)."""

    exit_code = 1


class Interrupted(RunFailed):
    """The run was interrupted by Ctrl-C and can be resumed."""


def suggest(word: str, valid: Iterable[str]) -> str:
    """Return `"; did you mean 'rank'?"` for the closest of `valid`, or an empty string if none is close."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def visible(text: str) -> str:
    """Return a text with its control characters as `\\x1b`. A terminal would obey them, so a file could change what it shows."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, or the one it was raised from, says that memory ran out. Libraries raise it in many ways."""
    texts = ("can't allocate", "Cannot allocate memory", "bad allocation", "bad_alloc")  # the first: memory, or Python's a lock
    threads = ("can't start new thread", "Failed to launch worker thread")  # Python's and Arrow's: memory for a stack
    primitive = "could not create a primitive"  # oneDNN's, which asks for memory first
    chain = [error, *(cause for cause in (error.__cause__, error.__context__) if cause is not None)]
    return any(isinstance(one, MemoryError) or any(text in str(one) for text in (*texts, *threads, primitive)) for one in chain)


def python_command(code: str) -> str:
    """Return the line that runs `code` in a shell. Double quotes suit every shell; they do not where the code has `$` or quotes."""
    return f'python -c "{code}"' if not re.search(r'["$`\\\\!%]', code) else f"python -c {shlex.quote(code)}"


def import_optional(package: str, extra: str) -> ModuleType:
    """Import an optional package. Raises LoralabError that names the extra to install."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise LoralabError(f"this needs the package {package!r}: run pip install 'loralab[{extra}]'") from error
