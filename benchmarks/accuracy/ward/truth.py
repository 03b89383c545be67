"""The true state of a run, found by changing one thing and training again; no label is read off a curve that rules see.

- learning rate: regret in a grid of nine rates, averaged over two seeds, in final training loss (evaluation mode) and
  in oracle loss. A rate is outside the low-regret band when either exceeds `NONE`; the harm is clear when both exceed
  it and one exceeds `CLEAR`.
- faults: the same program without the fault, same seed; where one pair leaves it open how much harm there is, the mean
  of six pairs, and harm is clear only where a two-sided sign-flip test agrees.
- overfitting: the oracle loss at the checkpoint with the best validation loss against that at the end.
- undertrained, and healthy: what else was tried (`plan.interventions`) improves the oracle loss, or does not.

Differences are shares of the range of the loss (untrained minus best of the family) and count from `NONE` on, or from
twice their standard deviation between seeds where that is more; between `NONE` and `CLEAR` a run is ambiguous.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

import numpy as np
from benchmarks.accuracy.ward.families import Family
from benchmarks.accuracy.ward.plan import AGAIN, TWINS, Case, configured, interventions, pairs
from benchmarks.accuracy.ward.recipe import Recipe
from benchmarks.accuracy.ward.store import Store
from benchmarks.accuracy.ward.training import Outcome

NONE, CLEAR = 0.02, 0.06
"""Share of the range below which there is no harm, and from which on it is clear."""

Harm = Literal["no", "ambiguous", "yes"]


@dataclass
class Truth:
    """What is known of a run.

    Attributes:
        labels: what it has -> harm, each as a share of the range (inf where the run ended non-finite).
        harms: the same, in words.
        untried: interventions that were not trained yet; a table is whole when there are none.
    """

    labels: dict[str, float] = field(default_factory=dict)
    harms: dict[str, Harm] = field(default_factory=dict)
    untried: int = 0

    def add(self, name: str, share: float, none: float = NONE, clear: float = CLEAR) -> None:
        """Note a label and how much harm it does."""
        self.labels[name] = share
        self.harms[name] = "no" if share < none else "ambiguous" if share < clear else "yes"

    @property
    def harm(self) -> Harm:
        """The worst harm of all labels."""
        found = set(self.harms.values())
        return "yes" if "yes" in found else "ambiguous" if "ambiguous" in found else "no"

    @property
    def healthy(self) -> bool:
        """Nothing that was tried helps, and no fault was put in."""
        return self.harm == "no" and not any(name.startswith("fault:") for name in self.labels)

    def harmful(self) -> list[str]:
        """Labels with clear harm."""
        return [name for name, harm in self.harms.items() if harm == "yes"]


@dataclass(frozen=True)
class Scale:
    """What losses of a family are measured against.

    Attributes:
        regrets: learning rate -> regret in training loss and in oracle loss.
        best: the rate with the smallest training loss among those with a fair oracle loss.
        fit, held_out: range of the training loss and of the oracle loss.
        noise: standard deviation of the oracle loss between seeds, as a share of its range.
    """

    regrets: dict[float, tuple[float, float]]
    best: float
    fit: float
    held_out: float
    noise: float

    @property
    def none(self) -> float:
        """Differences below this mean nothing."""
        return max(NONE, 2 * self.noise)

    @property
    def clear(self) -> float:
        """Differences from this on are clear."""
        return max(CLEAR, 3 * self.noise)


def _final(outcome: Outcome) -> tuple[float, float]:
    last = outcome.truth[-1]
    values = last["train_loss"], last["oracle_loss"]
    broken = any(not math.isfinite(v) for v in values)
    return (math.inf, math.inf) if broken else values


@cache
def scale(store: Store, family: Family) -> Scale:
    """Regret of every rate of a family's grid."""
    ends: dict[float, tuple[float, float]] = {}
    initial = []
    for lr in family.grid():
        runs = [store.outcome(replace(family.base, lr=lr, seed=seed)) for seed in TWINS]
        pairs = np.array([_final(run) for run in runs])
        ends[lr] = tuple(pairs.mean(0))
        initial += [run.initial for run in runs]
    start = float(np.mean(initial))
    held_out = min(b for _, b in ends.values())
    span = start - held_out
    fair = {lr: a for lr, (a, b) in ends.items() if (b - held_out) / span < CLEAR}
    best = min(fair, key=lambda lr: fair[lr])
    regrets = {lr: ((a - fair[best]) / (start - fair[best]), (b - held_out) / span) for lr, (a, b) in ends.items()}
    again = [store.outcome(replace(family.base, lr=best, seed=s)) for s in (*TWINS, *AGAIN) if _near(family, best)]
    noise = float(np.std([_final(run)[1] for run in again], ddof=1)) / span if len(again) > 2 else 0.0
    return Scale(regrets, best, start - fair[best], span, noise)


