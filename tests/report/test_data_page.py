"""The page of `loralab check --html`: everything is on it, escaped, and it fits a phone."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fake_run import HOSTILE

from loralab.config import DataConfig
from loralab.data.check import check_source
from loralab.report.data_page import write_data_page

CHROMIUM = Path("/usr/bin/chromium")
browser_only = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: apt-get install chromium")


def put(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def make_page(folder: Path, names: tuple[str, ...], count: int = 20) -> Path:
    """Write the page of a training and a test file with every kind of problem."""
    rows = [(f"{names[j]} and text {i} of class {j} {'unbroken' * 12}", names[j]) for i in range(count) for j in range(len(names))]
    rows[2] = ("", names[0])
    rows[5] = ("Oil #39;s high &amp; <b>rising</b>", names[1])
    rows += [("the same text", names[0]), ("The  same text", names[1]), ("long " * 300, names[0]), ("a last", "nan")]
    test = [(f"test {i} {names[i % 2]}", names[i % 2]) for i in range(20)] + [("new", "unknown label"), rows[7]]
    source, other, page = put(folder / "rows.csv", rows), put(folder / "test.csv", test), folder / "page.html"
    reports = check_source(DataConfig(source=str(source), test=str(other), clean=()))
    write_data_page(page, "<rows> & more", reports)
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_page(tmp_path_factory.mktemp("page"), HOSTILE)


def test_the_page_holds_every_part(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    headings = ("Problems", "How it is read", "Classes", "Suspicious labels", "Repeated texts", "Examples")
    for heading in (*headings, "Rows per class", "Length of the texts", "Training: rows.csv", "Test: test.csv"):
        assert f">{heading}<" in html, heading
    for part in (
        "data.max_length=128",
        "1 text is empty",
        "data.clean=escapes",
        "is not in the training rows",
        "training refuses this data",
    ):
        assert part in unescape(html), part
    assert "tokens per text" in html


def test_names_and_texts_are_escaped(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert "<script>" not in html
    assert "<img src=x" not in html
    assert "&lt;rows&gt; &amp; more" in html
    assert "49" not in html[html.index("{{ 7 * 7 }}") :][:20]


def test_many_classes_stay_readable(tmp_path: Path) -> None:
    names = tuple(f"intent_{i}" for i in range(130))
    html = make_page(tmp_path, names, count=4).read_text(encoding="utf-8")
    assert "And 31 more classes" in html  # nan is one
    assert "the 30 largest of 131" in html
    assert len(html) < 1_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_no_script_no_request_no_overflow(browser: Any, page: Path, width: int) -> None:
    tab, requests = browser.new_page(viewport={"width": width, "height": 800}), []
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page.as_uri(), wait_until="networkidle")
    assert requests == [page.as_uri()]
    assert tab.evaluate("window.hacked") is None
    assert tab.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth <= innerWidth]") == [width, True]
    tab.close()
