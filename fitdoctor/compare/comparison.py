"""What a comparison says: a `Comparison` of two sides, and its JSON form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from fitdoctor.compare.significance import Significance
from fitdoctor.finding import Change, Severity
from fitdoctor.run import Fact
from fitdoctor.signals import Signal

FORMAT_VERSION = 1
"""Version of the JSON form of a comparison. 1: first form (0.1.0)."""

Clock = Literal["step", "epoch", "time"]
Call = Literal["better", "worse", "same", "cannot tell"]
Direction = Literal["better", "worse", "level"]
State = Literal["gone", "new", "still there", "no longer judged", "not judged before"]
Applied = Literal["as advised", "in that direction", "in the other direction"]
Outcome = Literal[
    "worked", "looks as if it worked", "helped, not enough", "cured the sign, not the result", "did not work",
    "cannot tell",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class FactChange:
    """One setting that differs between the sides.

    Attributes:
        key: name of the fact, as in `Run.facts`; also ``schedule`` and ``length``, which are read off the curves.
        before: the distinct values before, empty when not logged.
        after: the distinct values after.
        environment: it describes the machine or the bookkeeping, not the training.
    """

    key: str
    before: tuple[Fact, ...]
    after: tuple[Fact, ...]
    environment: bool = False


@dataclass(frozen=True, slots=True)
class Measure:
    """One number per run, of both sides.

    Attributes:
        before: a value per run, as it stands in the log; inf (or -inf where more is better) for a failed run.
        after: likewise.
        difference: mean after minus mean before.
        noise: standard error of that difference that the scatter inside the curves explains; nan when unknown.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]
    difference: float
    noise: float = math.nan


@dataclass(frozen=True, slots=True)
class CurveChange:
    """One curve, compared on the stretch that all runs cover.

    Attributes:
        signal: what was measured.
        clock: by what the runs were aligned.
        stretch: the common stretch, in units of the clock.
        final: median of the last tenth of the stretch, at least 3 points.
        best: best smoothed value of the stretch.
        mean: mean level over the stretch (the area under the curve over its length).
        at_end: the same as `final`, at each run's own end.
        share: the gain of `final` as a share of the range that training moved the curve through; > 0 is better.
        direction: whether that gain stands out of the noise inside the curves.
        significance: whether seeds alone could have made it.
        call: what may be said of it.
        sooner: the share of the time until `before` was at its final level that `after` needed for it; nan if never.
        points: thinned points (clock, value) of the first run of each side.
    """

    signal: Signal
    clock: Clock
    stretch: tuple[float, float]
    final: Measure
    best: Measure
    mean: Measure
    at_end: Measure
    share: float
    direction: Direction
    significance: Significance
    call: Call
    sooner: float
    points: tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]] = ((), ())


@dataclass(frozen=True, slots=True)
class FindingChange:
    """What became of one rule's findings.

    Attributes:
        rule: name of the rule.
        state: "gone", "new", "still there", "no longer judged" (skipped after), "not judged before".
        before: worst severity before, None for no finding.
        after: worst severity after.
        runs: in how many runs it was found, before and after.
        message: of its worst finding: that after where there is one, else that before.
        why: why it was not judged, where so.
        root: it is, or was, a root cause.
    """

    rule: str
    state: State
    before: Severity | None
    after: Severity | None
    runs: tuple[int, int]
    message: str
    why: str = ""
    root: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold if a remedy worked; `holds` is None where the log does not tell."""

    statement: str
    holds: bool | None


@dataclass(frozen=True, slots=True)
class Trial:
    """A remedy that was advised before and tried after.

    Attributes:
        rule: the finding that it was advised for; of several the most important, a root before what it explains.
        also: the other findings that advised the same.
        title: the remedy.
        change: its machine-readable form.
        confirm: how it was to be confirmed, as the remedy says it.
        fact: the setting that changed accordingly.
        applied: whether it was turned as advised.
        checks: what had to hold, and whether it does.
        outcome: whether it worked: "worked" only where a test allows it, "looks as if it worked" where too few runs
            do not; "helped, not enough" when the finding is milder and the result better.
    """

    rule: str
    title: str
    change: Change
    confirm: str
    fact: FactChange
    applied: Applied
    checks: tuple[Check, ...]
    outcome: Outcome
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that changed between two sides.

    Attributes:
        before: names of the runs of the first side.
        after: names of the runs of the second side.
        paired: run i of both sides belongs together.
        facts: settings that differ.
        curves: curves that both sides logged, the deciding one first.
        decided_by: the curve that the call rests on, chosen before any value was looked at; None without one.
        findings: what became of the findings.
        trials: remedies that were advised and tried.
        call: "better", "worse", "same" or "cannot tell".
        headline: the call in one sentence.
        cautions: what speaks against reading more into it.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    paired: bool
    facts: tuple[FactChange, ...]
    curves: tuple[CurveChange, ...]
    decided_by: Signal | None
    findings: tuple[FindingChange, ...]
    trials: tuple[Trial, ...]
    call: Call
    headline: str
    cautions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain Python data; numbers that are not finite are strings, as in a report."""
        return {"format_version": FORMAT_VERSION, **plain(self)}

    def new(self, least: Severity) -> tuple[FindingChange, ...]:
        """Findings of at least that severity that came up, or got that bad, after the change."""
        return tuple(
            f
            for f in self.findings
            if f.after is not None
            and f.after.rank >= least.rank
            and (f.before is None or f.before.rank < f.after.rank)
            and f.state in ("new", "still there")
        )


def plain(value: Any) -> Any:
    if isinstance(value, Signal):
        return {"quantity": value.quantity.name, "split": value.split, "layer": value.layer}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if isinstance(value, Severity):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
