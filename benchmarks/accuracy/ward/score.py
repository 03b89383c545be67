"""Scores: what was said against what is true, per arm, with intervals that know that runs of one family are alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from benchmarks.accuracy.corpus import wilson
from benchmarks.accuracy.ward.arms import Said
from benchmarks.accuracy.ward.faults import FAULTS
from benchmarks.accuracy.ward.plan import Case
from benchmarks.accuracy.ward.truth import Truth

NAMED: dict[str, frozenset[str]] = {
    "lr-too-high": frozenset({"lr-too-high", "finetune-lr-too-high"}),
    "lr-too-low": frozenset({"lr-too-low"}),
    "overfitting": frozenset({"overfitting", "overconfidence-drift", "memorisation-label-noise"}),
    "overconfidence-drift": frozenset({"overfitting", "overconfidence-drift", "memorisation-label-noise"}),
    "undertrained": frozenset({"undertrained", "lr-too-low"}),
    "nonfinite-loss": frozenset({"nonfinite-loss", "hidden-nonfinite"}),
} | {f"fault:{f.name}": frozenset(f.named) for f in FAULTS}
"""Label -> rules that name it."""

PROBED: dict[str, frozenset[str]] = {f"fault:{f.name}": frozenset(f.probed) for f in FAULTS} | {
    "lr-too-high": frozenset({"learning-rate-out-of-range"}),
    "lr-too-low": frozenset({"learning-rate-out-of-range"}),
}
"""Label -> probes that name it."""

SEEDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "exploding gradients": (
        ("fault:exploding-gradients", "fault:exploding-gradients-in-time"),
        ("exploding-gradients", "poor-init-scale", "wrong-initial-loss"),
    ),
    "vanishing gradients": (
        ("fault:vanishing-gradients", "fault:init-too-small", "fault:saturated-activations"),
        ("vanishing-gradients", "poor-init-scale", "saturated-activations", "input-collapse"),
    ),
    "learning rate too high": (("lr-too-high", "fault:finetune-lr-too-high"), ("lr-too-high", "finetune-lr-too-high")),
    "learning rate too low": (("lr-too-low",), ("lr-too-low",)),
    "overfitting": (
        ("overfitting", "overconfidence-drift", "fault:overfitting", "fault:memorisation-label-noise"),
        ("overfitting", "overconfidence-drift", "memorisation-label-noise"),
    ),
    "underfitting": (
        ("fault:too-small", "fault:dropout-too-high", "fault:weight-decay-too-high", "fault:missing-nonlinearity"),
        ("underfitting", "weight-decay-too-high", "missing-nonlinearity"),
    ),
}
"""Seed diagnosis -> (labels that make it true, rules that claim it)."""


@dataclass(frozen=True)
class Scored:
    """A case with its truth and one arm's answer."""

    case: Case
    truth: Truth
    said: Said

    def names(self, labels: Sequence[str]) -> frozenset[str]:
        """Rules and probes that name any of the labels."""
        return frozenset().union(*(NAMED.get(x, frozenset()) | PROBED.get(x, frozenset()) for x in labels))

    @cached_property
    def right(self) -> frozenset[str]:
        """Rules that name something that the run has and that harms it."""
        return self.names(self.truth.harmful())

    @cached_property
    def outcome(self) -> str:
        """What became of a sick run: root, three, found, open, wrong or missed."""
        right, said = self.right, self.said
        if said.root in right:
            return "root"
        if right & set(said.three):
            return "three"
        if right & {rule for rule, _ in said.found}:
            return "found"
        if said.verdict == "cannot judge":
            return "open"
        return "wrong" if said.root else "missed"


def clustered(rows: Sequence[Scored], hit: Sequence[bool], draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the share of hits, by drawing whole families with replacement."""
    names = sorted({r.case.family.name for r in rows})
    if not names:
        return float("nan"), float("nan")
    hits, runs = np.zeros(len(names)), np.zeros(len(names))
    for row, yes in zip(rows, hit, strict=True):
        place = names.index(row.case.family.name)
        hits[place] += yes
        runs[place] += 1
    drawn = np.random.default_rng(0).integers(0, len(names), (draws, len(names)))
    shares = hits[drawn].sum(1) / runs[drawn].sum(1)
    return float(np.quantile(shares, 0.025)), float(np.quantile(shares, 0.975))


def alarms(rows: Sequence[Scored]) -> dict[str, tuple[int, int, int, tuple[float, float]]]:
    """Sound runs that were called sick: kind -> with an error, with a warning or an error, runs, interval of these."""
    out = {}
    for kind, name in (("rate", "healthy"), ("odd", "odd but healthy")):
        sound = [r for r in rows if r.case.kind == kind and r.truth.healthy]
        errors = sum(r.said.worst == "error" for r in sound)
        either = sum(r.said.worst != "" for r in sound)
        out[name] = (errors, either, len(sound), wilson(either, len(sound)) if sound else (0.0, 1.0))
    return out


def sick(rows: Sequence[Scored]) -> list[Scored]:
    """Runs with clear harm."""
    return [r for r in rows if r.truth.harm == "yes"]


def seed_diagnosis(rows: Sequence[Scored], name: str) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of one seed diagnosis; ambiguous runs are left out.

    A claim counts when it is the root of a diagnosis with a warning or an error. A run that has several harmful
    labels counts as missed only when the report names none of them as its first root.
    """
    labels, rules = SEEDS[name]
    hits = false = missed = 0
    for row in rows:
        harms = [row.truth.harms[x] for x in labels if x in row.truth.harms]
        claimed = any(root in rules for root, _, _ in row.said.roots)
        if "yes" in harms:
            hits += claimed
            missed += not claimed and row.said.root not in row.right
        elif "ambiguous" not in harms and claimed and row.said.root not in row.right:
            false += not any(x in row.truth.labels for x in labels)
    return hits, false, missed


def f1(hits: int, false: int, missed: int) -> float:
    """Harmonic mean of precision and recall."""
    return 2 * hits / (2 * hits + false + missed) if hits + false + missed else float("nan")


def by_dose(rows: Sequence[Scored]) -> dict[str, list[tuple[int, int, int]]]:
    """Fault -> per dose: named in the report, harmful, runs."""
    out = {}
    for fault in FAULTS:
        table = []
        for dose in range(1, 6):
            those = [r for r in rows if r.case.what == fault.name and r.case.dose == dose]
            named = sum(bool({x for x, _ in r.said.found} & (set(fault.named) | set(fault.probed))) for r in those)
            table.append((named, sum(r.truth.harms.get(f"fault:{fault.name}") == "yes" for r in those), len(those)))
        out[fault.name] = table
    return out


def calibration(rows: Sequence[Scored]) -> dict[str, tuple[int, int]]:
    """Confidence of the first root -> right, all; over runs that are healthy or clearly sick."""
    counts: Counter[tuple[str, bool]] = Counter()
    for r in rows:
        if r.said.roots and (r.truth.healthy or r.truth.harm == "yes"):
            counts[r.said.roots[0][2], r.said.root in r.right] += 1
    return {c: (counts[c, True], counts[c, True] + counts[c, False]) for c in ("high", "medium", "low")}


def confusions(rows: Sequence[Scored]) -> Counter[tuple[str, str]]:
    """(harmful labels, root that was named instead) of sick runs that were called something else or nothing."""
    return Counter(
        (" + ".join(r.truth.harmful()), r.said.root or r.said.verdict)
        for r in sick(rows)
        if r.outcome in ("wrong", "missed", "three", "found", "open")
    )
