"""Words in any script in the PNG figures: an installed font draws them, or a number with a key stands for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_run import make_run
from fontTools.ttLib import TTFont
from matplotlib import image
from matplotlib.font_manager import findfont, fontManager
from matplotlib.text import Text

from loralab.report.figures import fonts
from loralab.report.figures.fonts import FONT, fallback_fonts, number_runs
from loralab.report.figures.run_figures import draw_run_figures
from loralab.report.figures.style import save_png
from loralab.report.run_data import read_run
from loralab.report.write import FIGURE_KEY, figure_remark, write_report

NAMES = ["体育", "财经 新闻", "खेल", "🏀", "نعم", "World"]


def make_font(path: Path, family: str, glyphs: dict[str, str]) -> Path:
    """Write a font that draws characters as other characters of DejaVu Sans."""
    font = TTFont(findfont(FONT))
    known = font.getBestCmap()
    for table in font["cmap"].tables:
        if table.isUnicode():
            table.cmap = {ord(character): known[ord(other)] for character, other in glyphs.items()}
    for record in font["name"].names:
        if record.nameID in (1, 4, 6, 16):
            record.string = family if record.nameID != 6 else family.replace(" ", "")
    font.save(path)
    return path


@pytest.fixture
def asian_font(tmp_path: Path) -> Iterator[str]:
    """Install a font for the Chinese names."""
    path = make_font(tmp_path / "asian.ttf", "Invented Asian", dict(zip("体育财经新闻", "ABCDEF", strict=True)))
    fontManager.addfont(path)
    entry = fontManager.ttflist[-1]
    yield entry.name
    fontManager.ttflist.remove(entry)
    fontManager._findfont_cached.cache_clear()


def drawn(folder: Path, monkeypatch: pytest.MonkeyPatch, numbers: dict[str, int]) -> tuple[set[str], dict[str, list[str]]]:
    """Save the figures with class names; return the texts that were drawn, and their fonts."""
    texts: dict[str, list[str]] = {}
    plain = Text.draw
    with monkeypatch.context() as patch:
        patch.setattr(
            Text, "draw", lambda text, *rest: (texts.update({text.get_text(): text.get_fontfamily()}), plain(text, *rest))[1]
        )
        for drawing in draw_run_figures(read_run(make_run(folder, NAMES)))[:2]:
            save_png(drawing, folder / f"{drawing.name}.png", numbers)
    return {text.removesuffix(" (33)").removesuffix(" (34)") for text in texts}, texts


def test_words_without_a_font_are_numbered_alike_in_all_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_regular_fonts", lambda: {FONT: findfont(FONT)})
    numbers: dict[str, int] = {}
    texts, _ = drawn(tmp_path / "run", monkeypatch, numbers)
    assert numbers == {"体育": 1, "财经 新闻": 2, "खेल": 3, "🏀": 4}
    assert {"#1", "#2", "#3", "#4", "نعم", "World"} <= texts
    assert not {"体育", "财经 新闻", "खेल", "🏀"} & texts


def test_an_installed_font_draws_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asian_font: str) -> None:
    installed = {FONT: findfont(FONT), asian_font: findfont(asian_font)}
    monkeypatch.setattr(fonts, "_regular_fonts", lambda: installed)
    numbers: dict[str, int] = {}
    texts, families = drawn(tmp_path / "run", monkeypatch, numbers)
    assert numbers == {"खेल": 1, "🏀": 2}
    assert {"体育", "财经 新闻", "#1", "#2", "World"} <= texts
    assert families["体育"] == [FONT, asian_font]
    assert families["World"] == [FONT]


def test_figures_are_drawn_with_names_again_after_the_png(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from loralab.report.figures.style import to_svg

    monkeypatch.setattr(fonts, "_regular_fonts", lambda: {FONT: findfont(FONT)})
    for drawing in draw_run_figures(read_run(make_run(tmp_path / "run", NAMES)))[:2]:
        before = to_svg(drawing)
        save_png(drawing, tmp_path / "figure.png", {})
        after = to_svg(drawing)
        assert before.count("体育") == after.count("体育") > 0
        assert "#1<" not in after


def test_the_report_has_a_key_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_regular_fonts", lambda: {FONT: findfont(FONT)})
    page = write_report(make_run(tmp_path / "run", NAMES))
    key = tmp_path / "run" / "figures" / FIGURE_KEY
    assert key.read_text(encoding="utf-8").splitlines() == ["#1\t体育", "#2\t财经 新闻", "#3\tखेल", "#4\t🏀"]
    remark = figure_remark(page)
    assert remark.startswith("no installed font has the characters of 体育, 财经 新闻, खेल, 🏀: the PNG figures write #1")
    assert str(key) in remark
    plain = write_report(make_run(tmp_path / "plain", ["a", "é"]))
    assert figure_remark(plain) == ""


def test_pngs_of_names_that_differ_only_in_such_words_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_regular_fonts", lambda: {FONT: findfont(FONT)})
    images = []
    for names in (["体育", "财经"], ["财经", "体育"]):
        drawing = draw_run_figures(read_run(make_run(tmp_path / names[0], names)))[0]
        save_png(drawing, tmp_path / "a.png", {"体育": 1, "财经": 2})
        images.append(image.imread(tmp_path / "a.png"))
    assert images[0].shape != images[1].shape or not np.array_equal(*images)


@pytest.mark.parametrize(
    ("text", "numbered"),
    [
        ("体育 (50)", "#1 (50)"),
        ("AI 体育 x", "AI #1 x"),
        ("体 育", "#1"),
        ("体-育", "#1-#2"),
        ("体 ", "#1 "),
        ("plain", "plain"),
        ("体体x体体", "#1x#1"),
        ("", ""),
    ],
)
def test_a_run_of_characters_gets_one_number(text: str, numbered: str) -> None:
    assert number_runs(text, frozenset(map(ord, "体育")), {}) == numbered


def test_few_fonts_are_chosen_and_what_none_has_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    characters = {"one": "体", "two": "育", "both": "体育"}
    made = {name: str(make_font(tmp_path / f"{name}.ttf", name, dict.fromkeys(text, "A"))) for name, text in characters.items()}
    monkeypatch.setattr(fonts, "_regular_fonts", lambda: {FONT: findfont(FONT), **made})
    assert fallback_fonts(frozenset(map(ord, "体育"))) == (["both"], frozenset())
    assert fallback_fonts(frozenset(map(ord, "体新"))) == (["one"], frozenset(map(ord, "新")))
    assert fallback_fonts(frozenset(map(ord, "新"))) == ([], frozenset(map(ord, "新")))


def test_placeholders_are_no_font() -> None:
    assert not any(name.startswith("Last Resort") for name in fonts._regular_fonts())
    assert FONT in fonts._regular_fonts()
