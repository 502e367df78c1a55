"""The API against its own description: schemathesis sends what the description allows and forbids, and checks the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import pytest

from loralab.serve.app import create_app
from loralab.serve.service import Service
from loralab.serve.settings import ServerSettings

schemathesis = pytest.importorskip("schemathesis")
pytestmark = pytest.mark.slow
OPERATIONS = (
    ("POST", "/v1/classify"),
    ("POST", "/predict"),
    ("GET", "/v1/models"),
    ("POST", "/v1/models"),
    ("DELETE", "/v1/models/{name}"),
    ("GET", "/info"),
    ("POST", "/feedback"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
)
KEY = "0123456789abcdef0"


@pytest.fixture(scope="module")
def schema(served_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("described")
    (folder / "keys").write_text(KEY, encoding="utf-8")
    runs = {name: str(served_runs / name) for name in ("pairs", "news")}  # the first takes texts and pairs
    settings = ServerSettings(
        runs=runs,
        workers=1,
        feedback=folder / "f.csv",
        folder=served_runs,
        keys=folder / "keys",
        allowed_hosts=("*",),
        max_text=500,
    )
    service = Service(settings)
    service.load()
    return schemathesis.openapi.from_asgi(
        "/openapi.json", create_app(settings, service), headers={"Authorization": f"Bearer {KEY}"}
    )


def test_all_operations_are_tested(schema: Any) -> None:
    described = {(operation.ok().method.upper(), operation.ok().path) for operation in schema.get_all_operations()}
    assert {operation for operation in described if not operation[1].startswith("/api/")} == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_every_route_keeps_its_description(schema: Any, method: str, path: str, mode: str) -> None:
    generation = schemathesis.GenerationMode(mode)
    operation = schema[path][method]
    if mode == "negative" and not (operation.body or operation.query):
        pytest.skip("nothing can be wrong with a request without a body or a query")

    @hypothesis.given(case=operation.as_strategy(generation_mode=generation))
    @hypothesis.settings(max_examples=100, suppress_health_check=[*hypothesis.HealthCheck], deadline=None)
    def check(case: Any) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"})

    check()
