"""What prescribing asks of a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fitdoctor.run import Run
from fitdoctor.signals import ACCURACY, GRAD_NORM, LOGIT_STD, LOSS, PROBE_LOSS, TARGET_STD, UPDATE_RATIO, WEIGHT_NORM
from fitdoctor.views.curves import Curve, begins_at_start, classes, find_curve, held_out, learning_rate
from fitdoctor.views.depth import at_start, bottleneck, layers_of, weight_of
from fitdoctor.views.inputs import input_scale
from fitdoctor.views.plans import planned_length
from fitdoctor.views.schedules import Schedule, recognise
from fitdoctor.views.steps import Quality, first_updates, power_of_two, stable_edge, step_quality

HIGH = 0.5
"""A training loss that ends above this share of its first value is high: most of the task is not learned."""

ANNEALED = 0.3
"""Share of its peak below which a learning rate counts as annealed, as in `fitdoctor.views.curves.rate_left`."""

HELD = 0.1
"""Share of the first training loss by which the last one is higher in training mode than in evaluation mode, from which
on it is regularisation that holds it up. (Dropout of 0.1 to 0.4 in small sound nets: 1 to 10 %.)"""


@dataclass(frozen=True)  # without slots: cached_property needs a __dict__
class Patient:
    """What is asked of a run, each worked out at most once.

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
    def inputs(self) -> float | None:
        """Root mean square of the inputs of the first layer."""
        return input_scale(self.run)

    @cached_property
    def first_outputs(self) -> float | None:
        """Standard deviation of the untrained outputs, in units of that of the targets where they have one."""
        outputs, targets = self.run.get(LOGIT_STD), self.run.get(TARGET_STD)
        if outputs is None or not at_start(self.run, (outputs,)):
            return None
        unit = float(np.median(targets.finite.values)) if targets is not None and len(targets.finite) else 1.0
        size = float(outputs.values[0]) / unit if unit > 0 else np.nan
        return size if np.isfinite(size) else None

    @cached_property
    def weights(self) -> Literal["sound", "off", "unknown"]:
        """Whether the weights of all layers but the last begin at a usual scale.

        The norm of a unit's weights: 0.6 as torch draws them, 1 by Xavier, 1.4 by He.
        """
        layers = layers_of(self.run)
        affine = [layer for layer in layers if layer.role == "affine"]
        norms = {n: s for n, s in self.run.layers(WEIGHT_NORM).items() if not n.endswith("bias")}
        hidden = {weight_of(layer, norms): layer.outputs for layer in affine[:-1]}
        if not hidden or "" in hidden or min(hidden.values()) < 1 or not at_start(self.run, norms.values()):
            return "unknown"
        if not all(0.1 < norms[n].values[0] / units**0.5 < 3 for n, units in hidden.items()):
            return "off"
        known = {*hidden, *(weight_of(layer, norms) for layer in layers if layer.role in ("affine", "norm"))}
        return "sound" if set(norms) <= known else "unknown"  # a recurrent cell, an attention: of how many units?

    @cached_property
    def moved(self) -> float | None:
        """Median length of a step relative to the weights."""
        ratio = self.run.get(UPDATE_RATIO)
        return None if ratio is None or len(ratio.finite) < 5 else float(np.median(ratio.finite.values))

    @cached_property
    def quality(self) -> Quality | None:
        """Actual over promised decrease of the loss by a step, where the hooks measured it."""
        return step_quality(self.run)

    @cached_property
    def stable(self) -> float | None:
        """What to multiply a rate with that the first steps showed to be more than ten times too high; None otherwise.

        A third of the stable rate, or what makes the first updates a tenth of the weights.
        """
        edge, first = stable_edge(self.run), first_updates(self.run)
        factors = [edge / 3] if edge is not None and edge > 0 else []
        factors += [0.1 / first] if first is not None and first > 1 else []
        least = min(factors, default=1.0)
        return max(float(f"{least:.1g}"), 1e-3) if least < 0.1 else None

    @cached_property
    def dropout(self) -> bool | None:
        """Whether the model has dropout layers; None where that is not known."""
        count = self.run.facts.get("dropout_layers")
        return count > 0 if isinstance(count, int) and not isinstance(count, bool) else None

    @cached_property
    def decay(self) -> float | None:
        """The weight decay."""
        known = self.run.facts.get("weight_decay")
        return float(known) if isinstance(known, (int, float)) and known > 0 else None

    @cached_property
    def held_back(self) -> bool:
        """Whether the loss in training mode ends far above that of the fixed batch in evaluation mode."""
        free = find_curve(self.run, PROBE_LOSS)
        if self.train is None or free is None or self.train.start <= 0:
            return False
        return self.train.final - free.final > HELD * self.train.start

    @cached_property
    def bottleneck(self) -> int | None:
        """By how much wider the last hidden layer should be, at least 4; None where it is wide enough for its classes.

        Twice as many units as classes are asked.
        """
        known, last = classes(self.run), bottleneck(self.run)
        return None if known is None or last is None else max(4, power_of_two(2 * known / last.inputs))

    @cached_property
    def broken_at_first(self) -> bool:
        """Whether the training loss of the first step is not finite."""
        loss = self.run.get(LOSS)
        if loss is None or loss.per != "step" or not len(loss) or not begins_at_start(self.run, loss):
            return False
        return not np.isfinite(loss.values[0])

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
