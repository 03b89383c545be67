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
from dataclasses import replace
from functools import partial
from typing import Protocol

from fitdoctor.finding import Finding, Severity
from fitdoctor.report import Diagnosis, Report
from fitdoctor.reporters.harmless import one_line
from fitdoctor.run import Span

log = logging.getLogger("fitdoctor")

GATHER = 0.5
"""Seconds for which findings are gathered, so that those of one fault are told together."""
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

    Of findings that come one by one the root causes are sent, with what they explain, as `fitdoctor.triage` finds them
    among all that have come: a cause that is found later than its effect is sent then.

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
        self._found: dict[str, Finding] = {}  # by rule
        self._gathering = False
        self._lock = threading.Lock()  # held for moments only
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._closing = threading.Event()

    def __repr__(self) -> str:
        return f"Outbox({self._destination.name})"

    def __call__(self, finding: Finding) -> None:
        """Send a finding, unless it or what explains it was sent before, at this severity or a higher one."""
        if finding.severity.rank < min(self._least.rank, Severity.WARNING.rank):
            return  # a note explains nothing that is worse
        with self._lock:
            self._found[finding.rule] = finding
            begins, self._gathering = not self._gathering, True
        if begins and not self._put(self._tell_found):
            self._gathering = False

    def look(self, report: Report) -> None:
        """Send the root causes of a report that are new."""
        for diagnosis in report.diagnoses:
            self._put_new(self._run or report.run, diagnosis)

    def report(self, *reports: Report) -> None:
        """Send whole reports."""
        told = [
            replace(r, run=self._run) if self._run else r for r in reports
        ]  # the monitor may call the run otherwise

        def send() -> None:
            new = [d for r in told for d in r.diagnoses if self._is_new(d.root, r.run, self._run)]
            self._destination.report(told, new)

        self._put(send)

    def close(self, report: Report | None = None, *, timeout: float = 10.0) -> bool:
        """Wait until everything is sent.

        Args:
            report: the report on the whole run, sent last.
            timeout: seconds to wait at most; what takes longer is left to the background.

        Returns:
            Whether everything arrived.
        """
        if report is not None:
            self.report(report)
        self._closing.set()
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

    def _tell_found(self) -> None:
        """Send the root causes among the findings that have come one by one."""
        from fitdoctor import catalogue
        from fitdoctor.triage import triage

        self._closing.wait(GATHER)
        with self._lock:
            self._gathering = False
            found = list(self._found.values())
        if all(f.severity.rank < self._least.rank for f in found):
            return
        rules = catalogue.rules()
        explains: dict[str, tuple[str, ...]] = {f.rule: () for f in found} | {r.name: tuple(r.explains) for r in rules}
        steps = Span(0, max(f.span.last for f in found))
        for diagnosis in triage(found, explains, steps, {r.name for r in rules if r.state}):
            if self._is_new(diagnosis.root, self._run):
                self._attempt(partial(self._destination.tell, self._run, diagnosis))

    def _put_new(self, run: str, diagnosis: Diagnosis) -> None:
        if self._is_new(diagnosis.root, run):
            self._put(partial(self._destination.tell, run, diagnosis))

    def _is_new(self, finding: Finding, *names: str) -> bool:
        """Whether it was told under none of these names of its run; from now on it counts as told under the first."""
        with self._lock:
            known = max(self._told.get((name, finding.rule), -1) for name in names)
            if finding.severity.rank <= max(known, self._least.rank - 1):
                return False
            self._told[names[0], finding.rule] = finding.severity.rank
            return True

    def _put(self, job: Callable[[], None]) -> bool:
        """Hand a job to the thread; whether that was possible."""
        if self._closing.is_set() or self._pid != os.getpid():  # a process that was forked sends nothing twice
            return False
        try:
            self._waiting.put_nowait(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._send, name="fitdoctor-outbox", daemon=True)
                self._thread.start()
                atexit.register(self._at_exit)
        except queue.Full:
            self._fail(f"{MOST_WAITING} messages wait already; this one was dropped")
            return False
        except RuntimeError as error:  # no thread can be started while the interpreter ends
            self._thread = None
            self._fail(str(error))
            return False
        return True

    def _send(self) -> None:
        while (job := self._waiting.get()) is not None:
            self._attempt(job)

    def _attempt(self, job: Callable[[], None]) -> None:
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
