"""The tools for authors of rules: what they make, and how they complain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fitdoctor.errors import FitdoctorError
from fitdoctor.finding import Confidence, Finding, Severity
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import ACCURACY, GRAD_NORM, LOSS, LR, Signal
from fitdoctor.testing import check_rule, check_skips, make_run


@rule("TST001", "loss-above", needs=[LOSS], since="0.1.0")
def loss_above(run: Run, *, limit: float = 1.0, message: str = "loss is 3 at the end") -> Iterator[Finding]:
    """Finds a loss that ends above a limit."""
    series = run.get(LOSS)
    assert series is not None
    if len(series) < 3:
        raise CannotJudge(f"{len(series)} values, 3 are needed")
    if series.values[-1] > limit:
        yield Finding(message, Severity.WARNING, Confidence.LOW, Span(1, 2))


class TestMakeRun:
    def test_names_say_quantity_and_split(self):
        run = make_run(train_loss=[3, 2], val_accuracy=[0.1, 0.2], lr=[0.1, 0.1], grad_norm=[1, 2])
        assert [s.signal for s in run.series] == [Signal(LOSS), Signal(ACCURACY, "val"), Signal(LR), Signal(GRAD_NORM)]

    def test_shorter_curves_stand_at_the_ends_of_equal_shares(self):
        run = make_run(steps=range(10, 22), train_loss=range(12), val_loss=[1, 2, 3])
        assert run.get(LOSS, "val").steps.tolist() == [13, 17, 21]

    def test_a_mapping_gives_the_steps(self):
        series = make_run(train_loss={5: 1.0, 2: 9.0}).get(LOSS)
        assert (series.steps.tolist(), series.values.tolist()) == ([2, 5], [9.0, 1.0])

    def test_layers(self):
        run = make_run(train_loss=[1, 2], layers={"grad_norm": {"fc1": [1, 2], "fc2": [3, 4]}})
        assert list(run.layers(GRAD_NORM)) == ["fc1", "fc2"]

    def test_wrong_names_and_lengths_are_explained(self):
        with pytest.raises(FitdoctorError, match="'trainloss' is no curve; expected a quantity"):
            make_run(trainloss=[1])
        with pytest.raises(FitdoctorError, match="train loss has 3 values for 2 steps"):
            make_run(steps=[1, 2], train_loss=[1, 2, 3])


class TestCheckRule:
    SICK = make_run(train_loss=[1, 2, 3])

    def test_what_is_right_passes(self):
        (found,) = check_rule(loss_above, self.SICK, finds=True, severity="warning", confidence="low", onset=(0, 1))
        assert found.message == "loss is 3 at the end"
        assert check_rule(loss_above, self.SICK, finds=False, limit=5.0) == ()
        assert check_rule(loss_above, self.SICK, finds=1)

    @pytest.mark.parametrize(
        ("expected", "message"),
        [
            ({"finds": False}, "expected no finding, got\n  warning, low, steps 1-2: loss is 3 at the end"),
            ({"finds": True, "limit": 5.0}, "expected at least one finding, got\n  nothing"),
            ({"finds": 2}, "expected 2 findings, got\n"),
            ({"finds": True, "severity": "error"}, "expected severity error, got warning in\n"),
            ({"finds": True, "confidence": Confidence.HIGH}, "expected confidence high, got low in\n"),
            ({"finds": True, "onset": (2, 9)}, "expected onset in 2-9, got 1 in\n"),
            ({"finds": True, "message": "Too high."}, "the message ends with a full stop"),
            ({"finds": True, "message": "x" * 101}, "the message is longer than 100 characters"),
        ],
    )
    def test_what_is_wrong_is_explained(self, expected: dict, message: str):
        with pytest.raises(AssertionError) as caught:
            check_rule(loss_above, self.SICK, **expected)
        assert f"loss-above: {message}" in str(caught.value)

    def test_a_rule_that_abstains_has_found_nothing_to_check(self):
        with pytest.raises(AssertionError, match="loss-above abstained: 1 values, 3 are needed"):
            check_rule(loss_above, make_run(train_loss=[1]), finds=False)
        with pytest.raises(AssertionError, match="cannot judge this run: no train loss logged"):
            check_rule(loss_above, make_run(lr=[1]), finds=False)

    def test_a_rule_must_say_the_same_twice(self):
        calls = []

        @rule("TST002", "fickle", needs=[LOSS], since="0.1.0")
        def fickle(run: Run) -> Iterator[Finding]:
            """Changes its mind."""
            calls.append(1)
            yield Finding(f"call {len(calls)}", Severity.NOTE, Confidence.LOW, Span(0, 0))

        with pytest.raises(AssertionError, match="two different things"):
            check_rule(fickle, self.SICK, finds=True)


class TestCheckSkips:
    def test_both_kinds_of_abstaining(self):
        assert check_skips(loss_above, make_run(lr=[1]), "no train loss") == "no train loss logged"
        assert check_skips(loss_above, make_run(train_loss=[1]), "3 are needed")

    def test_complaints(self):
        with pytest.raises(AssertionError, match="it judged and found: loss is 3 at the end"):
            check_skips(loss_above, make_run(train_loss=[1, 2, 3]))
        with pytest.raises(AssertionError, match="expected a reason with 'x', got '1 values"):
            check_skips(loss_above, make_run(train_loss=[1]), "x")
