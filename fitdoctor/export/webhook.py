"""A POST of JSON: the form of `fitdoctor analyze --format json` behind a short header.

    {"event": "finding", "webhook_version": 1, "id": "...", "sent_at": "...", "text": "...",
     "format_version": 1, "fitdoctor": "0.1.0", "reports": [...]}

An address may hold a secret (those of messengers do), so messages name its host only.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import urlsplit

import fitdoctor
from fitdoctor.errors import ConfigError, ExportError
from fitdoctor.export import alert
from fitdoctor.finding import Evidence, Finding
from fitdoctor.report import Diagnosis, Outcome, Report, to_json
from fitdoctor.reporters.harmless import one_line

if TYPE_CHECKING:
    from urllib.error import HTTPError

VERSION = 1
"""Version of the header. 1: first form (0.1.0)."""
URL_VARIABLE = "FITDOCTOR_WEBHOOK_URL"
HEADER_VARIABLE = "FITDOCTOR_WEBHOOK_HEADER"
MOST_BYTES = 1 << 20
"""A POST of several reports ends before this size; one report alone may be larger."""
WHOLE_ATTEMPT = 3
"""An attempt ends after so many times the timeout, whatever the server does; also name servers are waited for."""
LONGEST_WAIT = 30.0
"""Seconds that a server may ask us to wait before the next attempt."""

Content = Literal["findings", "all"]
Event = Literal["finding", "report"]

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that may be over at the next attempt."""
_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\x21-\x7e][\x20-\x7e]*)")
_OURS = frozenset({"content-type", "content-length", "host", "transfer-encoding", "connection"})


