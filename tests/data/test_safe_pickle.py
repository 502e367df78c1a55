"""Pickles of many library versions are read; hostile pickles are refused before any code is executed."""

from __future__ import annotations

import copyreg
import gzip
import io
import os
import pickle
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loralab.data import pickle_interpreter, safe_pickle
from loralab.data.pickle_interpreter import GlobalName, PickleInterpreter, Record
from loralab.data.safe_pickle import read_pickle
from loralab.data.types import ColumnChunk
from loralab.errors import LoralabError

HERE = Path(__file__).parent / "pickles"
ROOT = Path(__file__).parents[2]
TEXTS = ["Straße nach Köln", "日本の天気", None, "", "smile 🙂 end", "plain"]
LABELS = [0, 2, 1, 0, 2, 1]
NAMES = ("rain", "sun", "wind")
ROWS: dict[str, list[Any]] = {
    "text": TEXTS,
    "label": LABELS,
    "score": [0.5, -1.25, None, 3.0, 1e300, 0.0],
    "flag": [True, False, False, True, True, False],
}
CLASSES: dict[str, tuple[str, ...]] = {"label": NAMES}
HALVES = [0.5, None, 1.5, 2.5, 3.5, 4.5]
KINDS: dict[str, list[Any]] = {
    "category": ["rain", "wind", None, "rain", "wind", "sun"],
    "Int64": [0, 2, None, 0, 2, 1],
    "boolean": [None, False, False, True, True, False],
    "Float32": HALVES,
    "int8": LABELS,
    "float32": HALVES,
    "python": TEXTS,
    "pyarrow": TEXTS,
    "mixed": ["a", 1, None, 2.5, True, None],
    "day": ["2026-01-31", None, *["2026-02-01"] * 4],
    "number": [3, 7, 3, 7, 7, 3],
}
KIND_CLASSES: dict[str, tuple[str, ...]] = {"category": NAMES, "number": ("3", "7")}
WORDS = ["Köln", "日本", "x", "", "é", "plain"]


def rows(*positions: int, columns: dict[str, list[Any]] = ROWS) -> dict[str, list[Any]]:
    return {name: [values[i] for i in positions] for name, values in columns.items()}


PANDAS: dict[str, tuple[dict[str, list[Any]], dict[str, tuple[str, ...]]] | str] = {
    **dict.fromkeys(("objects-0", "objects-2", "objects-5", "arrow"), (ROWS, {})),
    **dict.fromkeys(("named-index", "float-index", "date-index", "levels-index"), (ROWS, {})),
    "default": ({"text": TEXTS, "label": LABELS}, {}),
    "slices": ({"flag": ROWS["flag"][::2], "label": LABELS[::2]}, {}),
    "empty": (rows(), {}),
    "levels": "columns of several levels",
    "kinds": (KINDS, KIND_CLASSES),
    "kinds-2": (KINDS, KIND_CLASSES),
    "kinds-filtered": (rows(1, 2, 4, 5, columns=KINDS), KIND_CLASSES),
    "series": ({"title": TEXTS}, {}),
    "series-unnamed": ({"text": TEXTS}, {}),
    "series-category": ({"category": KINDS["category"]}, {"category": NAMES}),
    "numpy-2": ({"text": TEXTS, "label": LABELS, "word": WORDS}, {}),
    "numpy-5": ({"text": TEXTS, "label": LABELS, "word": WORDS}, {}),
    "scalars": ({"text": ["a", "ü"], "label": [3, 0.5]}, {}),
}
DATASETS: dict[str, tuple[dict[str, list[Any]], dict[str, tuple[str, ...]]] | str] = {
    **dict.fromkeys(("memory-0", "memory-2", "memory-5", "one-split"), (ROWS, CLASSES)),
    "select": (rows(5, 0, 0, 3), CLASSES),
    "range": (rows(2, 3, 4), CLASSES),
    "shuffle": (rows(5, 2, 0, 4, 1, 3), CLASSES),
    "concat": (rows(0, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5), CLASSES),
    "wide": (ROWS | {"extra": [f"é{i}" for i in range(6)]}, CLASSES),
    "kinds": ({"text": TEXTS, "small": LABELS, "half": HALVES, "none": [None] * 6}, {}),
    "loaded": ({"text": [TEXTS[0], TEXTS[1], TEXTS[4], TEXTS[5]], "label": [0, 2, 2, 1]}, {}),
    "lists": "column 'words' of the type list_",
    "on-disk": r"data-00000-of-00001.arrow'\): there, call dataset.to_csv",
    "two-splits": "holds the splits 'train', 'test'; pickle one",
}
FIXTURES = sorted(HERE.glob("*.pkl"))


