"""ACT010 layer-too-narrow."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import add_capacity, overfit_one_batch
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run
from fitdoctor.signals import LOSS
from fitdoctor.views.curves import classes
from fitdoctor.views.depth import bottleneck, layers_of
from fitdoctor.views.harm import need_standing
from fitdoctor.views.steps import left_over, training_curve


@rule(
    "ACT010",
    "layer-too-narrow",
    needs=[LOSS],
    explains=[
        "underfitting",
        "lr-too-low",
        "undertrained",
        "plateau",
        "class-collapse",
        "input-collapse",
        "lr-noise-floor",
        "no-learning",
        "lr-decay-too-early",
    ],
    since="0.1.0",
    state=True,
)
def layer_too_narrow(run: Run, *, left: float = 0.2) -> Iterator[Finding]:
    """The last hidden layer has too few units to tell the classes apart, and the loss stays high.

    Why it matters:
        All that the model knows of an example passes through that layer. No learning rate and no patience brings
        back what it cannot hold; the loss falls slowly and stops high, which looks like a rate that is too low.

    How it is measured:
        Exactly, in classifiers: the last layer with weights has one output per class, and its inputs are fewer than the
        classes less one, and fewer than twice log2 of their number (a unit that is as good as a bit, twice over).
        Reported where more than `left` of the loss is left at the end, or after 300 steps.

    Options:
        left: share of the first loss that must be left.

    When it is wrong:
        Classes that lie on a circle or along a line by nature (angles, grades) fit into two units or one. Noisy labels
        leave a high loss in a model of any size.

    What to do:
        Make the layers wider, the last hidden one above all: twice as many units as classes are enough for most tasks.

    References:
        Yang et al. 2018, Breaking the Softmax Bottleneck. Large vocabularies do well with far fewer units than words,
        hence the logarithm.
    """
    known = classes(run)
    if known is None or not layers_of(run):
        raise CannotJudge("the number of classes or the layers of the model are not known; hooks tell the latter")
    narrow = bottleneck(run)
    stand = need_standing(run)
    if narrow is None or not stand.mature:
        return
    curve = training_curve(run)
    rest = left_over(run, curve)
    if rest < left:
        return
    yield Finding(
        message=f"the last hidden layer has {narrow.inputs} units for {known} classes; {rest:.0%} of the loss is left",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=curve.series.span,
        evidence=(Evidence.of(curve.series, f"{curve.final:.4g} at the end", f"below {left:.0%} of its start"),),
        remedies=(add_capacity(), overfit_one_batch()),
        could_be=("label noise",),
        settle_with="train at 4 times the width for the same steps: a lower training loss settles it",
    )
