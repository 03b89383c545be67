"""Remote files kept on the local disk, as far as they were needed, and no more of them than a limit.

An index (sqlite, so that several processes share it) says of each file which version it is of and how many bytes
of it are here. A file is written elsewhere and then renamed; what an interrupted process left is never taken for
the whole.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fitdoctor.errors import ConfigError, ReadError
from fitdoctor.readers.remote.listing import Entry
from fitdoctor.readers.remote.services import why

AT_ONCE = 16
"""Files fetched at a time: a request to a store takes 20 to 100 ms, most of it waiting."""
_LIMIT_GB = 4.0
_OVERLAP = 1 << 10
"""Bytes fetched again before those that a grown file has more, to see that it is still the same file."""
_HELD = 600.0
"""Seconds for which a file that was fetched, and not released, is not evicted: its process may have died."""
_DAY = 24 * 3600.0
_TABLE = """CREATE TABLE IF NOT EXISTS files
    (path TEXT PRIMARY KEY, size INTEGER, stamp TEXT, have INTEGER, used REAL, held REAL) WITHOUT ROWID"""


@dataclass(frozen=True, slots=True)
class Want:
    """A file that is to be here.

    Attributes:
        inside: where in the mirror, with "/".
        entry: the remote file.
        need: how many of its first bytes; None for all.
    """

    inside: str
    entry: Entry
    need: int | None = None


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the index says of a file."""

    size: int
    stamp: str
    have: int


