"""Commands print words or JSON; an error is one message and an exit code, a bug keeps its traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import all_commands, done, invoke, process
from tiny import CLASSES, topics, write_csv

import loralab
from loralab import Classifier
from loralab.config import load_config
from loralab.config.loading import list_recipes, setting_names
from loralab.storage.run_folder import read_diagnosis

COMMANDS = all_commands()
REPORTING = [command for command in COMMANDS if command not in ("config schema", "serve", "ui")]  # JSON only; servers


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
    assert all(f"\n  {command.split()[0]} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help_with_examples_and_meanings(command: str) -> None:
    out = done(*command.split(), "--help")
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0].startswith(f"Usage: loralab {command} [OPTIONS]")
    assert any(line.startswith(f"loralab {command}") for line in lines[1:])
    assert "\\b" not in out
    assert all(parameter.help for parameter in COMMANDS[command].params)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_one_line_that_fits_the_list(command: str) -> None:
    (line,) = [line for line in done(*command.split()[:-1], "--help").splitlines() if line.startswith(f"  {command.split()[-1]} ")]
    assert line.endswith(".")
    assert not line.endswith("...")


@pytest.mark.parametrize("command", REPORTING)
def test_commands_that_report_print_json(command: str) -> None:
    assert "--json" in done(*command.split(), "--help")


def test_version() -> None:
    assert done("--version") == f"loralab {loralab.__version__}\n"


def test_shell_completion_is_offered() -> None:
    assert "--install-completion" in done("--help")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "completed"),
    [("loralab tra", "train"), ("loralab train quick", "quickstart"), ("loralab train quickstart lora.ra", "lora.rank=")],
)
def test_the_shell_completes_commands_recipes_and_settings(words: str, completed: str) -> None:
    variables = {"_LORALAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'loralab'; from loralab.cli.main import main; main()"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **variables})
    assert completed in answer.stdout.split()


def test_no_arguments_show_the_help() -> None:
    answer = invoke()
    assert "loralab [OPTIONS] COMMAND" in answer.out + answer.err
    assert "Traceback" not in answer.err


@pytest.mark.slow
def test_installed_command_and_module_print_the_same() -> None:
    assert process("recipes").stdout == done("recipes")


# --- train ---------------------------------------------------------------------------------------------------------


def test_train_prints_the_plan_the_scores_and_the_next_commands(settings: list[str], tmp_path: Path) -> None:
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


def test_train_replaces_a_run_only_with_overwrite(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
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


def test_remarks_are_printed(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    out = done("train", topics_csv, *settings, "train.learning_rate=1e-5", "train.max_steps=1", "--runs", tmp_path)
    assert "train.learning_rate=1e-05 suits full fine-tuning" in out


def test_zero_epochs_print_scores(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    assert "accuracy" in done("train", topics_csv, *settings, "train.epochs=0", "--runs", tmp_path)


def test_train_in_json(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    answer = invoke("train", topics_csv, *settings, "train.max_steps=1", "--runs", tmp_path, "--name", "x", "--json")
    summary = json.loads(answer.out)
    written = json.loads((tmp_path / "x" / "scores.json").read_text())
    assert summary["scores"] == written["scores"]
    assert (summary["folder"], summary["report"]) == (str(tmp_path / "x"), None)
    assert "validation" in answer.err  # the progress


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_prints_results_only(settings: list[str], topics_csv: Path, tmp_path: Path, place: str) -> None:
    command = ["train", topics_csv, *settings, "train.max_steps=1", "--runs", tmp_path]
    out = done("-q", *command) if place == "before" else done(*command, "--quiet")
    assert "accuracy" in out
    assert not any(word in out for word in ("encoder", "validation", "next", "note"))


def test_verbose_prints_settings_and_tracebacks(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    out = done("train", topics_csv, *settings, "train.max_steps=1", "--runs", tmp_path, "-v")
    assert "train.max_steps=1" in out
    answer = invoke("-v", "train", "quickstrat")
    assert "Traceback" in answer.err
    assert answer.err.splitlines()[-1].startswith(" ") or "loralab: 'quickstrat'" in answer.err
    assert "Traceback" not in invoke("train", "quickstrat").err  # options end with their command


def test_the_option_name_beats_the_files_name(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: from-file\ndata: {{source: {topics_csv}}}\ntrain: {{max_steps: 1}}\n")
    done("train", path, *settings, "--runs", tmp_path / "runs")
    done("train", path, *settings, "--runs", tmp_path / "runs", "--name", "from-option")
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == ["from-file", "from-option"]


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = "\x1b[3"
    forced = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "100"}
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colour in process("check", "sample", env=forced).stdout
    assert colour not in process("check", "sample", env={**forced, "NO_COLOR": "1"}).stdout


# --- predict -------------------------------------------------------------------------------------------------------


def test_predict_prints_each_text_with_its_class(run: Path) -> None:
    texts = ["goal striker league penalty", "bank [bold]profit[/] shares"]
    out = done("predict", run, "--input", texts[0], "--input", texts[1])
    result = Classifier.load(run).predict(texts)
    lines = out.splitlines()
    for i, text in enumerate(texts):
        assert lines[2 * i].split(maxsplit=1) == [result.labels[i], text]
        assert f"{result.labels[i]} {result.confidence[i]:.3f}" in lines[2 * i + 1]


@pytest.mark.parametrize("form", ["csv", "jsonl", "submission"])
def test_predict_writes_each_format(run: Path, topics_csv: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    printed = done("predict", run, "--file", topics_csv, "--out", out, "--format", form)
    assert f"120 rows classified → {out}" in printed.replace("\n", "")
    lines = out.read_text().splitlines()
    assert len(lines) == 120 + (form != "jsonl")
    if form == "submission":
        with topics_csv.open() as file:
            texts = [line.rpartition(",")[0] for line in file.read().splitlines()[1:]]
        expected = Classifier.load(run).predict(texts).indices
        assert lines == ["ID,Label", *(f"{i},{index}" for i, index in enumerate(expected))]


def test_predict_replaces_out_only_with_overwrite(run: Path, topics_csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("yesterday")
    refused = invoke("predict", run, "--file", topics_csv, "--out", out)
    assert (refused.code, out.read_text()) == (2, "yesterday")
    assert "--overwrite" in refused.err
    done("predict", run, "--file", topics_csv, "--out", out, "--overwrite")
    assert out.read_text().startswith("id,text,label,confidence")


def test_predict_prints_what_it_read_and_decided(run: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_text("id;text;more\n007;goal;=1\n008;;x\n")
    arguments = ("predict", run, "--file", path, "--out", out, "--keep-columns", "--overwrite")
    lines = done(*arguments).splitlines()
    assert lines[0].split() == ["read", "csv,", "delimiter", "';',", "header", "True,", "encoding", "'utf-8'"]
    assert lines[1].split() == ["columns", "text:", "text,", "id:", "id"]
    assert lines[-2].startswith("predicted   ")
    assert [line.partition("(")[0].split()[:5] for line in lines[2:-2]] == [
        ["note", "columns", "are", "divided", "by"],
        ["note", "1", "row", "without", "text,"],
        ["note", "1", "cell", "begins", "like"],
    ]
    assert out.read_text().splitlines()[1].startswith("007,goal,'=1,")
    done(*arguments, "--raw")
    assert out.read_text().splitlines()[1].startswith("007,goal,=1,")
    printed = invoke(*arguments, "--json")
    assert json.loads(printed.out)["read"]["delimiter"] == ";"
    assert "without text" in printed.err
    assert done(*arguments, "-q") == f"2 rows classified → {out}\n"


def test_predict_writes_a_submission_like_a_template(run: Path, tmp_path: Path) -> None:
    path, template, out = tmp_path / "in.csv", tmp_path / "sample.csv", tmp_path / "out.csv"
    path.write_text("key,text\n007,goal\n008,bank\n")
    template.write_text("key,topic\n008,World\n007,World\n")
    done("predict", run, "--file", path, "--template", template, "--out", out)
    goal, bank = Classifier.load(run).predict(["goal", "bank"]).labels
    assert out.read_text() == f"key,topic\n008,{bank}\n007,{goal}\n"
    done("predict", run, "--file", path, "--id-column", "key", "--label-values", "index", "--out", out, "--overwrite")
    assert out.read_text().splitlines()[0] == "key,label"
    refused = invoke("predict", run, "--input", "a", "--out", out, "--overwrite", "--keep-columns")
    assert (refused.code, "--keep-columns needs --file FILE" in refused.err) == (2, True)


def test_evaluate_says_which_classes_macro_f1_leaves_out(run: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "some.csv", [row for row in topics(4) if row[1] in ("Sports", "World")])
    out = done("evaluate", run, "--file", path)
    assert "macro F1 over 2 of 4 classes; Business, Sci/Tech have no row; over all classes" in out
    assert "columns     text: text, label: label" in out
    (line,) = [line for line in out.splitlines() if line.startswith("Business")]
    assert line.split()[1:5] == ["–", "–", "–", "0"]
    scores = json.loads(invoke("evaluate", run, "--file", path, "--json").out)
    assert scores["macro_f1_all"] == pytest.approx(scores["macro_f1"] / 2)
    assert "f1:Business" not in scores


def test_predict_takes_columns_and_a_base(run: Path, tiny: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "in.csv", [("goal", "league")], header=("head", "body"))
    done("predict", run, "--file", path, "--out", tmp_path / "out.csv", "--text", "head,body", "--base", tiny)
    assert "goal league" in (tmp_path / "out.csv").read_text()


def test_predict_in_json(run: Path) -> None:
    texts = ["goal striker league penalty", "bank profit shares"]
    rows = json.loads(done("predict", run, "--input", texts[0], "--input", texts[1], "--json"))
    result = Classifier.load(run).predict(texts)
    assert [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows] == result.labels
    assert [row["confidence"] for row in rows] == pytest.approx(result.confidence, abs=1e-5)
    assert set(rows[0]["probabilities"]) == set(CLASSES)


@pytest.mark.parametrize("arguments", [[], ["--file", "-"]])
def test_predict_reads_texts_from_standard_input(run: Path, arguments: list[str]) -> None:
    rows = json.loads((answer := invoke("predict", run, *arguments, "--json", stdin="goal league\r\n\n  bank: profit ü\n")).out)
    assert [row["text"] for row in rows] == ["goal league", "  bank: profit ü"]
    assert answer.err.split(maxsplit=1)[1] == "1 of 3 lines are blank and left out\n"


def test_predict_without_texts_is_refused(run: Path) -> None:
    answer = invoke("predict", run, stdin="\n")
    assert (answer.code, "standard input is empty" in answer.err) == (2, True)
    answer = invoke("predict", run, "--input", "a", "--file", "b.csv")
    assert (answer.code, "choose one" in answer.err) == (2, True)


def test_predict_writes_inputs_to_out(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    printed = done("predict", run, "--input", "goal league", "--input", "bank profit", "--out", out)
    assert printed == f"2 rows classified → {out}\n"
    assert [line.split(",")[:2] for line in out.read_text().splitlines()[1:]] == [["0", "goal league"], ["1", "bank profit"]]
    lines = tmp_path / "out.jsonl"
    printed = json.loads(done("predict", run, "--out", lines, "--format", "jsonl", "--json", stdin="a\nb\n"))
    assert sum(printed.pop("predicted").values()) == 2
    assert printed == {"rows": 2, "out": str(lines), "columns": None, "read": {}, "notices": []}
    assert [json.loads(line)["text"] for line in lines.read_text().splitlines()] == ["a", "b"]


def test_text_columns_may_have_spaces_after_commas(run: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "in.csv", [("goal", "league")], header=("head", "body"))
    done("predict", run, "--file", path, "--out", tmp_path / "out.csv", "--text", "head, body")
    assert "goal league" in (tmp_path / "out.csv").read_text()


# --- evaluate and describe -----------------------------------------------------------------------------------------


def test_evaluate_in_json_equals_the_classifiers(run: Path, topics_csv: Path) -> None:
    assert json.loads(invoke("evaluate", run, "--file", topics_csv, "--json").out) == Classifier.load(run).evaluate(topics_csv)


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
    assert (
        json.loads(invoke("evaluate", run, "--file", path, "--text", "words", "--label", "kind", "--json").out)["true:Sports"] == 1
    )


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


def test_describe_of_an_incomplete_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    for name in ("config.yaml", "environment.json", "data.json"):
        (tmp_path / "cut" / name).write_bytes((run / name).read_bytes())
    assert json.loads(done("describe", tmp_path / "cut", "--json"))["result"] == "not complete"


def test_describe_of_a_run_needs_no_data(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    data = tmp_path / "mine.csv"
    data.write_bytes(topics_csv.read_bytes())
    done("train", data, *settings, "train.max_steps=1", "--runs", tmp_path, "--name", "run")
    before = done("describe", tmp_path / "run", "--json")
    data.unlink()
    assert done("describe", tmp_path / "run", "--json") == before


def test_describe_refuses_settings_for_a_run(run: Path) -> None:
    before = json.loads(done("describe", run, "--json"))
    answer = invoke("describe", run, "lora.rank=2", "--json")
    assert answer.code == 2 or json.loads(answer.out)["parameters"]["adapter"] != before["parameters"]["adapter"]


# --- report --------------------------------------------------------------------------------------------------------


def test_train_writes_a_report_and_report_repeats_it(run: Path) -> None:
    page = run / "report.html"
    first = page.read_bytes()
    page.unlink()
    assert done("report", run).split() == ["report", str(page)]
    assert page.read_bytes() == first


def test_train_without_report(settings: list[str], topics_csv: Path, tmp_path: Path) -> None:
    out = done("train", topics_csv, *settings, "train.max_steps=1", "--runs", tmp_path, "--name", "plain")
    assert (tmp_path / "plain" / "scores.json").is_file()
    assert "report.html" not in out
    assert not (tmp_path / "plain" / "report.html").exists()


def test_report_of_something_else_is_refused(tmp_path: Path) -> None:
    answer = invoke("report", tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert "is no run and no experiment, and holds none" in answer.err


# --- diagnose ------------------------------------------------------------------------------------------------------


def test_diagnose_prints_the_checks_and_explains_texts(run: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "other.csv", topics(8, seed=3), header=("body", "topic"))
    out = done(
        "diagnose", run, "--file", path, "--text", "body", "--label", "topic", "--rows", 20, "--input", "[goal] for the bank"
    )
    for line in ("Hypotheses", "Robustness", "20 texts: ", "[goal] for the bank", "for it:", "against it:"):
        assert line in out
    assert str(run / "diagnosis.json") in out.replace("\n", "")
    result = json.loads(done("diagnose", run, "--json"))
    assert result == read_diagnosis(run)
    assert result["sections"][0]["title"] == "Hypotheses"


def test_diagnose_of_another_folder_is_one_message(tmp_path: Path) -> None:
    answer = invoke("diagnose", tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("loralab: cannot read")


# --- budget, recipes, settings, clean, check, doctor ----------------------------------------------------------------


def test_budget_in_json_lists_choices_that_fit() -> None:
    result = json.loads(done("budget", "roberta-million-budget", "--max-trainable", "1000000", "--json"))
    assert all(isinstance(fit, dict) for fit in result), f"not objects: {result[0]!r}"
    by_targets = {tuple(fit["targets"]): fit for fit in result if fit["layers"] is None}
    assert (by_targets["value",]["rank"], by_targets["value",]["trainable"]) == (22, 999_172)
    assert (by_targets["query", "value"]["rank"], by_targets["query", "value"]["trainable"]) == (11, 999_172)
    assert all(fit["trainable"] <= 1_000_000 for fit in result)
    assert [fit["trainable"] for fit in result] == sorted((fit["trainable"] for fit in result), reverse=True)


def test_budget_in_words_prints_what_is_left() -> None:
    out = done("budget", "roberta-million-budget", "--max-trainable", "1000000")
    assert any(line.split() == ["value", "all", "22", "999,172", "828"] for line in out.splitlines())


def test_budget_reads_settings() -> None:
    out = done("budget", "quickstart", "model.base=roberta-base", "lora.layers=9-11", "--max-trainable", "1000000")
    rows = [line.split() for line in out.splitlines()[1:]]
    assert {row[1] for row in rows} == {"9-11"}
    assert ["query,value", "9-11", "44", "999,172", "828"] in rows  # 593,668 of the head + 44 x 3 x 2 x (768 + 768)


def test_recipes_in_json_and_words() -> None:
    result = json.loads(done("recipes", "--json"))
    assert [recipe["name"] for recipe in result] == [recipe.name for recipe in list_recipes()]
    assert all(set(recipe) == {"name", "summary", "source", "claim"} and all(recipe.values()) for recipe in result)
    out = done("recipes")
    assert all(recipe["name"] in out for recipe in result)


def test_settings_in_json_and_words() -> None:
    rows = json.loads(done("settings", "--json"))
    assert [row["name"] for row in rows] == setting_names()
    rank = next(row for row in rows if row["name"] == "lora.rank")
    assert {"name", "type", "limits", "default", "description"} <= set(rank)
    assert (str(rank["default"]), rank["limits"]) == ("8", "> 0")
    out = done("settings")
    assert all(row["name"] in out and row["description"] in " ".join(out.split()) for row in rows)


def test_settings_of_a_pattern() -> None:
    lines = done("settings", "lora.").splitlines()
    assert lines[0].split() == ["setting", "type", "limits", "default", "/", "description"]
    assert [line.split()[0] for line in lines[1:] if not line.startswith(" ")] == [
        name for name in setting_names() if name.startswith("lora.")
    ]
    answer = invoke("settings", "nothing-like-it")
    assert (answer.code, answer.out) == (2, "")


def test_config_show_prints_settings_that_load_again(tmp_path: Path, run: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(done("config", "show", "quickstart", "lora.rank=3", "seed=5"))
    assert load_config(path) == load_config("quickstart", ["lora.rank=3", "seed=5"])
    assert json.loads(done("config", "show", "quickstart", "--json"))["lora"]["rank"] == load_config().lora.rank
    assert json.loads(done("config", "show", run, "--json")) == load_config(run / "config.yaml").model_dump(mode="json")
    assert "did you mean" in invoke("config", "show", "quickstrat").err


def test_config_schema_accepts_settings_and_refuses_others() -> None:
    schema = json.loads(done("config", "schema"))
    assert {"data", "model", "lora", "train", "seed"} <= set(schema["properties"])


# --- init ----------------------------------------------------------------------------------------------------------


def test_init_writes_settings_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(Path("my reviews.csv"), topics(40), header=("the text", "label"))
    out = done("init", "my reviews.csv", "--text", "the text")
    assert out == "written     my reviews.yaml\nnext        loralab train 'my reviews.yaml'\n"
    text = Path("my reviews.yaml").read_text(encoding="utf-8")
    assert "rows: 160" in text
    assert "Sports 40" in text
    config, plain = load_config("my reviews.yaml"), load_config("my reviews.csv")
    assert config.data.text == ("the text",)
    assert config.data.classes == tuple(sorted(CLASSES))
    assert config.model_dump(exclude={"data"}) == plain.model_dump(exclude={"data"})
    assert config.data.model_dump(exclude={"text", "label", "classes", "test"}) == plain.data.model_dump(
        exclude={"text", "label", "classes", "test"}
    )
    refused = invoke("init", "my reviews.csv", "--text", "the text")
    assert (refused.code, Path("my reviews.yaml").read_text(encoding="utf-8")) == (2, text)
    assert "--overwrite" in refused.err
    facts = json.loads(done("init", "my reviews.csv", "--text", "the text", "--overwrite", "--json"))
    assert facts["settings"] == "my reviews.yaml"
    assert facts["data"][0]["rows"] == 160


def test_init_of_files_without_a_header_that_the_reader_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    rows = [(str(CLASSES.index(label) + 1), "A title", text) for text, label in topics(12)]
    write_csv(Path("train.csv"), rows[1:], rows[0])
    done("init", "train.csv", "--out", "rows.yaml")
    (report,) = json.loads(done("check", "rows.yaml", "--json"))
    assert report["rows"] == 48
    assert report["columns"]["text"] == ["title", "description"]
    assert {*report["classes"]} == {*CLASSES}


def test_init_writes_how_the_file_is_read_and_the_given_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(f"it’s {text}", label) for text, label in topics(12)]
    Path("rows.csv").write_text("".join(f"{text};{label}\n" for text, label in rows), encoding="cp1252")
    settings = ["lora.rank=4", "seed=7", "train.patience=2", "lora.max_trainable=900000", "data.group=none", "data.strict=true"]
    done("init", "rows.csv", "data.text=column1", "data.label=column2", *settings, "--out", "rows.yaml")
    config = load_config("rows.yaml")
    data = config.data
    assert (data.delimiter, data.encoding, data.header, data.strict) == (";", "cp1252", False, True)
    assert (config.lora.rank, config.lora.max_trainable, config.seed, config.train.patience) == (4, 900_000, 7, 2)
    assert [report["rows"] for report in json.loads(done("check", "rows.yaml", "--json"))] == [48]
    done("init", write_csv(Path("plain.csv"), topics(12)), "data.test=0.3", "data.validation=0")
    text = Path("plain.yaml").read_text(encoding="utf-8")
    assert not any(f"{name}:" in text for name in ("delimiter", "encoding", "header"))
    assert (load_config("plain.yaml").data.test, load_config("plain.yaml").data.validation) == (0.3, 0)


@pytest.mark.parametrize(
    ("label", "classes"), [("a: b", ("a: b", "x, [y]")), ("no", ("no", "null")), ("'", ('"', "'")), ("ü #1", ("-", "ü #1"))]
)
def test_init_quotes_class_names(label: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    rows = [(f"text {i}", classes[i % 2]) for i in range(30)]
    path = write_csv(tmp_path / "rows.csv", rows)
    done("init", path, "--out", tmp_path / "rows.yaml")
    assert label in classes
    assert load_config(tmp_path / "rows.yaml").data.classes == tuple(sorted(classes))


def test_init_of_numbered_labels_asks_for_names(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [(f"text {i}", str(i % 3)) for i in range(36)])
    test = write_csv(tmp_path / "test.csv", [(f"test {i}", str(i % 3)) for i in range(36)])
    done("init", path, "--test", test, "--out", tmp_path / "rows.yaml")
    text = (tmp_path / "rows.yaml").read_text(encoding="utf-8")
    assert "# classes: [name of 0, name of 1, name of 2]" in text
    config = load_config(tmp_path / "rows.yaml")
    assert (config.data.classes, config.data.test) == ((), str(test))


def test_init_needs_a_label_column_and_a_yaml_name(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [("a", "b")], header=("text", "other"))
    assert "--label" in invoke("init", path, "--out", tmp_path / "x.yaml").err
    assert ".yaml" in invoke("init", path, "--label", "other", "--out", tmp_path / "x.txt").err
    assert [*tmp_path.iterdir()] == [path]


def test_clean_shows_each_step() -> None:
    out = done("clean", "Oil #39;s high: lt;b gt;$50 lt;/b gt; see http://example.org [x]")
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert [line[0] for line in lines] == ["before", "escapes", "html", "urls", "whitespace"]
    assert lines[-1][1] == repr("Oil's high: $50 see [x]")
    assert done("clean", "a  b", "--steps", "whitespace").splitlines()[-1].split(maxsplit=1)[1] == repr("a b")
    assert done("clean", r"C:\new").splitlines()[0].split(maxsplit=1)[1] == r"'C:\new'"
    assert json.loads(done("clean", "a  b", "--steps", "whitespace", "--json")) == [
        {"step": "before", "text": "a  b"},
        {"step": "whitespace", "text": "a b"},
    ]


def test_augment_prints_each_techniques_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = ["augment", "Oil prices [up] again", "--technique", "deletion", "--technique", "swap", "--strength", "0.3"]
    lines = [line.split(maxsplit=1) for line in done(*command).splitlines()]
    assert [line[0] for line in lines] == ["before", "deletion", "swap"]
    assert lines[0][1] == "Oil prices [up] again"
    assert set(lines[1][1].split()) < set(lines[0][1].split())
    assert sorted(lines[2][1].split()) == sorted(lines[0][1].split())
    assert lines == [line.split(maxsplit=1) for line in done(*command).splitlines()]
    assert json.loads(done(*command, "--json")) == [{"technique": name, "text": text} for name, text in lines]
    assert any(done(*command) != done(*command, "--seed", str(seed)) for seed in range(3))
    assert "did you mean 'swap'?" in invoke("augment", "a b", "--technique", "swop").err
    monkeypatch.setattr("loralab.data.wordnet._folders", lambda: iter([tmp_path]))
    answer = invoke("augment", "a b")
    assert (answer.code, "wordnet-base" in answer.err) == (2, True)
    answer = invoke("augment", "a b", "--technique", "back_translation", "--back-translation", "one")
    assert (answer.code, "two Marian checkpoints" in answer.err) == (2, True)
    answer = invoke("augment", "a b", "--technique", "swap", "--back-translation", "one,two")
    assert (answer.code, "and the technique back_translation" in answer.err) == (2, True)


def test_check_in_json_and_words(tmp_path: Path) -> None:
    rows = [*topics(12), ("", "World"), ("a goal", "Sports"), ("a goal", "Sports"), ("profit", "Busines")]
    path = write_csv(tmp_path / "rows.csv", rows)
    (report,) = json.loads(done("check", path, "--json"))
    assert (report["path"], report["rows"]) == (str(path), 52)
    assert report["classes"] == {"Busines": 1, "Business": 12, "Sci/Tech": 12, "Sports": 14, "World": 13}
    result = {finding["message"]: finding["rows"] for finding in report["findings"]}
    assert result["1 text is empty"] == [48]
    assert result["1 row repeats the text of an earlier row"] == [50]
    assert result["label 'Busines' (1 row) looks like 'Business' (12)"] == [51]
    out = done("check", path)
    assert all(what in out for what in result)
    assert "row 48" in out


def test_check_compares_with_a_test_file(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", topics(12))
    test = write_csv(tmp_path / "test.csv", [("something new", "World"), topics(12)[3]])
    reports = json.loads(done("check", train, "--test", test, "--json"))
    assert [finding["rows"] for finding in reports[1]["findings"] if "is also among the training texts" in finding["message"]] == [
        [1]
    ]


def test_check_reads_both_files_of_the_sample() -> None:
    reports = json.loads(done("check", "sample", "--json"))
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


def test_ctrl_c_after_training_keeps_the_model(
    settings: list[str], topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("loralab.pipeline.saved_logits", interrupted)  # while the test rows are scored
    answer = invoke("train", topics_csv, *settings, "train.max_steps=1", "--runs", tmp_path, "--name", "cut")
    assert answer.code == 1
    assert (tmp_path / "cut" / "model").is_dir()
    assert "nothing was written" not in answer.err


@pytest.mark.slow
def test_a_closed_pipe_is_no_error() -> None:
    script = f"{sys.executable} -m loralab settings | head -n 1"
    answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert answer.stdout.startswith("setting ")
    assert answer.stderr == ""


def test_describe_log_prints_the_training_log(run: Path) -> None:
    assert done("describe", run, "--log") == (run / "training_log.txt").read_text(encoding="utf-8")
