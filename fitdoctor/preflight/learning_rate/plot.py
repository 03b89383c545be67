"""The picture of a range test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fitdoctor.errors import FitdoctorError
from fitdoctor.preflight.learning_rate.reading import smoothed

if TYPE_CHECKING:
    from fitdoctor.preflight.learning_rate.result import LearningRates


def draw(rates: LearningRates, path: str | Path | None) -> Any:
    """Draw the ramps, the interval, the suggestion and the edge.

    Raises:
        FitdoctorError: if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FitdoctorError("the plot needs matplotlib: pip install 'fitdoctor[plot]'") from error
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    highest = -np.inf
    for ramp in rates.ramps:
        finite = np.isfinite(ramp.losses)
        losses, at = ramp.losses[finite], ramp.rates[finite]
        axes.plot(at, losses, color="0.8", linewidth=0.7)
        axes.plot(at, smoothed(losses), color="C0", linewidth=1.5)
        highest = max(highest, float(np.quantile(losses[: max(1, len(losses) // 2)], 0.95)))
    lowest = min(float(np.nanmin(smoothed(r.losses[np.isfinite(r.losses)]))) for r in rates.ramps)
    if done := [t for t in rates.trials if np.isfinite(t.loss)]:
        axes.plot([t.rate for t in done], [t.loss for t in done], "o", color="C1", label="after a short training")
        lowest, highest = min(lowest, *(t.loss for t in done)), max(highest, done[0].start)
    margin = 0.25 * max(highest - lowest, 1e-12)
    axes.axvspan(
        rates.low, rates.high, color="C2", alpha=0.15, label=f"worth trying: {rates.low:.2g} to {rates.high:.2g}"
    )
    axes.axvline(rates.suggestion, color="C2", label=f"suggestion {rates.suggestion:.2g}")
    if rates.edge is not None:
        axes.axvline(rates.edge, color="C3", linestyle="--", label=f"stable edge {rates.edge:.2g}")
    axes.set_ylim(lowest - margin, highest + 2 * margin)
    axes.set(xscale="log", xlabel=f"learning rate ({rates.optimizer})", ylabel="training loss")
    axes.legend(frameon=False)
    if path is not None:
        figure.savefig(path)
    return figure
