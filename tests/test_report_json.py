"""Any report survives JSON."""

from __future__ import annotations

import math

import pytest
from fitdoctor.errors import ReportFormatError
from fitdoctor.finding import Change, Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.report import Diagnosis, Outcome, Report, from_json, to_json
from fitdoctor.run import Note, Span
from fitdoctor.signals import QUANTITIES, SPLITS, Signal
from hypothesis import given
from hypothesis import strategies as st

texts = st.text(max_size=20)
steps = st.integers(-(2**62), 2**62)
numbers = st.floats()
spans = st.builds(Span, steps, steps)
facts = st.dictionaries(
    texts, texts | steps | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(), max_size=3
)


def some(strategy: st.SearchStrategy, most: int = 3) -> st.SearchStrategy:
    return st.lists(strategy, max_size=most).map(tuple)


signals = st.builds(Signal, st.sampled_from(list(QUANTITIES.values())), st.sampled_from(SPLITS), texts)
evidences = st.builds(
    Evidence, signals, spans, texts, texts, some(st.tuples(steps, numbers), 5), some(st.tuples(steps, texts))
)
changes = st.builds(
    Change,
    texts,
    st.sampled_from(["set", "multiply", "add", "enable", "disable"]),
    st.none() | st.floats(allow_nan=False, allow_infinity=False) | steps | texts,
)
remedies = st.builds(Remedy, texts, texts, st.none() | changes, st.dictionaries(texts, texts, max_size=3), texts, texts)
findings = st.builds(
    Finding, texts, st.sampled_from(Severity), st.sampled_from(Confidence), spans,
    some(evidences), some(remedies), some(texts), texts, texts,
)  # fmt: skip
outcomes = st.builds(
    Outcome,
    texts,
    texts,
    st.sampled_from(["found", "clean", "skipped", "crashed"]),
    some(findings),
    texts,
    st.booleans(),
)
notes = st.builds(Note, texts, texts, st.none() | steps, st.none() | st.floats(allow_nan=False, allow_infinity=False))
reports = st.builds(
    Report, texts, texts, texts, st.none() | spans, some(outcomes),
    some(st.builds(Diagnosis, findings, some(findings), some(texts), texts)),
    facts, some(notes), some(evidences), some(texts), texts, st.dictionaries(texts, texts, max_size=3),
)  # fmt: skip


@given(st.lists(reports, max_size=2), st.sampled_from([None, 2]))
def test_a_report_reads_back_as_it_was(written: list[Report], indent: int | None):
    again = from_json(to_json(written, indent=indent))
    assert [repr(r) for r in again] == [repr(r) for r in written]  # repr: nan is not equal to nan


def test_numbers_that_are_not_finite_are_strings():
    seen = Evidence(Signal(QUANTITIES["loss"]), Span(0, 2), "", "", ((0, math.nan), (1, math.inf), (2, -math.inf)))
    text = to_json([Report("r", "", "", None, (), (), curves=(seen,))], indent=None)
    assert '"points": [[0, "NaN"], [1, "Infinity"], [2, "-Infinity"]]' in text


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"format_version": 1}', '{"format_version": 1, "reports": [{}]}']
)
def test_what_is_no_report_is_refused_by_name(text: str):
    with pytest.raises(ReportFormatError, match="expected JSON written by fitdoctor"):
        from_json(text)


def test_another_format_version_is_refused_with_advice():
    with pytest.raises(ReportFormatError, match="format_version 99, this fitdoctor reads 1; make the report again"):
        from_json('{"format_version": 99, "reports": []}')
