"""What lies below a URL: every file with its size and a stamp that changes when its content does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fitdoctor.errors import ReadError
from fitdoctor.readers.remote.services import connected, why
from fitdoctor.readers.urls import protocol, shown

_STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "md5", "crc32c", "blob_id", "CRC", "checksum")
"""What services call a hash or version of the content."""
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "date_time", "created")
_FILES_ONLY = frozenset(("http", "https"))
"""Protocols that have no folders: what looks like a listing there is a web page."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A remote file as it was when it was listed.

    Attributes:
        path: its path in the file system that serves it.
        size: its bytes; -1 where the service does not say.
        stamp: changes when the content does; "" where the service gives nothing of the kind.
    """

    path: str
    size: int
    stamp: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files below a URL.

    Attributes:
        url: as given.
        fs: the fsspec file system that serves it.
        entries: the files, by path relative to the URL; the only one is "" where the URL is that of a file.
        odd: paths that no local folder can mirror.
    """

    url: str
    fs: Any
    entries: Mapping[str, Entry]
    odd: tuple[str, ...] = field(default=())

    @property
    def single(self) -> bool:
        """Whether the URL is that of a file."""
        return self.entries.keys() == {""}


def listed(url: str) -> Listing:
    """List everything below a URL.

    Raises:
        ReadError: if there is nothing, it may not be read, the service is not reached, or a package is missing.
    """
    fs, root = connected(url)
    try:
        fs.invalidate_cache()  # a second look is to see what is new
        about = fs.info(root)
        if about.get("type") == "file" or protocol(url) in _FILES_ONLY:
            if "html" in str(about.get("mimetype", "")):
                raise ReadError(f"{shown(url)}: expected the URL of one log file, got a web page")
            return Listing(url, fs, {"": _entry(root, about)})
        found = fs.find(root, detail=True)
    except ReadError:
        raise
    except Exception as error:
        raise ReadError(why(url, error)) from error
    tops = [str(top).rstrip("/") + "/" if str(top).strip("/") else "" for top in (root, about.get("name") or root)]
    entries: dict[str, Entry] = {}
    odd: list[str] = []
    for name, info in found.items():
        inside = next((name[len(top) :] for top in tops if name.startswith(top)), name).lstrip("/")
        if info.get("type", "file") != "file" or name.endswith("/"):
            continue
        if _harmless(inside):
            entries[inside] = _entry(name, info)
        else:
            odd.append(inside)
    return Listing(url, fs, entries, tuple(odd))


def _entry(path: str, info: Mapping[str, Any]) -> Entry:
    size = info.get("size")
    return Entry(path, -1 if size is None else int(size), "; ".join(_stamp(info)))


def _stamp(info: Mapping[str, Any]) -> Iterator[str]:
    for names in (_STAMPS, _TIMES):  # a time only where there is no hash: copying a file changes it
        told = [f"{name} {info[name]}" for name in names if info.get(name)]
        if told:
            yield from told
            return


def _harmless(inside: str) -> bool:
    """Whether a key is a path that stays inside the folder it is put into: a store may hold ``../../x``."""
    parts = inside.split("/")
    return not any(
        p in ("", ".", "..") or "\\" in p or "\0" in p or len(p.encode("utf-8", "replace")) > 250 for p in parts
    )
