"""Reports kept on disk, by what they were made from: files, settings, and the code that judged.

A file an entry, written under another name and then renamed, so that several processes can share a folder. An entry
that cannot be read, for whatever reason, is no entry.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

import fitdoctor
from fitdoctor.errors import FitdoctorError
from fitdoctor.many.work import Judged, Work
from fitdoctor.report import FORMAT_VERSION, Report

if TYPE_CHECKING:
    from fitdoctor.many.work import Job
    from fitdoctor.readers import RunSource

_SETTLED = 2 * 10**9
"""Nanoseconds for which a file must have been left alone: times of change come in ticks, on some disks of 2 s."""
_UNUSED = 30 * 24 * 3600
"""Seconds after which an entry that nobody asked for is deleted."""
_DAY = 24 * 3600


@dataclass(frozen=True, slots=True)
class ReportStore:
    """Reports in a folder.

    Attributes:
        folder: where; made when first written to.
    """

    folder: Path

    @classmethod
    def default(cls) -> ReportStore | None:
        """The store in the user's cache folder, or in FITDOCTOR_CACHE_DIR; none where that is set to nothing."""
        chosen = os.environ.get("FITDOCTOR_CACHE_DIR")
        if chosen is not None:
            return cls(Path(chosen)) if chosen else None
        from platformdirs import user_cache_path

        return cls(user_cache_path("fitdoctor", appauthor=False) / "reports")

    def identified(self, source: RunSource, job: Job) -> Work:
        """The source with all that its reports depend on, as it stands before it is read."""
        files = _files(source)
        size = sum(file[1] for file in files)
        if source.failure or not (_settled(files) if source.origin is None else files and source.origin.stamped):
            return Work(source, "", size)
        config = job.config
        place = str if source.origin is None else source.origin.url_of  # a mirror may be elsewhere tomorrow
        parts = [(part.module, place(part.home), [place(file) for file in part.files]) for part in source.parts]
        depends = (
            _code(), files, parts, source.name, source.where, source.source,
            sorted((place(a), place(b)) for a, b in source.subruns.items()),
            sorted((place(Path(path)), name) for path, name in source.names.items()),
            list(config.select), sorted(config.ignore.items()), list(config.tags.items()), sorted(config.facts.items()),
            sorted((rule, sorted(options.items())) for rule, options in config.options.items()), job.layers,
        )  # fmt: skip
        return Work(source, hashlib.sha256(repr(depends).encode("utf-8", "surrogateescape")).hexdigest(), size)

    def get(self, work: Work) -> tuple[Judged, ...] | None:
        """The runs of a source and the reports on them, or None."""
        if not work.identity:
            return None
        path = self._path(work.identity)
        try:
            data = orjson.loads(zlib.decompress(path.read_bytes()))
            if data["identity"] != work.identity:
                return None
            found = tuple((str(name), Report.from_dict(report)) for name, report in data["reports"])
        except (OSError, zlib.error, FitdoctorError):
            return None
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
            return None  # not what `put` writes
        with suppress(OSError):
            os.utime(path)  # so that `prune` sees that it is of use
        return found

    def put(self, work: Work, judged: Sequence[Judged]) -> None:
        """Keep the reports on all runs of a source, unless some may turn out otherwise at another try."""
        reports = [report for _, report in judged if report is not None and not _accidental(report)]
        if not work.identity or len(reports) < len(judged):
            return
        path = self._path(work.identity)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        # What cannot be stored (a full disk, half a surrogate pair in a name) is judged again next time.
        with suppress(OSError, TypeError, ValueError):
            named = [(name, report.to_dict()) for (name, _), report in zip(judged, reports, strict=True)]
            data = zlib.compress(orjson.dumps({"identity": work.identity, "reports": named}), 1)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                beside.write_bytes(data)
                os.replace(beside, path)
            except OSError:
                beside.unlink(missing_ok=True)
                raise

    def prune(self) -> None:
        """Delete what nobody has asked for in a month; looks once a day at most."""
        mark = self.folder / "pruned"
        now = time.time()
        with suppress(OSError):
            if not self.folder.is_dir() or (mark.exists() and now - mark.stat().st_mtime < _DAY):
                return
            mark.touch()
            for entry in _entries(self.folder):
                with suppress(OSError):
                    if now - entry.stat().st_mtime > _UNUSED:
                        entry.unlink()

    def _path(self, identity: str) -> Path:
        return self.folder / identity[:2] / f"{identity}.z"


def _entries(folder: Path) -> Iterator[Path]:
    for below in folder.iterdir():
        if len(below.name) == 2 and below.is_dir():
            yield from below.iterdir()


def _settled(files: Sequence[tuple[Any, ...]]) -> bool:
    """Whether files on a disk have been left alone."""
    newest = max((file[2] for file in files), default=None)
    return newest is not None and time.time_ns() - newest >= _SETTLED


def _files(source: RunSource) -> list[tuple[Any, ...]]:
    """Path, size, time of change, inode and device of every file of a source; URL, size and stamp of a remote one."""
    if source.origin is not None:
        return list(source.fingerprint())
    found: list[tuple[Any, ...]] = []
    for path, size, changed in source.fingerprint():
        with suppress(OSError):
            status = os.stat(path)
            found.append((path, size, changed, status.st_ino, status.st_dev))
    return found


def _accidental(report: Report) -> bool:
    """Whether a report tells of something that may be over by the next time: a file that could not be read, a bug."""
    return any(note.kind == "ignored-file" for note in report.notes) or bool(report.counts["crashed"])


@cache
def _code() -> str:
    """All code that a report depends on: ours, that of plugged-in rules, and what numbers are computed with."""
    from importlib.metadata import entry_points, version
    from importlib.util import find_spec

    from fitdoctor.catalogue import ENTRY_POINT_GROUP

    files = {str(path) for path in Path(fitdoctor.__file__).parent.rglob("*.py")}
    for plugged_in in entry_points(group=ENTRY_POINT_GROUP):
        with suppress(ImportError, ValueError):  # a rule that cannot be imported is none, and told elsewhere
            spec = find_spec(plugged_in.module)
            files.update([spec.origin] if spec is not None and spec.origin else [])
    stamps = []
    for name in sorted(files):
        with suppress(OSError):
            status = os.stat(name)
            stamps.append((name, status.st_size, status.st_mtime_ns))
    told = (fitdoctor.__version__, FORMAT_VERSION, version("numpy"), version("pandas"), sys.version, stamps)
    return hashlib.sha256(repr(told).encode("utf-8", "surrogateescape")).hexdigest()
