"""Faults as cases: COMMAND/KIND/WHERE names one, such as train/kill/op-17, and `run_case` runs it and judges what is left."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fault_arena import Arena, problem_of
from fault_commands import COMMANDS, ROWS, Case, Command, Parts, dashboard
from fault_conditions import DAMAGED, DAMAGES, DISTURBANCES, damageable
from fault_server import Ended

AT_OPERATION = ("kill", "int", "int2", "term", "full", "no_size", "read_only", "clock", "change", "remove")
AT_TIME = ("kill", "int", "int2", "term")
SIGNALS = {"kill": signal.SIGKILL, "int": signal.SIGINT, "int2": signal.SIGINT, "term": signal.SIGTERM}
NEEDS_DISK = {"full", "read_only"}
READS_ROWS = ("train", "cached", "resume", "overwrite", "experiment", "search")
LIBC_FAILED = 127
"""Exit code of the C library where it has no memory for a thread."""
SECOND_SIGNAL = 0.03
"""Seconds between two signals, at most: the second arrives while the first is handled."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended. hit: the fault happened while the command ran. state: survived, refused, lost, differ or broken."""

    case: Case
    hit: bool
    state: str
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.state in ("survived", "refused")


class Failure(Exception):
    """A case failed. state: as in `Outcome`."""

    def __init__(self, state: str, detail: str) -> None:
        super().__init__(detail)
        self.state = state


Group = tuple[str, str]


def groups(arena: Arena) -> dict[Group, Callable[[random.Random], Case]]:
    """Return a way to draw a case for each command and kind of fault that applies to it."""
    ways: dict[Group, Callable[[random.Random], Case]] = {}
    for name, reference in arena.references.items():
        operations, command = len(reference.operations), COMMANDS[name]
        for kind in AT_OPERATION:
            inapplicable = (kind in ("change", "remove") and name not in READS_ROWS) or (
                kind in ("int", "int2") and command.call and name != "serve"
            )
            if inapplicable or (kind in NEEDS_DISK and not arena.mounted):
                continue
            ways[name, kind] = _draw_operation(name, kind, operations)
        if command.call is None:
            for kind in AT_TIME:
                ways[name, f"{kind}-at-time"] = _draw_time(name, f"{kind}-at-time")
            if name != "search":  # there a trial that runs out of memory has failed, and counts
                ways[name, "memory"] = _draw_from(name, "memory", [f"mb-{size}" for size in range(0, 400, 2)])
        if name != "export":
            ways[name, "pair"] = _draw_time(name, "pair")
        if name in DAMAGED:
            for kind in DAMAGES:
                ways[name, kind] = _draw_from(name, kind, damageable(arena, name))
        if name == "train":
            ways[name, "nan"] = _draw_from(name, "nan", [f"rate-1e{power}" for power in range(20, 38)])
        if name == "cached":
            places = ["place-file", "place-missing", *(["place-foreign"] if os.geteuid() == 0 else [])]
            ways[name, "no_cache"] = _draw_from(name, "no_cache", places)
        if os.geteuid() == 0 and name != "export" and not command.call:
            ways[name, "foreign"] = _draw_from(name, "foreign", ["folder"])
    return ways


def _draw_from(name: str, kind: str, values: Sequence[str]) -> Callable[[random.Random], Case]:
    return lambda chance: Case(name, kind, chance.choice(values))


def _draw_operation(name: str, kind: str, operations: int) -> Callable[[random.Random], Case]:
    return lambda chance: Case(name, kind, f"op-{chance.randint(1, operations)}")


def _draw_time(name: str, kind: str) -> Callable[[random.Random], Case]:
    return lambda chance: Case(name, kind, f"time-{chance.random():.4f}")


