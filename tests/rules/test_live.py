"""A live rule sees the run so far: quiet on sound runs, prompt on sick ones, with one judgement for both."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.catalogue import find, rules
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from tests.digits import HEALTHY, Recipe, train
from tests.rules.test_all_rules import judged

FAMILIES = ("numerics", "gradients", "schedule", "log", "data", "setup")
LIVE = [r for r in rules() if r.live and r.family in FAMILIES]


def warnings(run: Run, rule: str) -> list[str]:
    found = judged(find(rule), run)
    return [] if isinstance(found, str) else [f.message for f in found if f.severity is not Severity.NOTE]


@pytest.mark.parametrize("recipe", HEALTHY)
def test_quiet_on_every_prefix_of_a_healthy_run(recipe: Recipe) -> None:
    run = train(recipe)
    span = run.steps
    assert span is not None
    for step in np.unique(np.geomspace(5, span.last, 25).round().astype(int)):
        for rule in LIVE:
            assert warnings(run.until(int(step)), rule.name) == [], f"{rule.name} at step {step}"


@pytest.mark.parametrize(
    ("rule", "recipe", "onset", "latency"),
    [
        ("nonfinite-loss", Recipe(poison_at=300), 300, 0),
        ("exploding-gradients", Recipe(gain=3.0, lr=0.5, depth=3), 10, 15),
        ("gradient-spikes", Recipe(blow_up_at=300), 300, 80),
        ("gradient-clipping-saturated", Recipe(clip=0.005), 0, 160),
        ("scheduler-misstepped", Recipe(schedule="step", schedule_steps=5), 0, 40),
        ("repeated-batch-order", Recipe(shuffle=False, lr=0.02), 0, 500),
        ("vanishing-gradients", Recipe(depth=10, activation="sigmoid", layers=True, epochs=10), 0, 60),
        ("double-softmax", Recipe(double_softmax=True, optimizer="adam", lr=3e-3), 20, 440),
    ],
)
def test_prompt_on_sick_runs(rule: str, recipe: Recipe, onset: int, latency: int) -> None:
    run = train(recipe)
    assert warnings(run.until(onset - 1), rule) == []
    assert warnings(run.until(onset + latency), rule)
