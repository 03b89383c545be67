"""PRE021 train-val-shift."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import HIGH, MEDIUM, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import same_preprocessing
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench


@probe("PRE021", "train-val-shift", cost=Cost(examples=4_000), needs=["val_loader"], since="0.1.0")
def train_val_shift(bench: Bench, *, auc: float = 0.6, sure: float = 3.0, examples: int = 2_000) -> Iterator[Finding]:
    """A simple classifier can tell training inputs from validation inputs.

    Why it matters:
        Different normalisation, resizing or sources open a gap that looks like overfitting and that no
        regularisation closes.

    How it is measured:
        A linear classifier on the values and on their squares is trained to tell the splits apart on one half of up
        to `examples` examples of each, and judged on the other. Its area under the ROC curve must exceed `auc`, and
        one half by `sure` standard errors. Where training examples change from reading to reading, they are augmented
        and differ on purpose: then only the mean and the spread of all values are compared, and must differ by half
        a standard deviation, or twofold.

    Options:
        auc: area under the curve from which the splits differ.
        sure: standard errors above one half.
        examples: how many examples of each split are compared.

    When it is wrong:
        A split by time or source is different by design. Shifts that no such classifier sees are missed; ids are not
        compared.

    What to do:
        Prepare both splits by the same code and the statistics of the training split.

    References:
        Lopez-Paz and Oquab 2017, Revisiting classifier two-sample tests.
    """
    import numpy as np

    from fitdoctor.preflight.features import applied, ridge, standardised, table
    from fitdoctor.preflight.features import auc as area_of

    if bench.train.varies:
        yield from _grossly(bench, examples)
        return
    a, projection = table(bench.train.sample(examples))
    b, _ = table(bench.sources["val"].sample(examples), projection)
    if min(len(a), len(b)) < 40:
        raise CannotJudge("40 examples of each split are needed")
    (both,) = standardised(np.vstack([a, b]))
    both = np.clip(both, -10, 10)
    both = np.column_stack([both, both**2, (both**2).mean(1)])
    (both,) = standardised(both)
    side = np.r_[np.zeros(len(a), bool), np.ones(len(b), bool)]
    half = np.random.default_rng(0).permutation(len(both)) % 2 == 0
    weight = np.where(side, len(a) / len(side), len(b) / len(side))[half, None] ** 0.5
    # A strong penalty: with as many features as examples, least squares would fit noise.
    weights = ridge(both[half] * weight, (2.0 * side[half, None] - 1) * weight, strength=0.3 * half.sum())
    area, error = area_of(applied(weights, both[~half])[:, 0], side[~half])
    bench.facts["train_val_auc"] = round(area, 3)
    if area < auc or area - 0.5 < sure * error:
        return
    shift = np.abs(a.mean(0) - b.mean(0)) / np.maximum(a.std(0), 1e-12)
    yield finding(
        f"a linear classifier tells training from validation inputs with an AUC of {area:.2f}",
        WARNING, HIGH if area > 0.9 else MEDIUM,
        seen("accuracy", f"AUC {area:.3f} ± {error:.3f}; means differ by up to {float(shift.max()):.2g} deviations",
             f"0.5, and below {auc:g}", split="val"),
        remedies=[same_preprocessing()],
        could_be=("a split by time or source, on purpose",),
    )  # fmt: skip


def _grossly(bench: Bench, examples: int) -> Iterator[Finding]:
    """A finding where mean or spread of all values differ more than augmentation makes them."""
    found = []
    for split in ("train", "val"):
        x = bench.sources[split].sample(examples).x
        if x is None or not x.is_floating_point():
            raise CannotJudge("the inputs are ids, not measurements")
        values = x.detach().double()
        found.append((float(values.mean()), float(values.std())))
    (mean, std), (mean_val, std_val) = found
    wide, narrow = max(std, std_val), min(std, std_val)
    if not wide < float("inf") or (abs(mean - mean_val) <= 0.5 * wide and wide <= 2 * narrow):
        return
    yield finding(
        f"validation inputs are {mean_val:.3g} ± {std_val:.2g}, augmented training inputs {mean:.3g} ± {std:.2g}",
        WARNING, MEDIUM,
        seen("accuracy", f"{mean_val:.4g} ± {std_val:.3g}", f"about {mean:.4g} ± {std:.3g}", split="val"),
        remedies=[same_preprocessing()],
        could_be=("augmentation that changes the scale of the inputs",),
    )  # fmt: skip
