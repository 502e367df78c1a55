"""Every command answers, in words and in JSON; errors are one message and an exit code, bugs keep their traceback."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import torch
from tiny import CLASSES, topics, write_csv

import loralab
from loralab import Classifier
from loralab.cli.main import main
from loralab.config import load_config
from loralab.config.loading import list_recipes, setting_names

COMMANDS = {
    "train",
    "predict",
    "evaluate",
    "describe",
    "budget",
    "recipes",
    "settings",
    "clean",
    "augment",
    "data",
    "doctor",
    "report",
    "diagnose",
    "experiment",
}


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


def invoke(*arguments: object) -> Answer:
    """Run `loralab ARGUMENTS` in this process. What is not a SystemExit passes through, as a traceback would."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    argv = mock.patch.object(sys, "argv", ["loralab", *map(str, arguments)])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), argv:
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Answer(code, out.getvalue(), err.getvalue())


def done(*arguments: object) -> str:
    """Run a command that must succeed; return what it printed."""
    answer = invoke(*arguments)
    assert (answer.code, answer.err) == (0, "")
    return answer.out


def process(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `loralab ARGUMENTS` in a process of its own."""
    command = [sys.executable, "-m", "loralab", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def settings(tiny: Path) -> list[str]:
    return [f"model.base={tiny}", "train.learning_rate=0.01", "train.precision=fp32", "--no-report"]


@pytest.fixture(scope="module")
def run(settings: list[str], topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    out = done("train", topics_csv, *settings, "train.epochs=6", "--runs", runs, "--name", "topics", "--report")
    assert "report.html" in out
    return runs / "topics"


# --- help and start ------------------------------------------------------------------------------------------------


def test_help_lists_every_command() -> None:
    out = done("--help")
    assert all(f"\n  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str) -> None:
    assert f"loralab {command} [OPTIONS]" in done(command, "--help")


def test_help_answers_in_half_a_second_without_torch() -> None:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        answer = process("--help")
        seconds.append(time.perf_counter() - began)
        assert answer.returncode == 0
    assert min(seconds) < 0.5  # the best of three: the machine may be busy


def test_no_torch_is_imported_where_none_is_needed() -> None:
    commands = [
        ["--help"],
        ["train", "--help"],
        ["recipes", "--json"],
        ["settings", "--json"],
        ["describe", "roberta-class-weights", "--json"],
        ["budget", "roberta-million-budget", "--max-trainable", "1000000", "--json"],
        ["clean", "a &amp; b"],
    ]
    script = """
import json, sys
from loralab.cli.main import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["loralab", *command]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, (command, stop.code)
    found = {"torch", "transformers", "peft", "datasets"} & set(sys.modules)
    assert not found, (command, found)
"""
    answer = subprocess.run([sys.executable, "-c", script, json.dumps(commands)], capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_no_arguments_show_the_help() -> None:
    answer = invoke()
    assert "loralab [OPTIONS] COMMAND" in answer.out + answer.err
    assert "Traceback" not in answer.err


@pytest.mark.slow
def test_installed_command_and_module_are_one() -> None:
    assert process("recipes").stdout == done("recipes")


# --- train ---------------------------------------------------------------------------------------------------------


def test_train_on_a_file_says_what_it_found_and_what_to_type_next(settings: list[str], tmp_path: Path) -> None:
    path = write_csv(tmp_path / "reviews.csv", topics(20), header=("review", "stars"))
    out = done("train", path, *settings, "train.epochs=2", "seed=7", "--runs", tmp_path / "runs")
    run = tmp_path / "runs" / "reviews-s7"  # the file's stem and the seed
    assert (run / "scores.json").is_file()
    scores = json.loads((run / "scores.json").read_text())
    assert "text: review, label: stars" in out
    assert "58 train  6 validation  16 test" in out
    assert "Business, Sci/Tech, Sports, World" in out
    counts = scores["counts"]
    for part in ("trainable", "adapter", "head", "base"):
        assert f"{counts[part]:,}" in out
    assert f"accuracy {scores['scores']['accuracy']:.4f}" in out
    assert f"macro F1 {scores['scores']['macro_f1']:.4f}" in out
    assert f"loralab predict {run} --input" in out
    assert f"loralab evaluate {run} --file" in out


def test_train_on_a_yaml_file(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"about: {{summary: notes}}\ndata: {{source: {topics_csv}}}\ntrain: {{max_steps: 1}}\nlora: {{rank: 3}}\n")
    done("train", path, *settings, "--runs", tmp_path / "runs")
    assert load_config(tmp_path / "runs" / "mine-s42" / "config.yaml").lora.rank == 3


def test_train_keeps_and_replaces_runs_as_told(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    command = ["train", topics_csv, *settings, "train.max_steps=1", "--runs", tmp_path, "--name", "mine"]
    done(*command)
    refused = invoke(*command)
    assert refused.code == 2
    assert "--name" in refused.err
    assert "--overwrite" in refused.err
    done(*command, "--overwrite")
    done(*command[:-1], "another")


def test_resume_and_overwrite_together_are_refused(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    answer = invoke("train", topics_csv, *settings, "--runs", tmp_path / "runs", "--resume", "--overwrite")
    assert (answer.code, list(tmp_path.iterdir())) == (2, [])
    assert "choose one" in answer.err


def test_remarks_are_said_at_the_start(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    out = done("train", topics_csv, *settings, "train.learning_rate=1e-5", "train.max_steps=1", "--runs", tmp_path)
    assert "train.learning_rate=1e-05 suits full fine-tuning" in out


def test_zero_epochs_show_a_result_too(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    assert "accuracy" in done("train", topics_csv, *settings, "train.epochs=0", "--runs", tmp_path)


# --- predict -------------------------------------------------------------------------------------------------------


def test_predict_shows_each_text_with_its_class(run: Path) -> None:
    texts = ["goal striker league penalty", "bank [bold]profit[/] shares"]
    out = done("predict", run, "--input", texts[0], "--input", texts[1])
    found = Classifier.load(run).predict(texts)
    lines = out.splitlines()
    for i, text in enumerate(texts):
        assert lines[2 * i].split(maxsplit=1) == [found.labels[i], text]
        assert f"{found.labels[i]} {found.confidence[i]:.3f}" in lines[2 * i + 1]


@pytest.mark.parametrize("form", ["csv", "jsonl", "submission"])
def test_predict_writes_each_format(run: Path, topics_csv: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    said = done("predict", run, "--file", topics_csv, "--out", out, "--format", form)
    assert f"120 rows classified → {out}" in said.replace("\n", "")
    lines = out.read_text().splitlines()
    assert len(lines) == 120 + (form != "jsonl")
    if form == "submission":
        with topics_csv.open() as file:
            texts = [line.rpartition(",")[0] for line in file.read().splitlines()[1:]]
        expected = Classifier.load(run).predict(texts).indices
        assert lines == ["ID,Label", *(f"{i},{index}" for i, index in enumerate(expected))]


def test_predict_replaces_out_only_when_told(run: Path, topics_csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("yesterday")
    refused = invoke("predict", run, "--file", topics_csv, "--out", out)
    assert (refused.code, out.read_text()) == (2, "yesterday")
    assert "--overwrite" in refused.err
    done("predict", run, "--file", topics_csv, "--out", out, "--overwrite")
    assert out.read_text().startswith("id,text,label,confidence")


def test_predict_takes_columns_and_a_base(run: Path, tiny: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "in.csv", [("goal", "league")], header=("head", "body"))
    done("predict", run, "--file", path, "--out", tmp_path / "out.csv", "--text", "head,body", "--base", tiny)
    assert "goal league" in (tmp_path / "out.csv").read_text()


# --- evaluate and describe -----------------------------------------------------------------------------------------


def test_evaluate_in_json_equals_the_classifiers(run: Path, topics_csv: Path) -> None:
    assert json.loads(done("evaluate", run, "--file", topics_csv, "--json")) == Classifier.load(run).evaluate(topics_csv)


def test_evaluate_in_words_shows_each_class(run: Path, topics_csv: Path) -> None:
    out = done("evaluate", run, "--file", topics_csv)
    scores = Classifier.load(run).evaluate(topics_csv)
    assert f"accuracy {scores['accuracy']:.4f}" in out
    for name in CLASSES:
        (line,) = [line for line in out.splitlines() if line.startswith(name)]
        assert line.split()[1:] == [
            *(f"{scores[f'{kind}:{name}']:.4f}" for kind in ("precision", "recall", "f1")),
            "30",
            f"{scores[f'predicted:{name}']:.0f}",
        ]


def test_evaluate_takes_columns(run: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "held.csv", [("goal league", "Sports")], header=("words", "kind"))
    assert json.loads(done("evaluate", run, "--file", path, "--text", "words", "--label", "kind", "--json"))["true:Sports"] == 1


def test_describe_a_run_in_json_and_words(run: Path) -> None:
    written = json.loads((run / "scores.json").read_text())
    facts = json.loads(done("describe", run, "--json"))
    assert facts["run"] == str(run)
    for part in ("base", "adapter", "head", "trainable"):
        assert facts["parameters"][part] == written["counts"][part]
    assert facts["test scores"]["accuracy"] == written["scores"]["accuracy"]
    assert facts["result"]["steps"] == written["steps"]
    out = done("describe", run)
    assert f"{written['counts']['adapter']:,}" in out
    assert "accuracy" in out


def test_describe_says_when_a_run_is_not_complete(run: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    assert json.loads(done("describe", tmp_path / "cut", "--json"))["result"] == "not complete"


def test_describe_of_a_run_needs_none_of_its_data(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    data = tmp_path / "mine.csv"
    data.write_bytes(topics_csv.read_bytes())
    done("train", data, *settings, "train.max_steps=1", "--runs", tmp_path, "--name", "run")
    before = done("describe", tmp_path / "run", "--json")
    data.unlink()
    assert done("describe", tmp_path / "run", "--json") == before


def test_describe_does_not_ignore_settings_given_for_a_run(run: Path) -> None:
    before = json.loads(done("describe", run, "--json"))
    answer = invoke("describe", run, "lora.rank=2", "--json")
    assert answer.code == 2 or json.loads(answer.out)["parameters"]["adapter"] != before["parameters"]["adapter"]


# --- report --------------------------------------------------------------------------------------------------------


def test_train_leaves_a_report_and_report_makes_it_again(run: Path) -> None:
    page = run / "report.html"
    first = page.read_bytes()
    page.unlink()
    assert done("report", run).split() == ["report", str(page)]
    assert page.read_bytes() == first


def test_train_leaves_no_report_where_none_is_wanted(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    out = done("train", topics_csv, *settings, "train.max_steps=1", "--runs", tmp_path, "--name", "plain")
    assert (tmp_path / "plain" / "scores.json").is_file()
    assert "report.html" not in out
    assert not (tmp_path / "plain" / "report.html").exists()


def test_report_of_something_else_is_refused(tmp_path: Path) -> None:
    answer = invoke("report", tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert "is no run and no experiment, and holds none" in answer.err


# --- diagnose ------------------------------------------------------------------------------------------------------


def test_diagnose_says_what_the_numbers_support_and_explains_texts(run: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "other.csv", topics(8, seed=3), header=("body", "topic"))
    out = done(
        "diagnose", run, "--file", path, "--text", "body", "--label", "topic", "--rows", 20, "--input", "[goal] for the bank"
    )
    for line in ("Hypotheses", "Robustness", "20 texts: ", "[goal] for the bank", "for it:", "against it:"):
        assert line in out
    assert str(run / "diagnosis.json") in out.replace("\n", "")
    found = json.loads(done("diagnose", run, "--json"))
    assert found == json.loads((run / "diagnosis.json").read_text(encoding="utf-8"))
    assert found["sections"][0]["title"] == "Hypotheses"


def test_diagnose_of_what_is_no_run_is_one_message(tmp_path: Path) -> None:
    answer = invoke("diagnose", tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("loralab: cannot read")


# --- budget, recipes, settings, clean, data, doctor ----------------------------------------------------------------


def test_budget_in_json_lists_choices_that_fit() -> None:
    found = json.loads(done("budget", "roberta-million-budget", "--max-trainable", "1000000", "--json"))
    assert all(isinstance(fit, dict) for fit in found), f"not objects: {found[0]!r}"
    by_targets = {tuple(fit["targets"]): fit for fit in found if fit["layers"] is None}
    assert (by_targets["value",]["rank"], by_targets["value",]["trainable"]) == (22, 999_172)
    assert (by_targets["query", "value"]["rank"], by_targets["query", "value"]["trainable"]) == (11, 999_172)
    assert all(fit["trainable"] <= 1_000_000 for fit in found)
    assert [fit["trainable"] for fit in found] == sorted((fit["trainable"] for fit in found), reverse=True)


def test_budget_in_words_says_what_is_left() -> None:
    out = done("budget", "roberta-million-budget", "--max-trainable", "1000000")
    assert any(line.split() == ["value", "all", "22", "999,172", "828"] for line in out.splitlines())


def test_budget_reads_settings() -> None:
    out = done("budget", "quickstart", "model.base=roberta-base", "lora.layers=9-11", "--max-trainable", "1000000")
    rows = [line.split() for line in out.splitlines()[1:]]
    assert {row[1] for row in rows} == {"9-11"}
    assert ["query,value", "9-11", "44", "999,172", "828"] in rows  # 593,668 of the head + 44 x 3 x 2 x (768 + 768)


def test_recipes_in_json_and_words() -> None:
    found = json.loads(done("recipes", "--json"))
    assert [recipe["name"] for recipe in found] == [recipe.name for recipe in list_recipes()]
    assert all(set(recipe) == {"name", "summary", "source", "claim"} and all(recipe.values()) for recipe in found)
    out = done("recipes")
    assert all(recipe["name"] in out for recipe in found)


def test_settings_in_json_and_words() -> None:
    found = json.loads(done("settings", "--json"))
    assert list(found) == setting_names()
    assert found["lora.rank"].startswith("8")
    out = done("settings")
    assert all(name in out for name in found)


def test_clean_shows_each_step() -> None:
    out = done("clean", "Oil #39;s high: lt;b gt;$50 lt;/b gt; see http://example.org [x]")
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert [line[0] for line in lines] == ["before", "escapes", "html", "urls", "whitespace"]
    assert lines[-1][1] == repr("Oil's high: $50 see [x]")
    assert done("clean", "a  b", "--steps", "whitespace").splitlines()[-1].split(maxsplit=1)[1] == repr("a b")


def test_augment_shows_what_each_technique_makes_of_a_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = ["augment", "Oil prices [up] again", "--technique", "deletion", "--technique", "swap", "--strength", "0.3"]
    lines = [line.split(maxsplit=1) for line in done(*command).splitlines()]
    assert [line[0] for line in lines] == ["before", "deletion", "swap"]
    assert lines[0][1] == "Oil prices [up] again"
    assert set(lines[1][1].split()) < set(lines[0][1].split())
    assert sorted(lines[2][1].split()) == sorted(lines[0][1].split())
    assert lines == [line.split(maxsplit=1) for line in done(*command).splitlines()]
    assert any(done(*command) != done(*command, "--seed", str(seed)) for seed in range(3))
    assert "did you mean 'swap'?" in invoke("augment", "a b", "--technique", "swop").err
    monkeypatch.setattr("loralab.data.wordnet._folders", lambda: iter([tmp_path]))
    answer = invoke("augment", "a b")
    assert (answer.code, "wordnet-base" in answer.err) == (2, True)
    answer = invoke("augment", "a b", "--technique", "back_translation", "--back-translation", "one")
    assert (answer.code, "two Marian checkpoints" in answer.err) == (2, True)
    answer = invoke("augment", "a b", "--technique", "swap", "--back-translation", "one,two")
    assert (answer.code, "and the technique back_translation" in answer.err) == (2, True)


def test_data_reports_in_json_and_words(tmp_path: Path) -> None:
    rows = [*topics(12), ("", "World"), ("a goal", "Sports"), ("a goal", "Sports"), ("profit", "Busines")]
    path = write_csv(tmp_path / "rows.csv", rows)
    (report,) = json.loads(done("data", path, "--json"))
    assert (report["path"], report["rows"]) == (str(path), 52)
    assert report["classes"] == {"Busines": 1, "Business": 12, "Sci/Tech": 12, "Sports": 14, "World": 13}
    found = {finding["what"]: finding["rows"] for finding in report["findings"]}
    assert found["no text"] == [48]
    assert found["repeats an earlier row"] == [50]
    assert found["label 'Busines' looks like 'Business'"] == [51]
    out = done("data", path)
    assert all(what in out for what in found)
    assert "rows 48" in out


def test_data_compares_with_a_test_file(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", topics(12))
    test = write_csv(tmp_path / "test.csv", [("something new", "World"), topics(12)[3]])
    reports = json.loads(done("data", train, "--test", test, "--json"))
    assert [finding["rows"] for finding in reports[1]["findings"] if "is also in the training rows" in finding["what"]] == [[1]]


def test_data_on_the_sample_finds_both_parts() -> None:
    reports = json.loads(done("data", "sample", "--json"))
    assert [report["rows"] for report in reports] == [800, 400]
    assert [report["classes"] for report in reports] == [dict.fromkeys(sorted(CLASSES), 200), dict.fromkeys(sorted(CLASSES), 100)]


def test_doctor_in_json_and_words() -> None:
    facts = json.loads(done("doctor", "--json"))
    assert facts["loralab"] == loralab.__version__
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0] or facts["versions"]["torch"] == torch.__version__
    assert facts["cores"] == os.cpu_count()
    assert facts["minilm"] == "installed"
    assert "precision" in done("doctor")


# --- exit codes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["trian"], ["train"], ["train", "quickstart", "--nmae", "x"], ["predict"], ["evaluate", "x"], ["budget", "quickstart"]],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_no_traceback(arguments: list[str]) -> None:
    answer = invoke(*arguments)
    assert answer.code == 2
    assert answer.err
    assert "Traceback" not in answer.err


@pytest.mark.slow
def test_error_in_a_process_of_its_own_is_one_message_on_stderr(tmp_path: Path) -> None:
    answer = process("train", "quickstrat", cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("loralab: 'quickstrat' is neither a recipe nor a file; did you mean 'quickstart'?\n")
    assert "Traceback" not in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_failed_run_exits_with_1(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    answer = invoke("train", topics_csv, *settings, "train.learning_rate=1e30", "train.warmup=0", "--runs", tmp_path)
    assert answer.code == 1
    assert answer.err.startswith("loralab: the loss is ")
    assert "Traceback" not in answer.err


def test_bug_keeps_its_traceback(settings: list[str], topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("loralab.pipeline.run_training", broken)
    with pytest.raises(ZeroDivisionError):
        invoke("train", topics_csv, *settings, "--runs", tmp_path)


def test_ctrl_c_outside_training_exits_with_1_in_one_line(
    settings: list[str], topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("loralab.training.setup.load_splits", interrupted)
    answer = invoke("train", topics_csv, *settings, "--runs", tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []
    assert answer.code == 1
    assert answer.err.startswith("loralab: interrupted")
    assert answer.err.count("\n") == 1


def test_ctrl_c_after_training_does_not_say_that_nothing_was_written(
    settings: list[str], topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("loralab.pipeline.distributed_logits", interrupted)  # while the test rows are scored
    answer = invoke("train", topics_csv, *settings, "train.max_steps=1", "--runs", tmp_path, "--name", "cut")
    assert answer.code == 1
    assert (tmp_path / "cut" / "model").is_dir()
    assert "nothing was written" not in answer.err


@pytest.mark.slow
def test_reader_that_leaves_early_is_no_error() -> None:
    script = f"{sys.executable} -m loralab settings | head -n 1"
    answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert answer.stdout.startswith("seed")
    assert answer.stderr == ""


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "describe", "budget", "clean", "augment", "data"])
def test_help_shows_its_examples_a_line_each(command: str) -> None:
    shown = [line.strip() for line in done(command, "--help").splitlines()]
    assert any(line.startswith(f"loralab {command} ") for line in shown)
    assert not any("\\b" in line for line in shown)


def test_the_training_log_is_told_again_from_the_run(run: Path) -> None:
    assert done("describe", run, "--log") == (run / "training_log.txt").read_text(encoding="utf-8")
