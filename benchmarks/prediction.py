"""Prediction speed: loralab with each backend, against transformers.pipeline and plain ONNX Runtime.

    python -m benchmarks.prediction [--texts 1000] [--rows 480] [--repeats 3] [--data FILE] [--test FILE]

A small run is trained first, and exported as merged weights, ONNX and 8-bit ONNX. Ways: loralab with default settings
(`Classifier.predict`), and in fp32, bf16, ONNX and 8-bit ONNX; pipeline with the merged weights in fp32 and bf16, with the best
batch size of 1, 8 and 32; onnxruntime with batches of 32 in the given order, padded to their longest text. Every way gets texts and
returns class names. Those of fp32 must agree except for ties, all others on 99 % of the texts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import measure, ways
from loralab import Classifier
from loralab.config import DataConfig
from loralab.data.sources import load_source, read_examples
from loralab.data.tokenize import load_tokenizer
from loralab.data.types import Examples
from loralab.errors import RunFailed
from loralab.inference.export import export_run
from loralab.model.manifest import Manifest

BATCHES = (1, 8, 32)
TIE = 1e-3  # of a logit
AGREEMENT = 0.99

Predict = Callable[[Sequence[str]], list[str]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=480, help="rows that the run is trained on")
    parser.add_argument("--repeats", type=int, default=3)


def run(options: argparse.Namespace) -> measure.Report:
    with tempfile.TemporaryDirectory() as name:
        run_folder = ways.trained_run(options, Path(name), options.rows)
        examples, held_out = rows_to_classify(options)
        predictors, remarks = load_ways(run_folder)
        plain = Classifier.load(run_folder, precision="fp32", backend="native")
        logits = plain.logits(examples.texts)
        labels: dict[str, list[str]] = {}

        def timed(way: str, predict: Predict) -> float:
            began = time.perf_counter()
            labels[way] = predict(examples.texts)
            return len(examples) / (time.perf_counter() - began)

        timings = {way: partial(timed, way, predict) for way, predict in predictors.items()}
        values = measure.alternate(timings, options.repeats, lambda rate: f"{rate:8.1f} texts/s")
    values, best = best_batches(values)
    labels = {way: labels[best.get(way, way)] for way in values}
    expected = [plain.classes[i] for i in logits.argmax(axis=1)]
    columns = {"agreement": {way: agreement(predicted, expected) for way, predicted in labels.items()}}
    if held_out:
        truth = [plain.classes[i] for i in examples.require_labels()]
        columns["accuracy"] = {way: agreement(predicted, truth) for way, predicted in labels.items()}
    remarks += [f"{way}: the best batch size is {chosen.rpartition(' ')[2]}" for way, chosen in best.items()]
    facts = {"texts": len(examples), "mean characters": float(np.mean([*map(len, examples.texts)]))}
    failures = disagreements(labels, expected, logits)
    return measure.Report("texts/s", values, ("pipeline fp32", "pipeline bf16", "onnxruntime"), columns, facts, failures, remarks)


def rows_to_classify(options: argparse.Namespace) -> tuple[Examples, bool]:
    """Return --texts rows of --test, the data's test rows or the data, repeated if necessary; and whether they are test rows."""
    source = load_source(DataConfig(source=str(options.data)))
    if options.test:
        examples, _ = read_examples(Path(options.test), DataConfig(), source.classes)
    else:
        examples = source.test or source.train
    drawn = ways.draw(examples, options.texts)
    return drawn.take(np.resize(np.arange(len(drawn)), options.texts)), bool(options.test or source.test)


