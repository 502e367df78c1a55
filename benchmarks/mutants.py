"""Mutation testing of metrics, stats, config and data with mutmut: make mutants. Writes docs/reference/mutation.md.

mutmut changes one operator, constant, argument or string of a function at a time and runs the tests that call the function. A
mutant that no test notices survives. mutmut keeps its work in `mutants/`; this module leaves out texts for people, draws the
sample, checks that tests pass where nothing was changed, and writes the page.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import math
import os
import platform
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORK = Path("mutants")  # mutmut's folder, in the current folder
PAGE = ROOT / "docs" / "reference" / "mutation.md"
TESTS = {"metrics": "tests/test_metrics.py", "stats": "tests/stats", "config": "tests/config", "data": "tests/data"}
PACKAGES = tuple(TESTS)
CONTROLS = 40
MODULES = (ROOT / WORK / "modules.txt").absolute()
OURS = {"__main__", "__mp_main__", "loralab", "benchmarks", "tests"}

# Two words in a row: a text for people. Names of columns, formats and settings have no space between words.
PROSE = re.compile(r"[^\W\d_]{2,}\S* \S*[^\W\d_]{2,}")
LEFT_OUT = 34  # mutmut's exit code of a mutant that it skips
KILLED, TIMEOUT, SURVIVED, NO_TEST = "killed", "timeout", "survived", "no test"
OUTCOMES = {0: SURVIVED, 5: NO_TEST, 33: NO_TEST, 1: KILLED, 3: KILLED, 24: TIMEOUT, -24: TIMEOUT, -9: TIMEOUT}
OUTCOMES |= {-6: KILLED, -11: KILLED}  # the process died
OUTCOMES |= {255: SURVIVED}  # pytest did not run


@dataclass(frozen=True)
class Score:
    """Mutants of a package, and what became of those that were tried."""

    package: str
    mutants: int
    outcomes: Counter[str]

    @property
    def tried(self) -> int:
        return self.outcomes.total()

    @property
    def share(self) -> float:
        return (self.outcomes[KILLED] + self.outcomes[TIMEOUT]) / self.tried

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of a sample; the share itself where every mutant was tried."""
        if self.tried == self.mutants:
            return self.share, self.share
        z, n = 1.959964, self.tried
        centre = (self.share + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(self.share * (1 - self.share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return centre - half, centre + half


def overall(scores: list[Score]) -> tuple[float, float, float]:
    """The share of all mutants that tests notice, and its bounds: packages weigh as many mutants as they have.

    Distances to the bounds add up in squares, as in Newcombe's interval of a difference (1998, method 10).
    """
    weights = [score.mutants / sum(score.mutants for score in scores) for score in scores]
    share = sum(weight * score.share for weight, score in zip(weights, scores, strict=True))
    below, above = (
        math.hypot(*(weight * (score.share - score.interval[side]) for weight, score in zip(weights, scores, strict=True)))
        for side in (0, 1)
    )
    return share, share - below, share + above


def is_prose(text: object) -> bool:
    """Whether a string is a text for people: its wording may change with no test failing."""
    return isinstance(text, str) and PROSE.search(text) is not None


def package_of(path: Path | str) -> str:
    """metrics, stats, config or data: the part of loralab that a source file belongs to."""
    return Path(path).relative_to("src/loralab").parts[0].removesuffix(".py")


def page(scores: list[Score], how: str) -> str:
    """Return the page: what is measured, the table, and how it was made."""
    share, low, high = overall(scores)
    rows = [
        f"| `{score.package}` | {score.mutants:,} | {score.tried:,} | {score.outcomes[KILLED]:,} | {score.outcomes[TIMEOUT]:,} | "
        f"{score.outcomes[SURVIVED]:,} | {score.outcomes[NO_TEST]:,} | {percent(score.share, *score.interval)} |"
        for score in scores
    ]
    return f"""# Mutation testing

Do tests notice wrong code? [mutmut](https://mutmut.readthedocs.io) changes one operator, constant, argument or string of a function
and runs the tests that call it. If one fails, the mutant is killed. The score is the share of mutants that are killed.

**{percent(share, low, high)}** of {sum(score.mutants for score in scores):,} mutants.

| package | mutants | tried | killed | timeout | survived | no test | score |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

{how}

## What counts

- Intervals are Wilson's, 95 %, for mutants drawn at random. A package whose mutants were all tried has none. The total weighs
  packages by their number of mutants; the distances to its bounds are added in squares.
- A mutant that never ends counts as killed (*timeout*). One in a function that no test calls counts as survived (*no test*).
- Left out: strings with two words in a row, which are texts for people. Their wording is no behaviour. Everything else counts,
  mutants that are equivalent to the original too.
- mutmut does not change docstrings, annotations, f-strings, code outside functions (constants, fields of settings), and functions
  with a decorator (properties, validators).
- The tests are the fast ones of `tests/stats`, `tests/config`, `tests/data` and `tests/test_metrics.py`. Slow tests, tests
  of time, and tests of other packages call the same functions and may notice more.

## Run it

```
make mutants                       all mutants: hours, on an idle machine
make mutants SAMPLE=600 SEED=1     of each package, 600 drawn at random
make mutants ONLY=stats            some packages; does not write this page
```

The diffs of survivors are in `mutants/survivors.diff`. `make clean` removes the folder.
"""


def percent(share: float, low: float, high: float) -> str:
    """A score, with its interval if it has one."""
    text = f"{100 * share:.1f} %"
    return text if low == high else f"{text} ({100 * low:.1f} to {100 * high:.1f})"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=0, help="try at most this many mutants of each package; default: all")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--only", nargs="+", choices=PACKAGES, default=PACKAGES, help="packages; the page needs all")
    parser.add_argument("--again", action="store_true", help="keep mutants/, try what survived there: while you write tests")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args(argv)
    os.chdir(ROOT)
    leave_texts_out()
    select(options.only)
    if options.again:
        reset_survivors()
    else:
        shutil.rmtree(WORK, ignore_errors=True)
        generate(options.workers)
        leave_out(options.only, options.sample, random.Random(options.seed))
    start = time.monotonic()
    run(options.only, options.workers)
    minutes = (time.monotonic() - start) / 60
    failures, controls = run_controls(options.workers, random.Random(options.seed))
    scores = read_scores(options.only)
    write_survivors()
    arguments = f" SAMPLE={options.sample} SEED={options.seed}" if options.sample else ""
    how = (
        f"Measured with `make mutants{arguments}` in {minutes:,.0f} minutes on {os.cpu_count()} cores (mutmut "
        f"{metadata.version('mutmut')}, Python {platform.python_version()}). Controls: of {controls} functions with nothing "
        f"changed, the tests of {failures} failed."
    )
    text = page(scores, how)
    print(text.split("## What counts")[0])
    if tuple(options.only) == PACKAGES and not options.again:
        PAGE.write_text(text, encoding="utf-8")


def leave_texts_out() -> None:
    """Make mutmut change no texts for people."""
    import libcst
    from mutmut.mutation.mutators import mutation_operators, operator_string

    def change_string(node: libcst.BaseString) -> Iterator[libcst.BaseString]:
        if not (isinstance(node, libcst.SimpleString) and is_prose(node.evaluated_value)):
            yield from operator_string(node)

    place = mutation_operators.index((libcst.BaseString, operator_string))
    mutation_operators[place] = (libcst.BaseString, change_string)


def generate(workers: int) -> None:
    """Write the mutated sources to mutants/."""
    from mutmut.__main__ import CatchOutput, create_mutants
    from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir

    WORK.mkdir()
    with CatchOutput():
        copy_src_dir()
        copy_also_copy_files()
        create_mutants(workers)


def select(only: list[str]) -> None:
    """Make mutmut mutate these packages and run their tests."""
    from mutmut.configuration import config

    config().only_mutate = [pattern for package in only for pattern in (f"src/loralab/{package}.py", f"src/loralab/{package}/*")]
    config().pytest_add_cli_args_test_selection = [TESTS[package] for package in only]


def leave_out(only: list[str], sample: int, source: random.Random) -> None:
    """Mark mutants that are not to be tried: of other packages, and outside the sample."""
    files = mutated_files()
    drawn: set[str] = set()
    for package in only:
        names = sorted(name for data in files if package_of(data.path) == package for name in data.exit_code_by_key)
        drawn |= {*(source.sample(names, min(sample, len(names))) if sample else names)}
    for data in files:
        data.exit_code_by_key |= dict.fromkeys(data.exit_code_by_key.keys() - drawn, LEFT_OUT)
        data.save()


def reset_survivors() -> None:
    for data in mutated_files():
        for name, code in data.exit_code_by_key.items():
            if OUTCOMES.get(code) in (SURVIVED, NO_TEST):
                data.exit_code_by_key[name] = None
        data.save()


def run(only: list[str], workers: int) -> None:
    """Try the mutants that have no outcome yet."""
    from mutmut import __main__ as mutmut

    mutmut.get_mutant_runner = make_runner
    mutmut.print_stats = now_and_then(mutmut.print_stats)
    try:
        mutmut._run((), workers)
    except SystemExit as ended:  # mutmut does not show which test
        tests = " ".join(TESTS[package] for package in only)
        raise SystemExit(f"a test fails without mutants: (cd {WORK} && PYTHONPATH=src pytest -x {tests})") from ended


def now_and_then(print_stats: Callable[..., None]) -> Callable[..., None]:
    """Print the numbers of outcomes every ten seconds: mutmut counts all of them again for each mutant."""
    due = 0.0

    def print_if_due(files: object, force_output: bool = False) -> None:
        nonlocal due
        if force_output or time.monotonic() > due:
            due = time.monotonic() + 10
            print_stats(files, force_output=True)

    return print_if_due


def run_controls(workers: int, source: random.Random) -> tuple[int, int]:
    """Run the tests of some functions, drawn at random, as for a mutant but with nothing changed; return failures and functions."""
    from mutmut.state import state

    tests = {name: sorted(tests) for name, tests in state().tests_by_mangled_function_name.items() if tests}
    runner = make_runner(workers)
    runner.startup()
    codes = []
    for name in source.sample(sorted(tests), min(CONTROLS, len(tests))):
        while not runner.has_capacity():
            codes.append(runner.wait_for_result().exit_code)
        runner.submit(f"control.{name}", tests[name], 2400, 1200)
    while runner.pending_count():
        codes.append(runner.wait_for_result().exit_code)
    runner.shutdown()
    return sum(code != 0 for code in codes), len(codes)


def make_runner(workers: int) -> Any:
    """A server that collects the tests once, and runs those of each mutant in a fork of itself, the fastest first."""
    from mutmut.runners.harness import PytestRunner
    from mutmut.state import state
    from mutmut.workers.isolation import ForkServerRunner

    class FastestFirst(ForkServerRunner):
        def run_clean_tests(self, tests: Iterable[str]) -> int:
            return 0  # all tests have just passed, while mutmut noted which functions they call; run_controls repeats some

        def submit(self, mutant_name: str, tests: list[str], cpu_time_limit: int, estimated_time: float) -> None:
            super().submit(mutant_name, sorted(tests, key=state().duration_by_test.__getitem__), cpu_time_limit, estimated_time)

    class Warm(PytestRunner):
        def run_stats(self, *, tests: Iterable[str]) -> int:
            code = super().run_stats(tests=tests)
            MODULES.write_text("\n".join(name for name in sys.modules if name.partition(".")[0] not in OURS), encoding="utf-8")
            return code

        def warm_up(self) -> None:
            super().warm_up()
            for name in MODULES.read_text(encoding="utf-8").split():  # imported late, and else by each fork: Transformers takes 5 s
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
            for module in [module for name, module in sys.modules.items() if name.startswith("loralab")]:
                for value in vars(module).values():
                    if hasattr(value, "cache_clear"):  # filled while tests were collected, by code that is not mutated yet
                        value.cache_clear()
            gc.freeze()  # pytest collects garbage at its end: half a second where torch is loaded, and more than most tests take

    return FastestFirst(workers, Warm, {})


def read_scores(only: list[str]) -> list[Score]:
    outcomes: dict[str, Counter[str]] = {package: Counter() for package in only}
    mutants: Counter[str] = Counter()
    for data in mutated_files():
        package = package_of(data.path)
        if package in outcomes:
            mutants[package] += len(data.exit_code_by_key)
            outcomes[package].update(OUTCOMES[code] for code in data.exit_code_by_key.values() if code != LEFT_OUT)
    return [Score(package, mutants[package], counts) for package, counts in outcomes.items()]


def write_survivors() -> None:
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    with (WORK / "survivors.diff").open("w", encoding="utf-8") as file:
        for data in mutated_files():
            for name, code in data.exit_code_by_key.items():
                if OUTCOMES.get(code) in (SURVIVED, NO_TEST):
                    file.write(f"# {name}: {OUTCOMES[code]}\n{get_diff_for_mutant(name, path=data.path)}\n")


def mutated_files() -> list[Any]:
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.utils.file_utils import walk_mutatable_files

    files = [SourceFileMutationData(path=path) for path in sorted(walk_mutatable_files())]
    for data in files:
        data.load()
    return files


if __name__ == "__main__":
    main()
