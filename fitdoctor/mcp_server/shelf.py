"""The runs below the folders: found again when some time has passed, judged when asked for, kept while unchanged."""

from __future__ import annotations

import difflib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from fitdoctor.errors import NoLogsFound, ReadError
from fitdoctor.many.inside import stray
from fitdoctor.many.store import ReportStore
from fitdoctor.mcp_server.folders import Folder, resolve
from fitdoctor.readers import RunSource, find_runs
from fitdoctor.reporters.harmless import one_line

if TYPE_CHECKING:
    from fitdoctor.config import Config
    from fitdoctor.report import Report
    from fitdoctor.run import Run

LOOK_EVERY = 5.0
"""Seconds for which what was found below a folder counts as what is there."""
GROWS = 60.0
"""Seconds since the last writing during which a run counts as going on: rules that need its end are left out."""
KEPT = 4
"""Logs that are kept in memory, read whole."""
AT_ONCE = 2
"""Questions that are worked on at a time."""
MOST_NEAREST = 5


@dataclass(frozen=True, slots=True)
class Log:
    """Logs that are read together, and the folder they lie in."""

    folder: Folder
    source: RunSource

    @property
    def name(self) -> str:
        """Name of its run; of several runs, the start of their names."""
        return self.folder.run(self.source.name)


@dataclass(frozen=True, slots=True)
class Judged:
    """A run and what is said of it.

    Attributes:
        log: where it was read from.
        own: its name among the runs of its log.
        report: the report, under the name that the run has among all.
        growing: it is still being written.
    """

    log: Log
    own: str
    report: Report
    growing: bool


@dataclass(slots=True)
class Shelf:
    """The runs below some folders.

    Attributes:
        folders: the only places that are read.
        config: how runs are judged.
        store: where reports are kept; None keeps none.
        match: glob that the name of a run must match, as it is called in its folder.
        failures: why a folder holds no runs.
    """

    folders: Sequence[Folder]
    config: Config
    store: ReportStore | None = None
    match: str = "*"
    failures: list[str] = field(default_factory=list)
    _logs: list[Log] = field(default_factory=list)
    _looked: float = float("-inf")
    _read: OrderedDict[object, list[Run]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _busy: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(AT_ONCE))

    def logs(self, path: str = "") -> list[Log]:
        """The logs below all folders, or those of them below a path, in natural order of their names.

        Raises:
            ReadError: if the path leads elsewhere or holds no log.
        """
        if path:
            folder, place = resolve(path, self.folders)
            listed = [log for log in self.logs() if log.folder == folder and _lies_below(log.source, place)]
            return listed or self._unlisted(folder, place)
        with self._lock:
            began = time.monotonic()
            if began - self._looked > LOOK_EVERY:
                logs: list[Log] = []
                self.failures = []
                for folder in self.folders:
                    try:
                        logs += self._found(folder, folder.path)
                    except NoLogsFound as error:
                        self.failures.append(str(error))
                self._logs = logs
                # A walk that takes long is not made again at once.
                self._looked = time.monotonic() + 10 * (time.monotonic() - began)
            return self._logs

    def judged(self, log: Log) -> list[Judged]:
        """The runs of a log, each with its report.

        Raises:
            ReadError: if a link leads out of the folder.
        """
        from fitdoctor.diagnose import while_running
        from fitdoctor.many.work import Job, Work, judge

        _check(log)
        growing = _growing(log.source)
        job = Job(while_running(self.config) if growing else self.config, store=self.store)
        with self._busy:
            work = Work(log.source) if self.store is None else self.store.identified(log.source, job)
            found = self.store.get(work) if self.store is not None else None
            if found is None:
                (found,) = judge([work], job)
        out = []
        for name, report in found:
            assert report is not None  # the job is to judge them all
            if not fnmatchcase(name, self.match):
                continue
            shown = replace(report, run=log.folder.run(name), path=log.folder.below(report.path))
            out.append(Judged(log, name, shown, growing and report.finished is None))
        return out

    def find(self, name: str) -> Judged:
        """The run of that name, or the one run at that path.

        Raises:
            ReadError: if there is none, or more than one at the path.
        """
        logs = self.logs()
        for log in logs:
            if log.name == name or (not log.source.single and name.startswith(f"{log.name}/")):
                for one in self.judged(log):
                    if one.report.run == name:
                        return one
        try:
            at_path = self.logs(name)
        except ReadError as error:
            if isinstance(error, NoLogsFound) or os.path.isabs(name) or ".." in name:
                raise  # it was meant as a path
            nearest = difflib.get_close_matches(name[:200], [log.name for log in logs], MOST_NEAREST, 0.5)
            hint = f"; the nearest are {', '.join(one_line(n, 100) for n in nearest)}" if nearest else ""
            raise ReadError(
                f"expected a run as list_runs names it, or the path of one; got {one_line(name, 120)!r}{hint}"
            ) from None
        runs = [one for log in at_path[:2] for one in self.judged(log)]
        if len(runs) == 1:
            return runs[0]
        raise ReadError(
            f"expected the path of one run, got one with {len(runs) if len(at_path) < 3 else 'many'}: "
            f"{one_line(name, 120)!r}; ask list_runs with it as path"
        )

    def run(self, judged: Judged) -> Run:
        """Everything that was logged of a run.

        Raises:
            ReadError: if a link leads out of the folder, or the run is gone.
        """
        _check(judged.log)
        key = (judged.log.source.fingerprint(), str(judged.log.source.path))
        with self._lock:
            runs = self._read.get(key)
        if runs is None:
            with self._busy:
                runs = judged.log.source.load()
            with self._lock:
                self._read[key] = runs
                while len(self._read) > KEPT:
                    self._read.popitem(last=False)
        for run in runs:
            if run.name == judged.own:
                return replace(run, name=judged.report.run)
        raise ReadError(f"{one_line(judged.report.run, 120)}: the run is gone; ask list_runs what is there now")

    def _found(self, folder: Folder, place: Path) -> list[Log]:
        sources = find_runs(place, tags=self.config.tags, links=False)
        return [Log(folder, s) for s in sources if not s.single or fnmatchcase(s.name, self.match)]

    def _unlisted(self, folder: Folder, place: Path) -> list[Log]:
        """Logs that a walk over the folder passes by, such as those of hidden folders, under the name of their path."""
        below = folder.below(place)
        logs = self._found(folder, place)
        return [
            replace(log, source=replace(log.source, name=below if len(logs) == 1 else f"{below}/{log.source.name}"))
            for log in logs
        ]


def _lies_below(source: RunSource, place: Path) -> bool:
    top = os.path.join(place, "")
    return any(file == place or os.fspath(file).startswith(top) for file in source.files)


def _check(log: Log) -> None:
    """Raise ReadError for a log that leads out of its folder."""
    if (outside := stray(log.source, log.folder.path)) is not None:
        raise ReadError(
            f"{one_line(log.name, 120)}: {one_line(outside.name, 120)} is a link that leads out of the folder, "
            "so the run is not read; start `fitdoctor mcp` with the folder that it leads to as well"
        )


def _growing(source: RunSource) -> bool:
    newest = max((changed for _, _, changed in source.fingerprint()), default=0) / 1e9
    return time.time() - newest < GROWS
