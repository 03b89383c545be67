"""SET010 frozen-or-unused-parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.setup import connect_parameters, train_all_parameters
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import ACTIVATION_RMS, GRAD_NORM, PARAMETERS_WITHOUT_GRAD, WEIGHT_NORM, Signal
from fitdoctor.views.harm import ENOUGH, find_standing, harm
from fitdoctor.views.steps import progress


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
def frozen_or_unused_parameters(run: Run, *, least: int = 5, span: int = 20, frozen: float = 0.2) -> Iterator[Finding]:
    """Parameters never receive a gradient: cut off from the loss, unused, or frozen.

    Why it matters:
        They keep their random values. Where their layer is part of the forward pass, the loss is
        cut off from it: detached, wrapped in no_grad, or rebuilt from numbers.

    How it is measured:
        Exactly, by name: a parameter that the optimizer holds and that requires a gradient had none at any of
        the last `least` records or more over at least `span` steps, and its norm is the same number at the first
        and the last of them. A layer that ran (its output was measured) and yet got no gradient is a warning;
        so is a model that does not learn. Parameters whose layer was not seen to run are a note: left over
        from another head, or meant.

        Parameters frozen with requires_grad=False are mostly meant. They are a warning when they are at least
        `frozen` of all parameters and what is left to be trained is seen not to do: after 300 steps or more the
        training loss is above half of what a model that has learned nothing has, and the run is over or the loss at
        rest; with low confidence where it was still falling.

    Options:
        least: fewest records.
        span: fewest steps from the first to the last of them.
        frozen: least share of all parameters that are frozen.

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
    yield from _frozen(run, frozen)
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


def _frozen(run: Run, least: float) -> Iterator[Finding]:
    """Most of the model is frozen, and what is left cannot learn the task."""
    total, trainable = run.facts.get("parameters"), run.facts.get("trainable_parameters")
    if not isinstance(total, int) or not isinstance(trainable, int) or not 0 < trainable <= (1 - least) * total:
        return
    stand = find_standing(run)
    if stand is None or not stand.unsolved:
        return
    curve = stand.curve
    if run.step_unit == "step" and curve.steps[-1] - curve.steps[0] < ENOUGH:
        return
    moving = not stand.idle and progress(curve, 0.3) > 0.01
    if moving and run.finished is not True:
        return  # still learning: patience may do
    yield Finding(
        message=f"{1 - trainable / total:.0%} of the parameters are frozen; the loss ends at {curve.final:.4g}",
        severity=Severity.WARNING,
        confidence=Confidence.LOW if moving else Confidence.MEDIUM,
        span=Span(int(curve.steps[0]), int(curve.steps[-1])),
        evidence=(
            Evidence.of(
                curve.series,
                f"{curve.final:.4g} at the end; {trainable:,} of {total:,} parameters are trained",
                f"below {0.5 * curve.final / stand.left:.4g}, half of what an untrained model has",
            ),
        ),
        remedies=(train_all_parameters(),),
        could_be=("frozen on purpose: pretrained features that do not suit the task", "underfitting"),
        settle_with="train a tenth of the steps with every parameter unfrozen: a lower loss settles it",
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
