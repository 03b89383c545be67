"""Live rules on fit, loss and learning rate see the run so far: quiet on sound runs, prompt on sick ones."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.catalogue import find, rules
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from tests.rules.test_all_rules import judged

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from tests.rules.watched import watched

LIVE = [r for r in rules() if r.live and r.family in ("fit", "loss", "learning_rate")]
SOUND = ("ordinary", "dropout", "Adam, constant rate", "warm restarts", "label smoothing", "fine-tuning", "catapult")


def warnings(run: Run, rule: str) -> list[str]:
    found = judged(find(rule), run)
    return [] if isinstance(found, str) else [f.message for f in found if f.severity is not Severity.NOTE]


@pytest.mark.parametrize("name", SOUND)
def test_quiet_on_every_prefix_of_a_sound_run(name: str) -> None:
    run = watched(name)
    assert run.steps is not None
    for step in np.unique(np.geomspace(10, run.steps.last, 8).round().astype(int)):
        found = {rule.name: warnings(run.until(int(step)), rule.name) for rule in LIVE}
        assert {n: f for n, f in found.items() if f} == {}, f"at step {step}"


@pytest.mark.parametrize(
    ("rule", "name", "by"),
    [
        ("lr-too-high", "rate x30", 120),
        ("class-collapse", "rate x30", 120),
        ("finetune-lr-too-high", "fine-tuned at 0.5", 200),
        ("adam-second-moment-lag", "gradients grow, rate 0.1", 230),
    ],
)
def test_prompt_on_sick_runs(rule: str, name: str, by: int) -> None:
    assert warnings(watched(name).until(by), rule)
