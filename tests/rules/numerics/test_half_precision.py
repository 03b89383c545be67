"""NUM003 amp-gradient-underflow, NUM004 gradscaler-stuck and NUM005 low-precision-update-loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import ACTIVATION_GRAD_RMS, LOSS, LOSS_SCALE, SKIPPED_STEPS, UPDATE_LOST_FRACTION
from tests.hooked import digits, mlp
from tests.rules.books import adam, healthy, net, sgd, short
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

UNDERFLOW, STUCK, LOST = "amp-gradient-underflow", "gradscaler-stuck", "low-precision-update-loss"


def roots(run: Run) -> set[str]:
    return {d.root.rule for d in diagnose(run).diagnoses if d.root.severity is not Severity.NOTE}


# --- gradients in float16 ---------------------------------------------------------------------------


def autocast(scaler: torch.amp.GradScaler | None = None, factor: float = 1.0) -> Callable[..., None]:
    """A step in float16 with a loss that a factor makes small; a rate of 1 / factor makes up for it."""

    def step(model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = c(model(x), y) * factor
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    return step


def half(factor: float, *, scaled: bool = False) -> Run:
    scaler = torch.amp.GradScaler("cpu") if scaled else None
    step = autocast(scaler, factor)
    return short(optimizer=sgd(0.1 / factor), step=step, tier="standard", scaler=scaler)


@pytest.mark.parametrize(("factor", "severity"), [(1e-5, Severity.WARNING), (1e-7, Severity.ERROR)])
def test_gradients_that_float16_cannot_hold(factor: float, severity: Severity) -> None:
    run = half(factor)
    found = finding(UNDERFLOW, run, severity)
    assert "without a loss scale" in found.message
    assert found.remedies[0].title.startswith("scale the loss")
    assert roots(run) == {UNDERFLOW}


def test_a_loss_scale_lifts_them() -> None:
    assert findings(UNDERFLOW, half(1e-5, scaled=True)) == []


def test_float16_with_ordinary_gradients() -> None:
    assert findings(UNDERFLOW, half(1.0)) == []


def test_float32_holds_small_gradients() -> None:
    def small(model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        (1e-7 * c(model(x), y)).backward()
        optimizer.step()

    assert findings(UNDERFLOW, short(optimizer=sgd(1e6), step=small, tier="standard")) == []


def layered(*rms: float, loss: float = 1.0, **facts: str) -> Run:
    layers = [series(ACTIVATION_GRAD_RMS, np.full(10, r), layer=str(i)) for i, r in enumerate(rms)]
    return make_run(*layers, series(LOSS, np.linspace(2, 2 * loss, 40)), autocast="float16", dtype="float32", **facts)


@pytest.mark.parametrize(("rms", "found"), [(2.3e-7, True), (2.5e-7, False)])
def test_boundary_is_four_times_the_smallest_number(rms: float, found: bool) -> None:
    assert bool(findings(UNDERFLOW, layered(rms, 1e-4))) is found


def test_a_dead_layer_and_a_solved_task_have_no_gradients_either() -> None:
    assert findings(UNDERFLOW, layered(0.0, 1e-3)) == []
    assert findings(UNDERFLOW, layered(1e-8, 1e-8, loss=0.01)) == []
    assert finding(UNDERFLOW, layered(0.0, 1e-6))
    cannot_judge(UNDERFLOW, make_run(series(ACTIVATION_GRAD_RMS, np.ones(9), layer="0")), "hooks tell it")


# --- the scaler --------------------------------------------------------------------------------------


def scaled_run(overflow: Callable[[int], bool], steps: int = 72, growth: int = 2000) -> Run:
    """A training with a scaler in float32, with an inf in the gradient of some steps."""
    scaler = torch.amp.GradScaler("cpu", growth_interval=growth)
    calls = [0]

    def step(model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        scaler.scale(c(model(x), y)).backward()
        if overflow(calls[0]):
            grad = next(model.parameters()).grad
            assert grad is not None
            grad[0, 0] = torch.inf
        calls[0] += 1
        scaler.step(optimizer)
        scaler.update()

    return short(step=step, scaler=scaler, epochs=steps // 24, every=1)


def test_every_step_overflows() -> None:
    found = finding(STUCK, scaled_run(lambda i: True), Severity.ERROR)
    assert "steps were skipped and at most 1 done" in found.message


def test_most_steps_overflow_from_some_step_on() -> None:
    found = finding(STUCK, scaled_run(lambda i: i > 30 and i % 3 > 0))
    assert found.onset > 20
    assert "fell from" in found.message


def test_a_few_skips_at_the_start_find_the_scale() -> None:
    assert findings(STUCK, scaled_run(lambda i: i < 4)) == []


def test_one_skip_per_growth_interval_is_how_it_works() -> None:
    assert findings(STUCK, scaled_run(lambda i: i % 24 == 23, growth=20)) == []


@pytest.mark.parametrize(("skips", "found"), [(10, False), (20, True)])
def test_boundary_is_one_step_in_twenty(skips: int, found: bool) -> None:
    lost = np.minimum(np.arange(500) * skips // 285, skips).astype(float)
    lost[:200] = 0
    lost[200:] = np.floor(np.linspace(0, skips, 300))
    run = make_run(series(SKIPPED_STEPS, lost), series(LOSS_SCALE, np.full(500, 1024.0)))
    assert bool(findings(STUCK, run)) is found
    cannot_judge(STUCK, make_run(series(LOSS_SCALE, [65536.0] * 5)), "20 are needed")


# --- weights of low precision ------------------------------------------------------------------------


def coarse(optimizer: Callable[[nn.Module], torch.optim.Optimizer], dtype: torch.dtype = torch.bfloat16) -> Run:
    x, y = digits()[0]
    return short(lambda: mlp(64, 32, 10).to(dtype), optimizer, data=(x.to(dtype), y))


@pytest.mark.parametrize("optimizer", [sgd(1e-3), adam(1e-5)], ids=["sgd", "adam"])
def test_weights_that_swallow_their_updates(optimizer: Callable[[nn.Module], torch.optim.Optimizer]) -> None:
    run = coarse(optimizer)
    found = finding(LOST, run, Severity.ERROR)
    assert "of the bfloat16 weights with a gradient have not moved" in found.message
    assert roots(run) == {LOST}


def test_large_steps_reach_coarse_weights() -> None:
    assert findings(LOST, coarse(sgd(0.1))) == []


def test_float32_has_no_such_weights() -> None:
    cannot_judge(LOST, short(optimizer=sgd(1e-4)), "no update_lost_fraction")
    cannot_judge(LOST, healthy(), "no update_lost_fraction")


class Stochastic(torch.optim.SGD):
    """Adds noise below the last place before rounding, so that small updates come through on average."""

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                exact = p.float() - group["lr"] * p.grad.float()
                bits = exact.view(torch.int32) + torch.randint_like(exact, 0, 1 << 16, dtype=torch.int32)
                p.copy_((bits & -65536).view(torch.float32).to(p.dtype))


def test_stochastic_rounding_moves_them_all_sooner_or_later() -> None:
    assert findings(LOST, coarse(lambda model: Stochastic(model.parameters(), lr=0.02))) == []


@pytest.mark.parametrize(("lost", "found"), [(0.49, False), (0.51, True)])
def test_boundary_is_half_of_the_weights(lost: float, found: bool) -> None:
    run = make_run(series(UPDATE_LOST_FRACTION, np.full(30, lost)), dtype="bfloat16")
    assert bool(findings(LOST, run)) is found
    cannot_judge(LOST, make_run(series(UPDATE_LOST_FRACTION, np.full(22, lost))), "3 are needed")


def test_the_network_of_these_tests_trains_in_float32() -> None:
    assert findings("no-parameter-updates", short(net)) == []
