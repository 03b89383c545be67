"""Does the first remedy work? It is applied by a program and the run is trained again, on a seed that nobody has seen.

What counts is what the training delivers on the oracle set: its loss, or its errors where the fault makes losses
incomparable. Where the fault is in the validation set, it is what the validation loss tells: how far it ends from the
oracle loss. A remedy works when it closes at least half of the gap between the sick run and the best single
intervention that is known (the program without the fault; else the best rate of the grid or whatever of
`plan.interventions` ends lowest), and does harm when the run ends worse than without it by more than the noise between
seeds. Where the sick run of the fresh seed ends no worse than the best, there is no gap to close, whatever is advised.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.accuracy.ward.arms import Said
from benchmarks.accuracy.ward.nets import ACTIVATIONS
from benchmarks.accuracy.ward.plan import Case, interventions
from benchmarks.accuracy.ward.recipe import Recipe
from benchmarks.accuracy.ward.store import Store
from benchmarks.accuracy.ward.training import Outcome
from benchmarks.accuracy.ward.truth import Truth, reference, scale

FRESH = 7000
"""Added to the seed of a run for its repair: no diagnosis has seen a run of that seed."""

Turn = Callable[[Recipe, object], dict[str, object]]
Measure = Literal["loss", "errors", "shift"]
"""What a training delivers: oracle loss, oracle errors, or the distance between validation and oracle loss."""


def _times(field: str) -> Turn:
    """A knob that is a field of the recipe: "set" gives the value, "multiply" a factor (see `applied`)."""
    return lambda recipe, value: {field: value}


def _fixed(**fields: object) -> Turn:
    return lambda recipe, value: fields


def _whole_length(recipe: Recipe, value: object) -> dict[str, object]:
    """A scheduler with the length of the run: what it does last, such as a cut, it does at the end."""
    kind = "constant" if recipe.schedule.startswith("early") else recipe.schedule
    return {"schedule": kind, "schedule_epochs": 0, "scheduler_every": ""}


def _decay(recipe: Recipe, value: object) -> dict[str, object]:
    """A decay over the whole run."""
    kind = {"multi-step": "step"}.get(str(value), str(value))
    return _whole_length(recipe, value) | {"schedule": kind}


def _drawn_anew(recipe: Recipe, value: object) -> dict[str, object]:
    """All weights drawn anew, by a scheme or as the framework does."""
    undone = {"gain": 1.0, "output_gain": 1.0, "constant_init": 0.0, "bias_shift": 0.0}
    return undone | {"initialisation": "" if value == "default" else value}


def _weight_decay(recipe: Recipe, value: object) -> dict[str, object]:
    """AdamW takes 0.01 where a recipe says nothing."""
    return {"weight_decay": float(str(value)) or (1e-12 if recipe.opt == "adamw" else 0.0)}


KNOBS: dict[str, Turn] = {
    "learning_rate": _times("lr"),
    "clip_norm": _times("clip"),
    "epochs": lambda r, v: {"epochs": max(round(float(v)), 1), "schedule_epochs": 0},
    "batch_size": _times("batch"),
    "weight_decay": _weight_decay,
    "dropout": _times("dropout"),
    "width": _times("width"),
    "depth": _times("depth"),
    "eps": _times("eps"),
    "beta2": _times("beta2"),
    "label_smoothing": _times("smoothing"),
    "output_gain": _times("output_gain"),
    "zero_grad": _fixed(zero_every=1),
    "train_mode": _fixed(stays_eval=0.0),
    "eval_mode": _fixed(never_eval=False),
    "eval_no_grad": _fixed(grad_in_eval=False),
    "accumulated_loss": _fixed(undivided=False),
    "retained_loss": _fixed(keep_losses=False),
    "optimizer_parameters": _fixed(left_out=0.0, wrong_parameters=False),
    "loss_graph": _fixed(frozen=0.0),
    "trainable_parameters": _fixed(frozen=0.0),
    "resume_state": lambda r, v: {"restart": "with-state"} if r.restart else {},
    "loss_input": _fixed(loss_input=""),
    "loss_shapes": _fixed(loss_input=""),
    "output_activation": _fixed(loss_input=""),
    "labels": _fixed(random_labels=False),
    "class_weights": _fixed(loss_weights=True),
    "shuffle": _fixed(fixed_order=False, sorted_batches=0.0),
    "nonfinite_examples": _fixed(bad_rows=0),
    "outlying_examples": _fixed(outlier=0.0),
    "input_normalisation": _fixed(input_scale=1.0),
    "n_train": _fixed(n_train=0),
    "preprocessing": _fixed(val_shift=0.0),
    "split": _fixed(val_shift=0.0),
    "initialisation": _drawn_anew,
    "normalisation": lambda r, v: {"normalisation": v},
    "residual_connections": _fixed(residual=True),
    "activation": lambda r, v: {"activation": {"leaky_relu": "leaky"}.get(str(v), str(v))},
    "precision": _fixed(bf16=False),
    "scheduler_interval": _fixed(scheduler_every=""),
    "schedule_length": _whole_length,
    "warmup_steps": lambda r, v: {"warmup": min(float(v) / max(_steps(r), 1), 0.5)},
    "schedule": _decay,
    "checkpoint": _fixed(deliver_best=True),
    "early_stopping_patience": _fixed(deliver_best=True),
}
"""Knob -> the fields of the recipe that it turns; knobs that a recipe has no field for are not here."""

IDLE = {
    "n_val", "eval_strategy", "logging_points", "logging_nan_inf_filter", "micro_batch_size", "loader_workers",
    "gradient_accumulation_steps", "activation_checkpointing",
}  # fmt: skip
"""Knobs that change nothing about what is learned."""

RANDOM: tuple[tuple[str, str, object], ...] = (
    ("learning_rate", "multiply", 0.1),
    ("learning_rate", "multiply", 10.0),
    ("clip_norm", "set", 1.0),
    ("epochs", "multiply", 2.0),
    ("dropout", "set", 0.3),
    ("weight_decay", "set", 1e-3),
    ("schedule", "set", "cosine"),
    ("batch_size", "multiply", 2),
    ("width", "multiply", 2),
    ("initialisation", "set", "kaiming"),
    ("normalisation", "set", "layer"),
    ("checkpoint", "set", "best"),
    ("shuffle", "enable", None),
    ("zero_grad", "enable", None),
    ("loss_input", "set", "logits"),
    ("input_normalisation", "enable", None),
)
"""What somebody who tries things might try: the baseline that advice has to beat."""


def _steps(recipe: Recipe) -> int:
    from benchmarks.accuracy.ward.training import prepare

    return recipe.epochs * prepare(recipe).schedule.per_epoch


def applied(change: tuple[str, str, object], recipe: Recipe) -> Recipe | None:
    """The recipe with a change, None where a recipe has no such knob."""
    knob, op, value = change
    if knob in IDLE:
        return recipe
    turn = KNOBS.get(knob)
    if turn is None:
        return None
    if op == "multiply":
        field = next(iter(turn(recipe, 1)))
        missing = {"depth": 3, "weight_decay": 0.01 if recipe.opt == "adamw" else 0.0}
        before = getattr(recipe, field) or missing.get(field, 0)
        value = before * float(value)
    fields = turn(recipe, value)
    for name in ("batch", "width", "depth", "epochs"):
        if name in fields:
            fields[name] = max(round(float(fields[name])), 1)
    if fields.get("activation") and str(fields["activation"]) not in ACTIVATIONS:
        return None
    return replace(recipe, **fields)


def delivered(outcome: Outcome, recipe: Recipe, measure: Measure) -> float:
    """What a training delivers, lower is better: its last weights, or its best where it keeps those."""
    which = -1
    if recipe.deliver_best:
        val = [t["val_loss"] if math.isfinite(t["val_loss"]) else math.inf for t in outcome.truth]
        which = val.index(min(val))
    at = outcome.truth[which]
    if not math.isfinite(at["oracle_loss"]):
        return 1.0 if measure == "errors" else outcome.initial if math.isfinite(outcome.initial) else 1e9
    if measure == "shift":
        return abs(at["val_loss"] - at["oracle_loss"])
    return 1 - at["oracle_acc"] if measure == "errors" else at["oracle_loss"]


@dataclass(frozen=True)
class Repair:
    """One trial: the trainings that it needs, and how it went."""

    sick: Recipe
    mended: Recipe | None
    best: Recipe
    measure: Measure

    def closed(self, store: Store) -> float:
        """Share of the gap that was closed; negative where the run got worse; nan where there is no gap."""
        sick = delivered(store.outcome(self.sick), self.sick, self.measure)
        best = delivered(store.outcome(self.best), self.best, self.measure)
        if not sick > best:
            return math.nan
        if self.mended is None:
            return 0.0
        mended = delivered(store.outcome(self.mended), self.mended, self.measure)
        if self.measure == "shift":  # an untold truth that is worse is nothing that was mended
            mended += max(self._oracle(self.mended, store) - self._oracle(self.sick, store), 0.0)
        return (sick - mended) / (sick - best)

    def _oracle(self, recipe: Recipe, store: Store) -> float:
        return delivered(store.outcome(recipe), recipe, "loss")

    def worse(self, store: Store, noise: float) -> bool:
        """Whether the remedy made it worse by more than the noise (a share of the range, or of the errors)."""
        if self.mended is None:
            return False
        measure: Measure = "errors" if self.measure == "errors" else "loss"
        sick = delivered(store.outcome(self.sick), self.sick, measure)
        return delivered(store.outcome(self.mended), self.mended, measure) - sick > noise


def repair_of(case: Case, truth: Truth, change: tuple[str, str, object] | None, store: Store) -> Repair:
    """The trial of a change (None: nothing that a program can apply) on a fresh seed."""
    fresh = case.recipe.seed + FRESH
    sick = replace(case.recipe, seed=fresh)
    best = replace(_best(case, store), seed=fresh)
    if case.fault is None and ("overfitting" in truth.harmful() or "overconfidence-drift" in truth.harmful()):
        best = replace(best, deliver_best=True)
    if case.fault is not None and case.fault.truth == "best":
        best = replace(sick, deliver_best=True)
    mended = applied(change, sick) if change is not None else None
    # Losses cannot be compared where they are of different kinds, or where an outlier of the loss decides; and a
    # validation set that is not like the others harms nothing but what it tells.
    of: dict[str, Measure] = {"error": "errors", "shift": "shift"}
    return Repair(sick, mended, best, of.get(case.fault.truth, "loss") if case.fault is not None else "loss")


def _best(case: Case, store: Store) -> Recipe:
    """The best single intervention that is known, by what it gave on the seed that was diagnosed."""
    known = reference(case, store)
    if case.fault is not None:
        return known
    tried = [r for r in (known, *interventions(case).values()) if store.has(r, watched=False)]
    return min(tried, key=lambda r: delivered(store.outcome(r), r, "loss"), default=known)


def random_change(case: Case) -> tuple[str, str, object]:
    """The change that chance would try on a case."""
    return random.Random(case.name).choice(RANDOM)


def noise_of(case: Case, store: Store) -> float:
    """Differences of oracle loss that mean nothing."""
    of = scale(store, case.family)
    return of.none * of.held_out


def wants_repair(case: Case, truth: Truth, said: Said) -> bool:
    """Runs on which the first remedy is tried: clearly sick ones, and healthy ones with an alarm."""
    if truth.harm == "yes":
        return case.recipe.seed == 0 if case.kind == "rate" else case.kind == "odd" or case.dose in (2, 3, 5)
    return truth.healthy and bool(said.root)
