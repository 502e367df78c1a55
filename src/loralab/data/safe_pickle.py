"""Read pickled tables without executing code: `datasets` datasets, pandas frames and series, lists and dicts.

The columns are built from the records of `pickle_interpreter`. Neither pandas, `datasets` nor pyarrow is imported.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from itertools import pairwise
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.data.pickle_interpreter import ADVICE, GlobalName, PickleInterpreter, Record, RefusedError, record, require_type
from loralab.data.types import ColumnChunk
from loralab.errors import LoralabError

_MAX_FILE = 2 << 30  # decompressed bytes
_MAX_COST = 8 << 30  # bytes of the columns, 64 per cell: a 2 MB file can refer to one object a million times
_ARROW_NUMBERS = {f"{sign}int{8 * size}": f"<{sign or 'i'}{size}" for sign in ("", "u") for size in (1, 2, 4, 8)}
_ARROW_NUMBERS |= {"halffloat": "<f2", "float": "<f4", "double": "<f8"}
_READABLE = "loralab reads text, numbers and booleans"
_Named = tuple[dict[str, list[Any]], dict[str, tuple[str, ...]]]  # columns and class names


def read_pickle(path: Path) -> ColumnChunk:
    """Read a pickled dataset, frame, series, list or dict of columns, also as `.gz`.

    Values are str, int, float, bool, or None for a missing one and NaN. Raises LoralabError for anything else: a global that is
    not allowed, more than 2 GiB, damage, nested cells.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise RefusedError("holds more than 2 GiB; " + ADVICE)
        return _ColumnBuilder().table(PickleInterpreter().run(data))
    except RefusedError as error:
        raise LoralabError(f"{path.name} {error}") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise LoralabError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a crafted file can cause any error, MemoryError included
        detail = f"{type(error).__name__}: {ascii(str(error))[1:-1][:100]}"
        raise LoralabError(f"{path.name} is damaged, or not a pickled table ({detail}); {ADVICE}") from error


def _list_names(names: Iterable[object]) -> str:
    return ", ".join(repr(name) for name, _ in zip(names, range(20), strict=False))[:200]


