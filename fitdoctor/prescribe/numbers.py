"""Remedies that a rule gave in general, with the numbers of the run."""

from __future__ import annotations

from fitdoctor.finding import Change, Remedy
from fitdoctor.prescribe.patient import Patient
from fitdoctor.remedies import (
    add_capacity,
    clip_gradients,
    decay_learning_rate,
    less_regularisation,
    lower_learning_rate,
    raise_learning_rate,
    warm_up,
)
from fitdoctor.remedies.optimizer import lower_weight_decay


def number_of(change: Change | None) -> float | None:
    """The value of a change where it is a number."""
    value = None if change is None else change.value
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def with_numbers(remedy: Remedy, patient: Patient) -> Remedy:
    """A remedy that a rule gave in general, with the numbers of this run."""
    change = remedy.change
    if change is not None and change.knob == "learning_rate" and change.op == "multiply" and patient.rate:
        factor = number_of(change) or 1.0
        for make in (lower_learning_rate, raise_learning_rate):
            if remedy == make(factor):
                return make(min(factor, patient.stable or 1.0) if factor < 1 else factor, current=patient.rate)
    if remedy == less_regularisation():
        return _weakened(patient) or remedy
    if remedy == add_capacity() and patient.bottleneck:
        return add_capacity(patient.bottleneck)
    if remedy == clip_gradients() and patient.sound_norm:
        return clip_gradients(patient.sound_norm)
    if patient.length is not None and patient.length >= 20:
        if remedy == warm_up():
            return warm_up(patient.length // 20)  # 5 %: the playbook stays below a tenth of the budget
        if remedy == decay_learning_rate():
            return decay_learning_rate(total=patient.length)
    return remedy


def _weakened(patient: Patient) -> Remedy | None:
    """Less of the regulariser that is there: dropout, else what of augmentation and weight decay shows in the run."""
    if patient.dropout is not False:
        return None
    if patient.held_back:
        return less_regularisation("augmentation")
    return lower_weight_decay(patient.decay) if patient.decay else None
