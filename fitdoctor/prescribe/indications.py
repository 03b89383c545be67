"""What a run itself calls for, before what a rule advises in general: what is measured to be off is mended first."""

from __future__ import annotations

import math

from fitdoctor.finding import Remedy
from fitdoctor.prescribe.patient import Patient
from fitdoctor.remedies import (
    add_capacity,
    inspect_batches,
    less_regularisation,
    lower_learning_rate,
    raise_learning_rate,
)
from fitdoctor.remedies.activations import normalise_inputs, rescale_initialisation, shrink_last_layer
from fitdoctor.remedies.optimizer import lower_weight_decay

SIZE = 10.0
"""Root mean square of the inputs beyond which (or below 1 / SIZE^2) they call for normalising, as in the probe
unnormalised-inputs."""

BY_SCALE = frozenset(
    {
        "wrong-initial-loss", "poor-init-scale", "exploding-gradients", "saturated-activations", "dead-relu",
        "lr-too-high", "loss-divergence", "vanishing-gradients", "no-learning", "class-collapse", "underfitting",
        "plateau", "gradient-spikes", "lr-too-low", "undertrained", "adam-epsilon-dominated", "input-collapse",
    }
)  # fmt: skip
"""What inputs far from unit scale bring about: outputs, gradients and curvature grow with them (LeCun et al. 1998)."""

BY_OUTPUTS = frozenset({"dead-relu", "lr-too-high", "loss-divergence", "exploding-gradients", "class-collapse"})
"""What the gradients of outputs that are large before anything was learned bring about."""

BY_OUTLIERS = BY_SCALE | {"loss-spikes", "repeated-batch-order", "adam-second-moment-lag"}
"""What batches with inputs of another size bring about, once or again and again."""

BY_DECAY = frozenset({"input-collapse", "dead-relu", "vanishing-gradients", "no-learning", "class-collapse"})
"""What weights that shrink to nothing bring about."""

BY_STEPS = frozenset(
    {"attention-entropy-collapse", "dead-relu", "saturated-activations", "input-collapse", "logit-drift"}
)
"""What steps that are too long bring about in the layers."""

LARGE = 3.0
"""Spread of the first outputs, in units of the targets' or of scores, from which they are large: a sound one is below
1, as in the rule wrong-initial-loss."""

USUAL = 1e-3
"""A step relative to the weights that trains (Karpathy, CS231n notes on training: about a thousandth)."""

FAR = 30.0
"""Factor from `USUAL` beyond which the length of the steps is what to change where nothing is learned."""


def called_for(patient: Patient) -> tuple[Remedy, ...]:
    """The remedies that the run calls for whatever the rule advises, the first first."""
    inputs = _normal_inputs(patient)
    scales = inputs or _sound_weights(patient) or _small_outputs(patient)
    rates = _lower_rate(patient) or _usual_steps(patient)
    data = (*scales, *_sound_batches(patient))
    return (*data, *_less_decay(patient), *_wide_enough(patient), *rates, *_free_units(patient))


def _normal_inputs(patient: Patient) -> tuple[Remedy, ...]:
    scale = patient.inputs
    off = scale is not None and not SIZE**-2 <= scale <= SIZE
    return (normalise_inputs(scale),) if off and patient.rule in BY_SCALE else ()


def _small_outputs(patient: Patient) -> tuple[Remedy, ...]:
    """Small first outputs, where the first loss was that of large ones and the first steps unlearned them."""
    size = patient.first_outputs
    if patient.rule not in BY_OUTPUTS or "wrong-initial-loss" not in patient.found or size is None or size < LARGE:
        return ()
    return (shrink_last_layer(0.3 / size),)


def _sound_weights(patient: Patient) -> tuple[Remedy, ...]:
    """All weights drawn anew where they began off scale, or where large outputs may come from others than the last."""
    off = patient.rule in BY_SCALE and patient.weights == "off"
    large = patient.rule == "wrong-initial-loss" and (patient.first_outputs or 0.0) > 1
    return (rescale_initialisation(),) if off or (large and patient.weights != "sound") else ()


def _sound_batches(patient: Patient) -> tuple[Remedy, ...]:
    return (inspect_batches(),) if patient.rule in BY_OUTLIERS and "outlying-batches" in patient.found else ()


def _less_decay(patient: Patient) -> tuple[Remedy, ...]:
    """Less weight decay where the weights were pulled to nothing and the layers with them."""
    caused = patient.rule in BY_DECAY and "weight-decay-too-high" in patient.found
    return (lower_weight_decay(patient.decay),) if caused and patient.decay else ()


def _wide_enough(patient: Patient) -> tuple[Remedy, ...]:
    """More units where there are too few for the classes."""
    slow = patient.rule in ("lr-too-low", "undertrained", "no-learning", "underfitting", "plateau")
    return (add_capacity(patient.bottleneck),) if slow and patient.bottleneck else ()


def _lower_rate(patient: Patient) -> tuple[Remedy, ...]:
    """A lower rate for what too long steps did to the layers in the course of the run."""
    late = patient.run.steps is not None and patient.onset > patient.run.steps.first
    if patient.rule not in BY_STEPS or "lr-too-high" not in patient.found or not late:
        return ()
    return (lower_learning_rate(patient.stable or 0.1, current=patient.rate),)


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
    slow = patient.rule in ("lr-too-low", "undertrained", "plateau") and patient.held_back
    # What learns nothing has to show first that it can learn without (Karpathy 2019, stage 3).
    return (less_regularisation(),) if patient.dropout and (slow or patient.rule == "no-learning") else ()
