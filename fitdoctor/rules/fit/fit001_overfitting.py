"""FIT001 overfitting."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import (
    augment_data,
    drop_out,
    more_data,
    regularise,
    shrink_model,
    start_pretrained,
    stop_early,
    use_best_checkpoint,
)
from fitdoctor.rule import rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS, PROBE_ACCURACY, Signal
from fitdoctor.views.curves import Curve, barely_moved, find_curve, held_out, metric_curve, need_curve, place
from fitdoctor.views.generalisation import Regress, regress, worsened
from fitdoctor.views.steps import training_curve


@rule(
    "FIT001",
    "overfitting",
    needs=[LOSS, (Signal(LOSS, "val"), Signal(LOSS, "test"))],
    explains=["overconfidence-drift", "best-epoch", "plateau", "undertrained"],
    since="0.1.0",
)
def overfitting(
    run: Run, *, errors: float = 3.0, share: float = 0.05, severe: float = 0.2, p: float = 0.05
) -> Iterator[Finding]:
    """Held-out performance got worse than its earlier best while training still improved.

    Why it matters:
        From its best epoch on the model learns what does not carry over. The last checkpoint is worse than
        one already passed.

    How it is measured:
        The validation loss is smoothed and its best epoch found. It overfits when the loss rises after that
        (Mann-Kendall below `p`, or all of the second half stays up), the last quarter of what follows stands
        above the best by more than `errors` standard errors and `share` of the range (from the first loss to
        the best; twice `share` where the noise is above 5 % of it), and the training loss is no higher than it
        was at the best epoch. Where neighbouring values are alike, errors and trend are widened by as much as
        the curve wanders. Where a validation metric is logged it must have worsened too; if it held, the
        finding is overconfidence-drift instead. It is an error from `severe` of the range on. Where the hooks evaluate
        a fixed training batch in eval mode (``probe_train``), its loss counts as the training loss: dropout and
        augmentation hide how well the training data are fitted.

    Options:
        errors: least rise in standard errors.
        share: least rise as a share of the range of the validation loss.
        severe: rise as a share of the range that makes it an error.
        p: significance of the rise after the best.

    When it is wrong:
        A restart of the learning rate raises both losses for a while; a distribution shift gives a gap from
        the first epoch that does not grow; with noise or extreme capacity the error may fall again later
        (double descent).

    What to do:
        Use the best checkpoint; then more data or augmentation, regularisation, and only then a smaller model.

    References:
        Godbole et al. 2023 (overfitting is when validation error starts to increase); Prechelt 1998; Karpathy
        2019 for the order of remedies. On synthetic plateaus with 2-6 % noise, correlated by 0 to 0.7, it fires on
        less than 2 % of curves; at the worst of them (100 epochs, 0.7) on 5 %.
    """
    split = held_out(run)
    logged, train = need_curve(run, LOSS), training_curve(run)
    val = need_curve(run, LOSS, split)
    found = regress(val, max(logged, train, key=lambda c: c.start))  # a fixed batch is first looked at after some steps
    if found is None or barely_moved(train):
        return
    floor = share if val.noise <= 0.05 * val.swing else 2 * share
    if not worsened(found, errors=errors, share=floor, p=p) or not _training_improved(train, found):
        return
    metric = metric_curve(run, split) or find_curve(run, PROBE_ACCURACY, split)
    metric_fell = metric is not None and worsened(regress(metric), errors=errors, share=share / 2, p=p)
    if metric is not None and not metric_fell:
        return
    best = float(val.smooth[found.best_index])
    ending = best + found.rise
    bad = found.share > severe and len(val) >= 12
    evidence = [
        Evidence.of(
            val.series,
            f"{best:.4g} at {place(run, found.best_step)}, {ending:.4g} at the end",
            f"staying within {floor:.0%} of its range ({val.swing:.3g}) of its best",
            marks=((found.best_step, "best"),),
        ),
        Evidence.of(train.series, f"fell on to {train.final:.4g}"),
    ]
    if metric is not None:
        evidence.append(
            Evidence.of(
                metric.series,
                f"from {metric.shown(metric.best):.4g} down to {metric.shown(metric.final):.4g}",
            )
        )
    yield Finding(
        message=f"{split} loss rose from {best:.4g} to {ending:.4g} after {place(run, found.best_step)}, "
        "train loss fell on",
        severity=Severity.ERROR if bad else Severity.WARNING,
        confidence=Confidence.HIGH if found.errors > 2 * errors else Confidence.MEDIUM,
        span=Span(found.best_step, int(val.steps[-1])),
        evidence=tuple(evidence),
        remedies=(
            use_best_checkpoint(found.best_step, run.step_unit),
            more_data(),
            augment_data(),
            start_pretrained(),
            regularise(_weight_decay(run)),
            drop_out(),
            shrink_model(),
            stop_early(max(5, len(val) // 10)),
        ),
    )


def _weight_decay(run: Run) -> float | None:
    known = run.facts.get("weight_decay")
    return float(known) if isinstance(known, (int, float)) and known > 0 else None


def _training_improved(train: Curve, found: Regress) -> bool:
    """Whether the training loss ends no higher than it stood at the best validation."""
    before = train.values[train.steps <= found.best_step]
    return not len(before) or train.final <= float(before[-3:].mean()) + train.noise
