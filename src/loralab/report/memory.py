"""Memory and size of a run beside those of full fine-tuning: what was measured, and what follows from the parameter counts."""

from __future__ import annotations

from dataclasses import dataclass

from loralab.report.run_data import RunData

FP32 = 4
"""Bytes of a trained weight and of its gradient."""
ADAMW_STATE = 8
"""Bytes of AdamW's state per trained parameter: two moments in fp32 (Loshchilov and Hutter 2019)."""


@dataclass(frozen=True)
class MemoryRow:
    """One quantity. run: measured; full: computed for full fine-tuning, None where it cannot be; both formatted with their unit."""

    name: str
    run: str
    full: str | None


def memory_rows(run: RunData) -> list[MemoryRow]:
    """Return the memory and size of a complete run, and of full fine-tuning of its base; empty if they were not recorded.

    Full fine-tuning trains base and head in fp32. Its optimizer takes as many bytes per trained parameter as this run's, AdamW's 8
    if this run trained nothing. Peaks depend on activations and the batch too, so they are measured only.
    """
    result = run.result
    if result is None or not result.memory or not result.counts:
        return []
    memory, counts = result.memory, result.counts
    trained, every = counts["trainable"], counts["base"] + counts["head"]
    state = (memory.get("optimizer") or 0) * 1e6 / trained if trained else 0
    computed = {
        "gradients": every * FP32 / 1e6,
        "optimizer": every * (state or ADAMW_STATE) / 1e6,
        "model": every * FP32 / 1e6,
    }
    names = {
        "gradients": "gradients",
        "optimizer": f"optimizer state ({run.config.train.optimizer})",
        "model": "saved model on disk" if run.config.tuning == "full" else "saved model on disk, without its base",
        "checkpoint": "checkpoint of training on disk",
        "start": "process before the run",
        "process": "process, peak in training",
        "gpu": "GPU, peak in training",
    }
    rows = [MemoryRow("trainable parameters", f"{trained:,}", f"{every:,}")]
    rows += [
        MemoryRow(label, format_mb(value), format_mb(computed[name]) if name in computed else None)
        for name, label in names.items()
        if (value := memory.get(name)) is not None
    ]
    return rows if run.config.tuning != "full" else [MemoryRow(row.name, row.run, None) for row in rows]


def format_mb(value: float) -> str:
    """Return a number of MB (10⁶ bytes) with three digits or more."""
    return f"{value:,.0f} MB" if value >= 100 else f"{value:.3g} MB"