def expected(path: Path) -> tuple[dict[str, list[Any]], dict[str, tuple[str, ...]]] | str:
    library, _, kind = path.stem.split("-", 2)
    return {"pandas": PANDAS, "datasets": DATASETS}[library][kind]


def check(table: ColumnChunk, columns: dict[str, list[Any]], class_names: dict[str, tuple[str, ...]]) -> None:
    """Compare names, order, values and types. Dates are compared by day, because their unit depends on the version."""
    assert list(table.columns) == list(columns)
    for name, values in columns.items():
        read = [value[:10] if name == "day" and isinstance(value, str) else value for value in table.columns[name]]
        assert read == values, name
        assert [type(value) for value in read] == [type(value) for value in values], name
    assert table.class_names == class_names


@pytest.fixture
def save(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes, name: str = "x.pkl") -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


# Valid pickles


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_every_version(path: Path) -> None:
    result = expected(path)
    if isinstance(result, str):
        with pytest.raises(LoralabError, match=result) as error:
            read_pickle(path)
        assert str(error.value).startswith(path.name)
        assert error.value.exit_code == 2
    else:
        check(read_pickle(path), *result)


def test_fixtures_cover_every_kind_and_version() -> None:
    stems = {path.stem for path in FIXTURES}
    want = {f"pandas-{v}-{kind}" for v in ("1.5.3", "2.2.3", "3.1.1") for kind in PANDAS} - {"pandas-1.5.3-arrow"}
    assert stems == want | {f"datasets-{v}-{kind}" for v in ("2.14.7", "2.19.2", "3.6.0", "5.2.0") for kind in DATASETS}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values(protocol: int, save: Callable[[bytes], Path]) -> None:
    def read(value: object) -> dict[str, list[object]]:
        return read_pickle(save(pickle.dumps(value, protocol=protocol))).columns

    assert read(TEXTS) == {"text": TEXTS}
    assert read([(text, label) for text, label in zip(TEXTS, LABELS, strict=True)]) == {"text": TEXTS, "label": LABELS}
    assert read([["a", 1], ["b", 2]]) == {"text": ["a", "b"], "label": [1, 2]}
    assert read([{"a": "ü", "b": 1}, {"a": "x", "c": True}]) == {"a": ["ü", "x"], "b": [1, None], "c": [None, True]}
    assert read({"text": TEXTS, "label": tuple(LABELS)}) == {"text": TEXTS, "label": LABELS}
    assert read({"n": [float("nan"), 1.5, -(2**40)]}) == {"n": [None, 1.5, -(2**40)]}
    assert read({0: ["a"], "b": [None]}) == {"0": ["a"], "b": [None]}
    arrays = {"o": np.array(["ä", None], dtype=object), "i": np.array([3, 4], dtype=">i2"), "u": np.array(["日本", "x"])}
    assert read(arrays | {"f": np.array([np.nan, 2]), "b": np.array([True, False])}) == {
        "o": ["ä", None], "i": [3, 4], "u": ["日本", "x"], "f": [None, 2.0], "b": [True, False],
    }  # fmt: skip
    assert read(np.array(["a", "b"], dtype=object)) == {"text": ["a", "b"]}
    assert read([np.str_("a"), "b"]) == {"text": ["a", "b"]}


@pytest.mark.parametrize("protocol", range(6))
def test_the_installed_pandas(protocol: int, save: Callable[[bytes], Path]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS).assign(kind=pandas.Categorical(["b", "a", "b", "a", "a", None]))
    table = read_pickle(save(pickle.dumps(frame[frame["label"] > 0], protocol=protocol)))
    check(table, rows(1, 2, 4, 5, columns=ROWS | {"kind": ["b", "a", "b", "a", "a", None]}), {"kind": ("a", "b")})
    square = pandas.DataFrame(np.arange(6).reshape(3, 2))  # one block in Fortran order, columns without names
    assert read_pickle(save(pickle.dumps(square, protocol=protocol))).columns == {"0": [0, 2, 4], "1": [1, 3, 5]}
    square = pandas.DataFrame(
        {"a": [1, 2], "t": ["x", "y"], "b": [3, 4], "c": [5, 6], "f": [0.5, 1.5]}
    )  # positions that are not a slice
    assert read_pickle(save(pickle.dumps(square, protocol=protocol))).columns == square.to_dict("list")


