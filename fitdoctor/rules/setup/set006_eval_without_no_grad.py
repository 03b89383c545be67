"""SET006 eval-without-no-grad."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.memory import evaluate_without_graph
from fitdoctor.rule import rule
from fitdoctor.run import Run
from fitdoctor.signals import EVAL_FORWARDS, EVAL_GRAD_FORWARDS


@rule(
    "SET006",
    "eval-without-no-grad",
    needs=[(EVAL_GRAD_FORWARDS, EVAL_FORWARDS)],
    since="0.1.0",
)
def eval_without_no_grad(run: Run, *, least: int = 2) -> Iterator[Finding]:
    """Evaluations build autograd graphs that nobody uses.

    Why it matters:
        Memory for the activations of every layer, and more time, for gradients that are never asked for. The
        result is the same; a batch that fits into training can run out of memory here.

    How it is measured:
        Exactly: forward passes in eval mode with gradients on, on which no backward pass followed before the
        model was in train mode again. Passes whose gradient was taken (saliency, adversarial examples, a
        model trained in eval mode) do not count. A note, since it does no harm until memory runs out.

    Options:
        least: fewest evaluations that show it.

    When it is wrong:
        Gradients with respect to parameters taken by torch.func, which the monitor cannot see.

    What to do:
        Put the evaluation under torch.no_grad() or torch.inference_mode().

    References:
        PyTorch documentation, locally disabling gradient computation.
    """
    passes = run.get(EVAL_GRAD_FORWARDS)
    if passes is None or len(passes) < least:
        return
    yield Finding(
        message=f"{len(passes)} evaluations built graphs, {np.median(passes.values):.4g} forward passes each",
        severity=Severity.NOTE,
        confidence=Confidence.HIGH,
        span=passes.span,
        evidence=(Evidence.of(passes, f"{passes.values.sum():.4g} in all", "none: gradients off"),),
        remedies=(evaluate_without_graph(),),
    )
