"""Terminal output of one training run: the plan, the progress, the test scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from loralab.cli.display import (
    PlainTimer,
    ProgressView,
    console,
    escape,
    list_names,
    show_facts,
    show_scores,
    show_tracked,
    shown_path,
)
from loralab.cli.options import OUTPUT
from loralab.metrics import NO_TEST_ROWS, temperature_remark, tracked_scores
from loralab.report.formatting import capitalize, early_stopping
from loralab.report.run_data import count_scored_rows

if TYPE_CHECKING:
    from pathlib import Path

    from loralab.config import Config
    from loralab.model.parameter_counts import ParameterCounts
    from loralab.pipeline import RunSummary
    from loralab.training.callbacks import EvalEnd, Event, StepEnd
    from loralab.training.prefix_cache import PrefixCache
    from loralab.training.setup import RunPlan


class TrainingView(ProgressView):
    """The plan, the progress and the result of one run.

    A terminal shows a live bar. Any other output (a file, nohup, a batch system) gets a line per minute. Both get a line per
    evaluation.
    """

    def __init__(self, config: Config) -> None:
        bar = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
        super().__init__(*bar, TextColumn("{task.fields[note]}  left"), TimeRemainingColumn(), terminal_only=True)
        self.config = config
        self.tracked: tuple[str, ...] = (config.train.monitor,)
        """The scores of an evaluation's line besides loss and accuracy."""
        self.cache_task = self.progress.add_task("feature cache, tokens", total=None, note="", visible=False)
        self.task = self.progress.add_task("training", total=None, note="", visible=False)
        self.timer = PlainTimer()
        self.loss: float | None = None
        """Training loss, exponentially averaged."""
        self.monitored = ""
        """The monitored score of the last evaluation, if it is not the loss."""

    def announce(self, plan: RunPlan) -> None:
        """Print the plan and start the bar."""
        splits, config, device = plan.splits, self.config, plan.device
        self.tracked = tracked_scores(config.train.monitor, config.train.track, splits.classes)
        rows = "  ".join(f"{len(examples):,} {name}" for name, examples in splits.parts().items())
        threads = f"{device.threads} thread{'s' * (device.threads > 1)}"
        workers = f"{plan.processes} processes x {threads}" if plan.processes > 1 else threads
        facts = {
            "run": str(plan.folder),
            "data": f"{config.data.source}  ({plan.source.columns})",
            "rows": rows,
            "classes": list_names([str(name) for name in splits.train.classes]),
            "encoder": f"{config.model.base}, {config.tuning}, {device.precision} on {device.device}, {workers}",
            "parameters": counts_line(plan.counts),
            "cache": cache_line(plan.cache),
        }
        if OUTPUT.verbose:
            facts["settings"] = f"\n{'':<12}".join(changed_settings(config)) or "the defaults"
            facts["fingerprint"] = config.fingerprint()
        show_facts(facts, self.console)
        for remark in plan.remarks:
            self.note(remark)
        self.progress.start()
        self.progress.update(self.task, visible=True)

    def listen(self, event: Event) -> None:
        """Show a training event."""
        from loralab.training.callbacks import CacheProgress, StepEnd

        if isinstance(event, CacheProgress):
            self.progress.update(self.cache_task, visible=event.done < event.tokens, total=event.tokens, completed=event.done)
            self._print_if_due(f"feature cache  {event.done:,} of {event.tokens:,} tokens")
        elif isinstance(event, StepEnd):
            self._on_step(event)
        else:
            self._on_evaluation(event)

    def _on_step(self, event: StepEnd) -> None:
        self.loss = event.loss if self.loss is None else 0.95 * self.loss + 0.05 * event.loss
        note = f"loss {self.loss:.3f}{self.monitored}  {event.samples / event.seconds:.0f} samples/s"
        if event.gpu_mb is not None:
            note += f"  GPU {event.gpu_mb:,.0f} MB"
        self.progress.update(self.task, total=event.steps, completed=event.step, note=note)
        left = event.seconds / event.step * (event.steps - event.step)
        self._print_if_due(f"epoch {event.epoch:<4.3g} step {event.step} of {event.steps}  {note}  {left / 60:.0f} min left")

    def _on_evaluation(self, event: EvalEnd) -> None:
        scores = "  ".join(
            f"{name} {event.scores[name]:.4f}"
            for name in dict.fromkeys(("loss", "accuracy", *self.tracked))
            if name in event.scores  # a class without validation rows has no F1
        )
        best = "  [green]best yet[/]" if event.improved else ""
        if (monitor := self.config.train.monitor) != "loss" and monitor in event.scores:
            self.monitored = f"  validation {escape(monitor)} {event.scores[monitor]:.4f}"
        self.console.print(f"epoch {event.epoch:<4.3g} step {event.step:<5} validation  {escape(scores)}{best}", soft_wrap=True)

    def _print_if_due(self, line: str) -> None:
        if not self.console.is_terminal and self.timer.due():
            self.console.print(line, soft_wrap=True)

    def summarise(self, summary: RunSummary) -> None:
        """Print the test scores, or the validation scores of a run without test rows, and the parameter counts."""
        monitor, patience = self.config.train.monitor, self.config.train.patience
        speed = f"{summary.steps} steps in {summary.seconds:.0f} s ({summary.samples_per_second:.0f} samples/s in training)"
        if summary.scores:
            console.print(f"\n{speed}; weights of step {summary.best_step}. Scores on the test rows:")
            show_scores(summary.scores, summary.classes)
        else:
            console.print(f"\n{speed}; weights of step {summary.best_step}. There are {NO_TEST_ROWS}.", soft_wrap=True)
            if summary.validation:
                console.print("Scores on the validation rows, which chose the weights and are therefore optimistic:")
                show_scores(summary.validation, summary.classes, "validation row")
        show_tracked(self.tracked, monitor, summary.scores, summary.validation)
        if summary.stopped_early:
            best = summary.validation.get(monitor)
            reason = early_stopping(monitor, best, summary.best_step, summary.steps, patience, summary.stopped_by_callback)
            console.print(escape(capitalize(reason)), soft_wrap=True)
        if summary.temperature is not None:
            remark = temperature_remark(summary.temperature, count_scored_rows(summary.validation))
            self.console.print(f"calibration {remark}", soft_wrap=True)
        console.print(f"parameters  {counts_line(summary.counts)}", soft_wrap=True)

    def show_next(self, folder: Path, report: Path | None) -> None:
        """Print the paths of the run and its report, and the next commands."""
        console.print(f"run         {shown_path(folder)}", soft_wrap=True)
        if report:
            console.print(f"report      {shown_path(report)}", soft_wrap=True)
        run = shown_path(folder, quoted=True)
        self.console.print(f'\nnext        loralab predict {run} --input "a text"', soft_wrap=True)
        self.console.print(f"            loralab evaluate {run} --file labelled.csv", soft_wrap=True)


def changed_settings(config: Config) -> list[str]:
    """Return the settings that differ from the defaults, as `key=value`."""
    defaults = type(config)().flatten()
    return [f"{name}={value}" for name, value in config.flatten().items() if value != defaults[name]]


def counts_line(counts: ParameterCounts) -> str:
    """Return trainable, total, adapter, head and base parameters, on two lines that fit 80 columns."""
    return (
        f"{counts.trainable:,} trainable of {counts.total:,} ({counts.share:.2%})\n"
        f"{'':<12}adapter {counts.adapter:,} + head {counts.head:,}; base {counts.base:,}"
    )


def cache_line(cache: PrefixCache) -> str:
    """Return the place and size of the feature cache, or why there is none."""
    if cache.place == "off":
        return f"off: {cache.reason}"
    place = f"in {cache.folder}" if cache.place == "disk" else "in memory"
    reused = f", {cache.reusable / 1e9:.2f} GB from earlier runs" if cache.reusable else ""
    return f"{cache.reason}: their hidden states, {cache.size / 1e9:.2f} GB, are kept {place}{reused}"
