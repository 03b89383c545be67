"""Findings and reports: verdicts, counts, and reading JSON that something else has touched.

That any report survives JSON is tests/test_report_json.py.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from fitdoctor.errors import ReportFormatError
from fitdoctor.finding import Change, Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.report import Outcome, OutcomeStatus, Report, from_json, to_json
from fitdoctor.run import Note, Series, Span
from fitdoctor.signals import LOSS, Signal
from fitdoctor.triage import triage
from hypothesis import given
from hypothesis import strategies as st


def finding(severity: Severity = Severity.WARNING, rule: str = "plateau") -> Finding:
    series = Series(Signal(LOSS), np.arange(5), np.array([1.0, 2.0, np.nan, np.inf, 3.0]))
    remedy = Remedy("do it", "it helps", Change("learning_rate", "multiply", 0.1), {"pytorch": "x = 1"}, "never", "see")
    evidence = Evidence.of(series, "3", "1", marks=((2, "best"),))
    return Finding("loss is 3", severity, Confidence.LOW, Span(1, 4), (evidence,), (remedy,), ("data",), "probe", rule)


def outcome(status: OutcomeStatus, *findings: Finding, vital: bool = False) -> Outcome:
    return Outcome("LOS003", "plateau", status, findings, "why" if status == "skipped" else "", vital)


def report(*outcomes: Outcome) -> Report:
    findings = [f for o in outcomes for f in o.findings]
    return Report("run", "logs/run", "csv", Span(0, 4), outcomes, tuple(triage(findings, {}, Span(0, 4))))


# --- findings -------------------------------------------------------------------------------------


def test_severities_and_confidences_are_ordered() -> None:
    assert [s.rank for s in (Severity.NOTE, Severity.WARNING, Severity.ERROR)] == [0, 1, 2]
    assert [c.rank for c in (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)] == [0, 1, 2]


def test_evidence_of_a_series_can_be_drawn_without_it() -> None:
    series = Series(Signal(LOSS, "val"), np.arange(10, 5010), np.random.default_rng(0).standard_normal(5000))
    seen = Evidence.of(series, "high")
    assert seen.signal == series.signal
    assert seen.span == Span(10, 5009)
    assert len(seen.points) <= 200
    assert max(v for _, v in seen.points) == series.values.max()


def test_a_remedy_keeps_its_own_copy_of_the_code() -> None:
    code = {"pytorch": "a"}
    remedy = Remedy("t", code=code)
    code["pytorch"] = "b"
    assert remedy.code == {"pytorch": "a"}


def test_a_finding_begins_where_its_span_does() -> None:
    assert finding().onset == 1


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", [Severity.WARNING, Severity.ERROR])
def test_a_warning_or_an_error_makes_a_run_sick_whatever_could_not_be_judged(severity: Severity) -> None:
    assert report(outcome("found", finding(severity)), outcome("skipped", vital=True)).verdict == "sick"
    assert report(outcome("found", finding(severity))).worst is severity


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ((), "cannot judge"),
        ((outcome("clean"),), "cannot judge"),
        ((outcome("clean", vital=True),), "healthy"),
        ((outcome("clean", vital=True), outcome("skipped")), "healthy"),
        ((outcome("clean", vital=True), outcome("skipped", vital=True)), "cannot judge"),
        ((outcome("clean", vital=True), outcome("crashed", vital=True)), "cannot judge"),
        ((outcome("found", finding(Severity.NOTE), vital=True),), "healthy"),
        ((outcome("found", finding(Severity.NOTE)),), "cannot judge"),
    ],
)
def test_healthy_means_that_all_vital_rules_looked(outcomes: tuple[Outcome, ...], verdict: str) -> None:
    assert report(*outcomes).verdict == verdict


def test_counts_say_what_became_of_every_rule() -> None:
    whole = report(
        outcome("found", finding(), finding(Severity.NOTE)), outcome("clean"), outcome("clean"), outcome("skipped")
    )
    assert whole.counts == {"findings": 2, "clean": 2, "skipped": 1, "crashed": 0}
    assert [f.severity for f in whole.findings] == [Severity.WARNING, Severity.NOTE]
    assert report().worst is None


# --- JSON -----------------------------------------------------------------------------------------

NOTE = Note("corrupt", "12 bytes left", step=3, amount=12.0)
WHOLE = report(outcome("found", finding(), finding(Severity.NOTE)), outcome("skipped", vital=True))
DOCUMENT = json.loads(to_json([WHOLE]))


def test_the_document_is_the_one_that_the_design_promises() -> None:
    (seen,) = DOCUMENT["reports"]
    assert DOCUMENT["format_version"] == 1
    assert (seen["verdict"], seen["steps"]) == ("sick", [0, 4])
    assert seen["diagnoses"][0]["root"] == "plateau"
    assert seen["diagnoses"][0]["settle_with"] == "probe"
    found, skipped = seen["outcomes"]
    assert (found["code"], found["rule"], found["status"]) == ("LOS003", "plateau", "found")
    assert (skipped["status"], skipped["why"]) == ("skipped", "why")
    first = found["findings"][0]
    assert (first["severity"], first["confidence"], first["steps"]) == ("warning", "low", [1, 4])
    remedy = first["remedies"][0]
    assert remedy["change"] == {"knob": "learning_rate", "op": "multiply", "value": 0.1}
    assert set(remedy) == {"title", "why", "unless", "confirm", "change", "code", "kind"}


def test_not_a_number_is_no_reason_to_write_what_is_not_json() -> None:
    text = to_json([WHOLE])
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("amount", [float("inf"), float("nan"), 3.5, None])
def test_the_amount_of_a_note_stays_a_number(amount: float | None) -> None:
    (again,) = from_json(to_json([Report("r", "", "", None, (), (), notes=(Note("other", "t", amount=amount),))]))
    assert repr(again.notes[0].amount) == repr(amount)


def test_a_quantity_of_a_later_version_is_kept_by_name() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["reports"][0]["outcomes"][0]["findings"][0]["evidence"][0]["signal"]["quantity"] = "entropy_of_tomorrow"
    (again,) = from_json(json.dumps(document))
    assert again.findings[0].evidence[0].signal.quantity.name == "entropy_of_tomorrow"


@pytest.mark.parametrize("version", [0, 2, 99, "1", None, 1.5])
def test_other_format_versions_are_refused_by_number(version: object) -> None:
    with pytest.raises(ReportFormatError, match="format_version"):
        from_json(json.dumps({**DOCUMENT, "format_version": version}))


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(ReportFormatError):
        from_json("[" * 200_000)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.text(max_size=40) | anything.map(json.dumps))
def test_reading_anything_raises_nothing_else(text: str) -> None:
    with pytest.raises(ReportFormatError):
        from_json(text)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON document."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *places(value[key]))]


@given(st.data())
def test_a_report_with_one_place_damaged_is_read_or_refused(data: st.DataObject) -> None:
    document = copy.deepcopy(DOCUMENT)
    container, key = data.draw(st.sampled_from(places(document)))
    if data.draw(st.booleans()):
        del container[key]
    else:
        container[key] = data.draw(anything)
    try:
        again = from_json(json.dumps(document))
    except ReportFormatError:
        return
    assert all(isinstance(r, Report) for r in again)
