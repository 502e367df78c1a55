"""The settings file that `loralab init` writes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from loralab.config import Config
from loralab.config.yaml_core import parse_yaml
from loralab.data.validate import DataReport

MAX_CLASSES = 20


def settings_file(source: str, test: str | None, reports: Sequence[DataReport], config: Config, target: Path) -> str:
    """Return commented YAML for a data source. `config` holds the settings that are used without the file."""
    train = reports[0]
    data, model, lora, training = config.data, config.model, config.lora, config.train
    classes = ", ".join(f"{name} {rows:,}" for name, rows in [*train.classes.items()][:MAX_CLASSES])
    more = f" and {len(train.classes) - MAX_CLASSES:,} more" if len(train.classes) > MAX_CLASSES else ""
    numbered = all(name.isdecimal() for name in train.classes)
    names = [f"name of {name}" for name in train.classes] if numbered else [*train.classes]
    if test:
        test_line = f"test: {_scalar(test)}  # test rows: {reports[1].rows:,}"
    elif len(reports) > 1:
        test_line = f"# test: {_scalar(str(reports[1].path))}  # the source's own test rows: {reports[1].rows:,}"
    else:
        test_line = "test: 0.2  # fraction (or number) of rows held out for the test scores, or a file"
    command = shlex.quote(str(target))
    options = f" --test {shlex.quote(test)}" if test else ""
    notes = {
        "loralab settings": "list every setting with its meaning",
        f"loralab config show {command}": "show all settings of this file, defaults included",
        f"loralab check {shlex.quote(source)}{options}": "validate the data",
        f"loralab train {command}": "train, test and write a report",
        f"loralab train {command} train.epochs=8 --name longer": "change a setting",
    }
    width = max(map(len, notes))
    header = "\n".join(f"#   {line:<{width}}  {meaning}" for line, meaning in notes.items())
    return f"""# Settings for {source}, from `loralab init`. Settings that are not here keep their defaults.
{header}

data:
  source: {_scalar(source)}  # rows: {train.rows:,}
  text: {_list(train.columns.text)}
  label: {_scalar(train.columns.label or "")}
  # rows per class: {classes}{more}
  {"# classes: " + _list(names) + "  # in the order of the numbers" if numbered else "classes: " + _list(names)}
  {test_line}
  validation: {data.validation}  # fraction of the other rows, to choose the best weights
  max_length: {data.max_length}  # tokens per text; words per text: median {train.words[0]}, 95 % up to {train.words[1]}
  clean: {_list(data.clean)}  # cleaning steps: escapes, html, urls, whitespace

model:
  base: {_scalar(model.base)}  # or a Hugging Face model such as roberta-base

lora:
  rank: {lora.rank}
  alpha: {lora.alpha:g}
  dropout: {lora.dropout:g}
  targets: {_list(lora.targets)}  # query, key, value, output, ffn_in, ffn_out, or all
  # max_trainable: 1000000  # refuse to train more parameters

train:
  epochs: {training.epochs:g}
  batch_size: {training.batch_size}
  learning_rate: {training.learning_rate:g}
  label_smoothing: {training.label_smoothing:g}
  head_init: {training.head_init}  # start the head from a logistic regression on the training rows
  monitor: {training.monitor}  # validation score that chooses the best weights, such as accuracy or macro_f1
  # patience: 3  # stop after this many evaluations without improvement
  # class_weights: balanced  # for classes of different sizes
"""


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_scalar, values))}]"


def _scalar(value: str) -> str:
    """Return text as a YAML scalar, quoted unless it is plain text in a flow list too."""
    plain = re.fullmatch(r"[A-Za-z0-9_./\\-]+( [A-Za-z0-9_./\\-]+)*", value) and not value.startswith("-")
    return value if plain and parse_yaml(value) == value else json.dumps(value, ensure_ascii=False)
