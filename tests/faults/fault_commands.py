"""The commands that are disturbed: where they start, how a user goes on after a fault, and what the result must equal."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROWS, NEW_ROWS = "rows.csv", "new.csv"
SETTINGS = (
    "train.epochs=2",
    "train.eval_steps=2",
    "train.batch_size=16",
    "train.threads=1",
    "lora.dropout=0.2",
    "data.max_length=32",
    f"data.source={ROWS}",
)
CLOCK = {"seconds", "samples_per_second", "timing", "memory", "folder", "name", "files", "sha256", "run_sha256", "crc32"}
"""What a clock or the place of a run decides, in scores.json and log.jsonl, and the checksums, which cover it."""
SEARCH = ("--over", "lora.rank=2,4", "--over", "train.learning_rate=1e-3,1e-2", "--sampler", "grid", "--pruner", "none")
REPORT_FILES = ("report.html", "README.md", "training_log.txt", "metrics.csv", "model_description.txt", "model_description.json")
DERIVED = frozenset((*REPORT_FILES, "figures", "exports"))
"""What `loralab report` and `loralab export` write into a run: it can be written again."""

Parts = Mapping[str, Any]
"""Parts of a result by name. Two results are equal if all parts are."""


@dataclass(frozen=True)
class Command:
    """A command of a user. {base} in the arguments is the encoder's folder.

    start: the state that it starts from. result: what it leaves. call: a function of fault_actions.py instead of a command.
    """

    name: str
    arguments: tuple[str, ...]
    result: Callable[[Path], Parts]
    start: str = "finished"
    call: str | None = None

    def with_base(self, base: Path) -> list[str]:
        return [argument.format(base=base) for argument in self.arguments]


@dataclass(frozen=True)
class Case:
    """A fault. where: op-K, the K-th file operation; time-F, a fraction of the command's duration; or a parameter of the kind."""

    command: str
    kind: str
    where: str

    def __str__(self) -> str:
        return f"{self.command}/{self.kind}/{self.where}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """Parse COMMAND/KIND/WHERE; WHERE may have slashes."""
        return cls(*text.split("/", 2))


def contents(folder: Path, without: frozenset[str] = frozenset()) -> dict[str, bytes]:
    """Return the bytes of every file of a folder but temporary ones, and of no folder or file of a name in `without`."""
    paths = ((path, path.relative_to(folder).parts) for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        "/".join(parts): path.read_bytes() for path, parts in paths if not any(p.startswith(".") or p in without for p in parts)
    }


def without_clock(value: Any) -> Any:
    """Return a JSON value without what a clock or a place decides."""
    if isinstance(value, dict):
        return {name: without_clock(item) for name, item in value.items() if name not in CLOCK}
    return [without_clock(item) for item in value] if isinstance(value, list) else value


def run_result(folder: Path) -> Parts:
    """Return what decides whether two runs are equal: weights, scores, predictions and steps."""
    if not (folder / "scores.json").is_file():
        return {"scores": None}
    parts: dict[str, Any] = {f"model/{name}": content for name, content in contents(folder / "model").items()}
    parts["scores"] = without_clock(json.loads((folder / "scores.json").read_text()))
    parts["predictions"] = (folder / "predictions.csv").read_bytes()
    log = folder / "log.jsonl"
    parts["log"] = [without_clock(json.loads(line)) for line in log.read_text().splitlines()] if log.is_file() else None
    return parts


def cut_run(box: Path) -> Parts:
    return run_result(box / "runs" / "cut")


def experiment_result(box: Path) -> Parts:
    folder = box / "runs" / "grid"
    if not (folder / "experiment.json").is_file():
        return {"experiment": None}
    trials = {path.name: run_result(path) for path in sorted((folder / "trials").iterdir()) if not path.name.startswith(".")}
    return {"experiment": without_clock(json.loads((folder / "experiment.json").read_text())), **trials}


def search_result(box: Path) -> Parts:
    """Return the trials by their settings: a search that was killed may try them in another order."""
    folder = box / "runs" / "search"
    if not (folder / "search.json").is_file():
        return {"search": None}
    with (folder / "trials.csv").open(newline="") as file:
        lines = [*csv.DictReader(file)]
    parts: dict[str, Any] = {"trials": len(lines)}
    for line in lines:
        name = f"rank {line['lora.rank']} rate {line['train.learning_rate']}"
        result = dict(run_result(folder / "trials" / f"trial-{int(line['number']):04d}"))
        result.pop("log", None)
        parts[name] = (line["state"], line["accuracy"], result)
    return parts


def predictions(box: Path) -> Parts:
    path = box / "out.csv"
    return {"out.csv": path.read_bytes() if path.is_file() else None}


def run_report(box: Path) -> Parts:
    folder = box / "runs" / "other"
    return {name: (folder / name).read_bytes() if (folder / name).is_file() else None for name in REPORT_FILES} | {
        "figures": sorted(path.name for path in (folder / "figures").glob("*.png"))
    }


def dashboard(box: Path) -> Parts:
    path = box / "runs" / "report.html"
    return {"report.html": path.read_bytes() if path.is_file() else None}


def export(box: Path) -> Parts:
    return contents(box / "runs" / "other" / "exports" / "merged", without=frozenset({"export.json"}))


def labels(box: Path) -> Parts:
    return {"labels": read_csv(box / "labels.csv")}


def feedback(box: Path) -> Parts:
    return {"feedback": read_csv(box / "feedback.csv")}


def read_csv(path: Path) -> list[list[str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.reader(file, strict=True)]


TRAIN = ("train", "quickstart", "model.base={base}", *SETTINGS, "--no-report", "--name", "cut")
EXPERIMENT = (
    "experiment",
    "grid",
    "quickstart",
    "model.base={base}",
    *SETTINGS,
    "train.epochs=1",
    "--where",
    "here",
    "--no-report",
)
COMMANDS = {
    command.name: command
    for command in (
        Command("train", (*TRAIN, "train.feature_cache=off"), cut_run),
        Command("cached", (*TRAIN, "train.feature_cache=disk", "lora.layers=2"), cut_run),
        Command("resume", (*TRAIN, "train.feature_cache=off", "--resume"), cut_run, start="half"),
        Command("overwrite", (*TRAIN, "train.feature_cache=off", "--overwrite"), cut_run, start="old"),
        Command("experiment", (*EXPERIMENT, "--points", "lora.rank=2,4", "--name", "grid"), experiment_result),
        Command(
            "search",
            (
                "search",
                "quickstart",
                "model.base={base}",
                *SETTINGS,
                "train.epochs=1",
                *SEARCH,
                "--trials",
                "4",
                "--name",
                "search",
            ),
            search_result,
        ),
        Command("predict", ("predict", "runs/other", "--file", NEW_ROWS, "--out", "out.csv", "--overwrite"), predictions),
        Command("export", ("export", "runs/other", "--to", "merged", "--overwrite"), export),
        Command("report", ("report", "runs/other"), run_report),
        Command("dashboard", ("report", "runs"), dashboard, start="old"),
        Command("labels", ("labels.csv", "a", "12"), labels, call="append_labels"),
        Command("feedback", ("feedback.csv", "a", "12"), feedback, call="append_feedback"),
        Command("serve", ("feedback.csv", "a", "12"), feedback, call="serve_feedback"),
    )
}