def draw_cases(arena: Arena, count: int, seed: int) -> list[Case]:
    """Draw `count` cases, as many of each group as of any other, none twice."""
    chance, ways = random.Random(seed), groups(arena)
    cases: dict[Case, None] = {}
    misses = 0
    while len(cases) < count and misses < 50 * len(ways):
        order = [*ways]
        chance.shuffle(order)
        for group in order[: count - len(cases)]:
            before = len(cases)
            cases[ways[group](chance)] = None
            misses += len(cases) == before
    return [*cases]


def run_case(arena: Arena, case: Case) -> Outcome:
    """Run a case and judge it."""
    command = COMMANDS[case.command]
    arena.reset(DAMAGED[case.command] if case.kind in DAMAGES else command.start)
    hit = False
    try:
        finished = arena.finished_bytes()
        before = command.result(arena.box)
        ended, hit = disturb(arena, case, command)
        arena.repair()
        check_end(case, ended, hit)
        if case.kind in DAMAGES:
            return Outcome(case, hit, check_damaged(arena, case, command, ended))
        if arena.finished_bytes() != finished:
            raise Failure("lost", "the run that was finished before has changed")
        if command.call:
            check_labels(arena, case, command, ended)
            return Outcome(case, hit, "survived")
        check_old_or_new(arena, command, before)
        restore_rows(arena, case)
        if ended.code != 0:
            go_on(arena, command, ["--overwrite"] if case.kind == "nan" else [])
        check_result(arena, command, of_changed_rows=case.kind == "change")
        if arena.finished_bytes() != finished:
            raise Failure("lost", "the run that was finished before has changed")
    except Failure as failure:
        return Outcome(case, hit, failure.state, str(failure))
    except TimeoutError as error:
        return Outcome(case, hit, "broken", f"hangs: {error}")
    return Outcome(case, hit, "survived")


def disturb(arena: Arena, case: Case, command: Command) -> tuple[Ended, bool]:
    """Run the command with its fault. Return how it ended, and whether the fault happened while it ran."""
    place, _, value = case.where.partition("-")
    arguments = arena.arguments(command)
    if case.kind in DISTURBANCES:
        return DISTURBANCES[case.kind](arena, case, command)
    if place == "op":
        fault = {"kind": case.kind, "at": int(value), "file": ROWS}
        ended = arena.run(arguments, call=command.call, fault=fault)
        return ended, ended.hit
    kind = case.kind.removesuffix("-at-time")
    running = arena.server.start(arguments, arena.box, environment=arena.environment())
    early = arena.server.wait(running, float(value) * arena.references[case.command].seconds)
    if early is not None:
        return early, False
    os.kill(running.pid, SIGNALS[kind])
    if kind == "int2":
        time.sleep(SECOND_SIGNAL * float(value))
        os.kill(running.pid, SIGNALS[kind])  # of a child that nobody has waited for: its id is not another process's
    ended = arena.server.wait(running)
    if ended is None:
        os.kill(running.pid, signal.SIGKILL)
        arena.server.wait(running)
        raise TimeoutError(f"a minute after {kind}")
    return ended, True


def check_end(case: Case, ended: Ended, hit: bool) -> None:
    """Raise Failure for a command that did not end as its fault demands: by the signal, or in one message."""
    kind = case.kind.removesuffix("-at-time")
    if hit and kind in ("kill", "term") and ended.code == -SIGNALS[kind]:
        return
    if hit and kind in ("int", "int2") and ended.code == -signal.SIGINT and not ended.err:  # before its command line is imported
        return
    if kind == "memory" and (ended.code < 0 or ended.code == LIBC_FAILED) and "Traceback" not in ended.err:
        return  # by the system, C++ or the C library, which end the process themselves
    if kind in ("nan", "foreign") and ended.code == 0:
        raise Failure("broken", f"{case.kind} does not fail")
    if problem := problem_of(ended):
        raise Failure("broken", problem)
    if ended.code and not hit:
        raise Failure("broken", f"exit code {ended.code} without a fault: {ended.err}")


