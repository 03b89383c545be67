"""Logs at a URL (``s3://``, ``gs://``, ``hf://`` ...): listed there, read from a mirror on the local disk.

    listed (what is there) -> Tree (first bytes of what may be a log) -> survey -> RunSource with an Origin
                                                                     Origin.fetch (the files of one source) -> readers

Readers want files on a disk, so the files of a source are brought there when it is its turn, and may be evicted
after it. What is no log by its name is never fetched; of the rest no more than `FIRST` bytes until a reader
recognises it. Reports name the URL.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fitdoctor.errors import ReadError
from fitdoctor.readers.remote.listing import Entry, Listing, listed
from fitdoctor.readers.remote.mirror import Mirror, Want, mirror_at, mirror_folder, passing_mirror
from fitdoctor.readers.remote.services import connected
from fitdoctor.readers.settings import NAMES
from fitdoctor.readers.sqlite_file import MAGIC
from fitdoctor.readers.urls import below, place_of, shown
from fitdoctor.readers.walk import (
    ENOUGH_REFUSALS,
    HEAD,
    KINDS,
    Found,
    Survey,
    could_be_log,
    natural,
    only_some,
    read_head,
    worth_entering,
)

if TYPE_CHECKING:
    from fitdoctor.readers import RunSource
    from fitdoctor.run import Run

FIRST = 1 << 18
"""Bytes of a file that readers may look at before they recognise it; one request brings them as fast as fewer."""
_LARGEST_SETTINGS = 1 << 20  # as fitdoctor.readers.settings
_LARGEST_ARCHIVE = 64 << 20
"""An archive or a JSON document has to be here whole before it can be recognised; larger ones are data."""
_LARGEST_DATABASE = 1 << 30
_AHEAD = 16
"""Sources whose files are fetched together."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the files of a source come from.

    Attributes:
        url: what the user opened.
        root: what stands for it on the local disk.
        mirror: folder of the mirror; `root` is below it.
        kept: whether the mirror stays.
        entries: the files that the source needs, by path relative to the URL.
    """

    url: str
    root: Path
    mirror: Path
    kept: bool
    entries: Mapping[str, Entry]

    def fetch(self) -> None:
        """Have all files on the local disk.

        Raises:
            ReadError: if one of them cannot be fetched.
        """
        if failures := _fetch(self, self.entries):
            raise ReadError(next(iter(failures.values())))

    def release(self) -> None:
        """The files have been read."""
        with suppress(ReadError, sqlite3.Error):  # then they stay a while longer
            mirror_at(self.mirror, self.kept).release(map(self._inside, self.entries))

    def fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """URL, size and a number for the stamp of every file, as listed."""
        url = shown(self.url)
        return tuple(
            (below(url, name), entry.size, int.from_bytes(hashlib.sha256(entry.stamp.encode()).digest()[:7]))
            for name, entry in sorted(self.entries.items())
        )

    @property
    def private(self) -> bool:
        """Whether only this process sees the files: those of ``memory://``."""
        return "memory://" in self.url

    @property
    def stamped(self) -> bool:
        """Whether the service says when each of the files changes."""
        return all(entry.stamp for entry in self.entries.values())

    def url_of(self, path: str | Path) -> str:
        """The URL of what a local path stands for."""
        top, here = os.fspath(self.root), os.fspath(path)
        if here == top:
            return shown(self.url)
        return below(shown(self.url), here[len(top) + 1 :].replace(os.sep, "/")) if here.startswith(top) else here

    def told(self, text: str) -> str:
        """A text about local files, as one about the remote ones."""
        return text.replace(os.fspath(self.root), shown(self.url)).replace(os.fspath(self.mirror), "the mirror")

    def told_of(self, run: Run) -> Run:
        """A run as one that was read from the URL."""
        notes = tuple(replace(note, text=self.told(note.text)) for note in run.notes)
        return replace(run, path=self.url_of(run.path), notes=notes)

    def moved(self) -> Origin:
        """The same files in the mirror of this machine, which may be another one than that which listed them."""
        mirror = _mirror(keep=self.kept)
        root = mirror.folder / self.root.relative_to(self.mirror)
        return replace(self, root=root, mirror=mirror.folder, kept=mirror.kept)

    def _inside(self, name: str) -> str:
        top = self.root.relative_to(self.mirror).as_posix()
        return f"{top}/{name}" if name else top


