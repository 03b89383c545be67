"""ACT003 poor-init-scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import warm_up
from fitdoctor.remedies.activations import normalise_layers, rescale_initialisation
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import ACTIVATION_GRAD_RMS, ACTIVATION_RMS, ACTIVATION_SATURATED_FRACTION, LOSS, Signal
from fitdoctor.views.curves import chance_loss
from fitdoctor.views.depth import FIRST, DepthProfile, at_start, depth_profile, hidden_weights, layers_of
from fitdoctor.views.harm import Standing, need_standing


@rule(
    "ACT003",
    "poor-init-scale",
    needs=[(Signal(ACTIVATION_RMS, layer="*"), Signal(ACTIVATION_GRAD_RMS, layer="*")), LOSS],
    explains=[
        "exploding-gradients",
        "vanishing-gradients",
        "input-collapse",
        "dead-relu",
        "saturated-activations",
        "wrong-initial-loss",
        "nonfinite-loss",
        "hidden-nonfinite",
        "loss-divergence",
        "no-learning",
        "class-collapse",
        "plateau",
        "underfitting",
        "layerwise-update-imbalance",
        "adam-epsilon-dominated",
        "gradient-clipping-saturated",
        "lr-too-high",
        "gradscaler-stuck",
        "logit-drift",
        "attention-entropy-collapse",
    ],
    since="0.1.0",
)
def poor_init_scale(
    run: Run, *, slope: float = 0.1, growth: float = 2.0, decay: float = 3.0, order: float = 0.8, least: int = 4
) -> Iterator[Finding]:
    """Before the first step, signals already grow or fade by a constant factor per layer.

    Why it matters:
        What is multiplied by 0.4 in every layer is gone after ten. The output then hardly depends on the
        input, or the gradient that reaches the early layers on their weights; multiplied by 3, both overflow.
        The ratio of first to last weight gradient does not show it: in a net of ReLUs it stays near one.

    How it is measured:
        Over the first three records, on the layers with weights before the last one: the log of the root mean square
        of their outputs, and of the loss's gradient with respect to their outputs, against depth (slope by
        Theil and Sen). Growth of either along its own way counts from `growth` decades in all; fading from
        `decay` decades; both with at least `slope` decades per layer and a rank correlation of `order`.
        Fading gradients of nets with sigmoids or tanh are left to vanishing-gradients. An error when, beyond that,
        the final training loss is above 90 % of what a model that has learned nothing has, a warning above
        half, and else a note.

    Options:
        slope: least change per layer, in decades.
        growth: least growth over all layers, in decades.
        decay: least fading over all layers, in decades.
        order: least rank correlation of depth and value.
        least: fewest layers with weights before the last one.

    When it is wrong:
        In convolutional nets pooling spreads a gradient over many positions, which fades it by up to two decades
        without harm. Residual nets without normalisation grow with depth; that is reported only as a constant
        factor per layer. An optimizer that rescales each layer's step, or normalisation, can train through
        it: then it is a note.

    What to do:
        He initialisation for ReLU-like activations, Xavier for tanh, or normalisation between layers. PyTorch's
        default for linear layers shrinks ReLU nets by about 0.4 per layer.

    References:
        Glorot and Bengio 2010; He et al. 2015; Mishkin and Matas 2016 (LSUV). Of 22 sound trainings of nets of 2
        to 16 layers (plain, convolutional, residual, recurrent, attention), outputs changed by less than 1
        and gradients faded by at most 2.5 decades; the limits lie beyond.
    """
    outputs, gradients = hidden_weights(run, ACTIVATION_RMS), hidden_weights(run, ACTIVATION_GRAD_RMS)
    if max(len(outputs), len(gradients)) < least:
        raise CannotJudge(f"outputs of {max(len(outputs), len(gradients))} layers with weights, {least} are needed")
    if not at_start(run, [*outputs, *gradients]):
        raise CannotJudge("the log does not hold the first steps of the layers' outputs")
    stand = need_standing(run)
    forward = depth_profile(outputs, records=FIRST, least=least)
    backward = depth_profile(gradients, records=FIRST, least=least)
    squashing = any(x.role == "saturating" or x.after == "saturating" for x in layers_of(run)) or bool(
        run.layers(ACTIVATION_SATURATED_FRACTION)
    )
    faults = []
    if forward is not None:
        faults += [_Fault(forward, "outputs grow", growth, 1), _Fault(forward, "outputs fade", decay, -1)]
    if backward is not None:  # gradients travel from the last layer to the first
        faults += [_Fault(backward, "gradients grow", growth, -1)]
        faults += [] if squashing else [_Fault(backward, "gradients fade", decay, 1)]
    found = [f for f in faults if f.holds(slope, order)]
    if found:
        yield _finding(run, stand, found)


@dataclass(frozen=True, slots=True)
class _Fault:
    """One way in which a signal may change along depth.

    Attributes:
        profile: the signal along depth, input first.
        words: what it does.
        least: decades from which it counts.
        sign: 1 when it counts as a rise from input to output, -1 as a fall.
    """

    profile: DepthProfile
    words: str
    least: float
    sign: int

    @property
    def decades(self) -> float:
        return self.sign * self.profile.total

    def holds(self, slope: float, order: float) -> bool:
        p = self.profile
        return self.decades >= self.least and abs(p.slope) >= slope and abs(p.order) >= order

    def evidence(self) -> Evidence:
        outputs = "outputs" in self.words
        way, per_layer = ("output", self.profile.slope) if outputs else ("input", -self.profile.slope)
        return Evidence.of(
            self.profile.layers[-1 if outputs else 0],
            f"{self.words} {10**per_layer:.2g}-fold per layer towards the {way}: {self.profile}",
            "within one decade over all layers",
        )


def _finding(run: Run, stand: Standing, found: list[_Fault]) -> Finding:
    worst = max(found, key=lambda f: f.decades / f.least)
    profile = worst.profile
    severity = Severity.ERROR if stand.idle else Severity.WARNING if stand.unsolved else Severity.NOTE
    chance = chance_loss(run)
    untrained = f"{stand.curve.start:.4g} at the start" + ("" if chance is None else f", {chance:.4g} by guessing")
    first = min(s.span.first for s in profile.layers)
    evidence = [f.evidence() for f in found]
    evidence.append(Evidence.of(stand.curve.series, f"{stand.curve.final:.4g} at the end", f"far below {untrained}"))
    return Finding(
        message=f"at the start {worst.words} {worst.decades:.1f} decades over {len(profile.logs)} layers",
        severity=severity,
        confidence=Confidence.HIGH if layers_of(run) else Confidence.MEDIUM,
        span=Span(first, first),
        evidence=tuple(evidence),
        remedies=(rescale_initialisation(_factor(found)), normalise_layers(), warm_up()),
        settle_with="" if layers_of(run) else "fitdoctor.attach names the layers in their order; 20 steps settle it",
    )


def _factor(found: list[_Fault]) -> float | None:
    """What each layer's weights would have to be multiplied with, where outputs or ReLU nets' gradients tell."""
    shift = next((f.profile.slope if "outputs" in f.words else -f.profile.slope for f in found), None)
    return None if shift is None else 10**-shift
