"""Judging many runs: in the order of their names, on all cores, and without judging any run twice.

    find_runs -> stored already? (`store`) --yes--> reports
                     |no                              ^
                     v                                |
                 a few at a time --> read and judge (`work`), here or in a worker (`engines`) --> stored

Workers are processes of this machine (`crew`), or those of a Dask cluster (`dask_cluster`).

The reports are the same whichever way they take; `tests/many` holds that.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from fitdoctor.config import Config
from fitdoctor.errors import WorkerDied
from fitdoctor.many.engines import Engine, Found, Tell, check_engine, started
from fitdoctor.many.store import ReportStore
from fitdoctor.many.work import Job, Judged, Work, cores, died, judge
from fitdoctor.readers import Progress, RunSource, find_runs, unique
from fitdoctor.report import Report

__all__ = ["ReportStore", "diagnose_runs"]

_FEW = 16  # sources judged together: enough for small files to be read together, few enough to see the first soon
_MOST_BYTES = 32 << 20  # of sources judged together
_WORTHWHILE = 3.0  # seconds of work left from which starting workers, about a second each, pays


def diagnose_runs(
    path: str | Path,
    *,
    config: Config | None = None,
    match: str = "*",
    layers: bool = False,
    workers: int | None = 1,
    store: ReportStore | None = None,
    progress: Progress | None = None,
    engine: str = "process",
    keep: bool = True,
    tell: Tell | None = None,
) -> Iterator[Report]:
    """Judge every run below a path, in natural order of their names, each report as soon as it is its turn.

    Args:
        path: a log file, a run's folder, or a folder of many; or the URL of one, such as ``s3://bucket/logs``.
        config: what to select, ignore and override.
        match: glob that a run's name must match.
        layers: as in `fitdoctor.diagnose.diagnose`.
        workers: processes that read and judge; 1 for this one only, None for as many as there are cores where there
            is enough to do. They are started afresh, so a script that asks for them must keep its work below
            ``if __name__ == "__main__":``.
        store: where reports are kept for the next time.
        progress: called with the number of sources done, their total, and the name of the next one.
        engine: what runs the workers: "process", or "dask" for a cluster on this machine or the one that Dask is
            configured for, or "dask://HOST:PORT" for that of a scheduler.
        keep: whether files fetched from a URL stay in the user's cache folder.
        tell: called with what should be known while the work goes on: that a worker was lost.

    Raises:
        ReadError: if the path does not exist, or the URL cannot be listed.
        NoLogsFound: if nothing below it is a training log.
        ConfigError: if the config names a rule, an option or a quantity that does not exist, or the engine cannot be
            used.
    """
    config = config or Config()
    check_engine(engine)
    sources = find_runs(path, tags=config.tags, keep=keep)
    if match != "*":
        sources = [s for s in sources if not s.single or fnmatchcase(s.name, match)]
    used: set[str] = set()
    if engine == "process" and any(s.origin is not None and s.origin.private for s in sources):
        workers = 1
    line = _Line(Job(config, match, layers, store), sources, workers, engine, tell)
    for done, (source, found) in enumerate(line.results()):
        if progress is not None:
            progress(done, len(sources), source.name)
        for i, (name, report) in enumerate(found):
            own = unique(name, used)
            if not fnmatchcase(own, match):
                continue
            if report is None:  # fits only with the number that tells it from another run of its name
                (again,) = judge([Work(source)], Job(config, "*", layers))
                report = again[i][1]
                assert report is not None
            yield report if own == report.run else replace(report, run=own)
    if progress is not None:
        progress(len(sources), len(sources), "")


@dataclass(slots=True, eq=False)
class _Place:
    """A source in the line.

    Attributes:
        work: the source.
        found: what became of it; None until it has been judged.
        under_way: the piece of work that it belongs to, and its number in it.
    """

    work: Work
    found: tuple[Judged, ...] | None = None
    under_way: tuple[Future[Found], int] | None = None


class _Line:
    """Sources that are judged, in whatever order, and told in their own."""

    def __init__(
        self, job: Job, sources: Sequence[RunSource], workers: int | None, engine: str, tell: Tell | None
    ) -> None:
        self._job = job
        self._sources = sources
        self._engine = engine
        self._tell = tell
        self._workers = cores() if workers is None else max(1, workers)
        self._at_once = engine != "process" or (workers is not None and workers > 1)
        self._crew: Engine | None = None
        self._waiting: deque[_Place] = deque()
        self._looked = self._judged = 0
        self._seconds = 0.0

    def results(self) -> Iterator[tuple[RunSource, tuple[Judged, ...]]]:
        """Each source and what became of its runs."""
        todo: list[_Place] = []
        try:
            for source in self._sources:
                place = self._looked_up(source)
                if place.found is None:
                    todo.append(place)
                full = len(self._waiting) >= 2 * self._under_way() * _FEW
                if len(todo) >= self._together() or sum(p.work.size for p in todo) >= _MOST_BYTES or full:
                    yield from self._do(todo)
                    todo = []
                yield from self._ready()
                if full and self._waiting:  # reports that are ready wait behind one that is not
                    yield self._told()
            yield from self._do(todo)
            while self._waiting:
                yield self._told()
        finally:
            if self._crew is not None:
                self._crew.close()

    def _looked_up(self, source: RunSource) -> _Place:
        """The source at the end of the line, with what is known of it from before."""
        store = self._job.store
        place = _Place(Work(source) if store is None else store.identified(source, self._job))
        if store is not None:
            place.found = store.get(place.work)
        self._waiting.append(place)
        self._looked += 1
        return place

    def _under_way(self) -> int:
        """Pieces of work that may be under way, or done and not yet told."""
        return self._crew.ahead * self._crew.workers if self._crew is not None else _FEW

    def _together(self) -> int:
        """How many sources to judge together: one at first, so that the first report comes soon."""
        return min(_FEW, self._judged + 1) if self._crew is None else _FEW

    def _do(self, todo: list[_Place]) -> Iterator[tuple[RunSource, tuple[Judged, ...]]]:
        if not todo:
            return
        if self._crew is None and self._worth_a_crew():
            self._crew = self._started()
            self._workers = self._workers if self._crew is not None else 1  # else they cannot be started here
        if self._crew is None:
            yield from self._do_here(todo)
            return
        future = self._crew.judge([place.work for place in todo])
        for i, place in enumerate(todo):
            place.under_way = future, i
        while len({id(p.under_way[0]) for p in self._waiting if p.under_way}) > self._under_way():
            yield self._told()

    def _started(self) -> Engine | None:
        local = [str(s.path) for s in self._sources if s.origin is None]
        return started(self._engine, self._workers, self._job, local[:1], self._tell)

    def _worth_a_crew(self) -> bool:
        if self._engine != "process":
            return True
        if self._workers == 1:
            return False
        left = (len(self._sources) - self._looked) * (self._judged / max(self._looked, 1))
        return self._at_once or (self._judged > 0 and left * self._seconds / self._judged > _WORTHWHILE)

    def _do_here(self, todo: list[_Place]) -> Iterator[tuple[RunSource, tuple[Judged, ...]]]:
        began = time.perf_counter()
        for place, found in zip(todo, judge([p.work for p in todo], self._job), strict=True):
            place.found = found
            self._seconds += time.perf_counter() - began
            self._judged += 1
            yield from self._ready()
            began = time.perf_counter()

    def _ready(self) -> Iterator[tuple[RunSource, tuple[Judged, ...]]]:
        """What is at the head of the line and need not be waited for."""
        while self._waiting:
            head = self._waiting[0]
            if head.found is None and (head.under_way is None or not head.under_way[0].done()):
                return
            yield self._told()

    def _told(self) -> tuple[RunSource, tuple[Judged, ...]]:
        """The head of the line, waited for if need be."""
        place = self._waiting.popleft()
        if place.found is None:
            assert place.under_way is not None
            future, number = place.under_way
            place.under_way = None
            try:
                place.found = future.result()[number]
            except WorkerDied:
                place.found = self._judged_alone(place.work)
        return place.work.source, place.found

    def _judged_alone(self, work: Work) -> tuple[Judged, ...]:
        """A source whose worker died, perhaps because of another source."""
        assert self._crew is not None
        try:
            return self._crew.judge([work]).result()[0]
        except WorkerDied as why:
            return died(work.source, str(why), self._job)
