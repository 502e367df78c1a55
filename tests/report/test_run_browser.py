"""A run's page in Chromium: no requests, no scripts, no overflow on a phone, readable contrast in both colour schemes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_run import HOSTILE, make_run

from loralab.report.write import write_report
from loralab.storage import run_folder

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: apt-get install chromium"),
]

CONTRASTS = """() => {
  const parse = c => { const n = c.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1]; };
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3])).concat(1);
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => { const l = c.slice(0, 3).map(v => linear(v / 255));
    return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
  const ratio = (a, b) => { const [low, high] = [light(a), light(b)].sort((x, y) => x - y); return (high + 0.05) / (low + 0.05); };
  const ground = element => {
    const above = [];
    for (let e = element; e; e = e.parentElement) above.push(parse(getComputedStyle(e).backgroundColor));
    return above.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const behind = text => {           // a shaded cell of the confusion matrix
    text.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});
    const box = text.getBoundingClientRect();
    const found = document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2)
      .find(e => e.tagName === 'path' && getComputedStyle(e).fill !== 'none');
    if (!found) return null;
    const style = getComputedStyle(found), fill = parse(style.fill);
    return [fill[0], fill[1], fill[2], Number(style.opacity) * Number(style.fillOpacity)];
  };
  for (const closed of document.querySelectorAll('details')) closed.open = true;
  const out = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('.skip, .hidden')) continue;
    const style = getComputedStyle(e), svg = e.tagName === 'text';
    let under = ground(svg ? e.closest('figure') : e);
    if (svg) { const cell = behind(e); if (cell) under = over(cell, under); }
    const large = parseFloat(style.fontSize) >= 24;
    const said = e.textContent.trim().slice(0, 40);
    out.push({text: said, ratio: ratio(over(parse(svg ? style.fill : style.color), under), under), least: large ? 3 : 4.5});
  }
  return out;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with hostile and with long names, and long words in its texts."""
    names = [*HOSTILE, *(f"card_payment_not_recognised_variant_{i}" for i in range(10))]
    text = " ".join(HOSTILE) + " " + "unbroken" * 40
    return write_report(make_run(tmp_path_factory.mktemp("browser") / ("run-" + "x" * 60), names, rows=280, text=text))


@pytest.mark.parametrize("guarded", [True, False], ids=["as written", "without its policy"])
def test_no_request_and_no_script(browser: Any, report: Path, tmp_path: Path, guarded: bool) -> None:
    html = report.read_text(encoding="utf-8")
    unguarded = re.sub(r"<meta http-equiv=[^>]*>", "", html)
    assert unguarded != html
    file = tmp_path / "page.html"
    file.write_text(html if guarded else unguarded, encoding="utf-8")
    page, requests, messages = browser.new_page(), [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(file.as_uri(), wait_until="networkidle")
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 0
    assert requests == [file.as_uri()]
    assert messages == []
    assert page.get_by_text("<script>window.hacked = 1</script>").count() > 5
    page.close()


def test_the_hostile_names_run_when_not_escaped(browser: Any) -> None:
    page = browser.new_page()
    page.set_content("".join(HOSTILE[:3]), wait_until="networkidle")
    assert page.evaluate("window.hacked") == 1
    page.close()


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_content_exceeds_the_window(browser: Any, report: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(closed => { closed.open = true })")
    assert page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth <= innerWidth]") == [width, True]
    scrolls = "[...document.querySelectorAll('.scroll')].some(box => box.scrollWidth > box.clientWidth)"
    assert width > 390 or page.evaluate(scrolls), "what is wide scrolls within its own box"
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast(browser: Any, report: Path, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme=scheme)
    page.goto(report.as_uri())
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(ground) < 60) == (scheme == "dark")
    texts = page.evaluate(CONTRASTS)
    page.close()
    assert len(texts) > 500
    assert [each for each in texts if each["ratio"] < each["least"]] == []


def test_the_report_stays_small(report: Path) -> None:
    assert report.name == run_folder.REPORT
    assert report.stat().st_size < 1_000_000
