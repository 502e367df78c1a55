"""A few rows of each class: the few-shot recipe and SetFit (Tunstall et al. 2022) on the same encoder, draws and test rows.

    python -m benchmarks.few_shot --data train.csv --test test.csv [--shots 8 50] [--draws 5] [--test-limit N] [--names-only]
                                  [--soup 3] [--setfit-python PYTHON] [--setfit-draws 5] [--json FOLDER] [KEY=VALUE ...]

Ours reads class descriptions that the recipe holds; SetFit has no place for any, so `--names-only` trains ours from the bare
class names too. `--soup` averages so many seeds of each draw (`loralab soup`). Seconds are of training alone, from a loaded encoder
and tokenized texts to a classifier. SetFit wants older packages than ours, hence a Python of its own: `pip install torch==2.13.0
setfit==1.2 'transformers<5'`. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import measure
from loralab import Config, load_config, run_training
from loralab.data.splits import load_splits
from loralab.inference.model_soup import make_soup
from loralab.model.checkpoints import resolve_base
from loralab.training.callbacks import Event, StepEnd

SETFIT = Path(__file__).with_name("setfit_draw.py")


@dataclass(frozen=True)
class Outcome:
    """One draw: how it was classified, accuracy on the test rows, and seconds of training."""

    way: str
    shots: int
    draw: int
    accuracy: float
    seconds: float


def ours(way: str, config: Config, folder: Path) -> Outcome:
    """Train and test by the ordinary route; the clock runs from the plan to the last step."""
    ticks: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepEnd):
            ticks.append(time.perf_counter())

    summary = run_training(
        config, folder=folder, overwrite=True, announce=lambda plan: ticks.append(time.perf_counter()), listeners=[listen]
    )
    shots = config.data.shots_per_class if config.train.epochs else 0
    return Outcome(way, shots or 0, config.data.split_seed, summary.scores["accuracy"], ticks[-1] - ticks[0])


def souped(config: Config, members: int, folder: Path) -> Outcome:
    """Train several seeds of one draw, and average their weights, which takes a second besides."""
    seeds = [config.override(f"seed={config.seed + 1000 * i}", f"name=member-{i}") for i in range(members)]
    trained = [ours(f"soup of {members}", each, folder) for each in seeds]
    soup = make_soup([folder / str(each.name) for each in seeds], folder / "soup", overwrite=True)
    assert soup.accuracy is not None
    return replace(trained[0], accuracy=soup.accuracy, seconds=sum(outcome.seconds for outcome in trained))


def setfit(config: Config, python: str, folder: Path, threads: int | None) -> Outcome:
    """Train and test SetFit in its own Python, on the rows that `config` draws."""
    splits, _ = load_splits(config.data)
    work = {
        "encoder": str(resolve_base(config.model.base).folder),
        "train": [list(splits.train.texts), splits.train.require_labels().tolist()],
        "test": [list(splits.test.texts), splits.test.require_labels().tolist()],
        "seed": config.seed,
        "threads": threads,
    }
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    subprocess.run([python, str(SETFIT), str(folder / "work.json"), str(folder / "found.json")], check=True, cwd=folder)
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return Outcome("SetFit", config.data.shots_per_class or 0, config.data.split_seed, found["accuracy"], found["seconds"])


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--classes", default="World,Sports,Business,Sci/Tech", help="names, where the file numbers its labels")
    parser.add_argument("--shots", type=int, nargs="+", default=[8, 50])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--test-limit", type=int)
    parser.add_argument("--names-only", action="store_true", help="train from the bare class names too")
    parser.add_argument("--soup", type=int, default=3, help="average so many seeds of each draw too; 1: none")
    parser.add_argument("--setfit-python")
    parser.add_argument("--setfit-draws", type=int, help="default: as many as --draws")


def run(options: argparse.Namespace) -> measure.Report:
    files = [f"data.source={options.data}", f"data.classes={options.classes}", f"model.base={options.base}"]
    files += [f"data.test={options.test}"] if options.test else []
    files += [f"data.max_test_samples={options.max_test_samples}"] if options.max_test_samples else []
    config = load_config("few-shot", [*files, *options.settings])
    outcomes: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print(
            f"{outcome.way}, {outcome.shots} shots, draw {outcome.draw}: {outcome.accuracy:.4f}, {outcome.seconds:.1f} s",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        note(ours("zero-shot", config.override("train.epochs=0", "data.shots_per_class=1"), folder))
        for shots in options.shots:
            for draw in range(options.draws):
                drawn = config.override(f"data.shots_per_class={shots}", f"data.split_seed={draw}", f"seed={draw}")
                note(ours("loralab", drawn, folder))
                if options.names_only:
                    note(ours("names only", drawn.override("data.descriptions="), folder))
                if options.soup > 1:
                    note(souped(drawn, options.soup, folder))
                if options.setfit_python and draw < (options.draws if options.setfit_draws is None else options.setfit_draws):
                    note(setfit(drawn, options.setfit_python, folder, config.train.threads))
    return summarise(outcomes)


def summarise(outcomes: list[Outcome]) -> measure.Report:
    """One line for each way and number of shots: its draws' accuracies, their mean and deviation, and seconds of training."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(f"{outcome.way} {outcome.shots or ''}".rstrip(), []).append(outcome)
    values = {way: [outcome.accuracy for outcome in found] for way, found in groups.items()}
    columns = {
        "mean": {way: statistics.mean(scores) for way, scores in values.items()},
        "deviation": {way: statistics.stdev(scores) for way, scores in values.items() if len(scores) > 1},
        "seconds": {way: statistics.mean(outcome.seconds for outcome in found) for way, found in groups.items() if found[0].shots},
    }
    return measure.Report("accuracy", values, (), columns)


BENCHMARK = measure.Benchmark(
    "few-shot", __doc__ or "", add_options, run, {"shots": [8], "draws": 1, "max_test_samples": 64, "soup": 2}
)

if __name__ == "__main__":
    BENCHMARK.main()
