"""log.jsonl: one event per line, each with the CRC-32 of the rest of its line, so that a damaged line is named, never shown."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loralab.errors import LoralabError
from loralab.safe_files import MAX_LOG_BYTES, exists, read_bytes

_SEALED = re.compile(rb'(\{.*), "crc32": "([0-9a-f]{8})"\}', re.DOTALL)


def format_event(event: Mapping[str, Any]) -> str:
    """Return the line of an event."""
    line = json.dumps(event)
    return f'{line[:-1]}, "crc32": "{zlib.crc32(line.encode()):08x}"}}\n'


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a log, which may not exist, up to a last line that was cut off by the end of its process.

    Raises LoralabError that names any other line that is damaged.
    """
    if not exists(path):
        return
    lines = read_bytes(path, MAX_LOG_BYTES).split(b"\n")
    sealed = any(b'"crc32": "' in line for line in lines)
    last = max((number for number, line in enumerate(lines) if line), default=-1)
    for number, line in enumerate(lines[: last + 1]):
        event = _parse(line, sealed)
        if event is not None:
            yield event
        elif number < last or lines[-1:] == [b""]:  # a line that was written to its end
            raise LoralabError(
                f"{path} is damaged in line {number + 1}: restore it from a copy, or delete it to go on without the events"
            )


def _parse(line: bytes, sealed: bool) -> dict[str, Any] | None:
    """Return the event of a line without its checksum; None if it is damaged. sealed: the lines have checksums."""
    if sealed:
        match = _SEALED.fullmatch(line)
        if match is None or zlib.crc32(match[1] + b"}") != int(match[2], 16):
            return None
        line = match[1] + b"}"
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    complete = isinstance(event, dict) and isinstance(event.get("event"), str) and isinstance(event.get("step"), int)
    return event if complete else None
