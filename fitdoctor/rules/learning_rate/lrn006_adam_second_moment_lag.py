"""LRN006 adam-second-moment-lag."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import inspect_batches, warm_up
from fitdoctor.remedies.optimizer import clip_updates, shorten_second_moment
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import ADAM_SURPRISE, LOSS, Signal
from fitdoctor.stats import mad_sigma
from fitdoctor.views.curves import make_curve, need_curve, place

LEAST = 8
"""Fewest looks at the second moment before a surprise is one."""


@rule(
    "LRN006",
    "adam-second-moment-lag",
    needs=[LOSS, Signal(ADAM_SURPRISE, layer="*")],
    explains=["loss-spikes", "loss-divergence", "gradient-spikes", "best-epoch", "plateau", "underfitting"],
    since="0.1.0",
)
def adam_second_moment_lag(
    run: Run, *, surprise: float = 2.3, outgrown: float = 2.0, jump: float = 0.05, lasting: float = 0.2
) -> Iterator[Finding]:
    """Gradients outgrew Adam's second moment, the steps became too long, and the loss jumped.

    Why it matters:
        Adam divides the gradient by a root mean square of its past. When gradients grow faster than that
        average follows, each step is too long by the ratio of the two, at any learning rate.

    How it is measured:
        The root mean square of gradient over the root of the second moment, on a sample of each tensor, is
        about 1 in steady state. A surprise is a value above `surprise` and `outgrown` times the 95th
        percentile of its own past (at least 8 looks). It counts where the training loss after it, within a
        twentieth of the run (at least the time to the second look after it), stands above its level before
        by `jump` of its first value and 5 standard deviations of its noise. A note where the loss recovered, a warning
        where the last tenth of the run is still above the level before by `lasting` of it.

    Options:
        surprise: least root mean square of gradient over second moment.
        outgrown: the same over the 95th percentile of its past.
        jump: least rise of the loss, as a share of its first value.
        lasting: rise of the final loss over the level before that makes it a warning, as a share of that level.

    When it is wrong:
        New data (a curriculum, a new domain) raise loss and gradient together whatever Adam does; a single
        damaged batch raises both for one step.

    What to do:
        A shorter memory (beta2 0.95), or update clipping. Gradient clipping alone helps less. A warm-up if it
        happens at the start, a look at the data if it happens at the same place of each epoch.

    References:
        Wortsman et al. 2023, Stable and low-precision training (StableAdamW; 2.3 marks spikes 1 to 8 steps ahead);
        Molybog et al. 2023.
    """
    curve = need_curve(run, LOSS)
    layers = run.layers(ADAM_SURPRISE)
    first = _first_surprise(layers, surprise, outgrown)
    if first is None:
        if max(len(s) for s in layers.values()) < LEAST:
            raise CannotJudge(f"fewer than {LEAST} looks at Adam's second moment")
        return
    series, index = first
    step = int(series.steps[index])
    loss = curve.series
    span = loss.span
    patience = int(series.steps[min(index + 2, len(series) - 1)]) - step
    since = int(series.steps[index - 1])  # somewhere between the two looks it began
    before = loss.between(since - max(patience, (span.last - span.first) // 20, 5), since).values
    after = loss.between(since + 1, step + max(patience, (span.last - span.first) // 20)).values
    if len(before) < 5 or len(after) < 3:
        return
    level, noise = float(np.median(before)), max(mad_sigma(before), curve.noise)
    peak = float(np.sort(after)[-max(1, len(after) // 4)])  # a quarter of the values is above: not one batch
    if peak < level + max(jump * abs(curve.start), 5 * noise):
        return
    still = make_curve(loss).final - level
    bad = still > max(lasting * abs(level), 3 * noise)
    value = float(series.values[index])
    names = sorted(
        (n for n, s in layers.items() if _peak_near(s, step) > surprise), key=lambda n: -_peak_near(layers[n], step)
    )
    yield Finding(
        message=f"gradient {value:.2g} times Adam's second moment at {place(run, step)}: "
        f"loss {level:.3g} to {peak:.3g}",
        severity=Severity.WARNING if bad else Severity.NOTE,
        confidence=Confidence.MEDIUM,
        span=Span(step, span.last if bad else step),
        evidence=(
            Evidence.of(
                series,
                f"{value:.3g} in {series.signal.layer}; above {surprise:g} in {len(names)} of {len(layers)} tensors",
                f"about 1, at most {surprise:g}",
                marks=((step, "surprise"),),
            ),
            Evidence.of(
                loss, f"{peak:.4g} after it, {curve.final:.4g} at the end", f"near {level:.4g}, its level before"
            ),
        ),
        remedies=(shorten_second_moment(), clip_updates(), warm_up(), inspect_batches()),
        could_be=("a change of the data", "a damaged batch"),
        settle_with="resume from before it with beta2 = 0.95: a loss that no longer jumps settles it",
    )


def _first_surprise(layers: dict[str, Series], surprise: float, outgrown: float) -> tuple[Series, int] | None:
    """The earliest surprise of any tensor, the greatest of those at that step."""
    found: tuple[int, float, Series, int] | None = None
    for series in layers.values():
        values = series.values
        for i in np.nonzero(series.values > surprise)[0]:
            past = values[: int(i)]
            past = past[np.isfinite(past)]
            if len(past) < LEAST or not np.isfinite(values[i]):
                continue
            if values[i] < outgrown * float(np.quantile(past, 0.95)):
                continue
            seen = (int(series.steps[i]), -float(values[i]), series, int(i))
            if found is None or seen[:2] < found[:2]:
                found = seen
            break
    return None if found is None else (found[2], found[3])


def _peak_near(series: Series, step: int) -> float:
    index = int(np.searchsorted(series.steps, step))
    return float(series.values[index]) if index < len(series) and np.isfinite(series.values[index]) else 0.0
