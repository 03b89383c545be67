"""Make the development set: a few hundred small real trainings with labels by intervention.

    python benchmarks/accuracy/devset.py [--out FOLDER] [--jobs N] [--only TEXT]

Thresholds are calibrated on these runs, so they are no evidence of accuracy. They are made again from
scratch by this script and never committed. Labels are not read off the curves that a detector sees:

- learning rate: every configuration is trained over a grid of rates; the label of a run is its regret in
  final training loss (evaluation mode, whole training set) against the best rate, and it is called harmful only
  if the oracle set agrees;
- overfitting: on a large oracle set that no log shows, the checkpoint with the best val loss beats the final
  one (paired z > 2.6 on the examples, and more than 3 % of the range of the oracle loss);
- undertrained: twice the epochs with a stretched schedule improve the oracle loss;
- faults: the same recipe without the fault does better.

Between clear harm and no harm lies "ambiguous". `labels.tsv`: run, family, labels, harmful, detail.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from devset_logs import Habit, write
from devset_plan import CONFIGURATIONS, FAULTS, ODD, grid
from devset_training import Outcome, Recipe, as_dict, train

CLEAR, NONE = 0.06, 0.02
"""Regret, as a share of the range of the loss, above which harm is clear and below which there is none."""

BOOKKEEPING = {
    "scheduler-misstepped",
    "double-softmax",
    "repeated-batch-order",
    "gradient-clipping-saturated",
    "missing-zero-grad",
    "restart-discontinuity",
    "no-learning",
}
"""Faults that are there whether or not they do harm: labelled as present, with the harm told apart."""


@dataclass
class Label:
    """One line of labels.tsv."""

    run: str
    family: str
    labels: list[str] = field(default_factory=list)
    harmful: str = "no"
    detail: dict[str, object] = field(default_factory=dict)

    def add(self, name: str, share: float) -> None:
        """Add a label whose harm is `share` of the range of the loss."""
        if name in BOOKKEEPING or share >= NONE or math.isnan(share):
            self.labels += [name] if name not in self.labels else []
        if share >= NONE or math.isnan(share):
            worst = "ambiguous" if share < CLEAR else "yes"
            self.harmful = "yes" if "yes" in (self.harmful, worst) else worst


def overfit(outcome: Outcome) -> tuple[str, float]:
    """Name and size (share of the range) of what the oracle set lost between best val loss and the end."""
    truth = outcome.truth
    losses = np.array([t["oracle_loss"] for t in truth])
    val = np.array([t["val_loss"] for t in truth])
    if not np.isfinite(val).all() or not np.isfinite(losses).all() or outcome.best_hits is None:
        return "", 0.0
    best = int(val.argmin())
    start = max(losses[0], outcome.initial)
    span = max(start - losses.min(), 0.05 * start)  # a run that never learned has no range of its own
    share = float((losses[-1] - losses[best]) / span)
    difference = (outcome.best_hits - outcome.oracle_hits).numpy()
    z = difference.mean() / (difference.std() / math.sqrt(len(difference)) + 1e-12)
    if share < 0.03 or truth[-1]["train_loss"] > truth[best]["train_loss"] + 0.02 * start:
        return "", 0.0
    if z > 2.6 or math.isnan(truth[-1]["oracle_acc"]):  # overconfidence is a word for classifiers
        return "overfitting", share
    return "overconfidence-drift", share


def common_labels(label: Label, outcome: Outcome, doubled: Outcome | None) -> None:
    """Labels that every run may earn: non-finite, overfitting, undertrained."""
    if not math.isfinite(outcome.final) or any(not math.isfinite(r.get("train_loss", 0.0)) for r in outcome.rows):
        label.add("nonfinite-loss", math.nan)
        return
    name, share = overfit(outcome)
    if name:
        label.add(name, share)
        label.detail["oracle_rise"] = round(share, 3)
    if doubled is not None and math.isfinite(doubled.oracle_final):
        best_oracle = min(t["oracle_loss"] for t in outcome.truth)
        span = max(outcome.initial - min(best_oracle, doubled.oracle_final), 0.05 * outcome.initial)
        gain = (best_oracle - doubled.oracle_final) / span
        label.detail["gain_of_double"] = round(gain, 3)
        label.add("undertrained", gain)


def finish(label: Label, recipe: Recipe, outcome: Outcome) -> Label:
    """Fill in what all labels share."""
    label.labels = label.labels or ["healthy"]
    last = outcome.truth[-1]
    label.detail |= {k: f"{v:.4g}" for k, v in last.items() if k in ("train_loss", "oracle_loss", "oracle_acc")}
    label.detail |= {"recipe": as_dict(recipe)}
    return label


def make_grid(number: int, out: Path) -> list[Label]:
    """Train one configuration over its grid of learning rates, and its good rates once more with another seed."""
    base = CONFIGURATIONS[number]
    runs = {lr: train(replace(base, lr=lr, seed=number)) for lr in grid(base)}
    regrets = _regrets(runs)
    best_lr = min((lr for lr in runs if regrets[lr][1] < CLEAR), key=lambda lr: regrets[lr][0])
    labels = []
    for lr, outcome in runs.items():
        regret, oracle_regret = regrets[lr]
        recipe = replace(base, lr=lr, seed=number)
        in_band = max(regret, oracle_regret) < NONE
        label = Label(f"grid/{base.task}-{base.arch}-{base.opt}-{base.schedule}-lr{lr:g}", f"{base.task}-{base.arch}")
        if not in_band:
            # Both must agree for clear harm: a training loss alone can be worse for good reasons, and the oracle
            # loss alone also suffers from overfitting.
            label.add("lr-too-high" if lr > best_lr else "lr-too-low", min(max(regret, NONE), max(oracle_regret, NONE)))
            if lr < best_lr:
                label.labels.append("undertrained")
        label.detail |= {"best_lr": best_lr, "regret": round(regret, 4), "oracle_regret": round(oracle_regret, 4)}
        common_labels(label, outcome, train(replace(recipe, epochs=2 * base.epochs)) if in_band else None)
        labels.append(_save(label, recipe, outcome, out))
        if in_band and regret < NONE / 2:
            labels += [_again(label, replace(recipe, seed=number + 1000 * i), i, out) for i in (2, 3, 4)]
    return labels


def _again(label: Label, recipe: Recipe, number: int, out: Path) -> Label:
    """The same run with another seed: healthy runs are the ones that there must be many of."""
    twin = train(recipe)
    other = Label(f"{label.run}-seed{number}", label.family, detail={"best_lr": label.detail["best_lr"]})
    if "undertrained" in label.labels:
        other.add("undertrained", float(str(label.detail["gain_of_double"])))
    common_labels(other, twin, None)
    return _save(other, recipe, twin, out)


def _regrets(runs: dict[float, Outcome]) -> dict[float, tuple[float, float]]:
    """Rate -> (regret in training loss, regret in oracle loss), as shares of their ranges."""
    initial = next(iter(runs.values())).initial
    usable = [r for r in runs.values() if math.isfinite(r.final) and math.isfinite(r.oracle_final)]
    best_oracle = min(r.oracle_final for r in usable)
    oracle_span = max(initial - best_oracle, 0.05 * initial)
    fair = [r for r in usable if (r.oracle_final - best_oracle) / oracle_span < CLEAR]
    best = min(r.final for r in fair)

    def share(value: float, best: float, span: float) -> float:
        return (value - best) / span if math.isfinite(value) else math.inf

    return {
        lr: (share(r.final, best, initial - best), share(r.oracle_final, best_oracle, oracle_span))
        for lr, r in runs.items()
    }


def make_odd(number: int, out: Path) -> list[Label]:
    """Train an odd run; it is healthy only if no change of learning rate or budget improves it."""
    what, recipe = ODD[number]
    recipe = replace(recipe, seed=number)
    outcome = train(recipe)
    label = Label(
        f"odd/{number:02d}-{what.replace(' ', '-').replace(',', '')}",
        f"{recipe.task}-{recipe.arch}",
        detail={"odd": what},
    )
    span = outcome.initial - min(t["oracle_loss"] for t in outcome.truth)
    for times, name in ((0.2, "lr-too-high"), (5.0, "lr-too-low")):
        other = train(replace(recipe, lr=recipe.lr * times))
        if math.isfinite(other.oracle_final) and math.isfinite(outcome.oracle_final):
            gain = (outcome.oracle_final - other.oracle_final) / span
            train_gain = (outcome.final - other.final) / span
            label.detail[f"gain_at_lr_x{times:g}"] = f"{gain:.3f} oracle, {train_gain:.3f} train"
            if min(gain, train_gain) >= NONE:
                label.add(name, min(gain, train_gain))
    doubled = train(
        replace(recipe, epochs=2 * recipe.epochs, stop_at=1.0 if recipe.stop_at == 1 else 2 * recipe.stop_at)
    )
    common_labels(label, outcome, doubled if recipe.stop_at == 1 else None)
    return [_save(label, recipe, outcome, out)]


def make_fault(number: int, out: Path) -> list[Label]:
    """Train a faulty run, and the same without the fault."""
    what, recipe, sound = FAULTS[number]
    recipe = replace(recipe, seed=number)
    layered = what in ("vanishing-gradients", "exploding-gradients")
    outcome = train(recipe, layer_norms=layered)
    label = Label(f"fault/{number:02d}-{what}", f"{recipe.task}-{recipe.arch}", detail={"injected": what})
    if sound is not None:
        twin = train(replace(sound, seed=number))
        span = twin.initial - min(twin.oracle_final, twin.final)
        key = "oracle_acc" if recipe.double_softmax else "oracle_loss"
        regret = (outcome.oracle_final - twin.oracle_final) / span
        if key == "oracle_acc":  # losses of different definition cannot be compared
            regret = twin.truth[-1][key] - outcome.truth[-1][key]
        label.add(what, regret)
        label.detail["gain_without_fault"] = round(regret, 4)
    elif what == "repeated-batch-order":
        label.add(what, NONE)  # its harm, if any, is too small to measure here
    elif what == "no-learning":
        label.add(what, math.nan)
    common_labels(label, outcome, None)
    return [_save(label, recipe, outcome, out)]


def _save(label: Label, recipe: Recipe, outcome: Outcome, out: Path) -> Label:
    per_step = "repeated-batch-order" in label.labels
    full = label.run.startswith("fault/")
    habit = Habit.draw(label.run, per_step=per_step, full=full)
    write(outcome, out / label.run, habit)
    label.detail["log"] = habit.shape
    return finish(label, recipe, outcome)


def jobs() -> dict[str, Callable[[Path], list[Label]]]:
    """All pieces of work by name."""
    work: dict[str, Callable[[Path], list[Label]]] = {}
    for kind, plan, make in (
        ("fault", FAULTS, make_fault),
        ("odd", ODD, make_odd),
        ("grid", CONFIGURATIONS, make_grid),
    ):
        work |= {f"{kind}-{i}-{plan[i]}": partial(make, i) for i in range(len(plan))}
    return work


def save_labels(labels: Iterable[Label], path: Path) -> None:
    """Write labels.tsv."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["run", "family", "labels", "harmful", "detail"])
        for label in sorted(labels, key=lambda x: x.run):
            detail = "; ".join(f"{k}={v}" for k, v in label.detail.items())
            table.writerow([label.run, label.family, "|".join(label.labels), label.harmful, detail])


def _work(name: str, out: Path) -> list[Label]:
    torch.set_num_threads(1)
    return jobs()[name](out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "cache" / "devset")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", default="", help="only pieces of work whose name holds this text")
    arguments = parser.parse_args()
    names = [name for name in jobs() if arguments.only in name]
    arguments.out.mkdir(parents=True, exist_ok=True)
    began = time.time()
    labels: list[Label] = []
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for i, made in enumerate(pool.map(partial(_work, out=arguments.out), names)):
            labels += made
            save_labels(labels, arguments.out / "labels.tsv")
            print(
                f"{i + 1}/{len(names)}  {time.time() - began:5.0f} s  {made[-1].run}: {'|'.join(made[-1].labels)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
