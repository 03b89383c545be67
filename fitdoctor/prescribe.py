"""Which of the advised remedies fit a run, and in which order: `prescribe(finding, ...) -> Finding`.

A rule advises what helps against what it found. Whether a remedy suits this run depends on more than the rule has
looked at: clipping does not help where most steps would be clipped, a smaller model does not help where the training
data is not fitted. Such contra-indications are functions of the run, below; a remedy that meets one is taken out, and
the finding says so. What is left gets its numbers from the run, and is put in the order of evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fitdoctor.finding import Change, Finding, Remedy, RemedyKind
from fitdoctor.knobs import KNOBS
from fitdoctor.remedies import (
    clip_gradients,
    decay_learning_rate,
    lower_learning_rate,
    raise_learning_rate,
    warm_up,
)
from fitdoctor.run import Run
from fitdoctor.signals import ACCURACY, GRAD_NORM, LOSS
from fitdoctor.views.curves import Curve, find_curve, held_out, learning_rate
from fitdoctor.views.plans import planned_length
from fitdoctor.views.schedules import Schedule, recognise

ORDER: tuple[RemedyKind, ...] = (
    "free", "bug", "data", "memory", "initialisation", "learning rate", "clipping", "regularisation", "capacity",
    "stopping",
)  # fmt: skip
"""Kinds of remedies in the order of evidence: bug fixes before data, data before normalisation and initialisation,
these before the learning rate, then clipping, regularisation, capacity (Karpathy 2019; Godbole et al. 2023, Deep
Learning Tuning Playbook). What costs nothing goes first, stopping early last: it gives up the rest of the budget."""

SYMPTOMS = frozenset({"loss", "fit", "numerics"})
"""Families whose rules see what went wrong, not why: their remedies follow the evidence alone. The other rules have
measured a cause; what they advise first undoes it, and its kind leads."""

HIGH = 0.5
"""A training loss that ends above this share of its first value is high: most of the task is not learned."""

ANNEALED = 0.3
"""Share of its peak below which a learning rate counts as annealed, as in `fitdoctor.views.curves.rate_left`."""

SMOOTH_DECAYS = frozenset({"cosine", "linear", "polynomial", "one-cycle"})

BUGS = frozenset(
    {
        "memorisation-label-noise", "missing-zero-grad", "no-parameter-updates", "frozen-or-unused-parameters",
        "optimizer-missing-params", "double-softmax", "loss-target-mismatch",
    }
)  # fmt: skip
"""Faults that a larger model would share."""

COMMAND = "`fitdoctor compare BEFORE AFTER`"
CHECK = "`fitdoctor preflight` once more"


def prescribe(finding: Finding, run: Run, *, family: str = "", found: Collection[str] = ()) -> Finding:
    """The finding with the remedies that suit the run, the best first.

    Args:
        finding: what a rule found.
        run: the run that it was found in.
        family: family of the rule.
        found: names of all rules that found something in the run.
    """
    if not finding.remedies:
        return finding
    patient = _Patient(run, finding.rule, frozenset(found), finding.onset)
    fitting, ruled_out = [], []
    for general in finding.remedies:
        remedy = _with_numbers(general, patient)
        reason = next((why for against in CONTRAINDICATIONS if (why := against(remedy, patient))), "")
        if reason:
            ruled_out.append(f"{remedy.title}: {reason}")
        else:
            fitting.append(_checkable(remedy, CHECK if run.source == "preflight" else COMMAND))
    ordered = in_order(fitting, family=family)
    return replace(finding, remedies=tuple(ordered), ruled_out=tuple(ruled_out))


def in_order(remedies: Collection[Remedy], *, family: str = "") -> list[Remedy]:
    """Remedies by the strength of the evidence for their kind; among one kind as the rule gave them."""
    if not remedies:
        return []
    lead = "" if family in SYMPTOMS else kind_of(next(iter(remedies)))
    return sorted(remedies, key=lambda r: (kind_of(r) not in (lead, "free"), ORDER.index(kind_of(r))))


def kind_of(remedy: Remedy) -> RemedyKind:
    """What a remedy changes, by its own word or by the knob it turns."""
    if remedy.kind:
        return remedy.kind
    return "bug" if remedy.change is None or remedy.change.knob not in KNOBS else KNOBS[remedy.change.knob].kind


def _checkable(remedy: Remedy, command: str) -> Remedy:
    """The remedy with a command that shows whether it worked."""
    if not remedy.confirm or "`" in remedy.confirm:
        return remedy
    return replace(remedy, confirm=f"{remedy.confirm} ({command})")


# --- contra-indications -------------------------------------------------------------------------------


@dataclass(frozen=True)  # without slots: cached_property needs a __dict__
class _Patient:
    """What the contra-indications ask of a run, each worked out at most once.

    Attributes:
        run: the run.
        rule: the rule whose remedies are looked at.
        found: names of all rules that found something.
        onset: step at which the finding began.
    """

    run: Run
    rule: str
    found: frozenset[str]
    onset: int

    @cached_property
    def train(self) -> Curve | None:
        return find_curve(self.run, LOSS)

    @cached_property
    def high(self) -> str:
        """Why the training data counts as not fitted, or ""."""
        accuracy = self.run.get(ACCURACY)
        if accuracy is not None and len(accuracy.finite):
            last = float(np.median(accuracy.finite.values[-3:]))
            if last > 0.9:
                return ""  # a loss with a floor, such as one with label smoothing
        curve = self.train
        if curve is None or curve.start <= 0 or curve.final <= HIGH * curve.start:
            return ""
        return f"the training loss itself is high: {curve.final:.3g} at the end, {curve.start:.3g} at the start"

    @cached_property
    def schedule(self) -> Schedule | None:
        rate = learning_rate(self.run)
        return None if rate is None else recognise(rate)

    @cached_property
    def rate(self) -> float | None:
        """The peak learning rate, or the configured one."""
        if self.schedule is not None:
            return self.schedule.peak if self.schedule.peak > 0 else None
        known = self.run.facts.get("learning_rate")
        return float(known) if isinstance(known, (int, float)) and known > 0 else None

    @cached_property
    def length(self) -> int | None:
        """Optimizer steps of the whole run; None where the log counts epochs."""
        if self.run.step_unit != "step" or self.run.steps is None:
            return None
        return planned_length(self.run) or (self.run.steps.last if self.run.finished is not False else None)

    @cached_property
    def sound_norm(self) -> float | None:
        """90th percentile of the gradient norms before the finding began, or of all where those are too few."""
        norms = self.run.get(GRAD_NORM)
        if norms is None:
            return None
        before = norms.finite.between(norms.span.first, self.onset - 1).values
        values = before if len(before) >= 20 else norms.finite.values
        return float(np.quantile(values, 0.9)) if len(values) >= 20 and values.max() > 0 else None

    def share_above(self, norm: float) -> float:
        """Share of the steps after the first tenth whose gradient norm lies above a value; 0 when not logged."""
        series = self.run.get(GRAD_NORM)
        if series is None or len(series.finite) < 20:
            return 0.0
        values = series.finite.values
        return float(np.mean(values[len(values) // 10 :] > norm))

    @cached_property
    def best_before_annealed(self) -> bool:
        """Whether the best held-out loss came while the rate was still above a third of its peak."""
        split = held_out(self.run)
        curve = find_curve(self.run, LOSS, split) if split else None
        rate = learning_rate(self.run)
        if curve is None or rate is None or not len(rate.finite):
            return False
        values = rate.finite
        at_best = float(values.at(np.array([curve.best_step]))[0])
        return at_best > ANNEALED * float(values.values.max())


def _with_numbers(remedy: Remedy, patient: _Patient) -> Remedy:
    """A remedy that a rule gave in general, with the numbers of this run."""
    change = remedy.change
    if change is not None and change.knob == "learning_rate" and change.op == "multiply" and patient.rate:
        factor = _number(change) or 1.0
        for make in (lower_learning_rate, raise_learning_rate):
            if remedy == make(factor):
                return make(factor, current=patient.rate)
    if remedy == clip_gradients() and patient.sound_norm:
        return clip_gradients(patient.sound_norm)
    if patient.length is not None and patient.length >= 20:
        if remedy == warm_up():
            return warm_up(patient.length // 20)  # 5 %: the playbook stays below a tenth of the budget
        if remedy == decay_learning_rate():
            return decay_learning_rate(total=patient.length)
    return remedy


Against = Callable[[Remedy, _Patient], str]


def _number(change: Change | None) -> float | None:
    value = None if change is None else change.value
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _turns(remedy: Remedy, knob: str, *, down: bool) -> bool:
    """Whether a remedy turns a knob down, or up."""
    change, value = remedy.change, _number(remedy.change)
    if change is None or change.knob != knob or value is None:
        return False
    return change.op == "multiply" and (value < 1) is down


def _already_so(remedy: Remedy, patient: _Patient) -> str:
    change = remedy.change
    if change is None or change.knob not in patient.run.facts:
        return ""
    fact = patient.run.facts[change.knob]
    if change.op == "enable" and fact is True:
        return f"{change.knob} is on already"
    if change.op == "disable" and fact is False:
        return f"{change.knob} is off already"
    return f"{change.knob} is {fact} already" if change.op == "set" and fact == change.value else ""


def _smaller_model_while_unfitted(remedy: Remedy, patient: _Patient) -> str:
    if not any(_turns(remedy, knob, down=True) for knob in ("width", "depth")):
        return ""
    if "memorisation-label-noise" in patient.found:
        return "with wrong labels the test error can fall again with size (double descent)"
    return patient.high


def _larger_model_while_broken(remedy: Remedy, patient: _Patient) -> str:
    if not any(_turns(remedy, knob, down=False) for knob in ("width", "depth")):
        return ""
    suspects = patient.found & BUGS
    return f"{min(suspects)} comes first: a larger model would share the fault" if suspects else ""


def _regularising_what_is_not_fitted(remedy: Remedy, patient: _Patient) -> str:
    """Regularisation that is turned up, or on, while the training data is not fitted."""
    change, value = remedy.change, _number(remedy.change)
    if kind_of(remedy) != "regularisation" or change is None or change.op == "disable" or value == 0:
        return ""
    return "" if change.op == "multiply" and value is not None and value < 1 else patient.high


def _clipping_most_steps(remedy: Remedy, patient: _Patient) -> str:
    change, norm = remedy.change, _number(remedy.change)
    if change is None or change.knob != "clip_norm" or change.op != "set" or norm is None:
        return ""
    share = patient.share_above(norm)
    # Above one half the playbook calls it "extremely aggressive": the threshold would set the step, not the gradient.
    return f"it would cut {share:.0%} of the steps: the learning rate is the cause then" if share > 0.5 else ""


def _lower_rate_for_benign_oscillation(remedy: Remedy, patient: _Patient) -> str:
    if not _turns(remedy, "learning_rate", down=True) or "edge-of-stability" not in patient.found:
        return ""
    if patient.found & {"lr-too-high", "loss-divergence", "nonfinite-loss", "exploding-gradients"}:
        return ""
    return "the loss oscillates and keeps falling, as it does at the largest rate that is stable"


def _higher_rate_in_fine_tuning(remedy: Remedy, patient: _Patient) -> str:
    tuned = patient.run.facts.get("pretrained") is True
    return "the weights are pretrained: small rates keep what they know" if (
        tuned and _turns(remedy, "learning_rate", down=False)
    ) else ""  # fmt: skip


def _warm_up_that_is_there(remedy: Remedy, patient: _Patient) -> str:
    change, steps, schedule = remedy.change, _number(remedy.change), patient.schedule
    if change is None or change.knob != "warmup_steps" or steps is None or schedule is None:
        return ""
    if "warmup-too-long" in (patient.rule, *patient.found) or schedule.warmup_steps < steps:
        return ""
    return f"the rate already warms up over {schedule.warmup_steps} steps"


def _decay_that_is_there(remedy: Remedy, patient: _Patient) -> str:
    """Another decay for a run that was annealed to its end."""
    change, schedule = remedy.change, patient.schedule
    if change is None or change.knob != "schedule" or schedule is None or schedule.kind not in SMOOTH_DECAYS:
        return ""
    early = patient.found & {"lr-decay-too-early", "scheduler-misstepped"}
    annealed = schedule.final <= 0.1 * schedule.peak and not early
    return f"the rate is already annealed ({schedule})" if annealed else ""


def _stopping_before_annealing(remedy: Remedy, patient: _Patient) -> str:
    change, schedule = remedy.change, patient.schedule
    if change is None or change.knob != "early_stopping_patience" or schedule is None:
        return ""
    if schedule.kind not in SMOOTH_DECAYS or not patient.best_before_annealed:
        return ""
    return "it would stop before the rate has annealed; plan a shorter schedule instead"


def _batch_size_for_generalisation(remedy: Remedy, patient: _Patient) -> str:
    change = remedy.change
    fit = patient.rule in ("overfitting", "overconfidence-drift", "memorisation-label-noise")
    if change is None or change.knob != "batch_size" or not fit:
        return ""
    return "with the other settings tuned anew, batch size does not limit generalisation (Shallue et al. 2019)"


def _accumulation_for_batch_norm(remedy: Remedy, patient: _Patient) -> str:
    change = remedy.change
    if change is None or change.knob != "gradient_accumulation_steps" or patient.rule != "batchnorm-tiny-batch":
        return ""
    return "batch norm sees each small batch alone, accumulated or not"


CONTRAINDICATIONS: tuple[Against, ...] = (
    _already_so,
    _smaller_model_while_unfitted,
    _larger_model_while_broken,
    _regularising_what_is_not_fitted,
    _clipping_most_steps,
    _lower_rate_for_benign_oscillation,
    _higher_rate_in_fine_tuning,
    _warm_up_that_is_there,
    _decay_that_is_there,
    _stopping_before_annealing,
    _batch_size_for_generalisation,
    _accumulation_for_batch_norm,
)
"""Each takes a remedy and the run, and gives the reason against it, or ""."""
