"""ACT004 input-collapse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.activations import check_inputs_reach_the_output, normalise_layers, rescale_initialisation
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import ACTIVATION_INPUT_SPREAD, LOSS, Signal
from fitdoctor.views.curves import place
from fitdoctor.views.depth import hidden_weights, layers_of
from fitdoctor.views.harm import need_standing


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
def input_collapse(run: Run, *, collapsed: float = 0.01, alive: float = 0.05, hold: int = 3) -> Iterator[Finding]:
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

    Options:
        collapsed: relative spread below which the inputs cannot be told apart.
        alive: least relative spread of the first layer.
        hold: records whose median counts.

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


def _late(series: Series, hold: int) -> float:
    return float(np.median(series.values[-hold:]))
