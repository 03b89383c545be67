"""MEM002 growth-in-eval."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.memory import drop_graphs, evaluate_without_graph
from fitdoctor.rule import rule
from fitdoctor.run import Run
from fitdoctor.signals import EVAL_FORWARDS, EVAL_GRAD_FORWARDS, EVAL_GRAPHS_ALIVE


@rule(
    "MEM002",
    "growth-in-eval",
    needs=[(EVAL_GRAPHS_ALIVE, EVAL_FORWARDS)],
    explains=["eval-without-no-grad", "out-of-memory", "host-memory-growth"],
    since="0.1.0",
)
def growth_in_eval(run: Run, *, share: float = 0.5, least: int = 3) -> Iterator[Finding]:
    """Evaluations keep the autograd graph of batch after batch.

    Why it matters:
        No backward pass frees what the graphs saved, so the activations of the whole validation set pile up.
        Evaluation runs out of memory where training fits.

    How it is measured:
        Exactly: during an evaluation with gradients on, the graphs of earlier batches are counted that are
        still alive: kept with a list of outputs, or by a sum of losses that is a tensor. More than `share` of the
        batches, and `least` at least, in most evaluations is a warning.

    Options:
        share: share of an evaluation's batches whose graphs were alive at once.
        least: fewest graphs alive at once.

    When it is wrong:
        Graphs of an evaluation that are kept for a backward pass of another model.

    What to do:
        Evaluate under no_grad; keep numbers.

    References:
        PyTorch documentation, frequently asked questions: my model reports out of memory.
    """
    alive, passes = run.get(EVAL_GRAPHS_ALIVE), run.get(EVAL_GRAD_FORWARDS)
    if alive is None or passes is None:
        return  # evaluations were seen, and none of them built a graph
    count = passes.at(alive.steps)
    piled = (alive.values >= least) & (alive.values > share * count)
    if piled.mean() <= 0.5:
        return
    most, of = float(np.median(alive.values[piled])), float(np.median(count[piled]))
    yield Finding(
        message=f"{int(piled.sum())} evaluations kept the graphs of {most:.4g} of {of:.4g} batches at once",
        severity=Severity.WARNING,
        confidence=Confidence.HIGH,
        span=alive.span,
        evidence=(Evidence.of(alive, f"{most:.4g} in the median", "0: freed with each batch"),),
        remedies=(evaluate_without_graph(), drop_graphs()),
    )
