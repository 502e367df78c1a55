"""Pickles that would run code, load modules, or take memory and time: `hostile()` returns more than 200, by name."""

from __future__ import annotations

import struct

LINE = "touch executed"
GLOBALS = (
    *("os system", "posix system", "nt system", "os popen", "os execv", "os.path join", "subprocess Popen", "subprocess call"),
    *("subprocess run", "subprocess check_output", "builtins eval", "builtins exec", "builtins compile", "builtins getattr"),
    *("builtins __import__", "builtins open", "builtins map", "builtins apply", "__builtin__ eval", "__builtin__ execfile"),
    *("__builtin__ file", "importlib import_module", "runpy run_path", "runpy _run_code", "pty spawn", "platform popen"),
    *("commands getoutput", "code InteractiveInterpreter", "pdb run", "timeit timeit", "cProfile run", "webbrowser open"),
    *("ctypes CDLL", "socket create_connection", "urllib.request urlopen", "shutil rmtree", "pickle loads", "_pickle loads"),
    *("marshal loads", "types CodeType", "types FunctionType", "functools partial", "operator attrgetter", "operator methodcaller"),
    *(
        "copyreg add_extension",
        "copyreg __newobj__",
        "codecs decode",
        "_codecs lookup",
        "numpy load",
        "numpy memmap",
        "numpy fromfile",
    ),
    *("numpy.testing._private.utils runstring", "numpy.f2py.crackfortran myeval", "pandas read_pickle", "pandas eval"),
    *(
        "pandas.io.common get_handle",
        "pandas.core.frame DataFrame.to_csv",
        "datasets load_dataset",
        "datasets Dataset.from_generator",
    ),
    *(
        "datasets.utils.file_utils cached_path",
        "torch load",
        "torch.hub load",
        "torch._utils _rebuild_tensor_v2",
        "torch FloatStorage",
    ),
    *("torch.storage _load_from_bytes", "torch.storage TypedStorage", "torch.jit.unsupported_tensor_ops execWrapper"),
    *(
        "pyarrow memory_map",
        "pyarrow.fs LocalFileSystem",
        "joblib load",
        "dill._dill _create_code",
        "cloudpickle.cloudpickle _make_function",
    ),
    *(
        "sklearn.utils deprecated",
        "builtins\u2024eval x",
        "\u03bfs system",
        "os\x00 system",
        "builtins object.__reduce__",
    ),
    *("pandas DataFrame.__init__.__globals__", "numpy dtype.__class__", "builtins bytes.fromhex"),
)
"""`module name` of functions that run code, read or write files, or lead to others that do."""


def hostile() -> dict[str, bytes]:
    """Return every pickle by a name that says what it tries."""
    return {**_calls(), **_registry_and_ids(), **_stacks(), **_bombs(), **_gadgets()}


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def _calls() -> dict[str, bytes]:
    """Calls of every global, by the instructions of each protocol."""
    calls = {}
    argument = _text(LINE)
    for place in GLOBALS:
        module, name = place.split(" ")
        plain = f"c{module}\n{name}\n".encode()
        stacked = _text(module) + _text(name) + b"\x93"
        calls[f"{place}: GLOBAL REDUCE"] = plain + argument + b"\x85R."
        calls[f"{place}: STACK_GLOBAL NEWOBJ"] = b"\x80\x04" + stacked + argument + b"\x85\x81."
    for place in GLOBALS[::5]:
        module, name = place.split(" ")
        plain, stacked = f"c{module}\n{name}\n".encode(), _text(module) + _text(name) + b"\x93"
        calls[f"{place}: INST"] = b"(" + argument + f"i{module}\n{name}\n.".encode()
        calls[f"{place}: OBJ"] = b"(" + plain + argument + b"o."
        calls[f"{place}: NEWOBJ_EX"] = b"\x80\x04" + stacked + argument + b"\x85}\x92."
        calls[f"{place}: BUILD"] = plain + b")R}" + _text("__setstate__") + plain + b"sb."
        calls[f"{place}: in a table"] = b"](" + _text("a") + plain + argument + b"\x85R" + b"e."
        calls[f"{place}: popped"] = plain + argument + b"\x85R0]" + _text("a") + b"a."
        calls[f"{place}: dict key"] = b"}" + plain + _text("x") + b"s."
    return calls


