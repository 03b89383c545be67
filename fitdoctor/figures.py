"""Curves as matplotlib figures, for `Run.plot` and `Report.plot`; needs the extra ``plot``.

Knows nothing of runs. The figures are not pyplot's: making one changes no global state, shows no window, and a
notebook draws it once.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fitdoctor.display import told_apart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[int, float]]

LOG_RATIO = 20.0
"""As in `fitdoctor.reporters.chart`: below a twentieth of the top a linear axis shows nothing."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share an axis.

    Attributes:
        title: what is on the axis.
        curves: (label, points) pairs.
        marks: (step, label) pairs to mark.
        log: a logarithmic axis; by the values where None.
    """

    title: str
    curves: Sequence[tuple[str, Points]]
    marks: Sequence[tuple[int, str]] = ()
    log: bool | None = None


def draw(panels: Sequence[Panel], *, title: str = "", unit: str = "step") -> Figure:
    """The panels below each other, over common steps.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'fitdoctor[plot]'") from error

    class Shown(Figure):
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            out = io.BytesIO()
            self.savefig(out, format="png", dpi=110, bbox_inches="tight")
            return out.getvalue()

    figure = Shown(figsize=(7.5, 0.6 + 1.9 * max(1, len(panels))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)[:, 0]
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel)
    axes[-1].set_xlabel(unit)
    if title:
        # A dollar sign in the name of a run would begin a formula.
        figure.suptitle(title.replace("$", r"\$"), fontsize="medium", wrap=True)
    return figure


def _draw(axis: Axes, panel: Panel) -> None:
    finite = [v for _, points in panel.curves for _, v in points if math.isfinite(v)]
    positive = bool(finite) and min(finite) > 0
    wanted = panel.log if panel.log is not None else positive and max(finite) / min(finite) > LOG_RATIO
    if wanted and positive:
        axis.set_yscale("log")
    named = False
    for label, points in told_apart(panel.curves):
        # matplotlib leaves a gap at nan, and stumbles over infinities when it chooses the limits.
        values = [v if math.isfinite(v) else math.nan for _, v in points]
        few = len(points) <= 12
        (line,) = axis.plot(
            [s for s, _ in points], values, label=label.replace("$", r"\$"), marker="." if few else "", linewidth=1.3
        )
        bad = [s for s, v in points if not math.isfinite(v)]
        if bad:
            top = axis.get_xaxis_transform()
            axis.plot(
                bad, [0.97] * len(bad), "x", markersize=4, color=line.get_color(), transform=top, clip_on=False,
                label="" if named else "not finite",
            )  # fmt: skip
            named = True
    for step, label in panel.marks:
        axis.axvline(step, color="0.5", linestyle=":", linewidth=1)
        axis.annotate(
            label.replace("$", r"\$"), (step, 1), xycoords=axis.get_xaxis_transform(), xytext=(0, 2),
            textcoords="offset points", fontsize="x-small", ha="center",
        )  # fmt: skip
    axis.set_ylabel(panel.title)
    axis.grid(alpha=0.25)
    axis.margins(x=0.01)
    if len(panel.curves) > 1 or named:
        axis.legend(fontsize="x-small", frameon=False)