def test_gzip(save: Callable[..., Path]) -> None:
    assert read_pickle(save(gzip.compress(pickle.dumps(TEXTS)), "x.pkl.gz")).columns == {"text": TEXTS}
    with pytest.raises(LoralabError, match=r"x.pkl.gz is damaged"):
        read_pickle(save(pickle.dumps(TEXTS), "x.pkl.gz"))


def test_the_competition_file() -> None:
    folder = ROOT.parent / "shared" / "ag_news"
    if not folder.is_dir():
        pytest.skip("no ../shared/ag_news")
    import csv

    table = read_pickle(folder / "test_unlabelled.pkl")
    with (folder / "test.csv").open(newline="", encoding="utf-8") as file:
        assert table.columns == {"text": [row["text"] for row in csv.DictReader(file)]}
    assert len(table.columns["text"]) == 3800
    assert table.class_names == {}


def test_no_library_is_imported() -> None:
    code = (
        "import sys; from pathlib import Path; from loralab.data.safe_pickle import read_pickle\n"
        "for name in sys.argv[1:]: read_pickle(Path(name))\n"
        "assert not {'pandas', 'datasets', 'pyarrow', 'torch'} & set(sys.modules), 'imported'"
    )
    paths = [str(path) for path in FIXTURES if path.stem.endswith(("kinds", "select"))]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code, *paths], check=True, env=environment)


# Refused: code


class Call:
    """Pickled as a call of `function`."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.args


def live(marker: str) -> dict[str, bytes]:
    """Return pickles that create the file `marker` if Python's unpickler reads them."""
    touch = f"touch {marker}"
    line = touch.encode()
    python = f"open({marker!r}, 'w').close()"
    payloads = {f"os.system {protocol}": pickle.dumps(Call(os.system, touch), protocol=protocol) for protocol in range(6)}
    payloads |= {f"eval {protocol}": pickle.dumps([Call(eval, python)], protocol=protocol) for protocol in (0, 2, 4)}
    return payloads | {
        "exec": pickle.dumps({"text": ["a", Call(exec, python)]}),
        "subprocess": pickle.dumps(Call(subprocess.call, ["touch", marker])),
        "mknod": pickle.dumps(Call(os.mknod, marker)),
        "inst": b"(S'" + line + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + line + b"'\no.",
        "getattr": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'" + line + b"'\ntR.",
        "memoized": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94" + b"\x8c" + bytes([len(line)]) + line + b"\x94\x85R.",
        "map": b"cbuiltins\nlist\n(cbuiltins\nmap\n(cos\nsystem\n(S'" + line + b"'\nltRtR.",
        "setstate": b"c__main__\nsetstate_target\n)\x81}S'__setstate__'\ncos\nsystem\nsbS'" + line + b"'\nb.",
        "after a table": pickle.dumps([Call(os.system, touch), ("text", 1)]),
        "popped": b"cos\nsystem\n(S'" + line + b"'\ntR0" + pickle.dumps(["a"], protocol=2)[2:],
        "codecs": b"c_codecs\nlookup\n0" + pickle.dumps(Call(os.system, touch), protocol=0),
    }


LIVE = sorted(live("marker"))


class Target:
    """An object with a settable state, for the payload `setstate`."""


