"""Fields of data classes have the types that they declare, in all tests of this folder: a missing notice or fix fails."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import importlib
import pkgutil
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import loralab.data

SEQUENCES = (list, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value has a type, with the first item of a sequence and all items of a tuple."""
    if hint is Any:
        return True
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple and arguments[1:] != (...,):
        return isinstance(value, tuple) and len(value) == len(arguments) and all(map(fits, value, arguments))
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(item, arguments[0]) for item in value)
    if origin in SEQUENCES:
        first = value[:1] if isinstance(value, list) else ()
        return isinstance(value, (origin, np.ndarray)) and all(fits(item, arguments[0]) for item in first)
    if hint is float:
        return isinstance(value, (float, int))
    kind = type(None) if hint is None else origin or hint
    return not isinstance(kind, type) or getattr(kind, "_is_protocol", False) or isinstance(value, kind)


def checked(kind: type) -> Any:
    """Return the constructor of a data class, followed by a check of its fields."""
    create, hints = kind.__init__, get_type_hints(kind)  # type: ignore[misc]

    @functools.wraps(create)
    def initialize(self: Any, *arguments: Any, **named: Any) -> None:
        create(self, *arguments, **named)
        for name, hint in hints.items():
            value = getattr(self, name)
            assert fits(value, hint), f"{kind.__name__}.{name} is {value!r}, not {hint}"

    return initialize


@pytest.fixture(scope="session", autouse=True)
def types_of_fields() -> Iterator[None]:
    """Check the fields of every data class of `loralab.data`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in pkgutil.iter_modules(loralab.data.__path__, "loralab.data."):
            for kind in vars(importlib.import_module(module.name)).values():
                if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module.name:
                    try:
                        patch.setattr(kind, "__init__", checked(kind))
                    except NameError:  # a type that is imported for mypy only
                        continue
        yield
