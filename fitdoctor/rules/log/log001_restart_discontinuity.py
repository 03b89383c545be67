"""LOG001 restart-discontinuity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import restore_whole_state, write_one_log_per_run
from fitdoctor.rule import rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import LOSS
from fitdoctor.stats import mad_sigma
from fitdoctor.views.curves import learning_rate, place
from fitdoctor.views.norms import total_gradient_norm


@rule("LOG001", "restart-discontinuity", needs=[], explains=["loss-spikes", "gradient-spikes"], since="0.1.0")
def restart_discontinuity(
    run: Run, *, sigmas: float = 5.0, share: float = 0.05, around: int = 20, least: int = 8, early: float = 0.05
) -> Iterator[Finding]:
    """The run was resumed, and its curves do not continue where they stopped.

    Why it matters:
        A resume that restores the weights alone starts with empty optimizer moments, another learning rate
        or other data. The curves jump, and what looks like instability is bookkeeping.

    How it is measured:
        At each restart the log shows (a step that goes back, or a new file), the medians of the `around`
        logged values before and after are compared, for training loss, gradient norm and learning rate. A
        jump is more than `sigmas` standard deviations of the noise before, more than `share` of the range of
        the curve, and more than 3 times its last change before; for the learning rate, more than a factor of
        1.2. A resume without a jump is no finding; the report mentions it among what it says of the log. Where
        hooks saw a resumed training take its first step with an optimizer that keeps moments but held none, or
        with a scheduler at its beginning, that is said exactly: a note, and a warning where a curve jumps.

    Options:
        sigmas: least jump in standard deviations of the noise.
        share: least jump as a share of the curve's range.
        around: logged values on each side.
        least: fewest values on each side.
        early: share of the run at its beginning in which a restart is another run, not a resume.

    When it is wrong:
        A resume that changes data, batch size or learning rate on purpose jumps as well.

    What to do:
        Restore optimizer, scheduler, loss scaler and data order together with the weights.

    References:
        PyTorch documentation, saving and loading a general checkpoint. Thresholds are design values.
    """
    restarts = [n.step for n in run.notes if n.kind == "restart" and n.step is not None]
    resumed = run.facts.get("resumed_at")
    if isinstance(resumed, int) and not isinstance(resumed, bool):
        restarts.append(resumed + 1)
    if not restarts:
        return
    span = run.steps or Span(0, 0)
    # Back to the beginning is another run in the same folder, not a resume.
    beginning = span.first + early * (span.last - span.first)
    steps = sorted({step for step in restarts if step > beginning})
    lost = _not_restored(run)
    curves = [(s, False) for s in (run.get(LOSS), total_gradient_norm(run)) if s is not None]
    rate = learning_rate(run)
    if rate is not None:
        curves.append((rate, True))
    jumps = [
        evidence
        for series, is_rate in curves
        if (evidence := _jump(run, series.finite, steps, sigmas, share, around, least, is_rate)) is not None
    ]
    if lost and isinstance(resumed, int) and resumed > early * span.last:
        yield _state_lost(run, span, min(max(restarts), span.last), lost, tuple(jumps))
        return
    if not jumps:
        return  # a resume that goes on where it stopped; the notes on the log mention it
    times = f"{len(steps)} times" if len(steps) > 1 else "once"
    names = ", ".join(str(e.signal) for e in jumps)
    yield Finding(
        message=f"run was resumed {times} ({place(run, steps[0])}), and {names} jumped there"[:100],
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=Span(min(steps[0], span.last), span.last),
        evidence=tuple(jumps),
        remedies=(restore_whole_state(), write_one_log_per_run()),
        could_be=("settings changed on purpose",),
    )


def _not_restored(run: Run) -> str:
    """What a resumed training began without, in words; "" where nothing is missing or nothing is known."""
    facts = (("optimizer_state_restored", "the optimizer's moments"), ("scheduler_restored", "the scheduler's count"))
    return " and ".join(words for key, words in facts if run.facts.get(key) is False)


def _state_lost(run: Run, span: Span, step: int, lost: str, jumps: tuple[Evidence, ...]) -> Finding:
    rate = learning_rate(run) or run.get(LOSS)
    at = max(span.first, step)
    shown = () if rate is None or jumps else (Evidence.of(rate, f"goes on at {place(run, at)}"),)
    jumped = f", and {', '.join(str(e.signal) for e in jumps)} jumped" if jumps else ""
    return Finding(
        message=f"run was resumed at {place(run, at)} without {lost}{jumped}"[:100],
        severity=Severity.WARNING if jumps else Severity.NOTE,
        confidence=Confidence.HIGH if jumps else Confidence.MEDIUM,
        span=Span(at, span.last),
        evidence=(*jumps, *shown),
        remedies=(restore_whole_state(),),
        could_be=("a new phase of training on purpose",),
    )


def _jump(
    run: Run, series: Series, steps: list[int], sigmas: float, share: float, around: int, least: int, is_rate: bool
) -> Evidence | None:
    """Evidence of the largest jump of a series at a restart, or None."""
    worst: tuple[float, int, float, float] | None = None
    reach = float(np.ptp(series.values)) if len(series) else 0.0
    for step in steps:
        at = int(np.searchsorted(series.steps, step))
        before, after = series.values[max(0, at - around) : at], series.values[at : at + around]
        if len(before) < least or len(after) < least:
            continue
        if is_rate:
            size, limit = _rate_jump(before, after)
        else:
            size = abs(float(np.median(after[:5])) - float(np.median(before[-5:])))
            # A steep fall, as at the beginning of a run, goes on across the restart: that is no jump.
            pace = abs(float(np.median(before[-5:])) - float(np.median(before[-10:-5]))) if len(before) >= 10 else 0.0
            limit = max(sigmas * mad_sigma(np.diff(before)) / np.sqrt(2), share * reach, 3 * pace)
        if size > limit and (worst is None or size / max(limit, 1e-300) > worst[0]):
            old, new = (before[-1], after[0]) if is_rate else (np.median(before[-5:]), np.median(after[:5]))
            worst = (size / max(limit, 1e-300), step, float(old), float(new))
    if worst is None:
        return None
    _, step, old, new = worst
    return Evidence.of(
        series,
        f"{new:.4g} after the restart at {place(run, step)}, {old:.4g} before",
        "the same level on both sides",
        marks=((step, "resumed"),),
    )


def _rate_jump(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Size of the learning rate's jump in logs, and what its own pace and a factor of 1.2 allow."""
    logs = np.log(np.maximum(np.concatenate([before, after]), 1e-300))
    changes = np.abs(np.diff(logs))
    size = float(changes[len(before) - 1])
    usual = float(np.max(np.delete(changes, len(before) - 1), initial=0.0))
    return size, max(float(np.log(1.2)), 2 * usual)
