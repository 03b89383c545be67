"""Remedies that were advised before and tried after, and whether they did what they promised."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fitdoctor.compare.comparison import (
    Applied,
    Check,
    CurveChange,
    FactChange,
    FindingChange,
    Outcome,
    Trial,
)
from fitdoctor.finding import Change, Remedy, Severity
from fitdoctor.knobs import KNOBS
from fitdoctor.report import Report
from fitdoctor.run import Fact, Run
from fitdoctor.signals import GRAD_NORM, LOSS
from fitdoctor.views.curves import find_curve, held_out, jitter
from fitdoctor.views.generalisation import regress

CLOSE = 3.0
"""A number within a factor of three of the advised one is "as advised": remedies say "about"."""

NOTHING_NEW = "no new warning or error"


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What the checks of a trial look at.

    Attributes:
        before, after: the runs of the sides.
        loss: the training loss, compared; None when not logged.
        decided: the deciding curve, compared; None without one.
        findings: what became of the findings.
    """

    before: Sequence[Run]
    after: Sequence[Run]
    loss: CurveChange | None
    decided: CurveChange | None
    findings: Sequence[FindingChange]


def find_trials(reports: Sequence[Report], facts: Sequence[FactChange], trace: Trace) -> tuple[Trial, ...]:
    """The remedies of the reports before whose `Change` is among the settings that changed.

    What several findings advise is one trial, named after the first of them: the most important root, if it does.
    """
    changed = {f.key: f for f in facts}
    found: dict[tuple[str, bool], Trial] = {}
    diagnoses = [d for report in reports for d in report.diagnoses]
    for finding in (f for d in diagnoses for f in (d.root, *d.explains)):
        for remedy in finding.remedies:
            if remedy.change is None:
                continue
            key = (remedy.change.knob, _lowers(remedy.change))
            earlier = found.get(key)
            if earlier is None:
                trial = _trial(finding.rule, remedy, changed, trace)
                found.update({} if trial is None else {key: trial})
            elif finding.rule not in (earlier.rule, *earlier.also):
                found[key] = replace(earlier, also=(*earlier.also, finding.rule))
    return tuple(found.values())


def _trial(rule: str, remedy: Remedy, changed: Mapping[str, FactChange], trace: Trace) -> Trial | None:
    change = remedy.change
    assert change is not None  # the caller looked
    shows_as = (KNOBS[change.knob].facts if change.knob in KNOBS else ()) or (change.knob,)
    fact = next((changed[k] for k in shows_as if k in changed), None)
    applied = None if fact is None else how_applied(change, fact)
    if fact is None or applied is None:
        return None
    checks = tuple(_checks(rule, change, trace))
    outcome: Outcome = "cannot tell" if applied == "in the other direction" else _outcome(rule, trace, checks)
    return Trial(rule, remedy.title, change, remedy.confirm, fact, applied, checks, outcome)


def how_applied(change: Change, fact: FactChange) -> Applied | None:
    """Whether a setting was changed as a remedy advised; None where that cannot be said.

    Example:
        >>> how_applied(Change("learning_rate", "multiply", 0.1), FactChange("learning_rate", (0.6,), (0.06,)))
        'as advised'
        >>> how_applied(Change("learning_rate", "multiply", 0.1), FactChange("learning_rate", (0.6,), (3.0,)))
        'in the other direction'
    """
    if len(fact.after) > 1 or len(fact.before) > 1:
        return None  # the runs of one side differ in it
    old, new = (side[0] if side else None for side in (fact.before, fact.after))
    if change.op in ("enable", "disable"):
        return "as advised" if _on(new) is (change.op == "enable") else "in the other direction"
    if isinstance(change.value, str):
        return "as advised" if change.value.lower() in str(new).lower() else None
    wanted = _wanted(change, old)
    got = _number(new)
    start = _number(old)
    if wanted is None or got is None:
        return None
    if start is None or (start == 0) != (wanted == 0) or min(start, wanted, got) <= 0:
        return "as advised" if math.isclose(got, wanted, rel_tol=0.5, abs_tol=0.0) else None
    asked, done = math.log(wanted) - math.log(start), math.log(got) - math.log(start)
    if asked * done < 0:
        return "in the other direction"
    if asked == 0:
        return None
    return "as advised" if abs(done - asked) <= math.log(CLOSE) else "in that direction"


def _wanted(change: Change, old: Fact | None) -> float | None:
    value, start = _number(change.value), _number(old)
    if value is None:
        return None
    if change.op == "set":
        return value
    if start is None:
        return None
    return start * value if change.op == "multiply" else start + value


def _lowers(change: Change) -> bool:
    return change.op == "multiply" and isinstance(change.value, (int, float)) and change.value < 1


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _on(value: Fact | None) -> bool:
    return value is not None and str(value).lower() not in ("false", "0", "0.0", "none", "off", "no", "")


# --- what has to hold ---------------------------------------------------------------------------------


