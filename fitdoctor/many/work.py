"""The work itself: read a source, judge its runs. The same code here and in a worker process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a worker decides on numpy's threads before it is imported
    from fitdoctor.config import Config
    from fitdoctor.many.store import ReportStore
    from fitdoctor.readers import RunSource
    from fitdoctor.report import Report

Judged = tuple[str, "Report | None"]
"""Name of a run, and the report on it; None where nobody asked for it."""


@dataclass(frozen=True, slots=True)
class Job:
    """How sources are to be judged.

    Attributes:
        config: what to select, ignore and override.
        match: glob that a run's name must match for it to be judged.
        layers: as in `fitdoctor.diagnose.diagnose`.
        store: where reports are kept.
    """

    config: Config
    match: str = "*"
    layers: bool = False
    store: ReportStore | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """A source to be judged.

    Attributes:
        source: the source.
        identity: under which the reports are stored; "" where they are not to be.
        size: bytes of its files, as far as known.
    """

    source: RunSource
    identity: str = ""
    size: int = 0


def judge(works: Sequence[Work], job: Job, stopped: Callable[[], bool] = lambda: False) -> Iterator[tuple[Judged, ...]]:
    """The runs of each source, judged and stored.

    Args:
        works: the sources.
        job: how to judge them.
        stopped: asked before each source whether to end early.
    """
    from fitdoctor.diagnose import diagnose
    from fitdoctor.readers import read_ahead

    sources = [work.source for work in works]
    if any(source.origin is not None for source in sources):
        from fitdoctor.readers.remote import fetch_ahead

        fetch_ahead(sources)
    through = read_ahead(sources)
    for work in works:
        if stopped():
            return
        judged: list[Judged] = []
        for run in work.source.load(through):
            wanted = fnmatchcase(run.name, job.match)
            judged.append((run.name, diagnose(run, config=job.config, layers=job.layers) if wanted else None))
        if job.store is not None:
            job.store.put(work, judged)
        yield tuple(judged)


def died(source: RunSource, why: str, job: Job) -> tuple[Judged, ...]:
    """What is said of a source whose worker died twice: a run of which nothing could be read."""
    from fitdoctor.diagnose import diagnose
    from fitdoctor.run import Note, Run

    text = f"{source.where}: not judged: {why}"
    run = Run(source.name, (), path=source.where, source=source.source, notes=(Note("ignored-file", text),))
    return ((run.name, diagnose(run, config=job.config)),)


def cores() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
