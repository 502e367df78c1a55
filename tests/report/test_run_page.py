"""A run's page, parsed: inert, self-contained, accessible, small, and with the right numbers."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_run import CLASSES, HOSTILE, edit, make_run

from loralab.report.html import format_column
from loralab.report.write import write_report
from loralab.stats import wilson
from loralab.storage import run_folder

VOID = {"meta", "img", "br", "link", "input", "wbr"}


class Page(HTMLParser):
    """Every tag with its attributes and the text inside it, in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.by_tag: dict[str, list[str]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.by_tag.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        for tag in dict.fromkeys(self.open):
            self.by_tag[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_run(tmp_path_factory.mktemp("page") / "mine", lora__rank="4")
    write_report(made)
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / run_folder.REPORT).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("hostile") / "<b onclick=alert(1)>&lt;"
    made = make_run(folder, HOSTILE, text=" ".join(HOSTILE), data__source="'<script>window.hacked = 1</script>'")
    edit(made / run_folder.ENVIRONMENT, device=HOSTILE[0], versions={HOSTILE[1]: HOSTILE[2]})
    return write_report(made).read_text(encoding="utf-8")


def test_hostile_texts_and_names_are_only_text(hostile: str) -> None:
    page = Page(hostile)
    assert page.open == []
    assert {"script", "img", "b onclick=alert(1)", "iframe", "object", "link"}.isdisjoint(tag for tag, _ in page.tags)
    assert [name for _, attributes in page.tags for name in attributes if name.startswith("on")] == []
    said = "".join(page.texts)
    for name in HOSTILE[:3]:
        assert said.count(name) > 10
    assert "{{ 7 * 7 }}" in said
    assert hostile.count("<style>") == hostile.count("</style>") == 1


def test_nothing_is_fetched(hostile: str, folder: Path) -> None:
    for html in (hostile, (folder / run_folder.REPORT).read_text(encoding="utf-8")):
        page = Page(html)
        links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("href", "src", "srcset")]
        assert links
        assert all(link.startswith("#") for link in links)
        assert "@import" not in html
        assert re.findall(r"url\((?!#)", html) == []
        policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")
        assert "script-src" not in policy


def test_the_headline_is_the_test_accuracy_with_its_interval(page: Page, folder: Path) -> None:
    accuracy = run_folder.read_scores(folder)["scores"]["accuracy"]
    interval = wilson(round(accuracy * 200), 200)
    low, high = interval.low, interval.high
    header = " ".join(page.by_tag["header"][0].split())
    assert f"{100 * accuracy:.1f} %" in header
    assert f"{round(accuracy * 200)} of 200 test rows are correct" in header
    assert f"probably between {100 * low:.1f} and {100 * high:.1f} % (95 % confidence interval)" in header
    assert "Always predicting World would give 25.0 %" in header


def test_tables_hold_the_scores(page: Page, folder: Path) -> None:
    scores = run_folder.read_scores(folder)["scores"]
    rows = [" ".join(row.split()) for row in page.by_tag["tr"]]
    for name in CLASSES:
        values = "".join(f"{scores[f'{kind}:{name}']:.4f}" for kind in ("precision", "recall", "f1"))
        counts = "".join(f"{scores[f'{kind}:{name}']:.0f}" for kind in ("true", "predicted"))
        assert f"{name}{values}{counts}" in rows
    assert f"Brier score{scores['brier']:.4f}{scores['brier']:.4f}{scores['brier']:.4f}" in rows


def test_the_monitored_score_and_why_the_run_stopped_are_shown(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", train__monitor="f1:Business", train__track="recall:World", train__patience="2")
    edit(made / run_folder.SCORES, stopped_early=True)
    scores = run_folder.read_scores(made)["scores"]
    page = Page(write_report(made).read_text(encoding="utf-8"))
    rows = [" ".join(row.split()) for row in page.by_tag["tr"]]
    assert any(row.startswith(f"f1:Business (monitored){scores['f1:Business']:.4f}") for row in rows)
    assert any(row.startswith(f"recall:World{scores['recall:World']:.4f}") for row in rows)
    assert any("Macro F1f1:Businessrecall:WorldMemory" in row for row in rows)
    reason = f"f1:Business was best at step 30 ({scores['f1:Business']:.4f}), and 2 evaluations brought no better one"
    text = "".join(page.by_tag["p"])
    assert f"Stopped early after step 40: {reason}." in text
    log = (made / run_folder.TRAINING_LOG).read_text(encoding="utf-8")
    assert f"stopped early after step 40: {reason}" in log
    assert log.count(f"f1:Business {scores['f1:Business']:.4f}") == 4  # at each evaluation


def test_changed_settings_have_their_own_table(page: Page) -> None:
    changed, everything = (text for text in page.by_tag["table"] if "Setting" in text)
    assert "lora.rank" in changed
    assert "lora.alpha" not in changed
    assert all(name in everything for name in ("lora.rank", "lora.alpha", "train.epochs"))


def test_the_page_is_accessible(page: Page, hostile: str) -> None:
    for read in (page, Page(hostile)):
        assert read.all("html")[0]["lang"] == "en"
        tables = len(read.all("table"))
        assert tables == len(read.all("caption")) > 6
        assert all("scope" in attributes for attributes in read.all("th"))
        figures = read.all("svg")
        assert len(figures) == 8
        assert all(svg["role"] == "img" and len(svg["aria-label"]) > 40 for svg in figures)
        assert len(read.all("figcaption")) == 8
        levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(deeper - level <= 1 for level, deeper in itertools.pairwise(levels))
        ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        targets = {a["href"][1:] for _, a in read.tags if a.get("href", "").startswith("#")}
        assert targets <= set(ids)
        pointed = {name for _, a in read.tags for v in a.values() for name in re.findall(r"url\(#([^)]*)\)", v)}
        assert pointed <= set(ids)
        assert all(
            attributes.get("tabindex") == "0" for _, attributes in read.tags if "scroll" in attributes.get("class", "").split()
        )


def test_numbers_of_a_column_have_the_same_digits() -> None:
    assert format_column([0.97, -0.0325, 0.0]) == ["0.9700", "−0.0325", "0.0000"]
    assert format_column([1234, 5]) == ["1,234", "5"]
    assert format_column(["a", None, True]) == ["a", "", "yes"]
    assert format_column([0.5, "none", 2]) == ["0.5", "none", "2.0"]


def test_words_are_tinted_by_sign_and_strength(page: Page) -> None:
    tokens = [a for tag, a in page.tags if tag == "span" and "token" in a.get("class", "")]
    first = [(a["class"].split()[1:], a["style"]) for a in tokens[2:6]]
    assert first == [
        (["for"], "--strength: 0.5"),
        (["against"], "--strength: 0.25"),
        ([], "--strength: 0.0"),
        (["for"], "--strength: 1.0"),
    ]
    assert any("Oil slips some text" in text for text in page.by_tag["p"])


@pytest.mark.slow
def test_a_large_run_makes_a_small_page(tmp_path: Path) -> None:
    names = [f"a class with a rather long name {i}" for i in range(40)]
    page = write_report(make_run(tmp_path / "large", names, rows=2000, text="word " * 2000))
    assert 100_000 < page.stat().st_size < 1_000_000
