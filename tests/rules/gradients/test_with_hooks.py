"""The gradient rules on runs that the monitor watched: along depth, and where a spike comes from."""

from __future__ import annotations

from functools import cache

import pytest
from fitdoctor.finding import Finding, Severity
from fitdoctor.run import Run
from fitdoctor.signals import ACTIVATION_GRAD_RMS, GRAD_NORM, UPDATE_RATIO
from tests.hooked import Data, digits, mlp, torch, watch
from tests.rules.activations.trainings import adam, deep, run_of, sgd
from tests.rules.judging import without
from tests.rules.one_rule import finding, findings, make_run, series
from torch import Tensor, nn

SOUND = ["six layers", "sixteen layers, he", "convolutional", "pre-activation", "attention", "functional", "frozen"]


# --- along depth ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", ["growing", "growing, adam"])
def test_gradients_that_grow_on_their_way_to_the_input(training: str) -> None:
    found = finding("exploding-gradients", run_of(training), Severity.ERROR)
    assert "on its way to the input" in found.message
    assert found.onset == 1


@pytest.mark.parametrize("training", SOUND)
@pytest.mark.parametrize("rule", ["exploding-gradients", "vanishing-gradients"])
def test_sound_nets(rule: str, training: str) -> None:
    assert findings(rule, run_of(training)) == []


@pytest.mark.parametrize("training", ["default, deep", "sigmoids"])
def test_gradients_that_fade(training: str) -> None:
    assert finding("vanishing-gradients", run_of(training), Severity.ERROR)


def test_the_backward_signal_shows_what_weight_gradients_alone_do_not() -> None:
    run = run_of("default, deep")
    assert findings("vanishing-gradients", without(run, ACTIVATION_GRAD_RMS)) == []
    assert "on its way to the input" in finding("vanishing-gradients", run).message


def made(decades: float, *, slow: float = 1e-4, ends: float = 0.95) -> Run:
    """Ten layers whose gradient with respect to the outputs fades, and whose early layers move `slow` as fast."""
    import numpy as np
    from fitdoctor.signals import LOSS

    logged = [series(LOSS, np.linspace(1, ends, 400))]
    for i in range(10):
        fade = np.full(100, 10 ** (decades * (i - 8) / 8))
        logged += [
            series(ACTIVATION_GRAD_RMS, fade, 4 * np.arange(100), layer=f"net.{i}"),
            series(GRAD_NORM, np.ones(100), 4 * np.arange(100), layer=f"net.{i}.weight"),
            series(UPDATE_RATIO, np.full(100, slow if i < 4 else 1.0), 4 * np.arange(100), layer=f"net.{i}.weight"),
        ]
    return make_run(*logged, finished=True, optimizer="SGD")


@pytest.mark.parametrize(("decades", "found"), [(2.9, False), (3.1, True)])
def test_boundary_of_the_backward_signal(decades: float, found: bool) -> None:
    assert bool(findings("vanishing-gradients", made(decades))) is found


def test_early_layers_that_move_are_no_case() -> None:
    assert findings("vanishing-gradients", made(6.0, slow=0.02)) == []
    assert findings("vanishing-gradients", made(6.0, ends=0.3)) == []


def test_under_adam_early_layers_that_move_make_it_a_note() -> None:
    run = watch(lambda: deep(8, activation=nn.Sigmoid), optimizer=adam(1e-3), epochs=10)
    assert finding("vanishing-gradients", run, Severity.NOTE)


# --- spikes -------------------------------------------------------------------------------------------------


@cache
def outlier() -> Data:
    """The digits; 50 of them, in one place, come 60 times as large."""
    (x, y), _ = digits()
    x = x.clone()
    x[600:601] *= 300
    return x, y


def spike(run: Run) -> Finding:
    return finding("gradient-spikes", run)


def test_a_batch_whose_own_loss_stands_out() -> None:
    found = spike(watch(lambda: mlp(64, 32, 10), optimizer=sgd(1e-3), data=outlier(), epochs=5, every=1))
    assert found.could_be == ("bad batches",)
    assert any("that batch's loss, taken before the step" in e.observed for e in found.evidence)
    assert any("the layer whose gradient grew most" in e.observed for e in found.evidence)


def test_a_rate_that_jumps() -> None:
    def step(model: nn.Module, criterion: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        counter.append(1)
        optimizer.param_groups[0]["lr"] = 30.0 if 90 <= len(counter) < 93 else 0.05
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()

    counter: list[int] = []
    found = spike(watch(lambda: mlp(64, 32, 10), optimizer=sgd(0.05), step=step, epochs=6, every=1))
    assert "lr-too-high" in found.could_be
    assert any("just before" in e.observed for e in found.evidence)


def test_a_second_moment_that_lags() -> None:
    def step(model: nn.Module, criterion: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        counter.append(1)
        optimizer.zero_grad()
        scale = 1.0 if len(counter) < 101 else 100.0  # a loss that suddenly counts a hundredfold
        (scale * criterion(model(x), y)).backward()
        optimizer.step()

    counter: list[int] = []
    found = spike(watch(lambda: mlp(64, 32, 10), optimizer=adam(1e-3), step=step, epochs=5, every=1))
    assert "adam-second-moment-lag" in found.could_be


def test_spikes_without_a_trace_name_no_cause() -> None:
    import numpy as np

    norms = np.exp(0.1 * np.random.default_rng(0).standard_normal(300))
    norms[200] *= 100
    assert spike(make_run(series(GRAD_NORM, norms))).could_be == ()
