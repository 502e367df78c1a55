"""Who can change the compiled kernels, which are executed: links, permissions, other users, compilers and damaged files."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from loralab.model.kernels import library
from loralab.model.kernels.library import (
    absolute_path,
    find_compiled,
    find_compiler,
    load_library,
    private_folder,
    why_unsafe,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kernels are compiled on POSIX systems only")
NOBODY, SOMEBODY = 65534, 54321
as_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that does not exist yet. pytest's folder for all tests is this user's, below the sticky /tmp."""
    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def c_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One small C file in place of the kernels, so that a test compiles in no time."""
    source = tmp_path / "answer.c"
    source.write_text("int answer(void) { return 42; }\n")
    monkeypatch.setattr(library, "SOURCES", [source])
    monkeypatch.setattr(library, "FLAGS", ["-shared", "-fPIC"])
    return source


def compiler() -> list[str]:
    command = find_compiler()
    if command is None:
        pytest.skip("there is no C compiler")
    return command


def as_user(user: int, action: Callable[[], object]) -> None:
    """Call `action` in a forked process of another user; its exception fails the test."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            action()
            code = 0
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_cache_folder_is_made_for_its_owner_alone(place: Path) -> None:
    with private_folder() as folder:
        assert folder == place
    assert mode_of(place) == 0o700


@pytest.mark.parametrize("writable", ["cache", "cache/kernels", "."])
def test_a_folder_that_others_can_write_is_not_used_wherever_it_is_on_the_path(
    place: Path, tmp_path: Path, writable: str, caplog: pytest.LogCaptureFixture
) -> None:
    place.mkdir(parents=True)
    (tmp_path / writable).chmod(0o777)
    with private_folder() as folder:
        assert tmp_path not in folder.parents
        assert mode_of(folder) == 0o700
    assert not folder.exists()
    assert f"other users can write to {(tmp_path / writable).resolve()}" in caplog.text
    (tmp_path / writable).chmod(0o700)


def test_a_sticky_folder_above_is_safe_and_the_folder_itself_must_not_be_one(place: Path, tmp_path: Path) -> None:
    place.mkdir(parents=True)
    tmp_path.chmod(0o1777)
    assert why_unsafe(place) == ""
    place.chmod(0o1777)
    assert why_unsafe(place) == f"other users can write to {place}"
    tmp_path.chmod(0o700)


def test_a_link_to_a_safe_folder_is_followed_once_and_one_to_an_unsafe_folder_is_not_used(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    place.parent.symlink_to(target)
    with private_folder() as folder:
        assert folder == target / "kernels"
    target.chmod(0o777)
    with private_folder() as folder:
        assert tmp_path not in folder.parents


@as_root
def test_root_leaves_the_home_of_another_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `sudo`, which may keep HOME."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    monkeypatch.setenv("LORALAB_CACHE", str(home / ".cache" / "loralab"))
    with private_folder() as folder:
        assert home not in folder.parents
    assert list(home.iterdir()) == []
    assert why_unsafe(home) == f"{home} belongs to another user"


@as_root
def test_a_user_compiles_into_an_own_folder_and_not_into_that_of_root_or_of_another_user(
    c_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = compiler()
    top = Path("/tmp") / f"loralab-kernels-test-{os.getpid()}"
    top.mkdir(mode=0o755)
    os.chmod(top, 0o755)
    try:
        source = top / "answer.c"
        source.write_text(c_file.read_text())
        source.chmod(0o644)
        monkeypatch.setattr(library, "SOURCES", [source])
        for owner in (NOBODY, SOMEBODY, 0):
            (top / str(owner)).mkdir(mode=0o755)
            os.chown(top / str(owner), owner, owner)

        def compile_in(owner: int) -> None:
            os.environ["LORALAB_CACHE"] = str(top / str(owner))
            path = load_library(command, lambda path: path)
            assert (top / str(owner) in path.parents) == (owner == NOBODY), path

        for owner in (NOBODY, SOMEBODY, 0):
            as_user(NOBODY, lambda owner=owner: compile_in(owner))  # type: ignore[misc]
        assert [*(top / str(SOMEBODY)).iterdir()] == [*(top / "0").iterdir()] == []
        (compiled,) = (top / str(NOBODY) / "kernels").iterdir()
        assert compiled.stat().st_uid == NOBODY
    finally:
        subprocess.run(["rm", "-rf", str(top)], check=True)


@as_root
def test_no_kernels_without_any_safe_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir(parents=True)
    tmp_path.chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(PermissionError, match="other users can write"), private_folder():
        pass
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("damage", [b"", b"half", None])
def test_a_damaged_library_is_compiled_again(
    place: Path, c_file: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    first = load_library(compiler(), lambda path: path)
    content = first.read_bytes()
    assert load_library(compiler(), lambda path: path) == first
    first.write_bytes(bytes([content[0] ^ 1]) + content[1:] if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert load_library(compiler(), lambda path: path.read_bytes()) == content
    assert f"{first} is damaged" in caplog.text
    assert [path.name for path in place.iterdir()] == [first.name]


def test_a_link_in_place_of_the_library_is_not_opened(place: Path, c_file: Path, tmp_path: Path) -> None:
    path = load_library(compiler(), lambda path: path)
    path.rename(tmp_path / path.name)
    path.symlink_to(tmp_path / path.name)
    assert find_compiled(place, path.name.partition("-")[0]) is None
    assert not path.is_symlink()


def test_a_compiler_in_the_current_folder_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cc", "gcc", "clang", "as"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    for path in ("", ":", ".", ".::bin", os.pathsep):
        monkeypatch.setenv("PATH", path)
        assert find_compiler() is None
    monkeypatch.setenv("PATH", f".:/usr/bin::{tmp_path}/bin:bin")
    assert absolute_path() == f"/usr/bin:{tmp_path}/bin"
    monkeypatch.setenv("CC", "./cc")
    assert (find_compiler() or ["/"])[0] != "./cc"


def test_cc_may_have_arguments(monkeypatch: pytest.MonkeyPatch, place: Path, c_file: Path) -> None:
    program = compiler()[0]
    c_file.write_text("int answer(void) { return ANSWER; }\n")  # compiles with the argument only
    monkeypatch.setenv("CC", f"'{program}' -DANSWER=42")
    assert find_compiler() == [program, "-DANSWER=42"]
    assert load_library(compiler(), lambda path: path).is_file()
    monkeypatch.setenv("CC", "'no closing quote")
    assert find_compiler() == [program] or find_compiler() is not None


def test_the_assembler_is_not_searched_in_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, place: Path, c_file: Path, tmp_path: Path
) -> None:
    command, trap = compiler(), tmp_path / "trap"
    trap.mkdir()
    for name in ("as", "ld", "collect2"):
        (trap / name).write_text(f"#!/bin/sh\ntouch '{tmp_path}/trapped'\nexit 1\n")
        (trap / name).chmod(0o755)
    monkeypatch.chdir(trap)
    monkeypatch.setenv("PATH", f".:{os.environ['PATH']}")
    assert load_library(command, lambda path: path).is_file()
    assert not (tmp_path / "trapped").exists()
