"""What runs the workers: processes of this machine, or the workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from fitdoctor.errors import ConfigError

if TYPE_CHECKING:
    from fitdoctor.many.work import Job, Judged, Work

Found = list[tuple["Judged", ...]]
"""The runs of each source of a piece of work."""
Tell = Callable[[str], None]
"""Called with a sentence that the user should read while the work goes on."""


class Engine(Protocol):
    """Workers that read and judge. What they find is stored by the time it is told."""

    @property
    def workers(self) -> int:
        """How many pieces of work are done at a time."""
        ...

    @property
    def ahead(self) -> int:
        """Pieces of work for each worker that may be under way, or done and not yet told."""
        ...

    def judge(self, works: Sequence[Work]) -> Future[Found]:
        """The runs of each source; a `fitdoctor.errors.WorkerDied` where the worker that was to judge them died."""
        ...

    def close(self) -> None:
        """End what is under way."""
        ...


def check_engine(name: str) -> None:
    """See that there is an engine of that name.

    Raises:
        ConfigError: if there is none.
    """
    if name != "process" and name != "dask" and not name.startswith("dask://"):
        raise ConfigError(f"engine: expected process, dask or dask://HOST:PORT of a scheduler, got {name!r}")


def started(name: str, workers: int, job: Job, local: Sequence[str], tell: Tell | None) -> Engine | None:
    """An engine that has shown to work; None where this machine starts no processes.

    Args:
        name: "process", "dask", or "dask://" with the address of a scheduler.
        workers: how many, where they are started here.
        job: how to judge.
        local: paths that all workers have to see.
        tell: told of what happens to the workers.

    Raises:
        ConfigError: if the cluster cannot be used.
    """
    if name == "process":
        from fitdoctor.many.crew import Crew

        return Crew.started(workers, job)
    from fitdoctor.many.dask_cluster import DaskCluster

    return DaskCluster(name.removeprefix("dask").removeprefix("://"), workers, job, local, tell)