def _near(family: Family, lr: float) -> bool:
    return lr in family.grid()[2:7]


def truth(case: Case, store: Store) -> Truth:
    """The true state of a case."""
    outcome, found, of = store.outcome(case.recipe), Truth(), scale(store, case.family)
    if case.kind == "rate":
        _rate(case, of, found)
    if case.fault is not None:
        _fault(case, store, outcome, of, found)
    _everywhere(outcome, case, of, found)
    for name, other in interventions(case).items():
        if not store.has(other, watched=False):
            found.untried += 1
            continue
        gained = _gain(store.outcome(configured(case)), store.outcome(other), of)
        label = {"epochs x2": "undertrained", "lr x0.3": "lr-too-high", "lr x3": "lr-too-low"}.get(
            name, f"better: {name}"
        )
        if label not in found.labels and (min(gained) if label.startswith("lr") else gained[1]) >= of.none:
            found.add(label, gained[1] if label == "undertrained" else min(gained), of.none, of.clear)
    return found


def _rate(case: Case, of: Scale, found: Truth) -> None:
    """Too high or too low, by the place in the grid."""
    fit, held_out = of.regrets[case.recipe.lr]
    if max(fit, held_out) < of.none:
        return
    name = "lr-too-high" if case.recipe.lr > of.best else "lr-too-low"
    # Both must agree for clear harm: a training loss may be worse for good reasons, an oracle loss by overfitting.
    found.add(name, min(max(fit, NONE), max(held_out, NONE)), 0.0, of.clear)


def _fault(case: Case, store: Store, outcome: Outcome, of: Scale, found: Truth) -> None:
    """What the fault costs against the sound twin."""
    assert case.fault is not None
    assert case.twin is not None
    name, kind = f"fault:{case.fault.name}", case.fault.truth
    if kind == "present":
        found.labels[name], found.harms[name] = math.nan, "yes"
        return
    none, clear = _bounds(kind, of)
    shares = [_cost(kind, outcome, store.outcome(case.twin), of)]
    if _open(shares[0], none, clear):
        more = pairs(case)
        there = [(a, b) for a, b in more if store.has(a, watched=False) and store.has(b, watched=False)]
        found.untried += len(more) - len(there)
        shares += [_cost(kind, store.outcome(a), store.outcome(b), of) for a, b in there]
    found.add(name, float(np.mean(shares)), none, clear)
    if len(shares) > 1 and found.harms[name] == "yes" and _by_chance(shares) > 0.05:
        found.harms[name] = "ambiguous"


def _bounds(kind: str, of: Scale) -> tuple[float, float]:
    """Cost below which a fault did no harm, and from which on the harm is clear."""
    return {"error": (NONE, CLEAR), "best": (0.03, CLEAR)}.get(kind, (of.none, of.clear))


def _open(share: float, none: float, clear: float) -> bool:
    """Whether one pair of runs does not settle how much harm there is."""
    return none / 2 <= share < 2 * clear


