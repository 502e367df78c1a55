"""Valid inputs of every format, which the fuzzer changes. The first byte of most of them chooses options of the target."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import zipfile
from pathlib import Path
from typing import Any

ROWS = [("Oil slips below 50 dollars", "Business"), ("Late header wins the final", "Sports"), ("Markets rise, again", "Business")]
ROWS += [("Stars of the league", "Sports"), ('He said "no"', "Sports"), ("Shares\nfall", "Business")]
PICKLES = Path(__file__).parents[1] / "data" / "pickles"


def delimited() -> list[bytes]:
    lines = ["text,label", *(f'"{text}",{label}'.replace('"no"', '""no""') for text, label in ROWS)]
    table = "\n".join(lines)
    texts = [
        table,
        table.replace(",", ";"),
        'text\tlabel\nHe said "no"\tx\nfine\ty\nworse\tx\nbad\ty\n',
        "3,First title,A long description of the first row in a file\n1,Second title,A long description of the second row\n",
        "id|text|label\n1|a b|x\n2|c d|y\n3|e|x\n4|f|y\n",
        "sep=;\ntext;label\na;x\nb;y\nc;x\nd;y\n",
        "text,label\r\na,x\r\n\r\nb,y\r\nc,x,,\r\nd,y\r\n",
        'text, label\n"a, b", x\n"c, d", y\n"e", x\n"f", y\n',
        "a\nb\nc\n",
        "text,text2,label,weight,group,date\na,b,x,1,g1,2024-01-01\nc,d,y,2,g2,2024-01-02\ne,f,x,1,g1,2024-01-03\ng,h,y,1,g3,2024-01-04\n",
        "text,label\na,0\nb,1\nc,-1\nd,0\ne,1\n",
        "text;label\nčeský;Sport\nŠpatný;Kultura\nžluťoučký;Sport\núpěl;Kultura\n",
    ]
    codecs = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "cp1250")
    return [bytes([i % 8]) + text.encode(codecs[i % len(codecs)], "replace") for i, text in enumerate(texts)]


def json_documents() -> list[bytes]:
    records = [{"text": text, "label": label} for text, label in ROWS]
    documents: list[Any] = [
        records,
        {"data": records},
        {"train": records, "test": records},
        {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]},
        {"columns": ["text", "label"], "index": [*range(len(ROWS))], "data": [list(row) for row in ROWS]},
        {name: {str(i): row[name] for i, row in enumerate(records)} for name in ("text", "label")},
        {str(i): row for i, row in enumerate(records)},
        [list(row) for row in ROWS],
        [text for text, _ in ROWS],
        [{"text": "a", "label": 1.5}, {"text": None, "label": True}, {"text": "c", "label": [1, {"a": {}}]}],
    ]
    seeds = [bytes([i % 3]) + json.dumps(document).encode() for i, document in enumerate(documents)]
    return [*seeds, b"\x01" + "\n".join(map(json.dumps, records)).encode(), b"\x02" + json.dumps(records).encode("utf-16")]


def annotations() -> list[bytes]:
    """Exports of annotation tools."""
    result = {"from_name": "topic", "to_name": "text", "type": "choices", "value": {"choices": ["x"]}}
    rows: list[list[Any]] = [
        [{"text": "a", "cats": {"x": 1.0, "y": 0.0}}, {"text": "b", "cats": {"x": 0, "y": 1}}],
        [["a", {"cats": {"x": True, "y": False}}], ["b", {"cats": {"x": 0.2, "y": 0.8}}]],
        [{"text": "a", "label": "x", "answer": "accept"}, {"text": "b", "accept": ["y"], "answer": "reject"}],
        [{"text": "a", "accept": ["x"], "answer": "accept"}, {"text": "b", "accept": ["y"], "answer": "ignore"}],
        [{"id": 1, "data": {"text": "a"}, "annotations": [{"result": [result], "was_cancelled": False}]}, {"data": {"text": "b"}}],
        [{"id": 1, "text": "a", "topic": '{"choices": ["x", "y"]}', "annotation_id": 3, "lead_time": 2.5, "annotator": 1}],
        [
            {"fields": {"text": "a"}, "responses": {"topic": [{"value": "x", "status": "submitted"}]}, "status": "completed"},
            {"fields": {"text": "b"}, "responses": [{"values": {"topic": {"value": ["y"]}}, "status": "discarded"}]},
        ],
        [{"text": "a", "topic.responses": ["x"], "topic.responses.status": ["submitted"]}, {"text": "b", "topic.responses": None}],
        [{"text": "a", "topic": [{"user_id": "u", "value": "x", "status": "submitted"}], "topic-suggestion": "y"}],
        [{"text": "a", "inputs": {"text": "a"}, "annotation": "x", "prediction": [], "status": "Validated"}],
        [{"id": 1, "data": "a", "label": ["x"]}, {"id": 2, "data": "b", "label": ["x", "y"]}],
        [{"text": "a", "annotations": [{"label": 3, "user": 1}]}, {"text": "b", "annotations": []}],
    ]
    seeds = [b"\x00" + json.dumps(own).encode() for own in rows]
    return seeds + [b"\x01" + "\n".join(map(json.dumps, own)).encode() for own in rows]


def fasttext() -> list[bytes]:
    lines = [f"__label__{label} {text}".replace("\n", " ") for text, label in ROWS]
    return ["\n".join(lines).encode(), "\n".join(f"{text.strip()} __label__{label}" for text, label in ROWS).encode()]


def packed() -> list[bytes]:
    """Compressed tables, and a zip archive of one and of two."""
    table = b"text,label\na,x\nb,y\nc,x\nd,y\n"
    archives = []
    for names in (("train.csv",), ("train.csv", "test.csv"), ("rows.jsonl",), ("a/b.csv", "__MACOSX/b.csv"), ("x.zip",)):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED if len(names) == 1 else zipfile.ZIP_STORED) as file:
            for name in names:
                file.writestr(name, table)
        archives.append(b"\x00" + archive.getvalue())
    return [*archives, b"\x01" + gzip.compress(table, mtime=0), b"\x02" + bz2.compress(table), b"\x03" + lzma.compress(table)]


def columnar() -> list[bytes]:
    """Parquet, Arrow and Feather files."""
    import pyarrow
    from pyarrow import feather, parquet

    features = {"label": {"names": ["x", "y"], "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}
    table = pyarrow.table({"text": ["a", "b", None, "d"], "label": [0, 1, 0, 1]})
    named = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    nested = pyarrow.table({"text": [["a"], ["b", "c"]], "label": [{"p": 1}, {"p": 2}], "day": [1.5, None]})
    words = pyarrow.table({"text": ["a", "b"], "label": pyarrow.array(["x", "y"]).dictionary_encode()})
    seeds = []
    for own in (table, named, nested, words):
        for compression in ("none", "snappy"):
            file = io.BytesIO()
            parquet.write_table(own, file, compression=compression)
            seeds.append(b"\x00" + file.getvalue())
        for version in (1, 2):
            file = io.BytesIO()
            if version == 2:
                feather.write_feather(own, file, compression="uncompressed")
            else:
                with pyarrow.ipc.new_stream(file, own.schema) as stream:
                    stream.write_table(own)
            seeds.append(b"\x01" + file.getvalue())
    return seeds


SHEET_FILES = ("xl/worksheets/sheet1.xml", "xl/workbook.xml", "xl/sharedStrings.xml", "xl/styles.xml", "[Content_Types].xml")
SHEET_FILES += ("xl/_rels/workbook.xml.rels", "docProps/core.xml", "xl/theme/theme1.xml")


def workbook() -> dict[str, bytes]:
    """Return the files of a workbook."""
    import openpyxl

    book, file = openpyxl.Workbook(), io.BytesIO()
    for row in (("text", "label"), ("a", "x"), ("b", 1.5), (None, True), ("=1+1", "y")):
        book.active.append(row)
    book.create_sheet("second")
    book.save(file)
    with zipfile.ZipFile(file) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files.setdefault("xl/sharedStrings.xml", b'<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"/>')
    return files


def sheets() -> list[bytes]:
    """One file of a workbook each; the first byte says which."""
    files = workbook()
    cells = b'<row r="2"><c r="A2" t="inlineStr"><is><t>x</t></is></c>'
    cells += b'<c r="B2" t="d"><v>2024-01-01</v></c><c t="e"><v>#N/A</v></c></row>'
    more = files[SHEET_FILES[0]].replace(b"</sheetData>", cells + b"</sheetData>")
    return [bytes([i]) + files[name] for i, name in enumerate(SHEET_FILES) if name in files] + [b"\x00" + more]


def pickles() -> list[bytes]:
    plain: list[Any] = [ROWS, {"text": ["a", "b"], "label": [0, 1]}, [{"text": "a", "label": None}], ["a", "b"], [1.5, 2**70, b"x"]]
    return [pickle.dumps(value, protocol=protocol) for value in plain for protocol in (0, 2, 4, 5)] + [
        path.read_bytes() for path in sorted(PICKLES.glob("*.pkl"))[::3]
    ]


def settings() -> list[bytes]:
    import loralab.config.recipes as recipes
    from loralab.config.loading import Config

    files = [file.read_bytes() for file in sorted(Path(recipes.__path__[0]).glob("*.yaml"))]
    odd = [
        "lora.rank: 8\nseed: 3\n",
        "data: {source: rows.csv, classes: [a, b], text: [a]}\n",
        "a: &x [1]\nb: *x\n",
        "!!python/none\n",
    ]
    return [*files, Config().to_yaml().encode(), *(text.encode() for text in odd)]


def overrides() -> list[bytes]:
    assignments = (
        "lora.rank=4 data.text=title,body train.learning_rate=1e-4 data.classes=[a,b] model.base=minilm data.delimiter=tab"
    )
    assignments += " train.class_weights={a:2} lora.layers=top2 data.test=0.2 train.monitor=f1:x seed=-1 data.template='{}'"
    words = assignments.split()
    return [word.encode() for word in words] + [b"\n".join(word.encode() for word in words[:4])]


def texts() -> list[bytes]:
    """Texts to clean."""
    samples = [
        "He said #39;no#39; &amp; left\\band",
        "see www.a.org/b, (https://x.y/z?q=1) <b>now</b>",
        "C:\\new\\temp \\nIt \\u00e9 <a href='x'>",
    ]
    return [sample.encode() for sample in [*samples, "&#x1F600; &lt;i&gt; quot; #151;", "a\u2028b\u0000\ud7ff\u200b"]]


def submissions() -> list[bytes]:
    return [b"id,label\n1,World\n2,Sports\n", b"\x01id;label\n1;0\n2;1\n", b"id,World,Sports\n1,0.5,0.5\n", b"label,id\nWorld,1\n"]


def labels() -> list[bytes]:
    return [
        b"text,label,row,suggested,time\na,x,0,,2024-01-01T00:00:00\n",
        b'text,label,row,suggested,time\n"a\nb",x,3,y,t\n"cut',
        b"",
    ]


def requests() -> list[bytes]:
    """Bodies of requests. The first byte chooses the method and the path."""
    bodies: list[Any] = [
        {"input": "Oil slips"},
        {"model": "news", "input": ["a", "b"], "top_k": 2, "threshold": 0.1, "abstain_below": 0.9, "explain": True},
        {"input": [["a", "b"]]},
        {"inputs": [["a"], ["b", "c"]], "raw_scores": True, "truncate": False},
        {"text": "a", "label": "World", "model": "news"},
        {"model": "../news"},
        {"text": "a", "model": "news", "count": 3},
        {"file": "FILE", "text": ["text"], "model": "news", "abstain_below": 0.5},
        {"file": "FILE", "text": ["text"], "name": "rows.csv", "classes": ["a", "b"], "strategy": "entropy", "model": ""},
        {"row": 0, "label": "a"},
        {"run": "news"},
    ]
    seeds = [bytes([path]) + json.dumps(body).encode() for path in range(10) for body in bodies[path // 2 :: 3]]
    return [*seeds, b"\x08text,label\na,x\n", b'\x09{"row": 0, "label": "a"}', b"\x0a?run=news", b"\x0b?first=news&second=news"]
