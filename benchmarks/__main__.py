"""Run benchmarks one after another, on an otherwise idle machine: python -m benchmarks [NAME ...]."""

from __future__ import annotations

import argparse
import sys

from benchmarks import cached, cold_start, few_shot, gpu, measure, memory, prediction, scaling, serving, training, trials

BENCHMARKS = [
    module.BENCHMARK for module in (training, cached, trials, prediction, serving, cold_start, memory, scaling, few_shot, gpu)
]
OPTIONAL = ("few-shot", "gpu")  # of little use without real data, or without a GPU
BY_DEFAULT = [benchmark.name for benchmark in BENCHMARKS if benchmark.name not in OPTIONAL]


def main(arguments: list[str] | None = None) -> None:
    names = [benchmark.name for benchmark in BENCHMARKS]
    width = max(map(len, names))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="\n".join(f"{benchmark.name:<{width}}  {benchmark.line}" for benchmark in BENCHMARKS),
        epilog="Each has its own options: python -m benchmarks.training --help. Default: all but few-shot and gpu.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run")
    measure.add_common_options(parser)
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    common = [f"--{name}={value}" for name in ("data", "test", "base", "json") if (value := getattr(options, name)) is not None]
    common += ["--quick"] if options.quick else []
    failed = []
    for benchmark in BENCHMARKS:
        if benchmark.name in (options.names or BY_DEFAULT):
            try:
                benchmark.main(common)
            except SystemExit as ended:
                if ended.code:
                    print(ended.code if isinstance(ended.code, str) else "", file=sys.stderr)
                    failed.append(benchmark.name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
