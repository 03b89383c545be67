"""What a rule says: a `Finding` with its evidence and its remedies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from fitdoctor.run import Series, Span, thin
from fitdoctor.signals import Signal

BY_HOOKS = "; fitdoctor.attach measures it"
"""How the reason ends of a rule without findings that no ordinary log can feed."""


class Severity(StrEnum):
    """How bad it is. Independent of how sure we are (`Confidence`)."""

    ERROR = "error"  # the outcome is measurably bad and the mechanism is measured
    WARNING = "warning"  # harm is likely, or its mechanism is not fully measured
    NOTE = "note"  # worth knowing; nothing has to be done

    @property
    def rank(self) -> int:
        """0 for note, 1 for warning, 2 for error."""
        return ("note", "warning", "error").index(self.value)


class Confidence(StrEnum):
    """How sure we are that the finding names what happened."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 for low, 1 for medium, 2 for high."""
        return ("low", "medium", "high").index(self.value)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A measured fact that a finding rests on, drawable without the log.

    Attributes:
        signal: what was measured.
        span: the steps it was measured over.
        observed: what was seen, in words with numbers: ``"2.31 at step 900"``.
        expected: what a sound run would have shown: ``"below 1.90, its best (step 400)"``.
        points: at most 200 (step, value) pairs of the signal.
        marks: (step, label) pairs worth marking in a plot, such as the onset.
    """

    signal: Signal
    span: Span
    observed: str
    expected: str = ""
    points: tuple[tuple[int, float], ...] = ()
    marks: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, series: Series, observed: str, expected: str = "", marks: tuple[tuple[int, str], ...] = ()) -> Evidence:
        """Evidence drawn from a series, thinned to what a plot can show."""
        return cls(series.signal, series.span, observed, expected, thin(series), marks)


Operation = Literal["set", "multiply", "add", "enable", "disable"]


@dataclass(frozen=True, slots=True)
class Change:
    """A remedy that a program can apply: the state that is wanted of one knob.

    `fitdoctor.knobs` defines every knob that the remedies of fitdoctor turn, with the operations and values that it
    takes and what they mean; docs/changes.md lists them.

    Attributes:
        knob: what to turn, a key of `fitdoctor.knobs.KNOBS`: ``learning_rate``, ``zero_grad``, ``loss_input`` ...
        op: "set", "multiply" what the run had, or "enable" and "disable" for a switch.
        value: the new value or factor; None for enable and disable.
    """

    knob: str
    op: Operation
    value: float | int | str | None = None


RemedyKind = Literal[
    "free", "bug", "data", "memory", "initialisation", "learning rate", "clipping", "regularisation", "capacity",
    "stopping", "",
]  # fmt: skip
"""What a remedy changes, in the order of evidence in which remedies are advised (`fitdoctor.prescribe`)."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing to do about a finding.

    Attributes:
        title: the action, in the imperative.
        why: why it should help here.
        change: the same in machine-readable form, where one exists.
        code: per framework ("pytorch", "lightning", "transformers"), lines ready to paste.
        unless: when not to do it.
        confirm: how to see that it worked.
        kind: what it changes, which decides its place among several; "" leaves that to the knob of `change`.
    """

    title: str
    why: str = ""
    change: Change | None = None
    code: Mapping[str, str] = field(default_factory=dict)
    unless: str = ""
    confirm: str = ""
    kind: RemedyKind = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", dict(self.code))


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found in a run.

    Attributes:
        message: a fact with a number and its unit; lower case, no full stop, at most 100 characters.
        severity: how bad it is.
        confidence: how sure we are.
        span: from the onset to the last step it was seen.
        evidence: the measurements it rests on, the most telling first.
        remedies: what to do, the best first.
        could_be: causes (rule names or plain words) that the log cannot tell apart from this one.
        settle_with: the probe or extra log that would settle the doubt, with its cost.
        rule: name of the rule; filled in by `fitdoctor.diagnose`.
        ruled_out: remedies that would stand here but for something measured in this run, each with that reason;
            filled in by `fitdoctor.prescribe`.
    """

    message: str
    severity: Severity
    confidence: Confidence
    span: Span
    evidence: tuple[Evidence, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    could_be: tuple[str, ...] = ()
    settle_with: str = ""
    rule: str = ""
    ruled_out: tuple[str, ...] = ()

    @property
    def onset(self) -> int:
        """The step at which it began."""
        return self.span.first

    def _repr_html_(self) -> str:
        """What a notebook shows: the fact, its evidence with the first curve, and the remedies."""
        from fitdoctor import display

        seen = [
            f"{display.text(e.signal)}: {display.text(e.observed)}"
            + (f" <i>(expected {display.text(e.expected)})</i>" if e.expected else "")
            for e in self.evidence
        ]
        first = self.evidence[0] if self.evidence else None
        remedies = [
            display.text(r.title) + (display.code(next(iter(r.code.values()))) if r.code else "") for r in self.remedies
        ]
        return display.card(
            f"<b>{display.text(self.rule or 'finding')}</b>: {display.text(self.message)}",
            [
                display.small(
                    f"{display.badge(self.severity)} · {self.confidence} confidence · from step {self.onset:,}"
                ),
                display.listed(seen),
                display.chart([(str(first.signal), first.points)], first.marks) if first else "",
                display.listed(remedies, ordered=True),
            ],
            colour=display.STATES[self.severity],
        )
