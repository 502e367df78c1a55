"""Texts, labels and messages cannot command the terminal, and show one backslash as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import done, invoke

from loralab.cli import display
from loralab.inference.prediction_files import Predictions

ESCAPE = "\x1b[31mred\x1b[0m\x07"


@pytest.mark.parametrize("label", ["C:\\", "a_long_label\\", "[/x]", "[red]\\", "plain", "twice\\\\"])
@pytest.mark.parametrize("text", ["C:\\", "see [/INST] \\", "[bold]x", "tab\tand \\[red]", "twice\\\\"])
def test_predictions_show_texts_and_labels_as_they_are(text: str, label: str, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = Predictions([label], np.array([[0.5]], dtype=np.float32), (label,))
    with display.console.capture() as capture:
        display.show_predictions([text], predictions)
    assert capture.get().splitlines()[0] == f"{label:<12} {text}".expandtabs(8)


def test_control_characters_are_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("text,label\n" + f"fine {ESCAPE},a{ESCAPE}\nleaks,b\n" * 20, encoding="utf-8")
    for arguments in (("check", "rows.csv"), ("augment", f"some {ESCAPE} words"), ("clean", ESCAPE)):
        out = invoke(*arguments).out
        assert "\\x1b[31mred\\x1b[0m\\x07" in out.replace("\\\\", "\\")
        assert not {"\x1b", "\x07"} & {*out}
    err = invoke("check", "rows.csv", f"data.text={ESCAPE}").err
    assert not {"\x1b", "\x07"} & {*err}


def test_a_text_that_no_technique_changes_is_remarked_on() -> None:
    assert "which spaces divide" in done("augment", "这个手机很好用")
    assert "no technique" not in done("augment", "Oil prices fall to the lowest level of the year", "--strength", "0.5")
