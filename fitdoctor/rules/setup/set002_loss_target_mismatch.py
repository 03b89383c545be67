"""SET002 loss-target-mismatch."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import check_labels
from fitdoctor.remedies.setup import match_loss_shapes
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run
from fitdoctor.signals import LOSS, TARGET_STD
from fitdoctor.views.curves import find_curve
from fitdoctor.views.harm import harm

BROADCASTING = ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "PoissonNLLLoss", "KLDivLoss", "GaussianNLLLoss")
"""Losses of torch that compare entry by entry and broadcast shapes that differ; the others refuse them."""


@rule(
    "SET002",
    "loss-target-mismatch",
    needs=[LOSS],
    explains=[
        "lr-too-high",
        "plateau",
        "underfitting",
        "no-learning",
        "lr-noise-floor",
        "lr-too-low",
        "undertrained",
        "best-epoch",
        "val-better-than-train",
        "distribution-shift",
        "wrong-initial-loss",
        "input-collapse",
    ],
    since="0.1.0",
)
def loss_target_mismatch(run: Run, *, near: float = 0.85) -> Iterator[Finding]:
    """Outputs and targets of different shapes are broadcast: each output is compared with every target.

    Why it matters:
        Of outputs [n, 1] and targets [n] the loss makes a table of n x n differences. The best that a
        model can do is to give every input the mean of the targets. The loss falls at first and looks plausible.

    How it is measured:
        Exactly, from the shapes that the loss was called with: they differ, and the broadcast result has more
        entries than either of them. A target that is only repeated along one axis (a mask, one value for
        all channels, a number) is not reported. It is an error where training came to nothing, or where the
        squared error ends at `near` of the variance of the targets or above it: that of their mean.

    Options:
        near: share of the variance of the targets.

    When it is wrong:
        A loss that means to compare each output with every target, written with a loss of torch.

    What to do:
        Squeeze the output or unsqueeze the target.

    References:
        PyTorch warns of a target size that is different to the input size; the warning is shown once. UMLAUT
        and NeuraLint have rules on such mismatches by static analysis; here the shapes are those of the run.
    """
    given, target = _shape(run.facts.get("loss_input_shape")), _shape(run.facts.get("loss_target_shape"))
    kind = str(run.facts.get("loss_function", ""))
    if given is None or target is None or not kind:
        raise CannotJudge("the shapes that the loss was called with are not known; hooks with a criterion tell them")
    if kind not in BROADCASTING:
        return
    both = _broadcast(given, target)
    if both is None or math.prod(both) <= max(math.prod(given), math.prod(target)):
        return
    loss = run.get(LOSS)
    assert loss is not None  # the rule needs it
    harmed = _fits_the_mean(run, kind, near) or harm(run)
    yield Finding(
        message=f"outputs {_text(given)} and targets {_text(target)} are broadcast to {_text(both)} in {kind}",
        severity=Severity.ERROR if harmed is not None else Severity.WARNING,
        confidence=Confidence.HIGH,
        span=loss.span,
        evidence=(
            Evidence.of(loss, f"a mean over {math.prod(both)} differences", f"over {max(given)} outputs"),
            *((harmed,) if harmed is not None else ()),
        ),
        remedies=(match_loss_shapes(), check_labels()),
    )


def _fits_the_mean(run: Run, kind: str, near: float) -> Evidence | None:
    """The squared error ends at the variance of the targets."""
    spread, curve = run.get(TARGET_STD), find_curve(run, LOSS)
    if kind != "MSELoss" or spread is None or curve is None or not len(spread.finite):
        return None
    values = spread.finite.values
    variance = float((values**2).mean())
    if variance <= 0 or not curve.final >= near * variance or run.facts.get("loss_reduction", "mean") != "mean":
        return None
    return Evidence.of(
        curve.series,
        f"{curve.final:.4g} at the end",
        f"below {variance:.4g}, the variance of the targets: what a constant output reaches",
    )


def _shape(text: object) -> tuple[int, ...] | None:
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)  # "50" is a number to whoever reads the log back
    if not isinstance(text, str):
        return None
    if text == "scalar":
        return ()
    parts = text.split("x")
    return tuple(map(int, parts)) if all(p.isdecimal() and len(p) < 19 for p in parts) else None


def _text(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that two are broadcast to, or None where they are not."""
    rank = max(len(a), len(b))
    pairs = list(zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True))
    if any(m != n and 1 not in (m, n) for m, n in pairs):
        return None
    return tuple(max(m, n) for m, n in pairs)
