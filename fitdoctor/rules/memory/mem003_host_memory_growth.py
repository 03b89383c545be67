"""MEM003 host-memory-growth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.memory import keep_less_on_host, share_worker_data
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import HOST_MEMORY, MEMORY
from fitdoctor.stats import block_medians, trend
from fitdoctor.views.curves import place


@rule("MEM003", "host-memory-growth", needs=[(HOST_MEMORY, MEMORY)], explains=["out-of-memory"], since="0.1.0")
def host_memory_growth(run: Run, *, growth: float = 0.2, settle: float = 0.2, least: int = 12) -> Iterator[Finding]:
    """Memory of the host grows with every step and does not level off.

    Why it matters:
        The operating system kills the process when memory runs out, often hours later and without a message
        from Python.

    How it is measured:
        Resident memory of the process and its children, or of the process alone for a model on the CPU. After the
        first `settle` of the run it rises in the sense of a Mann-Kendall test (p < 0.001), by more than `growth`
        in all, and in its last third at half the pace of its first or more. Caches that fill and then stay level
        off, and loader workers that copy the dataset's pages level off at one copy each; both pass by.

    Options:
        growth: least relative growth.
        settle: share of the run at its beginning that is left out.
        least: fewest values after that.

    When it is wrong:
        A dataset read through a memory map: the pages count as resident as long as nobody else needs them.

    What to do:
        Find what is kept from step to step; hold a dataset's index in arrays, not in Python objects.

    References:
        pytorch issue 13246: reference counts make forked workers copy the pages of Python objects.
    """
    memory = run.get(HOST_MEMORY)
    if memory is None:
        memory = run.get(MEMORY)
        assert memory is not None  # the rule needs one of them
        if not str(run.facts.get("device", "")).startswith("cpu"):
            raise CannotJudge("memory of the host was not measured")
    span = memory.span
    late = memory.finite.between(round(span.first + settle * (span.last - span.first)), span.last)
    if len(late) < least:
        raise CannotJudge(f"{len(late)} values of memory after the beginning, {least} are needed")
    values = block_medians(late.values, 60)
    third = max(1, len(values) // 3)
    early, end = float(values[third] - values[0]), float(values[-1] - values[-1 - third])
    if values[0] <= 0 or values[-1] <= (1 + growth) * values[0]:
        return
    if trend(values).p_up > 1e-3 or end < 0.5 * early or end <= 0:
        return
    yield _finding(run, memory, late, float(values[-1] / values[0]) - 1)


def _finding(run: Run, memory: Series, late: Series, grown: float) -> Finding:
    per_step = (late.values[-1] - late.values[0]) / max(1, late.span.last - late.span.first)
    workers = memory.signal.quantity == HOST_MEMORY
    return Finding(
        message=f"host memory grew by {grown:.0%} since {place(run, late.span.first)}, {_bytes(per_step)} a step",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=Span(late.span.first, memory.span.last),
        evidence=(
            Evidence.of(
                memory, f"{_bytes(late.values[0])}, then {_bytes(np.max(late.values))}", "flat after the start"
            ),
        ),
        remedies=(keep_less_on_host(), share_worker_data()) if workers else (keep_less_on_host(),),
        could_be=("a dataset read through a memory map",),
        settle_with="tracemalloc snapshots at two steps, compared by line",
    )


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"
