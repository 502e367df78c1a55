"""Few-shot accuracy: the few-shot recipe and SetFit (Tunstall et al. 2022) on the same encoder, training samples and test rows.

    python -m benchmarks.few_shot --data train.csv --test test.csv [--shots 8 50] [--draws 5] [--max-test-samples N] [--names-only]
                                  [--soup 3] [--setfit-python PYTHON] [--setfit-draws 5] [--json FOLDER] [KEY=VALUE ...]

loralab uses the class descriptions of the recipe. SetFit cannot, so `--names-only` also trains loralab with the class names alone.
`--soup` averages the weights of several seeds (`loralab soup`). Seconds are of training alone, from a loaded encoder and tokenized
texts. SetFit needs older packages, hence a Python of its own: `pip install torch==2.13.0 setfit==1.2 'transformers<5'`. Run it on
an otherwise idle machine.
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
from loralab import Config, load_config
from loralab.data.splits import load_splits
from loralab.inference.model_soup import make_soup
from loralab.model.checkpoints import resolve_base
from loralab.pipeline import run_training
from loralab.training.callbacks import Event, StepEnd

SETFIT = Path(__file__).with_name("setfit_draw.py")


@dataclass(frozen=True)
class Outcome:
    """One training sample of rows. way: what classified; accuracy: on the test rows; seconds: of training."""

    way: str
    shots: int
    draw: int
    accuracy: float
    seconds: float


def ours(way: str, config: Config, folder: Path) -> Outcome:
    """Train and test a run. Its time is that from the plan to the last step."""
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
    """Train several seeds of one training sample, and average their weights."""
    seeds = [config.override(f"seed={config.seed + 1000 * i}", f"name=member-{i}") for i in range(members)]
    trained = [ours(f"soup of {members}", member, folder) for member in seeds]
    soup = make_soup([folder / str(member.name) for member in seeds], folder / "soup", overwrite=True)
    assert soup.accuracy is not None
    return replace(trained[0], accuracy=soup.accuracy, seconds=sum(outcome.seconds for outcome in trained))


def setfit(config: Config, python: str, folder: Path, threads: int | None) -> Outcome:
    """Train and test SetFit in its own Python, on the rows of `config`."""
    splits, _ = load_splits(config.data)
    work = {
        "encoder": str(resolve_base(config.model.base).folder),
        "train": [list(splits.train.texts), splits.train.require_labels().tolist()],
        "test": [list(splits.test.texts), splits.test.require_labels().tolist()],
        "seed": config.seed,
        "threads": threads,
    }
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    subprocess.run([python, str(SETFIT), str(folder / "work.json"), str(folder / "result.json")], check=True, cwd=folder)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return Outcome("SetFit", config.data.shots_per_class or 0, config.data.split_seed, result["accuracy"], result["seconds"])


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument(
        "--classes", default="World,Sports,Business,Sci/Tech", help="class names, for a file with numbers as labels"
    )
    parser.add_argument("--shots", type=int, nargs="+", default=[8, 50])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--max-test-samples", type=int)
    parser.add_argument("--names-only", action="store_true", help="also train with class names instead of descriptions")
    parser.add_argument("--soup", type=int, default=3, help="number of seeds to average; 1: no average")
    parser.add_argument("--setfit-python")
    parser.add_argument("--setfit-draws", type=int, help="default: --draws")


def run(options: argparse.Namespace) -> measure.Report:
    files = [f"data.source={options.data}", f"data.classes={options.classes}", f"model.base={options.base}"]
    files += [f"data.test={options.test}"] if options.test else []
    files += [f"data.max_test_samples={options.max_test_samples}"] if options.max_test_samples else []
    config = load_config("few-shot", [*files, *options.settings])
    outcomes: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print(
            f"{outcome.way}, {outcome.shots} shots, draw {outcome.draw}: {outcome.accuracy:.4f}, {outcome.seconds:.1f} s",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report(ours("zero-shot", config.override("train.epochs=0", "data.shots_per_class=1"), folder))
        for shots in options.shots:
            for draw in range(options.draws):
                drawn = config.override(f"data.shots_per_class={shots}", f"data.split_seed={draw}", f"seed={draw}")
                report(ours("loralab", drawn, folder))
                if options.names_only:
                    report(ours("names only", drawn.override("data.descriptions="), folder))
                if options.soup > 1:
                    report(souped(drawn, options.soup, folder))
                if options.setfit_python and draw < (options.draws if options.setfit_draws is None else options.setfit_draws):
                    report(setfit(drawn, options.setfit_python, folder, config.train.threads))
    return summarize(outcomes)


def summarize(outcomes: list[Outcome]) -> measure.Report:
    """Return one line for each way and number of shots: accuracies, their mean and deviation, and seconds of training."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(f"{outcome.way} {outcome.shots or ''}".rstrip(), []).append(outcome)
    values = {way: [outcome.accuracy for outcome in group] for way, group in groups.items()}
    columns = {
        "mean": {way: statistics.mean(scores) for way, scores in values.items()},
        "deviation": {way: statistics.stdev(scores) for way, scores in values.items() if len(scores) > 1},
        "seconds": {way: statistics.mean(outcome.seconds for outcome in group) for way, group in groups.items() if group[0].shots},
    }
    return measure.Report("accuracy", values, (), columns)


BENCHMARK = measure.Benchmark(
    "few-shot", __doc__ or "", add_options, run, {"shots": [8], "draws": 1, "max_test_samples": 64, "soup": 2}
)

if __name__ == "__main__":
    BENCHMARK.main()
