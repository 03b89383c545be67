"""The trainings that the rules are tested on are what they are called: every cure helps."""

from __future__ import annotations

import math

import pytest
from tests.trainings import RECIPES, cured, training

SICK = [name for name, recipe in RECIPES.items() if recipe.cure]
SOUND = [name for name, r in RECIPES.items() if not r.cure and not r.bad_batch_at and not r.label_noise]


@pytest.mark.parametrize("name", SICK)
def test_the_cure_of_a_sick_training_helps(name: str) -> None:
    """By a tenth of the loss, on the set that its disease concerns."""
    key = f"{RECIPES[name].better} loss"
    before, after = training(name).truth[key], cured(name).truth[key]
    assert math.isfinite(after)
    assert not before <= 1.1 * after  # also when before is nan


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_training_learns_what_there_is_to_learn(name: str) -> None:
    truth = training(name).truth
    if math.isnan(truth["oracle accuracy"]):
        noise = 0.49 if RECIPES[name].data == "noisy" else 0.0
        assert truth["oracle loss"] < noise + 0.25  # of a variance of 1
    else:
        assert truth["oracle accuracy"] > 0.92


def test_a_recipe_decides_everything() -> None:
    from tests.trainings import train

    again = train(RECIPES["sound"])
    assert again.truth == training("sound").truth
    for a, b in zip(again.run.series, training("sound").run.series, strict=True):
        assert a.values.tolist() == b.values.tolist()
