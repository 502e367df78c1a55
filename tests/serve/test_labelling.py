"""Labelling sessions: suggestions, order, undo, skip, and going on after a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import CLASSES, topics

from loralab.errors import LoralabError
from loralab.serve.models import Models
from loralab.serve.page import labelling
from loralab.serve.page.labelling import STRATEGY_NAMES, Session, Sessions, SessionSettings

ROWS = dict(topics(30, seed=4))
TEXTS = [*ROWS]


@pytest.fixture(scope="module")
def models(served_runs: Path) -> Models:
    models = Models()
    models.add(served_runs / "news", "news")
    return models


@pytest.fixture
def sessions(models: Models, tmp_path: Path) -> Iterator[Sessions]:
    sessions = Sessions(tmp_path / "labels", models)
    yield sessions
    sessions.close()


def start(sessions: Sessions, **changes: Any) -> Session:
    values: dict[str, Any] = {"file": "mine.csv", "classes": CLASSES, "strategy": "margin", **changes}
    session = sessions.create(SessionSettings(**values), TEXTS)
    session.start()
    return session


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.02)


def give(session: Session, count: int) -> None:
    for _ in range(count):
        state = session.state()
        session.label(state["row"], ROWS[state["text"]])


def test_a_served_model_suggests_at_once(sessions: Sessions, models: Models) -> None:
    session = start(sessions, model="news")
    wait_for(lambda: session.state()["suggestion"])
    suggestion = session.state()["suggestion"]
    assert suggestion["source"] == "model news"
    assert set(suggestion["probabilities"]) == set(CLASSES)
    assert sum(suggestion["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    wait_for(lambda: session.suggestions.computed == len(TEXTS))
    give(session, 12)
    rows = session.labelled.rows
    assert [row.suggested for row in rows] == models.get("news").classifier.predict([row.text for row in rows]).labels
    assert session.state()["agreement"]["of"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_without_a_model_a_probe_learns_from_the_labels(sessions: Sessions, strategy: str) -> None:
    session = start(sessions, strategy=strategy)
    wait_for(lambda: session.suggestions.computed == len(TEXTS))
    assert session.state()["suggestion"] is None
    give(session, 25)
    wait_for(lambda: session.state()["suggestion"] and "25 labels" in session.state()["suggestion"]["source"])
    right = 0
    for _ in range(20):
        state = session.state()
        right += state["suggestion"]["label"] == ROWS[state["text"]]
        session.label(state["row"], ROWS[state["text"]])
    assert right >= 10, "four classes: chance is 5"
    assert len({row.row for row in session.labelled.rows}) == 45


def test_the_row_on_the_page_stays_until_it_is_done(sessions: Sessions) -> None:
    session = start(sessions, model="news")
    row = session.state()["row"]
    wait_for(lambda: session.suggestions.computed == len(TEXTS))
    assert session.state()["row"] == row
    session.skip(row)
    assert session.state()["row"] != row
    assert session.state()["skipped"] == 1


def test_undo_takes_labels_and_skips_back_in_order(sessions: Sessions) -> None:
    session = start(sessions)
    rows = []
    for action in ("label", "skip", "label"):
        row = session.state()["row"]
        rows.append(row)
        session.skip(row) if action == "skip" else session.label(row, CLASSES[0])
    for row, labelled, skipped in zip(reversed(rows), (1, 1, 0), (1, 0, 0), strict=True):
        session.undo()
        state = session.state()
        assert (state["row"], state["labelled"], state["skipped"]) == (row, labelled, skipped)
    assert not session.state()["undo"]
    with pytest.raises(LoralabError, match="nothing to undo"):
        session.undo()


def test_a_session_goes_on_after_a_restart(sessions: Sessions, models: Models) -> None:
    session = start(sessions)
    give(session, 5)
    skipped = session.state()["row"]
    session.skip(skipped)
    sessions.close()
    again = Sessions(sessions.folder, models)
    assert again.summaries() == [
        {
            "name": session.name,
            "file": "mine.csv",
            "classes": CLASSES,
            "strategy": "margin",
            "model": "",
            "total": 120,
            "labelled": 5,
        }
    ]
    opened = again.get(session.name)
    assert opened is not None
    assert opened.state()["labelled"] == 5
    assert opened.state()["skipped"] == 0, "skipped rows come back"
    last = session.labelled.rows[-1]
    opened.undo()
    assert opened.state()["row"] == last.row
    assert again.get("../secret") is None
    again.close()


def test_all_rows_can_be_labelled(sessions: Sessions) -> None:
    session = sessions.create(SessionSettings("two.csv", ("a", "b"), "random"), ["one", " ", "two", "one", ""])
    assert session.texts == ["one", "two"], "blank and repeated texts are left out"
    for _ in range(2):
        session.label(session.state()["row"], "a")
    assert session.state()["row"] is None


def test_a_large_file_is_sampled(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "MAX_POOL", 10)
    session = start(sessions)
    assert len(session.texts) == 10
    assert session.settings.total == 10
    assert [TEXTS.index(text) for text in session.texts] == sorted(TEXTS.index(text) for text in session.texts)


@pytest.mark.parametrize("classes", [("a",), ("a", "a"), ("a", " "), ("a", "a ")])
def test_unusable_classes_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(LoralabError, match="two different classes"):
        SessionSettings("f", classes, "margin")


def test_wrong_labels_rows_and_files_are_refused(sessions: Sessions) -> None:
    session = start(sessions)
    row = session.state()["row"]
    with pytest.raises(LoralabError, match="none of the classes"):
        session.label(row, "Weather")
    session.label(row, CLASSES[0])
    for other in (row, -1, 120):
        with pytest.raises(LoralabError, match="done already"):
            session.label(other, CLASSES[0])
    with pytest.raises(LoralabError, match="no texts"):
        sessions.create(SessionSettings("f", ("a", "b"), "margin"), ["", " "])
    with pytest.raises(LoralabError, match="no strategy"):
        SessionSettings("f", ("a", "b"), "best")


def test_a_damaged_session_is_listed_with_its_problem(sessions: Sessions) -> None:
    session = start(sessions)
    (sessions.folder / session.name / labelling.SESSION).write_text(json.dumps({"file": "x"}), encoding="utf-8")
    [line] = sessions.summaries()
    assert "damaged" in line["problem"]
