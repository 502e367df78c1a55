"""Pickled tables: a dataset of `datasets`, a frame or series of pandas, plain lists and dicts, read without running them.

The columns are made from the inert records of `pickle_machine`; neither pandas, `datasets` nor pyarrow is imported.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, field
from itertools import pairwise
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from loralab.data.pickle_machine import INSTEAD, Machine, Name, Record, Refused, exactly, record
from loralab.errors import LoralabError

_MAX_FILE = 2 << 30  # bytes, unpacked
_MAX_COST = 8 << 30  # bytes that the columns may take, 64 per cell: a reference shared a million times costs the file 2 MB
_ARROW_NUMBERS = {f"{sign}int{8 * size}": f"<{sign or 'i'}{size}" for sign in ("", "u") for size in (1, 2, 4, 8)}
_ARROW_NUMBERS |= {"halffloat": "<f2", "float": "<f4", "double": "<f8"}
_READS = "loralab reads text, numbers and true or false"
_Named = tuple[dict[str, list[Any]], dict[str, tuple[str, ...]]]  # columns and class names


@dataclass(frozen=True)
class Table:
    """Columns of equal length, of str, int, float, bool and None (where a value is missing or NaN).

    class_names: of the columns that carry them. A `ClassLabel` column of `datasets` holds indices into its names, a
    categorical column of pandas holds the values themselves.
    """

    columns: dict[str, list[object]]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_pickle(path: Path) -> Table:
    """Read a pickled dataset, frame, series, list or dictionary of columns; `.gz` is unpacked.

    Raises LoralabError on anything else: a global that is not on the list, more than 2 GiB, damage, nested cells.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise Refused("holds more than 2 GiB; " + INSTEAD)
        return _Reader().table(Machine().run(data))
    except Refused as error:
        raise LoralabError(f"{path.name} {error}") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise LoralabError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # whatever a made-up file can provoke, a MemoryError included
        detail = f"{type(error).__name__}: {ascii(str(error))[1:-1][:100]}"
        raise LoralabError(f"{path.name} is damaged, or not a pickled table ({detail}); {INSTEAD}") from error


