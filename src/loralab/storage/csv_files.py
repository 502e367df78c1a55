"""The process-wide limit of CSV fields, raised only while a file is read."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_limits: list[int] = []
_default = csv.field_size_limit()


@contextmanager
def csv_field_limit(limit: int) -> Iterator[None]:
    """Allow CSV fields of `limit` characters instead of 131,072, and restore the previous limit afterwards.

    The csv module has one limit per process. Of overlapping uses, in threads or generators, the largest applies.
    """
    global _default
    with _lock:
        if not _limits:
            _default = csv.field_size_limit()
        _limits.append(limit)
        csv.field_size_limit(max(_limits))
    try:
        yield
    finally:
        with _lock:
            _limits.remove(limit)
            csv.field_size_limit(max(_limits, default=_default))
