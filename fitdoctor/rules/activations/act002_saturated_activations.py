"""ACT002 saturated-activations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import lower_learning_rate
from fitdoctor.remedies.activations import avoid_saturation, normalise_inputs, rescale_initialisation
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import ACTIVATION_SATURATED_FRACTION, LOSS, Signal
from fitdoctor.views.curves import place
from fitdoctor.views.depth import by_layer, layers_of
from fitdoctor.views.harm import need_standing


@rule(
    "ACT002",
    "saturated-activations",
    needs=[Signal(ACTIVATION_SATURATED_FRACTION, layer="*"), LOSS],
    explains=[
        "vanishing-gradients",
        "wrong-initial-loss",
        "no-learning",
        "plateau",
        "underfitting",
        "lr-noise-floor",
        "undertrained",
    ],
    since="0.1.0",
)
def saturated_activations(run: Run, *, share: float = 0.5, hold: int = 3) -> Iterator[Finding]:
    """Hidden sigmoids or tanhs sit in their flat ends, while the task is unsolved.

    Why it matters:
        Where the slope is below 5 % of its largest, so is the gradient that the layer passes on. A saturated
        unit works as a switch that training cannot move.

    How it is measured:
        The share of a layer's sampled outputs where the slope of its sigmoid or tanh is below 5 % of the
        largest. The last `hold` records must lie above `share`. Only layers whose output goes straight into another
        layer are judged: gates, whose output multiplies something, and outputs are meant to saturate. An error
        when the final training loss is above 90 % of what a model that has learned nothing has, a warning above
        half, and else nothing.

    Options:
        share: least share of saturated outputs.
        hold: records in a row.

    When it is wrong:
        A code that is meant to be binary saturates. Where the run does not say how its layers are connected,
        gates cannot be told apart; confidence is low then.

    What to do:
        Standardise the inputs if the first layer saturates from the start, initialise with Xavier, normalise
        between layers, or use ReLU or GELU there. Where it came in training, lower the learning rate.

    References:
        Glorot and Bengio 2010 (saturation of sigmoids from the top layer down). Half of the outputs is a design value;
        hidden layers of sound tanh and sigmoid nets that we trained stay below 35 %.
    """
    hidden = _hidden(run)
    if not hidden:
        return
    if max(map(len, hidden.values())) < hold:
        raise CannotJudge(f"fewer than {hold} records of the layers' outputs")
    stand = need_standing(run)
    levels = {n: float(s.values[-hold:].min()) for n, s in hidden.items() if len(s) >= hold}
    found = {n: level for n, level in levels.items() if np.isfinite(level) and level > share}
    if not found or not stand.unsolved:
        return
    name = (
        next(iter(found)) if _from_the_start(hidden[next(iter(found))], share) else max(found, key=lambda n: found[n])
    )
    series = hidden[name]
    early = _from_the_start(series, share)
    below = np.flatnonzero(~(series.values > share))
    onset = int(series.steps[min(int(below[-1]) + 1, len(series) - 1)]) if len(below) else series.span.first
    fixes = (
        (normalise_inputs(), rescale_initialisation()) if early else (lower_learning_rate(), rescale_initialisation())
    )
    when = "from the start" if early else f"since {place(run, onset)}"
    message = f"{found[name]:.0%} of the outputs of {{}} are saturated {when} (layers so saturated: {len(found)})"
    yield Finding(
        message=message.format(name if len(message) + len(name) <= 100 else "a layer"),
        severity=Severity.ERROR if stand.idle else Severity.WARNING,
        confidence=Confidence.HIGH
        if layers_of(run) and stand.idle
        else Confidence.MEDIUM
        if layers_of(run)
        else Confidence.LOW,
        span=Span(onset, series.span.last),
        evidence=(
            Evidence.of(series, f"{found[name]:.0%} at least in the last {hold} records", f"below {share:.0%}"),
            Evidence.of(stand.curve.series, f"{stand.curve.final:.4g}, from {stand.curve.start:.4g}", "learned"),
        ),
        remedies=(*fixes, avoid_saturation()),
        could_be=() if layers_of(run) else ("a gate, which is meant to saturate",),
        settle_with="" if layers_of(run) else "fitdoctor.attach tells gates from hidden layers; 20 steps settle it",
    )


def _from_the_start(series: Series, share: float) -> bool:
    return bool(series.values[0] > share)


def _hidden(run: Run) -> dict[str, Series]:
    """Layers that saturate and feed another layer directly; all but the last where connections are unknown."""
    series = by_layer(run, ACTIVATION_SATURATED_FRACTION, ["saturating"])
    layers = layers_of(run)
    if not layers:
        return dict(list(series.items())[:-1])
    feeds = {layer.source for layer in layers}
    applied = {layer.name for layer in layers if layer.after}
    return {name: s for name, s in series.items() if name in feeds or name in applied}
