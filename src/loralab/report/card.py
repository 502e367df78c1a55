"""Rows → a model card: README.md in the Hugging Face hub's format, to be published with the model."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loralab.config.loading import NAMED_SOURCES
from loralab.report.tables import LABELS, OVERALL, RunTables, one_line
from loralab.report.texts import format_value

_HUB_IDS = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def model_card(tables: RunTables, files: frozenset[str]) -> str:
    """Return the card. `files`: the names inside the run's model folder, which decide how it is loaded.

    Its scores are the measured ones on the test rows; no path of this machine is in it.
    """
    front = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in _front_matter(tables).items()]  # JSON is YAML
    body = [*_about(tables), *_training(tables), *_scores(tables), *_limits(tables), *_use(tables, files)]
    return "\n".join(["---", *front, "---", "", *body]) + "\n"


def base_on_the_hub(base: str) -> str | None:
    """The hub id of a base; None for a folder, whose path is nobody else's concern."""
    known = _HUB_IDS.get(base, base)
    return known if _HUB_ID.fullmatch(known) and not Path(base).exists() else None


def data_name(source: str) -> str:
    """A source's name without the folders before it."""
    return source if source in NAMED_SOURCES else _printable(Path(source).name)


def _front_matter(tables: RunTables) -> dict[str, Any]:
    found: dict[str, Any] = {"library_name": "loralab", "pipeline_tag": "text-classification"}
    if hub := base_on_the_hub(tables.config.model.base):
        found["base_model"] = hub
    found["tags"] = ["loralab", "text-classification", *(["lora", "peft"] if tables.config.tuning == "lora" else [])]
    found["metrics"] = ["accuracy", "f1"]
    if tables.result:
        scores, source = tables.result.scores, data_name(tables.config.data.source)
        measured = [
            {"type": "accuracy", "name": "Test accuracy", "value": round(scores["accuracy"], 4)},
            {"type": "f1", "name": "Test macro F1", "value": round(scores["macro_f1"], 4)},
        ]
        task = {"type": "text-classification", "name": "Text classification"}
        result = {"task": task, "dataset": {"name": source, "type": source, "split": "test"}, "metrics": measured}
        found["model-index"] = [{"name": _printable(tables.name), "results": [result]}]
    return found


def _about(tables: RunTables) -> Iterator[str]:
    config, counts = tables.config, tables.counts()
    hub = base_on_the_hub(config.model.base)
    base = f"[{hub}](https://huggingface.co/{hub})" if hub else "a checkpoint of the author's own"
    how = {"lora": "a LoRA adapter on", "full": "all weights of", "head": "a classification head on"}[config.tuning]
    yield f"# {_cell(tables.name)}\n"
    yield f"A text classifier: {how} {base}, trained with loralab on the data `{_cell(data_name(config.data.source))}`."
    yield f"It tells {len(tables.classes)} classes apart: {', '.join(_cell(name) for name in tables.classes)}.\n"
    if tables.result and tables.test_rows:
        low, high = tables.interval()
        share = tables.result.scores["accuracy"]
        yield f"**Accuracy on {tables.test_rows:,} test rows: {share:.1%}** (95 % interval {low:.1%} to {high:.1%}).\n"
    if not tables.result:
        yield "The run is not complete: there are no test scores.\n"
    if counts:
        yield "| parameters | |\n| --- | ---: |"
        for name, value in counts.items():
            yield f"| {name} | {f'{value:.2%}' if name == 'share' else f'{value:,}'} |"
        yield ""


def _training(tables: RunTables) -> Iterator[str]:
    result = tables.result
    yield "## How it was trained\n"
    if result:
        rows = ", ".join(f"{facts['count']:,} {part}" for part, facts in tables.environment.get("rows", {}).items())
        stopped = ", stopped early," if result.stopped_early else ""
        yield f"{result.steps:,} steps{stopped} in {result.seconds:,.0f} s; the weights are those of step {result.best_step:,},"
        yield f"the best on the validation rows by {_cell(tables.config.train.monitor)}. Rows: {rows or 'not known'}.\n"
    yield "Settings that differ from loralab's defaults:\n\n| setting | value |\n| --- | --- |"
    for row in tables.settings():
        if row.changed and row.name not in ("model.base", "name"):
            yield f"| {row.name} | {_cell(data_name(str(row.value)) if row.name in _PATHS else format_value(row.value))} |"
    yield ""


