"""ACT004 input-collapse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.activations import check_inputs_reach_the_output, normalise_layers, rescale_initialisation
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import ACTIVATION_INPUT_SPREAD, LOSS, Signal
from fitdoctor.views.curves import place, share_of_run
from fitdoctor.views.depth import at_start, by_layer, hidden_weights, layers_of
from fitdoctor.views.harm import Standing, need_standing
from fitdoctor.views.steps import training_curve


@rule(
    "ACT004",
    "input-collapse",
    needs=[Signal(ACTIVATION_INPUT_SPREAD, layer="*"), LOSS],
    explains=[
        "no-learning",
        "class-collapse",
        "plateau",
        "underfitting",
        "lr-noise-floor",
        "undertrained",
        "lr-too-low",
    ],
    since="0.1.0",
)
def input_collapse(
    run: Run, *, collapsed: float = 0.01, alive: float = 0.05, hold: int = 3, idle: float = 0.1
) -> Iterator[Finding]:
    """Deep layers give the same output for every input, and nothing is learned.

    Why it matters:
        What all inputs have in common is all that the layers behind can see. Whatever they learn, it is the answer
        that is best on average.

    How it is measured:
        The spread of a unit's output over the inputs of a batch, relative to the root mean square of the layer's
        outputs, in the last layer with weights before the output layer. Its median over the last `hold` records must
        lie below `collapsed` (the outputs for two inputs then have a cosine above 0.9999) while the first layer's
        lies above `alive`: the data differ, and depth has lost it. Where the first layer's lies
        below `collapsed` as well, the inputs themselves are alike. An error when the final training loss is above
        90 % of what a model that has learned nothing has, a warning above half, and else nothing.

        A net may be born so and grow out of it, with an optimizer that rescales each layer's step. Where the first
        record has a spread below `collapsed` in the output layer, and one of ten times as much in the first, it is
        the same finding if the loss ends above half, or has come a tenth of its way only after `idle` of the run.

    Options:
        collapsed: relative spread below which the inputs cannot be told apart.
        alive: least relative spread of the first layer.
        hold: records whose median counts.
        idle: share of the run that a net that is born so may lose.

    When it is wrong:
        Inputs that lie far from zero and differ little can be told apart by a net that subtracts their mean;
        before training it looks like a collapse. Sound nets of that kind learn, and are not reported.

    What to do:
        Initialise so that each layer keeps the scale of what differs, with biases at zero, or normalise between
        layers. If the inputs are alike, look at the data loader.

    References:
        Poole et al. 2016 and Schoenholz et al. 2017: correlations of two inputs converge with depth, exponentially
        fast off the edge of chaos. Of 22 sound trainings the smallest spread at that place was 0.03.
    """
    layers = hidden_weights(run, ACTIVATION_INPUT_SPREAD)
    if len(layers) < 2:
        raise CannotJudge(f"outputs of {len(layers)} layers with weights before the last, 2 are needed")
    first, last = layers[0].finite, layers[-1].finite
    if min(len(first), len(last)) < hold:
        raise CannotJudge(f"fewer than {hold} records of the layers' outputs")
    stand = need_standing(run)
    now, before = _late(last, hold), _late(first, hold)
    if not stand.unsolved or now >= collapsed or collapsed <= before < alive:
        yield from _born(run, stand, collapsed, idle)
        return
    inputs = before < collapsed
    series = first if inputs else last
    above = np.flatnonzero(series.values >= collapsed)
    onset = int(series.steps[min(int(above[-1]) + 1, len(series) - 1)]) if len(above) else series.span.first
    born = onset == series.span.first
    since = "from the start" if born else f"since {place(run, onset)}"
    levels = [_late(layer.finite, hold) for layer in layers if len(layer.finite)]
    if min(before, *levels) < 0:
        raise CannotJudge("a spread of outputs below 0 is logged, which none can be")
    depth = next(i for i, level in enumerate(levels, 1) if level < collapsed)
    message = f"inputs move the output of layer {depth} of {len(levels)} by {levels[depth - 1]:.2%} of its size {since}"
    if inputs:
        message = f"all inputs look alike {since}: they move the first layer's output by {before:.2%} of its size"
    bug = check_inputs_reach_the_output()
    yield Finding(
        message=message,
        severity=Severity.ERROR if stand.idle else Severity.WARNING,
        confidence=Confidence.HIGH if stand.idle and layers_of(run) else Confidence.MEDIUM,
        span=Span(onset, last.span.last),
        evidence=(
            Evidence.of(last, f"{now:.2g} of the layer's own size", f"above {collapsed:g}"),
            Evidence.of(first, f"{before:.2g} in the first layer", "" if not inputs else f"above {alive:g}"),
            Evidence.of(stand.curve.series, f"{stand.curve.final:.4g}, from {stand.curve.start:.4g}", "learned"),
        ),
        remedies=(bug,) if inputs else (normalise_layers(), rescale_initialisation(), bug),
        could_be=("the data loader repeats one sample", "inputs far from zero") if inputs else (),
        settle_with="print(x.std(0).mean() / x.abs().mean()) of one batch: near 0 means the data" if inputs else "",
    )


def _born(run: Run, stand: Standing, collapsed: float, idle: float) -> Iterator[Finding]:
    """Before the first step the output did not depend on the input, and the run has paid for it."""
    layers = list(by_layer(run, ACTIVATION_INPUT_SPREAD, ["affine"]).values())
    if not layers_of(run) or not at_start(run, layers):
        return
    first, last = layers[0], layers[-1]
    if not (0 <= last.values[0] < collapsed <= first.values[0] and last.values[0] < first.values[0] / 10):
        return
    lost, until = _lost(run)
    if not stand.mature or not (stand.unsolved or lost > idle):
        return
    yield Finding(
        message=f"before training the inputs move the output by {last.values[0]:.2%} of its size; "
        + (
            f"the loss rests until {place(run, until)}" if not stand.unsolved else f"it ends at {stand.curve.final:.4g}"
        ),
        severity=Severity.ERROR if stand.idle else Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=Span(last.span.first, last.span.first),
        evidence=(
            Evidence.of(last, f"{last.values[0]:.2g} of the output's own size at first", f"above {collapsed:g}"),
            Evidence.of(first, f"{first.values[0]:.2g} in the first layer"),
            Evidence.of(stand.curve.series, f"a tenth of its way after {lost:.0%} of the run", f"within {idle:.0%}"),
        ),
        remedies=(normalise_layers(), rescale_initialisation(), check_inputs_reach_the_output()),
    )


def _lost(run: Run) -> tuple[float, int]:
    """Share of the run, and step, until the training loss has come a tenth of its way."""
    curve = training_curve(run)
    reached = np.flatnonzero(curve.smooth <= curve.start - 0.1 * (curve.start - curve.best))
    step = int(curve.steps[int(reached[0])]) if len(reached) else int(curve.steps[-1])
    return share_of_run(run, step), step


def _late(series: Series, hold: int) -> float:
    return float(np.median(series.values[-hold:]))
