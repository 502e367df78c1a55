"""Inject faults, print tables by command and by kind, and write them: `make faults N=1000 SEED=1`, or CASE=train/kill/op-17."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fault_arena import Arena, open_arena
from fault_cases import Outcome, draw_cases, run_case
from fault_commands import COMMANDS, Case

COLUMNS = ("injected", "hit while running", "survived", "refused", "lost", "differ", "broken")


def run_all(cases: Sequence[Case] | int, seed: int, commands: Sequence[str], workers: int) -> list[Outcome]:
    """Run cases, or draw that many, in `workers` arenas at a time."""

    def work(number: int) -> list[Outcome]:
        with open_arena(commands) as arena:  # equal arenas draw equal cases, and each worker takes its share
            own = draw_cases(arena, cases, seed) if isinstance(cases, int) else cases
            return [timed(arena, case) for case in own[number::workers]]

    with ThreadPoolExecutor(workers) as pool:
        return [outcome for outcomes in pool.map(work, range(workers)) for outcome in outcomes]


def timed(arena: Arena, case: Case) -> Outcome:
    """Run a case, and print how it ended. One that the harness cannot run is broken, and does not end the others."""
    start = time.monotonic()
    try:
        outcome = run_case(arena, case)
    except Exception:
        outcome = Outcome(case, hit=False, state="broken", detail=traceback.format_exc())
    hit = "" if outcome.hit else " (not hit)"
    print(f"{outcome.case}  {outcome.state}{hit} {time.monotonic() - start:.1f} s {outcome.detail}".rstrip(), flush=True)
    return outcome


def tables(outcomes: Sequence[Outcome]) -> str:
    """Return two Markdown tables of the outcomes, by command and by kind of fault, each with a sum."""
    kinds = sorted({outcome.case.kind for outcome in outcomes})
    parts = (("command", [*COMMANDS], lambda case: case.command), ("fault", kinds, lambda case: case.kind))
    return "\n".join(table(title, names, [(name(outcome.case), outcome) for outcome in outcomes]) for title, names, name in parts)


def table(title: str, names: Sequence[str], outcomes: Sequence[tuple[str, Outcome]]) -> str:
    """Return a Markdown table of (name, outcome) with a row for each name that occurs."""
    lines = [f"| {title} | {' | '.join(COLUMNS)} |", "| --- |" + " --- |" * len(COLUMNS)]
    counts: dict[str, Counter[str]] = {name: Counter() for name in (*names, "**all**")}
    for name, outcome in outcomes:
        for count in (counts[name], counts["**all**"]):
            count["injected"] += 1
            count["hit while running"] += outcome.hit
            count[outcome.state] += 1
    lines += [f"| {name} | {' | '.join(str(count[column]) for column in COLUMNS)} |" for name, count in counts.items() if count]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="number of faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", default="", help="COMMAND/KIND/WHERE: one case")
    parser.add_argument("--commands", default="", help="NAME,NAME: only these commands")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="file for the table")
    options = parser.parse_args()
    commands = [options.case.split("/")[0]] if options.case else options.commands.split(",") if options.commands else [*COMMANDS]
    start = time.monotonic()
    print(f"seed {options.seed}", flush=True)
    cases = [Case.parse(options.case)] if options.case else options.count
    outcomes = run_all(cases, options.seed, commands, 1 if options.case else options.workers)
    text = tables(outcomes)
    print(text)
    print(f"{len(outcomes)} faults in {time.monotonic() - start:.0f} s; repeat one with make faults CASE=COMMAND/FAULT/WHERE")
    if options.out:
        options.out.write_text(text)
    sys.exit(0 if all(outcome.passed for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
