"""Conditions that a command meets from its start: damaged files, another process, little memory, a cache or folder of others."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from fault_arena import Arena
from fault_commands import Case, Command
from fault_server import Ended

DAMAGED = {
    "predict": "old",
    "report": "old",
    "dashboard": "old",
    "resume": "half",
    "cached": "cached-over",
    "experiment": "after-experiment",
    "search": "after-search",
}
"""Command → the state whose files are damaged before it."""
TARGETS = {
    "predict": "runs/other",
    "report": "runs/other",
    "dashboard": "runs/other",
    "resume": "runs/cut",
    "cached": "cache",
    "experiment": "runs/grid",
    "search": "runs/search",
}
SOMEBODY = 54321
"""A user id without a name or rights."""


def state_of(arena: Arena, name: str) -> Path:
    """Return the folder of the state whose files are damaged. For the cache: a full one, without the run that filled it."""
    state = arena.states / DAMAGED[name]
    if name == "cached" and not state.is_dir():
        shutil.copytree(arena.states / "after-cached", state)
        shutil.rmtree(state / "runs" / "cut")
    return state


def damageable(arena: Arena, name: str) -> list[str]:
    """Return the files that can be damaged before a command, relative to the box."""
    state = state_of(arena, name)
    paths = (path for path in sorted((state / TARGETS[name]).rglob("*")) if path.is_file())
    linked = "report.html" if name == "dashboard" else ""  # that a run has a page is what the dashboard shows
    return [str(path.relative_to(state)) for path in paths if not path.name.startswith(".") and path.name != linked]


def truncate(path: Path, box: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path, box: Path) -> None:
    os.truncate(path, 0)


def delete(path: Path, box: Path) -> None:
    path.unlink()


def swap(path: Path, box: Path) -> None:
    """Exchange a file with the one of the same name, or else of the same ending, or else with any, in another folder."""
    patterns = (path.name, f"*{path.suffix}", "*")
    others = (other for pattern in patterns for other in sorted(box.rglob(pattern)) if other != path and other.is_file())
    other = next(others)
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    if other.parent.name != "box":
        other.write_bytes(content)


DAMAGES: dict[str, Callable[[Path, Path], None]] = {"truncate": truncate, "empty": empty, "delete": delete, "swap": swap}


def damage(arena: Arena, case: Case, command: Command) -> tuple[Ended, bool]:
    """Damage a file, and run the command."""
    DAMAGES[case.kind](arena.box / case.where, arena.box)
    return arena.run(arena.arguments(command)), True


def two_at_a_time(arena: Arena, case: Case, command: Command) -> tuple[Ended, bool]:
    """Run the command twice, the second a fraction of its duration later. Return the end of one that did not succeed, if any."""
    first_arguments = arena.arguments(command)
    second_arguments = [argument if argument != "a" else "b" for argument in first_arguments]
    options = {"environment": arena.environment(), "call": command.call}
    first = arena.server.start(first_arguments, arena.box, **options)
    time.sleep(float(case.where.partition("-")[2]) * arena.references[command.name].seconds)
    second = arena.server.start(second_arguments, arena.box, **options)
    ends = [arena.server.wait(running) for running in (first, second)]
    if None in ends:
        raise TimeoutError("two processes wait for each other")
    return max((end for end in ends if end is not None), key=lambda end: abs(end.code)), True


def little_memory(arena: Arena, case: Case, command: Command) -> tuple[Ended, bool]:
    ended = arena.run(arena.arguments(command), limits={"AS": int(case.where.partition("-")[2]) * 1_000_000})
    return ended, ended.code != 0


def diverging(arena: Arena, case: Case, command: Command) -> tuple[Ended, bool]:
    rate = case.where.partition("-")[2]
    return arena.run([*arena.arguments(command), f"train.learning_rate={rate}"]), True


def no_cache(arena: Arena, case: Case, command: Command) -> tuple[Ended, bool]:
    """Run with a cache folder that cannot be written: a file, a folder that cannot exist, or one of another user."""
    cache = arena.box / "cache"
    places = {"file": arena.box / "a-file", "missing": Path("/proc/self/cache"), "foreign": cache}
    (arena.box / "a-file").write_text("")
    place = case.where.partition("-")[2]
    user = None
    if place == "foreign":
        give_away(arena.box, SOMEBODY)
        cache.mkdir(mode=0o755)
        user = SOMEBODY
    environment = {**arena.environment(), "LORALAB_CACHE": str(places[place])}
    ended = arena.run(arena.arguments(command), environment=environment, user=user)
    shutil.rmtree(cache, ignore_errors=True)
    return ended, True


def foreign_folder(arena: Arena, case: Case, command: Command) -> tuple[Ended, bool]:
    """Run as a user who may read everything and write nothing."""
    return arena.run(arena.arguments(command), user=SOMEBODY), True


def give_away(folder: Path, user: int) -> None:
    """Make a user the owner of a folder and all that is in it."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user)


DISTURBANCES: dict[str, Callable[[Arena, Case, Command], tuple[Ended, bool]]] = {
    **dict.fromkeys(DAMAGES, damage),
    "pair": two_at_a_time,
    "memory": little_memory,
    "nan": diverging,
    "no_cache": no_cache,
    "foreign": foreign_folder,
}