@dataclass(frozen=True, slots=True)
class Webhook:
    """A server that takes findings as JSON.

    Attributes:
        url: where to POST.
        send: "findings", or "all" for curves, settings and notes of the log, too.
        headers: sent with each POST; may hold a secret.
        timeout: seconds that each attempt may wait for the server.
        attempts: how often a POST is tried.
        pause: seconds before the second attempt; four times that before the third.
    """

    url: str = field(repr=False)
    send: Content = "findings"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    attempts: int = 3
    pause: float = 1.0

    @classmethod
    def of(
        cls, url: str | None = None, *, send: Content = "findings", allow_http: bool = False, timeout: float = 10.0
    ) -> Webhook:
        """The webhook of that address, its header taken from the environment.

        Raises:
            ConfigError: if the address or the header cannot be used.
        """
        url = url or os.environ.get(URL_VARIABLE, "")
        if send not in get_args(Content):
            raise ConfigError(f"send: expected 'findings' or 'all', got {send!r}")
        if not timeout > 0:
            raise ConfigError(f"timeout: expected a number of seconds above 0, got {timeout!r}")
        _check(url, allow_http)
        return cls(url, send, _header(os.environ.get(HEADER_VARIABLE, "")), timeout)

    @property
    def name(self) -> str:
        """Host of the server."""
        return f"webhook {urlsplit(self.url).hostname}"

    def tell(self, run: str, diagnosis: Diagnosis) -> None:
        """POST one diagnosis.

        Raises:
            ExportError: if it was not taken.
        """
        text = f"{run or 'this run'}: {alert.title(diagnosis.root)}\n{alert.text(diagnosis)}"
        self._post("finding", text, [_told_by(run, diagnosis)])

    def report(self, reports: Sequence[Report], new: Sequence[Diagnosis] = ()) -> None:
        """POST whole reports, many in several POSTs.

        Raises:
            ExportError: if one was not taken; those after it are not sent.
        """
        for part in self._parts(reports):
            self._post("report", _summary(part), part)

    def body(self, event: Event, text: str, reports: Sequence[Report]) -> bytes:
        """What is sent: a header, then the JSON form of the reports."""
        told = reports if self.send == "all" else [findings_only(r) for r in reports]
        header = {
            "event": event,
            "webhook_version": VERSION,
            "id": uuid.uuid4().hex,
            "sent_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "text": text,
        }
        document = to_json(told, fitdoctor=fitdoctor.__version__, indent=None)
        return f"{json.dumps(header)[:-1]}, {document.lstrip()[1:]}".encode()

    def _parts(self, reports: Sequence[Report]) -> Iterator[list[Report]]:
        part: list[Report] = []
        size = 0
        for report in reports:
            told = report if self.send == "all" else findings_only(report)
            own = len(to_json([told], indent=None))
            if part and size + own > MOST_BYTES:
                yield part
                part, size = [], 0
            part.append(report)
            size += own
        if part:
            yield part

    def _post(self, event: Event, text: str, reports: Sequence[Report]) -> None:
        body = self.body(event, text, reports)
        pause = self.pause
        for left in reversed(range(self.attempts)):
            try:
                self._try_in_time(body)
            except _Failed as failed:
                if failed.final or not left:
                    tries = self.attempts - left
                    after = f" after {tries} attempts" if tries > 1 else ""
                    raise ExportError(f"expected an answer of status 2xx, got {failed}{after}") from None
                time.sleep(min(LONGEST_WAIT, max(pause, failed.wait)))
                pause *= 4
            else:
                return

    def _try_in_time(self, body: bytes) -> None:
        """One attempt. Sockets only know how long to wait for the next byte: a server may send one now and then."""
        outcome: list[Exception | None] = []

        def attempt() -> None:
            try:
                self._try(body)
            except Exception as error:
                outcome.append(error)
            else:
                outcome.append(None)

        thread = threading.Thread(target=attempt, name="fitdoctor-webhook", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends and starts no more threads
            attempt()
        else:
            thread.join(WHOLE_ATTEMPT * self.timeout)
        if not outcome:
            raise _Failed(f"no whole answer within {WHOLE_ATTEMPT * self.timeout:g} s")
        if outcome[0] is not None:
            raise outcome[0]

    def _try(self, body: bytes) -> None:
        import http.client
        from urllib import error, request

        class _NoRedirect(request.HTTPRedirectHandler):
            """A redirect would take the secret, and the findings, to where nobody has sent them."""

            def redirect_request(self, *_: object) -> None:
                return None

        local = _is_local(urlsplit(self.url).hostname or "")
        proxies = (request.ProxyHandler({}),) if local else ()  # a proxy is not for what stays on this machine
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"fitdoctor/{fitdoctor.__version__}",
            **self.headers,
        }
        asked = request.Request(self.url, data=body, headers=headers, method="POST")
        try:
            with request.build_opener(_NoRedirect, *proxies).open(asked, timeout=self.timeout) as answer:
                answer.read(1)
        except error.HTTPError as got:
            with got:
                said = self._without_secrets(_said(got))
                raise _Failed.by(got.code, got.reason, got.headers.get("Retry-After", ""), said) from None
        except TimeoutError:
            raise _Failed(f"none within {self.timeout:g} s") from None
        except (OSError, http.client.HTTPException) as got:
            reason = getattr(got, "reason", got)
            if isinstance(reason, TimeoutError):
                raise _Failed(f"none within {self.timeout:g} s") from None
            raise _Failed(f"none ({one_line(str(reason) or type(reason).__name__, 200)})") from None

    def _without_secrets(self, text: str) -> str:
        """Text of the server, which may repeat what it was sent."""
        parts = urlsplit(self.url)
        held = [w for value in self.headers.values() for w in value.split() if len(w) > 3]
        held += [w for w in re.split(r"[/?&=]", f"{parts.path}?{parts.query}") if len(w) > 7]
        for word in sorted(held, key=len, reverse=True):
            text = text.replace(word, "***")
        return text


class _Failed(Exception):
    """One attempt, and whether another makes sense."""

    def __init__(self, why: str, *, final: bool = False, wait: float = 0.0) -> None:
        super().__init__(why)
        self.final = final
        self.wait = wait

    @classmethod
    def by(cls, status: int, reason: str, retry_after: str, said: str) -> _Failed:
        """What an answer that is no success means."""
        hint = ", a redirect, which is not followed: give the final address" if 300 <= status < 400 else ""
        told = f" (it said {said!r})" if said else ""
        wait = float(retry_after) if retry_after.isdecimal() and len(retry_after) < 6 else 0.0
        return cls(f"{status} {one_line(reason, 80)}{hint}{told}", final=status not in _PASSING, wait=wait)


