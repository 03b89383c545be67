"""NUM001 nonfinite-loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.remedies import clip_gradients, find_first_nonfinite, inspect_batches, lower_learning_rate, warm_up
from fitdoctor.remedies.before_run import clean_data
from fitdoctor.rule import rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import LOSS, UPDATE_RATIO, WEIGHT_NORM, Signal
from fitdoctor.views.curves import place
from fitdoctor.views.depth import layers_of
from fitdoctor.views.norms import rise_before, total_gradient_norm


@rule(
    "NUM001",
    "nonfinite-loss",
    needs=[(Signal(LOSS), Signal(LOSS, "val"), Signal(LOSS, "test"))],
    explains=[
        "plateau",
        "no-learning",
        "underfitting",
        "best-epoch",
        "loss-divergence",
        "class-collapse",
        "input-collapse",
        "dead-relu",
    ],
    since="0.1.0",
    vital=True,
)
def nonfinite_loss(run: Run, *, decades: float = 1.0, window: int = 50) -> Iterator[Finding]:
    """The loss became nan or infinite.

    Why it matters:
        One step on a non-finite loss makes every weight nan, and no later step repairs that. All compute
        after it is lost, unless the step was skipped.

    How it is measured:
        Exactly: the first logged loss that is not a finite number, in training and in validation. If the
        loss or the gradient norm rose by `decades` or more in the `window` logged points before it, it was
        a divergence. If a well-sampled log shows no such rise, one operation or one sample is at fault.
        Finite values after it mean that the step was skipped: then it is a warning. Where hooks found the first
        layer, gradient or parameter with such a value, it is named.

    Options:
        decades: least rise of loss or gradient norm, as a power of ten, that counts as a divergence.
        window: logged points before the first non-finite one that are searched for the rise.

    When it is wrong:
        A logger that writes nan for "not measured". A validation loss that is nan alone often is the mean of
        an empty set.

    What to do:
        After a rise: lower the learning rate, warm it up, clip gradients. Without one: find the operation or
        the sample, on that batch, with anomaly detection.

    References:
        PyTorch documentation, torch.autograd.set_detect_anomaly; Pascanu et al. 2013 on clipping. One decade
        is the rise that no sound run of the DeepOBS baselines shows between logged points.
    """
    train = run.get(LOSS)
    if train is not None and not np.isfinite(train.values).all():
        yield _in_training(run, train, decades, window)
        return
    for split in ("val", "test"):
        held = run.get(LOSS, split)
        if held is not None and not np.isfinite(held.values).all():
            yield _in_validation(run, held, trained=train is not None)
            return


@dataclass(frozen=True, slots=True)
class _Break:
    """Where a series stops being finite.

    Attributes:
        index: first non-finite point.
        step: its step.
        word: "nan" or "inf".
        after: number of finite points after it.
        count: number of non-finite points.
    """

    index: int
    step: int
    word: str
    after: int
    count: int


def _first_break(series: Series) -> _Break:
    bad = ~np.isfinite(series.values)
    index = int(np.argmax(bad))
    word = "nan" if np.isnan(series.values[index]) else "infinite"
    return _Break(index, int(series.steps[index]), word, int((~bad[index:]).sum()), int(bad.sum()))


def _in_training(run: Run, loss: Series, decades: float, window: int) -> Finding:
    first = _first_break(loss)
    norm = total_gradient_norm(run)
    until = 0 if norm is None else int(np.searchsorted(norm.steps, first.step))
    loss_rise = rise_before(loss.values, first.index, window)
    norm_rise = 0.0 if norm is None else rise_before(norm.values, until, window)
    diverged = max(loss_rise, norm_rise) >= decades or _left_its_start(loss, first.index, decades)
    recovered = first.after > 0 and bool(np.isfinite(loss.values[-1]))
    # Fewer than 20 points before it, or epoch means: a divergence within one of them leaves no trace.
    sampled = first.index >= 20 and loss.per != "epoch" and run.step_unit != "epoch"
    evidence = [
        Evidence.of(
            loss,
            f"{first.word} at {place(run, first.step)}, {first.count} non-finite of {len(loss)} values",
            "a finite number",
            marks=((first.step, f"first {first.word}"),),
        )
    ]
    if norm is not None and until:
        evidence.append(_norm_evidence(run, norm, first.step, norm_rise))
    fixes = (lower_learning_rate(), warm_up(), clip_gradients(), find_first_nonfinite())
    could_be: tuple[str, ...]
    remedies: tuple[Remedy, ...]
    if diverged:
        why, could_be, remedies = "after a steep rise", ("lr-too-high", "exploding-gradients"), fixes
        settle = "restart from before the rise at a tenth of the learning rate: no nan means the rate"
    elif _came_with_an_example(run, first.step):
        why, could_be = "", ("a bad sample",)
        remedies = (clean_data(), inspect_batches(), find_first_nonfinite())
        settle = "torch.isfinite on the inputs of that step's batch (one step)"
    elif sampled:
        why = "without a rise before it"
        could_be = ("a bad sample", "log of 0, division by 0 or overflow in one operation")
        remedies = (find_first_nonfinite(), clean_data(), inspect_batches(), lower_learning_rate())
        settle = "replay the batch of that step with anomaly detection (one step)"
    else:
        why = ""
        could_be = ("lr-too-high", "exploding-gradients", "a bad sample", "log of 0, division by 0 or overflow")
        remedies = (find_first_nonfinite(), *fixes[:3])
        settle = "log loss and gradient norm at every step of the epoch in which it happens"
    message = f"training loss is {first.word} from {place(run, first.step)} on"
    if recovered:
        message = f"training loss was {first.word} at {place(run, first.step)} and {first.count} times in all"
    begun = _first_place(run, first.step)
    if begun:
        message = f"{message}; {begun}"[:100]
        evidence[0] = replace(evidence[0], observed=f"{evidence[0].observed}; {begun}")
    elif why:
        message = f"{message}, {why}"
    return Finding(
        message=message,
        severity=Severity.WARNING if recovered else Severity.ERROR,
        confidence=Confidence.HIGH,
        span=Span(first.step, loss.span.last),
        evidence=tuple(evidence),
        remedies=remedies,
        could_be=could_be,
        settle_with=settle,
    )


def _first_place(run: Run, step: int) -> str:
    """Where hooks met the first value that is not finite, "" where they did not, or only later than the loss."""
    where, name, since = (run.facts.get(f"nonfinite_{key}") for key in ("place", "name", "step"))
    if not isinstance(where, str) or name in (None, "") or not isinstance(since, (int, float)):
        return ""  # the name of a layer may be a number
    what = {"forward": "output", "backward": "gradient", "weights": "weights"}.get(where)
    if what is None or since > step:
        return ""
    sure = run.facts.get("nonfinite_sure") is True
    return f"first in the {what} of {name}" if sure else f"seen first in the {what} of {name}"


def _came_with_an_example(run: Run, step: int) -> bool:
    """The steps before it left the weights alone, and no operation behind the first layer is known to be its source."""
    first = next((layer for layer in layers_of(run) if layer.role == "affine"), None)
    where, name, sure = (run.facts.get(f"nonfinite_{key}") for key in ("place", "name", "sure"))
    ratio, norm = run.get(UPDATE_RATIO), run.get(WEIGHT_NORM)
    if first is None or ratio is None or norm is None:
        return False
    if sure is True and (where != "forward" or str(name) != first.name):
        return False
    steps, norms = (s.between(s.span.first, step - 1).finite.values for s in (ratio, norm))
    if sure is not True and len(steps) < 3:
        return False
    # A step as long as the weights, or weights ten times as large, may overflow in the next forward pass.
    return bool((steps < 1).all() and (norms < 10 * norm.values[0]).all())


def _left_its_start(loss: Series, index: int, decades: float) -> bool:
    """Too few points for a rise over a window: the last finite value stands decades above the smallest."""
    past = loss.values[:index]
    past = past[np.isfinite(past) & (past > 0)]
    return len(past) >= 2 and bool(past[-1] >= 10**decades * past.min())


def _norm_evidence(run: Run, norm: Series, step: int, rise: float) -> Evidence:
    before = norm.between(norm.span.first, step - 1).finite
    if not len(before):
        return Evidence.of(norm, f"not finite before {place(run, step)} either", "a finite number")
    grew = f", {10**rise:.2g} times its level before" if rise > 0.3 else ", no higher than before"
    return Evidence.of(
        norm,
        f"{before.values[-1]:.3g} at {place(run, int(before.steps[-1]))}{grew}",
        marks=((step, "loss not finite"),),
    )


def _in_validation(run: Run, held: Series, *, trained: bool) -> Finding:
    first = _first_break(held)
    split = held.signal.split
    always = first.count == len(held)
    recovered = bool(np.isfinite(held.values[-1]))
    where = "at every evaluation" if always else f"at {place(run, first.step)}"
    if not always and first.count > 1:
        where += f" and {first.count} times in all"
    beside = " while the training loss is finite" if trained else ""
    return Finding(
        message=f"{split} loss is {first.word} {where}{beside}",
        severity=Severity.WARNING,
        confidence=Confidence.LOW if recovered else Confidence.MEDIUM,
        span=Span(first.step, held.span.last),
        evidence=(
            Evidence.of(
                held,
                f"{first.word} at {first.count} of {len(held)} evaluations",
                "a finite number",
                marks=((first.step, f"first {first.word}"),),
            ),
        ),
        remedies=(find_first_nonfinite(), inspect_batches()),
        could_be=("an empty validation set", "overflow in half precision", "log of 0 on an unseen class"),
        settle_with="evaluate batch by batch and print the first batch whose loss is not finite (one evaluation)",
    )
