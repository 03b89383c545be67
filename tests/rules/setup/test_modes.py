"""SET003 eval-mode-in-training, SET004 train-mode-in-eval and SET006 eval-without-no-grad."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import EVAL_FORWARDS, EVAL_TRAIN_MODE, TRAIN_MODE
from tests.rules.books import healthy, loop, modal, net, sound_loop
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

IN_TRAINING, IN_EVAL, GRADIENTS = "eval-mode-in-training", "train-mode-in-eval", "eval-without-no-grad"


def nothing(model: nn.Module) -> None:
    """Leaves the mode as it is."""


# --- eval mode in training ----------------------------------------------------------------------------


def test_nobody_calls_train_after_the_first_evaluation() -> None:
    found = finding(IN_TRAINING, loop(train_mode=nothing), Severity.WARNING)
    assert 12 < found.onset <= 16
    assert "1 dropout, 1 batch norm" in found.message
    assert found.remedies[0].title.startswith("call model.train()")


def test_eval_mode_from_the_first_step_on() -> None:
    run = loop(build=lambda: modal(norm=False), train_mode=lambda model: model.eval(), epochs=3)
    found = finding(IN_TRAINING, run, Severity.WARNING)
    assert found.could_be  # it may be meant
    assert "1 dropout" in found.message


def test_a_model_without_modes_is_the_same_in_both() -> None:
    assert findings(IN_TRAINING, loop(build=net, train_mode=nothing)) == []


def test_fine_tuning_with_frozen_batch_norm() -> None:
    def norm_in_eval(model: nn.Module) -> None:
        model.train()
        model[1].eval()  # type: ignore[index]

    assert findings(IN_TRAINING, loop(build=lambda: modal(dropout=0), train_mode=norm_in_eval)) == []

    def frozen() -> nn.Module:
        model = modal(dropout=0)
        model[1].requires_grad_(False)  # type: ignore[index]
        return model

    run = loop(build=frozen, train_mode=nothing, epochs=2)
    assert findings(IN_TRAINING, run) == []


def test_dropout_of_0_has_no_mode() -> None:
    assert findings(IN_TRAINING, loop(build=lambda: modal(norm=False, dropout=0.0), train_mode=nothing, epochs=2)) == []


@pytest.mark.parametrize(("wrong", "found"), [(2, False), (3, True)])
def test_boundary_is_three_records(wrong: int, found: bool) -> None:
    mode = np.r_[np.ones(10), np.zeros(wrong)]
    run = make_run(series(TRAIN_MODE, mode), series(TRAIN_MODE, mode, layer="model"), dropout_layers=1)
    assert bool(findings(IN_TRAINING, run)) is found


# --- train mode in an evaluation -----------------------------------------------------------------------


def test_nobody_calls_eval() -> None:
    found = finding(IN_EVAL, loop(eval_mode=nothing), Severity.WARNING)
    assert found.message == "3 of 3 evaluations ran in train mode, with dropout and batch norm as in training"


def test_nobody_calls_eval_and_there_is_dropout_alone() -> None:
    found = finding(IN_EVAL, loop(build=lambda: modal(norm=False), eval_mode=nothing), Severity.WARNING)
    assert not found.could_be


def test_monte_carlo_dropout_is_meant() -> None:
    def dropout_alone(model: nn.Module) -> None:
        model.eval()
        model[3].train()  # type: ignore[index]

    assert findings(IN_EVAL, loop(eval_mode=dropout_alone)) == []


def test_pseudo_labels_at_every_step_are_no_evaluation() -> None:
    def label(model: nn.Module, x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            model(x)

    assert findings(IN_EVAL, loop(before=label)) == []


def test_a_sound_loop_has_none() -> None:
    for name in (IN_TRAINING, IN_EVAL, GRADIENTS):
        assert findings(name, sound_loop()) == []
    assert findings(IN_TRAINING, healthy()) == []


def evaluations(wrong: int, of: int) -> Run:
    steps = 50 * np.arange(1, of + 1)
    return make_run(
        series(EVAL_TRAIN_MODE, (np.arange(of) < wrong).astype(float), steps),
        series(EVAL_FORWARDS, np.full(of, 10.0), steps),
        series(TRAIN_MODE, np.ones(of * 50)),
        dropout_layers=2,
        batch_norm_layers=0,
    )


@pytest.mark.parametrize(("wrong", "found"), [(5, False), (6, True)])
def test_boundary_is_half_of_the_evaluations(wrong: int, found: bool) -> None:
    assert bool(findings(IN_EVAL, evaluations(wrong, 10))) is found
    cannot_judge(IN_EVAL, evaluations(1, 1), "2 are needed")


# --- an evaluation with gradients -----------------------------------------------------------------------


def test_an_evaluation_with_gradients_is_a_note_and_no_training() -> None:
    run = loop(gradients=True)
    assert finding(GRADIENTS, run, Severity.NOTE).message == "3 evaluations built graphs, 6 forward passes each"
    assert run.facts["gradient_accumulation_steps"] == 1
    assert run.facts["batch_size"] == 100
    mode = run.get(TRAIN_MODE)
    assert mode is not None
    assert set(mode.values) == {1.0}


def test_two_evaluations_are_enough() -> None:
    assert finding(GRADIENTS, loop(gradients=True, epochs=3), Severity.NOTE)
    assert findings(GRADIENTS, loop(gradients=True, epochs=2)) == []  # the last one is not followed by a step


def test_adversarial_examples_use_their_gradients() -> None:
    criterion = nn.CrossEntropyLoss()

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> None:
        model.eval()
        moved = x.clone().requires_grad_()
        torch.autograd.grad(criterion(model(moved), y), moved)
        model.train()

    run = loop(before=attack)
    assert findings(GRADIENTS, run) == []
    assert findings(IN_TRAINING, run) == []


def test_saliency_maps_use_their_gradients_too() -> None:
    def saliency(model: nn.Module, x: Tensor, y: Tensor) -> None:
        model.eval()
        part = x[:4].clone().requires_grad_()
        nn.CrossEntropyLoss()(model(part), y[:4]).backward()
        model.train()

    assert findings(GRADIENTS, loop(build=net, before=saliency)) == []
