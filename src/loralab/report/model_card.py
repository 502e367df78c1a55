"""The model card: README.md in the Hugging Face format, to publish with the model."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from loralab.config.loading import NAMED_SOURCES
from loralab.report.formatting import capitalize, format_score, format_value, one_line
from loralab.report.run_data import SCORE_LABELS, RunData

_HUB_IDS = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_PATH_SETTINGS = ("data.source", "data.test", "data.validation", "data.train_indices")


def model_card(run: RunData, files: frozenset[str]) -> str:
    """Return the card, without local paths. `files`: names in the model folder. Raises ValueError for metadata the hub refuses."""
    body = "\n".join([*_summary(run), *_training(run), *_scores(run), *_limits(run), *_usage(run, files)])
    return str(ModelCard(f"---\n{_metadata(run).to_yaml()}\n---\n\n{body}\n"))  # parses the metadata back: invalid ones raise


def hub_id(base: str) -> str | None:
    """Return the hub id of a base; None for a local folder, whose path stays private."""
    known = _HUB_IDS.get(base, base)
    return known if _HUB_ID.fullmatch(known) and not Path(base).exists() else None


def data_name(source: str) -> str:
    """Return a data source's name without its folders."""
    return source if source in NAMED_SOURCES else _printable(Path(source).name)


def _metadata(run: RunData) -> ModelCardData:
    source, results = data_name(run.config.data.source), None
    task: dict[str, Any] = {"task_type": "text-classification", "task_name": "Text classification"}
    task |= {"dataset_type": source, "dataset_name": source, "dataset_split": "test"}
    if run.result:
        absent = sum(row["f1"] is None for row in run.per_class())
        subset = f" over {len(run.classes) - absent} of {len(run.classes)} classes" if absent else ""
        metrics = (("accuracy", "Test accuracy", "accuracy"), ("f1", f"Test macro F1{subset}", "macro_f1"))
        values = [(kind, label, round(run.result.scores[score], 4)) for kind, label, score in metrics]
        results = [EvalResult(**task, metric_type=kind, metric_name=label, metric_value=value) for kind, label, value in values]
    return ModelCardData(
        library_name="loralab",
        pipeline_tag="text-classification",
        base_model=hub_id(run.config.model.base),
        tags=["loralab", "text-classification", *(["lora", "peft"] if run.config.tuning == "lora" else [])],
        metrics=["accuracy", "f1"],
        model_name=_printable(run.name),
        eval_results=results,
    )


def _summary(run: RunData) -> Iterator[str]:
    config, parameters = run.config, run.parameters()
    hub = hub_id(config.model.base)
    base = f"[{hub}](https://huggingface.co/{hub})" if hub else "a local checkpoint"
    tuning = {"lora": "a LoRA adapter for", "full": "full fine-tuning of", "head": "a classification head on"}[config.tuning]
    yield f"# {_escape(run.name)}\n"
    yield f"A text classifier: {tuning} {base}, trained with loralab on `{_escape(data_name(config.data.source))}`."
    yield f"It distinguishes {len(run.classes)} classes: {', '.join(_escape(name) for name in run.classes)}.\n"
    if run.result and run.test_rows:
        low, high = run.accuracy_interval()
        accuracy = run.result.scores["accuracy"]
        yield f"**Accuracy on {run.test_rows:,} test rows: {accuracy:.1%}** (95 % CI {low:.1%} to {high:.1%}).\n"
    if not run.result:
        yield "The run is not complete: there are no test scores.\n"
    if parameters:
        yield "| parameters | |\n| --- | ---: |"
        for name, value in parameters.items():
            yield f"| {name} | {f'{value:.2%}' if name == 'share' else f'{value:,}'} |"
        yield ""


def _training(run: RunData) -> Iterator[str]:
    result = run.result
    yield "## Training\n"
    if result:
        rows = ", ".join(f"{facts['count']:,} {part}" for part, facts in run.environment.get("rows", {}).items())
        stopped = " (stopped early)" if result.stopped_early else ""
        yield f"Trained for {result.steps:,} steps{stopped} in {result.seconds:,.0f} s. The checkpoint of step {result.best_step:,}"
        yield f"had the best {_escape(run.config.train.monitor)} on the validation rows. Rows: {rows or 'unknown'}.\n"
    yield "Settings that differ from loralab's defaults:\n\n| setting | value |\n| --- | --- |"
    for row in run.settings():
        if row.changed and row.name not in ("model.base", "name"):
            value = data_name(str(row.value)) if row.name in _PATH_SETTINGS else format_value(row.value)
            yield f"| {row.name} | {_escape(value)} |"
    yield ""


