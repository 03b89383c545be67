"""FIT002 overconfidence-drift."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import calibrate_outputs, regularise, use_best_checkpoint
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS, PROBE_ACCURACY, Signal
from fitdoctor.views.curves import barely_moved, find_curve, held_out, metric_curve, need_curve, place
from fitdoctor.views.generalisation import regress, worsened
from fitdoctor.views.steps import training_curve


@rule(
    "FIT002",
    "overconfidence-drift",
    needs=[LOSS, (Signal(LOSS, "val"), Signal(LOSS, "test"))],
    explains=["best-epoch"],
    since="0.1.0",
)
def overconfidence_drift(
    run: Run, *, errors: float = 3.0, share: float = 0.05, severe: float = 0.5, p: float = 0.05
) -> Iterator[Finding]:
    """The validation loss climbs while validation accuracy holds.

    Why it matters:
        The model makes no more mistakes than before, but is surer of those it makes. Where only accuracy
        counts nothing is lost; where probabilities are used, they get worse every epoch.

    How it is measured:
        The test of overfitting on the validation loss, and the same test failing on the validation metric.
        A note; a warning once the loss has given back `severe` of the range it had gained. As there, a fixed training
        batch in eval mode stands for the training loss where the hooks evaluate one.

    Options:
        errors: least rise of the loss in standard errors.
        share: least rise of the loss as a share of its range.
        severe: rise as a share of the range that makes it a warning.
        p: significance of the rise after the best.

    When it is wrong:
        A validation set too small to show a loss of accuracy hides overfitting behind this finding.

    What to do:
        Fit one temperature on the validation set, or use label smoothing; select the checkpoint by the
        metric you need.

    References:
        Guo et al. 2017, On Calibration of Modern Neural Networks; Berta et al. 2025 (arXiv 2501.19195):
        calibration and refinement errors reach their minimum at different epochs.
    """
    split = held_out(run)
    val = need_curve(run, LOSS, split)
    metric = metric_curve(run, split) or find_curve(run, PROBE_ACCURACY, split)
    if metric is None:
        raise CannotJudge(f"no {split} accuracy or other metric with at least 8 values logged")
    logged, train = need_curve(run, LOSS), training_curve(run)
    found = regress(val, max(logged, train, key=lambda c: c.start))  # a fixed batch is first looked at after some steps
    floor = share if val.noise <= 0.05 * val.swing else 2 * share
    if found is None or barely_moved(train) or not worsened(found, errors=errors, share=floor, p=p):
        return
    if worsened(regress(metric), errors=errors, share=share / 2, p=p):
        return
    before = train.values[train.steps <= found.best_step]
    if len(before) and train.final > float(before[-3:].mean()) + train.noise:
        return  # the training loss rises as well: nothing to do with confidence
    best = float(val.smooth[found.best_index])
    name = metric.series.signal.quantity.name
    yield Finding(
        message=f"{split} loss rose from {best:.4g} to {best + found.rise:.4g} "
        f"while {name} held at {metric.shown(metric.final):.4g}",
        severity=Severity.WARNING if found.share > severe else Severity.NOTE,
        confidence=Confidence.HIGH if found.errors > 2 * errors else Confidence.MEDIUM,
        span=Span(found.best_step, int(val.steps[-1])),
        evidence=(
            Evidence.of(
                val.series,
                f"{best:.4g} at {place(run, found.best_step)}, {best + found.rise:.4g} at the end",
                f"staying within {floor:.0%} of its range ({val.swing:.3g}) of its best",
                marks=((found.best_step, "best"),),
            ),
            Evidence.of(
                metric.series,
                f"best {metric.shown(metric.best):.4g}, at the end {metric.shown(metric.final):.4g}",
            ),
        ),
        remedies=(calibrate_outputs(), use_best_checkpoint(found.best_step, run.step_unit), regularise()),
        could_be=("overfitting",),
        settle_with=f"compare the best-loss and the last checkpoint on the same {split} examples (McNemar's test)",
    )
