"""The webhook against a real server: what is sent, what is not, and what becomes of failures."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import fields, replace
from pathlib import Path

import fitdoctor
import jsonschema
import pytest
from fitdoctor.errors import ConfigError, ExportError
from fitdoctor.export import to_webhook, webhook
from fitdoctor.export.webhook import Webhook, findings_only
from fitdoctor.finding import Severity
from fitdoctor.report import Report, from_json
from hypothesis import given
from hypothesis import strategies as st
from referencing import Registry, Resource
from tests.export.receiver import Server, diagnosis, finding, report

DOCS = Path(__file__).parents[2] / "docs"


def check(said: object) -> None:
    """Raise for what does not follow the published schema."""
    report, webhook = (json.loads((DOCS / f"{name}.schema.json").read_text("utf-8")) for name in ("report", "webhook"))
    known = Registry().with_resource("report.schema.json", Resource.from_contents(report))
    jsonschema.Draft202012Validator(webhook, registry=known).validate(said)


def refusal(url: str) -> str:
    """What is said of an address that cannot be used."""
    try:
        Webhook.of(url)
    except ConfigError as error:
        return str(error)
    return ""


def quick(server: Server, **options: object) -> Webhook:
    return replace(Webhook.of(server.url), pause=0.0, **options)


class TestWhatIsSent:
    def test_a_diagnosis_is_a_report_that_holds_it(self, server: Server):
        quick(server).tell("run-a", diagnosis("lr-too-high", "nonfinite-loss"))
        (said,) = server.said
        check(said)
        assert (said["event"], said["webhook_version"], said["format_version"]) == ("finding", 1, 1)
        assert said["text"].splitlines()[:2] == [
            "run-a: lr-too-high (error)",
            "loss rose from 1.2 to 9.4, since step 240",
        ]
        (read,) = from_json(server.got[0].decode())
        assert (read.run, read.verdict) == ("run-a", "sick")
        assert [f.rule for f in read.findings] == ["lr-too-high", "nonfinite-loss"]
        assert read.diagnoses[0].root.remedies == finding().remedies
        assert [f.rule for f in read.diagnoses[0].explains] == ["nonfinite-loss"]
        assert "It explains: nonfinite-loss" in said["text"]

    def test_whole_reports_go_together(self, server: Server):
        quick(server).report([report("a", finding()), report("b")])
        (said,) = server.said
        check(said)
        assert said["event"] == "report"
        assert said["text"].splitlines() == [
            "1 of 2 runs is sick",
            "a is sick (lr-too-high): loss rose from 1.2 to 9.4",
        ]
        assert [r["verdict"] for r in said["reports"]] == ["sick", "healthy"]

    def test_the_log_itself_stays_at_home(self, server: Server):
        quick(server).report([report("a", finding())])
        quick(server).tell("a", diagnosis())
        for body in server.got:
            assert b"SECRET-OF-THE-LOG" not in body
            assert b"1.20123" not in body, "points of the evidence are curves"
        (kept,) = from_json(server.got[0].decode())
        assert kept.findings[0].evidence[0].observed == "9.4 at step 900"

    def test_all_of_it_goes_when_asked_for(self, server: Server):
        quick(server, send="all").report([report("a", finding())])
        assert from_json(server.got[0].decode()) == [report("a", finding())]

    def test_what_a_report_may_come_to_hold_is_not_sent_unasked(self):
        sent = {"run", "path", "source", "steps", "outcomes", "diagnoses", "fitdoctor", "ignored", "finished"}
        bare = findings_only(report("a", finding()))
        empty = Report("", "", "", None, (), ())
        for field in fields(Report):
            if field.name not in sent:
                assert getattr(bare, field.name) == getattr(empty, field.name), field.name
        assert bare.path == ""

    def test_many_reports_are_sent_in_parts(self, server: Server, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(webhook, "MOST_BYTES", 5000)
        names = [f"run-{i}" for i in range(12)]
        quick(server).report([report(name, finding()) for name in names])
        assert 1 < len(server.got) < 12
        assert all(len(body) < 6000 for body in server.got)
        assert [r["run"] for said in server.said for r in said["reports"]] == names
        assert len({said["id"] for said in server.said}) == len(server.got)

    def test_the_schema_refuses_what_is_none(self, server: Server):
        quick(server).tell("a", diagnosis())
        (said,) = server.said
        for key in ("event", "id", "text", "reports", "format_version"):
            with pytest.raises(jsonschema.ValidationError):
                check({k: v for k, v in said.items() if k != key})

    def test_hostile_names_stay_text(self, server: Server):
        hostile = 'a"}, "reports": []} \x1b[31m\n\ud800'
        quick(server).report([report(hostile, finding(message="\x1b]0;x\x07 {}"))])
        (said,) = server.said
        check(said)
        assert len(said["reports"]) == 1
        assert "\x1b" not in said["text"]

    def test_the_header_comes_from_the_environment(self, server: Server, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("FITDOCTOR_WEBHOOK_HEADER", "Authorization: Bearer s3cret-token")
        monkeypatch.setenv("FITDOCTOR_WEBHOOK_URL", server.url)
        hook = Webhook.of()
        hook.tell("a", diagnosis())
        assert server.headers[0]["Authorization"] == "Bearer s3cret-token"
        assert server.headers[0]["Content-Type"] == "application/json"
        assert server.headers[0]["User-Agent"] == f"fitdoctor/{fitdoctor.__version__}"
        assert "s3cret" not in repr(hook)
        assert "hook" not in repr(hook).partition("(")[2]


class TestFailures:
    def test_what_may_pass_is_tried_again_with_the_same_id(self, server: Server):
        server.answers = [(503, {}, ""), (429, {}, ""), (200, {}, "")]
        quick(server).tell("a", diagnosis())
        assert len({said["id"] for said in server.said}) == 1
        assert len(server.got) == 3

    def test_attempts_end(self, server: Server):
        server.answers = [(500, {}, "down for repair\x1b[31m")]
        with pytest.raises(ExportError, match=r"expected .* got 500 .*down for repair.* after 3"):
            quick(server).tell("a", diagnosis())
        assert len(server.got) == 3

    def test_what_will_not_pass_is_not_tried_again(self, server: Server):
        server.answers = [(403, {}, "")]
        with pytest.raises(ExportError, match=r"got 403 Forbidden$"):
            quick(server).tell("a", diagnosis())
        assert len(server.got) == 1

    def test_a_redirect_is_not_followed(self, server: Server):
        server.answers = [(307, {"Location": "/elsewhere"}, ""), (200, {}, "")]
        with pytest.raises(ExportError, match=r"307 .*redirect, which is not followed"):
            quick(server).tell("a", diagnosis())
        assert server.paths == ["/hook"]

    def test_a_server_that_says_nothing_is_left(self, server: Server):
        server.answers = [None]
        with pytest.raises(ExportError, match=r"got none within 0\.1 s after 2 attempts"):
            quick(server, timeout=0.1, attempts=2).tell("a", diagnosis())

    def test_a_server_that_is_not_there(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(ExportError, match=r"got none .*refused.* after 3 attempts"):
            replace(Webhook.of(f"http://127.0.0.1:{port}/x"), pause=0.0).tell("a", diagnosis())

    def test_a_server_that_speaks_no_http(self):
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def answer() -> None:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(b"\x00\xff nonsense\r\n\r\n")

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(ExportError, match="got none"):
                replace(Webhook.of(f"http://127.0.0.1:{listening.getsockname()[1]}"), attempts=1).tell("a", diagnosis())
            thread.join()

    def test_a_server_that_drips_is_left(self):
        over = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def drip() -> None:
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(1 << 16)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                    while not over.wait(0.02):
                        connection.sendall(b"x")

            thread = threading.Thread(target=drip)
            thread.start()
            hook = Webhook(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=0.5, attempts=1)
            with pytest.raises(ExportError, match=r"got no whole answer within 1\.5 s"):
                hook.tell("a", diagnosis())
            over.set()
            thread.join()

    def test_how_long_to_wait_is_heard_within_reason(self, server: Server, monkeypatch: pytest.MonkeyPatch):
        waits: list[float] = []
        monkeypatch.setattr(webhook.time, "sleep", waits.append)
        server.answers = [(429, {"Retry-After": "7"}, ""), (429, {"Retry-After": "99999"}, ""), (200, {}, "")]
        Webhook.of(server.url).tell("a", diagnosis())
        server.answers = [(503, {"Retry-After": "soon"}, ""), (503, {}, ""), (200, {}, "")]
        Webhook.of(server.url).tell("a", diagnosis())
        assert waits == [7.0, 30.0, 1.0, 4.0]

    def test_secrets_that_a_server_repeats_are_not_told(self, server: Server, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("FITDOCTOR_WEBHOOK_HEADER", "X-Key: s3cret-token")
        server.answers = [(401, {}, "bad key s3cret-token for /services/T0P-S3CRET")]
        with pytest.raises(ExportError) as caught:
            Webhook.of(server.url + "/services/T0P-S3CRET?key=abcdefgh").tell("a", diagnosis())
        for secret in ("s3cret", "T0P", "abcdefgh"):
            assert secret not in str(caught.value)


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        ["https://example.org/x", "http://localhost:80", "http://127.0.0.1", "http://[::1]:8/x", "HTTPS://example.org"],
    )
    def test_good(self, url: str):
        assert Webhook.of(url).url == url

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("", "got none"),
            ("ftp://example.org", "'ftp'"),
            ("file:///etc/passwd", "'file'"),
            ("https://", "None as host"),
            ("example.org/hook", "''|no scheme"),
            ("http://example.org", "expected https, got http"),
            ("http://127.0.0.1.example.org", "expected https, got http"),
            ("http://localhost.example.org", "expected https, got http"),
            ("https://user:pass@example.org", "a password in it"),
            ("https://example.org/a b", "characters that no address holds"),
            ("https://example.org/\r\nX: y", "characters that no address holds"),
            ("https://ex\u00e4mple.org", "characters that no address holds"),
            ("https://[::1", "cannot be understood"),
            ("https://example.org:99999", "cannot be understood"),
        ],
    )
    def test_bad(self, url: str, why: str):
        with pytest.raises(ConfigError, match=why):
            Webhook.of(url)

    def test_plain_http_is_sent_when_told_to(self):
        assert Webhook.of("http://10.0.0.7/x", allow_http=True).name == "webhook 10.0.0.7"

    @given(st.text(max_size=60))
    def test_any_text_is_an_address_or_an_error_without_it(self, text: str):
        said = refusal(text)
        secret = text.partition("//")[2].partition("/")[2]
        assert len(secret) < 8 or secret not in said

    @pytest.mark.parametrize(
        "header",
        ["Authorization", "X-Key: a\nY: b", "Host: evil", "content-length: 3", ": x", "X Y: z", "X:", "X: \u00e4"],
    )
    def test_headers_that_are_none(self, monkeypatch: pytest.MonkeyPatch, header: str):
        monkeypatch.setenv("FITDOCTOR_WEBHOOK_HEADER", header)
        with pytest.raises(ConfigError, match="FITDOCTOR_WEBHOOK_HEADER: expected one header"):
            Webhook.of("https://example.org")

    @pytest.mark.parametrize("options", [{"send": "everything"}, {"timeout": 0}, {"timeout": float("nan")}])
    def test_options_are_checked(self, options: dict[str, object]):
        with pytest.raises(ConfigError, match="expected"):
            to_webhook("https://example.org", **options)

    def test_least_is_checked(self):
        with pytest.raises(ConfigError, match="least: expected 'error', 'warning' or 'note', got 'bad'"):
            to_webhook("https://example.org", least="bad")
        assert to_webhook("https://example.org", least=Severity.NOTE)
