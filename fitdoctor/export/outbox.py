"""The thread between a training and a destination: handing over takes no time, whatever the destination does."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from fitdoctor.finding import Finding, Severity
from fitdoctor.report import Diagnosis, Report
from fitdoctor.reporters.harmless import one_line

log = logging.getLogger("fitdoctor")

MOST_WAITING = 1000
"""Messages that wait to be sent; what comes when so many wait is dropped, and told."""
AT_EXIT = 10.0
"""Seconds that a program which ends without `Outbox.close` waits for what is under way."""


class Destination(Protocol):
    """Somewhere findings are sent; its methods may block and may raise."""

    @property
    def name(self) -> str:
        """What it is called in messages; never a secret."""
        ...

    def tell(self, run: str, diagnosis: Diagnosis) -> None:
        """Send a root cause of the run of that name, with what it accounts for."""
        ...

    def report(self, reports: Sequence[Report], new: Sequence[Diagnosis]) -> None:
        """Send whole reports; `new` are those diagnoses in them that were not told before."""
        ...


class Outbox:
    """Takes findings at once and sends them later, each once; to be given to `fitdoctor.attach` as ``on_finding``.

    The monitor hands it whole reports, of which it sends the root causes.

    Args:
        destination: where to.
        run: name of the run that the findings are of.
        least: lowest severity that is sent.

    Attributes:
        failures: what could not be sent, and why. The first is also logged.
    """

    def __init__(self, destination: Destination, *, run: str = "", least: Severity = Severity.WARNING) -> None:
        self.failures: list[str] = []
        self._destination = destination
        self._run = run
        self._least = least
        self._told: dict[tuple[str, str], int] = {}
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        return f"Outbox({self._destination.name})"

    def __call__(self, finding: Finding) -> None:
        """Send a finding, unless it was sent before at this severity or a higher one."""
        self._tell(self._run, Diagnosis(finding))

    def look(self, report: Report) -> None:
        """Send the root causes of a report that are new: one message for one fault, however many findings it makes."""
        for diagnosis in report.diagnoses:
            self._tell(self._run or report.run, diagnosis)

    def report(self, *reports: Report) -> None:
        """Send whole reports."""
        # The report of a monitor may call the run otherwise than whoever made this outbox for it.
        new = [d for r in reports for d in r.diagnoses if self._is_new(d.root, r.run, self._run)]
        self._put(lambda: self._destination.report(reports, new))

    def close(self, report: Report | None = None, *, timeout: float = 10.0) -> bool:
        """Wait until everything is sent.

        Args:
            report: the report on the whole run, sent last.
            timeout: seconds to wait at most; what takes longer is left to the background.

        Returns:
            Whether everything arrived.
        """
        if report is not None and not self._closed:
            self.report(report)
        self._closed = True
        if self._thread is not None and self._pid == os.getpid():
            until = time.monotonic() + timeout
            if self._thread.is_alive():
                with contextlib.suppress(queue.Full):
                    self._waiting.put(None, timeout=timeout)
                self._thread.join(max(0.0, until - time.monotonic()))
            if self._thread.is_alive():
                self._fail(f"not everything was sent within {timeout:g} s")
            atexit.unregister(self._at_exit)
        return not self.failures

    def _tell(self, run: str, diagnosis: Diagnosis) -> None:
        if self._is_new(diagnosis.root, run):
            self._put(lambda: self._destination.tell(run, diagnosis))

    def _is_new(self, finding: Finding, *names: str) -> bool:
        """Whether it was told under none of these names of its run; from now on it counts as told under the first."""
        known = max(self._told.get((name, finding.rule), -1) for name in names)
        if finding.severity.rank <= max(known, self._least.rank - 1):
            return False
        self._told[names[0], finding.rule] = finding.severity.rank
        return True

    def _put(self, job: Callable[[], None]) -> None:
        if self._closed or self._pid != os.getpid():  # a process that was forked sends nothing twice
            return
        try:
            self._waiting.put_nowait(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._send, name="fitdoctor-outbox", daemon=True)
                self._thread.start()
                atexit.register(self._at_exit)
        except queue.Full:
            self._fail(f"{MOST_WAITING} messages wait already; this one was dropped")
        except RuntimeError as error:  # no thread can be started while the interpreter ends
            self._thread = None
            self._fail(str(error))

    def _send(self) -> None:
        while (job := self._waiting.get()) is not None:
            try:
                job()
            except Exception as error:
                self._fail(str(error) or type(error).__name__)

    def _fail(self, why: str) -> None:
        why = one_line(why, 500)
        if not self.failures:
            log.warning("fitdoctor: %s: %s (told once; the training goes on)", self._destination.name, why)
        if len(self.failures) < MOST_WAITING:
            self.failures.append(why)

    def _at_exit(self) -> None:
        self.close(timeout=AT_EXIT)
