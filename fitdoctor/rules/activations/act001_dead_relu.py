"""ACT001 dead-relu."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import lower_learning_rate, warm_up
from fitdoctor.remedies.activations import keep_units_alive, rescale_initialisation
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import ACTIVATION_DEAD_FRACTION, ACTIVATION_INPUT_SPREAD, ACTIVATION_ZERO_FRACTION, LOSS, Signal
from fitdoctor.views.curves import learning_rate, place
from fitdoctor.views.depth import by_layer, layers_of
from fitdoctor.views.harm import need_standing
from fitdoctor.views.steps import drowned


@rule(
    "ACT001",
    "dead-relu",
    needs=[(Signal(ACTIVATION_DEAD_FRACTION, layer="*"), Signal(ACTIVATION_ZERO_FRACTION, layer="*")), LOSS],
    explains=[
        "vanishing-gradients",
        "input-collapse",
        "no-learning",
        "class-collapse",
        "plateau",
        "underfitting",
        "adam-epsilon-dominated",
        "lr-noise-floor",
        "undertrained",
        "lr-too-low",
    ],
    since="0.1.0",
)
def dead_relu(
    run: Run, *, share: float = 0.5, most: float = 0.8, hold: int = 3, collapsed: float = 0.01, undriven: float = 0.05
) -> Iterator[Finding]:
    """Most units of a layer are zero on every input, while the task is unsolved.

    Why it matters:
        A ReLU that is zero on all inputs passes no gradient on, so its weights never change again. The layer
        has lost that unit for good; when all are lost, so is everything before the layer.

    How it is measured:
        By unit, not by output: half the outputs of any ReLU are zero, and sparse nets do well with far
        more. A unit is dead when it was zero on 1,000 sampled inputs in a row (activation_dead_fraction); a layer
        whose every sampled output is zero counts without waiting for so many. The last `hold` records of a
        layer must show more than `share` of its units dead. An error when it is more than `most` of them, or
        the last such layer, and the final training loss is above 90 % of what a model that has learned nothing
        has; a warning when it is above half; a note otherwise, and where dropout drowns the
        signal. Layers whose input no longer depends on the data
        (relative spread below `collapsed` when the log begins) are left to input-collapse. Where the data move a
        layer's own output by less than `undriven` of its size at first, each unit is on or off for good by the sign
        of what is constant, half of them by chance: there a warning takes more than `most`.

    Options:
        share: least share of dead units.
        most: share of dead units that is an error, given harm.
        hold: records in a row.
        collapsed: spread over the inputs below which a layer's input is constant.
        undriven: spread below which what is constant decides the sign of a unit.

    When it is wrong:
        In convolutional layers a unit is one channel at one place: places at the border of images, where all
        inputs are alike, may be zero always. Units for rare inputs may be silent on 1,000 others.

    What to do:
        Where they died in training: a lower learning rate, or warm-up. Where they were born dead: He initialisation,
        biases at zero. An activation that is never flat helps in both cases.

    References:
        Lu et al. 2019, Dying ReLU and Initialization; Sokar et al. 2023 (dormant units). Half of a layer is the limit
        of Amazon SageMaker Debugger's rule dead_relu; sound nets that we trained have up to 30 % dead units.
    """
    dead = by_layer(run, ACTIVATION_DEAD_FRACTION, ["rectifier"])
    zero = by_layer(run, ACTIVATION_ZERO_FRACTION, ["rectifier"])
    if not dead and not zero:
        return  # no layer of the kind
    if max(len(s) for s in [*dead.values(), *zero.values()]) < hold:
        raise CannotJudge(f"fewer than {hold} records of the layers' outputs")
    stand = need_standing(run)
    constant = _constant_inputs(run, collapsed)
    undecided = _undecided(run, undriven) if stand.unsolved else set()
    found = []
    for name in zero or dead:
        if name in constant:
            continue
        level = max(_level(dead.get(name), hold), 1.0 if _level(zero.get(name), hold) >= 1.0 else 0.0)
        if level > (most if name in undecided else share):
            found.append(_Layer(name, level, zero.get(name) or dead[name], dead.get(name)))
    if not found:
        return
    last = found[-1].name == list(zero or dead)[-1]
    heavy = last or max(f.level for f in found) > most
    severity = Severity.NOTE
    matters = stand.idle or (stand.unsolved and stand.guessing)  # a floor of an unknown objective may be high by nature
    if matters and drowned(run) is None:  # else underfitting: what is left of the input is the dropout's noise
        severity = Severity.ERROR if stand.idle and heavy else Severity.WARNING
    yield _finding(run, found, severity, stand.left)


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer with dead units.

    Attributes:
        name: the layer.
        level: share of its units that are dead.
        zeros: share of zeros among its outputs.
        dead: share of its units that are dead, over time.
    """

    name: str
    level: float
    zeros: Series
    dead: Series | None

    @property
    def onset(self) -> int:
        """The record from which it had about as many zeros as at the end.

        Zeros, because dead units are known only after many examples. Live units are zero on about half of the inputs.
        """
        values = self.zeros.values
        expected = self.level + (1 - self.level) / 2
        below = np.flatnonzero(~(values >= min(expected, float(np.median(values[-3:]))) - 0.1))
        return int(self.zeros.steps[min(int(below[-1]) + 1, len(values) - 1)]) if len(below) else self.zeros.span.first


