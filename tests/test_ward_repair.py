"""How the ward applies a remedy: as a person would who follows its words, knowing nothing of the fault."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from benchmarks.accuracy.ward.recipe import Recipe
from benchmarks.accuracy.ward.repair import Repair, applied, delivered
from benchmarks.accuracy.ward.training import Outcome

PLAIN = Recipe("digits", "mlp3", "adam", 1e-3, "constant", 25)


@pytest.mark.parametrize(
    ("change", "sick", "mended"),
    [
        (("initialisation", "set", "default"), {"gain": 7.0, "constant_init": 1.0, "bias_shift": 3.0}, {}),
        (("initialisation", "set", "kaiming"), {"output_gain": 40.0}, {"initialisation": "kaiming"}),
        (("schedule_length", "set", 500), {"schedule": "early-0.1"}, {}),
        (("schedule_length", "set", 500), {"schedule": "cosine", "schedule_epochs": 9}, {"schedule": "cosine"}),
        (("schedule", "set", "cosine"), {"schedule": "early-0.1", "scheduler_every": "batch"}, {"schedule": "cosine"}),
        (("learning_rate", "multiply", 0.25), {"lr": 0.5}, {"lr": 0.125}),
        (("weight_decay", "multiply", 0.1), {"weight_decay": 0.5}, {"weight_decay": 0.05}),
        (("weight_decay", "multiply", 0.1), {"opt": "adamw"}, {"opt": "adamw", "weight_decay": 0.001}),
        (("width", "multiply", 4), {"width": 3}, {"width": 12}),
        (("outlying_examples", "disable", None), {"outlier": 30.0}, {}),
        (("labels", "set", "matched"), {"random_labels": True}, {}),
        (("checkpoint", "set", 40), {}, {"deliver_best": True}),
        (("qk_norm", "enable", None), {}, None),
        (("dropout", "set", 0.0), {"weight_decay": 0.3}, {"weight_decay": 0.3}),  # the wrong advice mends nothing
    ],
)
def test_a_change_turns_what_it_names(
    change: tuple[str, str, object], sick: dict[str, object], mended: dict[str, object] | None
) -> None:
    told = applied(change, replace(PLAIN, **sick))  # type: ignore[arg-type]
    assert told == (None if mended is None else replace(PLAIN, **mended))  # type: ignore[arg-type]


class Kept:
    """A store of outcomes by the seed."""

    def __init__(self, **losses: tuple[float, float]) -> None:
        self.losses = losses

    def outcome(self, recipe: Recipe) -> Outcome:
        val, oracle = self.losses[f"seed{recipe.seed}"]
        return Outcome(
            truth=[{"train_loss": 0.1, "val_loss": val, "oracle_loss": oracle, "oracle_acc": 0.5}], initial=2.0
        )


def trial(measure: str, mended: bool = True) -> Repair:
    sick, better, best = (replace(PLAIN, seed=i) for i in range(3))
    return Repair(sick, better if mended else None, best, measure)  # type: ignore[arg-type]


def test_the_share_of_the_gap_that_was_closed() -> None:
    store = Kept(seed0=(1.0, 1.0), seed1=(0.5, 0.4), seed2=(0.2, 0.2))
    assert trial("loss").closed(store) == pytest.approx(0.75)  # type: ignore[arg-type]
    assert trial("loss", mended=False).closed(store) == 0.0  # type: ignore[arg-type]


def test_where_there_is_no_gap_nobody_is_judged() -> None:
    store = Kept(seed0=(1.0, 0.2), seed1=(1.0, 0.2), seed2=(1.0, 0.3))
    assert str(trial("loss").closed(store)) == "nan"  # type: ignore[arg-type]
    assert str(trial("loss", mended=False).closed(store)) == "nan"  # type: ignore[arg-type]


def test_a_shift_is_mended_when_validation_tells_the_truth_and_the_truth_is_no_worse() -> None:
    store = Kept(seed0=(1.2, 0.2), seed1=(0.25, 0.2), seed2=(0.2, 0.2))
    assert trial("shift").closed(store) == pytest.approx(0.95)  # type: ignore[arg-type]
    worse = Kept(seed0=(1.2, 0.2), seed1=(1.2, 1.1), seed2=(0.2, 0.2))
    assert trial("shift").closed(worse) == pytest.approx(0.0, abs=1e-9)  # type: ignore[arg-type]
    assert trial("shift").worse(worse, 0.1)  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_counts_as_that_of_the_untrained_model() -> None:
    broken = Kept(seed0=(float("nan"), float("nan")))
    assert delivered(broken.outcome(PLAIN), PLAIN, "loss") == 2.0
    assert delivered(broken.outcome(PLAIN), PLAIN, "errors") == 1.0
