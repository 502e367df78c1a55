"""Prediction reads every format as training does: the same rows, in order."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from loralab.config import DataConfig
from loralab.data.readers import CHUNK
from loralab.data.sources import load_source
from loralab.inference.prediction_files import read_input

ROWS = CHUNK + 7
FRAME = pandas.DataFrame({"text": [f'row {i}, said "{i}"' for i in range(ROWS)], "label": ["x", "y", "z"] * (ROWS // 3)})
RECORDS = FRAME.to_dict(orient="records")


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rows.csv", FRAME.to_csv(index=False))


WRITERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "csv": ("a.csv", lambda path: FRAME.to_csv(path, index=False)),
    "tsv": ("a.tsv", lambda path: FRAME.to_csv(path, index=False, sep="\t")),
    "gzip": ("a.csv.gz", lambda path: path.write_bytes(gzip.compress(FRAME.to_csv(index=False).encode()))),
    "zip": ("a.zip", zipped),
    "jsonl": ("a.jsonl", lambda path: FRAME.to_json(path, orient="records", lines=True)),
    "json": ("a.json", lambda path: path.write_text(json.dumps({"data": RECORDS}))),
    "json columns": ("a.json", lambda path: FRAME.to_json(path)),
    "parquet": ("a.parquet", lambda path: FRAME.to_parquet(path)),
    "pickle": ("a.pkl", lambda path: FRAME.to_pickle(path)),
    "feather": ("a.feather", lambda path: FRAME.to_feather(path)),
    "excel": ("a.xlsx", lambda path: FRAME.to_excel(path, index=False)),
    "fasttext": ("a.txt", lambda path: path.write_text("".join(f"__label__{row['label']} {row['text']}\n" for row in RECORDS))),
    "spacy": (
        "a.jsonl",
        lambda path: path.write_text("".join(json.dumps([r["text"], {"cats": {r["label"]: 1}}]) + "\n" for r in RECORDS)),
    ),
    "doccano": (
        "a.jsonl",
        lambda path: path.write_text("".join(json.dumps({"data": r["text"], "label": [r["label"]]}) + "\n" for r in RECORDS)),
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_prediction_reads_the_rows_of_training_in_order(tmp_path: Path, writer: str) -> None:
    name, write = WRITERS[writer]
    write(tmp_path / name)
    source = load_source(DataConfig(source=str(tmp_path / name)))
    assert source.train.texts == [*FRAME["text"]]
    assert [source.train.classes[i] for i in source.train.require_labels()] == [*FRAME["label"]]
    read = [*read_input(tmp_path / name, DataConfig(), source.contract).rows]
    assert [text for rows in read for text in rows.texts] == [*FRAME["text"]]
    assert [rows.first for rows in read] == [0, CHUNK] or len(read) == 1
