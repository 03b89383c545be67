"""The JSON form of a `Report`, both ways: strict JSON, lossless, with a version.

`fitdoctor.report` offers the names of this module that others use.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fitdoctor.errors import ReportFormatError
from fitdoctor.finding import Change, Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.layer_maps import LayerMap
from fitdoctor.run import Note, Span
from fitdoctor.signals import QUANTITIES, Quantity, Signal

if TYPE_CHECKING:
    from fitdoctor.report import Report

FORMAT_VERSION = 1
"""Version of the JSON form. 1: first form (0.1.0)."""


def to_json(reports: Iterable[Report], *, fitdoctor: str = "", indent: int | None = 2) -> str:
    """The reports as strict JSON. Non-finite numbers are written as "NaN", "Infinity", "-Infinity"."""
    return "".join(json_pieces(reports, fitdoctor=fitdoctor, indent=indent))


def json_pieces(reports: Iterable[Report], *, fitdoctor: str = "", indent: int | None = 2) -> Iterator[str]:
    """The JSON of `to_json` piece by piece, one per report, so that many need not be held at once."""
    line, margin = ("", "") if indent is None else ("\n", " " * indent)
    yield f'{{{line}{margin}"format_version": {FORMAT_VERSION},{line or " "}'
    yield f'{margin}"fitdoctor": {_encoded(fitdoctor, indent)},{line or " "}{margin}"reports": ['
    empty = True
    for report in reports:
        text = _encoded(report_to_dict(report), indent)
        # Newlines inside strings are escaped, so every newline of the text is one of its layout.
        yield (
            ("" if empty else ", " if indent is None else ",")
            + line
            + margin * 2
            + text.replace("\n", line + margin * 2)
        )
        empty = False
    yield f"{'' if empty else line + margin}]{line}}}{line}"


_PAIR = re.compile(r"\[\n *([^\n\[\]{}]+),\n *([^\n\[\]{}]+)\n *\]")
"""A list of two plain values as json lays it out. Strings hold no newline that is not escaped."""


def _encoded(data: Any, indent: int | None) -> str:
    text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)
    text = _PAIR.sub(r"[\1, \2]", text)  # a point on one line, not on four
    # Half a surrogate pair (a file name that is not UTF-8) cannot be written as UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


def from_json(text: str) -> list[Report]:
    """Reports from JSON made by `to_json`.

    Raises:
        ReportFormatError: if the text is no such JSON or of a newer format.
    """
    try:
        document = json.loads(text)
        version = document["format_version"]
        if version != FORMAT_VERSION:
            raise ReportFormatError(
                f"report has format_version {version!r}, this fitdoctor reads {FORMAT_VERSION}; "
                "make the report again, or install the version that wrote it"
            )
        return [report_from_dict(r) for r in document["reports"]]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ReportFormatError(
            "expected JSON written by fitdoctor (format_version, fitdoctor, reports), "
            f"got {type(error).__name__}: {error}"
        ) from error


def _number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _span(span: Span | None) -> list[int] | None:
    return None if span is None else [span.first, span.last]


def _evidence_to_dict(e: Evidence) -> dict[str, Any]:
    return {
        "signal": {"quantity": e.signal.quantity.name, "split": e.signal.split, "layer": e.signal.layer},
        "steps": _span(e.span),
        "observed": e.observed,
        "expected": e.expected,
        "points": [[step, _number(value)] for step, value in e.points],
        "marks": [[step, label] for step, label in e.marks],
    }


def _remedy_to_dict(r: Remedy) -> dict[str, Any]:
    change = None if r.change is None else {"knob": r.change.knob, "op": r.change.op, "value": _number(r.change.value)}
    return {
        "title": r.title,
        "why": r.why,
        "unless": r.unless,
        "confirm": r.confirm,
        "change": change,
        "code": dict(r.code),
        "kind": r.kind,
    }


def _finding_to_dict(f: Finding) -> dict[str, Any]:
    return {
        "rule": f.rule,
        "message": f.message,
        "severity": f.severity.value,
        "confidence": f.confidence.value,
        "steps": _span(f.span),
        "evidence": [_evidence_to_dict(e) for e in f.evidence],
        "remedies": [_remedy_to_dict(r) for r in f.remedies],
        "could_be": list(f.could_be),
        "settle_with": f.settle_with or None,
        "ruled_out": list(f.ruled_out),
    }


def _layer_map_to_dict(m: LayerMap) -> dict[str, Any]:
    return {
        "quantity": m.quantity.name,
        "layers": list(m.layers),
        "spans": [_span(s) for s in m.spans],
        "values": [[_number(v) for v in row] for row in m.values],
    }


def report_to_dict(report: Report) -> dict[str, Any]:
    """A report as plain Python data that JSON can hold."""
    return {
        "run": report.run,
        "path": report.path,
        "source": report.source,
        "steps": _span(report.steps),
        "verdict": report.verdict,
        "diagnoses": [
            {
                "root": d.root.rule,
                "finding": _finding_to_dict(d.root),
                "explains": [f.rule for f in d.explains],
                "explained": [_finding_to_dict(f) for f in d.explains],
                "confidence": d.root.confidence.value,
                "severity": d.root.severity.value,
                "could_be": list(d.could_be),
                "settle_with": d.settle_with or None,
            }
            for d in report.diagnoses
        ],
        "outcomes": [
            {
                "code": o.code,
                "rule": o.rule,
                "status": o.status,
                "why": o.why,
                "vital": o.vital,
                "findings": [_finding_to_dict(f) for f in o.findings],
            }
            for o in report.outcomes
        ],
        "facts": {key: _number(value) for key, value in report.facts.items()},
        "notes": [{"kind": n.kind, "text": n.text, "step": n.step, "amount": _number(n.amount)} for n in report.notes],
        "curves": [_evidence_to_dict(c) for c in report.curves],
        "unmapped": list(report.unmapped),
        "ignored": dict(report.ignored),
        "layers": [_layer_map_to_dict(m) for m in report.layers],
        "params": {key: _number(value) for key, value in report.params.items()},
        "finished": report.finished,
        "fitdoctor": report.fitdoctor,
    }


def _float(value: Any) -> float:
    return float(value)  # float() reads "NaN", "Infinity" and "-Infinity" too


def _amount(value: Any) -> Any:
    return _float(value) if isinstance(value, str) else value


def _span_from(value: Any) -> Span:
    return Span(int(value[0]), int(value[1]))


def _quantity_from(name: str) -> Quantity:
    return QUANTITIES.get(name) or Quantity(name, "", "unknown to this version")


def _signal_from(data: Mapping[str, Any]) -> Signal:
    return Signal(_quantity_from(data["quantity"]), data["split"], data["layer"])


def _layer_map_from(data: Mapping[str, Any]) -> LayerMap:
    return LayerMap(
        _quantity_from(data["quantity"]),
        tuple(str(layer) for layer in data["layers"]),
        tuple(_span_from(s) for s in data["spans"]),
        tuple(tuple(None if v is None else _float(v) for v in row) for row in data["values"]),
    )


def _evidence_from(data: Mapping[str, Any]) -> Evidence:
    return Evidence(
        _signal_from(data["signal"]),
        _span_from(data["steps"]),
        data["observed"],
        data["expected"],
        tuple((int(s), _float(v)) for s, v in data["points"]),
        tuple((int(s), str(label)) for s, label in data["marks"]),
    )


def _remedy_from(data: Mapping[str, Any]) -> Remedy:
    change = data["change"] and Change(data["change"]["knob"], data["change"]["op"], data["change"]["value"])
    return Remedy(
        data["title"], data["why"], change, data["code"], data["unless"], data["confirm"], data.get("kind", "")
    )


def _finding_from(data: Mapping[str, Any]) -> Finding:
    return Finding(
        data["message"],
        Severity(data["severity"]),
        Confidence(data["confidence"]),
        _span_from(data["steps"]),
        tuple(_evidence_from(e) for e in data["evidence"]),
        tuple(_remedy_from(r) for r in data["remedies"]),
        tuple(data["could_be"]),
        data["settle_with"] or "",
        data["rule"],
        tuple(data.get("ruled_out", ())),
    )


def report_from_dict(data: Mapping[str, Any]) -> Report:
    """A report from plain Python data; the inverse of `report_to_dict`."""
    from fitdoctor.report import Diagnosis, Outcome, Report  # which offers the names of this module

    return Report(
        run=data["run"],
        path=data["path"],
        source=data["source"],
        steps=None if data["steps"] is None else _span_from(data["steps"]),
        outcomes=tuple(
            Outcome(
                o["code"],
                o["rule"],
                o["status"],
                tuple(_finding_from(f) for f in o["findings"]),
                o["why"],
                o["vital"],
            )
            for o in data["outcomes"]
        ),
        diagnoses=tuple(
            Diagnosis(
                _finding_from(d["finding"]),
                tuple(_finding_from(f) for f in d["explained"]),
                tuple(d["could_be"]),
                d["settle_with"] or "",
            )
            for d in data["diagnoses"]
        ),
        facts=data["facts"],
        notes=tuple(Note(n["kind"], n["text"], n["step"], _amount(n["amount"])) for n in data["notes"]),
        curves=tuple(_evidence_from(c) for c in data["curves"]),
        unmapped=tuple(data["unmapped"]),
        fitdoctor=data["fitdoctor"],
        ignored=data["ignored"],
        layers=tuple(_layer_map_from(m) for m in data.get("layers", ())),
        params=data.get("params", {}),
        finished=data.get("finished"),
    )
