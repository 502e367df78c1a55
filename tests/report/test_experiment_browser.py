"""An experiment's page and the dashboard in Chromium, with the checks of a run's page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_experiment import Factors, make_experiment, over_seeds
from fake_run import HOSTILE
from test_run_browser import CONTRASTS, browser, pytestmark  # noqa: F401

from loralab.report.write import write_report


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A grid of numbers, an ablation with hostile and long names, and the dashboard over both."""
    folder = tmp_path_factory.mktemp("experiments")
    grid: list[tuple[Factors, list[float]]] = [
        ({"train.learning_rate": r, "lora.rank": k}, [0.7 + k / 100, 0.72, 0.71 + r]) for r in (1e-5, 1e-4, 1e-3) for k in (2, 4, 8)
    ]
    names = [*HOSTILE, "unbroken" * 12]
    make_experiment(folder / "grid", "grid", over_seeds(grid))
    hostile: list[tuple[Factors, list[float]]] = [
        ({}, [0.8, 0.81, 0.8]),
        *(({"data.source": name}, [0.6, 0.7, 0.8]) for name in names),
    ]
    make_experiment(folder / ("ablation-" + "x" * 60), "ablation", over_seeds(hostile), recipes=names, question=" ".join(names))
    pages = {"grid": write_report(folder / "grid"), "hostile": write_report(folder / ("ablation-" + "x" * 60))}
    return {**pages, "dashboard": write_report(folder)}


@pytest.mark.parametrize("name", ["hostile", "dashboard"])
def test_no_request_and_no_script(browser: Any, pages: dict[str, Path], name: str) -> None:  # noqa: F811
    page, requests, messages = browser.new_page(), [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.goto(pages[name].as_uri(), wait_until="networkidle")
    assert page.evaluate("window.hacked") is None
    assert (requests, messages) == ([pages[name].as_uri()], [])
    page.close()


@pytest.mark.parametrize("name", ["grid", "hostile", "dashboard"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_content_exceeds_the_window(browser: Any, pages: dict[str, Path], name: str, width: int) -> None:  # noqa: F811
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(pages[name].as_uri())
    assert page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth <= innerWidth]") == [width, True]
    page.close()


@pytest.mark.parametrize("name", ["grid", "hostile", "dashboard"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast(browser: Any, pages: dict[str, Path], name: str, scheme: str) -> None:  # noqa: F811
    page = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme=scheme)
    page.goto(pages[name].as_uri())
    texts = page.evaluate(CONTRASTS)
    page.close()
    assert len(texts) > (30 if name == "dashboard" else 150)
    assert [each for each in texts if each["ratio"] < each["least"]] == []


def test_the_dashboard_links_to_each_page(browser: Any, pages: dict[str, Path]) -> None:  # noqa: F811
    page = browser.new_page()
    page.goto(pages["dashboard"].as_uri())
    page.get_by_role("link", name="grid", exact=True).click()
    assert page.title() == "grid · loralab experiment report"
    page.close()


def test_a_wide_table_uses_the_margin_on_the_right(browser: Any, pages: dict[str, Path]) -> None:  # noqa: F811
    page = browser.new_page(viewport={"width": 1600, "height": 800})
    page.goto(pages["grid"].as_uri())
    assert page.evaluate("document.querySelector('.wide').offsetWidth - document.querySelector('main').offsetWidth") > 100
    assert page.evaluate("document.documentElement.scrollWidth") == 1600
    page.close()


def test_the_first_column_of_a_wide_table_leaves_room_on_a_phone(browser: Any, pages: dict[str, Path]) -> None:  # noqa: F811
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(pages["hostile"].as_uri())
    widths = page.evaluate("[...document.querySelectorAll('.wide td:first-child')].map(cell => cell.offsetWidth)")
    assert widths
    assert max(widths) < 200
    page.close()
