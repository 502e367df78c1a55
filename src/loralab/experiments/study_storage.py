"""Where a study is stored: a journal in its folder, or a PostgreSQL database; and the lock under which trials are claimed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loralab.errors import LoralabError, import_optional
from loralab.storage.files import file_lock

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

Lock = Callable[[], AbstractContextManager[object]]


class JournalLock:
    """A file lock with Optuna's interface. The system releases it when its holder dies; Optuna's own lock files would stay."""

    def __init__(self, path: Path) -> None:
        self.path, self.stack = path, ExitStack()

    def acquire(self) -> bool:
        with ExitStack() as stack:
            stack.enter_context(file_lock(self.path))
            self.stack = stack.pop_all()  # only now: until then the holder, which may be another thread, needs its own
        return True

    def release(self) -> None:
        self.stack.close()


def database_lock(storage: Any, name: str) -> Lock:
    """Return a lock among all programs that use a database."""

    @contextmanager
    def locked() -> Iterator[None]:
        with storage.engine.connect() as connection, connection.begin():  # ends, or breaks with its holder, and releases the lock
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"loralab search {name}",))
            yield

    return locked


def open_journal(path: Path, lock: Path) -> BaseStorage:
    """Open Optuna's journal file. An incomplete last line, left by a power failure, is removed.

    Raises LoralabError for a damaged file.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with file_lock(lock):
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(path, len(whole))
    backend = JournalFileBackend(str(path), lock_obj=JournalLock(lock))  # type: ignore[arg-type]
    try:
        for line in whole.splitlines()[-1:]:  # of which Optuna complains only when another follows
            json.loads(line)
        return JournalStorage(backend)
    except OSError:
        raise
    except Exception as error:  # Optuna trusts its lines
        reason = f"{type(error).__name__}: {error}"
        raise LoralabError(f"{path} is damaged ({reason}): restore it from a copy, or search again under another --name") from error


def open_database(url: str) -> BaseStorage:
    """Open a PostgreSQL database. Raises LoralabError for another kind of URL and a database that cannot be used."""
    try:
        parts = urlsplit(url)
    except ValueError as error:  # such as a bracket in the password, which the message must not show
        raise LoralabError("--storage is not a URL; encode special characters of the password as %40, %5B, ...") from error
    place = f"{parts.hostname}{parts.path}"  # without the password
    if not parts.scheme.startswith("postgresql"):
        raise LoralabError(f"--storage {parts.scheme}://...: give a PostgreSQL database, such as postgresql://user@host/database")
    import_optional("psycopg2", "search")
    from optuna.storages import RDBStorage

    url = f"postgresql+psycopg2{url[len(parts.scheme) :]}"  # SQLAlchemy's default driver depends on its version
    for attempt in range(3):
        try:
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except Exception as error:  # two programs may create the tables at the same time; a retry finds them
            if attempt == 2:
                raise LoralabError(f"--storage: the database {place} cannot be used: {str(error).splitlines()[0]}") from error
            time.sleep(1 + attempt)
    raise AssertionError
