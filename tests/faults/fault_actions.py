"""What a forked child runs that is no command: it labels rows. See `FaultServer.start`."""

from __future__ import annotations

from pathlib import Path

from loralab.serve.feedback import FeedbackFile
from loralab.serve.page.labelled_file import LabelledFile, LabelledRow

TEXT = 'row {} says "it\'s, well,\nover"'


def append_labels(path: str, name: str, count: str) -> None:
    """Append rows to a labelled file, and print the number of each row when it is on disk."""
    file = LabelledFile(Path(path))
    for number in range(int(count)):
        file.append(LabelledRow(TEXT.format(name), "World", number, "", name))
        print(name, number, flush=True)


def append_feedback(path: str, name: str, count: str) -> None:
    """Append rows to a feedback file, and print the number of each row when it is on disk."""
    file = FeedbackFile(Path(path))
    for number in range(int(count)):
        file.append(TEXT.format(name), "World", "model", str(number), name)
        print(name, number, flush=True)
