"""Pipes, archives and packed binary files → files that can be read more than once."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shlex import quote

from loralab.config.paths import split_path
from loralab.data.columns import list_names
from loralab.data.formats import BINARY, SUFFIXES, TEXT_SUFFIXES, file_format, open_archive, stem_of, suffix_of
from loralab.data.limits import copy_bounded
from loralab.data.text_files import is_packed, open_bytes
from loralab.errors import LoralabError


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield a file that can be read more than once, and the name of a table in it if the path names one.

    It is the file itself, or a temporary copy of a pipe, of a member of a zip archive, or of a packed binary file. Messages about
    the copy name the file. Raises LoralabError for an archive of several data files unless the path names one.
    """
    file, inner = split_path(path)
    with ExitStack() as stack:
        copy = file
        if not file.is_file() and not file.is_dir():
            copy = _temporary(stack) / file.name
            _copy(file, copy)
        if copy.is_file() and file_format(copy) == "zip":
            folder = _temporary(stack)
            with open_archive(copy) as archive:
                member, inner = _choose_member(archive, file, inner)
                copy = folder / Path(member).name
                with archive.open(member) as source, copy.open("wb") as target:
                    copy_bounded(source, target, file)
            if file_format(copy) == "zip":
                raise LoralabError(f"{file} is a zip archive in a zip archive: unpack it")
        if copy.is_file() and is_packed(copy) and file_format(copy) in BINARY:
            whole = _temporary(stack) / stem_of(copy)
            with open_bytes(copy) as source, whole.open("wb") as target:
                shutil.copyfileobj(source, target)
            copy = whole
        try:
            yield copy, inner
        except LoralabError as error:
            if copy == file:
                raise
            raise type(error)(str(error).replace(str(copy), str(path))) from error


def _temporary(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory()))


def _copy(pipe: Path, copy: Path) -> None:
    with pipe.open("rb") as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target)
    if not copy.stat().st_size:
        raise LoralabError(f"{pipe} is empty")


def data_members(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the data files of an archive: without what systems and authors add, such as a README."""
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    names = [name for name in names if not name.startswith("__MACOSX/") and not Path(name).name.startswith(".")]
    known = [name for name in names if suffix_of(Path(name)) in {*SUFFIXES, *TEXT_SUFFIXES}]
    structured = [name for name in known if suffix_of(Path(name)) in SUFFIXES]
    return structured or known or names


def _choose_member(archive: zipfile.ZipFile, path: Path, inner: str) -> tuple[str, str]:
    """Return the member to read, and what the path names in it."""
    names = data_members(archive)
    for name in names:
        if inner == name or inner.startswith(f"{name}/"):
            return name, inner[len(name) + 1 :]
    if len(names) == 1:
        return names[0], inner
    advice = f": name one, such as {quote(f'{path}/{names[0]}')}" if names else ""
    missing = f"no file {inner} but " if inner else ""
    raise LoralabError(f"{path} is a zip archive of {missing}{len(names)} files ({list_names(names) or 'nothing'}){advice}")
