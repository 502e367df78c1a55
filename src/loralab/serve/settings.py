"""The settings of a server, with their defaults. `loralab serve` has an option for each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ServerSettings:
    """What a server offers, and its limits.

    runs: name → folder or hub id of each model. folder: runs and experiments that the page shows, and that may be loaded while
    serving. watch: also load each finished run of `folder`, and reload and remove them as they change.
    workers: threads that compute; None: one per core. max_batch_tokens: per batch. max_queue: texts that may wait; further
    requests get 429. state_cache_mb: MiB for the states of recent texts that several models have in common. max_rows: texts per
    request; max_explained: those of a request with explanations. max_text: characters per text. max_body, max_upload: bytes of a
    request and of a file on the page. timeout: seconds until 504. max_connections: open sockets. keys: a file with one API key
    per line. feedback: the CSV that /feedback appends to. log_texts: log texts as well.
    drift_texts: number of recent texts that drift is measured on; 0: none is kept.
    labels: the folder of what is labelled on the page.
    """

    runs: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    watch: bool = False
    host: str = "127.0.0.1"
    port: int = 8000
    precision: str | None = None
    device: str = "auto"
    workers: int | None = None
    max_batch_tokens: int = 1024
    max_queue: int = 512
    state_cache_mb: int = 64
    max_rows: int = 1024
    max_explained: int = 16
    max_text: int = 100_000
    max_body: int = 8_000_000
    max_upload: int = 200_000_000
    timeout: float = 30.0
    max_connections: int = 2048
    keys: Path | None = None
    feedback: Path = Path("feedback.csv")
    log_texts: bool = False
    drift_texts: int = 1000
    allowed_hosts: tuple[str, ...] = ()
    labels: Path = Path("labels")

    @property
    def threads(self) -> int:
        """The number of worker threads."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.workers or cores
