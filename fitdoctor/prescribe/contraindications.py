"""Why a remedy does not suit a run: each a function of the remedy and of the run that gives the reason, or ""."""

from __future__ import annotations

from collections.abc import Callable

from fitdoctor.finding import Remedy
from fitdoctor.prescribe.kinds import kind_of
from fitdoctor.prescribe.numbers import number_of
from fitdoctor.prescribe.patient import Patient

SMOOTH_DECAYS = frozenset({"cosine", "linear", "polynomial", "one-cycle"})

BUGS = frozenset(
    {
        "memorisation-label-noise", "missing-zero-grad", "no-parameter-updates", "frozen-or-unused-parameters",
        "optimizer-missing-params", "double-softmax", "loss-target-mismatch",
    }
)  # fmt: skip
"""Faults that a larger model would share."""

LOW, TALL = 0.1, 5.0
"""Root mean squares between which inputs count as normalised: pixels from 0 to 1 have 0.3 to 0.6, others 1."""

SHORT = 0.95
"""Least step quality in both halves of a run whose steps are short, as in the rule lr-too-low."""

Against = Callable[[Remedy, Patient], str]


def _turns(remedy: Remedy, knob: str, *, down: bool) -> bool:
    """Whether a remedy turns a knob down, or up."""
    change, value = remedy.change, number_of(remedy.change)
    if change is None or change.knob != knob or value is None:
        return False
    return change.op == "multiply" and (value < 1) is down


def _already_so(remedy: Remedy, patient: Patient) -> str:
    change = remedy.change
    if change is None or change.knob not in patient.run.facts:
        return ""
    fact = patient.run.facts[change.knob]
    if change.op == "enable" and fact is True:
        return f"{change.knob} is on already"
    if change.op == "disable" and fact is False:
        return f"{change.knob} is off already"
    return f"{change.knob} is {fact} already" if change.op == "set" and fact == change.value else ""


def _smaller_model_while_unfitted(remedy: Remedy, patient: Patient) -> str:
    if not any(_turns(remedy, knob, down=True) for knob in ("width", "depth")):
        return ""
    if "memorisation-label-noise" in patient.found:
        return "with wrong labels the test error can fall again with size (double descent)"
    return patient.high


def _larger_model_while_broken(remedy: Remedy, patient: Patient) -> str:
    if not any(_turns(remedy, knob, down=False) for knob in ("width", "depth")):
        return ""
    suspects = patient.found & BUGS
    return f"{min(suspects)} comes first: a larger model would share the fault" if suspects else ""


def _regularising_what_is_not_fitted(remedy: Remedy, patient: Patient) -> str:
    """Regularisation that is turned up, or on, while the training data is not fitted."""
    change, value = remedy.change, number_of(remedy.change)
    if kind_of(remedy) != "regularisation" or change is None or change.op == "disable" or value == 0:
        return ""
    had = patient.run.facts.get(change.knob) if change.op == "set" else 1.0
    less = value is not None and isinstance(had, (int, float)) and value < had
    return "" if less else patient.high


def _clipping_most_steps(remedy: Remedy, patient: Patient) -> str:
    change, norm = remedy.change, number_of(remedy.change)
    if change is None or change.knob != "clip_norm" or change.op != "set" or norm is None:
        return ""
    if patient.rule == "gradient-clipping-saturated":
        return ""  # it is raised: less is cut than now
    share = patient.share_above(norm)
    # Above one half the playbook calls it "extremely aggressive": the threshold would set the step, not the gradient.
    return f"it would cut {share:.0%} of the steps: the learning rate is the cause then" if share > 0.5 else ""


def _lower_rate_for_benign_oscillation(remedy: Remedy, patient: Patient) -> str:
    if not _turns(remedy, "learning_rate", down=True) or "edge-of-stability" not in patient.found:
        return ""
    if patient.found & {"lr-too-high", "loss-divergence", "nonfinite-loss", "exploding-gradients"}:
        return ""
    return "the loss oscillates and keeps falling, as it does at the largest rate that is stable"


