"""A server that takes POSTs and answers as it is told to, and what to send to it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fitdoctor.finding import Change, Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.report import Diagnosis, Outcome, Report
from fitdoctor.run import Note, Span
from fitdoctor.signals import LOSS, Signal


class Server(ThreadingHTTPServer):
    """Answers each POST with the next of `answers`, the last of them for ever; None never answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, dict[str, str], str] | None] = [(200, {}, "ok")]
        self.got: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"

    @property
    def said(self) -> list[Any]:
        return [json.loads(body) for body in self.got]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        own = self.server
        own.got.append(self.rfile.read(int(self.headers["Content-Length"])))
        own.headers.append(dict(self.headers))
        own.paths.append(self.path)
        answer = own.answers.pop(0) if len(own.answers) > 1 else own.answers[0]
        if answer is None:
            own.release.wait(30)
            return
        status, headers, text = answer
        self.send_response(status)
        for key, value in {"Content-Length": str(len(text)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


def finding(
    rule: str = "lr-too-high", severity: Severity = Severity.ERROR, message: str = "loss rose from 1.2 to 9.4"
) -> Finding:
    """A finding with all its parts."""
    points = tuple((i, 1.2 + 0.00123 * i) for i in range(50))
    evidence = Evidence(Signal(LOSS), Span(240, 900), "9.4 at step 900", "below 1.2", points, ((240, "onset"),))
    remedy = Remedy("lower the learning rate", change=Change("learning_rate", "multiply", 0.1))
    return Finding(message, severity, Confidence.HIGH, Span(240, 900), (evidence,), (remedy,), rule=rule)


def diagnosis(rule: str = "lr-too-high", *explains: str) -> Diagnosis:
    """A root cause and what it accounts for."""
    return Diagnosis(finding(rule), tuple(finding(name) for name in explains))


def report(name: str = "run-a", *found: Finding) -> Report:
    """A report on a run with those findings, each a root, and with all that a log may tell."""
    secret = "SECRET-OF-THE-LOG"
    outcomes = [Outcome("LRN001", f.rule, "found", (f,)) for f in found]
    outcomes += [Outcome("LOS001", "vital", "clean", vital=True), Outcome("XXX001", "broken", "crashed", why=secret)]
    return Report(
        name,
        f"/home/{secret}",
        "csv",
        Span(0, 900),
        tuple(outcomes),
        tuple(Diagnosis(f) for f in found),
        facts={"optimizer": secret},
        notes=(Note("other", secret),),
        curves=(Evidence(Signal(LOSS), Span(0, 900), secret, points=((0, 1.0), (900, 9.4))),),
        unmapped=(secret,),
        params={"data": secret},
        fitdoctor="0.1.0",
    )


def until(true: Callable[[], object]) -> None:
    """Wait for what another thread does; the end is far, for machines that are busy."""
    end = time.monotonic() + 120
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    assert true()
