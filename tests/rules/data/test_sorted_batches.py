"""DAT003 sorted-batches."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import LOSS
from tests.digits import HEALTHY, Recipe, train
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "sorted-batches"


def simulated(seed: int, *, alike: float, repeats: float, epochs: int = 10, batches: int = 40) -> Run:
    """Losses of batches that share `repeats` of their difficulty between epochs, `alike` of it with the next one."""
    rng = np.random.default_rng(seed)

    def row() -> np.ndarray:
        noise = rng.standard_normal(batches)
        for i in range(1, batches):
            noise[i] = alike * noise[i - 1] + np.sqrt(1 - alike**2) * noise[i]
        return noise

    own = row()
    rows = [np.sqrt(repeats) * own + np.sqrt(1 - repeats) * row() for _ in range(epochs)]
    loss = np.exp(-np.arange(epochs * batches) / 300) * np.exp(0.2 * np.concatenate(rows))
    return make_run(series(LOSS, loss, per="step"), steps_per_epoch=batches)


@pytest.mark.parametrize("seed", range(3))
def test_blocks_in_the_same_order(seed: int) -> None:
    found = finding(NAME, simulated(seed, alike=0.9, repeats=0.9), Severity.WARNING)
    assert "in the same order every 40 steps" in found.message
    assert found.remedies[0].change is not None


@pytest.mark.parametrize("seed", range(3))
def test_digits_sorted_by_their_labels(seed: int) -> None:
    torch = pytest.importorskip("torch")
    watched = pytest.importorskip("tests.rules.watched")
    x, y = watched.digits()[0]
    order = y.argsort(stable=True)
    place = 0

    def step(model: object, criterion: object, opt: object, _: object, __: object) -> None:
        nonlocal place
        i = order[place : place + 48]
        place = place + 48 if place + 96 <= len(order) else 0
        opt.zero_grad()  # type: ignore[attr-defined]
        criterion(model(x[i]), y[i]).backward()  # type: ignore[operator]
        opt.step()  # type: ignore[attr-defined]

    torch.manual_seed(seed)
    run = watched.looked_at(watched.plain, watched.sgd(0.05), epochs=14, size=48, step=step, seed=seed)
    assert diagnose(run).diagnoses[0].root.rule == NAME


@pytest.mark.parametrize("repeats", [0.0, 0.9])
def test_neighbours_that_have_nothing_in_common(repeats: float) -> None:
    for seed in range(20):
        assert not findings(NAME, simulated(seed, alike=0.0, repeats=repeats))


def test_blocks_in_another_order_each_time() -> None:
    for seed in range(20):
        assert not findings(NAME, simulated(seed, alike=0.9, repeats=0.0))


@pytest.mark.parametrize("recipe", HEALTHY[:4])
def test_sound_trainings(recipe: Recipe) -> None:
    run = train(recipe)
    assert len(run.get(LOSS, per="step") or ()) >= 120
    assert not findings(NAME, run)


@pytest.mark.parametrize(("alike", "found"), [(0.15, False), (0.7, True)])
def test_the_boundary_of_what_neighbours_share(alike: float, found: bool) -> None:
    hits = [bool(findings(NAME, simulated(seed, alike=alike, repeats=0.95, batches=100))) for seed in range(10)]
    assert hits == [found] * 10


def test_it_abstains() -> None:
    cannot_judge(NAME, make_run(series(LOSS, np.ones(60))), "successive steps")