def check_old_or_new(arena: Arena, command: Command, before: Parts) -> None:
    """Raise Failure if an earlier result is gone and the new one is not there."""
    if command.name != "predict":
        return
    now = command.result(arena.box)
    if now != before and now != arena.references[command.name].result:
        raise Failure("lost", f"{', '.join(before)}: neither the old result nor the new one")


def restore_rows(arena: Arena, case: Case) -> None:
    """Undo what a fault did to the data file."""
    if case.kind in ("change", "remove"):
        source = arena.states / "finished" / ROWS
        (arena.box / ROWS).write_bytes(source.read_bytes())


def go_on(arena: Arena, command: Command, more: Sequence[str] = ()) -> None:
    """Do what a user does after a fault: the same command again, or what its message says."""
    arguments = [*arena.arguments(command), *more]
    for _ in range(3):
        ended = arena.run(arguments)
        if problem := problem_of(ended):
            raise Failure("broken", f"repeated: {problem}")
        if ended.code == 0:
            return
        if "(not complete): resume it with --resume" in ended.err:
            arguments.append("--resume")
        elif "exists (complete)" in ended.err or "is complete, so it cannot be resumed" in ended.err:
            return
        elif "or replace the experiment with --overwrite" in ended.err:
            arguments.append("--overwrite")
        elif "leave --resume out" in ended.err:
            raise Failure("lost", f"the interrupted run is gone: {ended.err}")
        else:
            raise Failure("lost", f"the same command does not go on: {ended.err}")
    raise Failure("lost", f"the messages lead in a circle: {ended.err}")


def check_result(arena: Arena, command: Command, *, of_changed_rows: bool = False) -> None:
    """Raise Failure if the result is not that of the uninterrupted command, on the changed rows where those are right too."""
    expected, result = arena.references[command.name].result, command.result(arena.box)
    if expected != result and not (of_changed_rows and result == arena.result_on_changed_rows(command)):
        names = [name for name in {**expected, **result} if expected.get(name) != result.get(name)]
        raise Failure("differ", f"not equal to the uninterrupted result: {', '.join(names)}")


def check_damaged(arena: Arena, case: Case, command: Command, ended: Ended) -> str:
    """Return survived if a damaged file changes no result, and refused if one message or remark names it, else raise Failure."""
    name = case.where.rpartition("/")[2]
    if ended.code or name in ended.err or (case.kind == "swap" and "is damaged" in ended.err):  # both of the exchanged files are
        if ended.code and not re.search(rf"{re.escape(name)}|runs/|cache", ended.err):
            raise Failure("broken", f"the message names neither {name} nor its folder: {ended.err}")
        return "refused"
    if command.name == "dashboard" and name == "scores.json" and "not complete" in dashboard(arena.box)["report.html"].decode():
        return "refused"  # without its scores a run is one that has not ended
    check_result(arena, command)
    return "survived"


def check_labels(arena: Arena, case: Case, command: Command, ended: Ended) -> None:
    """Raise Failure if a confirmed row is gone, if more than one row is there that was not, or if no more rows can be added."""
    path = arena.box / command.arguments[0]
    confirmed = [line.split()[1] for line in ended.out.splitlines() if len(line.split()) == 2]
    if case.kind == "pair":
        confirmed = [str(i) for i in range(12)]

    def rows(name: str) -> list[str]:
        words = [row[0].split() for row in next(iter(command.result(arena.box).values()))[1:] if len(row) == 5]
        return [number for owner, number, *_ in words if owner == name]

    more = arena.run([command.arguments[0], "more", "3"], call=command.call)
    if more.code:
        raise Failure("lost", f"{path.name} accepts no more rows: {more.err}")
    if rows("more") != ["0", "1", "2"]:
        raise Failure("lost", f"{path.name}: rows added afterwards are not there")
    if rows("a")[: len(confirmed)] != confirmed or len(rows("a")) > len(confirmed) + 1:
        raise Failure("lost", f"{path.name} has the rows {rows('a')}, of which {confirmed} were confirmed")