def _registry_and_ids() -> dict[str, bytes]:
    """The extension registry, persistent ids, out-of-band buffers."""
    codes = {
        "EXT1": b"\x82\x01",
        "EXT2": b"\x83\x01\x00",
        "EXT4": b"\x84\x01\x00\x00\x00",
        "EXT4 negative": b"\x84\xff\xff\xff\xff",
    }
    cases = {name: b"\x80\x02" + code + b")R." for name, code in codes.items()}
    return cases | {
        "PERSID": b"Pos.system\n.",
        "BINPERSID": _text("os.system") + b"Q.",
        "BINPERSID tuple": b"(" + _text("storage") + b"ctorch\nFloatStorage\ntQ.",
        "NEXT_BUFFER": b"\x80\x05\x97.",
        "READONLY_BUFFER": b"\x80\x05N\x98.",
        "FROZENSET": b"\x80\x04(K\x01\x91.",
    }


def _stacks() -> dict[str, bytes]:
    """Instructions on an empty or wrong stack."""
    names = [
        "0",
        "1",
        "2",
        "R",
        "a",
        "b",
        "d",
        "e",
        "i",
        "l",
        "o",
        "s",
        "t",
        "u",
        "}",
        "\x81",
        "\x86",
        "\x87",
        "\x90",
        "\x91",
        "\x92",
        "\x93",
        "\x94",
    ]
    cases = {f"{name!r} on an empty stack": name.encode("latin-1") + b"." for name in names if name != "}"}
    return cases | {
        "DUP of a mark": b"(2.",
        "marks only": b"(" * 1000 + b".",
        "POP_MARK without mark": b"K\x011.",
        "GET of nothing": b"g99999999999\n.",
        "PUT negative": b"K\x01p-1\n.",
        "two STOPs": b"K\x01.K\x02.",
        "no STOP": b"K\x01",
        "unknown opcode": b"\xff.",
        "bad protocol": b"\x80\xff]" + b".",
        "BUILD on itself": b"cpandas\nDataFrame\n)R2b.",
        "list that holds itself": b"]2a.",
        "dict that holds itself": b"}" + _text("text") + b"2s.",
        "memo list in itself": b"]q\x00h\x00a.",
        "lone surrogate": b"](" + b"X\x03\x00\x00\x00\xed\xa0\x80" + b"e.",
        "INT that is no number": b"Iabc\n.",
        "INT of many digits": b"I" + b"9" * 5000 + b"\n.",
        "LONG of many digits": b"L" + b"9" * 5000 + b"L\n.",
        "FLOAT nan": b"](Fnan\ne.",
        "STRING without quotes": b"Sabc\n.",
        "STRING escape": b"S'\\x'\n.",
        "UNICODE escape": b"V\\ud800\\u\n.",
    }


