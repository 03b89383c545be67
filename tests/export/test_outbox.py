"""The outbox: once each, in order, never in the way, and honest about what did not arrive."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fitdoctor.export import outbox as module
from fitdoctor.export.outbox import Outbox
from fitdoctor.finding import Severity
from fitdoctor.report import Diagnosis, Report
from tests.export.receiver import Server, finding, report, until

ROOT = Path(__file__).parents[2]


class Place:
    """A destination that keeps what it gets; it waits while `open` is not set, and fails as told."""

    name = "a place"

    def __init__(self, *, fails: bool = False) -> None:
        self.got: list[tuple[str, str, str]] = []
        self.open = threading.Event()
        self.open.set()
        self.fails = fails
        self.threads: set[int] = set()
        self.explained: list[str] = []

    def tell(self, run: str, diagnosis: Diagnosis) -> None:
        finding = diagnosis.root
        self.threads.add(threading.get_ident())
        assert self.open.wait(30)
        if self.fails:
            raise OSError(f"no way\n\x1b[31m to send {finding.rule}")
        self.got.append((run, finding.rule, str(finding.severity)))
        self.explained += [f.rule for f in diagnosis.explains]

    def report(self, reports: Sequence[Report], new: Sequence[Diagnosis]) -> None:
        for one in new:
            self.tell("", one)
        self.got.append(("", "report", " ".join(r.run for r in reports)))


def test_each_finding_is_sent_once_and_again_when_it_gets_worse():
    place = Place()
    box = Outbox(place, run="a")
    for severity in (Severity.NOTE, Severity.WARNING, Severity.WARNING):
        box(finding("x", severity))
    until(lambda: len(place.got) == 1)
    box(finding("x", Severity.ERROR))
    until(lambda: len(place.got) == 2)
    box(finding("x", Severity.WARNING))
    box(finding("y", Severity.ERROR))
    assert box.close()
    assert place.got == [("a", "x", "warning"), ("a", "x", "error"), ("a", "y", "error")]


def test_of_one_fault_the_cause_is_sent_whatever_came_first():
    for order in (("lr-too-high", "nonfinite-loss"), ("nonfinite-loss", "lr-too-high")):
        place = Place()
        box = Outbox(place)
        for rule in order:
            box(finding(rule))
        assert box.close()
        assert place.got == [("", "lr-too-high", "error")]
        assert place.explained == ["nonfinite-loss"]


def test_a_cause_that_is_found_later_is_sent_then():
    place = Place()
    box = Outbox(place)
    box(finding("nonfinite-loss"))
    until(lambda: len(place.got) == 1)
    box(finding("lr-too-high"))
    box(finding("loss-divergence"))
    assert box.close()
    assert [rule for _, rule, _ in place.got] == ["nonfinite-loss", "lr-too-high"]


def test_of_reports_the_new_root_causes_are_sent():
    place = Place()
    box = Outbox(place)
    whole = report("a", finding("x"), finding("y"))
    explained = replace(whole, diagnoses=(Diagnosis(finding("x"), (finding("y"),)),))
    box.look(explained)
    box.look(explained)
    box.look(whole)  # y is a cause of its own by now
    box.look(replace(whole, run="b"))
    assert box.close()
    assert place.got == [("a", "x", "error"), ("a", "y", "error"), ("b", "x", "error"), ("b", "y", "error")]


def test_least_decides_from_which_severity():
    place = Place()
    box = Outbox(place, least=Severity.NOTE)
    box(finding("x", Severity.NOTE))
    errors = Place()
    only = Outbox(errors, least=Severity.ERROR)
    only(finding("x", Severity.WARNING))
    assert box.close()
    assert only.close()
    assert place.got == [("", "x", "note")]
    assert errors.got == []


@pytest.mark.parametrize("name", ["", "a", "another name of it"])
def test_the_report_brings_the_roots_that_were_not_told(name: str):
    place = Place()
    box = Outbox(place, run=name)
    box(finding("x"))
    assert box.close(report("a", finding("x"), finding("y"), finding("z", Severity.NOTE)))
    assert place.got == [(name, "x", "error"), ("", "y", "error"), ("", "report", name or "a")]


def test_handing_over_does_not_wait_for_the_destination():
    place = Place()
    place.open.clear()  # had a finding waited for it, this would stand still
    box = Outbox(place)
    for i in range(20):
        box(finding(f"rule-{i}"))
    assert place.got == []
    place.open.set()
    assert box.close()
    assert sorted(rule for _, rule, _ in place.got) == sorted(f"rule-{i}" for i in range(20))
    assert place.threads
    assert threading.get_ident() not in place.threads


def test_closing_waits_no_longer_than_told(caplog: pytest.LogCaptureFixture):
    place = Place()
    place.open.clear()
    box = Outbox(place)
    box(finding())
    assert not box.close(timeout=0.05)
    assert box.failures == ["not everything was sent within 0.05 s"]
    place.open.set()


def test_failures_are_kept_and_the_first_is_told(caplog: pytest.LogCaptureFixture):
    box = Outbox(Place(fails=True))
    with caplog.at_level(logging.WARNING, "fitdoctor"):
        for i in range(3):
            box(finding(f"rule-{i}"))
        assert not box.close()
    assert len(box.failures) == 3
    assert [r.getMessage() for r in caplog.records] == [
        "fitdoctor: a place: no way to send rule-0 (told once; the training goes on)"
    ]


def test_more_than_can_wait_is_dropped_and_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    place = Place()
    place.open.clear()
    box = Outbox(place)
    for i in range(12):
        box.look(report(f"run-{i}", finding()))
    place.open.set()
    assert not box.close()
    assert 5 <= len(place.got) <= 6
    assert box.failures[0] == "5 messages wait already; this one was dropped"
    assert len(place.got) + min(len(box.failures), 7) >= 11


def test_a_closed_outbox_takes_nothing_and_starts_nothing():
    place = Place()
    box = Outbox(place)
    assert box.close()
    box(finding())
    assert box.close(report())
    assert place.got == []


def test_an_outbox_without_work_has_no_thread():
    before = threading.active_count()
    box = Outbox(Place())
    box(finding(severity=Severity.NOTE))
    assert threading.active_count() == before
    assert box.close()


def test_a_program_that_ends_without_closing_sends_what_it_has(server: Server):
    script = (
        "import fitdoctor, sys\n"
        "from tests.export.receiver import finding\n"
        "box = fitdoctor.export.to_webhook(sys.argv[1], run='forgotten')\n"
        "box(finding())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, server.url], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [r["run"] for said in server.said for r in said["reports"]] == ["forgotten"]


def test_a_dead_server_does_not_hold_the_end_of_a_program(server: Server):
    server.answers = [None]
    script = (
        "import fitdoctor, sys\n"
        "from fitdoctor.export import outbox\n"
        "from tests.export.receiver import finding\n"
        "outbox.AT_EXIT = 0.1\n"
        "fitdoctor.export.to_webhook(sys.argv[1])(finding())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, server.url], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0
    assert "not everything was sent within 0.1 s" in done.stderr
