"""Where a study lies: a journal in its folder, or a PostgreSQL database; and the lock under which trials are claimed."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loralab.errors import LoralabError, need

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

Lock = Callable[[], AbstractContextManager[None]]


class _FileLock:
    """Optuna's kind of lock, by the kernel: it opens when its holder dies, where a lock file would stay."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, -1

    def acquire(self) -> bool:
        file = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o666)
        fcntl.flock(file, fcntl.LOCK_EX)
        self.file = file  # not before: until then it is the holder's, who may be a thread of this process
        return True

    def release(self) -> None:
        os.close(self.file)


def file_lock(path: Path) -> Lock:
    """A lock among the processes of one machine."""

    @contextmanager
    def held() -> Iterator[None]:
        lock = _FileLock(path)
        lock.acquire()
        try:
            yield
        finally:
            lock.release()

    return held


def database_lock(storage: Any, name: str) -> Lock:
    """A lock among all that use a database."""

    @contextmanager
    def held() -> Iterator[None]:
        with storage.engine.connect() as connection, connection.begin():  # let go at the end, or when the connection breaks
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"loralab search {name}",))
            yield

    return held


def open_journal(path: Path, lock: Path) -> BaseStorage:
    """Open Optuna's journal file; a last line that was cut off, by a machine that lost its power, is dropped."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with file_lock(lock)():
        if path.is_file() and not (content := path.read_bytes()).endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_FileLock(lock)))  # type: ignore[arg-type]


def open_database(url: str) -> BaseStorage:
    """Open a PostgreSQL database. Raises LoralabError where it is none or cannot be reached."""
    try:
        parts = urlsplit(url)
    except ValueError as error:  # a bracket in a password, for one: the message must not show it
        raise LoralabError("--storage: this is no URL; write special characters of a password as %40, %5B, ...") from error
    where = f"{parts.hostname}{parts.path}"  # never the password
    if not parts.scheme.startswith("postgresql"):
        raise LoralabError(f"--storage {parts.scheme}://...: give a PostgreSQL database, such as postgresql://user@host/database")
    need("psycopg2", "search")
    from optuna.storages import RDBStorage

    url = f"postgresql+psycopg2{url[len(parts.scheme) :]}"  # SQLAlchemy's default has changed with its versions
    for attempt in range(3):
        try:
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except Exception as error:  # two programs that make the tables at once: the second finds them
            if attempt == 2:
                raise LoralabError(f"--storage: the database {where} cannot be used: {str(error).splitlines()[0]}") from error
            time.sleep(1 + attempt)
    raise AssertionError
