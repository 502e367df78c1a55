"""Serving speed: `loralab serve` against FastAPI + transformers.pipeline and infinity, on loopback.

    python -m benchmarks.serving [--seconds 10] [--repeats 1] [--infinity PROGRAM] [--data FILE] [--test FILE]
                                 [--parts speed minute overload adapters attacks]

speed     texts/s and latency at 1, 8 and 64 clients, each with one text per request. Servers run one after another.
minute    64 clients for a minute: every answer equals offline prediction.
overload  requests at twice the speed of 64 clients, and the speed two seconds after their end.
adapters  six runs on the top 3 layers of one encoder: one server against six, speed and memory.
attacks   the latency of 4 clients while others do harm.

The clients run on the same cores as the servers. --infinity: the program infinity_emb of another environment.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import measure, ways
from benchmarks.attacks import ATTACKS
from benchmarks.prediction import rows_to_classify
from loralab import Classifier, load_config
from loralab.inference.export import export_run
from loralab.pipeline import run_training

CLIENTS = (1, 8, 64)
PARTS = ("speed", "minute", "overload", "adapters", "attacks")
TOLERANCE = 1e-3
"""Of a probability against offline prediction."""


@dataclass(frozen=True)
class Server:
    """A running server. url: where texts are classified."""

    url: str
    process: subprocess.Popen[bytes]

    def memory(self) -> int:
        """Return the bytes of the process, with its share of what it has in common with others."""
        return int(psutil.Process(self.process.pid).memory_full_info().pss)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--minute", type=float, default=60, help="seconds of the part minute")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=480, help="rows that the run is trained on")
    parser.add_argument("--infinity", help="the program infinity_emb")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])


def run(options: argparse.Namespace) -> measure.Report:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained = ways.trained_run(options, folder, options.rows)
        texts = [*rows_to_classify(options)[0].texts]
        measured = Measured(options, folder, trained, texts)
        for part in options.parts:
            getattr(measured, part)()
    return measured.report()


class Measured:
    """The parts of the benchmark, and what they have shown."""

    def __init__(self, options: argparse.Namespace, folder: Path, trained: Path, texts: Sequence[str]) -> None:
        self.options, self.folder, self.trained, self.texts = options, folder, trained, texts
        self.values: dict[str, list[float]] = {}
        self.columns: dict[str, dict[str, float]] = {}
        self.facts: dict[str, Any] = {}
        self.failures: list[str] = []

    def report(self) -> measure.Report:
        baselines = [way for way in ("pipeline fp32", "pipeline bf16") if way in self.values]
        return measure.Report("texts/s, 64 clients", self.values, baselines, self.columns, self.facts, self.failures)

    def speed(self) -> None:
        offline = Classifier.load(self.trained)
        seconds = []
        for text in self.texts[:220]:
            start = time.perf_counter()
            offline.predict([text])
            seconds.append(time.perf_counter() - start)
        self.facts["p50 of Classifier.predict in process, ms"] = 1000 * statistics.median(seconds[20:])
        del offline
        self.values = measure.alternate(self._servers(), self.options.repeats, lambda rate: f"{rate:8.1f} texts/s")

    def _servers(self) -> dict[str, Callable[[], float]]:
        merged = export_run(self.trained, "merged").folder
        servers: dict[str, Callable[[], Any]] = {"loralab": lambda: self.loralab(self.trained)}
        for dtype in ("fp32", "bf16"):
            servers[f"pipeline {dtype}"] = lambda dtype=dtype: started(
                "-m", "benchmarks.pipeline_server", str(merged), "--dtype", dtype, "--port", "8001", port=8001
            )
        if self.options.infinity:  # its engine optimum does not find the ONNX file of a local folder
            servers["infinity torch"] = lambda: started(
                *(
                    "v2",
                    "--model-id",
                    str(merged),
                    "--engine",
                    "torch",
                    "--port",
                    "8001",
                    "--device",
                    "cpu",
                    "--no-bettertransformer",
                ),
                program=self.options.infinity,
                port=8001,
                path="/classify",
            )

        def measured(way: str) -> float:
            with servers[way]() as server:
                for clients in CLIENTS:
                    load = self.load(server, clients)
                    for title, value in (
                        (f"texts/s, {clients}", load["rate"]),
                        (f"p50 ms, {clients}", load["p50"]),
                        (f"p99 ms, {clients}", load["p99"]),
                    ):
                        self.columns.setdefault(title, {})[way] = value
                    if set(load["statuses"]) != {"200"} or load["errors"]:
                        self.failures.append(f"{way}, {clients} clients: {load['statuses']} {load['errors']}")
            return float(load["rate"])

        return {way: lambda way=way: measured(way) for way in servers}

    def minute(self) -> None:
        with self.loralab(self.trained) as server:
            load = self.load(server, 64, self.options.minute, keep=True)
        offline = Classifier.load(self.trained).predict(self.texts)
        wrong, largest = 0, 0.0
        for number, _, content in load["answers"]:
            entry = json.loads(content)["data"][0]
            wrong += entry["label"] != offline.labels[number]
            largest = max(largest, float(np.abs(np.array(entry["probs"]) - offline.probabilities[number]).max()))
        self.facts[f"answers in {self.options.minute:g} s"] = len(load["answers"])
        self.facts["largest difference of a probability from offline"] = largest
        if wrong or largest > TOLERANCE or set(load["statuses"]) != {"200"} or load["errors"]:
            self.failures.append(f"minute: {wrong} other labels, {largest} difference, {load['statuses']}, {load['errors']}")

    def overload(self) -> None:
        with self.loralab(self.trained) as server:
            before = self.load(server, 64)["rate"]
            over = self.load(server, 64, rate=2 * before)
            time.sleep(2)
            after = self.load(server, 64)["rate"]
        self.facts["texts/s before, at twice the load, two seconds after"] = (
            f"{before:.0f}, {over['good_rate']:.0f}, {after:.0f} ({after / before:.2f} times)"
        )
        self.facts["answers at twice the load"] = str(over["statuses"])
        if after < 0.9 * before or not set(over["statuses"]) <= {"200", "429"} or over["errors"]:
            self.failures.append(f"overload: {before:.0f} → {after:.0f} texts/s, {over['statuses']}, {over['errors']}")

    def adapters(self) -> None:
        runs = [self._top_layers(seed) for seed in range(6)]
        names = [run.name for run in runs]
        texts = [f"{text} {copy}" for copy in range(10) for text in self.texts]  # so that none is repeated
        by_one: list[dict[str, Any]] = [{"input": text, "model": names[i % 6]} for i, text in enumerate(texts)]
        by_all: list[dict[str, Any]] = [{"input": text, "model": name} for text in texts for name in names]
        speeds: dict[str, float] = {}
        for kind, bodies in (("each text by one model", by_one), ("each text by all six", by_all)):
            with self.loralab(*runs) as server:
                speeds[kind], memory = self.load(server, 64, bodies=bodies)["rate"], server.memory()
        with ExitStack() as stack:
            servers = [stack.enter_context(self.loralab(run)) for run in runs]
            plain: list[dict[str, Any]] = [{"input": text} for text in texts]
            separate = self.load(servers[0], 64, others=servers[1:], bodies=plain)["rate"]
            memories = [server.memory() for server in servers]
        for kind, speed in speeds.items():
            self.facts[f"six adapters, {kind}, requests/s: one server, six servers"] = (
                f"{speed:.0f}, {separate:.0f} ({speed / separate:.2f} times)"
            )
        share = memory / sum(memories)
        self.facts["six adapters, MB: one server, six servers"] = f"{memory >> 20}, {sum(memories) >> 20} ({share:.2f} times)"
        if min(speeds.values()) < 1.5 * separate or share > 1 / 3:
            self.failures.append("six adapters: less than 1.5 times the speed, or more than a third of the memory")

    def _top_layers(self, seed: int) -> Path:
        settings = [f"data.source={self.options.data}", f"model.base={self.options.base}", "lora.layers=top3", f"seed={seed}"]
        few = [f"data.max_train_samples={self.options.rows}", "train.epochs=1", "data.max_test_samples=100"]
        return run_training(load_config("quickstart", [*settings, *few]), name=f"seed{seed}", folder=self.folder / "six").folder

    def attacks(self) -> None:
        with self.loralab(self.trained) as server:
            normal = self.load(server, 4)["p99"]
            for kind in ATTACKS:
                address = server.url.rpartition("/v1/")[0]
                command = [sys.executable, "-m", "benchmarks.attacks", address, kind, "--seconds", str(self.options.seconds + 8)]
                with subprocess.Popen(command) as attackers:
                    time.sleep(7)  # until all have arrived
                    load = self.load(server, 4)
                    attackers.wait()
                self.facts[f"p99 during {kind}"] = f"{load['p99']:.1f} ms ({load['p99'] / normal:.2f} times {normal:.1f})"
                if load["p99"] > 3 * normal or set(load["statuses"]) != {"200"} or load["errors"]:
                    self.failures.append(f"{kind}: {load['p99']:.1f} ms, {load['statuses']}, {load['errors']}")
                time.sleep(1)

    def loralab(self, *runs: Path) -> Any:
        return started("-m", "loralab", "-q", "serve", *map(str, runs), "--port", "0", announces=True)

    def load(
        self,
        server: Server,
        clients: int,
        seconds: float | None = None,
        *,
        rate: float | None = None,
        keep: bool = False,
        bodies: Sequence[Mapping[str, Any]] = (),
        others: Sequence[Server] = (),
    ) -> dict[str, Any]:
        """Send requests by a process of its own. bodies: default: the texts; others: further servers."""
        bodies = bodies or [{"input": text if "/v1/" in server.url else [text]} for text in self.texts]  # infinity takes lists
        path = self.folder / "bodies.jsonl"
        path.write_text("\n".join(map(json.dumps, bodies)), encoding="utf-8")
        arguments = [str(path), server.url, *(other.url for other in others), "--clients", str(clients)]
        arguments += ["--seconds", str(seconds or self.options.seconds)]
        arguments += [*(["--rate", str(rate)] if rate else []), *(["--keep"] if keep else [])]
        warm = [*arguments[: arguments.index("--seconds")], "--seconds", "1"]
        for command in ([warm] if rate is None else []) + [arguments]:
            output = subprocess.run([sys.executable, "-m", "benchmarks.load", *command], stdout=subprocess.PIPE, check=True).stdout
        load: dict[str, Any] = json.loads(output)
        load["rate"] = len(load["latencies"]) / load["seconds"]
        load["good_rate"] = load["statuses"].get("200", 0) / load["seconds"]
        for name, share in (("p50", 50), ("p99", 99)):
            load[name] = 1000 * float(np.percentile(load["latencies"], share))
        return load


@contextmanager
def started(
    *arguments: str,
    program: str = sys.executable,
    port: int = 0,
    path: str = "/v1/classify",
    announces: bool = False,
) -> Iterator[Server]:
    """Start a server and wait until it answers. announces: it prints its address in its first line."""
    output = subprocess.PIPE if announces else subprocess.DEVNULL  # a pipe that nobody reads fills up, and the server waits
    process = subprocess.Popen([program, *arguments], stdout=output, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        if announces:
            assert process.stdout is not None
            address = process.stdout.readline().decode().split()[1]
        wait_until_healthy(address + "/health", process)
        yield Server(address + path, process)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{url} does not answer")


BENCHMARK = measure.Benchmark(
    "serving",
    __doc__ or "",
    add_options,
    run,
    {"seconds": 0.5, "minute": 1, "repeats": 0, "texts": 40, "rows": 80, "parts": ["speed", "minute", "overload", "adapters"]},
)

if __name__ == "__main__":
    BENCHMARK.main()