def findings_only(report: Report) -> Report:
    """The report without what stands in the log beside the findings: path, curves, settings, notes, tags, points."""

    def bare(finding: Finding) -> Finding:
        return replace(finding, evidence=tuple(_without_points(e) for e in finding.evidence))

    return Report(  # made anew, so that what reports come to hold is not sent unasked
        run=report.run,
        path="",
        source=report.source,
        steps=report.steps,
        fitdoctor=report.fitdoctor,
        ignored=report.ignored,
        finished=report.finished,
        outcomes=tuple(
            replace(o, findings=tuple(bare(f) for f in o.findings), why="" if o.status == "crashed" else o.why)
            for o in report.outcomes
        ),
        diagnoses=tuple(
            replace(d, root=bare(d.root), explains=tuple(bare(f) for f in d.explains)) for d in report.diagnoses
        ),
    )


def _without_points(evidence: Evidence) -> Evidence:
    return replace(evidence, points=())


def _told_by(run: str, diagnosis: Diagnosis) -> Report:
    """A report that holds one diagnosis, so that both events have one form."""
    from fitdoctor import catalogue

    codes = {entry.name: entry.code for entry in catalogue.entries()}
    outcomes = [Outcome(codes.get(f.rule, ""), f.rule, "found", (f,)) for f in (diagnosis.root, *diagnosis.explains)]
    return Report(run, "", "", diagnosis.root.span, tuple(outcomes), (diagnosis,), fitdoctor=fitdoctor.__version__)


def _summary(reports: Sequence[Report]) -> str:
    """The sick runs in words, at most ten of them."""
    sick = [r for r in reports if r.verdict == "sick"]
    if len(reports) == 1:
        return alert.headline(reports[0])
    lines = [f"{len(sick)} of {len(reports)} runs {'is' if len(sick) == 1 else 'are'} sick"]
    lines += [alert.headline(r) for r in sick[:10]]
    if len(sick) > 10:
        lines.append(f"and {len(sick) - 10} more")
    return "\n".join(lines)


def _check(url: str, allow_http: bool) -> None:
    """Raise ConfigError for an address that is none, or to which nothing should be sent."""
    wanted = f"webhook: expected an address such as https://example.org/hook (as a target, or in {URL_VARIABLE})"
    if not url:
        raise ConfigError(f"{wanted}, got none")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"{wanted}, got one with characters that no address holds; escape them as %XX")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{wanted}, got one that cannot be understood: {error}") from None
    if parts.scheme not in ("https", "http") or not host:
        raise ConfigError(
            f"{wanted}, got one that begins with {parts.scheme or 'no scheme'!r} and has {host!r} as host"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{wanted}, got one with a password in it; put it into {HEADER_VARIABLE} instead")
    if parts.scheme == "http" and not allow_http and not _is_local(host):
        raise ConfigError(
            f"webhook {host}: expected https, got http, which anybody on the way can read; "
            "--allow-http (allow_http=True) sends all the same"
        )


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _header(text: str) -> dict[str, str]:
    if not text:
        return {}
    match = _HEADER.fullmatch(text.strip())
    if match is None or match[1].lower() in _OURS:
        raise ConfigError(
            f"{HEADER_VARIABLE}: expected one header such as 'Authorization: Bearer ...', got something else "
            "(not shown, for it may be a secret)"
        )
    return {match[1]: match[2].rstrip()}


def _said(answer: HTTPError) -> str:
    """The beginning of what a server says with its refusal."""
    import http.client

    try:
        return one_line(answer.read(400).decode("utf-8", "replace"), 200)
    except (OSError, ValueError, http.client.HTTPException):
        return ""