def _higher_rate_in_fine_tuning(remedy: Remedy, patient: Patient) -> str:
    tuned = patient.run.facts.get("pretrained") is True
    return "the weights are pretrained: small rates keep what they know" if (
        tuned and _turns(remedy, "learning_rate", down=False)
    ) else ""  # fmt: skip


def _warm_up_that_is_there(remedy: Remedy, patient: Patient) -> str:
    change, steps, schedule = remedy.change, number_of(remedy.change), patient.schedule
    if change is None or change.knob != "warmup_steps" or steps is None or schedule is None:
        return ""
    if "warmup-too-long" in (patient.rule, *patient.found) or schedule.warmup_steps < steps:
        return ""
    return f"the rate already warms up over {schedule.warmup_steps} steps"


def _decay_that_is_there(remedy: Remedy, patient: Patient) -> str:
    """Another decay for a run that was annealed to its end."""
    change, schedule = remedy.change, patient.schedule
    if change is None or change.knob != "schedule" or schedule is None or schedule.kind not in SMOOTH_DECAYS:
        return ""
    early = patient.found & {"lr-decay-too-early", "scheduler-misstepped"}
    annealed = schedule.final <= 0.1 * schedule.peak and not early
    return f"the rate is already annealed ({schedule})" if annealed else ""


def _stopping_before_annealing(remedy: Remedy, patient: Patient) -> str:
    change, schedule = remedy.change, patient.schedule
    if change is None or change.knob != "early_stopping_patience" or schedule is None:
        return ""
    if schedule.kind not in SMOOTH_DECAYS or not patient.best_before_annealed:
        return ""
    return "it would stop before the rate has annealed; plan a shorter schedule instead"


def _batch_size_for_generalisation(remedy: Remedy, patient: Patient) -> str:
    change = remedy.change
    fit = patient.rule in ("overfitting", "overconfidence-drift", "memorisation-label-noise")
    if change is None or change.knob != "batch_size" or not fit:
        return ""
    return "with the other settings tuned anew, batch size does not limit generalisation (Shallue et al. 2019)"


def _accumulation_for_batch_norm(remedy: Remedy, patient: Patient) -> str:
    change = remedy.change
    if change is None or change.knob != "gradient_accumulation_steps" or patient.rule != "batchnorm-tiny-batch":
        return ""
    return "batch norm sees each small batch alone, accumulated or not"


def _inputs_that_are_normalised(remedy: Remedy, patient: Patient) -> str:
    change, scale = remedy.change, patient.inputs
    if change is None or change.knob != "input_normalisation" or scale is None or not LOW < scale < TALL:
        return ""
    return f"the inputs have the scale {scale:.2g} already"


def _regulariser_that_is_not_there(remedy: Remedy, patient: Patient) -> str:
    change = remedy.change
    if change is None or change.knob != "dropout" or number_of(change) != 0 or patient.dropout is not False:
        return ""
    return "the model has no dropout, and the optimizer no weight decay"


def _rate_before_any_step(remedy: Remedy, patient: Patient) -> str:
    """Whatever acts on steps cannot mend a loss that was not finite before the first."""
    change = remedy.change
    knobs = ("learning_rate", "warmup_steps", "clip_norm")
    if change is None or change.knob not in knobs or patient.rule != "nonfinite-loss" or not patient.broken_at_first:
        return ""
    return "the loss was not finite before the first step"


def _lower_rate_for_short_steps(remedy: Remedy, patient: Patient) -> str:
    if not _turns(remedy, "learning_rate", down=True) or patient.quality is None or "lr-too-high" in patient.found:
        return ""
    if patient.rule not in ("gradient-clipping-saturated", "loss-spikes", "class-collapse"):
        return ""  # the others have their own evidence that steps were too long, once or for good
    short = min(patient.quality.early, patient.quality.late) >= SHORT
    return f"steps are short already (step quality {patient.quality.late:.2f}, 1 at rates near 0)" if short else ""


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
    _inputs_that_are_normalised,
    _regulariser_that_is_not_there,
    _rate_before_any_step,
    _lower_rate_for_short_steps,
)
"""Each takes a remedy and the run, and gives the reason against it, or ""."""
