"""NUM002 hidden-nonfinite."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import find_first_nonfinite, log_nonfinite_values, lower_learning_rate
from fitdoctor.rule import rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import LOSS
from fitdoctor.views.curves import place
from fitdoctor.views.norms import total_gradient_norm


@rule(
    "NUM002",
    "hidden-nonfinite",
    needs=[LOSS],
    explains=["nonfinite-loss", "plateau", "no-learning", "underfitting", "best-epoch"],
    since="0.1.0",
)
def hidden_nonfinite(run: Run, *, drop: float = 0.05, hold: int = 3) -> Iterator[Finding]:
    """The loss was nan, and the logger wrote 0 or nothing in its place.

    Why it matters:
        The log shows a perfect loss of 0 where training was destroyed. Anyone who selects runs by their
        final loss selects this one.

    How it is measured:
        The logged loss is exactly 0 at a step whose gradient norm is nan or infinite. Where no gradient norm
        was logged: the loss falls to exactly 0 from more than `drop` of its first value between one logged
        point and the next, by 5 of its usual changes at least, and stays there for `hold` points; that alone
        is a warning.

    Options:
        drop: least loss before the fall, as a share of the first logged loss.
        hold: logged zeros in a row.

    When it is wrong:
        A loss that truly is 0, such as a hinge loss with all margins met, reaches 0 with a finite gradient
        norm; with one logged it is not reported.

    What to do:
        Switch the filter off, so that the log tells the truth, and find the first non-finite value.

    References:
        Hugging Face Transformers, TrainingArguments.logging_nan_inf_filter: on by default, it counts nan
        losses as 0 in the logged mean.
    """
    loss = run.get(LOSS)
    assert loss is not None  # the rule needs it
    zero = loss.values == 0.0
    norm = total_gradient_norm(run)
    said = next((n for n in run.notes if n.kind == "hidden-nonfinite"), None)
    if norm is not None and zero.any():
        at = np.isin(loss.steps, norm.steps[~np.isfinite(norm.values)]) & zero
        if at.any():
            yield _certain(run, loss, norm, int(np.argmax(at)), int(at.sum()))
            return
    if said is not None:
        step = loss.span.first if said.step is None else min(said.step, loss.span.last)
        yield _from_note(run, loss, step, said.text)
        return
    if norm is None:
        yield from _sudden_zero(run, loss, drop, hold)


def _certain(run: Run, loss: Series, norm: Series, index: int, count: int) -> Finding:
    step = int(loss.steps[index])
    return Finding(
        message=f"logged loss is exactly 0 from {place(run, step)} on, where the gradient norm is not finite",
        severity=Severity.ERROR,
        confidence=Confidence.HIGH,
        span=Span(step, loss.span.last),
        evidence=(
            Evidence.of(
                loss, f"exactly 0 at {count} logged steps", "the true loss, nan", marks=((step, "first hidden nan"),)
            ),
            Evidence.of(norm, f"not finite at {place(run, step)}", "a finite norm, if the loss were 0"),
        ),
        remedies=(find_first_nonfinite(), lower_learning_rate(), log_nonfinite_values()),
        could_be=("nonfinite-loss",),
    )


def _from_note(run: Run, loss: Series, step: int, text: str) -> Finding:
    return Finding(
        message=f"the logger left out non-finite losses from {place(run, step)} on",
        severity=Severity.ERROR,
        confidence=Confidence.MEDIUM,
        span=Span(step, loss.span.last),
        evidence=(Evidence.of(loss, text, "one loss at every logged step", marks=((step, "first hidden nan"),)),),
        remedies=(find_first_nonfinite(), lower_learning_rate(), log_nonfinite_values()),
        could_be=("nonfinite-loss",),
        settle_with="print the loss of the batch at that step",
    )


def _sudden_zero(run: Run, loss: Series, drop: float, hold: int) -> Iterator[Finding]:
    """Zeros to the end of the log, right after values that were not small."""
    values = loss.values
    nonzero = np.flatnonzero(values != 0.0)
    if not len(nonzero) or len(values) - 1 - nonzero[-1] < hold:
        return
    last = int(nonzero[-1])
    before = values[max(0, last - 9) : last + 1]
    level = float(np.median(np.abs(before[-3:])))
    usual = float(np.median(np.abs(np.diff(before)))) if len(before) > 1 else 0.0
    # A loss that glides to 0 arrives there by a step like those before it.
    if not np.isfinite(before).all() or level <= max(drop * abs(float(values[0])), 5 * usual):
        return
    step = int(loss.steps[last + 1])
    yield Finding(
        message=f"training loss falls from {values[last]:.3g} to exactly 0 at {place(run, step)} and stays there",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=Span(step, loss.span.last),
        evidence=(
            Evidence.of(
                loss,
                f"{values[last]:.3g}, then exactly 0 for {len(values) - 1 - last} logged points",
                "a gradual approach to 0, if it were real",
                marks=((step, "exactly 0"),),
            ),
        ),
        remedies=(log_nonfinite_values(), find_first_nonfinite()),
        could_be=("nonfinite-loss", "a loss that truly is 0"),
        settle_with="log the gradient norm, or rerun with the logger's nan filter off: a nan settles it",
    )
