"""The API in process: formats, errors, limits, feedback, metrics, and models that come and go."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from servers import Client, start
from tiny import topics

from loralab import Classifier
from loralab.serve.engine import QueueFull
from loralab.serve.service import Service
from loralab.serve.settings import ServerSettings

TEXTS = [text for text, _ in topics(3, 3)]


@pytest.fixture(scope="module")
def settings(served_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> ServerSettings:
    folder = tmp_path_factory.mktemp("server")
    runs = {name: str(served_runs / name) for name in ("news", "tone", "pairs")}
    return ServerSettings(runs=runs, workers=1, feedback=folder / "feedback.csv", max_rows=50, max_text=1000, max_body=20_000)


@pytest.fixture(scope="module")
def client(settings: ServerSettings) -> Iterator[Client]:
    client = start(settings)
    yield client
    client.service.close()


@pytest.mark.parametrize("name", ["news", "tone"])
def test_classify_answers_in_vllms_format_what_predict_answers_offline(client: Client, served_runs: Path, name: str) -> None:
    answer = client.post("/v1/classify", {"model": name, "input": TEXTS}).json()
    offline = Classifier.load(served_runs / name).predict(TEXTS)
    assert answer["object"] == "list"
    assert answer["model"] == name
    assert [entry["index"] for entry in answer["data"]] == [*range(len(TEXTS))]
    assert [entry["label"] for entry in answer["data"]] == offline.labels
    np.testing.assert_allclose([entry["probs"] for entry in answer["data"]], offline.probabilities, atol=1e-5)
    assert {entry["num_classes"] for entry in answer["data"]} == {4}
    assert answer["data"][0]["scores"] == dict(zip(offline.classes, answer["data"][0]["probs"], strict=True))
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > len(TEXTS)
    assert abs(answer["created"] - time.time()) < 60


def test_one_text_and_no_model_name_are_enough(client: Client) -> None:
    answer = client.post("/v1/classify", {"input": TEXTS[0], "user": "somebody", "truncate_prompt_tokens": -1}).json()
    assert len(answer["data"]) == 1
    assert answer["model"] == "news", "the first model"
    assert "top" not in answer["data"][0]


def test_top_k_threshold_and_abstention(client: Client) -> None:
    plain = client.post("/v1/classify", {"input": TEXTS[0]}).json()["data"][0]
    ranked = sorted(plain["scores"].items(), key=lambda pair: -pair[1])
    entry = client.post("/v1/classify", {"input": TEXTS[0], "top_k": 2, "threshold": ranked[2][1]}).json()["data"][0]
    assert [(score["label"], score["score"]) for score in entry["top"]] == ranked[:2]
    assert [score["label"] for score in entry["above_threshold"]] == [label for label, _ in ranked[:3]]
    assert entry["label"] == ranked[0][0]
    abstained = client.post("/v1/classify", {"input": TEXTS[0], "abstain_below": 1.0}).json()["data"][0]
    assert abstained["label"] is None
    assert abstained["probs"] == plain["probs"]
    assert client.post("/v1/classify", {"input": TEXTS[0], "abstain_below": 0.0}).json()["data"][0]["label"] == ranked[0][0]


def test_explanations_sum_to_the_change_of_the_logit(client: Client, served_runs: Path) -> None:
    entry = client.post("/v1/classify", {"input": TEXTS[0], "explain": True}).json()["data"][0]
    assert "".join(word for word, _ in entry["words"]) == TEXTS[0]
    exact = Classifier.load(served_runs / "news", precision="fp32", backend="native")
    encoding = exact.tokenizer.encode(TEXTS[0])
    blank = [token if special else 0 for token, special in zip(encoding.ids, encoding.special_tokens_mask, strict=True)]
    inputs = torch.tensor([encoding.ids, blank])
    text, baseline = exact.model(inputs, torch.ones_like(inputs, dtype=torch.bool))[:, exact.classes.index(entry["label"])].tolist()
    assert sum(value for _, value in entry["words"]) == pytest.approx(text - baseline, rel=0.02, abs=0.02)
    too_many = client.post("/v1/classify", {"input": TEXTS[:1] * 17, "explain": True})
    assert too_many.status_code == 413
    assert "at most 16 texts" in too_many.json()["error"]["message"]


def test_predict_answers_in_the_format_of_text_embeddings_inference(client: Client, served_runs: Path) -> None:
    offline = Classifier.load(served_runs / "news")
    single = client.post("/predict", {"inputs": TEXTS[0]}).json()
    probabilities = offline.predict([TEXTS[0]]).probabilities[0]
    assert [row["label"] for row in single] == [offline.classes[i] for i in np.argsort(-probabilities)]
    np.testing.assert_allclose([row["score"] for row in single], np.sort(probabilities)[::-1], atol=1e-5)
    batch = client.post("/predict", {"inputs": [[text] for text in TEXTS], "raw_scores": True}).json()
    logits = offline.logits(TEXTS)
    np.testing.assert_allclose([[row["score"] for row in rows] for rows in batch], np.sort(logits)[:, ::-1], atol=1e-4)


def test_pairs_are_joined_as_in_training(client: Client, served_runs: Path) -> None:
    pair, joined = ["goal", "the cup final"], "goal the cup final"
    asked = {"model": "pairs", "input": [pair, ["bank", ""]]}
    offline = Classifier.load(served_runs / "pairs").predict([joined, "bank"])
    np.testing.assert_allclose(
        [entry["probs"] for entry in client.post("/v1/classify", asked).json()["data"]], offline.probabilities, atol=1e-5
    )
    refused = client.post("/v1/classify", {"model": "news", "input": [pair]})
    assert refused.status_code == 422
    assert "takes no text pairs" in refused.json()["error"]["message"]
    assert client.post("/predict", {"inputs": pair}).status_code == 422, "the first model takes no pairs"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"input": "x", "model": "newss"}, 404, "there is no model 'newss'; loaded: news, tone, pairs; did you mean 'news'?"),
        ({"input": []}, 422, "at least 1 item"),
        ({}, 422, "input: Field required"),
        ({"input": [1]}, 422, "input"),
        ({"input": "x", "top_k": 0}, 422, "top_k"),
        ({"input": "x", "threshold": 1.5}, 422, "threshold"),
        ({"input": "x" * 1001}, 413, "1,001 characters"),
        ({"input": ["x"] * 51}, 413, "51 texts are more than 50"),
        ([], 422, "object"),
    ],
)
def test_unusable_requests_are_refused_with_what_to_do(client: Client, body: Any, status: int, message: str) -> None:
    answer = client.post("/v1/classify", body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
    assert answer.json()["error"]["code"] == status


@pytest.mark.parametrize(
    ("body", "message"),
    [({"inputs": []}, ""), ({"inputs": [["a", "b", "c"]]}, ""), ({"inputs": [["a"]] * 51}, "51 texts"), ({}, "inputs")],
)
def test_predict_refuses_in_its_own_format(client: Client, body: Any, message: str) -> None:
    answer = client.post("/predict", body)
    assert answer.status_code in (413, 422)
    assert message in answer.json()["error"]
    assert answer.json()["error_type"] == "validation"


def test_long_texts_are_cut_or_refused_as_asked(client: Client) -> None:
    longest = client.service.models.get("news").max_length
    long = "goal " * longest
    assert client.post("/predict", {"inputs": long}).status_code == 200
    refused = client.post("/predict", {"inputs": [["goal"], [long]], "truncate": False})
    assert refused.status_code == 422
    assert f"text 1 has more than {longest} tokens" in refused.json()["error"]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {"content-type": "application/json"}, 422),
        (b"\xff\xfe", {"content-type": "application/json"}, 422),
        (b'{"input": "x"}', {"content-type": "text/plain"}, 415),
        (b'{"input": "x"}', {}, 415),
        (b'{"input": "' + b"x" * 30_000 + b'"}', {"content-type": "application/json"}, 413),
        (b'{"input": ' + b"[" * 9000 + b"]" * 9000 + b"}", {"content-type": "application/json"}, 422),
        (b'{"input": "x"}', {"content-type": "application/json", "origin": "http://evil.example"}, 403),
        (b'{"input": "x"}', {"content-type": "application/json", "host": "evil.example"}, 403),
        (b'{"input": "x"}', {"content-type": "application/json", "origin": "http://127.0.0.1:8000"}, 200),
        (b'{"input": "x"}', {"content-type": "application/json; charset=utf-8", "host": "localhost:8000"}, 200),
    ],
)
def test_bodies_and_headers_that_no_client_should_send(
    client: Client, content: bytes, headers: dict[str, str], status: int
) -> None:
    assert client.request("POST", "/v1/classify", content=content, headers=headers).status_code == status


def test_a_body_without_a_length_is_limited_while_it_arrives(client: Client) -> None:
    def chunks() -> Any:
        async def pieces() -> Any:
            for _ in range(1000):
                yield b"x" * 1000

        return pieces()

    answer = client.request("POST", "/v1/classify", content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert client.request("POST", "/v1/classify", content=chunks()).status_code == 415


def test_models_info_health_and_readiness(client: Client) -> None:
    models = client.get("/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["news", "tone", "pairs"]
    info = client.get("/info", params={"model": "news"}).json()
    assert info["classes"] == ["World", "Sports", "Business", "Sci/Tech"] or len(info["classes"]) == 4
    accuracy = info["accuracy"]
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert accuracy["test_rows"] > 0
    assert info["data"]["text"] == ["text"]
    assert info["temperature"] > 0
    assert client.get("/info", params={"model": "x"}).status_code == 404
    assert client.get("/health").json() == {"status": "alive"}
    assert client.get("/ready").status_code == 200


def test_readiness_waits_for_the_models(settings: ServerSettings) -> None:
    client = Client(Service(settings))
    assert client.get("/ready").status_code == 503
    assert client.get("/health").status_code == 200
    client.service.close()


def test_feedback_is_appended_to_a_csv_that_train_reads(client: Client, settings: ServerSettings) -> None:
    rows = [("=cmd|'/c calc'!A1, \"quoted\"\nsecond line", "Sports"), ("späte Tore ⚽", "World")]
    for text, label in rows:
        answer = client.post("/feedback", {"text": text, "label": label})
        assert answer.status_code == 201
        assert answer.json()["label"] == label
    with settings.feedback.open(encoding="utf-8", newline="") as file:
        stored = [*csv.DictReader(file)]
    assert [(row["text"], row["label"]) for row in stored] == rows
    assert {row["model"] for row in stored} == {"news"}
    wrong = client.post("/feedback", {"text": "x", "label": "Sport"})
    assert wrong.status_code == 422
    assert "did you mean 'Sports'?" in wrong.json()["error"]["message"]


def test_feedback_survives_a_torn_last_line_and_keeps_files_of_others(
    client: Client, settings: ServerSettings, tmp_path: Path
) -> None:
    torn = tmp_path / "torn.csv"
    torn.write_text("text,label,model,predicted,time\nx,World,news,World,2026\ny,Wor", encoding="utf-8")
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("a,b\n1,2\n", encoding="utf-8")
    for path, status in ((torn, 201), (foreign, 422)):
        service = client.service
        before, service.feedback.path = service.feedback.path, path
        try:
            assert client.post("/feedback", {"text": "goal", "label": "Sports"}).status_code == status
        finally:
            service.feedback.path = before
    assert torn.read_text().splitlines()[2:][0] == "y,Wor"
    assert torn.read_text().splitlines()[3].startswith("goal,Sports,news,")
    assert foreign.read_text() == "a,b\n1,2\n"


def test_metrics_count_requests_texts_and_classes(client: Client) -> None:
    def metrics() -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    before = metrics()
    client.post("/v1/classify", {"model": "tone", "input": TEXTS})
    client.get("/no-such-path-1")
    after = metrics()

    def gain(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert gain('loralab_texts_total{model="tone"}') == len(TEXTS)
    per_class = sum(gain(name) for name in after if name.startswith("loralab_predictions_total{label=") and 'model="tone"' in name)
    assert per_class == len(TEXTS)
    assert gain('loralab_requests_total{route="/v1/classify",status="200"}') == 1
    assert gain('loralab_requests_total{route="other",status="404"}') == 1, "made-up paths make up no metrics"
    assert gain("loralab_batch_tokens_count") >= 1
    drift = {name: value for name, value in after.items() if name.startswith("loralab_drift{") and 'model="tone"' in name}
    assert {name.split('measure="')[1].partition('"')[0] for name in drift} == {"words", "classes", "lengths", "unseen_words"}
    assert all(0 <= value <= 1 for value in drift.values())


def test_a_full_queue_answers_429_with_the_time_to_wait(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(job: object) -> None:
        raise QueueFull

    monkeypatch.setattr(client.service.engine.queue, "put", full)
    answer = client.post("/v1/classify", {"input": "x"})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert client.post("/predict", {"inputs": "x"}).json()["error_type"] == "overloaded"


def test_a_request_that_takes_too_long_is_given_up_and_its_texts_are_dropped(settings: ServerSettings) -> None:
    client = start(dataclasses.replace(settings, timeout=0.2, runs={"news": settings.runs["news"]}))
    queue = client.service.engine.queue
    take, client.service.engine.queue.next_batch = queue.next_batch, lambda max_tokens: time.sleep(0.05) or []  # type: ignore
    client.post("/v1/classify", {"input": "one batch may be under way"})
    answer = client.post("/v1/classify", {"input": ["x", "y"]})
    assert answer.status_code == 504
    assert "0.2 seconds" in answer.json()["error"]["message"]
    queue.next_batch = take  # type: ignore[method-assign]
    client.service.close()
    assert queue.dropped == 3 or queue.dropped == 2


def test_a_worker_survives_an_error_in_a_batch(settings: ServerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start(dataclasses.replace(settings, runs={"news": settings.runs["news"]}))

    def fail(texts: object, cache: object) -> None:
        raise RuntimeError("kernel")

    with monkeypatch.context() as patched:
        patched.setattr("loralab.serve.engine.logits_of_texts", fail)
        assert client.post("/v1/classify", {"input": "x"}).status_code == 500
    assert client.post("/v1/classify", {"input": "x"}).status_code == 200
    client.service.close()


def test_keys_are_needed_once_there_are_any(settings: ServerSettings, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("# of the newsroom\n0123456789abcdef0\n\nfedcba98765432100\n", encoding="utf-8")
    client = start(dataclasses.replace(settings, keys=keys, runs={"news": settings.runs["news"]}))
    body = {"input": "x"}
    assert client.post("/v1/classify", body).status_code == 401
    for key in ("0123456789abcdef", "0123456789abcdef00", "# of the newsroom", ""):
        assert client.post("/v1/classify", body, headers={"Authorization": f"Bearer {key}"}).status_code == 401
    for key in ("0123456789abcdef0", "fedcba98765432100"):
        assert client.post("/v1/classify", body, headers={"Authorization": f"bearer {key}"}).status_code == 200
    for path, status in (("/health", 200), ("/ready", 200), ("/info", 401), ("/metrics", 401), ("/v1/models", 401), ("/docs", 401)):
        assert client.get(path).status_code == status, path
    client.service.close()


def test_models_come_and_go_at_a_request_only_with_keys(settings: ServerSettings, served_runs: Path, tmp_path: Path) -> None:
    client = start(dataclasses.replace(settings, folder=served_runs, runs={"news": settings.runs["news"]}))
    refused = client.post("/v1/models", {"model": "tone"})
    assert refused.status_code == 403
    assert "--watch FOLDER and --api-keys FILE" in refused.json()["error"]["message"]
    assert client.request("DELETE", "/v1/models/news").status_code == 403
    client.service.close()

    keys = tmp_path / "keys.txt"
    keys.write_text("0123456789abcdef0\n", encoding="utf-8")
    client = start(dataclasses.replace(settings, folder=served_runs, keys=keys, runs={"news": settings.runs["news"]}))
    key = {"Authorization": "Bearer 0123456789abcdef0"}
    assert client.post("/v1/models", {"model": "tone"}, headers=key).json()["id"] == "tone"
    assert client.post("/v1/classify", {"model": "tone", "input": "x"}, headers=key).status_code == 200
    assert client.request("DELETE", "/v1/models/tone", headers=key).status_code == 204
    assert client.post("/v1/classify", {"model": "tone", "input": "x"}, headers=key).status_code == 404
    for name in ("../topics.csv", "..", "/etc", "nothing", "a/b", "tone\x00"):
        assert client.post("/v1/models", {"model": name}, headers=key).status_code in (404, 422), name
    client.service.close()


def test_the_description_of_the_api_is_valid_and_complete(client: Client) -> None:
    description = client.get("/openapi.json").json()
    assert {"/v1/classify", "/predict", "/v1/models", "/info", "/feedback", "/metrics"} <= set(description["paths"])
    assert json.dumps(description).count("$ref") > 10


def test_the_page_of_the_api_needs_no_other_server(client: Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    for name in ("POST /v1/classify", "abstain_below", "GET /metrics", "text or list of (text) or list of (list of (text))"):
        assert name in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_a_query_that_is_not_ascii_is_refused(client: Client) -> None:
    status = []

    async def send(message: Any) -> None:
        status.append(message.get("status"))

    async def receive() -> Any:
        await asyncio.Event().wait()

    headers = [(b"host", b"127.0.0.1:8000")]
    scope = {"type": "http", "method": "GET", "path": "/v1/models", "query_string": b"run=\xe2(", "headers": headers}
    asyncio.run(client.app(scope, receive, send))
    assert status[0] == 400
