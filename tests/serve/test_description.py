"""The API against its own description: schemathesis sends what the description allows and forbids, and checks the answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import hypothesis
import pytest

from loralab.serve.app import create_app
from loralab.serve.service import Service
from loralab.serve.settings import ServerSettings

schemathesis = pytest.importorskip("schemathesis")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def api(served_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("described")
    settings = ServerSettings(
        runs={"news": str(served_runs / "news")},
        workers=1,
        feedback=folder / "feedback.csv",
        folder=served_runs,
        allowed_hosts=("*",),
    )
    service = Service(dataclasses.replace(settings))
    service.load()
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(settings, service))


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@hypothesis.settings(max_examples=60, suppress_health_check=[*hypothesis.HealthCheck])
def test_every_route_keeps_its_description(case: object) -> None:
    case.call_and_validate()  # type: ignore[attr-defined]
