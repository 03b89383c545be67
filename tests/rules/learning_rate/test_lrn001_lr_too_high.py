from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.learning_rate.lrn001_lr_too_high import lr_too_high
from fitdoctor.run import Run
from fitdoctor.signals import LR
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent, without


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        ("rate x8", "error"),
        ("rate x1000 regression", "error"),
        ("rate jumps", "error"),
        ("rate x100 adam", "warning"),
        ("never annealed", "warning"),
    ],
)
@pytest.mark.parametrize("left_out", [(), (LR,)], ids=["", "lr not logged"])
def test_a_training_that_a_lower_rate_improves(name: str, severity: str, left_out: tuple[object, ...]) -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(lr_too_high, without(trainings.run_of(name), *left_out))  # type: ignore[arg-type]
    assert finding.severity == severity
    changes = {r.change.knob for r in finding.remedies if r.change}
    assert "learning_rate" in changes


@pytest.mark.parametrize("name", ["sound", "sound per step", "rough start", "catapult", "edge of stability",
                                  "warm restarts", "tiny val set", "bad batches", "small batches, annealed",
                                  "40 examples", "frozen regression", "too narrow", "noisy targets"])  # fmt: skip
def test_a_training_that_is_sound_or_has_another_disease(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(lr_too_high, trainings.run_of(name))


def test_a_loss_that_is_maximised_looks_the_same_and_is_named_as_a_doubt() -> None:
    trainings = pytest.importorskip("tests.trainings")
    assert "a bug in the loss" in finds(lr_too_high, trainings.run_of("uphill")).could_be


def test_a_climb_above_the_start_that_stays_is_a_blow_up() -> None:
    def climbs(peak: float) -> np.ndarray:
        return np.r_[2.0, np.linspace(2.0, peak, 30), np.full(69, peak)]

    is_silent(lr_too_high, make_run(train_loss=climbs(2.3)))
    finding = finds(lr_too_high, make_run(train_loss=climbs(2.8)))
    assert finding.onset < 40


def test_a_climb_that_is_made_up_for_is_a_catapult() -> None:
    values = np.r_[2.0, np.linspace(2.0, 4.0, 5), np.geomspace(4.0, 0.05, 94)]
    is_silent(lr_too_high, make_run(train_loss=values))


def test_a_long_climb_that_ends_well_is_a_note() -> None:
    def climbs(end: float) -> np.ndarray:
        return np.r_[2.0, np.linspace(2.0, 30.0, 5), np.geomspace(30.0, end, 94)]

    for end, held, severity in ((0.1, 0.2, "note"), (0.1, 1.0, "warning"), (0.9, 0.9, "error")):
        run = make_run(train_loss=climbs(end), val_loss=climbs(held))
        assert finds(lr_too_high, run).severity == severity


def test_watched_full_batches_at_a_high_rate() -> None:
    """At 2.5 validation ends where it does at 1.5, after a loss of 10; at 4 it loses a tenth of its accuracy."""
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(lr_too_high, watched.full_batch(2.5))
    assert finds(lr_too_high, watched.full_batch(4.0)).severity == "warning"


def test_a_ramp_into_nan_counts_and_a_nan_from_nowhere_does_not() -> None:
    ramp = np.r_[np.linspace(2, 1, 50), 1.0 * 2.0 ** np.arange(10), np.full(40, np.nan)]
    assert "turned non-finite at step 60" in finds(lr_too_high, make_run(train_loss=ramp)).message
    sudden = np.r_[np.linspace(2, 1, 60), np.full(40, np.nan)]
    is_silent(lr_too_high, make_run(train_loss=sudden))
    passing = np.r_[np.linspace(2, 1, 50), 4.0, 8.0, np.nan, np.linspace(1, 0.5, 47)]
    is_silent(lr_too_high, make_run(train_loss=passing))


def test_the_floor_is_not_judged_once_the_rate_is_annealed() -> None:
    rng = np.random.default_rng(0)
    shake = 0.15 * rng.standard_normal(100)
    base = 1 + np.exp(-np.arange(100) / 5)
    curves = {"train_loss": base + shake, "val_loss": base + shake + 0.01 * rng.standard_normal(100)}
    finds(lr_too_high, make_run(**curves, lr=np.full(100, 0.1)))
    is_silent(lr_too_high, make_run(**curves, lr=np.r_[np.full(50, 0.1), np.full(50, 0.01)]))


def test_noise_that_the_two_sets_do_not_share_is_not_the_weights() -> None:
    rng = np.random.default_rng(0)
    base = 1 + np.exp(-np.arange(100) / 5)
    apart = {s: base + 0.05 * rng.standard_normal(100) for s in ("train_loss", "val_loss")}
    is_silent(lr_too_high, make_run(**apart))


def test_it_abstains() -> None:
    check_skips(lr_too_high, make_run(train_loss=[1.0] * 7), "8 are needed")
    check_skips(lr_too_high, make_run(lr=[0.1]), "no train loss logged")


@pytest.mark.parametrize("name", ["rate x30, deep Adam", "rate x10, momentum", "rate x30"])
def test_watched_the_first_updates_give_the_factor(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    finding = finds(lr_too_high, watched.watched(name))
    assert finding.remedies[0].change is not None
    assert finding.remedies[0].change.knob == "learning_rate"
    assert 0.005 <= float(finding.remedies[0].change.value or 0) <= 0.2


def test_first_steps_that_throw_the_weights_away_are_seen_in_a_log() -> None:
    """A rate that is annealed to nothing ends at 68 % accuracy; its third step raised the loss fivefold."""
    digits = pytest.importorskip("tests.digits")
    recipe = {"optimizer": "adam", "depth": 4, "schedule": "linear"}
    assert "first steps" in finds(lr_too_high, digits.train(digits.Recipe(lr=0.1, **recipe))).message
    is_silent(lr_too_high, digits.train(digits.Recipe(lr=3e-3, **recipe)))


def test_a_leap_that_the_run_makes_up_for_is_none() -> None:
    for end, found in ((1.0, True), (0.3, False)):
        loss = np.r_[2.0, 7.0, 6.0, end + (2 - end) * np.exp(-np.arange(297) / 20)]
        run = make_run(train_loss=loss, per="step")
        finds(lr_too_high, run) if found else is_silent(lr_too_high, run)


def test_watched_a_noisy_floor_with_helpful_steps_is_another_thing() -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(lr_too_high, watched.watched("never annealed"))


@pytest.mark.parametrize("end", [2.3, 1.9])
def test_first_steps_near_the_stable_rate_count_where_nothing_comes_of_them(end: float) -> None:
    """Largest stable rate at 2.8 and 3.2 times the rate in use; a loss that ends low, or high after having been low."""

    def goes(quality: float, low: float) -> Run:
        loss = np.r_[np.linspace(2.3, low, 200), np.linspace(low, end, 200)]
        qualities = np.r_[np.full(10, quality), np.full(90, 0.9)]
        return make_run(train_loss=loss, step_quality=qualities, facts={"classes": 10}, finished=True)

    low = 1.0 if end < 2.0 else 2.25
    finding = finds(lr_too_high, goes(0.643, low))
    assert "overshoot" in finding.message
    assert finding.onset == 0
    is_silent(lr_too_high, goes(0.688, low))
    if end < 2.0:
        is_silent(lr_too_high, goes(0.643, 1.85))


def test_noise_of_dropout_in_the_first_steps_says_nothing_of_the_rate() -> None:
    def goes(**facts: object) -> Run:
        return make_run(
            train_loss=np.full(400, 2.9), probe_loss=np.full(40, 2.32), step_quality=np.full(100, 0.3),
            facts={"classes": 10, **facts}, finished=True,
        )  # fmt: skip

    assert "overshoot" in finds(lr_too_high, goes()).message
    is_silent(lr_too_high, goes(dropout_layers=2))


def test_steps_that_stop_helping_later_are_seen_as_well() -> None:
    qualities = np.r_[np.full(20, 0.9), np.full(80, 0.0)]
    finding = finds(lr_too_high, make_run(train_loss=np.full(400, 2.0), step_quality=qualities))
    assert "stopped helping" in finding.message
    is_silent(lr_too_high, make_run(train_loss=np.linspace(2.0, 1.0, 400), step_quality=qualities))


@pytest.mark.parametrize(("first", "found"), [(2.4, True), (6.5, True), (7.5, False)])
def test_untrained_outputs_that_are_too_large_make_any_step_overshoot(first: float, found: bool) -> None:
    loss = np.r_[np.linspace(first, 2.3, 20), np.full(380, 2.3)]
    run = make_run(train_loss=loss, step_quality=np.full(100, 0.4), facts={"classes": 10}, finished=True)
    finds(lr_too_high, run) if found else is_silent(lr_too_high, run)


@pytest.mark.parametrize(("late", "found"), [(0.1, True), (0.9, False)])
def test_after_a_warm_up_the_steps_at_the_whole_rate_count(late: float, found: bool) -> None:
    rate = np.r_[np.linspace(0.0, 0.1, 100), np.full(300, 0.1)]
    qualities = np.r_[np.full(50, 0.95), np.full(350, late)]
    loss = np.r_[np.linspace(2.3, 1.0, 200), np.linspace(1.0, 1.9, 200)]
    run = make_run(train_loss=loss, step_quality=qualities, lr=rate, facts={"classes": 10}, finished=True)
    if not found:
        is_silent(lr_too_high, run)
        return
    change = finds(lr_too_high, run).remedies[0].change
    assert change is not None
    assert change.value == 0.4  # a third of the stable rate


@pytest.mark.parametrize(("first", "found"), [(0.29, False), (0.31, True)])
def test_first_updates_that_undo_the_initialisation(first: float, found: bool) -> None:
    more = {"update_ratio": np.r_[first, np.full(99, 0.01)], "finished": True, "facts": {"classes": 10}}
    idle, learns = np.full(400, 2.3), np.linspace(2.3, 0.9, 400)
    run = make_run(train_loss=idle, **more)
    if found:
        assert f"{first} times the weights" in finds(lr_too_high, run).message
    else:
        is_silent(lr_too_high, run)
    is_silent(lr_too_high, make_run(train_loss=learns, **more))


def test_one_step_that_overshoots_among_others_that_help_says_nothing() -> None:
    """Layers that see nothing of the data, and small batches, make the quality of single steps scatter."""
    qualities = np.r_[0.7, 0.9, -0.5, np.full(37, 0.9)]
    is_silent(lr_too_high, make_run(train_loss=np.full(400, 2.3), step_quality=qualities, facts={"classes": 10}))


@pytest.mark.parametrize(("level", "found"), [(1.1, False), (1.5, True)])
def test_what_the_warm_up_reached_is_lost_at_the_whole_rate(level: float, found: bool) -> None:
    rate = np.r_[np.linspace(0.001, 0.1, 80), np.full(320, 0.1)]
    rng = np.random.default_rng(0)
    loss = np.r_[np.linspace(2.3, 1.2, 35), np.linspace(1.2, level, 65), np.full(300, level)]
    run = make_run(train_loss=loss + 0.02 * rng.standard_normal(400), lr=rate)
    if found:
        assert "warm-up reached" in finds(lr_too_high, run).message
    else:
        is_silent(lr_too_high, run)
    is_silent(lr_too_high, make_run(train_loss=loss + 0.02 * rng.standard_normal(400), lr=np.full(400, 0.1)))


@pytest.mark.parametrize(("quality", "found"), [(0.5, True), (0.6, False)])
def test_steps_that_gain_little_for_half_of_a_run_that_ends_poor(quality: float, found: bool) -> None:
    loss = np.r_[np.linspace(2.3, 1.0, 200), np.full(200, 1.0)]
    run = make_run(train_loss=loss, step_quality=np.full(100, quality))
    if found:
        assert "gain little" in finds(lr_too_high, run).message
    else:
        is_silent(lr_too_high, run)
    is_silent(lr_too_high, make_run(train_loss=0.15 * loss + np.r_[2.0, np.zeros(399)], step_quality=np.full(100, 0.5)))


def test_the_quality_of_a_few_steps_is_no_sign() -> None:
    run = make_run(train_loss=np.full(400, 2.3), step_quality=np.full(4, 0.1), facts={"classes": 10}, finished=True)
    is_silent(lr_too_high, run)
