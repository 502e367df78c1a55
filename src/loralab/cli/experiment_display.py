"""What a person sees of many runs in the terminal: what is asked, a line for each trial, what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from loralab.cli.display import console, shorten, show_facts, show_table

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from loralab.experiments.run import ExperimentSummary
    from loralab.experiments.run_trial import Outcome
    from loralab.experiments.search import SearchPlan, SearchSummary
    from loralab.experiments.study import SearchSettings, SearchTrial
    from loralab.inference.model_soup import Soup
    from loralab.report.experiments.result_tables import ReportTable
    from loralab.storage.experiment_folder import ExperimentSpec, Trial

BEST_SHOWN = 5


class _Time(TimeRemainingColumn):
    """The time left, and in the end the time it took."""

    def __init__(self) -> None:
        super().__init__(elapsed_when_finished=True)

    def render(self, task: Task) -> Text:
        return Text("took " if task.finished else "left ") + super().render(task)


def _trials_bar() -> Progress:
    """A bar over trials with the time left."""
    return Progress(TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), _Time(), console=console)


class ExperimentView:
    """What an experiment varies and holds, a bar over its trials with the time left, and a line for each that ends."""

    def __init__(self, folder: Path, where: str) -> None:
        self.folder, self.where = folder, where
        self.progress = _trials_bar()
        self.task = self.progress.add_task("trials", total=0)
        self.announced = False

    def __enter__(self) -> ExperimentView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def announce(self, spec: ExperimentSpec, trials: Sequence[Trial]) -> None:
        """Print the question once, and add a round of trials to the bar."""
        if not self.announced:
            facts = {
                "experiment": f"{spec.kind}: {spec.question}",
                "folder": str(self.folder),
                "recipes": ", ".join(spec.recipes),
                "varied": "\n            ".join(
                    f"{name}: {shorten([str(p) for p in points])}" for name, points in spec.varied.items()
                ),
                "held": ", ".join(spec.fixed) or "the recipe's own settings",
                "where": self.where,
            }
            show_facts(facts)
            self.progress.start()
            self.announced = True
        self.progress.update(self.task, description="trials", total=(self.progress.tasks[self.task].total or 0) + len(trials))

    def on_progress(self, what: str) -> None:
        """Show what is being done between two rounds."""
        self.progress.update(self.task, description=escape(what))

    def on_outcome(self, outcome: Outcome) -> None:
        """Show how a trial ended."""
        from loralab.storage.experiment_folder import trial_folder
        from loralab.storage.run_folder import read_scores

        what = "  ".join(f"{name.rpartition('.')[2]} {value}" for name, value in outcome.trial.factors.items())
        if outcome.failure is not None:
            end = f"[red]failed[/]: {escape(outcome.failure)}"
        else:
            scores = read_scores(trial_folder(self.folder, outcome.trial))["scores"]
            end = f"accuracy {scores['accuracy']:.4f}" + ("  [dim]skipped, complete[/]" if outcome.skipped else "")
        self.progress.console.print(f"{escape(what):<52} {end}", soft_wrap=True)
        if outcome.restarted:
            self.progress.console.print(f"[yellow]note[/]        started anew: {escape(outcome.restarted)}", soft_wrap=True)
        self.progress.advance(self.task)

    def summarise(self, summary: ExperimentSummary, points: ReportTable, found: Sequence[str], page: Path | None) -> None:
        """Print the points, what may be said of them, and where everything lies."""
        console.print(f"{len(summary.outcomes) - len(summary.failures)} of {len(summary.outcomes)} trials have a result\n")
        show_table(points)
        for sentence in found:
            console.print(Padding(Text(sentence), (1, 0, 0, 2), expand=False))
        console.print(f"\nthe experiment  {escape(str(summary.folder))}\nreport          {escape(str(page))}", soft_wrap=True)


class SearchView:
    """What a search varies, a bar over its trials with the time left, and a line for each that ends."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.folder, self.jobs = folder, jobs
        self.settings: SearchSettings | None = None
        self.progress = _trials_bar()

    def __enter__(self) -> SearchView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def announce(self, plan: SearchPlan, trials: Sequence[SearchTrial]) -> None:
        """Print what is searched and what is known of it already, then start the bar."""
        self.settings = settings = plan.settings
        aims = (
            f"{name} ({'lower' if less else 'higher'} is better)"
            for name, less in zip(settings.objectives, settings.minimised, strict=True)
        )
        pruning = f"stopped early by {settings.pruner} of the others' evaluations" if settings.prunes else "none stopped early"
        size = f"{settings.space.size:,} combinations" if settings.space.size else "continuous"
        facts = {
            "search": f"{plan.recipe}: {settings.trials} trials, {settings.sampler}, {pruning}, {self.jobs} at a time",
            "folder": str(self.folder),
            "best by": f"{' against '.join(aims)}, on the validation rows",
            "space": f"{size}\n{'':<12}" + f"\n{'':<12}".join(f"{name}: {text}" for name, text in settings.space.to_text().items()),
            "held": ", ".join(plan.fixed) or "the recipe's own settings",
        }
        most = plan.base.lora.max_trainable
        if most is not None:
            facts["budget"] = f"{most:,} trainable parameters; what is over is not run"
        show_facts(facts)
        ended = sum(trial.ended and trial.state != "rejected" for trial in trials)
        if ended:
            console.print(f"[dim]{ended} trials are known from an earlier call[/]")
        self.progress.start()
        self.task = self.progress.add_task("trials", total=settings.trials, completed=ended)

    def on_trial_end(self, trial: SearchTrial) -> None:
        """Show how a trial ended."""
        assert self.settings is not None
        end = (
            _values(self.settings, trial)
            if trial.values
            else f"[red]failed[/]: {escape(trial.reason or '')}"
            if trial.state == "failed"
            else ""
        )
        end = end or f"[dim]{escape(trial.reason or trial.state)}[/]"
        self.progress.console.print(f"{trial.number:>4}  {escape(_points(trial)):<62} {end}", soft_wrap=True)
        if reason := trial.facts.get("restarted"):
            self.progress.console.print(f"[yellow]note[/]        started anew: {escape(reason)}", soft_wrap=True)
        if trial.state != "rejected":
            self.progress.advance(self.task)

    def summarise(self, summary: SearchSummary, page: Path) -> None:
        """Print the best trials, what mattered, and what one would type next."""
        settings, states = summary.plan.settings, [row.state for row in summary.trials]
        counted = ((state, states.count(state)) for state in ("complete", "pruned", "failed", "rejected", "running"))
        console.print(
            "\n" + ", ".join(f"{count} {'over budget' if state == 'rejected' else state}" for state, count in counted if count)
        )
        missing = settings.trials - sum(state != "rejected" for state in states)
        if missing > 0:
            over = states.count("rejected")
            why = f"after {over} points over the budget" if over else "the space has no more points"
            console.print(f"[yellow]note[/]        {missing} of {settings.trials} trials were not found: {why}")
        if summary.best:
            _show_best(summary)
        for name, shares in summary.importances.items():
            told = "  ".join(f"{setting} {share:.0%}" for setting, share in sorted(shares.items(), key=lambda each: -each[1]))
            console.print(f"[bold]{escape(name)}[/] depends on  {escape(told)}", soft_wrap=True)
        console.print(f"the search  {self.folder}", soft_wrap=True)
        console.print(f"            trials.csv{', best.yaml' if summary.best else ''}", soft_wrap=True)
        console.print(f"report      {page}", soft_wrap=True)
        if summary.best:
            console.print(f"\nnext        loralab train {self.folder / 'best.yaml'}", soft_wrap=True)


