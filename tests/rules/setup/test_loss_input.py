"""SET001 double-softmax where hooks see the loss's input, and SET002 loss-target-mismatch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Confidence, Severity
from fitdoctor.readers import open_runs
from fitdoctor.signals import LOSS, PROBABILITY_ROWS
from tests.hooked import Data, digits, mlp
from tests.rules.books import healthy, sgd, short
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

INPUT, SHAPES = "double-softmax", "loss-target-mismatch"


def ending_in(*last: nn.Module, out: int = 10) -> nn.Module:
    return nn.Sequential(*mlp(64, 32, out), *last)


def parity() -> Data:
    x, y = digits()[0]
    return x, (y % 2).float()[:, None]


@pytest.mark.parametrize(("rate", "severity"), [(2.0, Severity.WARNING), (0.1, Severity.ERROR)], ids=["slow", "stuck"])
def test_softmax_before_cross_entropy(rate: float, severity: Severity) -> None:
    found = finding(INPUT, short(lambda: ending_in(nn.Softmax(1)), sgd(rate), epochs=4), severity)
    assert found.confidence is Confidence.HIGH
    assert found.message.startswith("CrossEntropyLoss is given probabilities: all rows sum to 1 at ")


def test_raw_scores_for_nll_loss() -> None:
    run = short(criterion=nn.NLLLoss())
    found = finding(INPUT, run, Severity.ERROR)
    assert found.message.startswith("NLLLoss is given raw scores")
    assert diagnose(run).diagnoses[0].root.rule == INPUT


def test_sigmoid_before_a_loss_with_its_own() -> None:
    run = short(lambda: ending_in(nn.Sigmoid(), out=1), criterion=nn.BCEWithLogitsLoss(), data=parity())
    assert finding(INPUT, run).remedies[0].title.startswith("remove the sigmoid")


def test_log_softmax_twice_is_log_softmax() -> None:
    assert findings(INPUT, short(lambda: ending_in(nn.LogSoftmax(1)))) == []


def test_what_each_loss_takes() -> None:
    assert findings(INPUT, short(lambda: ending_in(nn.LogSoftmax(1)), criterion=nn.NLLLoss())) == []
    assert findings(INPUT, short(lambda: mlp(64, 32, 1), criterion=nn.BCEWithLogitsLoss(), data=parity())) == []
    assert findings(INPUT, healthy()) == []


def test_scores_that_are_small_and_positive_are_no_probabilities() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(64, 32, 1)

        def forward(self, x: Tensor) -> Tensor:
            return 0.4 + 0.01 * self.body(x)  # type: ignore[no-any-return]

    assert findings(INPUT, short(Small, criterion=nn.BCEWithLogitsLoss(), data=parity())) == []


def test_label_smoothing_is_judged_by_what_is_seen() -> None:
    smooth = nn.CrossEntropyLoss(label_smoothing=0.2)
    assert findings(INPUT, short(criterion=smooth)) == []
    assert finding(INPUT, short(lambda: ending_in(nn.Softmax(1)), criterion=smooth))


@pytest.mark.parametrize(("rows", "found"), [([1.0, 1.0, 1.0], True), ([1.0, 1.0, 0.996], False)])
def test_boundary_is_every_row_of_every_record(rows: list[float], found: bool) -> None:
    run = make_run(
        series(PROBABILITY_ROWS, rows), series(LOSS, np.full(3, 2.0)), loss_function="CrossEntropyLoss", classes=10
    )
    assert bool(findings(INPUT, run)) is found


# --- shapes ----------------------------------------------------------------------------------------

broadcasts = pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")


def sums(columns: bool) -> Data:
    """A regression task with targets [n] or [n, 1]."""
    x, _ = digits()[0]
    y = 0.3 * x[:, :8].sum(1) + 0.5 * x[:, 20]
    return x, y[:, None] if columns else y


@broadcasts
def test_outputs_in_a_column_and_targets_in_a_row() -> None:
    run = short(lambda: mlp(64, 32, 1), sgd(0.02), criterion=nn.MSELoss(), data=sums(columns=False), epochs=8)
    found = finding(SHAPES, run, Severity.ERROR)
    assert found.message == "outputs [50, 1] and targets [50] are broadcast to [50, 50] in MSELoss"
    assert "the variance of the targets" in found.evidence[-1].expected


@broadcasts
def test_an_absolute_error_is_broadcast_too() -> None:
    run = short(lambda: mlp(64, 32, 1), sgd(0.02), criterion=nn.L1Loss(), data=sums(columns=False))
    assert finding(SHAPES, run).confidence is Confidence.HIGH


def test_shapes_that_agree() -> None:
    run = short(lambda: mlp(64, 32, 1), sgd(0.02), criterion=nn.MSELoss(), data=sums(columns=True))
    assert findings(SHAPES, run) == []
    assert findings(SHAPES, healthy()) == []  # [n, 10] and [n] is what cross-entropy takes


@broadcasts
def test_one_target_for_all_outputs_of_an_input_is_meant() -> None:
    run = short(lambda: mlp(64, 32, 4), sgd(0.02), criterion=nn.MSELoss(), data=sums(columns=True))
    assert findings(SHAPES, run) == []


@pytest.mark.parametrize(
    ("given", "target", "found"),
    [("1x1", "1", False), ("2x1", "2", True), ("2x3", "scalar", False), ("4x1x3", "4x3", True), ("5x2", "5x3", False)],
)
def test_boundary_is_a_result_larger_than_both(given: str, target: str, found: bool) -> None:
    run = make_run(
        series(LOSS, np.linspace(2, 1, 20)),
        loss_function="MSELoss",
        loss_input_shape=given,
        loss_target_shape=target,
    )
    assert bool(findings(SHAPES, run)) is found


@broadcasts
def test_the_log_of_a_watched_run_says_the_same(tmp_path: Path) -> None:
    run = short(lambda: mlp(64, 32, 1), sgd(0.02), criterion=nn.MSELoss(), data=sums(columns=False), logdir=tmp_path)
    (read,) = open_runs(tmp_path)
    assert finding(SHAPES, read).message == finding(SHAPES, run).message


def test_a_log_does_not_tell() -> None:
    cannot_judge(SHAPES, make_run(series(LOSS, [1.0, 0.9])), "hooks with a criterion")
