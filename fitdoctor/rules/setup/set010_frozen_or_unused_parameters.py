"""SET010 frozen-or-unused-parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.setup import connect_parameters
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series
from fitdoctor.signals import ACTIVATION_RMS, GRAD_NORM, PARAMETERS_WITHOUT_GRAD, WEIGHT_NORM, Signal
from fitdoctor.views.harm import harm


@rule(
    "SET010",
    "frozen-or-unused-parameters",
    needs=[Signal(WEIGHT_NORM, layer="*"), Signal(GRAD_NORM, layer="*")],
    explains=[
        "underfitting",
        "plateau",
        "no-learning",
        "lr-noise-floor",
        "vanishing-gradients",
        "undertrained",
        "lr-too-low",
        "class-collapse",
        "val-set-too-noisy",
        "layerwise-update-imbalance",
    ],
    since="0.1.0",
)
def frozen_or_unused_parameters(run: Run, *, least: int = 5, span: int = 20) -> Iterator[Finding]:
    """Trainable parameters of the optimizer never receive a gradient.

    Why it matters:
        They keep their random values. Where their layer is part of the forward pass, the loss is
        cut off from it: detached, wrapped in no_grad, or rebuilt from numbers.

    How it is measured:
        Exactly, by name: a parameter that the optimizer holds and that requires a gradient had none at any of
        the last `least` records or more over at least `span` steps, and its norm is the same number at the first
        and the last of them. A layer that ran (its output was measured) and yet got no gradient is a warning;
        so is a model that does not learn. Parameters whose layer was not seen to run are a note: left over
        from another head, or meant. Parameters frozen with requires_grad=False are not looked at.

    Options:
        least: fewest records.
        span: fewest steps from the first to the last of them.

    When it is wrong:
        Branches and experts that are used more rarely than once in the recorded steps; a target network
        that is updated outside the optimizer's steps.

    What to do:
        Connect them to the loss, or freeze them by name and leave them out of the optimizer.

    References:
        PyTorch documentation: DistributedDataParallel's find_unused_parameters. Amazon SageMaker Debugger's rule
        UnchangedTensor compares values over steps with a tolerance; here equality is exact.
    """
    weights, gradients = run.layers(WEIGHT_NORM), run.layers(GRAD_NORM)
    labels = set(run.layers(PARAMETERS_WITHOUT_GRAD))  # names of optimizers, whose totals are no parameters
    names = [name for name in weights if name not in labels]
    longest = max((weights[n] for n in names), key=len, default=None)
    if longest is None or len(longest) < least or longest.span.last - longest.span.first < span:
        seen = 0 if longest is None else len(longest)
        raise CannotJudge(f"{seen} records of weight_norm by layer, {least} over {span} steps are needed")
    idle = [n for n in names if n not in gradients and _unchanged(weights[n], longest)]
    if not idle or len(idle) == len(names):  # nothing at all gets one: no-parameter-updates tells
        return
    running = set(run.layers(ACTIVATION_RMS))
    cut_off = [n for n in idle if n.rpartition(".")[0] in running]
    harmed = harm(run)
    serious = bool(cut_off) or harmed is not None
    yield Finding(
        message=_message(cut_off or idle, len(names), cut_off=bool(cut_off)),
        severity=Severity.WARNING if serious else Severity.NOTE,
        confidence=Confidence.HIGH if cut_off else Confidence.MEDIUM,
        span=longest.span,
        evidence=(
            *(
                Evidence.of(weights[n], f"norm {weights[n].values[-1]:.6g} at all {len(longest)} records, no gradient")
                for n in (cut_off or idle)[:5]
            ),
            *((harmed,) if harmed is not None else ()),
        ),
        remedies=(connect_parameters(idle),),
        could_be=() if cut_off else ("a head or branch that is not used on purpose", "experts that are rarely chosen"),
    )


def _unchanged(weight: Series, longest: Series) -> bool:
    return len(weight) == len(longest) and bool(np.unique(weight.values).size == 1)


def _message(names: Sequence[str], of: int, *, cut_off: bool) -> str:
    what = "run but are cut off from the loss" if cut_off else "never get a gradient"
    head = f"{len(names)} of {of} trainable tensors {what}: "
    room = 100 - len(head)
    shown = ""
    for name in names:
        more = f"{shown}, {name}" if shown else name
        if len(more) > room - 5:
            return head + (shown + ", ..." if shown else f"{name[: room - 3]}...").strip()
        shown = more
    return head + shown
