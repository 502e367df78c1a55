"""Terminal output of results: scores, predictions, reports on data, tables."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape as escape_markup
from rich.padding import Padding
from rich.progress import Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from loralab.cli.options import OUTPUT
from loralab.errors import visible
from loralab.metrics import macro_remark
from loralab.metrics import table as score_rows

if TYPE_CHECKING:
    from pathlib import Path

    from loralab.config.loading import Recipe
    from loralab.config.reference import Setting
    from loralab.data.columns import Columns
    from loralab.data.types import Notice
    from loralab.diagnostics.diagnose import Diagnosis, ExplainedText
    from loralab.inference.export import Export
    from loralab.inference.prediction_files import Predictions
    from loralab.integrations.hub import Upload
    from loralab.model.parameter_counts import BudgetOption

MAX_LISTED = 8
MAX_BUDGET_OPTIONS = 24
LONG_CELL = 40
"""A table whose last column has a longer cell prints that column below each row."""
MAX_TYPE = 24
PLAIN_SECONDS = 60.0
"""Between two lines of progress if the output is not a terminal."""


class SafeConsole(Console):
    """A console on which no text commands the terminal: control characters are visible, wherever a text comes from."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of an object. rich's own commands, such as moving the cursor, are marked as such."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


console = SafeConsole(highlight=False)


def side_console() -> Console:
    """Return the console for everything but results: none with --quiet, standard error with --json."""
    if OUTPUT.quiet:
        return SafeConsole(quiet=True)
    return SafeConsole(stderr=True, highlight=False) if OUTPUT.json else console


class PlainTimer:
    """Limits lines of progress to one in PLAIN_SECONDS."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.last = clock()

    def due(self) -> bool:
        """Return whether it is time for the next line, which is then taken as printed."""
        if self.clock() - self.last < PLAIN_SECONDS:
            return False
        self.last = self.clock()
        return True


class ProgressView:
    """A context with a progress bar, which stops at the end, and lines above it."""

    def __init__(self, *columns: ProgressColumn, terminal_only: bool = False) -> None:
        self.console = side_console()
        disable = terminal_only and not self.console.is_terminal
        self.progress = Progress(*columns, console=self.console, disable=disable)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def note(self, text: str) -> None:
        """Print a note."""
        self.console.print(f"[yellow]note[/]        {escape(text)}", soft_wrap=True)


def escape(text: str) -> str:
    """Return a text as it is printed: brackets are no markup, and control characters are visible."""
    return escape_markup(visible(text))


def escape_end(text: str) -> str:
    """Return a text as it is printed at the end of a line or cell, where a backslash cannot be taken for markup."""
    escaped = escape(text)
    return escaped[:-1] if len(text) - len(text.rstrip("\\")) == 1 and escaped.endswith("\\\\") else escaped


def make_table(left: Sequence[str] = (), right: Sequence[str] = (), **options: Any) -> Table:
    """Return a table without borders. Its first columns are aligned to the left, the others to the right."""
    table = Table(box=None, pad_edge=False, **options)
    for name in (*left, *right):
        table.add_column(escape(name), justify="left" if name in left else "right")
    return table


def show_scores(scores: Mapping[str, float], classes: Sequence[str], rows: str = "test row") -> None:
    """Print accuracy, macro F1, and precision, recall, F1 and counts per class. rows: what a scored row is called."""
    table = make_table(["class"], ["precision", "recall", "F1", "true", "predicted"])
    for row in score_rows(scores, classes):
        values = ["–" if row[kind] is None else f"{row[kind]:.4f}" for kind in ("precision", "recall", "f1")]
        table.add_row(escape_end(row["class"]), *values, f"{row['true']:,.0f}", f"{row['predicted']:,.0f}")
    console.print(table)
    console.print(f"[bold]accuracy {scores['accuracy']:.4f}   macro F1 {scores['macro_f1']:.4f}[/]   loss {scores['loss']:.4f}")
    if remark := macro_remark(scores, classes, rows):
        console.print(f"[yellow]note[/]        {escape(remark)}", soft_wrap=True)


def show_tracked(names: Sequence[str], monitor: str, test: Mapping[str, float], validation: Mapping[str, float]) -> None:
    """Print the monitored and tracked scores on test and validation rows; nothing if only the loss is monitored."""
    if [*names] == ["loss"]:
        return
    table = make_table(["score"], ["test", "validation"])
    for name in names:
        values = (f"{scores[name]:.4f}" if name in scores else "–" for scores in (test, validation))
        table.add_row(escape(f"{name} (monitored)" if name == monitor else name), *values)
    console.print(table)


def show_reading(columns: Columns | None, facts: Mapping[str, Any]) -> None:
    """Print which columns of a file were read, and how; nothing for texts."""
    if columns is None:
        return
    named = [f"{name} {value!r}" for name, value in facts.items() if name != "format" and value is not None]
    show_facts({"read": ", ".join((str(facts.get("format", "file")), *named)), "columns": str(columns)}, side_console())


def show_notices(notices: Sequence[Notice]) -> None:
    """Print decisions about a file's rows."""
    for notice in notices:
        show_remark(str(notice))


