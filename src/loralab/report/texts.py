"""Rows → the plain files: the training log as text, the model's description, the table of metrics."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

from loralab.report.tables import LABELS, OVERALL, Evaluation, RunTables, SettingRow, one_line, thin

MOST_LINES = 200


def training_log(tables: RunTables) -> str:
    """The run as text: configuration, loss by step, every evaluation, results. Long runs are thinned to means of several steps."""
    return "\n".join([*_configuration(tables), *_training(tables), *_results(tables)]) + "\n"


def description(tables: RunTables) -> dict[str, Any]:
    """What the model is, as plain data: base, sizes, LoRA settings, counts apart, classes, head, precision and device."""
    config, model = tables.config, tables.model
    environment = tables.environment
    sizes, pooling = model.get("dims") or {}, model.get("pooling", config.model.pooling)
    return {
        "run": tables.name,
        "complete": tables.result is not None,
        "base": {"name": config.model.base, "sha256": (environment.get("base") or {}).get("sha256")},
        "sizes": {key: value for key, value in sizes.items() if isinstance(value, int | float | str)},
        "tuning": config.tuning,
        "lora": config.lora.model_dump(mode="json") if config.tuning == "lora" else None,
        "parameters": tables.counts() or None,
        "classes": [*tables.classes],
        "pooling": f"the mask, token {pooling}" if isinstance(pooling, int) else pooling,
        "head": model.get("head", config.model.head),
        "max_length": config.data.max_length,
        "cleaning": [*config.data.clean],
        "temperature": tables.result.temperature if tables.result else None,
        "precision": environment.get("precision"),
        "device": environment.get("device"),
    }


def description_text(found: Mapping[str, Any]) -> str:
    """The description for people."""
    lines = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            lines.append(name)
            lines += [f"  {inner:<20} {_plain(inner, content)}" for inner, content in value.items()]
        else:
            lines.append(f"{name:<22} {_plain(name, value)}")
    return "\n".join(lines) + "\n"


def write_metrics(tables: RunTables, file: IO[str]) -> None:
    """Write metrics.csv: one row a step, in order; what was not measured at a step is empty there.

    Columns: step, epoch, learning_rate, train_loss (of this step alone), validation_NAME for every score of the evaluations,
    process_mb and gpu_mb (memory in use at the evaluation). A run that trained nothing has the one row of step 0.
    """
    evaluations = {row.step: row for row in tables.evaluations}
    names = list(tables.evaluations[-1].scores) if evaluations else []
    table = csv.writer(file, lineterminator="\n")
    table.writerow(
        ["step", "epoch", "learning_rate", "train_loss", *(f"validation_{name}" for name in names), "process_mb", "gpu_mb"]
    )

    def scored(row: Evaluation | None) -> list[object]:
        return [*(row.scores.get(name) for name in names), row.process_mb, row.gpu_mb] if row else [None] * (len(names) + 2)

    for step in tables.steps:
        row = evaluations.pop(step.step, None)
        table.writerow([step.step, f"{step.epoch:.6g}", f"{step.learning_rate:.6g}", f"{step.loss:.6g}", *scored(row)])
    for row in evaluations.values():
        table.writerow([row.step, f"{row.epoch:.6g}", row.learning_rate, None, *scored(row)])


def format_value(value: object) -> str:
    """A setting or a fact as a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ([], ()):
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def _configuration(tables: RunTables) -> Iterator[str]:
    yield f"run {tables.name}"
    yield "\nconfiguration (* differs from the default)"
    for row in tables.settings():
        yield _setting(row)
    yield "\ndata"
    yield f"  classes  {', '.join(map(one_line, tables.classes))}"
    for part, facts in tables.environment.get("rows", {}).items():
        yield f"  {part:<10} {facts['count']:>9,} rows  fingerprint {facts['fingerprint']}"


def _training(tables: RunTables) -> Iterator[str]:
    steps = thin(tables.steps, MOST_LINES)
    yield "\ntraining" + (" (loss: mean since the line before)" if len(steps) < len(tables.steps) else "")
    yield f"  {'step':>7} {'epoch':>7} {'learning rate':>14} {'loss':>9}"
    events = [
        (step.step, 0, f"  {step.step:>7} {step.epoch:>7.2f} {step.learning_rate:>14.3e} {step.loss:>9.4f}") for step in steps
    ]
    events += [(row.step, 1, _evaluation(row)) for row in tables.evaluations]
    for _, _, line in sorted(events, key=lambda event: event[:2]):
        yield line


def _evaluation(row: Evaluation) -> str:
    scores = "  ".join(f"{name} {row.scores[name]:.4f}" for name in OVERALL if name in row.scores)
    memory = f"  memory {row.process_mb:,.0f} MB" if row.process_mb is not None else ""
    memory += f", GPU {row.gpu_mb:,.0f} MB" if row.gpu_mb is not None else ""
    return f"  evaluation at step {row.step}: {scores}{'  best yet' if row.improved else ''}{memory}"


def _results(tables: RunTables) -> Iterator[str]:
    yield "\nresults"
    result = tables.result
    if result is None:
        yield "  the run is not complete"
        return
    how = ", stopped early" if result.stopped_early else ""
    yield f"  {result.steps} steps in {result.seconds:.1f} s ({result.samples_per_second:.1f} samples/s in training){how}"
    yield f"  weights of step {result.best_step}"
    yield f"  on {tables.test_rows:,} test rows:"
    for name in OVERALL:
        if name in result.scores:
            yield f"    {LABELS[name]:<26} {result.scores[name]:.4f}"
    if result.temperature:
        after = "  ".join(f"{name} {value:.4f}" for name, value in result.calibrated.items())
        yield f"  with temperature {result.temperature:.4f}, fitted on the validation rows: {after}"
    yield f"    {'precision':>9} {'recall':>9} {'F1':>9} {'true':>8} {'predicted':>9}  class"
    for row in tables.per_class():
        counts = f"{row['true']:>8,.0f} {row['predicted']:>9,.0f}"
        yield f"    {row['precision']:>9.4f} {row['recall']:>9.4f} {row['f1']:>9.4f} {counts}  {one_line(row['class'])}"
    for name, value in tables.counts().items():
        yield f"  {name:<10} {f'{value:.4%}' if name == 'share' else f'{value:,}':>14}"


def _setting(row: SettingRow) -> str:
    return f"  {'*' if row.changed else ' '} {row.name:<30} {format_value(row.value)}"


def _plain(name: str, value: object) -> str:
    if name == "share" and isinstance(value, float):
        return f"{value:.4%}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else format_value(value)
