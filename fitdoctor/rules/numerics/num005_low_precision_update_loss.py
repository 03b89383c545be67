"""NUM005 low-precision-update-loss."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.setup import keep_master_weights
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run
from fitdoctor.signals import UPDATE_LOST_FRACTION, UPDATE_NORM
from fitdoctor.views.harm import harm


@rule(
    "NUM005",
    "low-precision-update-loss",
    needs=[UPDATE_LOST_FRACTION],
    explains=[
        "no-parameter-updates",
        "no-learning",
        "plateau",
        "underfitting",
        "lr-too-low",
        "undertrained",
        "lr-noise-floor",
        "best-epoch",
        "class-collapse",
        "val-set-too-noisy",
    ],
    since="0.1.0",
)
def low_precision_update_loss(run: Run, *, lost: float = 0.5, span: int = 20, least: int = 3) -> Iterator[Finding]:
    """Weights in bfloat16 or float16 are too coarse for their updates.

    Why it matters:
        A change of less than half a unit in the last place is rounded away, at every step anew: the gradient says
        where to go and the weight never goes. The smaller the learning rate, the fewer weights train.

    How it is measured:
        Of the entries of such weights that have a gradient, the share that is bit for bit what it was
        at the first record, `span` steps and `least` records later or more. Above `lost` at the last records
        it is a warning, and an error where training blew up or came to nothing. Stochastic rounding and Kahan
        summation move every weight sooner or later and pass by, and so do entries without a gradient.

    Options:
        lost: share of the entries that have not moved.
        span: fewest steps since the first record.
        least: fewest records after these.

    When it is wrong:
        A learning rate of 0 or a warm-up that has just begun: nothing has moved yet in any precision.

    What to do:
        Keep the weights in float32 and compute in bfloat16.

    References:
        Zamirai et al. 2021, Revisiting BFloat16 Training: nearest rounding of weight updates is what loses
        accuracy. bfloat16 has 8 bits of precision: a weight w moves by at least |w| / 512.
    """
    share = run.get(UPDATE_LOST_FRACTION)
    assert share is not None  # the rule needs it
    share = share[(share.values >= 0) & (share.values <= 1)]  # what is no share is damage
    if not len(share):
        raise CannotJudge("no share between 0 and 1 in update_lost_fraction")
    late = share[share.steps >= share.span.first + span]
    if len(late) < least:
        raise CannotJudge(f"{len(late)} records of update_lost_fraction {span} steps on, {least} are needed")
    end = float(np.median(late.values[-least:]))
    moved = run.get(UPDATE_NORM)
    if end <= lost:
        return
    harmed = harm(run)
    dtype = str(run.facts.get("dtype", "low precision"))
    steps = late.span.last - share.span.first
    yield Finding(
        message=f"{end:.0%} of the {dtype[:20]} weights with a gradient have not moved in {steps} steps",
        severity=Severity.WARNING if harmed is None else Severity.ERROR,
        confidence=Confidence.HIGH,
        span=share.span,
        evidence=(
            Evidence.of(share, f"{end:.0%} at the end", "close to 0 after some steps"),
            *((Evidence.of(moved, f"{moved.values[-1]:.3g} at the end"),) if moved is not None else ()),
            *((harmed,) if harmed is not None else ()),
        ),
        remedies=(keep_master_weights(),),
        could_be=("a learning rate that is still 0",) if moved is None else (),
    )