def _checks(rule: str, change: Change, trace: Trace) -> Iterator[Check]:
    """The finding is gone, the deciding curve is better, nothing new is wrong, and what this knob promises."""
    own = next((f for f in trace.findings if f.rule == rule), None)
    gone = {"gone": True, "still there": False}.get("" if own is None else own.state)
    yield Check(f"{rule} is no longer found", gone)
    if trace.decided is not None:
        better = {"better": True, "worse": False, "level": False}[trace.decided.direction]
        yield Check(f"{trace.decided.signal} ends better, by more than the noise of the curves", better)
    harmful = [f for f in trace.findings if f.state == "new" and f.after is not None and f.after is not Severity.NOTE]
    yield Check(NOTHING_NEW, not harmful)
    for statement, holds in PROMISES.get((change.knob, "lower" if _lowers(change) else ""), ()):
        seen = [holds(a, b) for a, b in zip(trace.before, trace.after, strict=False)]
        known = [s for s in seen if s is not None]
        yield Check(statement, None if not known else sum(known) * 2 > len(known))


def _outcome(rule: str, trace: Trace, checks: Sequence[Check]) -> Outcome:
    own = next((f for f in trace.findings if f.rule == rule), None)
    gone = checks[0].holds
    direction = "level" if trace.decided is None else trace.decided.direction
    if gone is None or own is None:
        return "cannot tell"
    harmless = next(c.holds for c in checks if c.statement == NOTHING_NEW)
    if not harmless or direction == "worse":
        return "did not work"
    if not gone:
        milder = own.before is not None and own.after is not None and own.after.rank < own.before.rank
        return (
            "helped, not enough" if direction == "better" and (milder or own.runs[1] < own.runs[0]) else "did not work"
        )
    if trace.decided is None or direction == "level":
        return "cured the sign, not the result"
    return "worked" if trace.decided.call == "better" else "looks as if it worked"


def _jitters_less(before: Run, after: Run) -> bool | None:
    a, b = find_curve(before), find_curve(after)
    return None if a is None or b is None else jitter(b) < jitter(a)


def _ends_lower(before: Run, after: Run) -> bool | None:
    a, b = find_curve(before), find_curve(after)
    if a is None or b is None or before.steps is None:
        return None
    failed = _share_finite(before) < 1
    return b.final < (max(a.final, a.best) if failed else a.final)


def _goes_below(before: Run, after: Run) -> bool | None:
    a, b = find_curve(before), find_curve(after)
    return None if a is None or b is None else b.best < a.best


def _starts_smoothly(before: Run, after: Run) -> bool | None:
    series = after.get(LOSS)
    if series is None or len(series) < 20:
        return None
    early = series.values[: max(3, len(series) // 20)]
    return bool(np.isfinite(early).all()) and float(early.max()) <= 1.1 * float(early[0])


def _norms_are_even(before: Run, after: Run) -> bool | None:
    norms = after.get(GRAD_NORM)
    if norms is None or len(norms.finite) < 20:
        return None
    values = norms.finite.values
    return float(np.quantile(values, 0.99)) < 10 * float(np.median(values))


def _regresses_less(before: Run, after: Run) -> bool | None:
    shares = []
    for run in (before, after):
        split = held_out(run)
        curve = find_curve(run, LOSS, split) if split else None
        if curve is None:
            return None
        found = regress(curve)
        shares.append(0.0 if found is None else max(found.share, 0.0))
    return shares[1] < shares[0] or shares == [0.0, 0.0]


def _share_finite(run: Run) -> float:
    series = run.get(LOSS)
    return 1.0 if series is None or not len(series) else len(series.finite) / len(series)


Promise = tuple[str, Callable[[Run, Run], bool | None]]
_LOWER = ("training loss ends lower", _ends_lower)
_HELD = ("validation loss rises less after its best", _regresses_less)
PROMISES: dict[tuple[str, str], tuple[Promise, ...]] = {
    ("learning_rate", "lower"): (_LOWER, ("training loss jitters less", _jitters_less)),
    ("learning_rate", ""): (_LOWER,),
    ("warmup_steps", ""): (("training loss does not rise in the first 5 % of its points", _starts_smoothly),),
    ("schedule", ""): (_LOWER,),
    ("schedule_length", ""): (_LOWER,),
    ("epochs", ""): (_LOWER,),
    ("clip_norm", ""): (("p99 of grad_norm stays below ten times its median", _norms_are_even),),
    ("initialisation", ""): (_LOWER,),
    ("loss_input", ""): (("training loss falls below its old floor", _goes_below),),
    ("weight_decay", ""): (_HELD,),
    ("dropout", ""): (_HELD,),
    ("augmentation", ""): (_HELD,),
    ("label_smoothing", ""): (_HELD,),
}
"""(knob, "lower" where it is turned down) -> what the `confirm` of such a remedy promises, as far as logs show it."""
