"""Whether a setting was turned as a remedy advised."""

from __future__ import annotations

import pytest
from fitdoctor.compare.comparison import FactChange
from fitdoctor.compare.trials import how_applied
from fitdoctor.finding import Change
from fitdoctor.run import Fact


@pytest.mark.parametrize(
    ("change", "old", "new", "applied"),
    [
        (Change("learning_rate", "multiply", 0.1), 1.0, 0.1, "as advised"),
        (Change("learning_rate", "multiply", 0.1), 1.0, 0.3, "as advised"),
        (Change("learning_rate", "multiply", 0.1), 1.0, 0.5, "in that direction"),
        (Change("learning_rate", "multiply", 0.1), 1.0, 0.001, "in that direction"),
        (Change("learning_rate", "multiply", 0.1), 1.0, 2.0, "in the other direction"),
        (Change("learning_rate", "multiply", 3.0), 1e-3, 3e-3, "as advised"),
        (Change("learning_rate", "multiply", 3.0), 1e-3, 1e-4, "in the other direction"),
        (Change("clip_norm", "set", 1.0), None, 1.0, "as advised"),
        (Change("clip_norm", "set", 1.0), 0.0, 1.0, "as advised"),
        (Change("clip_norm", "set", 1.0), None, 40.0, None),
        (Change("clip_norm", "set", 1.0), 0.01, 1.2, "as advised"),
        (Change("dropout", "set", 0.0), 0.5, 0.0, "as advised"),
        (Change("epochs", "add", 10), 10, 20, "as advised"),
        (Change("epochs", "multiply", 2), 10, None, None),
        (Change("epochs", "multiply", 2), None, 20, None),
        (Change("schedule", "set", "cosine"), "constant", "cosine", "as advised"),
        (Change("schedule", "set", "cosine"), "constant", "linear", None),
        (Change("shuffle", "enable"), False, True, "as advised"),
        (Change("shuffle", "enable"), True, False, "in the other direction"),
        (Change("loss_input", "set", "logits"), "probabilities", "logits", "as advised"),
        (Change("shuffle", "enable"), "no", "yes", "as advised"),
        (Change("shared_examples", "disable"), True, False, "as advised"),
        (Change("learning_rate", "multiply", 0.1), True, 0.1, None),
    ],
)
def test_how_applied(change: Change, old: Fact | None, new: Fact | None, applied: str | None) -> None:
    sides = tuple(() if v is None else (v,) for v in (old, new))
    assert how_applied(change, FactChange(change.knob, *sides)) == applied


def test_a_side_whose_runs_differ_tells_nothing() -> None:
    change = Change("learning_rate", "multiply", 0.1)
    assert how_applied(change, FactChange("learning_rate", (1.0, 2.0), (0.1,))) is None
    assert how_applied(change, FactChange("learning_rate", (1.0,), (0.1, 0.2))) is None


def test_numbers_at_both_ends_of_what_there_is() -> None:
    """Their ratio is 0, and has no logarithm."""
    change = Change("learning_rate", "multiply", 0.1)
    assert how_applied(change, FactChange("learning_rate", (1e300,), (1e-300,))) == "in that direction"
