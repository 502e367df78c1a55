"""Parse a pickle into plain records without executing code.

A pickle is a program. This interpreter has only the opcodes that tables need. A global in `ALLOWED` becomes a `GlobalName`, any
other is an error; a call or a new object becomes a `Record` of its arguments and state. Nothing is imported, called or set, so a
hostile pickle can only use memory and time, both limited by its number of opcodes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MAX_OPCODES = 40_000_000  # about 8 million (text, label) pairs; one byte of a pickle can create a dict of 64 bytes
ADVICE = "save the data as CSV, JSONL or Parquet instead"

# Names by package, because versions move classes between modules (pandas.core.frame.DataFrame, pandas.DataFrame in pandas 3).
_PANDAS = """
    DataFrame Series BlockManager SingleBlockManager _unpickle_block __pyx_unpickle_NDArrayBacked NA Day
    _new_Index _new_DatetimeIndex Index RangeIndex Int64Index UInt64Index Float64Index CategoricalIndex DatetimeIndex MultiIndex
    Categorical CategoricalDtype StringArray StringDtype ArrowStringArray ArrowExtensionArray ArrowDtype DatetimeArray
    BooleanArray BooleanDtype FloatingArray Float32Dtype Float64Dtype IntegerArray Int8Dtype Int16Dtype Int32Dtype Int64Dtype
    UInt8Dtype UInt16Dtype UInt32Dtype UInt64Dtype
"""
_DATASETS = """
    Dataset DatasetDict DatasetInfo Features Value ClassLabel List LargeList Sequence NamedSplit SplitDict SplitInfo Version
    InMemoryTable ConcatenationTable MemoryMappedTable
"""
_PYARROW = """
    _reconstruct_table _reconstruct_record_batch _restore_array chunked_array py_buffer type_for_alias
    schema field list_ large_list struct
"""
ALLOWED = {
    "pandas": frozenset(_PANDAS.split()),
    "datasets": frozenset(_DATASETS.split()),
    "pyarrow": frozenset(_PYARROW.split()),
    "numpy": frozenset(("dtype", "ndarray", "_reconstruct", "_frombuffer", "scalar")),
    "builtins": frozenset(("bytearray", "bytes", "object", "slice")),
    "_codecs": frozenset(("encode",)),
    "copyreg": frozenset(("_reconstructor",)),
}
ALLOWED |= {"__builtin__": ALLOWED["builtins"], "copy_reg": ALLOWED["copyreg"]}  # the names in protocols 0 to 2


class RefusedError(Exception):
    """Why a file is not read. The message continues a sentence that starts with the file name."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GlobalName:
    """A global of the pickle, without its module."""

    name: str


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """A call or a new object: its name, arguments, state and items."""

    name: str
    args: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] | None = None


def require_type(value: Any, kind: type) -> Any:
    """Return `value` if its type is exactly `kind`, else raise TypeError."""
    if type(value) is not kind:
        raise TypeError(f"a {type(value).__name__}, not a {kind.__name__}")
    return value


class PickleInterpreter:
    """A pickle virtual machine without calls: a stack with marks, and a memo (a dict, so that a large index reserves no memory)."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Return the value as str, bytes, numbers, lists, tuples, dicts, `GlobalName`s and `Record`s."""
        for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
            code = opcode.name
            if count > MAX_OPCODES:
                raise RefusedError(f"has more than {MAX_OPCODES:,} instructions; {ADVICE}")
            if code in _CONSTANTS:
                self.stack.append(_CONSTANTS[code] if arg is None else arg)
            elif code == "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            elif code in _OPCODES:
                _OPCODES[code](self, arg)
            else:  # INST, OBJ, NEWOBJ_EX, EXT1 to 4, PERSID, BINPERSID, out-of-band buffers, sets: no table needs them
                detail = f" {ascii(arg)[:200]}" if arg is not None else ""
                raise RefusedError(f"uses the pickle instruction {code}{detail}, which loralab does not execute; {ADVICE}")
        return self.stack.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def top(self, count: int) -> tuple[Any, ...]:
        """Pop `count` values, in the order they were pushed."""
        values = tuple(self.stack[-count:])
        if len(values) < count:
            raise IndexError("the stack is empty")
        del self.stack[-count:]
        return values

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """Pop the values above the last mark, and the mark."""
        values, self.stack = self.stack, self.below.pop()
        return values

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def extend(self, values: Sequence[Any]) -> None:
        require_type(self.stack[-1], list).extend(values)

    def update(self, pairs: Sequence[Any]) -> None:
        target = self.stack[-1]
        if type(target) is Record:
            target.items = target.items or {}
            target = target.items
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(key, tuple):  # hashing follows every nested reference, and a few bytes can create 2 ** 100 of them
                raise RefusedError(f"has a dict whose key is a tuple; {ADVICE}")
            require_type(target, dict)[key] = value

    def dictionary(self) -> None:
        pairs = self.marked()
        self.push({})
        self.update(pairs)

    def name(self, module: str, name: str) -> None:
        if name not in ALLOWED.get(module.partition(".")[0], ()):
            wanted = ascii(f"{module}.{name}")[1:-1][:200]
            reason = "loralab executes no code from pickles and reads only those of datasets, pandas, lists and dicts"
            raise RefusedError(f"wants to call {wanted}: {reason}; {ADVICE}")
        self.push(GlobalName(name))

    def call(self, function: Any, args: Any) -> None:
        """Record a call, or for `copyreg._reconstructor` (protocols 0 and 1) the object that it creates."""
        name, args = require_type(function, GlobalName).name, require_type(args, tuple)
        if name == "_reconstructor":
            name, args = require_type(args[0], GlobalName).name, ()
        self.push(Record(name, args))

    def build(self, state: Any) -> None:
        require_type(self.stack[-1], Record).state = state


_CONSTANTS: dict[str, Any] = {
    name: {"NEWTRUE": True, "NEWFALSE": False}.get(name)
    for names in (
        "NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING",
        "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8",
    )
    for name in names.split()
}
_OPCODES: dict[str, Callable[[PickleInterpreter, Any], object]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, _: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, index: m.put(index)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, index: m.push(m.memo[index])),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: m.call(*m.top(2))),
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.top(1) if m.stack else m.marked(),
    "POP_MARK": lambda m, _: m.marked(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "TUPLE": lambda m, _: m.push(tuple(m.marked())),
    "TUPLE1": lambda m, _: m.push(m.top(1)),
    "TUPLE2": lambda m, _: m.push(m.top(2)),
    "TUPLE3": lambda m, _: m.push(m.top(3)),
    "LIST": lambda m, _: m.push(m.marked()),
    "DICT": lambda m, _: m.dictionary(),
    "APPEND": lambda m, _: m.extend(m.top(1)),
    "APPENDS": lambda m, _: m.extend(m.marked()),
    "SETITEM": lambda m, _: m.update(m.top(2)),
    "SETITEMS": lambda m, _: m.update(m.marked()),
    "GLOBAL": lambda m, name: m.name(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*(require_type(part, str) for part in m.top(2))),
    "BUILD": lambda m, _: m.build(*m.top(1)),
}


def record(value: Any, *names: str) -> Record:
    """Return `value` if it is a record with one of these names, else raise TypeError."""
    call: Record = require_type(value, Record)
    if call.name not in names:
        raise TypeError(f"{call.name}, not {' or '.join(names)}")
    return call