_PATHS = ("data.source", "data.test", "data.validation", "data.train_indices")


def _scores(tables: RunTables) -> Iterator[str]:
    result = tables.result
    if not result:
        return
    yield f"## Scores\n\nOn {tables.test_rows:,} test rows, which neither training nor the choice of weights has seen.\n"
    yield "| score | test | validation |\n| --- | ---: | ---: |"
    for name in OVERALL:
        if name in result.scores:
            validation = f"{result.validation[name]:.4f}" if name in result.validation else ""
            yield f"| {LABELS[name]} | {result.scores[name]:.4f} | {validation} |"
    yield "\n| class | precision | recall | F1 | test rows |\n| --- | ---: | ---: | ---: | ---: |"
    for row in tables.per_class():
        values = " | ".join(f"{row[kind]:.4f}" for kind in ("precision", "recall", "f1"))
        yield f"| {_cell(row['class'])} | {values} | {row['true']:,.0f} |"
    yield ""


def _limits(tables: RunTables) -> Iterator[str]:
    longest = tables.config.data.max_length
    yield "## Limits\n"
    yield f"- It reads the first {longest} tokens of a text. It always answers with one of its classes, whatever the text is about."
    yield "- The scores hold for texts like the test rows; other sources, times or styles were not tried."
    if tables.result and tables.result.validation:
        yield "- The validation scores chose the weights and are therefore a little too good; the test scores are not."
    if tables.result and tables.result.temperature:
        yield f"- Its probabilities are divided by a temperature of {tables.result.temperature:.3f}, fitted on the validation rows."
    if tables.predictions and (pairs := tables.predictions.pairs(3)):
        said = "; ".join(f"{_cell(p.true)} for {_cell(p.predicted)} ({p.rows:,} rows)" for p in pairs)
        yield f"- Most often it mistakes {said}."
    yield ""


def _use(tables: RunTables, files: frozenset[str]) -> Iterator[str]:
    classes, base = len(tables.classes), base_on_the_hub(tables.config.model.base) or "PATH/OF/THE/BASE"
    yield "## How to use it\n\nWith loralab, which keeps class names, cleaning, temperature and tokenizer together:\n"
    yield '```python\nfrom loralab import Classifier\n\nprint(Classifier.load("model").predict(["a text"]).labels)\n```\n'
    if "adapter_config.json" not in files:
        return
    bare = "head.safetensors" in files  # peft has no place for our head: it is applied by hand
    if bare and tables.model.get("head") != "linear":
        yield "peft opens the adapter in `model` for the bare encoder; the head lies beside it in `head.safetensors`."
        return
    yield "With peft, which knows neither the cleaning nor the temperature (`model` is the folder of that name beside this card):\n"
    kind = "AutoModel" if bare else "AutoModelForSequenceClassification"
    number = "" if bare else f", num_labels={classes}"
    yield "```python"
    yield "import torch"
    yield "from peft import PeftModel"
    if bare:
        yield "from safetensors.torch import load_file"
    yield f"from transformers import {kind}, PreTrainedTokenizerFast\n"
    yield 'tokenizer = PreTrainedTokenizerFast(tokenizer_file="model/tokenizer.json")'
    yield f'base = {kind}.from_pretrained("{base}"{number})'
    yield 'network = PeftModel.from_pretrained(base, "model").eval()'
    yield 'tokens = tokenizer("a text", return_tensors="pt", return_token_type_ids=False)'
    yield "with torch.no_grad():"
    if bare:
        mean = tables.model.get("pooling") == "mean"
        yield f"    pooled = network(**tokens).last_hidden_state{'.mean(dim=1)' if mean else '[:, 0]'}"
        yield '    head = load_file("model/head.safetensors")'
        yield '    logits = pooled @ head["head.out.weight"].T + head["head.out.bias"]'
    else:
        yield "    logits = network(**tokens).logits"
    yield "print(logits.softmax(dim=-1))\n```"


def _cell(text: str) -> str:
    """Data as Markdown text: no table cell, tag or code begins in it."""
    plain = html.escape(_printable(one_line(text)), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
