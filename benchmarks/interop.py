"""Agreement of ten bases in four export forms with other libraries: python -m benchmarks.interop

Every base is trained for a few steps and opened by peft, Transformers' pipeline and ONNX Runtime in processes without loralab, and
by loralab. A cell is the largest difference of a logit, or the reason why the form is refused. Writes docs/reference/interop.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks.tiny_bases import TOKENIZERS, make_base
from loralab import Classifier, LoralabError, load_config
from loralab.config import DataConfig
from loralab.data.sources import load_source
from loralab.inference import outside
from loralab.inference.export import export_run
from loralab.inference.outside import HARD_TEXTS
from loralab.metrics import softmax
from loralab.model.manifest import read_manifest
from loralab.pipeline import run_training
from loralab.storage.run_folder import SCORES
from loralab.storage.sealed import read_sealed, record_files, write_sealed

BASES = ("minilm", *TOKENIZERS)
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "interop.md"
ROWS, STEPS, TEXTS = 300, 20, 40
COLUMNS = (
    ("RUN/model", "peft"),
    ("RUN/model", "pipeline"),
    ("--to peft", "peft"),
    ("--to peft", "pipeline"),
    ("--to peft", "loralab"),
    ("--to merged", "pipeline"),
    ("--to merged", "loralab"),
    ("--to onnx", "ONNX Runtime"),
    ("--to onnx", "loralab"),
)
LIMIT, TEMPERATURE = 1e-4, 0.5
SPREAD = ("standard deviation", "of the logits")
NO_WEIGHTS = "no file named model.safetensors"
"""What Transformers says of a folder that has an adapter and no weights."""
REASONS = {
    NO_WEIGHTS: "An adapter is not a whole model: `pipeline` stops with *no file named model.safetensors*. Use `--to merged`.",
}


def train(name: str, folder: Path, *settings: str) -> Path:
    """Train one run on the sample and return its folder."""
    texts = list(load_source(DataConfig(source="sample")).train.texts)
    base = name if name == "minilm" else str(make_base(name, folder / "base", texts))
    shared = ["train.precision=fp32", "train.learning_rate=0.003", "lora.dropout=0.1", "lora.targets=all", "train.threads=1"]
    rows = [f"data.max_train_samples={ROWS}", "data.max_test_samples=60", f"train.max_steps={STEPS}"]
    run = run_training(load_config("sample", [f"model.base={base}", *shared, *rows, *settings]), name="run", folder=folder).folder
    manifest = read_manifest(run / "model")
    if name != "minilm":  # a random encoder hardly learns, and its temperature would make all logits of its exports small
        replace(manifest, temperature=TEMPERATURE).write(run / "model")
        scores = read_sealed(run / SCORES, "measure again")
        write_sealed(run / SCORES, scores.content, record_files(run, scores.files))
    return run


def agreement(name: str, folder: Path, settings: Sequence[str] = ()) -> dict[tuple[str, str], str]:
    """Return the cells of one base by form and consumer. One process opens all forms, after loralab's own checks."""
    run = train(name, folder, *settings)
    classifier = Classifier.load(run, precision="fp32")
    manifest = classifier.manifest
    texts = [*HARD_TEXTS, *load_source(DataConfig(source="sample")).test.texts[:TEXTS]]
    raw = classifier.logits(texts)
    logits, base = raw / manifest.temperature, manifest.base_folder
    jobs = {
        ("RUN/model", "peft"): outside.job("peft", run / "model", manifest, base),
        ("RUN/model", "pipeline"): outside.job("pipeline", run / "model", manifest),
    }
    cells = {SPREAD: f"{logits.std(axis=0).mean():.2f}"}
    for form, consumers in {"peft": ("peft", "pipeline"), "merged": ("pipeline",), "onnx": ("ONNX Runtime",)}.items():
        try:
            with mock.patch.object(outside, "missing_packages", return_value=["a process of its own"]):
                exported = export_run(run, form).folder
        except LoralabError as error:
            cells |= {column: f"refused: {error}" for column in COLUMNS if column[0] == f"--to {form}"}
            continue
        for consumer in consumers:
            kind = {"ONNX Runtime": "onnx"}.get(consumer, consumer)
            jobs[f"--to {form}", consumer] = outside.job(kind, exported, manifest, base, base if kind == "onnx" else "")
        ours = Classifier.load(exported, precision="fp32").logits(texts)
        cells[f"--to {form}", "loralab"] = _cell(float(np.abs(ours - logits).max()))
    for column, found in zip(jobs, outside.run_jobs(list(jobs.values()), texts), strict=True):
        if isinstance(found, str):
            cells[column] = f"refused: {found}"
        elif column[1] == "pipeline":  # it returns probabilities
            cells[column] = _cell(float(np.abs(np.exp(found) - softmax(logits)).max()))
        else:
            cells[column] = _cell(float(np.abs(found - (raw if column[0] == "RUN/model" else logits)).max()))
    return cells


