"""What a person sees in the terminal: the plan, the progress, the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from loralab.metrics import table as score_rows

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from loralab.config.loading import Config, Recipe
    from loralab.data.validate import DataReport
    from loralab.diagnostics.diagnose import Diagnosis, ExplainedText
    from loralab.diagnostics.sections import DiagnosisSection
    from loralab.inference.classifier import Predictions
    from loralab.inference.export import Export
    from loralab.model.parameter_counts import BudgetOption, ParameterCounts
    from loralab.pipeline import RunSummary
    from loralab.report.experiments.result_tables import ReportTable
    from loralab.training.callbacks import Event
    from loralab.training.prefix_cache import PrefixCache
    from loralab.training.setup import RunPlan

_SHOWN_ROWS = 8
_LONG = 40
"""Characters from which a table's last cell goes under its row."""
console = Console(highlight=False)


class TrainingView:
    """The plan, a live bar (loss, samples/s, time left) with a line for each evaluation, and the result of one run."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}  left"),
            TimeRemainingColumn(),
            console=console,
        )
        self.keeping = self.progress.add_task("frozen layers, tokens", total=None, note="", visible=False)
        self.task = self.progress.add_task("training", total=None, note="", visible=False)
        self.smoothed: float | None = None

    def __enter__(self) -> TrainingView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def announce(self, plan: RunPlan) -> None:
        """Print what was found and what is about to happen, then start the bar."""
        counts, splits, config, where = plan.counts, plan.splits, self.config, plan.device
        rows = "  ".join(f"{len(part):,} {name}" for name, part in splits.parts().items())
        label = f", label: {plan.columns.label}" if plan.columns.label else ""
        workers = f"{plan.processes} processes x {where.threads} threads" if plan.processes > 1 else f"{where.threads} threads"
        show_facts(
            {
                "run": str(plan.folder),
                "data": f"{config.data.source}  (text: {' + '.join(plan.columns.text)}{label})",
                "rows": rows,
                "classes": shorten([str(name) for name in splits.train.classes]),
                "encoder": f"{config.model.base}, {config.tuning}, {where.precision} on {where.device}, {workers}",
                "parameters": counts_line(counts),
                "cache": cache_line(plan.cache),
            }
        )
        for remark in plan.remarks:
            console.print(f"[yellow]note[/]        {escape(remark)}")
        self.progress.start()
        self.progress.update(self.task, visible=True)

    def listen(self, event: Event) -> None:
        """Show one event of the engine."""
        from loralab.training.callbacks import CacheProgress, StepEnd

        if isinstance(event, CacheProgress):
            self.progress.update(self.keeping, visible=event.done < event.tokens, total=event.tokens, completed=event.done)
            return
        if isinstance(event, StepEnd):
            self.smoothed = event.loss if self.smoothed is None else 0.95 * self.smoothed + 0.05 * event.loss
            rate = event.samples / event.seconds
            note = f"loss {self.smoothed:.3f}  {rate:.0f} samples/s"
            self.progress.update(self.task, total=event.steps, completed=event.step, note=note)
            return
        shown = ["loss", "accuracy"]
        if self.config.train.monitor not in shown:
            shown.append(self.config.train.monitor)
        scores = "  ".join(f"{name} {event.scores[name]:.4f}" for name in shown)
        best = "  [green]best yet[/]" if event.improved else ""
        self.progress.console.print(f"epoch {event.epoch:<4.3g} step {event.step:<5} validation  {escape(scores)}{best}")

    def summarise(self, summary: RunSummary) -> None:
        """Print the test scores and the counts."""
        how = ", stopped early" if summary.stopped_early else ""
        console.print(
            f"\n{summary.steps} steps in {summary.seconds:.0f} s ({summary.samples_per_second:.0f} samples/s in training){how}; "
            f"weights of step {summary.best_step}. On the test rows:"
        )
        show_scores(summary.scores, summary.classes)
        console.print(f"parameters  {counts_line(summary.counts)}", soft_wrap=True)

    def point_on(self, folder: Path, report: Path | None) -> None:
        """Print where the run and its report lie, and what one would type next."""
        console.print(f"the run     {folder}", soft_wrap=True)
        if report:
            console.print(f"            {report}", soft_wrap=True)
        console.print("\nnext        " + escape(f'loralab predict {folder} --input "a text"'), soft_wrap=True)
        console.print("            " + escape(f"loralab evaluate {folder} --file labelled.csv"), soft_wrap=True)


def counts_line(counts: ParameterCounts) -> str:
    """Base, adapter, head and trainable apart, on two lines that fit 80 columns."""
    return (
        f"{counts.trainable:,} trainable of {counts.total:,} ({counts.share:.2%})\n"
        f"{'':<12}adapter {counts.adapter:,} + head {counts.head:,}; base {counts.base:,}"
    )


def cache_line(cache: PrefixCache) -> str:
    """Say what is kept of the frozen layers, how much it is and where."""
    if cache.place == "off":
        return f"off: {cache.reason}"
    where = f"in {cache.folder}" if cache.place == "disk" else "in memory"
    found = f", {cache.found / 1e9:.2f} GB of them found" if cache.found else ""
    return f"{cache.reason}: their hidden states, {cache.size / 1e9:.2f} GB, are kept {where}{found}"


def show_scores(scores: Mapping[str, float], classes: Sequence[str]) -> None:
    """Print accuracy, macro F1, and precision, recall, F1 and counts per class."""
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for name in ("precision", "recall", "F1", "true", "predicted"):
        table.add_column(name, justify="right")
    for row in score_rows(scores, classes):
        values = [f"{row[kind]:.4f}" for kind in ("precision", "recall", "f1")]
        table.add_row(escape(row["class"]), *values, f"{row['true']:,.0f}", f"{row['predicted']:,.0f}")
    console.print(table)
    console.print(f"[bold]accuracy {scores['accuracy']:.4f}   macro F1 {scores['macro_f1']:.4f}[/]   loss {scores['loss']:.4f}")


def show_predictions(texts: Sequence[str], found: Predictions) -> None:
    """Print each text with its class and the probabilities of the likeliest three."""
    for text, label, row in zip(texts, found.labels, found.probabilities, strict=True):
        likeliest = sorted(zip(found.classes, row.tolist(), strict=True), key=lambda pair: -pair[1])[:3]
        chances = "  ".join(f"{name} {chance:.3f}" for name, chance in likeliest)
        console.print(f"[bold]{escape(label):<12}[/] {escape(text)}", soft_wrap=True)
        console.print(f"{'':<12} [dim]{escape(chances)}[/]")


def show_export(found: Export) -> None:
    """Print what was written and how close it came."""
    show_facts(
        {
            "written": f"{found.folder}  ({found.megabytes:,.1f} MB)",
            "checked": f"{found.rows} texts in batches of 1, 7 and 32: logits within {found.largest_difference:.1e}, "
            f"{found.agreement:.2%} of the predictions equal",
        }
    )


def show_facts(facts: Mapping[str, Any]) -> None:
    """Print nested facts, one a line."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            console.print(f"[bold]{escape(name)}[/]")
            for inner, content in value.items():
                console.print(f"  {escape(inner):<20} {escape(_shown(content))}", soft_wrap=True)
        else:
            console.print(f"[bold]{escape(name):<11}[/] {escape(_shown(value))}", soft_wrap=True)


