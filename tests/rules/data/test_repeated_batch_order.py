"""DAT001 repeated-batch-order."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Confidence, Severity
from fitdoctor.run import Run
from fitdoctor.signals import LOSS
from tests.digits import HEALTHY, Recipe, train
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "repeated-batch-order"


def simulated(
    seed: int, *, epochs: int = 6, batches: int = 60, repeats: float = 0.0, sawtooth: float = 0.0, known: bool = True
) -> Run:
    """Losses of batches: `repeats` of their difficulty belongs to the batch, the rest to chance."""
    rng = np.random.default_rng(seed)
    own, u = rng.standard_normal(batches), np.arange(batches) / batches
    rows = [
        np.sqrt(repeats) * own + np.sqrt(1 - repeats) * rng.standard_normal(batches) + sawtooth * (u - np.exp(-30 * u))
        for _ in range(epochs)
    ]
    loss = np.exp(-np.arange(epochs * batches) / 200) * np.exp(0.2 * np.concatenate(rows))
    return make_run(series(LOSS, loss), **({"steps_per_epoch": batches} if known else {}))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("known", [True, False])
def test_a_real_run_without_shuffling(seed: int, known: bool) -> None:
    run = train(Recipe(shuffle=False, lr=0.02, seed=seed))
    if not known:
        loss = run.get(LOSS)
        assert loss is not None
        run = make_run(loss)
    found = finding(NAME, run, Severity.WARNING)
    assert found.message.startswith("training loss repeats batch by batch every 32 steps")
    assert known or found.confidence is Confidence.MEDIUM


@pytest.mark.parametrize("seed", range(40))
def test_shuffled_batches_with_the_sawtooth_of_adam(seed: int) -> None:
    for known in (True, False):
        assert findings(NAME, simulated(seed, sawtooth=2.0, known=known)) == []


@pytest.mark.parametrize(("repeats", "found"), [(0.15, False), (0.6, True)])
def test_boundary_is_a_correlation_of_0_3(repeats: float, found: bool) -> None:
    assert bool(findings(NAME, simulated(3, repeats=repeats))) is found


def test_a_running_mean_that_starts_anew_each_epoch() -> None:
    rng = np.random.default_rng(0)
    rows = [np.cumsum(2 + rng.standard_normal(50)) / np.arange(1, 51) for _ in range(8)]
    assert findings(NAME, make_run(series(LOSS, np.concatenate(rows)), steps_per_epoch=50)) == []


@pytest.mark.parametrize("recipe", [r for r in HEALTHY if r.batch < 1000])
def test_healthy_runs_have_none(recipe: Recipe) -> None:
    assert findings(NAME, train(recipe)) == []


STEPS = np.arange(160)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "loss",
    [np.exp(STEPS / 20), np.exp(-STEPS / 20), np.exp(-STEPS / 60) + 0.1 * (-1.0) ** STEPS],
    ids=["explodes", "falls smoothly", "swings from step to step"],
)
def test_a_curve_without_noise_of_batches_repeats_no_order(loss: np.ndarray, known: bool) -> None:
    assert findings(NAME, make_run(series(LOSS, loss), **({"steps_per_epoch": 40} if known else {}))) == []


@pytest.mark.parametrize("together", [4, 12])
def test_sorted_batches_are_found(together: int) -> None:
    """Batches of one class stand together: the loss jumps where the class changes, and decays."""
    rng = np.random.default_rng(0)
    levels = rng.random(10)
    epoch = np.concatenate([np.exp(-np.arange(together) / 2) + level for level in levels])
    loss = np.tile(epoch, 6) + 0.05 * rng.standard_normal(6 * len(epoch))
    assert finding(NAME, make_run(series(LOSS, loss), steps_per_epoch=len(epoch)), Severity.WARNING)


@pytest.mark.parametrize("lr", [0.05, 0.1])
def test_full_batches_have_no_order(lr: float) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    run = watched.looked_at(
        lambda: watched.mlp(64, 32, 10), watched.adam(lr), data=watched.first(300), size=300, epochs=150
    )
    assert findings(NAME, run) == []


def test_what_it_needs() -> None:
    cannot_judge(NAME, simulated(0, epochs=2), "3 epochs of 20")
    cannot_judge(NAME, make_run(series(LOSS, np.ones(500), per="epoch")), "per batch")
    cannot_judge(
        NAME, make_run(series(LOSS, np.random.default_rng(0).random(500)), steps_per_epoch=10), "of 20 are needed"
    )
