"""Write the pickles of one library version into this folder; the test reads them all, without those libraries.

Each version has its own virtual environment. In this folder, for every line (numpy 1 where pandas 1 or datasets 2 is):

    python3 -m venv /tmp/one && /tmp/one/bin/pip install 'pandas==1.5.3' 'pyarrow==14.0.2' 'numpy<2'
    python3 -m venv /tmp/two && /tmp/two/bin/pip install 'datasets==2.14.7' 'pyarrow==14.0.2' 'numpy<2' 'fsspec==2023.10.0'

and then `/tmp/one/bin/python make.py pandas`, `/tmp/two/bin/python make.py datasets`. The files here came from pandas 1.5.3,
2.2.3 (pyarrow 16.1.0) and 3.1.1 (26.0.1), and from datasets 2.14.7, 2.19.2 (pyarrow 16.1.0), 3.6.0 (20.0.0) and 5.2.0 (26.0.1).
"""

from __future__ import annotations

import pickle
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TEXTS = ["Straße nach Köln", "日本の天気", None, "", "smile 🙂 end", "plain"]
LABELS = [0, 2, 1, 0, 2, 1]
NAMES = ["rain", "sun", "wind"]
SCORES = [0.5, -1.25, None, 3.0, 1e300, 0.0]
FLAGS = [True, False, False, True, True, False]


def write(name: str, value: object, protocol: int = 4) -> None:
    """Pickle `value` to <name>.pkl in this folder."""
    (HERE / f"{name}.pkl").write_bytes(pickle.dumps(value, protocol=protocol))


def pandas_files() -> None:
    """Frames of every column type that is read, plain and filtered, and a series."""
    import numpy as np
    import pandas as pd

    stem = f"pandas-{pd.__version__}"
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS, "score": SCORES, "flag": FLAGS})
    frame["text"] = pd.Series(TEXTS, dtype=object)
    for protocol in (0, 2, 5):
        write(f"{stem}-objects-{protocol}", frame, protocol)
    write(f"{stem}-default", pd.DataFrame({"text": TEXTS, "label": LABELS}))
    write(f"{stem}-slices", frame[["flag", "label"]].iloc[::2])
    write(f"{stem}-empty", frame[frame["label"] > 8])
    write(f"{stem}-named-index", frame.set_index(pd.Index(list("abcdef"), name="key")))
    write(f"{stem}-float-index", frame.set_index(pd.Index([0.5, 1, 2, 3, 4, 5])))
    write(f"{stem}-date-index", frame.set_index(pd.date_range("2026-01-31", periods=6)))
    write(f"{stem}-levels-index", frame.set_index([pd.CategoricalIndex(list("abcabc")), pd.Index(list("abcdef"))]))
    write(f"{stem}-levels", frame.set_axis(pd.MultiIndex.from_product([["a"], list("wxyz")]), axis=1))

    kinds = {"category": pd.Series([None if t is None else NAMES[k] for t, k in zip(TEXTS, LABELS, strict=True)], dtype="category")}
    kinds["Int64"] = pd.Series([None if t is None else k for t, k in zip(TEXTS, LABELS, strict=True)], dtype="Int64")
    kinds["boolean"] = pd.Series([None, *FLAGS[1:]], dtype="boolean")
    kinds["Float32"] = pd.Series([0.5, None, 1.5, 2.5, 3.5, 4.5], dtype="Float32")
    kinds["int8"] = pd.Series(LABELS, dtype="int8")
    kinds["float32"] = pd.Series([0.5, None, 1.5, 2.5, 3.5, 4.5], dtype="float32")
    kinds["python"] = pd.Series(TEXTS, dtype="string[python]")
    kinds["pyarrow"] = pd.Series(TEXTS, dtype="string[pyarrow]")
    kinds["mixed"] = pd.Series(["a", 1, np.nan, 2.5, True, None], dtype=object)
    kinds["day"] = pd.Series(pd.to_datetime(["2026-01-31", None, *["2026-02-01"] * 4]))
    kinds["number"] = pd.Series(pd.Categorical([3, 7, 3, 7, 7, 3]))
    write(f"{stem}-kinds", pd.DataFrame(kinds))
    write(f"{stem}-kinds-2", pd.DataFrame(kinds), 2)
    write(f"{stem}-kinds-filtered", pd.DataFrame(kinds)[[k != 0 for k in LABELS]])
    if pd.__version__ >= "2":
        write(f"{stem}-arrow", frame.convert_dtypes(dtype_backend="pyarrow"))
    write(f"{stem}-series", frame["text"].rename("title"))
    write(f"{stem}-series-unnamed", pd.Series(TEXTS))
    write(f"{stem}-series-category", kinds["category"].rename("category"))
    words = np.array(["Köln", "日本", "x", "", "é", "plain"])
    write(f"{stem}-numpy-5", {"text": np.array(TEXTS, dtype=object), "label": np.array(LABELS), "word": words}, 5)
    write(f"{stem}-numpy-2", {"text": np.array(TEXTS, dtype=object), "label": np.array(LABELS, dtype=">i4"), "word": words}, 2)
    write(f"{stem}-scalars", [{"text": np.str_("a"), "label": np.int64(3)}, {"text": "ü", "label": np.float32(0.5)}])


