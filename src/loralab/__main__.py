"""The `loralab` command, and `python -m loralab`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line in a process of its own. Ctrl-C never ends in a traceback, at any moment.

    While the command line is imported Ctrl-C ends the process by the signal, as it ends most programs; while the process ends, it
    is ignored.
    """
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from loralab.cli.main import main as run_command_line

    signal.signal(signal.SIGINT, handler)
    try:
        run_command_line()
    except KeyboardInterrupt:  # the second, while the first is handled
        print("loralab: interrupted", file=sys.stderr)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