def show_distribution(predicted: Mapping[str, int], training: Mapping[str, int]) -> None:
    """Print the rows of each predicted class, with its share of these rows and of the training rows, if they are known."""
    total, trained = max(1, sum(predicted.values())), sum(training.values())
    shares = {name: f", training {training[name] / trained:.0%}" if trained and name in training else "" for name in predicted}
    listed = list_names([f"{name} {rows:,} ({rows / total:.0%}{shares[name]})" for name, rows in predicted.items()])
    side_console().print(f"predicted   {escape(listed)}", soft_wrap=True)


def show_remark(remark: str) -> None:
    """Print a remark, if there is one."""
    if remark:
        side_console().print(f"[yellow]note[/]        {escape(remark)}", soft_wrap=True)


def show_predictions(texts: Sequence[str], predictions: Predictions) -> None:
    """Print each text with its class and the three highest probabilities."""
    for text, label, row in zip(texts, predictions.labels, predictions.probabilities, strict=True):
        highest = sorted(zip(predictions.classes, row.tolist(), strict=True), key=lambda pair: -pair[1])[:3]
        probabilities = "  ".join(f"{name} {probability:.3f}" for name, probability in highest)
        console.print(Text.assemble((visible(f"{label:<12}"), "bold"), " ", visible(text)), soft_wrap=True)
        console.print(f"{'':<12} [dim]{escape(probabilities)}[/]")


def show_export(export: Export) -> None:
    """Print an export's folder and the result of its check."""
    facts = {"written": f"{export.folder}  ({export.megabytes:,.1f} MB)"}
    facts["checked"] = (
        f"{export.rows} texts in batches of up to 32: logits within {export.largest_difference:.1e}, "
        f"{export.agreement:.2%} of the predictions equal"
    )
    if export.outside_difference is not None:
        facts["outside"] = f"opened by {export.outside}, without loralab: logits within {export.outside_difference:.1e}"
    if export.accuracy is not None:
        facts["8 bits"] = str(export.accuracy)
    facts["softmax"] = f"gives the probabilities; the logits include the temperature {export.temperature:.4g}"
    show_facts(facts)
    show_remark(export.remark)


def show_upload(upload: Upload) -> None:
    """Print what will be uploaded, and what others need to use it."""
    publication, sizes = upload.publication, upload.megabytes
    where = f"{publication.repo_id} ({publication.form}" + (f", branch {publication.revision})" if publication.revision else ")")
    show_facts({"uploading": where, "files": f"{len(sizes)}, {sum(sizes.values()):,.2f} MB"})
    for name, megabytes in sizes.items():
        console.print(f"  {escape(name):<30} {megabytes:>10,.3f} MB", soft_wrap=True)
    for remark in upload.remarks:
        show_remark(remark)


