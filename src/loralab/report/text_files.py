"""A run's plain-text files: the training log, the model description, and the table of metrics."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from typing import IO, Any

from loralab.report.formatting import format_score, format_value, one_line
from loralab.report.run_data import SCORE_LABELS, Evaluation, RunData, thin_steps

MAX_LOG_STEPS = 200


def training_log(run: RunData) -> str:
    """Return the run as text: configuration, loss by step, evaluations, results. Long runs show means of several steps."""
    return "\n".join([*_configuration_lines(run), *_training_lines(run), *_result_lines(run)]) + "\n"


def model_description(run: RunData) -> dict[str, Any]:
    """Return the model as plain data: base, sizes, LoRA settings, parameter counts, classes, head, precision, device."""
    config, model, environment = run.config, run.model, run.environment
    sizes, pooling = model.get("dims") or {}, model.get("pooling", config.model.pooling)
    return {
        "run": run.name,
        "complete": run.result is not None,
        "base": {"name": config.model.base, "sha256": (environment.get("base") or {}).get("sha256")},
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
    return "\n".join(lines) + "\n"


def write_metrics(run: RunData, file: IO[str]) -> None:
    """Write metrics.csv: one row per step (step 0 for a run without training); a cell without a measurement is empty.

    validation_NAME is a score of the evaluation at this step; process_mb and gpu_mb are the memory in use at it.
    """
    evaluations = {evaluation.step: evaluation for evaluation in run.evaluations}
    names = list(run.evaluations[-1].scores) if evaluations else []
    table = csv.writer(file, lineterminator="\n")
    validation = [f"validation_{name}" for name in names]
    table.writerow(["step", "epoch", "learning_rate", "train_loss", *validation, "process_mb", "gpu_mb"])

    def measured(row: Evaluation | None) -> list[object]:
        return [*(row.scores.get(name) for name in names), row.process_mb, row.gpu_mb] if row else [None] * (len(names) + 2)

    for step in run.steps:
        row = evaluations.pop(step.step, None)
        table.writerow([step.step, f"{step.epoch:.6g}", f"{step.learning_rate:.6g}", f"{step.loss:.6g}", *measured(row)])
    for row in evaluations.values():
        table.writerow([row.step, f"{row.epoch:.6g}", row.learning_rate, None, *measured(row)])


def _configuration_lines(run: RunData) -> Iterator[str]:
    yield f"run {run.name}"
    yield "\nconfiguration (* differs from the default)"
    for row in run.settings():
        yield f"  {'*' if row.changed else ' '} {row.name:<30} {format_value(row.value)}"
    yield "\ndata"
    yield f"  classes  {', '.join(map(one_line, run.classes))}"
    for part, facts in run.environment.get("rows", {}).items():
        yield f"  {part:<10} {facts['count']:>9,} rows  fingerprint {facts['fingerprint']}"


def _training_lines(run: RunData) -> Iterator[str]:
    steps = thin_steps(run.steps, MAX_LOG_STEPS)
    yield "\ntraining" + (" (loss: mean since the previous line)" if len(steps) < len(run.steps) else "")
    yield f"  {'step':>7} {'epoch':>7} {'learning rate':>14} {'loss':>9}"
    lines = [(step.step, 0, f"  {step.step:>7} {step.epoch:>7.2f} {step.learning_rate:>14.3e} {step.loss:>9.4f}") for step in steps]
    lines += [(row.step, 1, _evaluation_line(row)) for row in run.evaluations]
    yield from (line for _, _, line in sorted(lines, key=lambda item: item[:2]))


def _evaluation_line(row: Evaluation) -> str:
    scores = "  ".join(f"{name} {row.scores[name]:.4f}" for name in SCORE_LABELS if name in row.scores)
    memory = f"  memory {row.process_mb:,.0f} MB" if row.process_mb is not None else ""
    memory += f", GPU {row.gpu_mb:,.0f} MB" if row.gpu_mb is not None else ""
    return f"  evaluation at step {row.step}: {scores}{'  best so far' if row.improved else ''}{memory}"


def _result_lines(run: RunData) -> Iterator[str]:
    yield "\nresults"
    result = run.result
    if result is None:
        yield "  the run is not complete"
        return
    stopped = ", stopped early" if result.stopped_early else ""
    yield f"  {result.steps} steps in {result.seconds:.1f} s ({result.samples_per_second:.1f} samples/s in training){stopped}"
    yield f"  checkpoint of step {result.best_step}"
    yield f"  {run.test_rows:,} test rows:"
    for name, label in SCORE_LABELS.items():
        if name in result.scores:
            yield f"    {label:<26} {result.scores[name]:.4f}"
    if result.temperature:
        calibrated = "  ".join(f"{name} {value:.4f}" for name, value in result.calibrated.items())
        yield f"  with temperature {result.temperature:.4f}, fitted on the validation rows: {calibrated}"
    yield f"    {'precision':>9} {'recall':>9} {'F1':>9} {'true':>8} {'predicted':>9}  class"
    for row in run.per_class():
        counts = f"{row['true']:>8,.0f} {row['predicted']:>9,.0f}"
        values = " ".join(f"{format_score(row[kind]):>9}" for kind in ("precision", "recall", "f1"))
        yield f"    {values} {counts}  {one_line(row['class'])}"
    if remark := run.macro_remark():
        yield f"  {one_line(remark)}"
    for name, value in run.parameters().items():
        yield f"  {name:<10} {f'{value:.4%}' if name == 'share' else f'{value:,}':>14}"


def _format_fact(name: str, value: object) -> str:
    if name == "share" and isinstance(value, float):
        return f"{value:.4%}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else format_value(value)
