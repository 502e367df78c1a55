"""`loralab experiment` on the command line."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from command_line import done, invoke
from rich.console import Console

from loralab.cli import display
from loralab.experiments.spec import KINDS
from loralab.storage.experiment_folder import read_experiment


@pytest.fixture(scope="module")
def settings(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    runs = tmp_path_factory.mktemp("runs")
    return [f"model.base={tiny}", "train.epochs=0", "train.threads=1", "--where", "here", "--runs", str(runs)]


def test_help_lists_the_kinds_with_their_questions() -> None:
    printed = done("experiment", "--help")
    assert all(f"{kind.name:<12} {kind.question}" in printed for kind in KINDS.values())
    assert "\n      loralab experiment compare runs/A runs/B" in printed


def test_without_arguments_it_describes_the_kinds() -> None:
    assert done("experiment") == "\n\n".join(kind.describe() for kind in KINDS.values()) + "\n"
    assert done("experiment", "layers") == KINDS["layers"].describe() + "\n"
    assert "did you mean 'scaling'" in invoke("experiment", "scalling").err


def test_an_experiment_is_printed_named_and_resumed(settings: list[str], topics_csv: Path) -> None:
    runs = Path(settings[-1])
    arguments = ["experiment", "grid", topics_csv, *settings, "--points", "lora.rank=2,4", "--seeds", "1"]
    printed = done(*arguments)
    assert "2 of 2 trials have a result" in printed
    assert "lora.rank: 2, 4" in printed
    assert "skipped" not in printed
    folder = runs / "grid-topics"
    assert [entry.name for entry in read_experiment(folder).records] == ["rank-2_seed-1", "rank-4_seed-1"]
    assert done(*arguments).count("skipped") == 2
    answer = invoke(*arguments, "lora.dropout=0.1")
    assert (answer.code, "holds another experiment" in answer.err) == (2, True)

    compared = done("experiment", "compare", *(folder / "trials").iterdir(), "--runs", runs, "--name", "pair")
    assert "2 of 2 trials have a result" in compared
    entries = json.loads((runs / "pair" / "experiment.json").read_text(encoding="utf-8"))["trials"]
    assert sorted(entry["run"] for entry in entries) == [f"../grid-topics/trials/rank-{r}_seed-1" for r in (2, 4)]


def test_results_in_json_and_quietly(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    arguments = ["experiment", "grid", topics_csv, *settings[:-1], tmp_path, "--points", "lora.rank=2,4", "--seeds", "1"]
    answer = invoke(*arguments, "--json")
    results = json.loads(answer.out)
    assert [trial["lora.rank"] for trial in results["trials"]] == [2, 4]
    assert all(trial["state"] == "complete" for trial in results["trials"])
    assert len(results["configurations"]) == 2
    assert results["findings"]
    assert results["report"] == str(tmp_path / "grid-topics" / "report.html")
    quiet = done(*arguments, "-q")
    assert "2 of 2 trials have a result" in quiet
    assert "skipped" not in quiet
    assert [kind["name"] for kind in json.loads(done("experiment", "--json"))] == [*KINDS]


@pytest.mark.slow
def test_search_in_json_and_quietly(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    fixed = [f"model.base={tiny}", "train.max_steps=1", "train.precision=fp32", "--runs", tmp_path, "--name", "s"]
    answer = invoke(
        "search", topics_csv, *fixed, "--over", "train.learning_rate=1e-3,1e-2", "--sampler", "grid", "--trials", 2, "--json"
    )
    results = json.loads(answer.out)
    assert (answer.code, results["folder"], results["report"]) == (0, str(tmp_path / "s"), str(tmp_path / "s" / "report.html"))
    assert [trial["state"] for trial in results["trials"]] == ["complete", "complete"]
    assert len(results["best"]) == 1
    quiet = done("search", topics_csv, *fixed, "--over", "train.learning_rate=1e-3,1e-2", "--sampler", "grid", "--trials", 2, "-q")
    assert "2 complete" in quiet
    assert "objective" not in quiet


def test_several_recipes_and_failures(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("text,label\nonly one row,World\n", encoding="utf-8")
    answer = invoke("experiment", "seeds", f"{topics_csv},{other}", *settings, "--seeds", "1")
    assert answer.code == 1
    assert "1 of 2 trials have a result" in answer.out
    assert "trials failed: 1" in answer.err
    failures = [entry.failure for entry in read_experiment(Path(settings[-1]) / "seeds-topics-other").records]
    assert failures[0] is None
    assert failures[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grid", "quickstart", "--points", "lora.rnk=2"], "did you mean 'lora.rank'"),
        (["grid", "quickstart", "--seeds", "1,x"], "give whole numbers"),
        (["seeds", "quickstrat"], "did you mean 'quickstart'"),
        (["compare", "runs/nothing", "runs/neither"], "is not a run"),
        (["seeds", "quickstart", "seed=3"], "use --seeds"),
        (["seeds", "quickstart", "data.source=nothing.csv"], "nothing.csv"),
        (["layers", "quickstart", "model.base=no/such-encoder"], "no/such-encoder"),
        (["active", "quickstart", "lora.targets=nope"], "'nope' is not a target"),
    ],
)
def test_wrong_input_is_one_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    answer = invoke("experiment", *arguments, "--runs", tmp_path)
    assert answer.code == 2
    assert message in answer.err
    assert not [*tmp_path.iterdir()]


def test_names_with_a_common_start_are_shown_in_full_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=80, record=True, file=StringIO())
    monkeypatch.setattr(display, "console", console)
    names = ("recipe-distilbert-baseline", "recipe-distilbert-study")
    columns = ("recipe", "tuning", "lora.dropout", "train.learning_rate", "seeds", "test accuracy", "95 % interval")
    display.show_rows(columns, [(name, "lora", 0.1, 5e-4, 5, 0.886, "0.8829 to 0.8891") for name in names])
    text = console.export_text()
    first = "".join(line.split(" ")[0] for line in text.splitlines())  # folded, line by line
    assert all(name in first for name in names)
    assert "…" not in text
