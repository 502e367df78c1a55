"""A run's plain-text files: the training log, the model description, and the table of metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from loralab.errors import visible
from loralab.report.formatting import format_value
from loralab.report.rendering import template_environment
from loralab.report.run_data import SCORE_LABELS, Evaluation, RunData, Step, thin_steps
from loralab.tables import csv_writer

MAX_LOG_STEPS = 200


def training_log(run: RunData) -> str:
    """Return the run as text: configuration, loss by step, evaluations, results. Long runs show means of several steps."""
    steps = thin_steps(run.steps, MAX_LOG_STEPS)
    rows: list[Step | Evaluation] = sorted([*steps, *run.evaluations], key=lambda row: row.step)  # an evaluation follows its step
    values: dict[str, Any] = {"run": run, "result": run.result, "rows": rows, "thinned": len(steps) < len(run.steps)}
    template = template_environment().get_template("training_log.txt.jinja")
    return visible(template.render(**values, score_labels=SCORE_LABELS, logged=dict.fromkeys((*SCORE_LABELS, *run.tracked))))


def model_description(run: RunData) -> dict[str, Any]:
    """Return the model as plain data: base, sizes, LoRA settings, parameter counts, classes, head, precision, device."""
    config, model, environment = run.config, run.model, run.environment
    base = environment.get("base") or {}
    sizes, pooling = model.get("dims") or {}, model.get("pooling", config.model.pooling)
    return {
        "run": run.name,
        "complete": run.result is not None,
        "base": {"name": config.model.base, **{key: base.get(key) for key in ("sha256", "revision")}},
        "sizes": {key: value for key, value in sizes.items() if isinstance(value, int | float | str)},
        "tuning": config.tuning,
        "lora": config.lora.model_dump(mode="json") if config.tuning == "lora" else None,
        "parameters": run.parameters() or None,
        "classes": [*run.classes],
        "pooling": f"mask token at position {pooling}" if isinstance(pooling, int) else pooling,
        "head": model.get("head", config.model.head),
        "max_length": config.data.max_length,
        "cleaning": [*config.data.clean],
        "temperature": run.result.temperature if run.result else None,
        "precision": environment.get("precision"),
        "device": environment.get("device"),
    }


def format_description(description: Mapping[str, Any]) -> str:
    """Return a model description as aligned lines."""
    lines = []
    for name, value in description.items():
        if isinstance(value, Mapping):
            lines.append(name)
            lines += [f"  {key:<20} {_format_fact(key, inner)}" for key, inner in value.items()]
        else:
            lines.append(f"{name:<22} {_format_fact(name, value)}")
    return visible("\n".join(lines) + "\n")


def write_metrics(run: RunData, file: IO[str]) -> None:
    """Write metrics.csv: one row per step (step 0 for a run without training); a cell without a measurement is empty.

    validation_NAME is a score of the evaluation at this step; process_mb and gpu_mb are the memory in use at it.
    """
    evaluations = {evaluation.step: evaluation for evaluation in run.evaluations}
    names = list(run.evaluations[-1].scores) if evaluations else []
    table = csv_writer(file)
    validation = [f"validation_{name}" for name in names]
    table.writerow(["step", "epoch", "learning_rate", "train_loss", *validation, "process_mb", "gpu_mb"])

    def measured(row: Evaluation | None) -> list[object]:
        return [*(row.scores.get(name) for name in names), row.process_mb, row.gpu_mb] if row else [None] * (len(names) + 2)

    for step in run.steps:
        row = evaluations.pop(step.step, None)
        table.writerow([step.step, f"{step.epoch:.6g}", f"{step.learning_rate:.6g}", f"{step.loss:.6g}", *measured(row)])
    for row in evaluations.values():
        table.writerow([row.step, f"{row.epoch:.6g}", row.learning_rate, None, *measured(row)])


def _format_fact(name: str, value: object) -> str:
    if name == "share" and isinstance(value, float):
        return f"{value:.4%}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else format_value(value)