def shown_path(path: object, *, quoted: bool = False) -> str:
    """Return a path for rich, brackets and all; quoted: so that it can be pasted into a command."""
    return escape_end(shlex.quote(str(path)) if quoted else str(path))


def show_facts(facts: Mapping[str, Any], target: Console | None = None) -> None:
    """Print nested facts, one per line."""
    target = target or console
    for name, value in facts.items():
        if isinstance(value, Mapping):
            target.print(f"[bold]{escape(name)}[/]")
            for key, content in value.items():
                target.print(f"  {escape(key):<20} {escape_end(_format_fact(content))}", soft_wrap=True)
        else:
            target.print(f"[bold]{escape(name):<11}[/] {escape_end(_format_fact(value))}", soft_wrap=True)


def show_budget(options: Sequence[BudgetOption], max_trainable: int) -> None:
    """Print the largest rank of each choice of targets and layers, most parameters first."""
    table = make_table(["targets", "layers"], ["rank", "trainable", "left"])
    for option in options[:MAX_BUDGET_OPTIONS]:
        left = max_trainable - option.trainable
        table.add_row(",".join(option.targets), option.layers or "all", str(option.rank), f"{option.trainable:,}", f"{left:,}")
    console.print(table)
    if len(options) > MAX_BUDGET_OPTIONS:
        console.print(f"and {len(options) - MAX_BUDGET_OPTIONS} more: --json lists all")


def show_recipes(recipes: Sequence[Recipe]) -> None:
    """Print each recipe with its source and claim."""
    for recipe in recipes:
        console.print(
            f"[bold]{recipe.name}[/]\n  {escape(recipe.summary)}\n  [dim]{escape(recipe.source)}; claims: {escape(recipe.claim)}[/]"
        )
    side_console().print("\nloralab describe RECIPE counts its parameters; loralab train RECIPE runs it")


def show_settings(settings: Sequence[Setting]) -> None:
    """Print a table of settings: name, type, limits, default, and below each its description."""
    rows = []
    for setting in settings:
        kind, description = setting.type, setting.description
        if len(kind) > MAX_TYPE:
            kind, description = "choice", f"one of {kind}; {description}"
        rows.append((setting.name, kind, setting.limits, setting.default_text, description))
    show_rows(("setting", "type", "limits", "default", "description"), rows, below=True)


def show_cleaning(steps: Sequence[tuple[str, str]]) -> None:
    """Print a text after each step. A step without effect is dimmed."""
    before = None
    for step, text in steps:
        style = "dim" if text == before else "none"
        console.print(f"[bold]{escape(step):<11}[/] {escape(_quoted(text))}", style=style, soft_wrap=True)
        before = text


def _quoted(text: str) -> str:
    """Return the text in quotes that show its ends. Unlike in a repr, a backslash is one backslash."""
    mark = '"' if "'" in text else "'"
    return f"{mark}{text.replace(chr(10), '⏎').replace(chr(9), '⇥')}{mark}"


def show_augmentation(texts: Sequence[tuple[str, str]]) -> None:
    """Print a text and the result of each technique. A result without change is dimmed."""
    before = texts[0][1]
    for i, (technique, text) in enumerate(texts):
        style = "dim" if i and text.split() == before.split() else "none"
        console.print(f"[bold]{technique:<16}[/] {escape_end(text)}", style=style, soft_wrap=True)
    if all(text.split() == before.split() for _, text in texts):
        few = len(before.split()) < 3
        show_remark(
            "no technique changes this text: "
            + ("they change words, which spaces divide" if few else "a larger --strength, or another --seed, changes more")
        )


