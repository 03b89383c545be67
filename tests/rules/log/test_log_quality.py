"""LOG001 to LOG006: what the log itself lacks or lost."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Confidence, Severity
from fitdoctor.run import Note, Run
from fitdoctor.signals import ACCURACY, GRAD_NORM, LOSS, LR, MEMORY
from tests.digits import HEALTHY, Recipe, train
from tests.rules.judging import cannot_judge, finding, findings, make_run, series

RNG = np.random.default_rng(0)
LOG_RULES = (
    "restart-discontinuity",
    "damaged-log",
    "no-validation-logged",
    "too-few-points",
    "unmapped-tags",
    "duplicate-steps",
)


def resumed(*, loss_jump: float = 0.0, rate_jump: float = 1.0) -> Run:
    steps = np.arange(400)
    later = steps >= 200
    loss = np.exp(-steps / 300) + 0.01 * RNG.standard_normal(400) + loss_jump * later
    rate = 0.1 * np.where(later, rate_jump, 1.0) * np.cos(steps / 300)
    return make_run(series(LOSS, loss), series(LR, rate), notes=[Note("restart", "a new file at step 200", step=200)])


# --- restart-discontinuity ------------------------------------------------------------------------


def test_a_resume_that_continues_is_no_finding() -> None:
    assert findings("restart-discontinuity", resumed()) == []


def test_a_loss_that_jumps_at_the_resume() -> None:
    found = finding("restart-discontinuity", resumed(loss_jump=0.3), Severity.WARNING)
    assert found.message == "run was resumed once (step 200), and train loss jumped there"
    assert found.remedies[0].title.startswith("when resuming, restore")


def test_a_rate_that_starts_anew_at_the_resume() -> None:
    assert "lr jumped" in finding("restart-discontinuity", resumed(rate_jump=3.0), Severity.WARNING).message


def test_a_real_run_resumed_from_other_weights() -> None:
    """The second half of another training, as after loading the wrong checkpoint."""
    first, second = train(Recipe()), train(Recipe(optimizer="adam", lr=1e-4, seed=5))
    joined = []
    for quantity in (LOSS, GRAD_NORM):
        a, b = first.get(quantity), second.get(quantity)
        assert a is not None
        assert b is not None
        joined.append(series(quantity, np.r_[a.values[:200], b.values[:200]]))
    run = make_run(*joined, notes=[Note("restart", "steps go back", step=200)])
    assert finding("restart-discontinuity", run, Severity.WARNING)


@pytest.mark.parametrize(("jump", "found"), [(0.02, False), (0.2, True)])
def test_boundary_of_the_jump(jump: float, found: bool) -> None:
    assert bool(findings("restart-discontinuity", resumed(loss_jump=jump))) is found


def test_a_jump_without_a_restart_is_not_its_business() -> None:
    assert findings("restart-discontinuity", make_run(*resumed(loss_jump=0.5).series)) == []


# --- damaged-log ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "word"), [("truncated", "cut off at the end"), ("corrupt", "damaged")])
def test_damage_is_a_note(kind: str, word: str) -> None:
    run = make_run(series(LOSS, np.ones(50)), notes=[Note(kind, "17 bytes skipped", amount=17)])
    assert finding("damaged-log", run, Severity.NOTE).message == f"log is {word} in 1 place"


def test_damage_that_leaves_too_little_is_a_warning() -> None:
    run = make_run(series(LOSS, np.ones(5)), notes=[Note("corrupt", "checksum"), Note("truncated", "cut")])
    assert finding("damaged-log", run, Severity.WARNING).confidence is Confidence.HIGH


# --- no-validation-logged -------------------------------------------------------------------------


def test_no_validation() -> None:
    run = make_run(series(LOSS, np.ones(50)), series(ACCURACY, np.ones(50)))
    assert finding("no-validation-logged", run, Severity.NOTE).message == "no validation loss or metric was logged"


def test_a_tag_that_looks_like_validation() -> None:
    found = finding("no-validation-logged", make_run(series(LOSS, np.ones(50)), unmapped=["eval/thing"]), Severity.NOTE)
    assert "eval/thing" in found.could_be[0]


@pytest.mark.parametrize("split", ["val", "test"])
def test_any_held_out_metric_will_do(split: str) -> None:
    run = make_run(series(LOSS, np.ones(50)), series(ACCURACY, [0.5], split=split))
    assert findings("no-validation-logged", run) == []


def test_too_short_to_miss_validation() -> None:
    cannot_judge("no-validation-logged", make_run(series(LOSS, np.ones(7))), "8 are needed")


# --- too-few-points, unmapped-tags, duplicate-steps -----------------------------------------------


@pytest.mark.parametrize(("points", "found"), [(7, True), (8, False)])
def test_too_few_points(points: int, found: bool) -> None:
    assert bool(findings("too-few-points", make_run(series(LOSS, np.ones(points))))) is found


def test_the_longest_curve_counts() -> None:
    assert findings("too-few-points", make_run(series(LOSS, [1.0]), series(ACCURACY, np.ones(20), split="val"))) == []
    assert findings("too-few-points", make_run(series(MEMORY, np.ones(3)))) == []


def test_unmapped_tags_matter_when_there_is_no_loss() -> None:
    found = finding("unmapped-tags", make_run(series(LR, np.ones(9)), unmapped=["objective\n", "b"]), Severity.NOTE)
    assert found.message == "no loss found, and 2 tags were not understood, such as 'objective'"
    assert findings("unmapped-tags", make_run(series(LOSS, np.ones(9), split="val"), unmapped=["a"])) == []
    assert findings("unmapped-tags", make_run(series(LR, np.ones(9)))) == []


def test_duplicate_steps() -> None:
    notes = [Note("duplicate-steps", "loss", amount=5), Note("duplicate-steps", "lr", amount=6)]
    found = finding("duplicate-steps", make_run(series(LOSS, np.ones(9)), notes=notes), Severity.NOTE)
    assert found.message == "11 values stand at steps that were logged before; the later ones are used"
    assert findings("duplicate-steps", make_run(series(LOSS, np.ones(9)))) == []


@pytest.mark.parametrize("rule", LOG_RULES)
@pytest.mark.parametrize("recipe", HEALTHY)
def test_sound_logs(rule: str, recipe: Recipe) -> None:
    assert findings(rule, train(recipe)) == []
