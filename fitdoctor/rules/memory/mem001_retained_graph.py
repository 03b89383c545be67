"""MEM001 retained-graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.memory import drop_graphs, keep_less_on_host
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import GRAPHS_ALIVE, MEMORY
from fitdoctor.stats import block_medians, trend
from fitdoctor.views.curves import place

MOST = 256
"""Graphs that are followed at most (`signals.GRAPHS_ALIVE`): there the count stays."""


@rule(
    "MEM001",
    "retained-graph",
    needs=[(GRAPHS_ALIVE, MEMORY)],
    explains=["out-of-memory", "host-memory-growth"],
    since="0.1.0",
)
def retained_graph(run: Run, *, least: int = 10, share: float = 0.9, growth: float = 0.1) -> Iterator[Finding]:
    """Autograd graphs of earlier steps are kept alive, more with every step.

    Why it matters:
        Each kept graph holds memory and all that its operations saved. Memory grows until it runs out, after
        hours; and a sum of losses kept as a tensor makes every later backward or print slower.

    How it is measured:
        Exactly: of the losses of earlier records, those whose graph is still alive are counted, wherever the
        reference is (a list of losses, or ``total += loss``). The count rose at `share` of the last `least`
        records or more, and ends as high as their number at least. It is a warning where the
        graphs of more than half of the records of a run of 100 steps or more are alive, or memory in use grew by
        more than `growth` of its value after the first quarter; a note otherwise, as for a list that is emptied
        at the end of an epoch. A graph that lives into the next step and is then dropped, as in truncated
        back-propagation, does not add up.
        Where graphs were not followed: memory of a GPU that grows steadily, by more than `growth` and in
        the second half as in the first, is a warning of medium confidence.

    Options:
        least: fewest records.
        share: share of the records at which the count rose.
        growth: relative growth of memory in use.

    When it is wrong:
        A method that goes back through many steps on purpose, such as meta-learning, keeps their graphs.

    What to do:
        Keep loss.item() or loss.detach().

    References:
        PyTorch documentation, frequently asked questions: do not accumulate history across the training loop.
    """
    graphs, memory = run.get(GRAPHS_ALIVE), run.get(MEMORY)
    if graphs is None:
        assert memory is not None  # the rule needs one of them
        yield from _by_memory(run, memory, growth)
        return
    if len(graphs) < least + 1:
        raise CannotJudge(f"{len(graphs)} records of graphs_alive, {least + 1} are needed")
    values = graphs.values
    rising = (np.diff(values) > 0) | (values[1:] >= 0.8 * MOST)
    late = rising[-least:]
    if late.mean() < share or values[-1] < least:
        return
    falls = np.flatnonzero(np.diff(values) < 0)
    first = int(graphs.steps[int(falls[-1]) + 1 if len(falls) else 0])
    grown = _growth(memory)
    most = values[-1] > 0.5 * min(len(values) - 1, MOST) and graphs.span.last - graphs.span.first >= 100
    yield Finding(
        message=f"the graphs of {values[-1]:.4g} earlier losses are still alive (growing since {place(run, first)})",
        severity=Severity.WARNING if most or grown > growth else Severity.NOTE,
        confidence=Confidence.HIGH,
        span=Span(first, graphs.span.last),
        evidence=(
            Evidence.of(graphs, f"{values[-1]:.4g} of the losses at records", "0 or 1", marks=((first, "kept"),)),
            *((Evidence.of(memory, f"grew by {grown:.0%}", "flat"),) if memory is not None and grown > 0 else ()),
        ),
        remedies=(drop_graphs(),),
        could_be=("a method that goes back through many steps on purpose",),
    )


def _growth(memory: Series | None) -> float:
    """Relative growth of memory from the end of the first quarter to the end."""
    if memory is None or len(memory.finite) < 8:
        return 0.0
    values = memory.finite.values
    start = float(np.median(values[len(values) // 4 : len(values) // 4 + 3]))
    return float(np.median(values[-3:])) / start - 1 if start > 0 else 0.0


def _by_memory(run: Run, memory: Series, growth: float) -> Iterator[Finding]:
    """Memory of a device that grows from step to step and does not level off."""
    if str(run.facts.get("device", "cpu")).startswith("cpu"):
        raise CannotJudge("memory of the host says little of graphs; no graphs_alive logged")
    values = block_medians(memory.finite.values, 40)
    if len(values) < 20:
        raise CannotJudge(f"{len(memory.finite)} values of memory, 20 are needed")
    late = values[len(values) // 4 :]
    half = len(late) // 2
    gains = float(late[half] - late[0]), float(late[-1] - late[half])
    if _growth(memory) <= growth or trend(late).p_up > 1e-3 or gains[1] < 0.5 * gains[0]:
        return
    yield Finding(
        message=f"memory in use grew by {_growth(memory):.0%} after the first quarter and goes on growing",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=memory.span,
        evidence=(Evidence.of(memory, f"{values[0]:.3g} to {values[-1]:.3g} bytes", "flat"),),
        remedies=(drop_graphs(), keep_less_on_host()),
        could_be=("inputs of growing length", "outputs kept on the device"),
        settle_with="torch.cuda.memory._snapshot() at two steps, compared by line of allocation",
    )