@pytest.mark.parametrize("name", LIVE)
def test_calls_are_refused_and_not_executed(
    name: str, tmp_path: Path, save: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    payload = live(str(marker))[name]
    monkeypatch.setattr(sys.modules["__main__"], "setstate_target", Target, raising=False)
    pickle.loads(payload)
    assert marker.exists(), "the payload is a dud"
    marker.unlink()
    with pytest.raises(LoralabError, match=r"which loralab does not execute|executes no code from pickles") as error:
        read_pickle(save(payload))
    assert not marker.exists()
    assert str(error.value).startswith("x.pkl ")


def test_the_message_names_the_global(save: Callable[[bytes], Path]) -> None:
    with pytest.raises(
        LoralabError, match=r"x.pkl wants to call os.system: loralab executes no code .* CSV, JSONL or Parquet instead"
    ):
        read_pickle(save(b"cos\nsystem\n(S'true'\ntR."))
    with pytest.raises(LoralabError, match=r"instruction INST 'os system'"):
        read_pickle(save(b"(S'true'\nios\nsystem\n."))
    with pytest.raises(LoralabError) as error:
        read_pickle(save(b"c\x1b[31mos\nsystem\n."))
    assert "\x1b" not in str(error.value)


FOREIGN = {
    "os": "system",
    "posix": "system",
    "builtins": "eval exec getattr open __import__ object.__subclasses__ slice.__class__",
    "subprocess": "Popen",
    "numpy": "load save dtype.__class__",
    "numpy.testing._private.utils": "runstring",
    "pandas": "read_pickle eval DataFrame.to_csv",
    "pandas.core.common": "pipe",
    "pandas.io.common": "os.system",
    "pyarrow": "memory_map",
    "pyarrow.fs": "LocalFileSystem",
    "pyarrow.lib": "OSFile _restore_array.__globals__",
    "datasets": "load_dataset",
    "datasets.arrow_dataset": "Dataset.from_generator Dataset.__init__.__globals__",
    "datasets.table": "_memory_mapped_arrow_table_from_file",
    "_codecs": "lookup",
    "codecs": "encode",
    "copyreg": "__newobj__ add_extension",
    "functools": "partial",
    "operator": "attrgetter",
    "torch": "load",
    "pandasx": "DataFrame",
    "": "DataFrame",
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in FOREIGN.items() for name in names.split()])
def test_globals_that_are_not_allowed_are_refused(module: str, name: str, save: Callable[[bytes], Path]) -> None:
    with pytest.raises(LoralabError, match=r"wants to call|is damaged"):
        read_pickle(save(b"c" + module.encode() + b"\n" + name.encode() + b"\n."))
    stack = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    with pytest.raises(LoralabError, match="wants to call"):
        read_pickle(save(stack))


FRAME = b"cpandas\nDataFrame\n"
INSTRUCTIONS = {
    "persid": b"Pname\n.",
    "binpersid": b"S'name'\nQ.",
    "ext1": b"\x80\x02\x82\xc8)R.",
    "ext2": b"\x80\x02\x83\xc8\x00)R.",
    "ext4": b"\x80\x02\x84\xc8\x00\x00\x00)R.",
    "inst on a known class": b"(ipandas\nDataFrame\n.",
    "obj on a known class": b"(" + FRAME + b"o.",
    "newobj_ex": b"\x80\x04" + FRAME + b")}\x92.",
    "next buffer": b"\x80\x05\x97.",
    "read-only buffer": b"\x80\x05N\x98.",
    "set": b"\x80\x04\x8f.",
    "build on a class": FRAME + b"(N}S'x'\nI1\nstb.",
    "build on a list": b"]}b.",
    "setitem on a class": FRAME + b"I1\nI2\ns.",
    "append to a class": FRAME + b"I1\na.",
    "append to an object": FRAME + b")R" + b"I1\na.",
    "call of an object": FRAME + b")R)R.",
    "call of a text": b"S'os.system'\n)R.",
    "call without a tuple": FRAME + b"]R.",
    "reconstructor of a class of os": b"ccopyreg\n_reconstructor\n(csubprocess\nPopen\nc__builtin__\nobject\nNtR.",
    "reconstructor of a text": b"ccopyreg\n_reconstructor\n(S'os'\nc__builtin__\nobject\nNtR.",
    "state for a class's slots": FRAME + b")\x81(N}S'__class__'\nI1\nS'name'\nS'x'\nstb.",
    "names that are no text": b"\x80\x04K\x01K\x02\x93.",
    "empty": b"",
    "stop": b".",
    "no stop": b"I1\n",
    "mark": b"(.",
    "tuple of nothing": b"\x87.",
    "get of nothing": b"h\x07.",
    "appends without a mark": b"]e.",
    "odd items": b"}(I1\nu.",
    "long text": b"X\xff\xff\xff\xffab.",
    "unknown opcode": b"\xff.",
    "not a pickle": b"text,label\nabc,1\n",
}


