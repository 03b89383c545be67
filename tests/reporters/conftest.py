"""Reports made by hand: one of each verdict, and one whose every text is hostile."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fitdoctor.finding import Change, Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.report import Diagnosis, Outcome, Report
from fitdoctor.run import Note, Span
from fitdoctor.signals import GRAD_NORM, LOSS, Signal

HOSTILE = (
    "x[red]y[/red]\x1b[31mz\x1b]0;title\x07\x1b]8;;http://evil\x1b\\link\n::error::pwned\r\n##[error]pwned"
    "\x9b2J\x00\u202e]]> <script>alert(1)</script> & `tick` ``two`` | @everyone *b* \\ \udcff"
)


def evidence(signal: Signal, values: list[float], observed: str, expected: str = "", marks=()) -> Evidence:
    points = tuple((10 * i, v) for i, v in enumerate(values))
    return Evidence(signal, Span(0, 10 * (len(values) - 1)), observed, expected, points, tuple(marks))


@pytest.fixture
def sick() -> Report:
    loss = [2.0 * 0.8**i for i in range(12)] + [40.0 + i for i in range(8)] + [float("nan")] + [50.0] * 3
    seen = evidence(Signal(LOSS), loss, "50 at the end", "below 0.19, its best", [(110, "best"), (120, "onset")])
    grown = evidence(Signal(GRAD_NORM), [1.0] * 12 + [90.0] * 12, "90, 90x its median before")
    lower = Remedy(
        "lower the learning rate 10-fold",
        "every step overshoots",
        Change("learning_rate", "multiply", 0.1),
        {
            "pytorch": "optimizer = SGD(model.parameters(), lr=0.01)",
            "lightning": "def configure_optimizers(self):\n    return SGD(self.parameters(), lr=0.01)",
        },
        "the loss was never below its start",
        "the loss keeps falling after step 120",
    )
    others = tuple(Remedy(title) for title in ("warm up", "clip the gradient norm", "use another seed"))
    root = Finding(
        "train loss rose 260x above its best", Severity.ERROR, Confidence.HIGH, Span(120, 230), (seen, grown),
        (lower, *others), ("a corrupted batch",), "log the loss of every batch", "lr-too-high",
    )  # fmt: skip
    effect = Finding(
        "gradient norm rose 90x",
        Severity.WARNING,
        Confidence.MEDIUM,
        Span(120, 230),
        (grown,),
        rule="exploding-gradients",
    )
    note = Finding("best epoch is 2 of 4", Severity.NOTE, Confidence.HIGH, Span(110, 110), rule="best-epoch")
    outcomes = (
        Outcome("FIT005", "best-epoch", "found", (note,)),
        Outcome("GRD001", "exploding-gradients", "found", (effect,)),
        Outcome("LRN001", "lr-too-high", "found", (root,), vital=True),
        Outcome("LRN002", "lr-too-low", "clean"),
        Outcome("ACT001", "dead-relu", "skipped", why="no activation_zero_fraction logged"),
        Outcome("GRD004", "gradient-clipping-saturated", "skipped", why="no grad_norm_clipped logged"),
        Outcome("GRD005", "clipping-too-low", "skipped", why="no grad_norm_clipped logged"),
        Outcome("SET001", "double-softmax", "crashed", why="ZeroDivisionError: division by zero"),
    )
    return Report(
        run="runs/lr1", path="logs/runs/lr1", source="tensorboard", steps=Span(0, 230), outcomes=outcomes,
        diagnoses=(Diagnosis(root, (effect,), root.could_be, root.settle_with), Diagnosis(note)),
        facts={"schedule": "constant 0.1", "optimizer": "SGD", "steps_per_epoch": 60},
        notes=(Note("restart", "starts again at step 50: the later data are used", 50),),
        curves=(seen,), unmapped=("my/thing",), fitdoctor="0.1.0", ignored={"plateau": "on purpose"},
    )  # fmt: skip


@pytest.fixture
def healthy() -> Report:
    outcomes = tuple(Outcome(f"XXX{i:03}", f"rule-{i}", "clean", vital=i == 0) for i in range(31))
    curve = evidence(Signal(LOSS, "val"), [2.0, 1.5, 1.0, 0.5], "")
    return Report("runs/good", "logs/runs/good", "csv", Span(1, 40), outcomes, (), {"step_unit": "epoch"}, (), (curve,))


@pytest.fixture
def blind() -> Report:
    outcomes = (
        Outcome("FIT001", "overfitting", "skipped", why="no val loss logged", vital=True),
        Outcome("GRD001", "exploding-gradients", "skipped", why="no grad_norm logged"),
        Outcome("LOS004", "no-learning", "skipped", why="4 points of train loss, 20 are needed", vital=True),
    )
    return Report("runs/short", "logs/runs/short", "csv", Span(0, 3), outcomes, (), unmapped=("foo",))


@pytest.fixture
def hostile(sick: Report) -> Report:
    bad = evidence(Signal(LOSS, "val", HOSTILE), [1.0, 2.0, float("inf"), 3.0], HOSTILE, HOSTILE, [(10, HOSTILE)])
    remedy = Remedy(HOSTILE, HOSTILE, None, {"pytorch": HOSTILE, HOSTILE: "```\n" + HOSTILE}, HOSTILE, HOSTILE)
    finding = Finding(
        HOSTILE, Severity.ERROR, Confidence.LOW, Span(10, 30), (bad,), (remedy,), (HOSTILE,), HOSTILE, "lr-too-high"
    )
    return replace(
        sick,
        run=HOSTILE,
        path=HOSTILE,
        source=HOSTILE,
        outcomes=(
            Outcome("LRN001", "lr-too-high", "found", (finding,)),
            Outcome("FIT001", "overfitting", "skipped", why=HOSTILE, vital=True),
            Outcome("SET001", "double-softmax", "crashed", why=HOSTILE),
        ),
        diagnoses=(Diagnosis(finding, (finding,), (HOSTILE,), HOSTILE),),
        facts={"optimizer": HOSTILE, "framework": HOSTILE, "schedule": HOSTILE, "step_unit": HOSTILE},
        notes=(Note("other", HOSTILE),),
        curves=(bad,),
        unmapped=(HOSTILE,),
        ignored={"plateau": HOSTILE},
    )
