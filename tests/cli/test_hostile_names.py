"""One run whose classes, texts, names and paths attack every place that shows them: terminal, HTML, Markdown, YAML, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from command_line import invoke
from rich.console import Console
from rich.text import Text
from tiny import topics, write_csv

from loralab.cli.display import SafeConsole
from loralab.inference.prediction_files import is_formula

ROOT = Path(__file__).parents[2]
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\r\u202eback\u2066"
CLASSES = {
    "World": f"{SCRIPT}",
    "Sports": f"=HYPERLINK(1){ESCAPES}",
    "Business": "[/x] [bold red] | `code` $\\frac{$ {{7*7}} {% x %}",
    "Sci/Tech": "---\nlicense: evil\n---\n# Heading ![x](http://x/y)",
}
FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
NAME = "[x] `$(id)` <marquee>=1+1"


class Tags(HTMLParser):
    """Collects the tags of a page and their event attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.events: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.events += [name for name, _ in attrs if name.startswith("on")]


@pytest.fixture(scope="module")
def outputs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder, and what each command printed there."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [(f"{text} {CLASSES[label]} {ESCAPES}", CLASSES[label]) for text, label in topics(12)]
    data = write_csv(folder / "[x] \x1b[31m <blink>.csv", rows)
    run = folder / "runs" / NAME
    settings = [f"model.base={tiny}", "train.max_steps=3", "data.test=0.3", "train.precision=fp32", "lora.layers=top1"]
    commands: dict[str, list[object]] = {
        "check": ["check", data, "--html", folder / "data.html"],
        "train": ["train", data, *settings, "--name", NAME, "--runs", folder / "runs"],
        "report": ["report", run],
        "dashboard": ["report", folder / "runs"],
        "describe": ["describe", run],
        "log": ["describe", run, "--log"],
        "show": ["config", "show", run],
        "evaluate": ["evaluate", run, "--file", data],
        "diagnose": ["diagnose", run, "--file", data],
        "predict text": ["predict", run, "--input", f"goal {ESCAPES} [/x] [red]"],
        "predict csv": ["predict", run, "--file", data, "--out", folder / "out.csv"],
        "predict jsonl": ["predict", run, "--file", data, "--format", "jsonl", "--out", folder / "out.jsonl"],
        "predict json": ["predict", run, "--input", f"goal {ESCAPES}", "--json"],
        "export": ["export", run, "--to", "merged", "--out", folder / "merged"],
        "wrong name": ["train", data, "--name", f"../{ESCAPES}"],
        "wrong setting": ["check", data, f"data.text={ESCAPES}{SCRIPT}"],
        "wrong file": ["check", folder / f"none{ESCAPES}.csv"],
    }
    printed = {}
    for name, command in commands.items():
        answer = invoke(*command)
        assert answer.code == (2 if name.startswith("wrong") else 0), f"{name}: {answer.err}"
        printed[name] = answer.out + answer.err
    return folder, printed


@pytest.mark.slow
def test_no_output_commands_the_terminal(outputs: tuple[Path, dict[str, str]]) -> None:
    folder, printed = outputs
    for name, text in printed.items():
        assert not (match := FORBIDDEN.search(text)), f"{name}: {match[0]!r} in {text[max(0, match.start() - 80) :][:200]!r}"
    json.loads(printed["predict json"])
    for path in (folder / "runs" / NAME).glob("*.txt"):
        assert not FORBIDDEN.search(path.read_text(encoding="utf-8")), path.name
    assert "[/x]" in printed["predict text"], "markup is shown as it is"


@pytest.mark.slow
def test_no_page_has_tags_of_the_data(outputs: tuple[Path, dict[str, str]]) -> None:
    folder, _ = outputs
    pages = folder / "data.html", folder / "runs" / NAME / "report.html", *(folder / "runs").glob("*.html")
    assert len(pages) == 3
    for page in pages:
        content = page.read_text(encoding="utf-8")
        tags = Tags(content)
        assert not tags.events
        assert not {"blink", "marquee"} & tags.tags
        assert not [tag for tag in re.findall(r"<[^>]*>", content) if "alert" in tag or "onerror" in tag]
        assert page.parent.name == "runs" or "{{7*7}}" in content, "a template of the data is text"


@pytest.mark.slow
def test_the_model_card_keeps_its_metadata_and_its_shape(outputs: tuple[Path, dict[str, str]]) -> None:
    card = (outputs[0] / "runs" / NAME / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["pipeline_tag"] == "text-classification"
    assert "license" not in metadata
    assert "\n# Heading" not in body
    assert "![x](http" not in body
    assert "<script" not in body
    assert "<img" not in body
    assert not FORBIDDEN.search(card)


@pytest.mark.slow
def test_exported_tables_have_no_formulas(outputs: tuple[Path, dict[str, str]]) -> None:
    folder, _ = outputs
    rows = [*csv.reader(io.StringIO((folder / "out.csv").read_text(encoding="utf-8"), newline=""))]
    assert len(rows) > 40
    assert not [cell for row in rows for cell in row if is_formula(cell)]
    lines = (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([json.loads(line) for line in lines]) == len(rows) - 1


def test_a_console_shows_control_characters_of_any_renderable() -> None:
    file = io.StringIO()
    SafeConsole(file=file, force_terminal=True, highlight=False).print("[bold]a[/]", Text("\x1b]0;x\u202e"))
    shown = file.getvalue()
    assert "\\x1b]0;x\\u202e" in shown
    plain = io.StringIO()
    Console(file=plain, force_terminal=True).print("[bold]a[/]")
    assert plain.getvalue().split("a")[0] in shown, "styles stay"


def test_commands_print_by_the_safe_functions_only() -> None:
    for path in (ROOT / "src/loralab/cli").glob("*.py"):
        if path.name not in ("streams.py", "options.py", "main.py"):
            assert not re.search(
                r"(?<![\w.])print\(|(?<!Safe)Console\(\S",
                path.read_text(encoding="utf-8").replace("class SafeConsole(Console)", ""),
            ), path.name