def _cell(difference: float) -> str:
    return f"{difference:.0e}" if difference <= LIMIT else f"**{difference:.0e}**"


def page(rows: dict[str, dict[tuple[str, str], str]], command: str) -> str:
    """Return the page with the table, its notes, and how it was made."""
    notes: list[str] = []

    def shown(cell: str) -> str:
        if not cell.startswith("refused: "):
            return cell.replace("0e+00", "0")
        reason = next((text for key, text in REASONS.items() if key in cell), cell.removeprefix("refused: "))
        if reason not in notes:
            notes.append(reason)
        return f"refused ({notes.index(reason) + 1})"

    columns = (SPREAD, *COLUMNS)
    body = [f"| {name} | " + " | ".join(shown(cells[column]) for column in columns) + " |" for name, cells in rows.items()]
    head = f"| base | {' '.join(SPREAD)} | " + " | ".join(f"`{form}` in {consumer}" for form, consumer in COLUMNS) + " |"
    packages = ("torch", "transformers", "peft", "onnxruntime", "tokenizers")
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    lines = [
        "# Agreement with other libraries",
        "",
        "Each cell is the largest difference between a logit (in a pipeline: a probability) of loralab and of another library over "
        f"{len(HARD_TEXTS) + TEXTS} texts: cased, accented, empty, long, with emoji, and headlines. The library runs in a process "
        "without loralab, in batches of 1 and 5. *refused* is an error, never another answer.",
        "",
        "Logits of exports include the run's temperature. Those of `RUN/model` do not.",
        "",
        head,
        "| --- |" + " ---: |" * len(columns),
        *body,
        "",
        *(f"{i}. {note}" for i, note in enumerate(notes, 1)),
        "",
        f"`minilm` is the installed encoder, with mean pooling and a linear head. The others are random, {_size()}, each with a "
        "tokenizer of its own class and kind: WordPiece, byte-level BPE or Unigram. ONNX Runtime gets everything that the base's "
        f"own tokenizer makes, `token_type_ids` included. The temperature of random bases is set to {TEMPERATURE}.",
        "",
        f"Made with `{command}` ({versions}; Python {platform.python_version()}).",
        "",
    ]
    return "\n".join(lines)


def read_cells(path: Path) -> dict[str, dict[tuple[str, str], str]]:
    """Read the cells of measured bases."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: {(form, consumer): cell for form, consumer, cell in cells} for name, cells in content.items()}


def write_cells(path: Path, rows: dict[str, dict[tuple[str, str], str]]) -> None:
    """Write them."""
    content = {name: [[*column, cell] for column, cell in cells.items()] for name, cells in rows.items()}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _size() -> str:
    from benchmarks.tiny_bases import LAYERS, WIDTH

    return f"with {LAYERS} layers of width {WIDTH}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interop", description=__doc__)
    parser.add_argument("bases", nargs="*", metavar="BASE", help=f"default: {', '.join(BASES)}")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page to write")
    parser.add_argument("--cells", type=Path, help="a JSON file that keeps measured bases: they are not measured again")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = read_cells(options.cells) if options.cells and options.cells.is_file() else {}
    for name in options.bases or BASES:
        if name in rows:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = agreement(name, Path(folder))
        print(name, *(f"{form} {consumer}: {rows[name][form, consumer]}" for form, consumer in COLUMNS), sep="\n  ", flush=True)
        if options.cells:
            write_cells(options.cells, rows)
    rows = {name: rows[name] for name in BASES if name in rows}
    options.out.write_text(page(rows, "python -m benchmarks.interop"), encoding="utf-8")
    print(f"written     {options.out}")


if __name__ == "__main__":
    main()