def _fetch(origin: Origin, names: Iterable[str], needs: Mapping[str, int] | None = None) -> dict[str, str]:
    fs, _ = connected(origin.url)
    wants = [Want(origin._inside(n), origin.entries[n], None if needs is None else needs.get(n)) for n in names]
    try:
        return mirror_at(origin.mirror, origin.kept).fetch(fs, shown(origin.url), wants)
    except sqlite3.Error as error:  # damaged, or held by another process for half a minute
        raise ReadError(
            f"{shown(origin.url)}: expected to keep files in {origin.mirror}, got: {error}; try again, delete that "
            "folder, or set FITDOCTOR_CACHE_DIR to another"
        ) from error


def _mirror(*, keep: bool) -> Mirror:
    folder = mirror_folder() if keep else None
    if folder is not None:
        try:
            return mirror_at(folder, True)
        except ReadError:  # a read-only home: then nothing stays
            pass
    return passing_mirror()


class Tree:
    """What lies below a URL, for `fitdoctor.readers.walk.survey`."""

    def __init__(self, listing: Listing, mirror: Mirror) -> None:
        self._listing = listing
        self.root = mirror.folder.joinpath(*place_of(listing.url))
        self.origin = Origin(listing.url, self.root, mirror.folder, mirror.kept, listing.entries)
        self._blocks: dict[tuple[str, str], list[str]] = {}
        self._asked: set[str] = set()
        self._failed: dict[str, str] = {}
        self._sorted = sorted(listing.entries)
        top = self.origin._inside("")
        mirror.forget_all_but(top, () if listing.single else map(self.origin._inside, listing.entries))

    @property
    def single(self) -> bool:
        """Whether the root is a file."""
        return self._listing.single

    def folders(self, seen: Survey) -> Iterator[tuple[Path, list[str]]]:
        """Each folder below the root with the names of its files, in natural order."""
        below_it: dict[str, list[str]] = {}
        for inside in self._sorted:
            folder, _, name = inside.rpartition("/")
            below_it.setdefault(folder, []).append(name)
        folders = [f for f in below_it if all(map(worth_entering, f.split("/") if f else ()))]
        folders.sort(key=lambda folder: [natural(part) for part in folder.split("/")] if folder else [])
        for folder in folders:
            below_it[folder].sort(key=natural)
            for name in filter(could_be_log, below_it[folder]):
                block = (folder, os.path.splitext(name)[1].lower())
                self._blocks.setdefault(block, []).append(f"{folder}/{name}" if folder else name)
        self._look_into([name for names in self._blocks.values() for name in names[:ENOUGH_REFUSALS]])
        self._look_into(_lines_of_add_scalars(below_it))
        for odd in (o for o in self._listing.odd if could_be_log(o.rpartition("/")[2])):
            seen.unreadable.append((self.root / odd.replace("/", "_"), f"{odd!r} is no path on this machine"))
        for folder in folders:
            seen.folders += 1
            seen.files += len(below_it[folder])
            yield self.root / folder, below_it[folder]

    def head(self, path: Path) -> bytes:
        """The first bytes of a file.

        Raises:
            OSError: if it cannot be fetched.
        """
        top = os.fspath(self.root)
        name = os.fspath(path)[len(top) + 1 :].replace(os.sep, "/")
        if name not in self._asked:
            folder, _, last = name.rpartition("/")
            same = self._blocks.get((folder, os.path.splitext(last)[1].lower()), [name])
            at = same.index(name) if name in same else 0
            self._look_into(dict.fromkeys([name, *same[at : at + ENOUGH_REFUSALS]]))
        if name in self._failed:
            raise OSError(self._failed[name])
        head = read_head(path)
        if self._wanted_whole(name, head):
            entry = self._listing.entries[name]
            if entry.size > _LARGEST_DATABASE:
                raise OSError(f"a database of {entry.size / 1e9:.1f} GB is not fetched; read a copy of it")
            beside = [n for n in (name, f"{name}-wal") if n in self._listing.entries]
            if failures := _fetch(self.origin, beside):
                raise OSError(next(iter(failures.values())))
        return head

    def _look_into(self, names: Iterable[str]) -> None:
        """Fetch the first bytes of files."""
        names = [name for name in names if name not in self._asked]
        if not names:
            return
        self._asked.update(names)
        needs = {name: HEAD if only_some(name) or "tfevents" in name else FIRST for name in names}
        for name in names:
            if name.rpartition("/")[2] in NAMES and self._listing.entries[name].size <= _LARGEST_SETTINGS:
                del needs[name]
        for inside, reason in _fetch(self.origin, names, needs).items():
            self._failed[next(n for n in names if self.origin._inside(n) == inside)] = reason

    def _wanted_whole(self, name: str, head: bytes) -> bool:
        """Whether a reader has to see more than the first bytes to recognise a file."""
        size = self._listing.entries[name].size
        if head.startswith(MAGIC):
            return True
        if head.startswith(b"PK\x03\x04"):
            return name.endswith(".zip") and size <= _LARGEST_ARCHIVE
        is_document = name.endswith(".json") and head.lstrip()[:1] == b"{" and b'"log_history"' not in head
        return is_document and FIRST < size <= _LARGEST_ARCHIVE

    def origin_of(self, parts: Sequence[Found]) -> Origin:
        """Where the files of a source come from."""
        entries = self._listing.entries
        if self.single:
            return self.origin
        top = len(os.fspath(self.root)) + 1
        names = [os.fspath(f)[top:].replace(os.sep, "/") for part in parts for f in part.files]
        homes = {name.rpartition("/")[0] for name in names}
        closed = {kind.module for kind in KINDS if kind.closed}
        for part in parts:
            if part.module in closed and part.home not in part.files:
                home = os.fspath(part.home)[top:].replace(os.sep, "/")
                homes.add(home)
                names += [n for n in self._below(home) if could_be_log(n.rpartition("/")[2]) and "/artifacts/" not in n]
        names += [f"{name}-wal" for name in names]
        names += [f"{home}/{name}" if home else name for home in homes for name in NAMES]
        return replace(self.origin, entries={name: entries[name] for name in dict.fromkeys(names) if name in entries})

    def _below(self, folder: str) -> list[str]:
        start = f"{folder}/" if folder else ""
        return self._sorted[
            bisect_left(self._sorted, start) : bisect_left(self._sorted, f"{folder}0" if folder else "\U0010ffff")
        ]


