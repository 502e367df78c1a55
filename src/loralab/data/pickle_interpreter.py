"""A pickle as inert records: nothing in it is run.

A pickle is a program. This machine has the opcodes that tables need and no others: a global is a `Name` if it is in `ALLOWED` and
an error otherwise, a call or a new object is a `Record` of its arguments and state. Nothing is imported, called or set, so a
hostile pickle can at most use memory and time, both bounded by the number of its opcodes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MAX_OPCODES = 40_000_000  # about 8 million (text, label) pairs; one byte of a pickle can make a dict of 64 bytes
INSTEAD = "save the data as CSV, JSONL or Parquet instead"

# The names by package: versions move a class between modules (pandas.core.frame.DataFrame is pandas.DataFrame since pandas 3).
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
ALLOWED |= {"__builtin__": ALLOWED["builtins"], "copy_reg": ALLOWED["copyreg"]}  # as protocols 0 to 2 call them


class RefusedError(Exception):
    """Why the file is not read: the rest of a sentence that starts with its name."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Name:
    """A global of the pickle, by its last name."""

    name: str


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """What the pickle would have called or made: a name, the arguments, the state and the items set."""

    name: str
    args: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] | None = None


def exactly(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


class Machine:
    """The pickle machine without its calls: values, a stack with marks, a memo (a dict: a large index reserves no memory)."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Return what the pickle describes, made of str, bytes, numbers, lists, tuples, dicts, names and records."""
        for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
            code = opcode.name
            if count > MAX_OPCODES:
                raise RefusedError(f"has more than {MAX_OPCODES:,} instructions; {INSTEAD}")
            if code in _CONSTANTS:
                self.stack.append(_CONSTANTS[code] if arg is None else arg)
            elif code == "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            elif code in _OPCODES:
                _OPCODES[code](self, arg)
            else:  # INST, OBJ, NEWOBJ_EX, EXT1 to 4, PERSID, BINPERSID, buffers out of band, sets: no table needs them
                what = f" {ascii(arg)[:200]}" if arg is not None else ""
                raise RefusedError(f"uses the pickle instruction {code}{what}, which loralab does not run; {INSTEAD}")
        return self.stack.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def top(self, count: int) -> tuple[Any, ...]:
        """Pop `count` values, the deepest first."""
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
        exactly(self.stack[-1], list).extend(values)

    def update(self, pairs: Sequence[Any]) -> None:
        target = self.stack[-1]
        if type(target) is Record:
            target.items = target.items or {}
            target = target.items
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(key, tuple):  # its hash visits each reference of a nest: some bytes make 2 ** 100 of them
                raise RefusedError(f"has a dictionary whose key is a tuple; {INSTEAD}")
            exactly(target, dict)[key] = value

    def dictionary(self) -> None:
        pairs = self.marked()
        self.push({})
        self.update(pairs)

    def name(self, module: str, name: str) -> None:
        if name not in ALLOWED.get(module.partition(".")[0], ()):
            wanted = ascii(f"{module}.{name}")[1:-1][:200]
            reason = "loralab reads pickles without running them, and only those of datasets, pandas and plain lists"
            raise RefusedError(f"wants to call {wanted}: {reason}; {INSTEAD}")
        self.push(Name(name))

    def call(self, function: Any, args: Any) -> None:
        """Record a call; of `copyreg._reconstructor` (protocols 0 and 1) record the object that it would make."""
        name, args = exactly(function, Name).name, exactly(args, tuple)
        if name == "_reconstructor":
            name, args = exactly(args[0], Name).name, ()
        self.push(Record(name, args))

    def build(self, state: Any) -> None:
        exactly(self.stack[-1], Record).state = state


_CONSTANTS: dict[str, Any] = {
    name: {"NEWTRUE": True, "NEWFALSE": False}.get(name)
    for names in (
        "NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING",
        "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8",
    )
    for name in names.split()
}
_OPCODES: dict[str, Callable[[Machine, Any], object]] = {
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
    "STACK_GLOBAL": lambda m, _: m.name(*(exactly(part, str) for part in m.top(2))),
    "BUILD": lambda m, _: m.build(*m.top(1)),
}


def record(value: Any, *names: str) -> Record:
    """Return `value` if it is a record with one of these names."""
    found: Record = exactly(value, Record)
    if found.name not in names:
        raise TypeError(f"{found.name} where {' or '.join(names)} belongs")
    return found
