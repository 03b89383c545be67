"""SET007 distributed-desync."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.setup import synchronise_ranks
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import RANK_DISAGREEMENT
from fitdoctor.views.curves import place


@rule(
    "SET007",
    "distributed-desync",
    needs=[RANK_DISAGREEMENT],
    explains=[
        "loss-spikes",
        "loss-divergence",
        "plateau",
        "underfitting",
        "lr-noise-floor",
        "distribution-shift",
        "val-set-too-noisy",
        "no-learning",
    ],
    since="0.1.0",
)
def distributed_desync(run: Run, *, tolerance: float = 1e-6, apart: float = 1e-3, least: int = 3) -> Iterator[Finding]:
    """Processes that should hold the same weights hold different ones.

    Why it matters:
        Each process trains a model of its own on its part of the data, and the one that is saved has seen a
        fraction of it. The loss of one process looks normal.

    How it is measured:
        The spread over the processes of the norm of the weights that all of them hold, relative to the largest. Data
        parallel copies start equal and apply the same averaged gradient, so the spread is 0 but for rounding. Above
        `tolerance` at the last `least` records it is a warning. Above `apart`, and larger at the end than when
        it was first seen, it is an error: the copies train apart. A spread that comes back to 0 between records
        is periodic averaging (local SGD), which is meant. A spread from the first record on may be
        another part of the model on each process, which is meant as well; the confidence is low then.

    Options:
        tolerance: largest relative spread that is rounding: ten units in the last place of float32.
        apart: relative spread of an error.
        least: fewest records in a row.

    When it is wrong:
        Pipeline and tensor parallelism built by hand, with parts of the same names and shapes.

    What to do:
        Let DistributedDataParallel wrap the model before the optimizer is made, change weights on all
        ranks or on none, and step on the same averaged gradient everywhere.

    References:
        TrainCheck (arXiv 2506.14813): BLOOM-176B trained with diverged ranks unnoticed. PyTorch
        documentation, DistributedDataParallel: parameters are broadcast once, at construction.
    """
    spread = run.get(RANK_DISAGREEMENT)
    assert spread is not None  # the rule needs it
    spread = spread.finite
    if len(spread) < least:
        raise CannotJudge(f"{len(spread)} records of rank_disagreement, {least} are needed")
    same = np.flatnonzero(spread.values <= tolerance)
    first = int(same[-1]) + 1 if len(same) else 0
    if len(spread) - first < least:
        return
    began, last = float(spread.values[first]), float(spread.values[-1])
    onset = int(spread.steps[first])
    always = first == 0
    growing = last > apart and last > 1.5 * began
    meant = ("another part of the model on each process, on purpose",)
    yield Finding(
        message=f"weights that processes share differ by {last:.2g} of their norm (from {place(run, onset)})",
        severity=Severity.ERROR if growing else Severity.WARNING,
        confidence=Confidence.LOW if always and not growing else Confidence.HIGH,
        span=Span(onset, spread.span.last),
        evidence=(
            Evidence.of(
                spread,
                f"{began:.3g} at {place(run, onset)}, {last:.3g} at the end",
                "0: copies that apply the same averaged gradient",
                marks=((onset, "apart"),),
            ),
        ),
        remedies=(synchronise_ranks(),),
        could_be=meant if always and not growing else (),
        settle_with="compare a checksum of each parameter over the ranks (one all_gather)" if always else "",
    )
