"""The page in Chromium, through every view, with a real server on loopback."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sealing import reseal
from servers import Server, serving
from tiny import CLASSES, topics, write_csv

from loralab.report.write import write_report
from loralab.storage import run_folder

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: apt-get install chromium"),
]
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
ROWS = topics(10, seed=11)
VIEWS = ("try", "files", "errors", "label", "runs")


@pytest.fixture(scope="module")
def runs(served_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, one with a report, and hostile texts among the test rows, some of them wrong."""
    folder = tmp_path_factory.mktemp("page") / "runs"
    for name in ("news", "tone"):
        shutil.copytree(served_runs / name, folder / name)
        path = folder / name / run_folder.PREDICTIONS
        with path.open(encoding="utf-8", newline="") as file:
            rows = [*csv.DictReader(file)]
        for number, row in enumerate(rows[:3] if name == "news" else rows[:1]):
            row["predicted"] = next(other for other in CLASSES if other != row["true"])
            row["confidence"] = str(0.9 - number / 10)
        rows[0]["text"], rows[1]["text"] = HOSTILE, "=HYPERLINK(1)"
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, [*rows[0]])
            table.writeheader()
            table.writerows(rows)
        reseal(folder / name)
    write_report(folder / "news")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def server(runs: Path) -> Iterator[Server]:
    with serving(f"news={runs / 'news'}", f"tone={runs / 'tone'}", "--watch", str(runs)) as server:
        yield server


class Page:
    """A tab that collects what goes wrong in it."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.address = address
        self.context = browser.new_context(accept_downloads=True, **options)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(20_000)
        self.problems: list[str] = []
        self.tab.on("console", lambda message: self.problems.append(message.text) if message.type in ("error", "warning") else None)
        self.tab.on("pageerror", lambda error: self.problems.append(str(error)))
        self.tab.on(
            "request", lambda request: None if request.url.startswith((address, "blob:")) else self.problems.append(request.url)
        )

    def open(self, view: str) -> Any:
        self.tab.goto(f"{self.address}/#{view}")
        self.tab.locator("main h1").wait_for()
        return self.tab

    def close(self) -> None:
        assert self.tab.evaluate("window.hacked") is None
        assert self.problems == []
        self.context.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Page]:
    page = Page(browser, server.address, viewport={"width": 1200, "height": 850})
    yield page
    page.close()


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's unlabelled file, with a formula and a hostile text."""
    rows = [(f"t{i}", text) for i, (text, _) in enumerate(ROWS)]
    return write_csv(tmp_path_factory.mktemp("unlabelled") / "mine.csv", [*rows, ("=1+1", HOSTILE)], header=("ticket", "message"))


def violations(tab: Any) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    serious = [v for v in Axe().run(tab).response["violations"] if v["impact"] in ("serious", "critical", "moderate")]
    return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in serious]


def test_try_shows_probabilities_words_and_neighbours(page: Page) -> None:
    tab = page.open("try")
    text, label = ROWS[0]
    tab.get_by_label("Text", exact=True).press_sequentially(text, delay=5)
    card = tab.get_by_role("article", name="Model news")
    card.locator(".best .value").wait_for()
    tab.wait_for_timeout(600)
    assert card.locator(".verdict strong").inner_text() == label
    assert tab.get_by_role("article").count() == 2, "every loaded model, side by side"
    assert label in tab.get_by_role("status").first.inner_text()
    card.locator(".near li").first.wait_for()
    assert card.locator(".near .label").first.inner_text() == label
    tab.get_by_label("Colour the words that decided").check()
    card.locator(".explained .token.for").first.wait_for()
    assert card.locator(".explained .text").inner_text().replace(" ", "").casefold() == text.replace(" ", "").casefold()
    tab.get_by_label("Text", exact=True).fill("")
    card.locator(".near li").first.wait_for(state="detached")


