"""The same application as replicas of a Ray Serve deployment, on one machine or a cluster."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loralab.errors import LoralabError, RunFailed, import_optional
from loralab.experiments.on_ray import connect
from loralab.serve.settings import ServerSettings

APPLICATION = "loralab"
REQUESTS_PER_REPLICA = 32
"""Requests under way per replica from which Ray starts another one. Fewer do not fill a replica's batches."""


def parse_replicas(text: str) -> tuple[int, int]:
    """Read `2` or `1-4`: the fewest and the most replicas. Raises LoralabError for anything else."""
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", text)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high:
        raise LoralabError(f"--replicas {text}: write a number, such as 2, or the fewest and the most, such as 1-4")
    return low, high


def start(settings: ServerSettings, replicas: tuple[int, int], address: str | None = None) -> str:
    """Deploy the application on the Ray at `address`, else on this machine's, and return where it listens when it is ready.

    Each replica has its own models, queue and workers. Ray's proxy deals requests among them, and starts and ends replicas with the
    number of requests under way. Raises LoralabError without Ray Serve, and if no replica or proxy can start.
    """
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "30")  # Ray kills a proxy that takes more than 5 s by default
    connect(address)
    serve: Any = import_optional("ray.serve", "serve,ray")
    ray: Any = import_optional("ray", "ray")
    low, high = replicas
    scaling = {"min_replicas": low, "initial_replicas": low, "max_replicas": high, "target_ongoing_requests": REQUESTS_PER_REPLICA}
    settings = _for_replica(settings)
    deployment = serve.deployment(
        serve.ingress(_builder(settings))(_Replica),
        name=APPLICATION,
        max_ongoing_requests=settings.max_queue,  # a replica's own queue makes the batches and refuses what is too much
        ray_actor_options={"num_cpus": settings.threads},
        **({"autoscaling_config": scaling} if high > low else {"num_replicas": low}),
    )
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port}, logging_config={"log_level": "WARNING"})
    except ray.exceptions.RayError as error:
        raise RunFailed(
            f"Ray's proxy did not start: {str(error).splitlines()[0]}; if the machine is busy, repeat the command"
        ) from error
    try:
        serve.run(deployment.bind(), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        stop()
        raise LoralabError(f"no replica could start: {error}") from error
    return f"http://{settings.host}:{settings.port}"


def stop() -> None:
    """End the application. Requests under way are finished."""
    serve: Any = import_optional("ray.serve", "serve,ray")
    serve.delete(APPLICATION)


def run_until_interrupted(settings: ServerSettings, replicas: tuple[int, int], address: str | None) -> None:
    """Deploy, print where the application listens, and end it at SIGINT or SIGTERM."""
    where = start(settings, replicas, address)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # Ray has set its own, which would end the replicas at once
        signal.signal(number, lambda *_: ended.set())
    low, high = replicas
    print(f"serving {where}  {', '.join(settings.runs)}  on Ray, {low if low == high else f'{low} to {high}'} replicas", flush=True)
    ended.wait()
    stop()


class _Replica:
    """What Ray Serve attaches the application to."""


def _builder(settings: ServerSettings) -> Callable[[], Any]:
    def build() -> Any:  # Ray takes a plain function for a builder, and a partial for the application itself
        from loralab.serve.app import create_app

        return create_app(settings)

    return build


def _for_replica(settings: ServerSettings) -> ServerSettings:
    """Return the settings of a replica: absolute paths, because Ray's processes have their own folder, and one core by default."""
    runs = {name: str(Path(path).absolute()) if Path(path).exists() else path for name, path in settings.runs.items()}
    paths = {name: value.absolute() for name in ("folder", "keys", "feedback") if (value := getattr(settings, name)) is not None}
    return dataclasses.replace(settings, runs=runs, workers=settings.workers or 1, **paths)