def unsettled(cases: Sequence[Case], store: Store) -> list[tuple[Recipe, bool]]:
    """What has to be trained to learn the truth of cases that one pair of runs leaves open."""
    out: list[tuple[Recipe, bool]] = []
    for case in cases:
        if case.fault is None or case.twin is None or case.fault.truth == "present":
            continue
        of, kind = scale(store, case.family), case.fault.truth
        if _open(_cost(kind, store.outcome(case.recipe), store.outcome(case.twin), of), *_bounds(kind, of)):
            out += [(recipe, False) for pair in pairs(case) for recipe in pair]
    return out


def _cost(kind: str, outcome: Outcome, twin: Outcome, of: Scale) -> float:
    """Harm of a fault by one pair of runs, in the unit of its kind (`faults.Truth`)."""
    fit, held_out = _gain(outcome, twin, of)
    last = outcome.truth[-1]
    if kind == "shift":
        return (last["val_loss"] - last["oracle_loss"]) / of.held_out
    if kind == "error":
        return twin.truth[-1]["oracle_acc"] - last["oracle_acc"] if math.isfinite(held_out) else math.inf
    if kind == "best":
        return _lost_since_best(outcome, of)[0]
    return min(fit, held_out) if kind == "fit" else held_out


def _by_chance(shares: list[float]) -> float:
    """Two-sided p-value of the mean under sign flips, 2 / 2**n at the least."""
    flips = np.array(list(itertools.product((-1, 1), repeat=len(shares))))
    values = np.nan_to_num(np.array(shares), posinf=1e9)
    return float(np.mean(np.abs(flips @ values) >= abs(values.sum()) * (1 - 1e-9)))


def _gain(outcome: Outcome, other: Outcome, of: Scale) -> tuple[float, float]:
    """How much lower training and oracle loss end in the other run, as shares of their ranges."""
    mine, theirs = _final(outcome), _final(other)
    if math.isinf(mine[0]):
        return (math.inf, math.inf) if math.isfinite(theirs[0]) else (0.0, 0.0)
    return (mine[0] - theirs[0]) / of.fit, (mine[1] - theirs[1]) / of.held_out


def _everywhere(outcome: Outcome, case: Case, of: Scale, found: Truth) -> None:
    """What any run may have: values that are not finite, and a best checkpoint that is better than the last."""
    if math.isinf(_final(outcome)[0]) or any(not math.isfinite(r.get("train_loss", 0.0)) for r in outcome.rows):
        found.add("nonfinite-loss", math.inf)
        return
    share, errors = _lost_since_best(outcome, of)
    if share >= 0.03 and not (case.fault is not None and case.fault.truth == "best"):
        worse = math.isnan(errors) or errors >= 0.01
        # Where the errors stay, only whoever uses the probabilities is harmed: neither healthy nor clearly sick.
        found.add("overfitting" if worse else "overconfidence-drift", share, 0.03, CLEAR if worse else math.inf)


def _lost_since_best(outcome: Outcome, of: Scale) -> tuple[float, float]:
    """Oracle loss (share of its range) and oracle accuracy lost between the best validation loss and the end."""
    val = np.array([t["val_loss"] for t in outcome.truth])
    oracle = np.array([t["oracle_loss"] for t in outcome.truth])
    if not (np.isfinite(val).all() and np.isfinite(oracle).all()):
        return 0.0, 0.0
    best = int(val.argmin())
    first, last = outcome.truth[best], outcome.truth[-1]
    span = max(outcome.initial - oracle.min(), 0.05 * outcome.initial)
    if last["train_loss"] > first["train_loss"] + 0.02 * span:  # training itself got worse: another fault
        return 0.0, 0.0
    accuracy = np.array([t["oracle_acc"] for t in outcome.truth])
    around = accuracy[max(best - 2, 0) : best + 3]  # one evaluation of 600 examples is known to 2 %
    return float((oracle[-1] - oracle[best]) / span), float(around.mean() - accuracy[-5:].mean())


def reference(case: Case, store: Store) -> Recipe:
    """The best that a single intervention gives: the sound twin, or the best rate of the grid."""
    if case.twin is not None:
        return case.twin
    return replace(case.recipe, lr=scale(store, case.family).best) if case.kind == "rate" else case.recipe
