"""Workers of a Dask cluster: past one machine, with an engine that many people run already.

The scheduler gives a piece of work whose worker is lost to another one; a piece that has cost several workers
comes back as an error. Reports are stored by the process that asked for them, since a worker's disk may be another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from fitdoctor import __version__
from fitdoctor.errors import ConfigError, FitdoctorError, WorkerDied
from fitdoctor.many.engines import Found, Tell
from fitdoctor.many.work import Job, Work, judge

_PATIENCE = 30
"""Seconds to wait for the scheduler, and for its first worker."""


class DaskCluster:
    """A cluster that others run, or one on this machine for as long as it is needed."""

    ahead = 2
    """Pieces for each worker: one it is at and one that waits, for there may be hundreds of workers."""

    def __init__(self, address: str, workers: int, job: Job, local: Sequence[str], tell: Tell | None) -> None:
        try:
            import dask
            import distributed
        except ImportError:
            raise ConfigError(
                "engine dask: the package dask.distributed is not installed; pip install 'fitdoctor[dask]'"
            ) from None
        self._store = job.store
        self._job = replace(job, store=None)
        self._mine: set[Any] = set()
        self._lost = 0
        self._tell = tell
        self._closing = False
        self._cluster: Any = None
        address = address or dask.config.get("scheduler-address", "") or ""
        try:
            if not address:
                self._cluster = distributed.LocalCluster(
                    n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL,
                    preload=[__name__],
                )  # fmt: skip
            self._client = distributed.Client(
                self._cluster if self._cluster is not None else _with_scheme(address),
                timeout=_PATIENCE, set_as_default=False,
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError) as error:
            self._close_cluster()
            raise ConfigError(
                f"engine dask: expected a Dask scheduler at {address or 'this machine'}, got: {error}; "
                "start one with `dask scheduler` and workers with `dask worker ADDRESS`"
            ) from error
        try:
            self._check(local)
            self._client.subscribe_topic("all", self._event)
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        """Threads of all workers; workers may come and go."""
        threads: dict[str, int] = self._client.nthreads()
        return max(1, sum(threads.values()))

    def judge(self, works: Sequence[Work]) -> Future[Found]:
        """The runs of each source; a `WorkerDied` where a piece of work has cost several workers."""
        outer: Future[Found] = Future()
        inner = self._client.submit(_judge, list(works), self._job, __version__, pure=False)
        self._mine.add(inner)  # Dask cancels what nobody holds
        inner.add_done_callback(lambda done: self._pass_on(done, works, outer))
        return outer

    def close(self) -> None:
        """Cancel what is under way, and leave the cluster to itself, or end it if it was started for this."""
        self._closing = True
        mine, self._mine = list(self._mine), set()
        with _quiet():  # each by itself: whatever fails here, the rest has to be ended
            with contextlib.suppress(Exception):
                self._client.unsubscribe_topic("all")
            with contextlib.suppress(Exception):
                if mine:
                    self._client.cancel(mine, force=True)
            with contextlib.suppress(Exception):
                self._client.close(timeout=5)
        self._close_cluster()

    def _close_cluster(self) -> None:
        if self._cluster is not None:
            with _quiet(), contextlib.suppress(Exception):
                self._cluster.close(timeout=10)

    def _check(self, local: Sequence[str]) -> None:
        """See that there are workers, that they have this fitdoctor, and that they see the logs."""
        try:
            self._client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise ConfigError(
                f"engine dask: the scheduler {self._client.scheduler.address} has no worker, and none came within "
                f"{_PATIENCE} s; start some with `dask worker {self._client.scheduler.address}`"
            ) from None
        try:
            answers = self._client.run(_hello, list(local))
        except ImportError as error:
            raise ConfigError(
                f"engine dask: a worker cannot import fitdoctor ({error}); install version {__version__} on all workers"
            ) from error
        for worker, (version, unseen) in answers.items():
            if version != __version__:
                raise ConfigError(
                    f"engine dask: the worker {worker} has fitdoctor {version}, expected {__version__} as here"
                )
            if unseen:
                raise ConfigError(
                    f"engine dask: the worker {worker} does not see {unseen}; expected a file system that all workers "
                    "share, or a URL such as s3://bucket/logs"
                )

    def _pass_on(self, inner: Any, works: Sequence[Work], outer: Future[Found]) -> None:
        from distributed.scheduler import KilledWorker

        try:
            found: Found = inner.result()
            if self._store is not None:
                for work, judged in zip(works, found, strict=True):
                    self._store.put(work, judged)
        except KilledWorker as error:
            lost = error.allowed_failures + 1
            outer.set_exception(WorkerDied(f"{lost} Dask workers were lost, one after the other, that had to read it"))
        except FitdoctorError as error:
            outer.set_exception(error)
        except BaseException as error:
            outer.set_exception(FitdoctorError(f"engine dask: the work was not done: {type(error).__name__}: {error}"))
        else:
            outer.set_result(found)
        finally:
            self._mine.discard(inner)

    def _event(self, event: tuple[float, Any]) -> None:
        """What the scheduler says of its workers."""
        _, said = event
        if not isinstance(said, dict) or said.get("action") != "remove-worker" or self._closing:
            return
        self._lost += 1
        if self._tell is not None:
            tasks = said.get("processing-tasks") or ()
            self._tell(
                f"Dask lost a worker ({said.get('worker', 'unknown')}); its work goes to others"
                if tasks
                else f"Dask lost a worker ({said.get('worker', 'unknown')})"
            )


def _with_scheme(address: str) -> str:
    return address if "://" in address else f"tcp://{address}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Dask tells of every connection that ends; here they are meant to."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


# --- in the worker ----------------------------------------------------------------------------------------

_one_at_a_time = threading.Lock()
"""A worker may have several threads; judging is Python, and gains nothing from them."""


def dask_setup(_worker: object) -> None:
    """Called by Dask in each worker of a cluster of this machine: their parent hears Ctrl-C, and ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _hello(paths: Sequence[str]) -> tuple[str, str]:
    """The version of this worker, and the first path that it does not see."""
    return __version__, next((path for path in paths if not os.path.exists(path)), "")


def _judge(works: Sequence[Work], job: Job, version: str) -> Found:
    if version != __version__:  # a worker that came later
        raise ConfigError(f"engine dask: a worker has fitdoctor {__version__}, expected {version} on all workers")
    here = [replace(work, source=work.source.moved()) for work in works]
    with _one_at_a_time:
        return list(judge(here, job))
