"""Compile the kernels into a shared library, and keep it where no other user can change it: what is loaded is executed."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from loralab.storage.cache import cache_folder

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
FLAGS = ["-O3", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mfma", "-fPIC", "-shared"]
COMPILE_SECONDS = 120
DIGITS = 32
"""Hexadecimal digits of the digests in a library's name."""

Library = TypeVar("Library")


def find_compiler() -> list[str] | None:
    """Return the command of a C compiler, or None: $CC, which may have arguments, cc, gcc or clang, with an absolute path."""
    try:
        chosen = shlex.split(os.environ.get("CC", ""))
    except ValueError:  # a quote that nothing closes
        chosen = []
    for program, *arguments in filter(None, (chosen, ["cc"], ["gcc"], ["clang"])):
        path = shutil.which(program, path=absolute_path())
        if path is not None and os.path.isabs(path):
            return [path, *arguments]
    return None


def absolute_path() -> str:
    """Return $PATH without empty and relative entries: a program of the current folder would be executed."""
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(entry for entry in entries if os.path.isabs(entry))


def load_library(compiler: Sequence[str], open_library: Callable[[Path], Library]) -> Library:
    """Open the cached library of these sources, compiler and flags, or compile it.

    Without a safe cache folder it is compiled for this process only. Raises OSError or SubprocessError if that fails.
    """
    recipe = b"".join(source.read_bytes() for source in SOURCES) + " ".join([*compiler, *FLAGS]).encode()
    digest = hashlib.sha256(recipe).hexdigest()[:DIGITS]
    with private_folder() as folder:  # a loaded library needs no file
        return open_library(find_compiled(folder, digest) or compile_library(compiler, folder, digest))


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Yield the cache's folder of libraries, or a temporary one if other users could change what is in it."""
    folder = Path(os.path.realpath(cache_folder() / "kernels"))  # and never again through a link, which may change
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    reason = why_unsafe(existing)  # before a folder is made: not as root in the home of another user
    if not reason:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        reason = why_unsafe(folder) or ("" if os.access(folder, os.W_OK) else f"{folder} is not writable")
    if not reason:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="loralab-kernels-") as temporary:
        path = Path(os.path.realpath(temporary))
        if unsafe := why_unsafe(path):
            raise PermissionError(unsafe)
        logging.getLogger(__name__).warning(
            "the kernels are compiled for this process only: %s; set LORALAB_CACHE to a folder that only you can write", reason
        )
        yield path


def why_unsafe(folder: Path) -> str:
    """Return why another user could replace a file in `folder`, a path without links; empty if only this user and root can.

    All folders above it count: who can rename one of them can put another in its place, unless it is sticky, like /tmp.
    """
    for path in (folder, *folder.parents):
        try:
            status = path.lstat()
        except OSError as error:
            return f"{path}: {error.strerror}"
        if not stat.S_ISDIR(status.st_mode):
            return f"{path} is not a folder"
        if status.st_uid not in (os.getuid(), 0) or (path == folder and folder.parent != folder and status.st_uid != os.getuid()):
            return f"{path} belongs to another user"
        others = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid))
        if others and (path == folder or not status.st_mode & stat.S_ISVTX):
            return f"other users can write to {path}"
    return ""


def _is_own_group(group: int) -> bool:
    """Return whether a group is the user's private one, as on systems where new folders are writable by their group."""
    import grp
    import pwd

    with contextlib.suppress(KeyError):
        user, entry = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
        return user.pw_gid == group and entry.gr_name == user.pw_name and set(entry.gr_mem) <= {user.pw_name}
    return False


def find_compiled(folder: Path, digest: str) -> Path | None:
    """Return the intact library of a recipe, or None. A damaged one, whose name is not that of its content, is deleted."""
    for path in sorted(folder.glob(f"{digest}-*.so")):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022:
            if path.name == _name(digest, path.read_bytes()):
                return path
            logging.getLogger(__name__).warning("%s is damaged: the kernels are compiled again", path)
        with contextlib.suppress(OSError):
            path.unlink()
    return None


def compile_library(compiler: Sequence[str], folder: Path, digest: str) -> Path:
    """Compile the library and return its file, which appears complete and on disk, or not at all."""
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".new")
    try:
        sources = [str(source) for source in SOURCES if source.suffix == ".c"]
        command = [*compiler, *FLAGS, *sources, "-o", temporary, "-lm"]
        environment = {**os.environ, "PATH": absolute_path()}  # where the compiler looks for its assembler and linker
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS, env=environment)  # noqa: S603
        path = folder / _name(digest, Path(temporary).read_bytes())
        os.chmod(temporary, 0o700)  # the linker may have replaced the file, and with it the mode
        os.fsync(handle)
        os.replace(temporary, path)
        return path
    finally:
        os.close(handle)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _name(digest: str, content: bytes) -> str:
    return f"{digest}-{hashlib.sha256(content).hexdigest()[:DIGITS]}.so"
