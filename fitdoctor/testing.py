"""For authors of rules: make a run by hand, and check what a rule says of it.

>>> from fitdoctor.signals import LOSS
>>> from fitdoctor.testing import make_run
>>> run = make_run(train_loss=[1.0, 0.5, 0.2, 0.1], val_loss=[1.1, 0.7], facts={"classes": 10})
>>> [str(s.signal) for s in run.series], run.get(LOSS, "val").steps.tolist()
(['train loss', 'val loss'], [1, 3])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fitdoctor.errors import FitdoctorError
from fitdoctor.finding import Confidence, Finding, Severity
from fitdoctor.rule import CannotJudge, Rule
from fitdoctor.run import Fact, Per, Run, Series
from fitdoctor.signals import QUANTITIES, SPLITS, Signal

__all__ = ["check_rule", "check_skips", "make_run"]


def make_run(
    *,
    steps: ArrayLike | None = None,
    per: Per = "",
    facts: Mapping[str, Fact] | None = None,
    finished: bool | None = True,
    name: str = "made",
    layers: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    **curves: ArrayLike | Mapping[int, float],
) -> Run:
    """A run from plain numbers.

    Args:
        steps: int64[n], steps of every curve of n values; 0 to n-1 of the longest when left out.
        per: cadence of all series.
        facts: facts of the run.
        finished: whether the run has ended.
        name: name of the run.
        layers: quantity -> layer -> values.
        curves: by the name of a quantity, with a split where it knows one: ``train_loss``,
            ``val_accuracy``, ``lr``, ``grad_norm``. A mapping gives step -> value. Of fewer values than
            there are steps, each stands at the end of an equal share of the run, like evaluations.

    Raises:
        FitdoctorError: if a name is no quantity.
    """
    wanted: list[tuple[Signal, Any]] = [(_signal(key), values) for key, values in curves.items()]
    for key, by_layer in (layers or {}).items():
        whole = _signal(key)
        wanted += [(Signal(whole.quantity, whole.split, layer), values) for layer, values in by_layer.items()]
    longest = max((len(v) for _, v in wanted if not isinstance(v, Mapping)), default=0)
    clock = np.arange(longest) if steps is None else np.asarray(steps, np.int64)
    series = [_series(signal, values, clock, per) for signal, values in wanted]
    return Run(name, tuple(series), facts or {}, finished)


def check_rule(
    rule: Rule,
    run: Run,
    *,
    finds: bool | int,
    severity: Severity | str | None = None,
    confidence: Confidence | str | None = None,
    onset: tuple[int, int] | None = None,
    **options: Any,
) -> tuple[Finding, ...]:
    """Check what a rule finds in a run, and that its findings keep the form of a finding.

    Args:
        rule: the rule.
        run: the run it judges.
        finds: whether it must find something, or how many times.
        severity: what the first finding must have.
        confidence: what the first finding must have.
        onset: first and last step between which the first finding must begin.
        options: options of the rule.

    Returns:
        The findings.

    Raises:
        AssertionError: if something is different; the message says what was found instead.
    """
    if missing := rule.missing(run):
        raise AssertionError(f"{rule.name} cannot judge this run: {missing}")
    try:
        found = tuple(rule(run, **options))
    except CannotJudge as reason:
        raise AssertionError(f"{rule.name} abstained: {reason}; check_skips expects that") from reason
    seen = "\n".join(f"  {f.severity}, {f.confidence}, steps {f.span}: {f.message}" for f in found) or "  nothing"
    count = int(finds)
    right = bool(found) == finds if isinstance(finds, bool) else len(found) == count
    if not right:
        wanted = ("at least one finding" if finds else "no finding") if isinstance(finds, bool) else f"{count} findings"
        raise AssertionError(f"{rule.name}: expected {wanted}, got\n{seen}")
    if found:
        first = found[0]
        for what, want, got in (
            ("severity", severity, first.severity),
            ("confidence", confidence, first.confidence),
        ):
            if want is not None and str(want) != str(got):
                raise AssertionError(f"{rule.name}: expected {what} {want}, got {got} in\n{seen}")
        if onset is not None and not onset[0] <= first.onset <= onset[1]:
            raise AssertionError(f"{rule.name}: expected onset in {onset[0]}-{onset[1]}, got {first.onset} in\n{seen}")
    for finding in found:
        _check_form(rule, finding)
    if repr(tuple(rule(run, **options))) != repr(found):
        raise AssertionError(f"{rule.name}: judged the same run twice and said two different things")
    return found


def check_skips(rule: Rule, run: Run, why: str = "", **options: Any) -> str:
    """Check that a rule declines to judge a run, for a reason that holds `why`; the reason.

    Raises:
        AssertionError: if it judges, or gives another reason.
    """
    reason = rule.missing(run)
    if not reason:
        try:
            found = tuple(rule(run, **options))
        except CannotJudge as declined:
            reason = str(declined)
        else:
            messages = "; ".join(f.message for f in found) or "nothing"
            raise AssertionError(f"{rule.name}: expected it to abstain, but it judged and found: {messages}")
    if why not in reason:
        raise AssertionError(f"{rule.name}: expected a reason with {why!r}, got {reason!r}")
    return reason


def _check_form(rule: Rule, finding: Finding) -> None:
    message = finding.message
    for wrong, broken in (
        ("is longer than 100 characters", len(message) > 100),
        ("ends with a full stop", message.endswith(".")),
        ("is a question", "?" in message),
        ("is empty or more than one line", not message.strip() or "\n" in message),
    ):
        if broken:
            raise AssertionError(f"{rule.name}: the message {wrong}: {message!r}")
    if finding.span.first > finding.span.last:
        raise AssertionError(f"{rule.name}: the span ends before it begins: {finding.span}")


def _signal(key: str) -> Signal:
    split, _, rest = key.partition("_")
    if split in SPLITS and rest in QUANTITIES:
        return Signal(QUANTITIES[rest], split)
    if key in QUANTITIES:
        return Signal(QUANTITIES[key])
    raise FitdoctorError(
        f"make_run: {key!r} is no curve; expected a quantity such as lr or grad_norm, with a split where it knows "
        "one, such as train_loss or val_accuracy (`fitdoctor signals` lists the quantities)"
    )


def _series(signal: Signal, values: Any, clock: np.ndarray[Any, np.dtype[np.int64]], per: Per) -> Series:
    if isinstance(values, Mapping):
        ordered = dict(sorted(values.items()))
        return Series(signal, np.array(list(ordered)), np.array(list(ordered.values())), str(signal), per)
    numbers = np.asarray(values, np.float64)
    n = len(numbers)
    if n == len(clock):
        at = clock
    elif n < len(clock):
        at = clock[np.arange(1, n + 1) * len(clock) // max(n, 1) - 1]
    else:
        raise FitdoctorError(f"make_run: {signal} has {n} values for {len(clock)} steps")
    return Series(signal, at, numbers, str(signal), per)
