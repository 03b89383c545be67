"""What a run itself calls for, before what a rule advises in general: what is measured to be off is mended first."""

from __future__ import annotations

import math

from fitdoctor.finding import Remedy
from fitdoctor.prescribe.patient import Patient
from fitdoctor.remedies import less_regularisation, lower_learning_rate, raise_learning_rate
from fitdoctor.remedies.activations import normalise_inputs

SIZE = 10.0
"""Root mean square of the inputs beyond which (or below 1 / SIZE^2) they call for normalising, as in the probe
unnormalised-inputs."""

BY_SCALE = frozenset(
    {
        "wrong-initial-loss", "poor-init-scale", "exploding-gradients", "saturated-activations", "dead-relu",
        "lr-too-high", "loss-divergence", "vanishing-gradients", "no-learning",
    }
)  # fmt: skip
"""What inputs far from unit scale bring about: outputs, gradients and curvature grow with them (LeCun et al. 1998)."""

USUAL = 1e-3
"""A step relative to the weights that trains (Karpathy, CS231n notes on training: about a thousandth)."""

FAR = 30.0
"""Factor from `USUAL` beyond which the length of the steps is what to change where nothing is learned."""


def called_for(patient: Patient) -> tuple[Remedy, ...]:
    """The remedies that the run calls for whatever the rule advises, the first first."""
    return (*_normal_inputs(patient), *_usual_steps(patient), *_free_units(patient))


def _normal_inputs(patient: Patient) -> tuple[Remedy, ...]:
    scale = patient.inputs
    off = scale is not None and not SIZE**-2 <= scale <= SIZE
    return (normalise_inputs(scale),) if off and patient.rule in BY_SCALE else ()


def _usual_steps(patient: Patient) -> tuple[Remedy, ...]:
    """Another rate where nothing is learned and steps are of quite another length than those that train."""
    moved = patient.moved
    if patient.rule not in ("no-learning", "class-collapse") or not moved or 1 / FAR < moved / USUAL < FAR:
        return ()
    decades = max(-3, min(3, round(math.log10(USUAL / moved))))
    make = raise_learning_rate if decades > 0 else lower_learning_rate
    return (make(10.0**decades, current=patient.rate),)


def _free_units(patient: Patient) -> tuple[Remedy, ...]:
    """Less dropout where it is what holds the training loss up."""
    learns_little = patient.rule in ("lr-too-low", "no-learning", "undertrained", "plateau")
    return (less_regularisation(),) if learns_little and patient.dropout and patient.held_back else ()