@pytest.mark.parametrize("name", sorted(INSTRUCTIONS))
def test_unsupported_instructions_are_refused(name: str, save: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(sys.modules[__name__], "extension", lambda: ran.append("ran"), raising=False)
    before = [dict(vars(kind)) for kind in (GlobalName, Record, PickleInterpreter, ColumnChunk)]
    copyreg.add_extension(__name__, "extension", 200)
    try:
        with pytest.raises(LoralabError) as error:
            read_pickle(save(INSTRUCTIONS[name]))
    finally:
        copyreg.remove_extension(__name__, "extension", 200)
    assert error.value.exit_code == 2
    assert not ran
    assert [dict(vars(kind)) for kind in (GlobalName, Record, PickleInterpreter, ColumnChunk)] == before


# Refused: invalid tables. `emit` writes any value as a pickle, `Made` as the call of a global.


class Made:
    def __init__(self, name: str, *args: object, state: object = None) -> None:
        self.name, self.args, self.state = name, args, state


def emit(value: object) -> bytes:
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"I%d\n" % value
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case list():
            return b"](" + b"".join(map(emit, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(emit, value)) + b"t"
        case dict():
            return b"}(" + b"".join(emit(key) + emit(item) for key, item in value.items()) + b"u"
        case Made():
            module, _, name = value.name.rpartition(".")
            state = b"" if value.state is None else emit(value.state) + b"b"
            return f"c{module}\n{name}\n".encode() + emit(value.args) + b"R" + state
    raise TypeError(value)


def alias(kind: str) -> Made:
    return Made("pyarrow.lib.type_for_alias", kind)


def arrow(kind: str, length: int, buffers: list[object], start: int = 0) -> Made:
    held = [buffer if buffer is None else Made("pyarrow.lib.py_buffer", buffer) for buffer in buffers]
    return Made("pyarrow.lib._restore_array", (alias(kind), length, 0, start, held, [], None))


def memory(**columns: Made) -> Made:
    fields = [Made("pyarrow.lib.field", name, alias("string"), True, None) for name in columns]
    table = Made("pyarrow.lib._reconstruct_table", list(columns.values()), Made("pyarrow.lib.schema", fields, None))
    return Made("datasets.table.InMemoryTable", state={"table": table})


def dataset(table: Made, indices: Made | None = None) -> bytes:
    info = Made("datasets.info.DatasetInfo", state={"features": Made("datasets.features.features.Features", {})})
    return emit(Made("datasets.arrow_dataset.Dataset", state={"_info": info, "_data": table, "_indices": indices})) + b"."


def ints(*values: int, width: str = "i") -> bytes:
    return struct.pack(f"<{len(values)}{width}", *values)


def test_the_handmade_dataset_is_valid(save: Callable[[bytes], Path]) -> None:
    good = arrow("string", 2, [b"\x06", ints(0, 1, 1, 3), b"abc"], start=1)
    table = read_pickle(save(dataset(memory(t=good, b=arrow("bool", 2, [None, b"\x08"], start=2)))))
    assert table.columns == {"t": ["", "bc"], "b": [False, True]}
    above, below = memory(t=good), memory(t=arrow("string", 1, [None, ints(0, 2), b"zz"]))
    joined = Made(
        "datasets.table.ConcatenationTable",
        state={"blocks": [[above, memory(u=good)], [below, memory(u=arrow("null", 1, [None]))]]},
    )
    assert read_pickle(save(dataset(joined))).columns == {"t": ["", "bc", "zz"], "u": ["", "bc", None]}


TORN = {
    "text ends outside": arrow("string", 2, [None, ints(0, 1, 99), b"abc"]),
    "text starts outside": arrow("string", 2, [None, ints(-5, 1, 3), b"abc"]),
    "texts go back": arrow("string", 3, [None, ints(0, 3, 1, 3), b"abc"]),
    "large text outside": arrow("large_string", 1, [None, ints(0, 2**62, width="q"), b"abc"]),
    "no utf-8": arrow("string", 1, [None, ints(0, 2), b"\xff\xfe"]),
    "too few ends": arrow("string", 2, [None, ints(0, 1), b"abc"]),
    "no ends": arrow("string", 2, [None, None, b"abc"]),
    "no buffers": arrow("string", 2, []),
    "start outside": arrow("string", 2, [None, ints(0, 1, 2), b"abc"], start=2),
    "huge start": arrow("int64", 1, [None, ints(1, width="q")], start=2**61),
    "negative start": arrow("int64", 1, [None, ints(1, 2, width="q")], start=-1),
    "negative length": arrow("int64", -1, [None, ints(1, 2, width="q")]),
    "huge length": arrow("int64", 2**62, [None, ints(1, 2, width="q")]),
    "huge null": arrow("null", 2**40, [None]),
    "long length": arrow("int64", 3, [None, ints(1, 2, width="q")]),
    "short bits": arrow("bool", 9, [None, b"\xff"]),
    "short validity": arrow("int8", 9, [b"\xff", bytes(9)]),
    "length is a text": arrow("int8", "9", [None, bytes(9)]),  # type: ignore[arg-type]
    "buffer is a text": arrow("int8", 1, [None, "abc"]),
    "views": arrow("string_view", 1, [None, bytes(16)]),
    "dictionary": arrow("dictionary<values=string, indices=int8>", 1, [None, bytes(16)]),
    "type is a text": Made("pyarrow.lib._restore_array", ("int8", 1, 0, 0, [None, bytes(1)], [], None)),
    "no array": Made("pyarrow.lib.py_buffer", b"abc"),
}


@pytest.mark.parametrize("name", sorted(TORN))
def test_invalid_arrow_buffers(name: str, save: Callable[[bytes], Path]) -> None:
    with pytest.raises(LoralabError):
        read_pickle(save(dataset(memory(t=TORN[name]))))


def order(*positions: int) -> Made:
    return memory(indices=arrow("int64", len(positions), [None, ints(*positions, width="q")]))


def test_invalid_datasets(save: Callable[[bytes], Path]) -> None:
    two = memory(t=arrow("int8", 2, [None, b"\x01\x02"]))
    assert read_pickle(save(dataset(two, order(1, 1, 0)))).columns == {"t": [2, 2, 1]}
    uneven = memory(t=arrow("int8", 2, [None, b"\x01\x02"]), u=arrow("int8", 1, [None, b"\x01"]))
    disk = Made("datasets.table.MemoryMappedTable", state={"path": "/etc/passwd", "replays": None})
    mixed = Made("datasets.table.ConcatenationTable", state={"blocks": [[two], [disk]]})
    nested = Made("datasets.table.ConcatenationTable", state={"blocks": [[mixed]]})
    for data in (dataset(two, order(2)), dataset(two, order(-1)), dataset(uneven), dataset(disk), dataset(mixed), dataset(nested)):
        with pytest.raises(LoralabError):
            read_pickle(save(data))
    splits = emit(Made("datasets.dataset_dict.DatasetDict")) + b"."
    with pytest.raises(LoralabError, match="holds the splits"):
        read_pickle(save(splits))


def numpy_array(kind: object, shape: object, raw: object, version: int = 1, byte_order: object = "<") -> Made:
    dtype = Made("numpy.dtype", kind, False, True, state=(3, byte_order, None, None, None, -1, -1, 0))
    return Made("numpy.core.multiarray._reconstruct", None, (0,), b"b", state=(version, shape, dtype, False, raw))


ARRAYS: dict[str, Any] = {
    "too few bytes": numpy_array("i8", (2,), bytes(15)),
    "too many bytes": numpy_array("i8", (2,), bytes(24)),
    "huge shape": numpy_array("i8", (2**62,), bytes(16)),
    "overflowing shape": numpy_array("i8", (2**33, 2**33), bytes(16)),
    "negative shape": numpy_array("i8", (-1,), bytes(8)),
    "two dimensions": numpy_array("i8", (1, 2), bytes(16)),
    "shape of texts": numpy_array("i8", ("2",), bytes(16)),
    "no shape": numpy_array("i8", None, bytes(16)),
    "objects in bytes": numpy_array("O8", (1,), bytes(8)),
    "too few objects": numpy_array("O8", (3,), ["a"]),
    "numbers in a list": numpy_array("i8", (1,), ["a"]),
    "a pointer": numpy_array("V8", (1,), bytes(8)),
    "a structure": numpy_array([("a", "O")], (1,), bytes(8)),
    "a long text": numpy_array("U99999999", (1,), bytes(8)),
    "no text": numpy_array("U1", (1,), b"\xff\xff\xff\xff"),
    "a false order": numpy_array("i8", (1,), bytes(8), byte_order="O,"),
    "no dtype": Made("numpy.core.multiarray._reconstruct", None, (0,), b"b", state=(1, (1,), "i8", False, bytes(8))),
    "no state": Made("numpy.core.multiarray._reconstruct", None, (0,), b"b"),
}


ARRAYS["two values in a scalar"] = [Made("numpy.core.multiarray.scalar", ARRAYS["too few bytes"].state[2], bytes(16))]


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_invalid_arrays(name: str, save: Callable[[bytes], Path]) -> None:
    assert read_pickle(save(emit({"a": numpy_array("i8", (2,), bytes(16))}) + b".")).columns == {"a": [0, 0]}
    with pytest.raises(LoralabError):
        read_pickle(save(emit({"a": ARRAYS[name]}) + b"."))


ODD_ROWS = [[["a"]], [("a", 1, 2)], [("a", 1), {"a": 1}], [[], []], [{}], [{"a": [1]}], [(("a",), 1)]]
ODD_COLUMNS = [
    {},
    {"a": [1], "b": [1, 2]},
    {"a": "text"},
    {"a": [[1]]},
    {"a": [b"x"]},
    {"a": [2**70]},
    {"a": [{"b": 1}]},
    {"a": {1}},
]
ODD_NAMES = [{b"a": [1]}, {None: [1]}, {(1, 2): [3]}, {1.5: [1]}, [{None: 1}]]


@pytest.mark.parametrize("value", [7, "text", None, *ODD_ROWS, *ODD_COLUMNS, *ODD_NAMES], ids=repr)
def test_values_that_are_no_table_are_refused(value: object, save: Callable[[bytes], Path]) -> None:
    with pytest.raises(LoralabError):
        read_pickle(save(pickle.dumps(value)))


# Refused: excessive memory


def frame_of(names: Made) -> Made:
    return Made("pandas.DataFrame", state={"_mgr": Made("pandas.core.internals.managers.BlockManager", (), [names, None])})


def laughs(levels: int) -> bytes:
    """Return nested lists of ten: 10 ** levels references in a few bytes per level."""
    return b"](" + b"S'ha'\n" * 10 + b"e" + b"".join(b"q\x01](" + b"h\x01" * 10 + b"e" for _ in range(levels)) + b"."


BOMBS = {
    "laughs": laughs(40),
    "memo": b"N" + b"r\xff\xff\xff\xff" + b".",
    "memo put": b"Np99999999999999999999\n0.",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"a.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**34) + b"a.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**63 - 1) + b"a.",
    "number": b"\x8b\xff\xff\xff\x7fa.",
    "digits": b"L" + b"9" * 100_000 + b"L\n.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "key": b"(I1\nt" + b"".join(b"q\x01(" + b"h\x01" * 2 + b"t" for _ in range(100)) + b"q\x02}h\x02Ns.",
    "nested": b"(" * 300_000 + b"t" * 300_000 + b".",
    "nested lists": b"](" * 200_000 + b"e" * 200_000 + b".",
    "itself": b"]q\x00h\x00a.",
    "shared columns": b"](" + b"N" * 50_000 + b"eq\x010}(" + b"".join(b"I%d\nh\x01" % i for i in range(50_000)) + b"u.",
    "shared rows": b"}(" + b"".join(b"I%d\nN" % i for i in range(20_000)) + b"uq\x010](" + b"h\x01" * 20_000 + b"e.",
    "range": emit(frame_of(Made("pandas._new_Index", Made("pandas.RangeIndex"), {"start": 0, "stop": 2**60, "step": 1}))) + b".",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", sorted(BOMBS))
def test_bombs(name: str, save: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_pickle, "_MAX_COST", 1 << 30)  # the same errors in less time
    with pytest.raises(LoralabError):
        read_pickle(save(BOMBS[name]))


def test_limits(save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_pickle, "_MAX_FILE", 1000)
    bomb = save(gzip.compress(pickle.dumps(["a" * 100_000])), "x.pkl.gz")
    assert bomb.stat().st_size < 1000
    for path in (bomb, save(pickle.dumps(["a" * 1000]))):
        with pytest.raises(LoralabError, match="more than 2 GiB"):
            read_pickle(path)
    monkeypatch.setattr(pickle_interpreter, "MAX_OPCODES", 50)
    with pytest.raises(LoralabError, match="more than 50 instructions"):
        read_pickle(save(pickle.dumps(list(range(60)))))


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pkl", tmp_path):
        with pytest.raises(LoralabError, match="cannot read"):
            read_pickle(path)


# Damage

SOUND = [
    path
    for path in FIXTURES
    if path.stem.endswith(("memory-0", "memory-5", "select", "kinds", "objects-0", "objects-5", "numpy-2"))
]


@pytest.mark.parametrize("path", SOUND, ids=lambda path: path.stem)
def test_truncated(path: Path, save: Callable[[bytes], Path]) -> None:
    data = path.read_bytes()
    for end in [*range(0, len(data), 50), len(data) - 1]:
        with pytest.raises(LoralabError):
            read_pickle(save(data[:end]))


@pytest.mark.parametrize("path", SOUND, ids=lambda path: path.stem)
def test_damaged_bytes_give_a_loralab_error_or_a_table(
    path: Path, save: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_pickle, "_MAX_COST", 1 << 26)  # a damaged shape can allocate 8 GiB otherwise
    draw = random.Random(path.stem)
    data = path.read_bytes()
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 8))):
            damaged[draw.randrange(len(data))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        try:
            table = read_pickle(save(bytes(damaged)))
        except LoralabError:
            continue
        assert all(type(v) in (str, int, float, bool, type(None)) for values in table.columns.values() for v in values)
        assert len({len(values) for values in table.columns.values()}) == 1


def test_the_interpreter_agrees_with_pickle() -> None:
    """Without globals, every protocol gives the value that Python's unpickler gives."""
    value: dict[str, Any] = {
        "a": [1, -1, 2**31, -(2**40), 2**200, 1.5, True, False, None, "ü" * 300, "", b"x" * 300, ()],
        "b": ((1,), (1, 2), (1, 2, 3), (1,) * 9),
    }
    value["c"] = [value["a"], value["a"]]
    for protocol in range(3, 6):
        assert PickleInterpreter().run(pickle.dumps(value, protocol=protocol)) == value
        stream = io.BytesIO()
        pickle._Pickler(stream, protocol).dump(value)
        assert PickleInterpreter().run(stream.getvalue()) == value


def test_a_list_of_several_kinds_of_rows_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(["text", {"text": "a"}, ("a", 1)]))
    with pytest.raises(LoralabError, match="is a list of dict and str and tuple: loralab reads a list of texts, of"):
        read_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("start", [0, 1, 7, 8, 9, 16, 23])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 17])
