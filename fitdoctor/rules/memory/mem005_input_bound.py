"""MEM005 input-bound."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.memory import feed_faster
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run
from fitdoctor.signals import DATA_TIME, STEP_TIME


@rule("MEM005", "input-bound", needs=[DATA_TIME, STEP_TIME], since="0.1.0")
def input_bound(run: Run, *, share: float = 0.3, settle: int = 10, least: int = 20) -> Iterator[Finding]:
    """Steps wait for their batch during much of their time.

    Why it matters:
        While the loop waits, the device does nothing. It costs money, not quality: the result is the same,
        later.

    How it is measured:
        The median, over the logged steps after the first `settle`, of the time a step waited for its batch over
        the time it took. Above `share` it is a note, never more. The median leaves out the pause at the
        start of an epoch, when workers are started.

    Options:
        share: share of the step's time.
        settle: logged steps at the beginning that fill caches and are left out.
        least: fewest logged steps after these.

    When it is wrong:
        Whatever the loop does between two steps counts as waiting: logging, augmentation on the device. On a
        GPU the step's own work is queued, and a loop that never waits for the device looks input-bound.

    What to do:
        More workers, pinned memory, prefetching; decode and augment ahead of training.

    References:
        PyTorch documentation, torch.utils.data: multi-process loading and memory pinning. The share is a
        design value.
    """
    waited, took = run.get(DATA_TIME), run.get(STEP_TIME)
    assert waited is not None  # the rule needs them
    assert took is not None
    _, i, j = np.intersect1d(waited.steps, took.steps, assume_unique=True, return_indices=True)
    wait, whole = waited.values[i][settle:], took.values[j][settle:]
    usable = np.isfinite(wait) & np.isfinite(whole) & (whole > 0) & (wait >= 0)
    if usable.sum() < least:
        raise CannotJudge(f"{int(usable.sum())} steps with data_time and step_time, {least} are needed")
    part = float(np.median(np.minimum(wait[usable] / whole[usable], 1.0)))
    if part <= share:
        return
    seconds = float(np.median(wait[usable]))
    yield Finding(
        message=f"half of the steps wait for data during {part:.0%} of their time or more ({_time(seconds)} each)",
        severity=Severity.NOTE,
        confidence=Confidence.MEDIUM,
        span=waited.span,
        evidence=(
            Evidence.of(waited, f"{_time(seconds)} in the median", f"less than {share:.0%} of the step's time"),
            Evidence.of(took, f"{_time(float(np.median(whole[usable])))} in the median"),
        ),
        remedies=(feed_faster(),),
        could_be=("work of the loop itself between two steps",),
    )


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{1000 * seconds:.2g} ms"