def load_ways(run_folder: Path) -> tuple[dict[str, Predict], list[str]]:
    """Export the run. Return the predictors by name, and remarks on exports that failed."""
    remarks = []
    merged = export_run(run_folder, "merged").folder
    onnx = export_run(run_folder, "onnx").folder
    classifiers = {
        "loralab": Classifier.load(run_folder, backend="native"),
        "loralab fp32": Classifier.load(run_folder, precision="fp32", backend="native"),
        "loralab bf16": Classifier.load(run_folder, precision="bf16", backend="native"),
        "loralab onnx": Classifier.load(run_folder, backend="onnx"),
    }
    try:
        export_run(run_folder, "onnx-int8")
        classifiers["loralab onnx-int8"] = Classifier.load(run_folder, backend="onnx-int8")
    except RunFailed as error:
        remarks.append(f"no 8-bit export: {error}")

    def by_classifier(classifier: Classifier) -> Predict:
        return lambda texts: classifier.predict(texts).labels

    manifest = classifiers["loralab"].manifest
    predictors = {name: by_classifier(classifier) for name, classifier in classifiers.items()}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for batch in BATCHES:
            predictors[f"pipeline {name} {batch}"] = pipeline(merged, manifest, dtype, batch)
    return {**predictors, "onnxruntime": onnxruntime(onnx, manifest)}, remarks


def pipeline(merged: Path, manifest: Manifest, dtype: torch.dtype, batch: int) -> Predict:
    """Return transformers.pipeline, as in its documentation."""
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(merged, dtype=dtype)
    rust = load_tokenizer(merged, manifest.max_length)
    pad = rust.id_to_token(manifest.dims.pad_id)
    tokenizer: Any = transformers.PreTrainedTokenizerFast(tokenizer_object=rust, pad_token=pad)
    where = 0 if torch.cuda.is_available() else -1
    classify: Any = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device=where)
    return lambda texts: [
        result["label"] for result in classify(list(texts), batch_size=batch, truncation=True, max_length=manifest.max_length)
    ]


def onnxruntime(folder: Path, manifest: Manifest, batch: int = 32) -> Predict:
    """Return ONNX Runtime with the same tokenizer, on batches in the given order."""
    import onnxruntime as runtime

    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3
    session = runtime.InferenceSession(str(folder / "model.onnx"), settings, providers=["CPUExecutionProvider"])
    tokenizer = load_tokenizer(folder, manifest.max_length)
    tokenizer.enable_padding(pad_id=manifest.dims.pad_id)

    def predict(texts: Sequence[str]) -> list[str]:
        labels: list[str] = []
        for start in range(0, len(texts), batch):
            encodings = tokenizer.encode_batch(list(texts[start : start + batch]))
            inputs = {
                "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
                "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
            }
            (logits,) = session.run(["logits"], inputs)
            labels += [manifest.classes[i] for i in logits.argmax(axis=1)]
        return labels

    return predict


def best_batches(values: dict[str, list[float]]) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Replace the ways `NAME BATCH` by NAME with the best batch size. Return the values, and the way behind each NAME."""
    best: dict[str, str] = {}
    for way in values:
        name, _, batch = way.rpartition(" ")
        if batch.isdecimal() and (name not in best or np.median(values[way]) > np.median(values[best[name]])):
            best[name] = way
    others = {way: rates for way, rates in values.items() if not way.rpartition(" ")[2].isdecimal()}
    return {**others, **{name: values[way] for name, way in best.items()}}, best


def agreement(labels: Sequence[str], expected: Sequence[str]) -> float:
    return float(np.mean([a == b for a, b in zip(labels, expected, strict=True)]))


def disagreements(labels: dict[str, list[str]], expected: list[str], logits: Any) -> list[str]:
    """Return failures: differences of a way in fp32 without a tie, and of another way on more than 1 % of the texts."""
    highest = np.sort(logits, axis=1)
    clear = highest[:, -1] - highest[:, -2] > TIE
    wrong = []
    for way, predicted in labels.items():
        differs = np.array([a != b for a, b in zip(predicted, expected, strict=True)])
        exact = "fp32" in way or way in ("loralab onnx", "onnxruntime")
        if exact and (differs & clear).any():
            wrong.append(f"{way}: {int((differs & clear).sum())} labels differ from those of fp32")
        if not exact and differs.sum() > max(1, (1 - AGREEMENT) * len(expected)):
            wrong.append(f"{way}: only {1 - differs.mean():.1%} of the labels agree with fp32")
    return wrong


BENCHMARK = measure.Benchmark("prediction", __doc__ or "", add_options, run, {"texts": 24, "rows": 64, "repeats": 0})

if __name__ == "__main__":
    BENCHMARK.main()