class _ColumnBuilder:
    """Builds columns from records and limits their memory."""

    def __init__(self) -> None:
        self.left = _MAX_COST

    def charge(self, cost: int) -> None:
        """Count `cost` bytes. Raises RefusedError above _MAX_COST."""
        self.left -= cost
        if self.left < 0:
            raise RefusedError(f"would take more than {_MAX_COST >> 30} GiB; {ADVICE}")

    def table(self, value: Any) -> ColumnChunk:
        """Return the table that the pickle describes."""
        name = value.name if type(value) is Record else ""
        if name == "DatasetDict":
            splits = value.items or {}
            if len(splits) != 1:
                raise RefusedError(f"holds the splits {_list_names(splits)}; pickle one of them, as in dataset['train']")
            (value,) = splits.values()
            name = record(value, "Dataset").name
        if name == "Dataset":
            columns, names = self.dataset(value)
        elif name in ("DataFrame", "Series"):
            columns, names = self.frame(value) if name == "DataFrame" else self.series(value)
        else:
            columns, names = self.plain(value), {}
        if len({len(column) for column in columns.values()}) != 1:
            lengths = {name: len(values) for name, values in columns.items()}
            raise RefusedError(f"has columns of different lengths ({str(lengths)[:200]}); {ADVICE}")
        return ColumnChunk({column: self.cells(column, values) for column, values in columns.items()}, names)

    def cells(self, column: str, values: list[Any], *, inner: bool = False) -> list[object]:
        """Return plain Python values, None for missing ones and NaN, arrays as lists. Raises RefusedError for deeper values."""
        self.charge(64 * len(values))
        plain: list[object] = []
        for row, value in enumerate(values):
            cell = self.scalar(value) if type(value) is Record and value.name == "scalar" else value
            kind = type(cell)
            if kind is str or kind is bool or cell is None or (kind is int and cell.bit_length() <= 64):
                plain.append(cell)
            elif kind is float:
                plain.append(None if isnan(cell) else cell)
            elif kind is GlobalName and cell.name == "NA":
                plain.append(None)
            elif not inner and kind is Record and value.name in ("_reconstruct", "_frombuffer"):
                plain.append(self.cells(column, self.values(cell), inner=True))
            else:
                type_name = cell.name if kind in (GlobalName, Record) else kind.__name__
                raise RefusedError(f"holds a {type_name} in row {row} of column {column!r}: {_READABLE}; drop that column")
        return plain

    def plain(self, value: Any) -> dict[str, list[Any]]:
        """Return the columns of a list of texts, pairs or dicts, of an array, or of a dict of lists or arrays."""
        if type(value) is dict:
            return {self.column_name(name): self.values(column) for name, column in value.items()}
        rows = self.values(value)
        kinds = {type(row) for row in rows}
        if kinds <= {dict} and rows:
            self.charge(64 * sum(map(len, rows)))
            names = dict.fromkeys(name for row in rows for name in row)
            self.charge(64 * len(names) * len(rows))
            return {self.column_name(name): [row.get(name) for row in rows] for name in names}
        if kinds <= {tuple, list} and rows and {len(row) for row in rows} == {2}:
            return {"text": [row[0] for row in rows], "label": [row[1] for row in rows]}
        if kinds & {dict, tuple, list}:
            mixed = " and ".join(sorted(kind.__name__ for kind in kinds))
            raise RefusedError(f"is a list of {mixed}: loralab reads a list of texts, of (text, label) pairs or of dicts; {ADVICE}")
        return {"text": rows}

    def values(self, value: Any) -> list[Any]:
        """Return the values of a list, a tuple, a one-dimensional array or a series."""
        if type(value) in (list, tuple):
            self.charge(64 * len(value))
            return list(value)
        column = record(value, "_reconstruct", "_frombuffer", "Series")
        if column.name == "Series":
            return next(iter(self.series(column)[0].values()))
        (values,) = self.array(column, 1)
        return values

    def column_name(self, name: Any) -> str:
        if type(name) not in (str, int):
            raise RefusedError(f"has a column whose name is a {type(name).__name__}, not text: rename it")
        return str(name)

    def columns(self, names: list[Any], columns: list[list[Any]]) -> dict[str, list[Any]]:
        named = dict(zip(map(self.column_name, names), columns, strict=True))
        if len(named) < len(names):
            raise RefusedError(f"has two columns with the same name among {_list_names(names)}; rename one")
        return named

    # datasets

    def dataset(self, value: Record) -> _Named:
        """Return the columns of a `datasets.Dataset`, in the order of its indices, and its class names."""
        columns = self.blocks(value.state["_data"])
        if value.state["_indices"] is not None:
            ((_, order),) = self.blocks(value.state["_indices"]).items()
            size = len(next(iter(columns.values())))
            if not all(0 <= row < size for row in order):
                raise IndexError("a selected row does not exist")
            self.charge(64 * len(order) * len(columns))
            columns = {name: [column[row] for row in order] for name, column in columns.items()}
        features = value.state["_info"].state["features"]
        kinds = features.args[0] if features.args else features.items
        labels = {name: kind.state["names"] for name, kind in kinds.items() if kind.name == "ClassLabel" and name in columns}
        self.charge(64 * sum(map(len, labels.values())))
        return columns, {name: tuple(require_type(word, str) for word in words) for name, words in labels.items()}

    def blocks(self, value: Any) -> dict[str, list[Any]]:
        """Return the columns of a `datasets` table: one in memory, or rows of blocks, each row a list of adjacent tables."""
        if record(value, "InMemoryTable", "ConcatenationTable", "MemoryMappedTable").name != "ConcatenationTable":
            return self.arrow_table(value)
        whole: dict[str, list[Any]] = {}
        for adjacent in value.state["blocks"]:
            parts = [self.arrow_table(block) for block in adjacent]
            for name, values in [item for part in parts for item in part.items()]:
                whole.setdefault(name, []).extend(values)
        return whole

    # pandas

    def frame(self, value: Record) -> _Named:
        """Return the columns of a data frame without its index, and the category names."""
        blocks, axes = record(value.state["_mgr"], "BlockManager").args
        names = self.index(axes[0])
        columns: list[list[Any] | None] = [None] * len(names)
        categories: dict[str, tuple[str, ...]] = {}
        for block in blocks:
            values, places, _ = record(block, "_unpickle_block").args
            block_columns, names_in_block = self.block(values, 2)
            place = record(places, "slice", "_reconstruct", "_frombuffer")
            positions = range(len(names))[slice(*place.args)] if place.name == "slice" else self.array(place, 1)[0]
            for position, column in zip(positions, block_columns, strict=True):
                columns[range(len(names))[position]] = column
                if names_in_block is not None:
                    categories[self.column_name(names[position])] = names_in_block
        return self.columns(names, [require_type(column, list) for column in columns]), categories

    def series(self, value: Record) -> _Named:
        """Return the column of a series, named `text` if the series has no name."""
        ((column,), categories) = self.block(record(value.state["_mgr"], "SingleBlockManager").state[1][0], 1)
        name = value.state["_name"] if "_name" in value.state else value.state["name"]
        name = "text" if name is None else self.column_name(name)
        return {name: column}, {} if categories is None else {name: categories}

    def block(self, value: Any, dimensions: int) -> tuple[list[list[Any]], tuple[str, ...] | None]:
        """Return the columns of one block, and the names of a categorical."""
        if value.name in ("_reconstruct", "_frombuffer"):
            return self.array(value, dimensions), None
        if value.name in ("IntegerArray", "BooleanArray", "FloatingArray"):
            (values,), (mask,) = self.array(value.state["_data"], 1), self.array(value.state["_mask"], 1)
            return [[None if missing else item for item, missing in zip(values, mask, strict=True)]], None
        if value.name in ("ArrowStringArray", "ArrowExtensionArray"):
            return [self.chunks(value.state["_pa_array"] if "_pa_array" in value.state else value.state["_data"])], None
        kind = require_type(record(value, "__pyx_unpickle_NDArrayBacked").args[0], GlobalName).name
        if kind != "Categorical":
            return self.array(value.state[1], 1 if kind == "StringArray" else dimensions), None
        categories = self.index(record(value.state[0], "CategoricalDtype").state["categories"])
        (codes,) = self.array(value.state[1], 1)
        if not all(-1 <= code < len(categories) for code in codes):
            raise IndexError("a category does not exist")
        return [[None if code < 0 else categories[code] for code in codes]], tuple(map(str, self.cells("categories", categories)))

    def index(self, value: Any) -> list[Any]:
        """Return the values of a single-level index."""
        kind, state = record(value, "_new_Index", "_new_DatetimeIndex").args
        if kind.name == "MultiIndex":
            raise RefusedError(
                "has columns of several levels: join them, as in frame.columns = ['_'.join(c) for c in frame.columns]"
            )
        if kind.name == "RangeIndex":
            values = range(state["start"], state["stop"], state["step"])
            self.charge(64 * len(values))
            return list(values)
        ((column,), _) = self.block(state["data"], 1)
        return column

    # numpy

    def array(self, value: Any, dimensions: int) -> list[list[Any]]:
        """Return the rows of an array as Python values, dates as text. A one-dimensional array has one row."""
        array = record(value, "_reconstruct", "_frombuffer")
        if array.name == "_reconstruct":
            _, shape, dtype, fortran, raw = array.state
        else:
            raw, dtype, shape, order = array.args[:4]
            fortran = {"C": False, "F": True}[order]
        if len(shape) != dimensions or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"an array of {len(shape)} dimensions, not {dimensions}")
        height, width = shape if dimensions == 2 else (1, shape[0])
        self.charge(64 * (height * width + height + 1))
        kind = self.dtype(dtype)
        flat = require_type(raw, list) if kind == "O" else self.numbers(raw, kind, height * width)
        if kind == "O" and len(flat) != height * width:
            raise ValueError(f"{len(flat)} values in an array of {height} x {width}")
        return [flat[row::height] if fortran else flat[row * width : (row + 1) * width] for row in range(height)]

    def numbers(self, raw: Any, kind: str, count: int) -> list[Any]:
        array: npt.NDArray[Any] = np.frombuffer(self.buffer(raw), kind)
        if len(array) != count:
            raise ValueError(f"{len(array)} values in an array of {count}")
        self.charge(array.nbytes)
        if array.dtype.kind == "M":
            return [None if np.isnat(moment) else str(moment) for moment in array]
        values: list[Any] = array.tolist()
        return values

    def scalar(self, value: Record) -> Any:
        kind, raw = value.args
        return self.numbers(raw, self.dtype(kind), 1)[0]

    def dtype(self, value: Any) -> str:
        """Return the name of a dtype with its byte order. Raises RefusedError unless it is plain and of known size."""
        dtype = record(value, "dtype")
        kind, order = dtype.args[0], dtype.state[1]
        if kind in ("O", "O8", "O4"):
            return "O"
        if re.fullmatch(r"b1|[iu][1248]|f[248]|U[1-9]\d{0,6}|M8", kind) is None or order not in ("<", ">", "|", "="):
            raise RefusedError(f"has an array of the type {ascii(kind)[:50]}: {_READABLE}; drop that column")
        if kind != "M8":
            return f"{order}{kind}"
        unit, count = self.buffer(dtype.state[8][1][0]).decode(), dtype.state[8][1][1]
        return f"{order}M8[{unit}]" if count == 1 and unit in ("D", "s", "ms", "us", "ns") else "damaged"

    def buffer(self, value: Any) -> bytes | bytearray:
        """Return bytes, unwrapped from the calls that pickle protocols and pyarrow put around them."""
        while type(value) is Record:
            call = record(value, "py_buffer", "bytearray", "bytes", "encode")
            value = call.args[0] if call.args else b""
            if call.name == "encode":
                self.charge(len(value))
                value = require_type(value, str).encode("latin-1")
        if not isinstance(value, bytes | bytearray):
            raise TypeError(f"a {type(value).__name__}, not bytes")
        return value

    # pyarrow

    def arrow_table(self, value: Any) -> dict[str, list[Any]]:
        table = record(value, "InMemoryTable", "MemoryMappedTable")
        if "path" in table.state:  # also in a table of more than 4 GiB in memory
            place = ascii(table.state["path"])[:200]
            raise RefusedError(
                f"has no rows, only the path of a file on the machine that wrote it ({place}): there, call "
                "dataset.to_csv('rows.csv') or dataset.save_to_disk('folder') and use the result"
            )
        arrays, schema = record(table.state["table"], "_reconstruct_table").args
        names = [record(entry, "field").args[0] for entry in record(schema, "schema").args[0]]
        self.charge(64 * (len(names) + 1))
        return self.columns(names, [self.chunks(array, name) for name, array in zip(names, arrays, strict=True)])

    def chunks(self, value: Any, column: object = "") -> list[Any]:
        array = record(value, "chunked_array", "_restore_array")
        parts = array.args[0] if array.name == "chunked_array" else [array]
        return [item for part in parts for item in self.arrow(record(part, "_restore_array").args[0], column)]

    def arrow(self, parts: tuple[Any, ...], column: object) -> list[Any]:
        """Return the values of one Arrow array from its type, length, offset and buffers. Checks every bound."""
        kind, length, _, start, buffers, *_ = parts
        alias = kind.args[0] if kind.name == "type_for_alias" else kind.name
        if type(length) is not int or type(start) is not int or length < 0 or start < 0:
            raise ValueError("an Arrow array of negative length")
        self.charge(64 * (length + 1))
        if alias == "null" or length == 0:
            return [None] * length
        if alias in ("string", "large_string"):
            values: list[Any] = self.texts(buffers, length, start, "<i4" if alias == "string" else "<i8")
        elif alias == "bool":
            values = self.bits(buffers[1], length, start)
        elif alias in _ARROW_NUMBERS:
            size = np.dtype(_ARROW_NUMBERS[alias]).itemsize
            values = np.frombuffer(self.buffer(buffers[1]), _ARROW_NUMBERS[alias], length, start * size).tolist()
        else:
            raise RefusedError(f"has a column {column!r} of the type {ascii(alias)[1:-1][:50]}: {_READABLE}; drop that column")
        if buffers[0] is None:
            return values
        return [value if valid else None for value, valid in zip(values, self.bits(buffers[0], length, start), strict=True)]

    def texts(self, buffers: list[Any], length: int, start: int, width: str) -> list[Any]:
        ends = np.frombuffer(self.buffer(buffers[1]), width, length + 1, start * np.dtype(width).itemsize).tolist()
        data = b"" if buffers[2] is None else self.buffer(buffers[2])
        if ends[0] < 0 or ends[-1] > len(data) or any(end < begin for begin, end in pairwise(ends)):
            raise ValueError("a text outside its buffer")
        self.charge(4 * (ends[-1] - ends[0]))
        return [data[begin:end].decode() for begin, end in pairwise(ends)]

    def bits(self, buffer: Any, length: int, start: int) -> list[Any]:
        packed = np.frombuffer(self.buffer(buffer), np.uint8)[start // 8 : (start + length + 7) // 8]
        values: list[Any] = np.unpackbits(packed, bitorder="little")[start % 8 :][:length].astype(bool).tolist()
        if len(values) != length:
            raise ValueError("an Arrow bitmap that is too short")
        return values
