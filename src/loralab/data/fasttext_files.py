"""fastText training files: lines such as `__label__sports The cup final ...`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from loralab.data.types import CHUNK, ColumnChunk, TablePlace, list_rows
from loralab.errors import LoralabError

PREFIX = "__label__"
_LABEL = re.compile(rf"(?<!\S){PREFIX}(\S+)\s?")


def read_fasttext(lines: Iterable[str], where: TablePlace) -> Iterator[ColumnChunk]:
    """Yield the texts and labels of lines that are not blank. Raises LoralabError for lines of several labels."""
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    while rows := list(islice(numbered, CHUNK)):
        labels = [[*dict.fromkeys(_LABEL.findall(line))] for _, line in rows]
        if several := [number for (number, _), own in zip(rows, labels, strict=True) if len(own) > 1]:
            own = next(own for own in labels if len(own) > 1)
            raise LoralabError(
                f"{where} has several labels in {list_rows(several).replace('row', 'line', 1)}, such as {', '.join(own)}: "
                f"loralab learns one label per text; keep one"
            )
        texts: list[object] = [_LABEL.sub("", line).strip() for _, line in rows]
        yield ColumnChunk({"text": texts, "label": [own[0] if own else None for own in labels]})