def show_budget(fits: Sequence[BudgetOption], max_trainable: int) -> None:
    """Print the largest rank of each choice, most of the budget used first."""
    table = Table(box=None, pad_edge=False)
    for name in ("targets", "layers"):
        table.add_column(name)
    for name in ("rank", "trainable", "left"):
        table.add_column(name, justify="right")
    for fit in fits[:24]:
        left = max_trainable - fit.trainable
        table.add_row(",".join(fit.targets), fit.layers or "all", str(fit.rank), f"{fit.trainable:,}", f"{left:,}")
    console.print(table)
    if len(fits) > 24:
        console.print(f"and {len(fits) - 24} more: --json lists them all")


def show_recipes(recipes: Sequence[Recipe]) -> None:
    """Print each recipe with its source and claim."""
    for recipe in recipes:
        console.print(
            f"[bold]{recipe.name}[/]\n  {escape(recipe.summary)}\n  [dim]{escape(recipe.source)}; claims: {escape(recipe.claim)}[/]"
        )
    console.print("\nloralab describe RECIPE counts its parameters; loralab train RECIPE runs it")


def show_settings(settings: Mapping[str, str]) -> None:
    """Print every setting with default and meaning."""
    for name, meaning in settings.items():
        console.print(f"[bold]{name:<28}[/] {escape(meaning)}")


def show_cleaning(steps: Sequence[tuple[str, str]]) -> None:
    """Print a text after each step; a step that changed nothing is dimmed."""
    before = None
    for step, text in steps:
        style = "dim" if text == before else "none"
        console.print(f"[bold]{escape(step):<11}[/] {escape(repr(text))}", style=style, soft_wrap=True)
        before = text


def show_augmentation(texts: Sequence[tuple[str, str]]) -> None:
    """Print a text and what each technique makes of it; where one found nothing to change, the text is dimmed."""
    before = texts[0][1]
    for i, (technique, text) in enumerate(texts):
        style = "dim" if i and text.split() == before.split() else "none"
        console.print(f"[bold]{technique:<16}[/] {escape(text)}", style=style, soft_wrap=True)


