"""Terminal output of experiments and searches: the plan, a line per trial, the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from loralab.cli.display import (
    ProgressView,
    console,
    escape,
    list_names,
    make_table,
    show_facts,
    show_remark,
    show_rows,
    shown_path,
)
from loralab.metrics import NO_TEST_ROWS

if TYPE_CHECKING:
    from pathlib import Path

    from loralab.experiments.run import ExperimentSummary
    from loralab.experiments.run_trial import Outcome
    from loralab.experiments.search import SearchPlan, SearchSummary
    from loralab.experiments.study import SearchSettings, SearchTrial
    from loralab.inference.model_soup import Soup
    from loralab.report.experiments.result_tables import ReportTable
    from loralab.storage.experiment_folder import ExperimentSpec, Trial

MAX_BEST = 5


class _Time(TimeRemainingColumn):
    """The remaining time, and at the end the elapsed time."""

    def __init__(self) -> None:
        super().__init__(elapsed_when_finished=True)

    def render(self, task: Task) -> Text:
        return Text("took " if task.finished else "left ") + super().render(task)


class _TrialsView(ProgressView):
    """A bar over trials with the remaining time."""

    def __init__(self) -> None:
        super().__init__(TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), _Time())


class ExperimentView(_TrialsView):
    """The plan of an experiment, a bar over its trials, a line for each that ends, and the results."""

    def __init__(self, folder: Path, where: str) -> None:
        super().__init__()
        self.folder, self.where = folder, where
        self.task = self.progress.add_task("trials", total=0)
        self.announced = False

    def announce(self, spec: ExperimentSpec, trials: Sequence[Trial]) -> None:
        """Print the plan once, and add a round of trials to the bar."""
        if not self.announced:
            facts = {
                "experiment": f"{spec.kind}: {spec.question}",
                "folder": str(self.folder),
                "recipes": ", ".join(spec.recipes),
                "varied": "\n            ".join(
                    f"{name}: {list_names([str(p) for p in points])}" for name, points in spec.varied.items()
                ),
                "fixed": ", ".join(spec.fixed) or "the recipe's settings",
                "where": self.where,
            }
            show_facts(facts, self.console)
            self.progress.start()
            self.announced = True
        self.progress.update(self.task, description="trials", total=(self.progress.tasks[self.task].total or 0) + len(trials))

    def on_progress(self, message: str) -> None:
        """Show the work between two rounds."""
        self.progress.update(self.task, description=escape(message))

    def on_outcome(self, outcome: Outcome) -> None:
        """Print the result of a trial."""
        from loralab.storage.experiment_folder import trial_folder
        from loralab.storage.run_folder import read_scores

        if outcome.failure is not None:
            result = f"[red]failed[/]: {escape(outcome.failure)}"
        else:
            scores = read_scores(trial_folder(self.folder, outcome.trial))
            validation = f"validation accuracy {scores['validation']['accuracy']:.4f}  " if scores.get("validation") else ""
            tested = scores["scores"]
            result = validation + (f"test accuracy {tested['accuracy']:.4f}" if tested else NO_TEST_ROWS)
            result += "  [dim]skipped, complete[/]" if outcome.skipped else ""
        self.console.print(f"{_points(outcome.trial.factors):<52} {result}", soft_wrap=True)
        if outcome.restarted:
            self.note(f"restarted: {outcome.restarted}")
        self.progress.advance(self.task)

    def summarise(
        self, summary: ExperimentSummary, points: ReportTable, findings: Sequence[str], notes: Sequence[str], page: Path | None
    ) -> None:
        """Print the configurations, the findings, notes on how to read them, and the paths."""
        from loralab.report.experiments.result_tables import short_name

        console.print(f"{len(summary.outcomes) - len(summary.failures)} of {len(summary.outcomes)} trials have a result\n")
        names = [short_name(name) for name in points.columns]
        show_rows(names if len({*names}) == len(names) else points.columns, points.rows)
        for sentence in findings:
            console.print(Padding(Text(sentence), (1, 0, 0, 2), expand=False))
        if notes:
            console.print(Padding(Text(" ".join(notes), style="dim"), (1, 0, 0, 2), expand=False))
        console.print(f"\nexperiment  {escape(str(summary.folder))}", soft_wrap=True)
        if page:
            console.print(f"report      {escape(str(page))}", soft_wrap=True)


class SearchView(_TrialsView):
    """The plan of a search, a bar over its trials, a line for each that ends, and the results."""

    def __init__(self, folder: Path, jobs: int) -> None:
        super().__init__()
        self.folder, self.jobs = folder, jobs
        self.settings: SearchSettings | None = None

    def announce(self, plan: SearchPlan, trials: Sequence[SearchTrial]) -> None:
        """Print the search space and the number of earlier trials, then start the bar."""
        self.settings = settings = plan.settings
        objectives = (
            f"{name} ({'lower' if minimised else 'higher'} is better)"
            for name, minimised in zip(settings.objectives, settings.minimised, strict=True)
        )
        pruning = f"{settings.pruner} pruning" if settings.prunes else "no pruning"
        size = f"{settings.space.size:,} combinations" if settings.space.size else "continuous"
        facts = {
            "search": f"{plan.recipe}: {settings.trials} trials, {settings.sampler}, {pruning}, {self.jobs} at a time",
            "folder": str(self.folder),
            "objective": f"{' and '.join(objectives)}, on the validation rows",
            "space": f"{size}\n{'':<12}" + f"\n{'':<12}".join(f"{name}: {text}" for name, text in settings.space.to_text().items()),
            "fixed": ", ".join(plan.fixed) or "the recipe's settings",
        }
        budget = plan.base.lora.max_trainable
        if budget is not None:
            facts["budget"] = f"{budget:,} trainable parameters; larger models are not trained"
        show_facts(facts, self.console)
        ended = sum(trial.ended and trial.state != "rejected" for trial in trials)
        if ended:
            self.console.print(f"[dim]{ended} trials have ended in earlier calls[/]")
        self.progress.start()
        self.task = self.progress.add_task("trials", total=settings.trials, completed=ended)

    def on_trial_end(self, trial: SearchTrial) -> None:
        """Print the result of a trial."""
        assert self.settings is not None
        if trial.values:
            result = escape("  ".join(f"{name} {value}" for name, value in _values(self.settings, trial).items()))
        elif trial.state == "failed":
            result = f"[red]failed[/]: {escape(trial.reason or '')}"
        else:
            result = f"[dim]{escape(trial.reason or trial.state)}[/]"
        self.console.print(f"{trial.number:>4}  {_points(trial.points):<62} {result}", soft_wrap=True)
        if reason := trial.facts.get("restarted"):
            self.note(f"restarted: {reason}")
        if trial.state != "rejected":
            self.progress.advance(self.task)

    def summarise(self, summary: SearchSummary, page: Path) -> None:
        """Print the best trials, the importance of each setting, the paths and the next command."""
        settings, states = summary.plan.settings, [trial.state for trial in summary.trials]
        counts = ((state, states.count(state)) for state in ("complete", "pruned", "failed", "rejected", "running"))
        console.print(
            "\n" + ", ".join(f"{count} {'over budget' if state == 'rejected' else state}" for state, count in counts if count)
        )
        missing = settings.trials - sum(state != "rejected" for state in states)
        if missing > 0:
            over = states.count("rejected")
            reason = f"{over} points were over the budget" if over else "the space has no more points"
            console.print(f"[yellow]note[/]        {missing} of {settings.trials} trials were not run: {reason}")
        if summary.best:
            _show_best(summary)
        if len(summary.best) > 1 and len(settings.objectives) == 1:
            tied = ", ".join(map(str, summary.best[1:]))
            console.print(
                f"[bold]tied[/]        trial {tied} with trial {summary.best[0]}, which has the fewest trainable parameters"
            )
        for name, importance in summary.importances.items():
            if importance.clear:
                ordered = "  ".join(f"{setting} {share:.0%}" for setting, share in importance.clear.items())
                noise = f"(shuffled scores: up to {importance.noise:.0%})"
                console.print(f"[bold]importance[/]  {escape(name)}: {escape(ordered)}  {noise}", soft_wrap=True)
        console.print(f"search      {shown_path(self.folder)}", soft_wrap=True)
        console.print(f"            trials.csv{', best.yaml' if summary.best else ''}", soft_wrap=True)
        console.print(f"report      {shown_path(page)}", soft_wrap=True)
        if summary.best:
            best = shown_path(self.folder / "best.yaml", quoted=True)
            self.console.print(f"\nnext        loralab train {best}", soft_wrap=True)


def _show_best(summary: SearchSummary) -> None:
    """Print the best five trials, or with two objectives the Pareto front."""
    settings = summary.plan.settings
    trials = {trial.number: trial for trial in summary.trials if trial.values}
    numbers = list(summary.best)
    title = "Pareto front" if len(settings.objectives) > 1 else "best trials"
    if len(settings.objectives) == 1:
        sign = 1 if settings.minimised[0] else -1
        others = sorted(set(trials) - set(numbers), key=lambda number: (sign * (trials[number].values or (0,))[0], number))
        numbers = [*numbers, *others][:MAX_BEST]
    axes = [axis.name for axis in settings.space.axes]
    columns = ("trial", *_labels(settings), *(name.rpartition(".")[2] for name in axes))
    table = make_table(right=columns, title=title, title_justify="left")
    for number in numbers:
        trial = trials[number]
        table.add_row(str(number), *_values(settings, trial).values(), *(escape(trial.points[name]) for name in axes))
    console.print(table)


def show_soup(soup: Soup) -> None:
    """Print a soup's folder and its accuracy next to its members'."""
    facts: dict[str, object] = {"written": str(soup.folder), "averaged": f"{len(soup.members)} runs"}
    if soup.rank is not None:
        facts["rank"] = f"{soup.rank}, {soup.parameters:,} parameters of adapters and head"
    if not soup.accuracies:
        facts["accuracy"] = f"not computed: the runs have {NO_TEST_ROWS}"
    elif soup.accuracy is None:
        facts["accuracy"] = "not computed: the runs have different test rows, and some may be training rows of other runs"
    else:
        mean, best = sum(soup.accuracies) / len(soup.accuracies), max(soup.accuracies)
        facts["accuracy"] = f"{soup.accuracy:.4f} on {soup.test_rows:,} test rows; the runs: mean {mean:.4f}, best {best:.4f}"
    show_facts(facts)
    show_remark(soup.remark())


def _points(points: Mapping[str, object]) -> str:
    return escape("  ".join(f"{name.rpartition('.')[2]} {point}" for name, point in points.items()))


def _labels(settings: SearchSettings) -> list[str]:
    """Return the objectives' names; scores are those of the validation rows."""
    from loralab.experiments.study import COSTS

    return [name if name in COSTS else f"validation {name}" for name in settings.objectives]


def _values(settings: SearchSettings, trial: SearchTrial) -> dict[str, str]:
    """Return the text of each objective's value."""
    values = zip(_labels(settings), trial.values or (), strict=True)
    return {name: f"{value:,.0f}" if name == "trainable" else f"{value:.4f}" for name, value in values}