def _level(series: Series | None, hold: int) -> float:
    """The least of the last records."""
    if series is None or len(series) < hold:
        return 0.0
    least = float(series.values[-hold:].min())
    return min(least, 1.0) if least < 1.01 else 0.0  # more, or nan, is no share


def _constant_inputs(run: Run, collapsed: float) -> set[str]:
    """Layers whose weights got the same input whatever the data, from the first record on.

    Judged by what comes before the weights: their own output may be nearly constant because of its bias alone,
    which is what kills units.
    """
    spread = run.layers(ACTIVATION_INPUT_SPREAD)
    still = {name for name, s in spread.items() if 0 <= s.values[0] < collapsed}
    affine = [layer for layer in layers_of(run) if layer.role == "affine"]
    behind = {b.name for a, b in pairwise(affine) if (b.source or a.name) in still and a.name in still}
    return behind | {layer.name for layer in layers_of(run) if layer.source in behind}


def _undecided(run: Run, undriven: float) -> set[str]:
    """Rectifiers whose units were on or off whatever the data, from the first record on."""
    spread = run.layers(ACTIVATION_INPUT_SPREAD)
    still = {name for name, s in spread.items() if 0 <= s.values[0] < undriven}
    layers = layers_of(run)
    affine = {layer.name for layer in layers if layer.role == "affine" and layer.name in still}
    return {layer.name for layer in layers if layer.source in affine or layer.name in affine}


def _finding(run: Run, found: list[_Layer], severity: Severity, left: float) -> Finding:
    worst = max(found, key=lambda f: f.level)
    first = min(found, key=lambda f: f.onset)
    onset = first.onset
    born = onset <= worst.zeros.span.first
    where = "from the start" if born else f"since {place(run, onset)}"
    rate = learning_rate(run)
    current = None if rate is None else float(rate.finite.at(np.array([onset]))[0]) if len(rate.finite) else None
    lower = lower_learning_rate(current=current if current and np.isfinite(current) else None)
    message = f"{worst.level:.0%} of the units of {{}} are dead {where} (layers more than half dead: {len(found)})"
    evidence = [Evidence.of(worst.zeros, f"{worst.zeros.values[-1]:.0%} zeros", "about half", ((onset, "units die"),))]
    if worst.dead is not None:
        evidence.insert(0, Evidence.of(worst.dead, f"{worst.level:.0%} of the units", "below a third"))
    could_be: tuple[str, ...] = () if born else ("lr-too-high",)
    settle_with = (
        "" if born else "train from scratch at a tenth of the rate for as long: units that stay alive settle it"
    )
    if severity is not Severity.ERROR:
        could_be += ("a net that is sparse by design",)
    if severity is Severity.WARNING and born:
        settle_with = f"train again with LeakyReLU: less than {left:.0%} of the untrained loss left settles it"
    return Finding(
        message=message.format(worst.name if len(message) + len(worst.name) <= 100 else "a layer"),
        severity=severity,
        confidence=Confidence.HIGH if layers_of(run) and severity is Severity.ERROR else Confidence.MEDIUM,
        span=Span(onset, max(onset, worst.zeros.span.last)),
        evidence=tuple(evidence),
        remedies=(rescale_initialisation(), keep_units_alive())
        if born
        else (lower, warm_up(), keep_units_alive(late=True)),
        could_be=could_be,
        settle_with=settle_with,
    )