def test_arrow_arrays_begin_anywhere(save: Callable[[bytes], Path], start: int, length: int) -> None:
    stream = random.Random(start * 100 + length)
    flags = [stream.random() < 0.5 for _ in range(start + length)]
    bits = np.packbits(flags, bitorder="little").tobytes()
    numbers = [stream.randrange(-100, 100) for _ in flags]
    texts = ["x" * stream.randrange(3) for _ in flags]
    ends = np.concatenate([[0], np.cumsum([*map(len, texts)])]).astype("<i8")
    columns = {
        "flag": arrow("bool", length, [None, bits], start=start),
        "valid": arrow("int32", length, [bits, ints(*numbers)], start=start),
        "text": arrow("large_string", length, [bits, ends.tobytes(), "".join(texts).encode()], start=start),
        "float": arrow("double", length, [None, ints(*numbers, width="d")], start=start),
    }
    table = read_pickle(save(dataset(memory(**columns))))
    assert table.columns == {
        "flag": flags[start:],
        "valid": [number if valid else None for number, valid in zip(numbers, flags, strict=True)][start:],
        "text": [text if valid else None for text, valid in zip(texts, flags, strict=True)][start:],
        "float": [float(number) for number in numbers][start:],
    }


@pytest.mark.parametrize(
    "kind", sorted({*["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "halffloat", "float", "double"]})
)
def test_arrow_numbers_of_every_type(save: Callable[[bytes], Path], kind: str) -> None:
    names = {"halffloat": "float16", "float": "float32", "double": "float64"}
    values = np.array([0, 1, 100], dtype=names.get(kind, kind))
    assert read_pickle(save(dataset(memory(n=arrow(kind, 3, [None, values.tobytes()]))))).columns == {"n": [0, 1, 100]}


@pytest.mark.parametrize("unit", ["D", "s", "ms", "us", "ns"])
def test_times_of_every_unit_are_texts(save: Callable[[bytes], Path], unit: str) -> None:
    times = np.array(["2024-05-01", "NaT", "1969-12-31"], dtype=f"M8[{unit}]")
    table = read_pickle(save(pickle.dumps({"text": ["a", "b", "c"], "time": times})))
    assert table.columns["time"] == [str(times[0]), None, str(times[2])]


@pytest.mark.parametrize("unit", ["h", "2s", "M"])
def test_times_of_other_units_are_refused(save: Callable[[bytes], Path], unit: str) -> None:
    with pytest.raises(LoralabError):
        read_pickle(save(pickle.dumps({"text": ["a"], "time": np.array(["2024-05-01"], dtype=f"M8[{unit}]")})))


@pytest.mark.parametrize("kind", ["?", "i1", "<i2", ">i4", "<u8", "f2", ">f8", "U3", ">U2", "O"])
def test_arrays_of_every_kind_are_lists(save: Callable[[bytes], Path], kind: str) -> None:
    values = np.array([0, 1, 1]).astype(kind)
    assert read_pickle(save(pickle.dumps({"text": ["a", "b", "c"], "x": values}))).columns["x"] == values.tolist()


@pytest.mark.parametrize("kind", ["c8", "m8[s]", "S3", "i4,i4"])
def test_arrays_of_other_kinds_are_refused(save: Callable[[bytes], Path], kind: str) -> None:
    with pytest.raises(LoralabError, match="loralab reads text, numbers and booleans"):
        read_pickle(save(pickle.dumps({"text": ["a"], "x": np.zeros(1, dtype=kind)})))
