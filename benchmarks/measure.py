"""Shared by all benchmarks: options, alternating ways, ratios of medians, the machine, a table and JSON."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")
PACKAGES = ("torch", "transformers", "peft", "onnxruntime", "tokenizers", "numpy")


@dataclass(frozen=True)
class Report:
    """The result of a benchmark: one value per way and round, in `unit`.

    baselines: ways that the others are divided by; columns: further figures, title → way → figure; failures: failed checks, which
    give exit code 1; remarks: notes for the reader.
    """

    unit: str
    values: Mapping[str, Sequence[float]]
    baselines: Sequence[str] = ()
    columns: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    failures: Sequence[str] = ()
    remarks: Sequence[str] = ()

    @property
    def medians(self) -> dict[str, float]:
        return {way: statistics.median(values) for way, values in self.values.items()}

    def ratio(self, way: str, baseline: str) -> float:
        """Return a way's median divided by a baseline's."""
        return self.medians[way] / self.medians[baseline]

    def as_json(self) -> dict[str, Any]:
        """Return every figure, including the values of single rounds."""
        ways = {}
        for way, values in self.values.items():
            ratios = {baseline: self.ratio(way, baseline) for baseline in self.baselines}
            further = {title: figures[way] for title, figures in self.columns.items() if way in figures}
            spread = {"lowest": min(values), "highest": max(values), "values": [*values]}
            ways[way] = {"median": self.medians[way], **spread, "ratios": ratios, **further}
        notes = {"facts": self.facts, "failures": [*self.failures], "remarks": [*self.remarks]}
        return {"unit": self.unit, "ways": ways, **notes}

    def table(self) -> str:
        """Return one line per way: median, lowest and highest value, ratio to each baseline, further columns."""
        titles = ["", self.unit, "spread", *(f"× {baseline}" for baseline in self.baselines), *self.columns]
        lines = [titles]
        for way, values in self.values.items():
            ratios = [f"{self.ratio(way, baseline):.2f}" for baseline in self.baselines]
            further = [_figure(figures[way]) if way in figures else "" for figures in self.columns.values()]
            spread = f"{_figure(min(values))}-{_figure(max(values))}" if len(values) > 1 else ""
            lines.append([way, _figure(self.medians[way]), spread, *ratios, *further])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]
        facts = [f"{name}: {_figure(fact) if isinstance(fact, float) else fact}" for name, fact in self.facts.items()]
        notes = [*self.remarks, *(f"FAILED: {failure}" for failure in self.failures)]
        return "\n".join([*rows, *facts, *notes])


def _figure(value: float) -> str:
    """Format with four significant digits, more than the spread justifies."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark. add_options: its own options; run: its function; quick: the defaults with --quick."""

    name: str
    about: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Report]
    quick: Mapping[str, Any]

    @property
    def line(self) -> str:
        """The first line of the description."""
        return self.about.splitlines()[0]

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        parser = argparse.ArgumentParser(
            prog=f"python -m benchmarks.{self.name.replace('-', '_')}",
            description=self.about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_common_options(parser)
        self.add_options(parser)
        if parser.parse_args(arguments).quick:
            parser.set_defaults(**self.quick)
        return parser.parse_args(arguments)

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Measure, print the table, write the JSON. Exits with 1 if a check failed."""
        options = self.parse(arguments)
        print(f"== {self.name}: {self.line}", flush=True)
        report = self.run(options)
        print(f"\n{report.table()}\n", flush=True)
        if options.json:
            chosen = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
            content = {"benchmark": self.name, "machine": machine(), "options": chosen, **report.as_json()}
            options.json.mkdir(parents=True, exist_ok=True)
            (options.json / f"{self.name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if report.failures:
            raise SystemExit(1)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every benchmark and of the suite."""
    parser.add_argument("--data", default="sample", help="sample, or a labelled file")
    parser.add_argument("--test", help="a labelled file with test rows")
    parser.add_argument(
        "--base", default="minilm", help="the encoder: minilm, a folder or a hub id; some benchmarks have their own"
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, to check that it works")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="also write NAME.json to this folder")


def alternate(ways: Mapping[str, Callable[[], T]], repeats: int, show: Callable[[T], str]) -> dict[str, list[T]]:
    """Run all ways in turn, in one warm-up round and `repeats` measured ones, so that a slow phase of the machine affects all.

    With repeats=0 the warm-up round counts: enough to check that everything works.
    """
    outcomes: dict[str, list[T]] = {name: [] for name in ways}
    width = max(map(len, ways))
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            outcome = way()
            if repeat or not repeats:
                outcomes[name].append(outcome)
            print(
                f"{f'{repeat}/{repeats}' if repeat else 'warm-up' if repeats else 'once'} {name:<{width}} {show(outcome)}",
                flush=True,
            )
    return outcomes


def gemm_rate(dtype: torch.dtype, device: torch.device, seconds: float = 1.0) -> float:
    """Measure the FLOP/s of minilm's product at 16 texts, (864, 384) by (384, 1536)."""
    x, weight = torch.randn(864, 384, dtype=dtype, device=device), torch.randn(384, 1536, dtype=dtype, device=device)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in range(10):
            x @ weight
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        done += 10
    return done * 2 * 864 * 384 * 1536 / (time.perf_counter() - began)


def machine() -> dict[str, Any]:
    """Return date, platform, processor, GPU and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE) if cpuinfo.is_file() else None
    features = {"avx512_bf16": torch.cpu._is_avx512_bf16_supported(), "amx": torch.cpu._is_amx_tile_supported()}
    versions = {package: version for package in ("loralab", *PACKAGES) if (version := _version(package))}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "platform": platform.platform(),
        "processor": named[1] if named else platform.processor(),
        "features": [name for name, available in features.items() if available],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": sys.version.split()[0],
        "versions": versions,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