def _lines_of_add_scalars(folders: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Event files that `fitdoctor.readers.subruns` tells by their first record: of folders in a run's folder."""
    first = {folder: next((n for n in names if "tfevents" in n), "") for folder, names in folders.items()}
    for folder, name in first.items():
        above, _, own = folder.rpartition("/")
        if name and folder and "_" in own and first.get(above):
            yield f"{folder}/{name}"


def tree_at(url: str, *, keep: bool) -> Tree:
    """What lies below a URL.

    Args:
        url: of a folder or a file.
        keep: whether what is fetched stays for the next time.

    Raises:
        ReadError: if there is nothing, it may not be read, the service is not reached, or a package is missing.
    """
    listing = listed(url)
    if not listing.entries:
        raise ReadError(f"{shown(url)}: expected a folder with logs, got an empty one")
    return Tree(listing, _mirror(keep=keep))


def fetch_ahead(sources: Sequence[RunSource]) -> None:
    """Fetch the files of several sources at once; what cannot be fetched is told when its source is read."""
    together: dict[tuple[str, Path, Path, bool], dict[str, Entry]] = {}
    for origin in (source.origin for source in sources if source.origin is not None):
        together.setdefault((origin.url, origin.root, origin.mirror, origin.kept), {}).update(origin.entries)
    for (url, root, mirror, kept), entries in together.items():
        with suppress(ReadError):
            _fetch(Origin(url, root, mirror, kept, entries), entries)


def in_turn(sources: Sequence[RunSource]) -> Iterator[RunSource]:
    """The same sources; the files of the next few are fetched together."""
    for start in range(0, len(sources), _AHEAD):
        few = sources[start : start + _AHEAD]
        fetch_ahead(few)
        yield from few


__all__ = ["Origin", "Tree", "fetch_ahead", "in_turn", "tree_at"]