def _scores(run: RunData) -> Iterator[str]:
    result = run.result
    if not result:
        return
    yield f"## Scores\n\n{run.test_rows:,} test rows, used neither for training nor for choosing the checkpoint.\n"
    yield "| score | test | validation |\n| --- | ---: | ---: |"
    for name, label in SCORE_LABELS.items():
        if name in result.scores:
            validation = f"{result.validation[name]:.4f}" if name in result.validation else ""
            yield f"| {label} | {result.scores[name]:.4f} | {validation} |"
    yield "\n| class | precision | recall | F1 | test rows |\n| --- | ---: | ---: | ---: | ---: |"
    for row in run.per_class():
        values = " | ".join(format_score(row[kind]) for kind in ("precision", "recall", "f1"))
        yield f"| {_escape(row['class'])} | {values} | {row['true']:,.0f} |"
    if remark := run.macro_remark():
        yield f"\n{_escape(capitalize(remark))}."
    yield ""


def _limits(run: RunData) -> Iterator[str]:
    yield "## Limitations\n"
    length = run.model.get("max_length", run.config.data.max_length)  # an encoder can read less than the setting
    yield f"- The model reads the first {length} tokens of a text and always predicts one of its classes."
    yield "- The scores apply to texts like the test rows. Other sources, periods and styles were not tested."
    if run.result and run.result.validation:
        yield "- The validation rows chose the checkpoint, so the validation scores are optimistic. The test scores are not."
    if run.result and run.result.temperature:
        yield f"- Logits are divided by a temperature of {run.result.temperature:.3f}, fitted on the validation rows."
    if run.predictions and (pairs := run.predictions.class_pairs(3)):
        listed = "; ".join(f"{_escape(p.true)} predicted as {_escape(p.predicted)} ({p.rows:,} rows)" for p in pairs)
        yield f"- Most frequent confusions: {listed}."
    yield ""


def _usage(run: RunData, files: frozenset[str]) -> Iterator[str]:
    classes, base = len(run.classes), hub_id(run.config.model.base) or "PATH/OF/THE/BASE"
    yield "## Usage\n\nWith loralab, which applies cleaning, tokenizer, temperature and class names:\n"
    yield '```python\nfrom loralab import Classifier\n\nprint(Classifier.load("model").predict(["a text"]).labels)\n```\n'
    if "adapter_config.json" not in files:
        return
    separate_head = "head.safetensors" in files  # peft has no place for loralab's own head: the example applies it
    if separate_head and run.model.get("head") != "linear":
        yield "peft loads the adapter in `model` into the encoder. The head is in `model/head.safetensors`."
        return
    yield "With peft, without cleaning and temperature (`model` is the folder next to this card):\n"
    auto_class = "AutoModel" if separate_head else "AutoModelForSequenceClassification"
    num_labels = "" if separate_head else f", num_labels={classes}"
    yield "```python\nimport torch\nfrom peft import PeftModel"
    if separate_head:
        yield "from safetensors.torch import load_file"
    yield f"from transformers import {auto_class}, PreTrainedTokenizerFast\n"
    yield 'tokenizer = PreTrainedTokenizerFast(tokenizer_file="model/tokenizer.json")'
    yield f'base = {auto_class}.from_pretrained("{base}"{num_labels})'
    yield 'model = PeftModel.from_pretrained(base, "model").eval()'
    yield 'tokens = tokenizer("a text", return_tensors="pt", return_token_type_ids=False)\nwith torch.no_grad():'
    if separate_head:
        mean = run.model.get("pooling") == "mean"
        yield f"    pooled = model(**tokens).last_hidden_state{'.mean(dim=1)' if mean else '[:, 0]'}"
        yield '    head = load_file("model/head.safetensors")'
        yield '    logits = pooled @ head["head.out.weight"].T + head["head.out.bias"]'
    else:
        yield "    logits = model(**tokens).logits"
    yield "print(logits.softmax(dim=-1))\n```"


def _escape(text: str) -> str:
    """Return data as inert Markdown text: no table cell, tag or code span begins in it."""
    plain = html.escape(_printable(one_line(text)), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
