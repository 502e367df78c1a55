"""An experiment's page and the dashboard: inert, self-contained, accessible, with the right numbers; and the files beside."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
from datetime import datetime
from pathlib import Path

import pytest
from fake_experiment import make_experiment, over_seeds
from fake_run import HOSTILE, edit, make_run
from rich.progress import Progress
from test_run_page import Page

from loralab.errors import LoralabError
from loralab.report.experiments.dashboard import dashboard_tables, draw_dashboard, read_dashboard
from loralab.report.experiments.findings import findings
from loralab.report.experiments.profiles import analyze_experiment
from loralab.report.experiments.result_tables import summary_table, trial_overview
from loralab.report.write import write_report
from loralab.storage import experiment_folder, run_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    points = over_seeds(
        [({"lora.layers": name}, values) for name, values in (("top1", [0.5, 0.51, 0.53]), ("all", [0.8, 0.81, 0.84]))]
    )
    made = make_experiment(tmp_path_factory.mktemp("experiment") / "layers-mine", "layers", points)
    assert write_report(made) == made / "report.html"
    return made


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("hostile") / "<b onclick=alert(1)>&lt;"
    points = over_seeds([({"data.source": name, HOSTILE[1]: 1}, [0.5, 0.6, 0.7]) for name in HOSTILE])
    made = make_experiment(folder, HOSTILE[2], points, recipes=HOSTILE, question=" ".join(HOSTILE))
    experiment = made / experiment_folder.EXPERIMENT
    records = json.loads(experiment.read_text(encoding="utf-8"))["trials"]
    edit(experiment, trials=[record | {"failure": "<script>window.hacked = 1</script>"} for record in records])
    (next(made.glob("trials/*")) / run_folder.SCORES).unlink()
    return write_report(made).read_text(encoding="utf-8")


def test_hostile_names_are_only_text(hostile: str) -> None:
    page = Page(hostile)
    assert page.open == []
    assert {"script", "img", "b onclick=alert(1)", "iframe", "object", "link"}.isdisjoint(tag for tag, _ in page.tags)
    assert [name for _, attributes in page.tags for name in attributes if name.startswith("on")] == []
    text = "".join(page.texts)
    assert all(text.count(name) > 3 for name in HOSTILE[:3])
    assert "{{ 7 * 7 }}" in text


def test_nothing_is_fetched(hostile: str, folder: Path) -> None:
    for html in (hostile, (folder / experiment_folder.REPORT).read_text(encoding="utf-8")):
        page = Page(html)
        links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("href", "src", "srcset")]
        assert len(links) > 4
        assert all(link.startswith("#") for link in links)
        assert "@import" not in html
        assert re.findall(r"url\((?!#)", html) == []
        policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")


def test_the_page_is_accessible(folder: Path, hostile: str) -> None:
    for page in (Page((folder / experiment_folder.REPORT).read_text(encoding="utf-8")), Page(hostile)):
        assert len(page.all("table")) == len(page.all("caption")) >= 3
        assert all("scope" in attributes for attributes in page.all("th"))
        assert len(page.all("svg")) == len(page.all("figcaption")) >= 2
        assert all(svg["role"] == "img" and len(svg["aria-label"]) > 40 for svg in page.all("svg"))
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert levels.count(1) == 1
        assert all(deeper - level <= 1 for level, deeper in itertools.pairwise(levels))
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {a["href"][1:] for _, a in page.tags if a.get("href", "").startswith("#")} <= set(ids)


def test_headline_findings_and_tables_have_the_numbers(folder: Path) -> None:
    page = Page((folder / experiment_folder.REPORT).read_text(encoding="utf-8"))
    header = " ".join(page.by_tag["header"][0].split())
    assert (
        "all layers With fewer layers, a loss of 1 point or more is not ruled out. With layers all, mean test accuracy: 81.67 %"
        in header
    )
    assert "6 of 6 planned" in header
    rows = [" ".join(row.split()) for row in page.by_tag["tr"]]
    assert any(row.startswith("top130.5133") for row in rows), rows
    assert any("Layers top1 vs. layers all: worse by 30.33 points" in text for text in page.by_tag["li"])


def test_the_files_beside_the_page(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} <= experiment_folder.NAMES
    assert {path.name for path in (folder / experiment_folder.TABLES).iterdir()} == {
        "points.csv",
        "comparisons.csv",
        "overview.csv",
    }
    assert {path.name for path in (folder / experiment_folder.FIGURES).iterdir()} == {"cost.png", "by_step.png", "differences.png"}
    with (folder / experiment_folder.TABLE).open(encoding="utf-8", newline="") as file:
        assert [row["test_accuracy"] for row in csv.DictReader(file)] == ["0.5", "0.51", "0.53", "0.8", "0.81", "0.84"]


@pytest.mark.slow
def test_the_same_experiment_gives_the_same_page(folder: Path) -> None:
    before = (folder / experiment_folder.REPORT).read_bytes()
    write_report(folder)
    assert (folder / experiment_folder.REPORT).read_bytes() == before


def test_an_experiment_without_results_has_a_page(tmp_path: Path) -> None:
    made = make_experiment(tmp_path / "x", "grid", [], waiting=[{"lora.rank": 4, "seed": 1}])
    text = "".join(Page(write_report(made).read_text(encoding="utf-8")).texts)
    assert "0 of 1 trials have a result." in text
    assert "No trial has a result yet." in text


def test_the_dashboard_has_a_row_per_experiment_and_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_experiment(tmp_path / "grid of <b>", "grid", over_seeds([({"lora.rank": r}, [0.8, 0.9]) for r in (4, 8)]))
    write_report(tmp_path / "grid of <b>")
    damaged = make_experiment(tmp_path / "damaged", "seeds", over_seeds([({}, [0.8])]))
    (damaged / experiment_folder.EXPERIMENT).write_text("{", encoding="utf-8")
    make_run(tmp_path / "alone")
    (tmp_path / "notes").mkdir()
    (tmp_path / ".hidden").mkdir()
    by_name = {row.name: row for row in read_dashboard(tmp_path)}
    assert set(by_name) == {"grid of <b>", "damaged", "alone"}
    grid = by_name["grid of <b>"]
    assert (grid.kind, grid.best, grid.values, grid.trials, grid.test_rows) == ("grid", "rank 4", (0.8, 0.9), (4, 4), 400)
    assert by_name["damaged"].problem.startswith("cannot be read: ")
    assert (by_name["alone"].kind, len(by_name["alone"].values)) == ("run", 1)
    assert write_report(tmp_path) == tmp_path / "report.html"
    (warning,) = caplog.messages
    assert warning.startswith("damaged cannot be read: ")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert [a["href"] for a in page.all("a")] == ["#results", "grid%20of%20%3Cb%3E/report.html"]
    rows = [" ".join(row.split()) for row in page.by_tag["tr"]]
    assert any(row.startswith("grid of <b>gridquickstartrank 40.85") for row in rows), rows
    assert any("damaged" in row and "cannot be read" in row for row in rows)


def test_the_dashboard_is_in_the_order_of_the_dates_it_shows(tmp_path: Path) -> None:
    for day, name in enumerate(("c", "a", "b"), 1):
        made = make_experiment(tmp_path / name, "seeds", over_seeds([({}, [0.8])]))
        seconds = datetime(2026, 1, day).timestamp()
        os.utime(made / experiment_folder.EXPERIMENT, (seconds, seconds))
    assert [row.name for row in read_dashboard(tmp_path)] == ["b", "a", "c"]


def test_an_experiment_with_different_test_rows_is_in_no_figure_of_the_dashboard(tmp_path: Path) -> None:
    make_experiment(tmp_path / "same", "seeds", over_seeds([({"recipe": "a"}, [0.8, 0.9])]))
    made = make_experiment(tmp_path / "different", "seeds", over_seeds([({"recipe": "a"}, [0.8]), ({"recipe": "b"}, [0.9])]))
    other = next(made.glob("trials/recipe-b*")) / run_folder.ENVIRONMENT
    edit(other, rows={"test": {"count": 300, "fingerprint": "another"}})
    rows = read_dashboard(tmp_path)
    (drawing,) = draw_dashboard(rows)
    assert drawing.caption.rows == "1 with a result"
    (table,) = dashboard_tables(rows)
    assert {row[0]: row[table.columns.index("test rows")] for row in table.rows} == {
        "same": "A 400",
        "different": "differ",
    }


def test_the_trials_of_a_search_have_their_numbers(tmp_path: Path) -> None:
    made = make_experiment(tmp_path / "x", "search", [({"trial": "0002"}, 0.8), ({"trial": "0010"}, 0.9)])
    records = json.loads((made / experiment_folder.EXPERIMENT).read_text(encoding="utf-8"))["trials"]
    edit(made / experiment_folder.EXPERIMENT, trials=[record | {"factors": {"lora.rank": 4}} for record in records])
    table = trial_overview(analyze_experiment(made).data)
    assert (table.columns[:2], table.keys) == (("trial", "lora.rank"), 2)
    assert [row[:2] for row in table.rows] == [(2, 4), (10, 4)]


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match="is no run and no experiment, and holds none"):
        write_report(tmp_path)
    with pytest.raises(LoralabError, match="there is no"):
        write_report(tmp_path / "absent")


def test_a_progress_bar_shows_remaining_then_elapsed_time() -> None:
    from loralab.cli.experiment_display import _Time

    now = [0.0]
    progress = Progress(get_time=lambda: now[0])
    progress.add_task("trials", total=4)
    (task,) = progress.tasks
    for second in (10.0, 20.0):
        now[0] = second
        progress.advance(task.id)
    assert _Time().render(task).plain == "left 0:00:20"
    now[0] = 45.0
    progress.update(task.id, completed=4)
    assert _Time().render(task).plain == "took 0:00:45"


def test_the_terminal_shows_configurations_and_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from loralab.cli.experiment_display import ExperimentView
    from loralab.experiments.run import ExperimentSummary

    made = make_experiment(
        tmp_path / "x", "grid", over_seeds([({"lora.rank": r, "data.source": "[bold]a"}, [0.5, 0.6]) for r in (4, 8)])
    )
    analysis = analyze_experiment(made)
    view = ExperimentView(made, "here")
    view.summarise(ExperimentSummary(made, ()), summary_table(analysis.data, analysis.score), findings(analysis), [], None)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "rank source seeds validation accuracy test accuracy 95 % CI" in lines
    assert "4 [bold]a 2 0.6000 0.5500 0.5035 to 0.5956" in lines
    assert any(line.startswith("With fewer than 3 seeds per configuration") for line in lines)


def test_the_dashboard_has_the_adjusted_interval_of_the_best(tmp_path: Path) -> None:
    points = [({"lora.rank": r}, [0.8 + r / 100, 0.82 + r / 100, 0.81 + r / 100]) for r in (2, 4, 8)]
    analysis = analyze_experiment(make_experiment(tmp_path / "grid", "grid", over_seeds(points)))
    (row,) = read_dashboard(tmp_path)
    assert analysis.best is not None
    assert analysis.best.interval != analysis.best_interval == row.interval