def test_an_outdated_answer_is_ignored(page: Page) -> None:
    tab = page.open("try")
    answers = httpx.post(f"{page.address}/v1/classify", json={"model": "news", "input": [text for text, _ in ROWS]}).json()["data"]
    by_label = {answer["label"]: text for (text, _), answer in zip(ROWS, answers, strict=True)}
    (_, outdated), (label, latest) = [*by_label.items()][:2]
    delayed: list[Any] = []

    def delay(route: Any) -> None:
        delayed.append(route) if outdated in route.request.post_data else route.continue_()

    tab.route("**/v1/classify", delay)
    box = tab.get_by_label("Text", exact=True)
    box.fill(outdated)
    tab.wait_for_timeout(400)
    box.fill(latest)
    verdict = tab.get_by_role("article", name="Model news").locator(".verdict strong")
    verdict.wait_for()
    assert delayed
    for route in delayed:
        route.continue_()
    tab.wait_for_timeout(300)
    assert verdict.inner_text() == label


def test_files_classifies_a_file(page: Page, unlabelled: Path, tmp_path: Path) -> None:
    tab = page.open("files")
    assert tab.get_by_role("button", name="Classify").is_disabled()
    tab.locator("input[type=file]").set_input_files(unlabelled)
    tab.get_by_role("columnheader", name="message").wait_for()
    assert tab.get_by_label("message").is_checked(), "its texts are detected"
    assert f"{len(ROWS) + 1} rows" in tab.locator(".preview").inner_text()
    tab.get_by_label("Leave rows below").fill("0.5")
    tab.get_by_role("button", name="Classify").click()
    tab.get_by_role("heading", name="rows classified").wait_for()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download mine-classified.csv").click()
    download.value.save_as(tmp_path / "classified.csv")
    with (tmp_path / "classified.csv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == len(ROWS) + 1
    decided = [float(row["confidence"]) >= 0.5 for row in rows]
    assert decided == sorted(decided) == [bool(row["predicted"]) for row in rows]
    assert "'=1+1" in {row["ticket"] for row in rows}


def test_errors_are_marked_and_exported(page: Page, tmp_path: Path) -> None:
    tab = page.open("errors/news")
    rows = tab.locator(".rows .row")
    rows.first.wait_for()
    errors = rows.count()
    assert errors >= 3
    assert tab.locator(".rows").get_by_text("<script>").count() == 1, "texts are shown as texts"
    tab.keyboard.press("j")
    tab.keyboard.press("w")
    tab.keyboard.press("j")
    tab.keyboard.press("3")
    tab.keyboard.press("u")
    tab.keyboard.press("k")
    assert tab.locator(".marked").count() == 1
    tab.reload()
    rows.first.wait_for()
    assert tab.locator(".marked").count() == 1, "marks are kept"
    tab.get_by_label("Rows", exact=True).select_option("marked")
    assert rows.count() == 1
    tab.get_by_label("The right label").select_option("World")
    tab.get_by_label("Rows", exact=True).select_option("errors")
    tab.get_by_label("Search").fill("hyperlink")
    tab.wait_for_timeout(300)
    tab.get_by_role("button", name="The label is wrong").click()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Export 2 corrections").click()
    download.value.save_as(tmp_path / "fixes.csv")
    with (tmp_path / "fixes.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["right_label"], first["text"]) == ("World", HOSTILE)
    assert second["text"] == "'=HYPERLINK(1)"
    tab.get_by_label("Rows", exact=True).select_option("correct")
    tab.get_by_label("Search").fill("no such words anywhere")
    tab.get_by_text("No row is like this").wait_for()


def test_runs_are_sorted_compared_and_reported(page: Page) -> None:
    tab = page.open("runs")
    names = tab.locator("tbody th")
    names.first.wait_for()
    tab.get_by_role("button", name="Name").click()
    assert names.all_inner_texts() == ["news", "tone"]
    tab.get_by_role("button", name="Name").press("Enter")
    assert names.all_inner_texts() == ["tone", "news"]
    assert tab.get_by_role("columnheader", name="Name").get_attribute("aria-sort") == "descending"
    for name in ("news", "tone"):
        tab.get_by_label(f"Compare {name}").check()
    tab.get_by_role("button", name="Compare news and tone").click()
    comparison = tab.get_by_role("region", name="Comparison")
    comparison.get_by_text("McNemar").wait_for()
    assert comparison.locator("tbody tr").count() >= 2
    with page.context.expect_page() as opened:
        tab.get_by_role("link", name="Report of news").click()
    report = opened.value
    report.wait_for_load_state()
    assert report.locator("h1").inner_text() == "news"
    assert report.evaluate("getComputedStyle(document.body).maxWidth") != "none", "its own style sheet works"
    report.close()


def test_label_a_file_and_train_on_it(browser: Any, runs: Path, tmp_path: Path) -> None:
    """As a new user without a model: choose a file, name classes, label with the keyboard, restart the server, train, try."""
    labels, rows = tmp_path / "labels", dict(topics(15, seed=11))
    file = write_csv(tmp_path / "mine.csv", [(text, "") for text in rows], header=("message", "note"))
    folder = tmp_path / "runs"
    folder.mkdir()
    arguments = ("--watch", str(folder), "--labels", str(labels))
    with serving(*arguments) as server:
        page = Page(browser, server.address)
        tab = page.open("try")
        tab.get_by_role("link", name="label some of them here").click()
        tab.locator("input[type=file]").set_input_files(file)
        tab.get_by_label("message").wait_for()
        start = tab.get_by_role("button", name="Start labelling")
        assert start.is_disabled()
        tab.get_by_label("One class per line").fill("\n".join(CLASSES))
        start.click()
        sample = tab.locator(".sample")
        sample.wait_for()
        for _ in range(30):
            label_current(tab, rows)
        tab.get_by_text("Suggested by a classifier of your 30 labels").wait_for()
        suggested = tab.locator(".suggested span").first.inner_text()
        tab.keyboard.press("Enter")
        tab.get_by_text("31 of 60 rows labelled").wait_for()
        tab.keyboard.press("u")
        tab.get_by_text("30 of 60 rows labelled").wait_for()
        text = sample.inner_text()
        tab.keyboard.press("s")
        tab.get_by_text("1 skipped").wait_for()
        assert sample.inner_text() != text
        assert suggested in CLASSES
        page.close()
    [path] = labels.glob("*/labelled.csv")
    with path.open(encoding="utf-8", newline="") as lines:
        assert all(rows[row["text"]] == row["label"] for row in csv.DictReader(lines))
    with serving(*arguments) as server:
        page = Page(browser, server.address)
        tab = page.open("label")
        tab.get_by_role("link", name="mine.csv").click()
        tab.get_by_text("30 of 60 rows labelled").wait_for()
        for _ in range(30):
            label_current(tab, rows)
        tab.get_by_text("All rows are done").wait_for()
        assert violations(tab) == []
        tab.get_by_role("button", name="Train on these labels").click()
        tab.get_by_role("button", name="Stop training").click()
        tab.get_by_text("was stopped before its first step").wait_for()
        tab.get_by_role("button", name="Train again").click()
        tab.get_by_text("Step").first.wait_for(timeout=120_000)
        tab.get_by_text("is trained and loaded").wait_for(timeout=200_000)
        tab.get_by_role("link", name="Try it").click()
        tab.get_by_label("Text", exact=True).fill(ROWS[0][0])
        tab.locator(".best").first.wait_for()
        page.close()


def test_many_classes_have_a_search(page: Page, unlabelled: Path) -> None:
    tab = page.open("label")
    tab.locator(".drop").evaluate(
        """(zone, content) => {
          const dropped = new DataTransfer();
          dropped.items.add(new File([content], "dropped.csv"));
          zone.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
        }""",
        unlabelled.read_text(encoding="utf-8"),
    )
    tab.get_by_label("message").wait_for()
    tab.get_by_label("One class per line").fill("\n".join(f"intent {n}" for n in range(1, 15)))
    tab.get_by_role("button", name="Start labelling").click()
    tab.locator(".choice").nth(13).wait_for()
    tab.keyboard.press("/")
    tab.keyboard.type("14")
    assert tab.locator(".choice:visible").count() == 1
    tab.keyboard.press("Enter")
    tab.get_by_text(f"1 of {len(ROWS) + 1} rows labelled").wait_for()
    assert tab.locator(".choice:visible").count() == 14
    assert tab.locator(".facts div", has_text="intent 14").locator("dd").inner_text() == "1"
    assert violations(tab) == []


def label_current(tab: Any, rows: dict[str, str]) -> None:
    """Press the key of the right class, and wait for the next row."""
    before = tab.locator(".sample").inner_text()
    tab.keyboard.press(str(1 + CLASSES.index(rows[before])))
    tab.wait_for_function("before => document.querySelector('.sample').innerText !== before", arg=before)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible(browser: Any, server: Server, unlabelled: Path, view: str, scheme: str) -> None:
    page = Page(browser, server.address, color_scheme=scheme, viewport={"width": 1100, "height": 800})
    tab = page.open(view)
    if view == "try":
        tab.get_by_label("Text", exact=True).fill(ROWS[0][0])
        tab.get_by_label("Colour the words that decided").check()
        tab.locator(".explained .token").first.wait_for()
        tab.locator(".near li").first.wait_for()
    if view in ("files", "label"):
        tab.locator("input[type=file]").set_input_files(unlabelled)
        tab.locator(".preview table").wait_for()
    if view in ("errors", "runs"):
        tab.locator("input, .row, tbody tr").first.wait_for()
    assert violations(tab) == []
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_every_control_of_a_view_is_reached_by_tab(page: Page) -> None:
    tab = page.open("runs")
    tab.locator("tbody th").first.wait_for()
    controls = tab.locator("main :is(a, button, input):not(:disabled)").count()
    reached = set()
    for _ in range(controls + 20):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("[...document.querySelectorAll('main :is(a, button, input)')].indexOf(document.activeElement)"))
    assert len(reached - {-1}) == controls


def test_the_page_asks_for_a_key(browser: Any, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("0123456789abcdef0123\n", encoding="utf-8")
    with serving(f"news={runs / 'news'}", "--api-keys", str(tmp_path / "keys.txt")) as server:
        page = Page(browser, server.address)
        page.tab.goto(server.address)
        dialog = page.tab.get_by_role("dialog")
        dialog.get_by_label("API key").fill("wrong")
        dialog.get_by_role("button", name="Continue").click()
        page.tab.get_by_text("does not know this key").wait_for()
        assert violations(page.tab) == []
        dialog.get_by_label("API key").fill("0123456789abcdef0123")
        dialog.get_by_role("button", name="Continue").click()
        page.tab.get_by_role("heading", name="Try a text").wait_for()
        page.tab.reload()
        page.tab.get_by_role("heading", name="Try a text").wait_for()
        page.problems = [problem for problem in page.problems if "401" not in problem]
        page.close()


@pytest.mark.parametrize("view", VIEWS)
def test_empty_views_say_what_to_do(browser: Any, tmp_path_factory: pytest.TempPathFactory, empty: Server, view: str) -> None:
    page = Page(browser, empty.address)
    tab = page.open(view)
    advice = {
        "try": "label some of them",
        "files": "Load one",
        "errors": "Train one",
        "label": "Choose a file",
        "runs": "label a file",
    }
    tab.get_by_text(advice[view]).first.wait_for()
    assert violations(tab) == []
    page.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving("--watch", str(tmp_path_factory.mktemp("empty"))) as server:
        yield server
