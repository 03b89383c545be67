"""What a diagnosis says: a `Report` on one run, and its JSON form."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fitdoctor.errors import ReportFormatError
from fitdoctor.finding import Change, Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.layer_maps import LayerMap
from fitdoctor.run import Fact, Note, Span
from fitdoctor.signals import LOSS, QUANTITIES, Quantity, Signal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT_VERSION = 1
"""Version of the JSON form. 1: first form (0.1.0)."""

OutcomeStatus = Literal["found", "clean", "skipped", "crashed"]
Verdict = Literal["sick", "healthy", "cannot judge"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one rule on one run.

    Attributes:
        code: code of the rule.
        rule: name of the rule.
        status: "found", "clean", "skipped" (could not judge) or "crashed" (a bug of ours).
        findings: what it found.
        why: why it was skipped, or the error it crashed with.
        vital: whether a healthy verdict needs this rule.
    """

    code: str
    rule: str
    status: OutcomeStatus
    findings: tuple[Finding, ...] = ()
    why: str = ""
    vital: bool = False


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One root cause and what it accounts for.

    Attributes:
        root: the finding that explains the others.
        explains: findings that the root accounts for, in order of onset.
        could_be: causes that the log cannot tell apart from the root.
        settle_with: the probe or extra log that would settle the doubt, or "".
    """

    root: Finding
    explains: tuple[Finding, ...] = ()
    could_be: tuple[str, ...] = ()
    settle_with: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything fitdoctor has to say about one run.

    Attributes:
        run: name of the run.
        path: where it was read from, "" for a live run.
        source: format of the log.
        steps: first and last step, or None for an empty run.
        outcomes: what became of every rule, in the order of their codes.
        diagnoses: root causes, the most important first; notes come last.
        facts: what is known beside the curves, the recognised schedule included.
        notes: what the reader said about the log.
        curves: the main curves of the run, thinned for drawing.
        unmapped: tags that could not be mapped to a signal.
        fitdoctor: version that made the report.
        ignored: rules that the user switched off, with the reason given.
        layers: what was logged per layer, for drawing; filled where `diagnose` was asked for it.
    """

    run: str
    path: str
    source: str
    steps: Span | None
    outcomes: tuple[Outcome, ...]
    diagnoses: tuple[Diagnosis, ...]
    facts: Mapping[str, Fact] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    curves: tuple[Evidence, ...] = ()
    unmapped: tuple[str, ...] = ()
    fitdoctor: str = ""
    ignored: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[LayerMap, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", dict(self.facts))
        object.__setattr__(self, "ignored", dict(self.ignored))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, in the order of the rules."""
        return tuple(f for o in self.outcomes for f in o.findings)

    @property
    def worst(self) -> Severity | None:
        """The worst severity found, or None."""
        return max((f.severity for f in self.findings), key=lambda s: s.rank, default=None)

    @property
    def verdict(self) -> Verdict:
        """ "sick" with a warning or an error; "healthy" with neither, if all vital rules could judge."""
        if self.worst in (Severity.ERROR, Severity.WARNING):
            return "sick"
        blind = any(o.vital and o.status in ("skipped", "crashed") for o in self.outcomes)
        judged = any(o.vital for o in self.outcomes) and not blind
        return "healthy" if judged else "cannot judge"

    @property
    def counts(self) -> Mapping[str, int]:
        """How many findings, clean, skipped and crashed rules there are."""
        status = Counter(o.status for o in self.outcomes)
        return {
            "findings": len(self.findings),
            "clean": status["clean"],
            "skipped": status["skipped"],
            "crashed": status["crashed"],
        }

    def plot(self) -> Figure:
        """The main curves below each other, what the root cause marks in them, as a matplotlib figure (extra ``plot``).

        Raises:
            ImportError: if matplotlib is not installed.
        """
        from fitdoctor.figures import Panel, draw

        names = dict.fromkeys(c.signal.quantity.name for c in self.curves if c.points)
        marks = [mark for e in (self.diagnoses[0].root.evidence if self.diagnoses else ()) for mark in e.marks]
        panels = [
            Panel(name, [(str(c.signal), c.points) for c in self.curves if c.signal.quantity.name == name], marks)
            for name in names
        ]
        return draw(panels, title=self._headline, unit=str(self.facts.get("step_unit", "step")))

    @property
    def _headline(self) -> str:
        root = f": {self.diagnoses[0].root.rule}" if self.diagnoses and self.verdict == "sick" else ""
        return f"{self.run}: {self.verdict}{root}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the losses, and each diagnosis with its best remedy."""
        from fitdoctor import display

        told = []
        for d in self.diagnoses:
            remedy = f"<br>&rarr; {display.text(d.root.remedies[0].title)}" if d.root.remedies else ""
            standing = f"{display.badge(d.root.severity)}, {d.root.confidence} confidence, from step {d.root.onset:,}"
            told.append(f"<b>{display.text(d.root.rule)}</b> ({standing}): {display.text(d.root.message)}{remedy}")
        losses = [(str(c.signal), c.points) for c in self.curves if c.signal.quantity == LOSS]
        marks = [mark for e in (self.diagnoses[0].root.evidence[:1] if self.diagnoses else ()) for mark in e.marks]
        counts = ", ".join(f"{n} {kind}" for kind, n in self.counts.items())
        return display.card(
            f"<b>{display.text(self.run)}</b>: {display.badge(self.verdict)}",
            [display.listed(told), display.chart(losses, marks), display.small(counts)],
            colour=display.STATES[self.verdict],
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain Python data; the inverse of `from_dict`."""
        return _report_to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """A report from plain Python data, as `to_dict` makes it."""
        return _report_from_dict(data)


# --- JSON -------------------------------------------------------------------------------------


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
        text = _encoded(report.to_dict(), indent)
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
        return [Report.from_dict(r) for r in document["reports"]]
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


def _report_to_dict(report: Report) -> dict[str, Any]:
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


def _report_from_dict(data: Mapping[str, Any]) -> Report:
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
    )