class Mirror:
    """A folder with copies of remote files.

    Attributes:
        folder: where they are.
        kept: whether they stay for the next time; else each is deleted when it is released.
    """

    def __init__(self, folder: Path, *, kept: bool = True) -> None:
        self.folder = folder
        self.kept = kept
        self._lock = threading.RLock()
        self._incoming = folder / ".incoming"
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._index = sqlite3.connect(
            folder / "index.sqlite", timeout=30, check_same_thread=False, isolation_level=None
        )
        self._index.execute("PRAGMA synchronous = OFF")  # a lost index costs a download
        self._index.execute(_TABLE)
        for left in self._incoming.iterdir():
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _DAY:
                    left.unlink()

    def fetch(self, fs: Any, url: str, wants: Sequence[Want]) -> dict[str, str]:
        """Have files here, several fetched at a time.

        Args:
            fs: the file system that serves them.
            url: what the user opened, for messages.
            wants: the files.

        Returns:
            Why a file could not be fetched, by its place in the mirror.
        """
        known = self._known(want.inside for want in wants)
        missing = [want for want in wants if not self._here(want, known.get(want.inside))]
        failures: dict[str, str] = {}
        self._touch(want.inside for want in wants)
        if missing:
            self._make_room(sum(_bytes(want) for want in missing))
            with ThreadPoolExecutor(min(AT_ONCE, len(missing)), "fitdoctor-fetch") as pool:
                done = pool.map(lambda want: self._fetched(fs, url, want, known.get(want.inside)), missing)
                for want, have in zip(missing, done, strict=True):
                    if isinstance(have, str):
                        failures[want.inside] = have
                    else:
                        self._note(want, have)
        return failures

    def release(self, insides: Iterable[str]) -> None:
        """Say that files have been read, and may be evicted."""
        if self.kept:
            self._run("UPDATE files SET held = 0 WHERE path = ?", [(inside,) for inside in insides])
        else:
            self._delete(insides)

    def forget_all_but(self, top: str, insides: Iterable[str]) -> None:
        """Delete what is here of a folder and was not listed any more: readers look around in folders."""
        with self._lock:
            rows = self._index.execute("SELECT path FROM files WHERE path >= ? AND path < ?", (f"{top}/", f"{top}0"))
            gone = {path for (path,) in rows}  # "0" is the character after "/"
        self._delete(gone - set(insides))

    def _known(self, insides: Iterable[str]) -> Mapping[str, _Kept]:
        found = {}
        with self._lock:
            for inside in insides:
                row = self._index.execute("SELECT size, stamp, have FROM files WHERE path = ?", (inside,)).fetchone()
                if row is not None and _size(self.folder / inside) == row[2]:
                    found[inside] = _Kept(*row)
        return found

    def _here(self, want: Want, kept: _Kept | None) -> bool:
        if kept is None or not kept.stamp or (kept.size, kept.stamp) != (want.entry.size, want.entry.stamp):
            return False
        return kept.have >= (kept.size if want.need is None else min(want.need, kept.size))

    def _fetched(self, fs: Any, url: str, want: Want, kept: _Kept | None) -> int | str:
        """The bytes of a file that are here now, or why there are none."""
        beside = self._incoming / uuid.uuid4().hex
        try:
            for last in (False, True):
                try:
                    self._download(fs, want, kept, beside)
                    target = self.folder / want.inside
                    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    os.replace(beside, target)
                    return target.stat().st_size
                except EOFError as error:  # it was replaced by a shorter one while it was read
                    if last:
                        return f"{url}: {want.entry.path} changed while it was read; try again ({error})"
                except FileNotFoundError as error:  # the folder, by an eviction elsewhere; or the remote file
                    if last:
                        return why(url, error)
        except OSError as error:
            if error.errno is not None and error.filename is not None:
                return f"{url}: {want.entry.path}: cannot be kept in {self.folder}: {error.strerror}"
            return why(url, error)
        except Exception as error:
            return why(url, error)
        finally:
            beside.unlink(missing_ok=True)
        raise AssertionError("unreachable")

    def _download(self, fs: Any, want: Want, kept: _Kept | None, beside: Path) -> None:
        path, size = want.entry.path, want.entry.size
        if (
            kept is not None
            and _only_grows(want.inside)
            and _OVERLAP < kept.have < size
            and self._grown(fs, want, kept, beside)
        ):
            return
        if want.need is not None and 0 <= want.need < size:
            data = fs.cat_file(path, start=0, end=want.need)
            beside.write_bytes(data[: want.need])  # a web server may not know of ranges
            return
        fs.get_file(path, str(beside))
        if (got := _size(beside)) < size:
            raise EOFError(f"{got} of {size} bytes came")

    def _grown(self, fs: Any, want: Want, kept: _Kept, beside: Path) -> bool:
        """Fetch only what a file has more than ours; False where it is another file."""
        start = kept.have - _OVERLAP
        data = fs.cat_file(want.entry.path, start=start, end=want.entry.size)
        shutil.copyfile(self.folder / want.inside, beside)
        with beside.open("r+b") as file:
            file.seek(start)
            if len(data) != want.entry.size - start or file.read(_OVERLAP) != data[:_OVERLAP]:
                return False
            file.seek(kept.have)
            file.write(data[_OVERLAP:])
        return True

    def _note(self, want: Want, have: int) -> None:
        now = time.time()
        row = (want.inside, want.entry.size, want.entry.stamp, have, now, now + _HELD)
        self._run("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", [row])

    def _touch(self, insides: Iterable[str]) -> None:
        now = time.time()
        self._run("UPDATE files SET used = ?, held = ? WHERE path = ?", [(now, now + _HELD, path) for path in insides])

    def _make_room(self, coming: int) -> None:
        """Evict what was used longest ago, as long as there would be more here than the limit."""
        with self._lock:
            (total,) = self._index.execute("SELECT coalesce(sum(have), 0) FROM files").fetchone()
            over = total + coming - limit()
            if over <= 0:
                return
            rows = self._index.execute("SELECT path, have FROM files WHERE held < ? ORDER BY used", (time.time(),))
            gone = []
            for path, have in rows:
                if over <= 0:
                    break
                gone.append(path)
                over -= have
        self._delete(gone)

    def _delete(self, insides: Iterable[str]) -> None:
        gone = list(insides)
        for inside in gone:
            path = self.folder / inside
            with suppress(OSError):
                path.unlink()
            with suppress(OSError):
                os.removedirs(path.parent)  # stops at the first that is not empty
        self._run("DELETE FROM files WHERE path = ?", [(inside,) for inside in gone])

    def _run(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._lock:
            self._index.execute("BEGIN IMMEDIATE")
            try:
                self._index.executemany(statement, rows)
            finally:
                self._index.execute("COMMIT")


def limit() -> int:
    """Bytes that the mirror may take up: 4 GB, or what FITDOCTOR_MIRROR_GB says.

    Raises:
        ConfigError: if that is no number.
    """
    told = os.environ.get("FITDOCTOR_MIRROR_GB", "")
    try:
        return int(float(told or _LIMIT_GB) * 1e9)
    except (ValueError, OverflowError):
        raise ConfigError(f"FITDOCTOR_MIRROR_GB: expected a number of gigabytes, got {told!r}") from None


def mirror_folder() -> Path | None:
    """Where remote files are kept: the user's cache folder, or FITDOCTOR_CACHE_DIR; None where that is empty."""
    chosen = os.environ.get("FITDOCTOR_CACHE_DIR")
    if chosen is not None:
        return Path(chosen).absolute() / "remote" if chosen else None
    from platformdirs import user_cache_path

    return user_cache_path("fitdoctor", appauthor=False) / "remote"


@cache
def mirror_at(folder: Path, kept: bool) -> Mirror:
    """The mirror in a folder, one in each process.

    Raises:
        ReadError: if there cannot be one.
    """
    try:
        return Mirror(folder, kept=kept)
    except (OSError, sqlite3.Error) as error:
        raise ReadError(
            f"{folder}: expected a folder to keep remote logs in, got: {error}; "
            "set FITDOCTOR_CACHE_DIR to another, or to nothing"
        ) from error


@cache
def passing_mirror() -> Mirror:
    """A mirror that is deleted when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="fitdoctor-", ignore_cleanup_errors=True)
    mirror = mirror_at(Path(folder.name), False)
    _passing.append(folder)
    return mirror


_passing: list[tempfile.TemporaryDirectory[str]] = []


def _bytes(want: Want) -> int:
    return max(want.entry.size if want.need is None else min(want.need, want.entry.size), 0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _only_grows(inside: str) -> bool:
    """Whether files of this name are only ever appended to; tables are written anew when a column is added."""
    name = inside.rpartition("/")[2]
    return "tfevents" in name or name.endswith(".wandb")
