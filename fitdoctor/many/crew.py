"""Worker processes that read and judge."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event

from fitdoctor.errors import WorkerDied
from fitdoctor.many.engines import Found
from fitdoctor.many.work import Job, Work, judge

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Crew:
    """Worker processes; started afresh ("spawn"), so that they are the same on every system and inherit no threads."""

    ahead = 4

    def __init__(self, workers: int, job: Job) -> None:
        self.workers = workers
        self._job = job
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._pool = self._opened()

    @classmethod
    def started(cls, workers: int, job: Job) -> Crew | None:
        """A crew that has shown to work; None where processes cannot be started or cannot talk to each other."""
        try:
            crew = cls(workers, job)
            with _starting():
                ready = crew._pool.submit(os.getpid)
            ready.result()
        except (OSError, ImportError, BrokenProcessPool):
            return None
        return crew

    def judge(self, works: Sequence[Work]) -> Future[Found]:
        """The runs of each source; a `WorkerDied` where the process that was to judge them died."""
        outer: Future[Found] = Future()
        try:
            with _starting():
                inner = self._pool.submit(_judge, list(works))
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = self._opened()
            with _starting():
                inner = self._pool.submit(_judge, list(works))
        inner.add_done_callback(lambda done: _pass_on(done, outer))
        return outer

    def close(self) -> None:
        """Let the workers end what they are at, a source each, and go."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _opened(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.workers, self._context, _begin, (self._job, self._stop))


def _pass_on(inner: Future[Found], outer: Future[Found]) -> None:
    if inner.cancelled():
        outer.cancel()
    elif isinstance(error := inner.exception(), BrokenProcessPool):
        outer.set_exception(
            WorkerDied(
                "the process that read it ended without a word, as one does that the system kills (out of memory?)"
            )
        )
    elif error is not None:
        outer.set_exception(error)
    else:
        outer.set_result(inner.result())


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """What processes that are started here inherit.

    One thread each, since there is a process for every core: numpy asks when it is imported. And no ear for Ctrl-C,
    which is sent to all processes of a terminal: their parent ends them.
    """
    added = [name for name in _ONE_THREAD if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    hears = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if hears else None
    try:
        yield
    finally:
        if hears:
            signal.signal(signal.SIGINT, before)
        for name in added:
            os.environ.pop(name, None)


# --- in the worker ----------------------------------------------------------------------------------------

_duty: tuple[Job, Event] | None = None


def _begin(job: Job, stop: Event) -> None:
    global _duty
    _duty = job, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers to go."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _judge(works: Sequence[Work]) -> Found:
    assert _duty is not None
    job, stop = _duty
    return list(judge(works, job, stop.is_set))
