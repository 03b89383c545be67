from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fitdoctor.rules.fit.fit003_underfitting import underfitting
from fitdoctor.rules.loss.los004_no_learning import no_learning
from fitdoctor.run import Run
from fitdoctor.signals import ACCURACY
from fitdoctor.testing import check_skips, make_run
from fitdoctor.views.steps import drowned
from tests.rules.judging import finds, is_silent, without


@pytest.mark.parametrize("name", ["too narrow", "too linear"])
def test_a_training_that_a_larger_model_improves(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(underfitting, trainings.run_of(name))
    assert finding.severity == "warning"
    assert "width" in {r.change.knob for r in finding.remedies if r.change}


@pytest.mark.parametrize("name", ["sound", "heavy dropout", "label smoothing", "rate / 1000", "40 examples",
                                  "noisy labels", "tiny val set"])  # fmt: skip
def test_a_training_that_fits_or_still_improves(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(underfitting, trainings.run_of(name))


def curves(accuracy: float, gap: float = 0.0, n: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    rise = 1 - np.exp(-np.arange(n) / 4)
    return {
        "train_loss": 2.3 - 1.3 * rise + 0.001 * rng.standard_normal(n),
        "train_accuracy": 0.1 + (accuracy - 0.1) * rise,
        "val_accuracy": 0.1 + (accuracy - gap - 0.1) * rise,
    }


def test_half_way_from_guessing_to_perfect_is_the_line() -> None:
    finds(underfitting, make_run(**curves(0.5), facts={"classes": 10}))
    is_silent(underfitting, make_run(**curves(0.6), facts={"classes": 10}))
    finds(underfitting, make_run(**curves(0.6), facts={"classes": 10}), learned=0.6)


def test_a_gap_to_validation_makes_it_another_disease() -> None:
    is_silent(underfitting, make_run(**curves(0.45, gap=0.2), facts={"classes": 10}))


def test_without_validation_nothing_is_said_about_it() -> None:
    made = curves(0.4)
    made.pop("val_accuracy")
    finding = finds(underfitting, make_run(**made, facts={"classes": 10}))
    assert "valid" not in finding.message
    assert len(finding.evidence) == 2


def test_a_known_number_of_classes_makes_it_surer() -> None:
    assert finds(underfitting, make_run(**curves(0.4), facts={"classes": 10})).confidence == "medium"


def test_it_abstains() -> None:
    trainings = pytest.importorskip("tests.trainings")
    assert "no train accuracy" in check_skips(underfitting, without(trainings.run_of("too narrow"), ACCURACY))
    check_skips(underfitting, make_run(train_loss=[1.0] * 19), "20 are needed")


@pytest.mark.parametrize(
    ("name", "words", "knob"),
    [
        ("too narrow", "too small", "width"),
        ("dropout on six units", "regularisation", "dropout"),
        ("dropout on eight units", "regularisation", "dropout"),
        ("annealed before it had begun", "too short", "learning_rate"),
        ("mostly wrong labels", "held-out accuracy", ""),
        ("mostly wrong labels, narrow", "held-out accuracy", ""),
    ],
)
def test_watched_the_cause_is_told(name: str, words: str, knob: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    finding = finds(underfitting, watched.watched(name))
    assert finding.severity == "warning"
    assert words in finding.message
    assert not knob or knob in {r.change.knob for r in finding.remedies if r.change}


@pytest.mark.parametrize("name", ["dropout", "heavy dropout", "ordinary", "never annealed"])
def test_watched_what_fits_is_not_told_of(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(underfitting, watched.watched(name))


@pytest.mark.parametrize("name", ["rate x10, momentum", "rate x30"])
def test_watched_a_floor_of_long_steps_is_not_laid_to_the_model(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    assert "too small" not in finds(underfitting, watched.watched(name)).message


@pytest.mark.parametrize(
    ("logged", "quality", "held", "words"),
    [(1.6, 0.5, 0.4, "regularisation"), (1.2, 0.99, 0.4, "too short"), (1.2, 0.05, 0.4, "too long"),
     (1.2, 0.5, 0.5, "held-out"), (1.2, 0.5, 0.4, "too small")],
)  # fmt: skip
def test_fixed_batches_and_step_quality_tell_the_causes_apart(
    logged: float, quality: float, held: float, words: str
) -> None:
    made = curves(0.4)
    rise = 1 - np.exp(-np.arange(60) / 4)
    run = make_run(
        train_loss=2.3 - (2.3 - logged) * rise,
        probe_loss=2.3 - 1.15 * rise,
        probe_accuracy=made["train_accuracy"],
        val_accuracy=0.1 + (held - 0.1) * rise,
        step_quality=np.full(60, quality),
        facts={"classes": 10},
    )
    assert words in finds(underfitting, run).message


def with_dropout(first: float, *, ends: float = 2.3, layers: int = 2, finished: bool | None = True) -> Run:
    """Accuracy and loss of guessing, and a first loss that dropout makes worse in training mode."""
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.standard_normal(100)
    return make_run(
        train_loss=np.r_[first, np.full(99, 2.35)] + np.abs(noise),
        train_accuracy=0.1 + noise,
        probe_loss=np.linspace(2.3, ends, 100) + 0.1 * noise,
        facts={"classes": 10, "dropout_layers": layers},
        finished=finished,
    )


def test_dropout_that_drowns_the_signal_is_named_in_place_of_no_learning() -> None:
    found = finds(underfitting, with_dropout(2.7))
    assert (found.severity, found.span.first) == ("error", 0)
    assert found.message.startswith("dropout drowns the signal")
    assert "regularisation" in {r.kind for r in found.remedies}
    is_silent(no_learning, with_dropout(2.7))


@pytest.mark.parametrize(
    "run",
    [with_dropout(2.5), with_dropout(2.7, layers=0), with_dropout(2.7, finished=False)],
    ids=["a tenth is the line", "no dropout", "not finished"],
)
def test_otherwise_it_is_no_learning(run: Run) -> None:
    finds(no_learning, run)


def test_dropout_with_which_the_model_learns_drowns_nothing() -> None:
    assert drowned(with_dropout(2.7, ends=2.1)) is not None
    assert drowned(with_dropout(2.7, ends=2.0)) is None


def test_a_model_that_is_right_although_its_loss_is_high_is_not_drowned() -> None:
    run = with_dropout(2.7)
    right = make_run(val_accuracy=np.linspace(0.1, 0.4, 100), facts=dict(run.facts))
    assert drowned(replace(run, series=(*run.series, *right.series))) is None


@pytest.mark.parametrize(("classes", "judged"), [(20, True), (21, False), (50_000, False)])
def test_a_poor_accuracy_among_many_classes_may_be_the_best_there_is(classes: int, judged: bool) -> None:
    """As of words that nobody can guess; where no fixed batch tells the cause."""
    loss, right = (
        np.r_[np.geomspace(3.0, 1.7, 30), np.full(60, 1.7)],
        np.r_[np.linspace(0.05, 0.4, 30), np.full(60, 0.4)],
    )
    run = make_run(train_loss=loss, train_accuracy=right, facts={"classes": classes})
    if judged:
        assert finds(underfitting, run).severity == "warning"
    else:
        check_skips(underfitting, run, "far below 1")
