"""Coverage-guided fuzzing of everything that reads files and requests: `make fuzz`, or `python tests/fuzz [TARGET] --seconds 60`.

It needs atheris (`pip install 'loralab[fuzz]'`, Linux). Inputs that covered new code stay in .fuzz/corpus, inputs that caused a
problem in .fuzz/problems, and the counts of every run in .fuzz/runs.jsonl, from which --table makes a table.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = Path(os.environ.get("FUZZ_FOLDER", ROOT / ".fuzz"))
MAX_BYTES = 4096
"""The longest input that the fuzzer makes."""
HANG_SECONDS = 25
"""Wall-clock seconds after which an input counts as a hang; the guard's limit counts processor time."""
MEMORY_MB = 3072
INSTRUMENTED = ("loralab", "pickletools", "yaml", "openpyxl", "csv", "json")


def main() -> None:
    """Fuzz targets one after the other, each in its own process, so that a crash of one ends no other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--table", action="store_true", help="print the counts of all runs")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        print(table())
        return
    sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]
    if options.child:
        fuzz(options.targets[0], options.seconds)
        return
    targets, problems = importlib.import_module("fuzz_targets").TARGETS, 0
    for name in options.targets or targets:
        if name not in targets:
            parser.error(f"there is no target {name!r}; targets: {', '.join(targets)}")
        command = [sys.executable, str(HERE), name, "--child", "--seconds", str(options.seconds)]
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
            environment = {**os.environ, "TMPDIR": scratch, "LORALAB_CACHE": f"{scratch}/cache", "LORALAB_KERNELS": "off"}
            environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            ended = subprocess.run(
                command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True, errors="replace"
            )
        if ended.returncode:
            print(ended.stderr[-3000:], file=sys.stderr)
            _append({"target": name, "inputs": 0, "problems": {f"the process ended with {ended.returncode}": 1}})
        line = _runs()[-1]
        problems += sum(line["problems"].values())
        print(json.dumps(line), flush=True)
    sys.exit(1 if problems else 0)


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target in this process until the time is over."""
    import atheris

    with atheris.instrument_imports(include=[*INSTRUMENTED]):
        target = importlib.import_module("fuzz_targets").TARGETS[name]
        guard_module = importlib.import_module("fuzz_guard")
        scratch = Path(os.environ["TMPDIR"])
        guard = guard_module.Guard(scratch)
        (scratch / "work").mkdir()
        function = target.prepare(scratch / "work")
        seeds = target.seeds()
        for data in (*seeds, b"", b"\x00"):  # imports what the packages import late, which the guard would report
            try:
                function(data)
            except BaseException:  # reported below
                continue
    label = name.replace(" ", "-").replace(",", "")
    corpus, problems_folder = FOLDER / "corpus" / label, FOLDER / "problems" / label
    for folder in (corpus, problems_folder):
        folder.mkdir(parents=True, exist_ok=True)
    for data in seeds:
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    problems, slowest, inputs, start = Counter[str](), 0.0, 0, time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def record() -> None:
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        line = {
            "target": name,
            "inputs": inputs,
            "seconds": round(time.monotonic() - start),
            "slowest_ms": round(1000 * slowest, 1),
        }
        _append({**line, "grown_mb": round(grown, 1), "problems": dict(problems)})

    def test(data: bytes) -> None:
        nonlocal slowest, inputs
        if time.monotonic() - start > seconds:
            record()
            os._exit(0)
        began = time.process_time()
        problem = guard.run(function, data)
        slowest, inputs = max(slowest, time.process_time() - began), inputs + 1
        if problem is not None:
            if not problems[problem.place]:
                file = problems_folder / hashlib.sha256(problem.place.encode()).hexdigest()[:12]
                file.write_bytes(data)
                file.with_suffix(".txt").write_text(f"{problem.place}\n{problem.detail}\n", encoding="utf-8")
            problems[problem.place] += 1

    flags = [f"-max_len={MAX_BYTES}", f"-timeout={HANG_SECONDS}", f"-rss_limit_mb={MEMORY_MB}", "-verbosity=0"]
    atheris.Setup([str(HERE), *flags, f"-artifact_prefix={problems_folder}/", str(corpus)], test)
    atheris.Fuzz()


def table() -> str:
    """Return a Markdown table: what was run for each target, all runs together."""
    rows: dict[str, list[float]] = {}
    for line in _runs():
        row = rows.setdefault(line["target"], [0, 0, 0, 0, 0])
        values = (line["inputs"], line.get("seconds", 0), sum(line["problems"].values()))
        row[:3] = [total + value for total, value in zip(row[:3], values, strict=True)]
        row[3:] = [max(row[3], line.get("slowest_ms", 0)), max(row[4], line.get("grown_mb", 0))]
    lines = ["| what is read | inputs | minutes | problems | slowest, ms | memory, MB |", "| --- | --: | --: | --: | --: | --: |"]
    lines += [f"| {name} | {r[0]:,} | {r[1] / 60:.1f} | {r[2]} | {r[3]:,.0f} | {r[4]:,.0f} |" for name, r in rows.items()]
    total = [sum(row[i] for row in rows.values()) for i in range(3)]
    return "\n".join([*lines, f"| **total** | **{total[0]:,}** | {total[1] / 60:.1f} | {total[2]} | | |"])


def _runs() -> list[dict[str, object]]:
    path = FOLDER / "runs.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _append(line: dict[str, object]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
