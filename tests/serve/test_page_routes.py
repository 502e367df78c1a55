"""The routes of the page: security headers, names from clients, who may do what, and `loralab ui`."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import Client, start
from tiny import topics

from loralab.serve.settings import ServerSettings
from loralab.storage import run_folder

CSV = "text\n" + "\n".join(text for text, _ in topics(3))
SOURCES = Path(__file__).parents[2] / "src/loralab/serve/page/static"


@pytest.fixture(scope="module")
def settings(served_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> ServerSettings:
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(served_runs / "news", folder / "runs" / "news")
    (folder / "runs" / "news" / run_folder.REPORT).write_text("<p>report</p>", encoding="utf-8")
    (folder / "secret").mkdir()
    (folder / "secret" / run_folder.REPORT).write_text("secret", encoding="utf-8")
    return ServerSettings(folder=folder / "runs", labels=folder / "labels", workers=1, max_upload=1000)


@pytest.fixture(scope="module")
def client(settings: ServerSettings) -> Iterator[Client]:
    client = start(settings)
    yield client
    client.service.close()


def upload(client: Client, content: str = CSV, **options: Any) -> httpx.Response:
    return client.request("POST", "/api/files", params={"type": ".csv"}, content=content, **options)


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/page.css", "/page/report.css", "/page/icon.svg"])
def test_files_have_a_strict_policy(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/..%2fapp.py", "/page/reports/x", "/page/reports/..%2f..%2fsecret"])
def test_other_files_are_not_there(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_scripts_make_no_markup_from_data() -> None:
    for path in SOURCES.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), path
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), f"{path}: no request to elsewhere"
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", text), f"{path}: nothing inline"


def test_reports_are_sandboxed(client: Client) -> None:
    [line] = client.get("/api/runs").json()["runs"]
    response = client.get(f"/page/reports/{line['report']}")
    assert response.text == "<p>report</p>"
    assert response.headers["content-security-policy"].startswith("sandbox; default-src 'none'; style-src 'unsafe-inline'")


@pytest.mark.parametrize("name", ["../secret", "..", ".", "", "news/../../secret", "/etc", "new\x00s"])
def test_names_of_clients_are_looked_up(client: Client, name: str) -> None:
    for response in (
        client.get("/api/rows", params={"run": name}),
        client.get("/api/comparison", params={"first": "news", "second": name}),
        client.post("/api/runs/load", {"run": name}),
    ):
        assert response.status_code == 404
        assert "no run" in response.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["files", "jobs", "labelling"])
@pytest.mark.parametrize("name", ["unknown", "..", "..%2f..%2fsecret"])
def test_unknown_ids_are_refused(client: Client, kind: str, name: str) -> None:
    assert client.get(f"/api/{kind}/{name}").status_code in (404, 405)


def test_upload_limits_and_formats(client: Client) -> None:
    assert upload(client).json()["rows"] == 12
    assert upload(client, "x" * 1001).status_code == 413
    assert client.request("POST", "/api/files", params={"type": "../../x.csv"}, content=CSV).status_code == 422
    assert client.request("POST", "/api/files", content=CSV).status_code == 422
    assert upload(client, headers={"Origin": "http://elsewhere"}).status_code == 403


def test_a_session_through_http(client: Client, settings: ServerSettings) -> None:
    file = upload(client).json()["id"]
    wanted = {"file": file, "text": ["text"], "name": "../../x.csv", "classes": ["a", "b "], "strategy": "random"}
    state = client.post("/api/labelling", wanted).json()
    assert state["classes"] == ["a", "b"]
    assert [path.name for path in settings.labels.iterdir()] == [state["name"]], "the server makes the name"
    path = f"/api/labelling/{state['name']}"
    state = client.post(f"{path}/rows", {"row": state["row"], "label": "a"}).json()
    assert state["labelled"] == 1
    assert client.post(f"{path}/rows", {"row": state["row"], "label": "c"}).status_code == 422
    state = client.post(f"{path}/rows", {"row": state["row"]}).json()
    assert state["skipped"] == 1
    assert client.post(f"{path}/undo", {}).json()["skipped"] == 0
    assert client.get("/api/labelling").json()["sessions"][0]["labelled"] == 1
    wanted["file"] = upload(client).json()["id"]
    assert client.post("/api/labelling", {**wanted, "classes": ["a"]}).status_code == 422
    assert client.post("/api/labelling", {**wanted, "text": ["other"]}).status_code == 422


def test_strangers_may_not_write_read_texts_or_start_programs(settings: ServerSettings) -> None:
    client = start(replace(settings, host="0.0.0.0"))
    try:
        assert client.get("/api/state").json()["may_change"] is False
        session = {"file": "x", "text": ["text"], "name": "x", "classes": ["a", "b"], "strategy": "random"}
        for path, content in (
            ("/api/labelling", session),
            ("/api/labelling/x/rows", {"row": 0}),
            ("/api/labelling/x/undo", {}),
            ("/api/labelling/x/train", {}),
            ("/api/runs/load", {"run": "news"}),
            ("/api/neighbours", {"model": "news", "text": "x"}),
        ):
            assert client.post(path, content).status_code == 403, path
        link = client.get("/api/runs").json()["runs"][0]["report"]
        for path in ("/api/rows?run=news", "/api/comparison?first=news&second=news", "/api/labelling", f"/page/reports/{link}"):
            assert client.get(path).status_code == 403, f"{path} shows texts"
    finally:
        client.service.close()


def test_a_run_is_loaded_and_has_neighbours(client: Client) -> None:
    assert client.post("/api/runs/load", {"run": "news"}).json() == {"model": "news"}
    assert client.get("/api/runs").json()["runs"][0]["loaded"]
    query = {"model": "news", "text": topics(1)[0][0], "count": 3}
    while (answer := client.post("/api/neighbours", query).json())["status"] == "computing":
        assert answer["done"] <= answer["total"] or not answer["total"]
    assert len(answer["rows"]) == 3
    similarities = [row["similarity"] for row in answer["rows"]]
    assert similarities == sorted(similarities, reverse=True)
    assert client.post("/api/neighbours", {**query, "model": "none"}).status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2])
def test_ui_serves_the_page_without_a_model_and_ends_quietly(tmp_path: Path, signals: int) -> None:
    command = [sys.executable, "-m", "loralab", "ui", str(tmp_path / "runs"), "--no-open", "--labels", str(tmp_path / "labels")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert address is not None, line
        assert 8000 <= int(address[1]) < 8020
        state = httpx.get(f"{address[0]}/api/state").json()
        assert state["models"] == []
        assert state["folder"] == str(tmp_path / "runs")
        assert "<main" in httpx.get(address[0]).text
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)  # two at once would be one
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_ui_wants_a_folder_of_runs(served_runs: Path) -> None:
    command = [sys.executable, "-m", "loralab", "ui", str(served_runs / "news"), "--no-open"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "is not a folder of runs" in result.stderr
