"""SQLite databases opened so that nothing is ever written: neither to them nor beside them."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from fitdoctor.errors import ReadError
from fitdoctor.readers.decoding import unreadable

MAGIC = b"SQLite format 3\0"


def _in_wal_mode(path: Path) -> bool:
    with path.open("rb") as file:
        return 2 in file.read(20)[18:20]


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a database, for reading.

    A database in WAL mode cannot be read without writing a ``-shm`` file beside it, so where it has a log with
    content, a copy of both is read; without one, the database alone is complete.

    Raises:
        ReadError: if the file cannot be read, is no database, or is damaged.
    """
    try:
        wal = path.with_name(path.name + "-wal")
        if not _in_wal_mode(path):
            with _connection(path, "mode=ro") as connection:
                yield connection
        elif wal.exists() and wal.stat().st_size:
            with tempfile.TemporaryDirectory(prefix="fitdoctor-") as folder:
                copy = Path(folder) / path.name
                shutil.copyfile(path, copy)
                shutil.copyfile(wal, copy.with_name(wal.name))
                with _connection(copy, "mode=rw") as connection:
                    yield connection
        else:
            with _connection(path, "mode=ro&immutable=1") as connection:
                yield connection
    except OSError as error:
        raise unreadable(path, error) from error
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        # sqlite3 decodes names and messages of a damaged file itself, strictly.
        raise ReadError(
            f"{path}: expected a readable SQLite database, got: {error}; "
            "if another program holds it, try again later; if it is damaged, recover it with sqlite3's .recover"
        ) from error


@contextmanager
def _connection(path: Path, how: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?{how}", uri=True, timeout=2.0)) as connection:
        connection.text_factory = lambda text: text.decode("utf-8", errors="replace")
        yield connection


def columns_of(connection: sqlite3.Connection, table: str) -> frozenset[str]:
    """The names of a table's columns; empty when there is no such table."""
    return frozenset(str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})"))


def tables_in(path: Path) -> dict[str, frozenset[str]]:
    """The tables of a database with the names of their columns; empty where it cannot be read."""
    try:
        with opened(path) as connection:
            names = [str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: columns_of(connection, name) for name in names if name.isidentifier()}
    except ReadError:
        return {}