class _Reader:
    """Makes columns of records, and counts what they cost."""

    def __init__(self) -> None:
        self.left = _MAX_COST

    def charge(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise Refused(f"would unpack to more than {_MAX_COST >> 30} GiB; {INSTEAD}")

    def table(self, value: Any) -> Table:
        """Return the table that the whole pickle stands for."""
        name = value.name if type(value) is Record else ""
        if name == "DatasetDict":
            splits = value.items or {}
            if len(splits) != 1:
                raise Refused(
                    f"holds the splits {', '.join(map(str, splits))}; pickle one of them, as in dataset[{next(iter(splits), '')!r}]"
                )
            (value,) = splits.values()
            name = record(value, "Dataset").name
        if name == "Dataset":
            columns, names = self.dataset(value)
        elif name in ("DataFrame", "Series"):
            columns, names = self.frame(value) if name == "DataFrame" else self.series(value)
        else:
            columns, names = self.plain(value), {}
        if len({len(column) for column in columns.values()}) != 1:
            lengths = ", ".join(f"{column} {len(values):,}" for column, values in columns.items())
            raise Refused(f"has no columns of one length (rows: {lengths or 'none'}); {INSTEAD}")
        return Table({column: self.cells(column, values) for column, values in columns.items()}, names)

    def cells(self, column: str, values: list[Any]) -> list[object]:
        """Return plain values: missing ones and NaN as None; numpy's scalars as Python's; nested ones are refused."""
        self.charge(64 * len(values))
        plain: list[object] = []
        for row, value in enumerate(values):
            cell = self.scalar(value) if type(value) is Record and value.name == "scalar" else value
            kind = type(cell)
            if kind is str or kind is bool or cell is None or (kind is int and cell.bit_length() <= 64):
                plain.append(cell)
            elif kind is float:
                plain.append(None if isnan(cell) else cell)
            elif kind is Name and cell.name == "NA":
                plain.append(None)
            else:
                what = cell.name if kind in (Name, Record) else kind.__name__
                raise Refused(
                    f"has a {what} in row {row} of column {column!r}: {_READS}; drop it"
                )
        return plain

    def plain(self, value: Any) -> dict[str, list[Any]]:
        """Return the columns of a list of str, pairs or dicts, of an array, or of a dict of lists or arrays."""
        if type(value) is dict:
            return {self.column_name(name): self.values(column) for name, column in value.items()}
        rows = self.values(value)
        kinds = {type(row) for row in rows}
        if kinds <= {dict} and rows:
            self.charge(sum(map(len, rows)))
            names = dict.fromkeys(name for row in rows for name in row)
            self.charge(64 * len(names) * len(rows))
            return {self.column_name(name): [row.get(name) for row in rows] for name in names}
        if kinds <= {tuple, list} and rows and {len(row) for row in rows} == {2}:
            return {"text": [row[0] for row in rows], "label": [row[1] for row in rows]}
        if kinds & {dict, tuple, list}:
            raise Refused(f"is a list of {' and '.join(sorted(kind.__name__ for kind in kinds))}: loralab reads a list of texts, "
                           f"of (text, label) pairs or of dicts; {INSTEAD}")  # fmt: skip
        return {"text": rows}

    def values(self, value: Any) -> list[Any]:
        """Return the values of a list, a tuple, an array of one dimension or a series."""
        if type(value) in (list, tuple):
            return list(value)
        found = record(value, "_reconstruct", "_frombuffer", "Series")
        if found.name == "Series":
            return next(iter(self.series(found)[0].values()))
        (values,) = self.array(found, 1)
        return values

    def column_name(self, name: Any) -> str:
        if type(name) not in (str, int):
            raise Refused(f"has a column named by a {type(name).__name__}: loralab reads columns named by text; rename it")
        return str(name)

    def columns(self, names: list[Any], columns: list[list[Any]]) -> dict[str, list[Any]]:
        named = dict(zip(map(self.column_name, names), columns, strict=True))
        if len(named) < len(names):
            raise Refused(f"has two columns of one name among {', '.join(map(str, names))[:200]}; rename one")
        return named

    # datasets

    def dataset(self, value: Record) -> _Named:
        """Return the columns of a `datasets.Dataset`, in the order of its indices, and the names of its class labels."""
        columns = self.blocks(value.state["_data"])
        if value.state["_indices"] is not None:
            ((_, order),) = self.blocks(value.state["_indices"]).items()
            if not all(0 <= row < len(column) for row in order for column in list(columns.values())[:1]):
                raise IndexError("a selected row is not there")
            self.charge(64 * len(order) * len(columns))
            columns = {name: [column[row] for row in order] for name, column in columns.items()}
        features = value.state["_info"].state["features"]
        kinds = features.args[0] if features.args else features.items
        labels = {name: kind.state["names"] for name, kind in kinds.items() if kind.name == "ClassLabel" and name in columns}
        return columns, {name: tuple(exactly(word, str) for word in words) for name, words in labels.items()}

    def blocks(self, value: Any) -> dict[str, list[Any]]:
        """Return the columns of a table of `datasets`: one in memory, or several below and beside one another."""
        found = record(value, "InMemoryTable", "ConcatenationTable", "MemoryMappedTable")
        if found.name == "MemoryMappedTable" or "path" in found.state:
            raise Refused(f"holds no rows, only the place of a file on the disk where it was made ({ascii(found.state['path'])[:200]}): "
                           "there, call dataset.to_csv('rows.csv') or dataset.save_to_disk('folder') and use what that writes")  # fmt: skip
        if found.name == "InMemoryTable":
            return self.arrow_table(record(found.state["table"], "_reconstruct_table"))
        whole: dict[str, list[Any]] = {}
        for beside in found.state["blocks"]:
            part: dict[str, list[Any]] = {}
            for block in beside:
                part |= (
                    self.arrow_table(record(block.state["table"], "_reconstruct_table"))
                    if "table" in block.state
                    else self.blocks(block)
                )
            whole = {name: whole.get(name, []) + part[name] for name in whole or part}
        return whole

    # pandas

    def frame(self, value: Record) -> _Named:
        """Return the columns of a data frame, without its index, and the names of its categoricals."""
        blocks, axes = record(value.state["_mgr"], "BlockManager").args
        names = self.index(axes[0])
        columns: list[list[Any] | None] = [None] * len(names)
        categories: dict[str, tuple[str, ...]] = {}
        for block in blocks:
            values, places, _ = record(block, "_unpickle_block").args
            columns_of, words = self.block(values, 2)
            place = record(places, "slice", "_reconstruct", "_frombuffer")
            where = range(len(names))[slice(*place.args)] if place.name == "slice" else self.array(place, 1)[0]
            for position, column in zip(where, columns_of, strict=True):
                columns[range(len(names))[position]] = column
                if words is not None:
                    categories[self.column_name(names[position])] = words
        return self.columns(names, [exactly(column, list) for column in columns]), categories

    def series(self, value: Record) -> _Named:
        """Return the one column of a series, called `text` where it has no name."""
        ((column,), words) = self.block(record(value.state["_mgr"], "SingleBlockManager").state[1][0], 1)
        name = value.state["_name"] if "_name" in value.state else value.state["name"]
        name = "text" if name is None else self.column_name(name)
        return {name: column}, {} if words is None else {name: words}

    def block(self, value: Any, dimensions: int) -> tuple[list[list[Any]], tuple[str, ...] | None]:
        """Return the columns of one block, and the categories of a categorical."""
        if value.name in ("_reconstruct", "_frombuffer"):
            return self.array(value, dimensions), None
        if value.name in ("IntegerArray", "BooleanArray", "FloatingArray"):
            (values,), (mask,) = self.array(value.state["_data"], 1), self.array(value.state["_mask"], 1)
            return [[None if missing else item for item, missing in zip(values, mask, strict=True)]], None
        if value.name in ("ArrowStringArray", "ArrowExtensionArray"):
            return [self.chunks(value.state["_pa_array"] if "_pa_array" in value.state else value.state["_data"])], None
        kind = exactly(record(value, "__pyx_unpickle_NDArrayBacked").args[0], Name).name
        if kind != "Categorical":
            return self.array(value.state[1], 1 if kind == "StringArray" else dimensions), None
        words = self.index(record(value.state[0], "CategoricalDtype").state["categories"])
        (codes,) = self.array(value.state[1], 1)
        if not all(-1 <= code < len(words) for code in codes):
            raise IndexError("a category is not there")
        return [[None if code < 0 else words[code] for code in codes]], tuple(map(str, self.cells("categories", words)))

    def index(self, value: Any) -> list[Any]:
        """Return the values of an index of one level."""
        kind, state = record(value, "_new_Index", "_new_DatetimeIndex").args
        if kind.name == "MultiIndex":
            raise Refused(
                "has columns of several levels: join their names, as in frame.columns = ['_'.join(c) for c in frame.columns]"
            )
        if kind.name == "RangeIndex":
            values = range(state["start"], state["stop"], state["step"])
            self.charge(64 * len(values))
            return list(values)
        ((column,), _) = self.block(state["data"], 1)
        return column

    # numpy

    def array(self, value: Any, dimensions: int) -> list[list[Any]]:
        """Return the rows of an array of this many dimensions, as Python's values (dates as text); one row if it is 1."""
        found = record(value, "_reconstruct", "_frombuffer")
        if found.name == "_reconstruct":
            _, shape, dtype, fortran, raw = found.state
        else:
            raw, dtype, shape, order = found.args[:4]
            fortran = {"C": False, "F": True}[order]
        if len(shape) != dimensions or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"an array of {len(shape)} dimensions where {dimensions} belong")
        height, width = shape if dimensions == 2 else (1, shape[0])
        self.charge(64 * (height + 1) * (width + 1))
        kind = self.dtype(dtype)
        flat = exactly(raw, list) if kind == "O" else self.numbers(self.bytes(raw), kind)
        if len(flat) != height * width:
            raise ValueError(f"{len(flat)} values in an array of {height} x {width}")
        return [flat[row::height] if fortran else flat[row * width : (row + 1) * width] for row in range(height)]

    def numbers(self, raw: bytes | bytearray, kind: str) -> list[Any]:
        array = np.frombuffer(raw, kind)
        self.charge(array.nbytes)
        if array.dtype.kind != "M":
            return array.tolist()
        return [None if np.isnat(moment) else str(moment) for moment in array]

    def scalar(self, value: Record) -> Any:
        (item,) = self.numbers(self.bytes(value.args[1]), self.dtype(value.args[0]))
        return item

    def dtype(self, value: Any) -> str:
        """Return the name of a recorded dtype, with its byte order; only plain ones of known size."""
        found = record(value, "dtype")
        kind, order = found.args[0], found.state[1]
        if kind in ("O", "O8", "O4"):
            return "O"
        if re.fullmatch(r"b1|[iu][1248]|f[248]|U[1-9]\d{0,6}|M8", kind) is None or order not in ("<", ">", "|", "="):
            raise Refused(f"has an array of the type {ascii(kind)[:50]}: {_READS}; drop it")
        if kind != "M8":
            return f"{order}{kind}"
        unit, count = self.bytes(found.state[8][1][0]).decode(), found.state[8][1][1]
        return f"{order}M8[{unit}]" if count == 1 and unit in ("D", "s", "ms", "us", "ns") else "damaged"

    def bytes(self, value: Any) -> bytes | bytearray:
        """Return the bytes behind the calls in which the protocols and pyarrow wrap them."""
        while type(value) is Record:
            found = record(value, "py_buffer", "bytearray", "bytes", "encode")
            value = found.args[0] if found.args else b""
            if found.name == "encode":
                self.charge(len(value))
                value = exactly(value, str).encode("latin-1")
        if not isinstance(value, bytes | bytearray):
            raise TypeError(f"a {type(value).__name__} where bytes belong")
        return value

    # pyarrow

    def arrow_table(self, value: Record) -> dict[str, list[Any]]:
        arrays, schema = value.args
        names = [record(entry, "field").args[0] for entry in record(schema, "schema").args[0]]
        return self.columns(names, [self.chunks(array, name) for name, array in zip(names, arrays, strict=True)])

    def chunks(self, value: Any, column: object = "") -> list[Any]:
        found = record(value, "chunked_array", "_restore_array")
        parts = found.args[0] if found.name == "chunked_array" else [found]
        return [item for part in parts for item in self.arrow(record(part, "_restore_array").args[0], column)]

    def arrow(self, parts: tuple[Any, ...], column: object) -> list[Any]:
        """Return the values of one Arrow array, from its type, length, offset and buffers; every bound is checked."""
        kind, length, _, start, buffers, *_ = parts
        alias = kind.args[0] if kind.name == "type_for_alias" else kind.name
        if type(length) is not int or type(start) is not int or length < 0 or start < 0:
            raise ValueError("an Arrow array of negative length")
        self.charge(64 * length)
        if alias == "null" or length == 0:
            return [None] * length
        if alias in ("string", "large_string"):
            values: list[Any] = self.texts(buffers, length, start, "<i4" if alias == "string" else "<i8")
        elif alias == "bool":
            values = self.bits(buffers[1], length, start)
        elif alias in _ARROW_NUMBERS:
            size = np.dtype(_ARROW_NUMBERS[alias]).itemsize
            values = np.frombuffer(self.bytes(buffers[1]), _ARROW_NUMBERS[alias], length, start * size).tolist()
        else:
            raise Refused(f"has a column {column!r} of the type {ascii(alias)[1:-1][:50]}: {_READS}; "
                           "drop it, as in dataset.remove_columns(...)")  # fmt: skip
        if buffers[0] is None:
            return values
        return [value if valid else None for value, valid in zip(values, self.bits(buffers[0], length, start), strict=True)]

    def texts(self, buffers: list[Any], length: int, start: int, width: str) -> list[Any]:
        ends = np.frombuffer(self.bytes(buffers[1]), width, length + 1, start * np.dtype(width).itemsize).tolist()
        data = b"" if buffers[2] is None else self.bytes(buffers[2])
        if ends[0] < 0 or ends[-1] > len(data) or any(end < begin for begin, end in pairwise(ends)):
            raise ValueError("a text outside its buffer")
        self.charge(4 * (ends[-1] - ends[0]))
        return [data[begin:end].decode() for begin, end in pairwise(ends)]

    def bits(self, buffer: Any, length: int, start: int) -> list[Any]:
        packed = np.frombuffer(self.bytes(buffer), np.uint8)[start // 8 : (start + length + 7) // 8]
        values = np.unpackbits(packed, bitorder="little")[start % 8 :][:length].astype(bool).tolist()
        if len(values) != length:
            raise ValueError("an Arrow bitmap that is too short")
        return values