def show_diagnosis(diagnosis: Diagnosis, path: Path, page: Path) -> None:
    """Print each section below its summary, then the explained texts with words coloured by their attribution."""
    for section in diagnosis.sections:
        console.print(f"[bold]{escape(section.title)}[/]")
        console.print(escape(section.summary))
        show_rows(section.columns, section.rows)
        if section.note:
            console.print(f"[dim]{escape(section.note)}[/]")
        console.print()
    for explained in diagnosis.attributions:
        true = f", true class {explained.true}" if explained.true is not None else ""
        console.print(f"[bold]{escape(explained.predicted)} {explained.confidence:.3f}{escape(true)}[/]")
        console.print(Padding(_colour_words(explained), (0, 0, 0, 4), expand=False))
        ordered = sorted(((value, word.strip()) for word, value in explained.tokens), reverse=True)
        strongest = {
            "for": [(value, word) for value, word in ordered[:5] if value > 0],
            "against": [(value, word) for value, word in ordered[:-4:-1] if value < 0],
        }
        lines = [
            f"{side} it: " + (", ".join(f"{word} {value:+.2f}" for value, word in words) or "nothing")
            for side, words in strongest.items()
        ]
        console.print(Padding(Text(visible("\n".join(lines)), style="dim"), (0, 0, 1, 4), expand=False))
    console.print(f"data        {shown_path(path)}\nreport      {shown_path(page)}", soft_wrap=True)


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], below: bool = False) -> None:
    """Print rows. With `below`, or if a cell of the last column is long, that column is printed below each row."""
    if not rows:
        return
    cells = [[_format_cell(value) for value in row] for row in rows]
    numeric = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    if not below and max(len(row[-1]) for row in cells) <= LONG_CELL:
        table = Table(box=None, pad_edge=False)
        for name, number in zip(columns, numeric, strict=True):
            table.add_column(escape(name), justify="right" if number else "left", overflow="fold")
        for row in cells:
            table.add_row(*map(escape_end, row))
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for i, row in enumerate([[*columns], *cells]):
        aligned = [cell.rjust(w) if number else cell.ljust(w) for cell, w, number in zip(row, widths, numeric, strict=True)]
        line = "  ".join(aligned[:-1]) + (f"  / {row[-1]}" if i == 0 else "")
        console.print(Text(line.rstrip(), style="none" if i == 0 else "bold"), soft_wrap=True)
        if i > 0:
            console.print(Padding(Text(row[-1]), (0, 0, 0, 4), expand=False))


def _colour_words(explained: ExplainedText) -> Text:
    """Return the text with its words coloured by their attribution, relative to the strongest."""
    line = Text()
    strongest = max((abs(value) for _, value in explained.tokens), default=0.0) or 1.0
    for word, value in explained.tokens:
        weight = value / strongest
        colour = "green" if weight > 0 else "red"
        line.append(visible(word), style="none" if abs(weight) < 0.1 else f"bold {colour}" if abs(weight) > 0.5 else colour)
    return line


@contextmanager
def working() -> Iterator[Callable[[str], None]]:
    """Show the current stage of a command on standard error; without a terminal, at most a line per minute."""
    target = SafeConsole(stderr=True, highlight=False, quiet=OUTPUT.quiet)
    if target.is_terminal and not OUTPUT.quiet:
        with target.status("starting") as status:
            yield lambda stage: status.update(escape(stage))
        return
    timer = PlainTimer()
    yield lambda stage: target.print(escape(stage), soft_wrap=True) if timer.due() else None


@contextmanager
def counting(action: str) -> Iterator[Callable[[int], None]]:
    """Show a running count of rows; without a terminal, a line per minute."""
    target, timer = side_console(), PlainTimer()
    progress = Progress(
        TextColumn(escape(action)),
        TextColumn("{task.completed:,} rows"),
        TimeElapsedColumn(),
        console=target,
        transient=True,
        disable=not target.is_terminal,
    )
    task = progress.add_task(action, total=None)

    def update(rows: int) -> None:
        progress.update(task, completed=rows)
        if not target.is_terminal and timer.due():
            target.print(f"{escape(action)}  {rows:,} rows", soft_wrap=True)

    with progress:
        yield update


def list_names(names: Sequence[str], limit: int = MAX_LISTED) -> str:
    """Return the first names, and the number of the others."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit:,} more" if len(names) > limit else "")


def _format_cell(value: str | int | float | None) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) < 0.001 else f"{value:.4f}"


def _format_fact(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
