"""The `loralab` command, and `python -m loralab`."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs
    from types import FrameType

ONEDNN_CACHES = {"LRU_CACHE_CAPACITY": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256"}
"""Limits on what torch and oneDNN keep for each size of an input, 1,024 entries each by default. A server of texts of all lengths
grew to 2.8 GB where the kernels are not available, and has 0.7 GB with these, at the same speed (docs/lab/robustness.md)."""


def main() -> None:
    """Run the command line in a process of its own. Ctrl-C never ends in a traceback, at any moment.

    While the command line is imported Ctrl-C ends the process by the signal, as it ends most programs; while the process ends, it
    is ignored.
    """
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    for name, value in ONEDNN_CACHES.items():  # torch reads them once, when it first computes
        os.environ.setdefault(name, value)
    from loralab.cli.main import main as run_command_line

    interrupts = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt if handler is signal.default_int_handler else handler)
    sys.unraisablehook = _interrupt_again
    try:
        run_command_line()
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt) and (not interrupts or isinstance(error, SystemExit)):
            raise
        # the second, while the first is handled; C extensions turn it into errors of their own
        print("loralab: interrupted", file=sys.stderr)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt_again(unraisable: UnraisableHookArgs) -> None:
    """Repeat a Ctrl-C that arrived in code whose exceptions Python ignores, such as the callback of a weak reference."""
    if unraisable.exc_type is not None and issubclass(unraisable.exc_type, KeyboardInterrupt):
        timer = threading.Timer(0.01, _interrupt_main_thread)
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt_main_thread() -> None:
    main_thread = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main_thread is not None:
        signal.pthread_kill(main_thread, signal.SIGINT)  # ends what it waits for, too
    else:
        _thread.interrupt_main()


if __name__ == "__main__":
    main()
