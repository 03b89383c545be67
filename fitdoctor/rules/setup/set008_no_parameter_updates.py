"""SET008 no-parameter-updates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import check_updates, overfit_one_batch, start_from_published_rate
from fitdoctor.remedies.before_run import own_all_parameters
from fitdoctor.remedies.setup import call_optimizer_step, connect_parameters
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, Run, Series, Span
from fitdoctor.signals import BACKWARD_CALLS, GRAD_NORM, LOSS, PARAMETERS_WITHOUT_GRAD, UPDATE_NORM
from fitdoctor.views.curves import find_curve, learning_rate, place

SPENT = 0.01
"""Share of the peak below which a learning rate may round every update away: the end of a schedule."""


@rule(
    "SET008",
    "no-parameter-updates",
    needs=[],
    explains=[
        "no-learning",
        "plateau",
        "underfitting",
        "undertrained",
        "lr-too-low",
        "lr-noise-floor",
        "vanishing-gradients",
        "best-epoch",
        "val-set-too-noisy",
        "class-collapse",
        "adam-epsilon-dominated",
        "layerwise-update-imbalance",
        "frozen-or-unused-parameters",
    ],
    since="0.1.0",
)
def no_parameter_updates(run: Run, *, least: int = 3, span: int = 10) -> Iterator[Finding]:
    """The optimizer's steps change nothing, or there are none.

    Why it matters:
        The loss is flat and no setting of the learning rate will change that: the loop computes gradients
        that never reach the weights that are used.

    How it is measured:
        Exactly: the norm of the change that a step made to the optimizer's parameters is 0 at the last `least`
        records or more, over at least `span` steps, while the learning rate is above 1 % of its peak; or
        backward was called again and again and optimizer.step never. Where the gradient itself is 0 because the
        loss is solved (below 5 % of its first value), nothing is reported. The finding names what goes with it:
        parameters of the optimizer that are not the model's, no gradient at all, a learning rate of 0.

    Options:
        least: fewest records in a row without a change.
        span: fewest steps from the first of them to the last.

    When it is wrong:
        A frozen model that is run through a training loop to be measured.

    What to do:
        Make the optimizer after the model is built, moved and wrapped, and call optimizer.step().

    References:
        TrainCheck (arXiv 2506.14813): two of its real silent errors are flat losses without updates.
    """
    attempts = run.facts.get("backward_calls_without_step")
    if isinstance(attempts, int) and not isinstance(attempts, bool) and attempts > 0:
        yield _never_stepped(run, attempts)
        return
    update = run.get(UPDATE_NORM)
    if update is None:
        raise CannotJudge("no update_norm logged")
    still = update.values == 0.0
    if not still.any() or not still[-1]:
        return
    moved = np.flatnonzero(~still)
    first = int(moved[-1]) + 1 if len(moved) else 0
    quiet = _awake(run, update[first:])
    if len(quiet) < least or quiet.span.last - quiet.span.first < span:
        return
    rates = _rates(run, quiet)
    gradient = run.get(GRAD_NORM)
    no_gradient = gradient is None or not (gradient.between(*_ends(quiet)).values > 0).any()
    if no_gradient and _solved(run):
        return
    yield _finding(run, update, quiet, *_reason(run, rates, no_gradient=no_gradient))


def _ends(series: Series) -> tuple[int, int]:
    return series.span.first, series.span.last


def _rates(run: Run, at: Series) -> FloatArray | None:
    """Learning rate at the points of a series, or None where it is not known."""
    rate = learning_rate(run)
    if rate is None or not len(rate.finite):
        return None
    values = rate.finite.at(at.steps)
    return values if bool(np.isfinite(values).any()) else None


def _awake(run: Run, quiet: Series) -> Series:
    """What of it lies before the end of the schedule of the learning rate; all of it where the rate is 0 throughout."""
    rate, rates = learning_rate(run), _rates(run, quiet)
    if rate is None or rates is None or not (rates > 0).any():
        return quiet
    return quiet[rates > SPENT * float(rate.finite.values.max())]


def _solved(run: Run) -> bool:
    curve = find_curve(run, LOSS)
    return curve is not None and abs(curve.final) < 0.05 * abs(curve.start)


def _reason(run: Run, rates: FloatArray | None, *, no_gradient: bool) -> tuple[str, tuple[str, ...]]:
    """Why nothing moves, as the end of a sentence, and what else it could be."""
    strangers = run.facts.get("optimizer_tensors_not_in_model", 0)
    if isinstance(strangers, int) and strangers > 0 and no_gradient:
        return f": {strangers} of its tensors are not the model's", ()
    if rates is not None and bool((rates == 0).all()):
        return ": the learning rate is 0", ("a schedule that starts at 0",)
    if no_gradient:
        return ": no gradient reaches its parameters", ("a loss that is detached from the model", "a dead network")
    return "", ("weights of low precision that swallow the update", "an optimizer that skips its steps")


def _finding(run: Run, update: Series, quiet: Series, reason: str, could_be: tuple[str, ...]) -> Finding:
    onset = 0 if len(quiet) == len(update) else quiet.span.first
    since = "" if len(quiet) == len(update) else f" from {place(run, onset)} on"
    evidence = [
        Evidence.of(update, f"exactly 0 at {len(quiet)} records in a row", "a change at every step"),
    ]
    idle = run.get(PARAMETERS_WITHOUT_GRAD)
    if idle is not None and idle.values[-1] > 0:
        evidence.append(Evidence.of(idle, f"{idle.values[-1]:.0f} of its tensors have no gradient", "0"))
    curve = find_curve(run, LOSS)
    if curve is not None:
        evidence.append(Evidence.of(curve.series, f"{curve.start:.4g} at first, {curve.final:.4g} at the end"))
    remedies = [check_updates(), overfit_one_batch()]
    if "rate is 0" in reason:
        batch = run.facts.get("batch_size")
        remedies.insert(
            0,
            start_from_published_rate(
                str(run.facts.get("optimizer", "")),
                batch_size=batch if isinstance(batch, int) and not isinstance(batch, bool) else None,
                pretrained=run.facts.get("pretrained") is True,
            ),
        )
    elif "are not the model's" in reason:
        remedies.insert(0, own_all_parameters())
    elif "no gradient" in reason:
        remedies.insert(0, connect_parameters())
    return Finding(
        message=f"{len(quiet)} measured optimizer steps changed no weight{since}{reason}"[:100],
        severity=Severity.ERROR,
        confidence=Confidence.HIGH,
        span=Span(quiet.span.first if since else update.span.first, update.span.last),
        evidence=tuple(evidence),
        remedies=tuple(remedies),
        could_be=could_be,
        settle_with="compare a checksum of the parameters before and after one optimizer.step()" if could_be else "",
    )


def _never_stepped(run: Run, attempts: int) -> Finding:
    series = run.get(BACKWARD_CALLS) or run.get(LOSS)
    observed = f"{attempts} backward passes, 0 steps"
    return Finding(
        message=f"{attempts} backward passes and not one step of the optimizer",
        severity=Severity.ERROR,
        confidence=Confidence.HIGH,
        span=run.steps or Span(0, 0),
        evidence=() if series is None else (Evidence.of(series, observed, "one step per batch or per few batches"),),
        remedies=(call_optimizer_step(), check_updates()),
        could_be=("another optimizer than the attached one steps",),
        settle_with="give attach() the optimizer whose step() the loop calls",
    )