def datasets_files() -> None:
    """One dataset in memory, selected, shuffled, joined both ways, as a dictionary of splits, and one that lies on disk."""
    import datasets

    stem = f"datasets-{datasets.__version__}"
    value = datasets.Value
    features = {
        "text": value("string"),
        "label": datasets.ClassLabel(names=NAMES),
        "score": value("float64"),
        "flag": value("bool"),
    }
    columns = {"text": TEXTS, "label": LABELS, "score": SCORES, "flag": FLAGS}
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    for protocol in (0, 2, 5):
        write(f"{stem}-memory-{protocol}", rows, protocol)
    write(f"{stem}-select", rows.select([5, 0, 0, 3]))
    write(f"{stem}-range", rows.select(range(2, 5)))
    write(f"{stem}-shuffle", rows.shuffle(seed=7))
    write(f"{stem}-concat", datasets.concatenate_datasets([rows, rows.select([1, 2]), rows.select(range(3, 6))]))
    extra = datasets.Dataset.from_dict({"extra": [f"é{i}" for i in range(6)]})
    write(f"{stem}-wide", datasets.concatenate_datasets([rows, extra], axis=1))
    kinds = {"text": value("large_string"), "small": value("int8"), "half": value("float32"), "none": value("null")}
    kinds_columns = {"text": TEXTS, "small": LABELS, "half": [0.5, None, 1.5, 2.5, 3.5, 4.5], "none": [None] * 6}
    write(f"{stem}-kinds", datasets.Dataset.from_dict(kinds_columns, features=datasets.Features(kinds)))
    write(f"{stem}-lists", datasets.Dataset.from_dict({"text": TEXTS, "words": [["a"]] * 6}))
    write(f"{stem}-one-split", datasets.DatasetDict({"train": rows}))
    write(f"{stem}-two-splits", datasets.DatasetDict({"train": rows, "test": rows}))
    with tempfile.TemporaryDirectory() as folder:
        rows.save_to_disk(folder)
        write(f"{stem}-on-disk", datasets.load_from_disk(folder))
        (Path(folder) / "rows.csv").write_text(
            "text,label\n" + "".join(f"{t},{k}\n" for t, k in zip(TEXTS, LABELS, strict=True) if t)
        )
        files = str(Path(folder) / "rows.csv")
        loaded = datasets.load_dataset("csv", data_files=files, cache_dir=folder, split="train", keep_in_memory=True)
        write(f"{stem}-loaded", loaded)


if __name__ == "__main__":
    {"pandas": pandas_files, "datasets": datasets_files}[sys.argv[1]]()
