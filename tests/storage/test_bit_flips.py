"""A flipped bit in any file of a run is named by every command that reads the file, or changes nothing.

LORALAB_FLIPS sets the number of flips: 2,000 by `make flips`.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import topics, write_csv

from loralab.config import load_config
from loralab.diagnostics.diagnose import diagnose
from loralab.errors import LoralabError
from loralab.inference.classifier import Classifier
from loralab.info import describe
from loralab.pipeline import run_training
from loralab.report.run_data import read_run
from loralab.results import Run
from loralab.storage import run_folder, run_predictions
from loralab.verify import verify

FLIPS = int(os.environ.get("LORALAB_FLIPS", "120"))
FILES = {
    "config.yaml",
    "environment.json",
    "data.json",
    "log.jsonl",
    "predictions.csv",
    "scores.json",
    "diagnosis.json",
    "model/adapter_config.json",
    "model/adapter_model.safetensors",
    "model/config.json",
    "model/head.safetensors",
    "model/loralab.json",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
}
TEXTS = ["goal striker league", "profit shares bank", "telescope robot"]


@pytest.fixture(scope="module")
def runs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two complete, diagnosed runs of the same kind."""
    folder = tmp_path_factory.mktemp("flips")
    rows = write_csv(folder / "rows.csv", topics(25))
    settings = [f"model.base={tiny}", "train.epochs=2", "train.precision=fp32", "data.test=0.3", "train.eval_steps=2"]
    settings += ["model.pooling=mean", "model.head=linear"]
    for name, seed in (("a", 1), ("b", 2)):
        diagnose(run_training(load_config(rows, [*settings, f"seed={seed}"]), name=name, folder=folder / "runs").folder)
    return folder / "runs"


def read_everything(run: Path) -> list[Any]:
    """What describe, report, export and predict read of a run."""
    data = read_run(run)
    assert data.predictions is not None
    report = [data.config, data.environment, data.steps, data.evaluations, data.result, data.diagnosis, data.model]
    summary = [data.predictions.confusion.tolist(), data.predictions.top_errors]
    logits = Classifier.load(run, precision="fp32").logits(TEXTS).tolist()
    return [describe(str(run)), *report, *summary, run_predictions.read_test_texts(run), Run(run).notices, logits]


def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(LoralabError) as caught:
        act()
    return str(caught.value)


def test_a_flipped_bit_is_named_or_changes_nothing(runs: Path) -> None:
    run, source = runs / "a", random.Random(0)
    assert {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} - derived(run) == FILES
    before, silent, messages = read_everything(run), [], dict[tuple[str, int, int], str]()
    for number in range(FLIPS):
        name = sorted(FILES)[number % len(FILES)]
        path = run / name
        content = path.read_bytes()
        position, bit = source.randrange(len(content)), source.randrange(8)
        flip(path, position, bit)
        try:
            if read_everything(run) != before:
                silent.append((name, position, bit))
        except LoralabError as error:
            messages[name, position, bit] = str(error)
        finally:
            path.write_bytes(content)
    assert silent == []
    assert [place for place, message in messages.items() if Path(place[0]).name not in message] == []
    assert len(messages) >= 0.9 * FLIPS  # the others are spaces between the values of a JSON file
    assert read_everything(run) == before


def derived(run: Path) -> set[str]:
    """The files that `loralab report` writes again at any time."""
    kept = {"report.html", "README.md", "training_log.txt", "model_description.txt", "model_description.json", "metrics.csv"}
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.name in kept or path.suffix == ".png"}


@pytest.mark.parametrize("name", sorted(FILES - {"scores.json"}))
@pytest.mark.parametrize("damage", ["of another run", "missing", "empty", "half"])
def test_a_file_that_was_exchanged_or_cut_or_deleted_is_named(runs: Path, tmp_path: Path, name: str, damage: str) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "a")
    content, other = (run / name).read_bytes(), (runs / "b" / name).read_bytes()
    if (damage == "of another run" and content == other) or (damage == "missing" and name == "diagnosis.json"):
        return  # nothing changes; nothing says that a run was diagnosed
    if damage == "missing":
        (run / name).unlink()
    else:
        (run / name).write_bytes({"of another run": other, "empty": b"", "half": content[: len(content) // 2]}[damage])
    assert Path(name).name in refusal(lambda: read_everything(run))
    (checked,) = verify(run)
    assert checked.state == "damaged"
    assert Path(name).name in checked.problem


def test_a_model_of_another_run_is_refused(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "a")
    shutil.rmtree(run / "model")
    shutil.copytree(runs / "b" / "model", run / "model")
    assert "loralab.json" in refusal(lambda: Classifier.load(run))
    assert Classifier.load(run / "model").classes


def test_a_damaged_line_of_an_incomplete_runs_log_is_named_and_a_cut_one_dropped(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "a")
    (run / "scores.json").unlink()
    log = (run / "log.jsonl").read_bytes()
    events = run_folder.read_log(run)
    flip(run / "log.jsonl", len(log) // 2, 3)
    assert "log.jsonl is damaged in line" in refusal(lambda: run_folder.read_log(run))
    (run / "log.jsonl").write_bytes(log[:-20])
    assert run_folder.read_log(run) == events[:-1]


def test_an_intact_run_is_verified_and_a_file_of_a_stranger_in_its_model_is_refused(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "a")
    (checked,) = verify(run)
    assert (checked.kind, checked.state, checked.files) == ("run", "intact", 7 + 7)
    (run / "model" / "vocab.txt").write_text("[PAD]\n")
    assert "vocab.txt does not belong to" in refusal(lambda: Classifier.load(run))