def _bombs() -> dict[str, bytes]:
    """Sizes that are declared and not there, and values that grow with every instruction."""
    huge = 2**62
    cases = {
        "LONG_BINPUT": b"K\x01r\xff\xff\xff\xff.",
        "PUT huge": b"K\x01p%d\n." % huge,
        "BINBYTES8": b"\x80\x04\x8e" + struct.pack("<Q", huge) + b"a.",
        "BINUNICODE8": b"\x80\x04\x8d" + struct.pack("<Q", huge) + b"a.",
        "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", huge) + b"a.",
        "BINBYTES": b"B\xff\xff\xff\xffa.",
        "BINSTRING negative": b"T\xff\xff\xff\xffa.",
        "LONG4": b"\x8b\xff\xff\xff\x7fa.",
        "LONG4 negative": b"\x8b\xff\xff\xff\xffa.",
        "LONG1 of 255 bytes": b"\x8a\xff" + b"\xff" * 255 + b".",
        "FRAME": b"\x80\x04\x95" + struct.pack("<Q", huge) + b"N.",
        "FRAME of zero": b"\x80\x04\x95" + struct.pack("<Q", 0) + b"N.",
        "deep lists": b"]" * 100_000 + b"a" * 99_999 + b".",
        "deep tuples": b")" + b"\x85" * 200_000 + b".",
        "many marks": b"(" * 200_000 + b"t" * 199_999 + b".",
        "many dups": b"K\x01" + b"2" * 200_000 + b".",
        "int of a megabyte": b"\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20) + b".",
    }
    laughs = b"]q\x00" + _text("lol") + b"a0"
    for level in range(60):
        laughs += b"](" + b"h" + bytes([level]) + b"h" + bytes([level]) + b"eq" + bytes([level + 1]) + b"0"
    cases["billion laughs of lists"] = laughs + b"h\x3c."
    tuples = b")q\x00"
    for level in range(60):
        tuples += b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86q" + bytes([level + 1])
    cases["billion laughs of tuples"] = tuples + b"."
    cases["billion laughs as a key"] = tuples + b"}h\x3cK\x01s."
    cases["one text in a million cells"] = b"]q\x00(" + _text("a" * 1000) + b"q\x01" + b"h\x01" * 500_000 + b"e."
    return cases


def _array(shape: bytes, kind: str, raw: bytes) -> bytes:
    dtype = b"cnumpy\ndtype\n(" + _text(kind) + b"\x89\x88tR(K\x03" + _text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
    return start + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"


def _gadgets() -> dict[str, bytes]:
    """Arrays, frames and tables that are allowed, with sizes and types that are not."""
    some = b"C\x08" + b"\x01" * 8
    shapes = {"huge": b"\x8a\x08" + struct.pack("<q", 2**62) + b"\x85", "negative": b"J\xff\xff\xff\xff\x85", "none": b")"}
    shapes |= {
        "deep": b"(" + b"K\x01" * 40 + b"t",
        "text": _text("a") + b"\x85",
        "product": b"\x8a\x05\xff\xff\xff\xff\x00\x8a\x05\xff\xff\xff\xff\x00\x86",
    }
    cases = {f"numpy shape {name}": b"\x80\x03" + _array(shape, "i8", some) + b"." for name, shape in shapes.items()}
    for kind in ("O8", "V8", "S999999999", "U999999999", "i8,O", "M8[ns]", "({'names': []})", "__import__('os')", "g16", "c16"):
        cases[f"numpy type {kind}"] = b"\x80\x03" + _array(b"K\x01\x85", kind, some) + b"."
    cases["numpy objects that call"] = b"\x80\x03" + _array(b"K\x01\x85", "O8", b"](cos\nsystem\n" + _text(LINE) + b"\x85Re") + b"."
    cases["numpy scalar object"] = (
        b"\x80\x03cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(" + _text("O8") + b"\x89\x88tRC\x01atR."
    )
    state = {"blocks of nothing": b"}", "blocks that are text": _text("a"), "no state": b"N"}
    for name, value in state.items():
        cases[f"pandas frame: {name}"] = b"\x80\x03cpandas\nDataFrame\n)\x81}" + _text("_mgr") + value + b"sb."
        cases[f"datasets: {name}"] = (
            b"\x80\x03cdatasets\nDataset\n)\x81}(" + _text("_data") + value + _text("_indices") + b"N" + b"ub."
        )
    for length in (2**62, -1, 10**9):
        number = b"\x8a\x09" + length.to_bytes(9, "little", signed=True)
        array = (
            b"cpyarrow\n_restore_array\n(cpyarrow\ntype_for_alias\n"
            + _text("null")
            + b"\x85R"
            + number
            + b"K\x00K\x00](NNe]Nt\x85R"
        )
        cases[f"arrow array of {length}"] = b"\x80\x03cpyarrow\nchunked_array\n](" + array + b"e\x85R."
    return cases