def show_data(reports: Sequence[DataReport]) -> None:
    """Print each file's contents and findings."""
    for report in reports:
        label = report.columns.label or "none"
        show_facts(
            {
                "file": str(report.path),
                "rows": f"{report.rows:,}; words: median {report.words[0]}, 95 % to {report.words[1]}, longest {report.words[2]}",
                "columns": f"text: {' + '.join(report.columns.text)}; label: {label}",
                "classes": shorten([f"{name} {rows:,}" for name, rows in report.classes.items()]) or "no labels",
            }
        )
        for finding in report.findings:
            where = f"rows {shorten([str(row) for row in finding.rows])}" if finding.rows else "the file"
            console.print(
                f"[yellow]{len(finding.rows) or 1:>6} x[/] {escape(finding.what)}: {where}\n         fix: {escape(finding.fix)}",
                soft_wrap=True,
            )
        console.print(
            "[green]nothing wrong found[/]\n" if not report.findings else "(rows are counted from 0, the header not counted)\n"
        )


def show_diagnosis(found: Diagnosis, where: Path, page: Path) -> None:
    """Print each section under its summary, then the explained texts, each word in the colour of what it speaks for."""
    for section in found.sections:
        console.print(f"[bold]{escape(section.title)}[/]")
        console.print(escape(section.summary))
        show_table(section)
        if section.note:
            console.print(f"[dim]{escape(section.note)}[/]")
        console.print()
    for each in found.attributions:
        truly = f", truly {each.true}" if each.true is not None else ""
        console.print(f"[bold]{escape(each.predicted)} {each.confidence:.3f}{escape(truly)}[/]")
        console.print(Padding(_coloured(each), (0, 0, 0, 4), expand=False))
        ordered = sorted(((value, word.strip()) for word, value in each.tokens), reverse=True)
        speaks = {
            "for": [each for each in ordered[:5] if each[0] > 0],
            "against": [each for each in ordered[:-4:-1] if each[0] < 0],
        }
        lines = [
            f"{name} it: " + (", ".join(f"{word} {value:+.2f}" for value, word in words) or "nothing")
            for name, words in speaks.items()
        ]
        console.print(Padding(Text("\n".join(lines), style="dim"), (0, 0, 1, 4), expand=False))
    console.print(f"all of it   {where}\nreport      {page}", soft_wrap=True)


def show_table(section: DiagnosisSection | ReportTable) -> None:
    """Print the rows; where the last column holds long texts, each under its row."""
    if not section.rows:
        return
    cells = [[_cell(value) for value in row] for row in section.rows]
    numeric = [all(isinstance(row[i], int | float) for row in section.rows) for i in range(len(section.columns))]
    if max(len(row[-1]) for row in cells) <= _LONG:
        table = Table(box=None, pad_edge=False)
        for name, number in zip(section.columns, numeric, strict=True):
            table.add_column(escape(name), justify="right" if number else "left", overflow="fold")
        for row in cells:
            table.add_row(*map(escape, row))
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(section.columns, *cells, strict=True)]
    for i, row in enumerate([[*section.columns], *cells]):
        aligned = [cell.rjust(w) if number else cell.ljust(w) for cell, w, number in zip(row, widths, numeric, strict=True)]
        line = "  ".join(aligned[:-1]) + (f"  / {row[-1]}" if i == 0 else "")
        console.print(Text(line.rstrip(), style="none" if i == 0 else "bold"), soft_wrap=True)
        if i > 0:
            console.print(Padding(Text(row[-1]), (0, 0, 0, 4), expand=False))


def _coloured(each: ExplainedText) -> Text:
    """The text with its words coloured by their attribution, relative to its strongest word."""
    line = Text()
    strongest = max((abs(value) for _, value in each.tokens), default=0.0) or 1.0
    for word, value in each.tokens:
        weight = value / strongest
        colour = "green" if weight > 0 else "red"
        line.append(word, style="none" if abs(weight) < 0.1 else f"bold {colour}" if abs(weight) > 0.5 else colour)
    return line


@contextmanager
def working() -> Iterator[Callable[[str], None]]:
    """Show what is being done now, on stderr, so that what is printed stays clean."""
    with Console(stderr=True).status("starting") as status:
        yield lambda stage: status.update(escape(stage))


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Show a running count of rows with their rate."""
    progress = Progress(
        TextColumn(escape(what)), TextColumn("{task.completed:,} rows"), TimeElapsedColumn(), console=console, transient=True
    )
    task = progress.add_task(what, total=None)
    with progress:
        yield lambda rows: progress.update(task, completed=rows)


def shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_ROWS:,} more" if len(names) > _SHOWN_ROWS else ""
    return ", ".join(names[:_SHOWN_ROWS]) + more


def _cell(value: str | int | float) -> str:
    return (
        f"{value:.4g}"
        if isinstance(value, float) and abs(value) < 0.001
        else f"{value:.4f}"
        if isinstance(value, float)
        else str(value)
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
