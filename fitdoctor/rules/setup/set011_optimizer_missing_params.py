"""SET011 optimizer-missing-params."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.setup import own_parameters
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS, PARAMETERS_WITHOUT_GRAD
from fitdoctor.views.harm import ENOUGH, find_standing, harm
from fitdoctor.views.steps import left_over, training_curve


@rule(
    "SET011",
    "optimizer-missing-params",
    needs=[],
    explains=[
        "underfitting",
        "plateau",
        "no-learning",
        "lr-noise-floor",
        "lr-too-low",
        "undertrained",
        "class-collapse",
        "no-parameter-updates",
    ],
    since="0.1.0",
)
def optimizer_missing_params(run: Run, *, few: float = 0.5, unfinished: float = 0.5) -> Iterator[Finding]:
    """Trainable parameters of the model belong to no optimizer.

    Why it matters:
        They keep their first values, while the loop computes gradients for them at every step. A layer that is
        added, replaced or made lazily after the optimizer is the usual reason.

    How it is measured:
        Exactly: parameters that require a gradient and that none of the optimizers given to the monitor holds,
        by name. If something else wrote into any of them after training began, another optimizer owns them, and
        nothing is reported. A note where they are more than `few` of the trainable tensors: then only a part
        was meant to be trained. A warning otherwise, or where more than `unfinished` of the loss is left after 300
        steps or more.

    Options:
        few: share of the trainable tensors.
        unfinished: share of the first loss that is left.

    When it is wrong:
        A small part that is kept as it was on purpose, without requires_grad=False.

    What to do:
        Give them to the optimizer, or set requires_grad=False, which also saves their gradients.

    References:
        PyTorch documentation, torch.optim: construct the optimizer after the model.
    """
    count, own = run.facts.get("trainable_tensors_not_in_optimizer"), run.facts.get("trainable_tensors")
    if not isinstance(count, int) or isinstance(count, bool):
        raise CannotJudge("what the optimizer holds is not known; hooks tell it")
    changed = run.facts.get("trainable_not_in_optimizer_changed", 0)
    if count <= 0 or (isinstance(changed, int) and changed > 0):
        return
    total = own if isinstance(own, int) and own >= count else None
    if total is not None and total == count:
        return  # the optimizer holds nothing of the model at all: no-parameter-updates tells
    harmed, stand = harm(run), find_standing(run)
    long = stand is not None and int(stand.curve.steps[-1] - stand.curve.steps[0]) >= ENOUGH
    poor = long and left_over(run, training_curve(run, least=1)) > unfinished
    partial = total is not None and count > few * total
    names = str(run.facts.get("trainable_not_in_optimizer", ""))
    series = run.get(PARAMETERS_WITHOUT_GRAD) or run.get(LOSS)
    of = f" of {total}" if total is not None else ""
    message = f"{count}{of} trainable tensors belong to no optimizer: {names}"
    yield Finding(
        message=message if len(message) <= 100 else message[:97] + "...",
        severity=Severity.NOTE if partial and harmed is None and not poor else Severity.WARNING,
        confidence=Confidence.MEDIUM if partial else Confidence.HIGH,
        span=run.steps or Span(0, 0),
        evidence=(
            *((Evidence.of(series, f"not stepped: {names}", "every trainable tensor"),) if series is not None else ()),
            *((harmed,) if harmed is not None else ()),
        ),
        remedies=(own_parameters(names),),
        could_be=("only a part is meant to be trained",) if partial else (),
    )
