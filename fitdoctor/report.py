"""What a diagnosis says: a `Report` on one run. Its JSON form is in `fitdoctor.report_json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fitdoctor.finding import Evidence, Finding, Severity
from fitdoctor.layer_maps import LayerMap
from fitdoctor.report_json import FORMAT_VERSION, from_json, json_pieces, report_from_dict, report_to_dict, to_json
from fitdoctor.run import Fact, Note, Span
from fitdoctor.signals import LOSS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        params: the configuration of the run under the names that the log uses.
        finished: True or False when the log says so, None when it does not.
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
    params: Mapping[str, Fact] = field(default_factory=dict)
    finished: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", dict(self.facts))
        object.__setattr__(self, "params", dict(self.params))
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
        return report_to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """A report from plain Python data, as `to_dict` makes it."""
        return report_from_dict(data)


__all__ = [
    "FORMAT_VERSION",
    "Diagnosis",
    "Outcome",
    "OutcomeStatus",
    "Report",
    "Verdict",
    "from_json",
    "json_pieces",
    "to_json",
]