def _show_best(summary: SearchSummary) -> None:
    """A table of the best five; of two objectives, of the front."""
    settings = summary.plan.settings
    rows = {row.number: row for row in summary.trials if row.values}
    numbers = list(summary.best)
    title = "the Pareto front" if len(settings.objectives) > 1 else "the best"
    if len(settings.objectives) == 1:
        sign = 1 if settings.minimised[0] else -1
        numbers = sorted(rows, key=lambda number: (sign * (rows[number].values or (0,))[0], number))[:BEST_SHOWN]
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("trial", justify="right")
    for name in (*settings.objectives, *(axis.name.rpartition(".")[2] for axis in settings.space.axes)):
        table.add_column(escape(name), justify="right")
    for number in numbers:
        row = rows[number]
        values = [f"{value:,.0f}" if name == "trainable" else f"{value:.4f}" for name, value in _named(settings, row)]
        table.add_row(str(number), *values, *(escape(row.points[axis.name]) for axis in settings.space.axes))
    console.print(table)


def show_soup(found: Soup) -> None:
    """Print what was averaged, and what the soup is worth beside its members."""
    mean, best = sum(found.accuracies) / len(found.accuracies), max(found.accuracies)
    facts: dict[str, object] = {"written": str(found.folder), "averaged": f"{len(found.members)} runs"}
    if found.rank is not None:
        facts["rank"] = found.rank
    if found.accuracy is None:
        facts["accuracy"] = "not known: the runs were tested on different rows, which others of them may have been trained on"
    else:
        facts["accuracy"] = f"{found.accuracy:.4f} on {found.test_rows:,} test rows; the runs: mean {mean:.4f}, best {best:.4f}"
    show_facts(facts)


def _points(row: SearchTrial) -> str:
    return "  ".join(f"{name.rpartition('.')[2]} {point}" for name, point in row.points.items())


def _values(settings: SearchSettings, row: SearchTrial) -> str:
    return "  ".join(
        escape(f"{name} {value:,.0f}" if name == "trainable" else f"{name} {value:.4f}") for name, value in _named(settings, row)
    )


def _named(settings: SearchSettings, row: SearchTrial) -> list[tuple[str, float]]:
    return list(zip(settings.objectives, row.values or (), strict=True))
