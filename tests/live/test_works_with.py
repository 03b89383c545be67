"""The situations of real loops, each with real torch."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import fitdoctor
import pytest
import torch
from fitdoctor.live import attach
from fitdoctor.signals import (
    ACTIVATION_MEAN,
    BACKWARD_CALLS,
    GRAD_NORM,
    GRAD_NORM_CLIPPED,
    LOSS,
    LOSS_SCALE,
    LOSS_WEIGHT,
    LR,
    NOISE_SCALE,
    SKIPPED_STEPS,
    UPDATE_NORM,
    UPDATE_RATIO,
    WEIGHT_NORM,
    Quantity,
)
from tests.live.loops import MODELS, batches, mlp, train
from torch import Tensor, nn


def last(monitor: fitdoctor.Monitor, quantity: Quantity, layer: str = "") -> float:
    series = monitor.run.get(quantity, layer=layer)
    assert series is not None, f"no {quantity.name} of {layer!r}"
    return float(series.values[-1])


def total_norm(params: Any) -> float:
    return float(torch.sqrt(sum(p.grad.double().square().sum() for p in params if p.grad is not None)))


# --- mixed precision --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clip", [False, True])
def test_gradients_are_unscaled_under_a_grad_scaler(fused: bool, clip: bool) -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)
    criterion = nn.CrossEntropyLoss()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    with attach(model, optimizer, criterion, scaler=scaler, record_every=1) as monitor:
        for x, y in batches(4):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = criterion(model(x), y)
            scaler.scale(loss).backward()
            true = total_norm(model.parameters()) / 1024
            if clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            scaler.step(optimizer)
            scaler.update()
    assert monitor.step == 4
    assert last(monitor, GRAD_NORM) == pytest.approx(true, rel=1e-3)
    if clip:
        assert last(monitor, GRAD_NORM_CLIPPED) == pytest.approx(0.01, rel=1e-3)
    assert (last(monitor, LOSS_SCALE), last(monitor, SKIPPED_STEPS), last(monitor, LOSS_WEIGHT)) == (1024, 0, 1)
    assert "clipped_before_unscale" not in monitor.run.facts


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_is_skipped_and_not_a_failure(fused: bool) -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)
    criterion = nn.CrossEntropyLoss()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    with attach(model, optimizer, criterion, scaler=scaler, record_every=1) as monitor:
        for i, (x, y) in enumerate(batches(8)):
            optimizer.zero_grad()
            scaler.scale(criterion(model(x), y)).backward()
            if i in (3, 4):
                assert model[0].weight.grad is not None
                model[0].weight.grad.fill_(float("inf"))
            scaler.step(optimizer)
            scaler.update()
    assert last(monitor, SKIPPED_STEPS) == 2
    assert last(monitor, LOSS_SCALE) == 256
    assert monitor.first_nonfinite is None
    assert all(r.rule != "nonfinite-loss" for r in monitor.close().findings)


def test_a_real_nan_under_a_grad_scaler_is_a_failure() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    criterion = nn.CrossEntropyLoss()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with attach(model, optimizer, criterion, scaler=scaler, record_every=1) as monitor:
        for i, (x, y) in enumerate(batches(12)):
            optimizer.zero_grad()
            scaler.scale(criterion(model(x * (float("nan") if i >= 6 else 1)), y)).backward()
            scaler.step(optimizer)
            scaler.update()
    first = monitor.first_nonfinite
    assert first is not None
    assert (first.place, first.name) == ("forward", "0")


def test_clipping_scaled_gradients_is_noticed() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    criterion = nn.CrossEntropyLoss()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with attach(model, optimizer, criterion, scaler=scaler, record_every=1) as monitor:
        for x, y in batches(3):
            optimizer.zero_grad()
            scaler.scale(criterion(model(x), y)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # before unscale_: a mistake
            scaler.step(optimizer)
            scaler.update()
    assert monitor.run.facts["clipped_before_unscale"] is True
    assert last(monitor, GRAD_NORM) < 0.01


# --- optimizers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, foreach=True),
        lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
        lambda p: torch.optim.Adam(p, lr=0.01, foreach=True),
        lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
        lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), foreach=False),
        lambda p: torch.optim.RMSprop(p, lr=0.01),
        lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    ],
)
def test_optimizers(make: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    optimizer = make(model.parameters())
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        for x, y in batches(4):

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss: Tensor = criterion(model(x), y)
                loss.backward()
                return loss

            before = [p.detach().clone() for p in model.parameters()]
            if isinstance(optimizer, torch.optim.LBFGS):
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
            change = torch.sqrt(
                sum((p.detach() - b).double().square().sum() for p, b in zip(model.parameters(), before, strict=True))
            )
            grads = total_norm(model.parameters())
    assert last(monitor, UPDATE_NORM) == pytest.approx(float(change), rel=1e-4)
    assert last(monitor, GRAD_NORM) == pytest.approx(grads, rel=1e-4)
    assert last(monitor, LR) == pytest.approx(float(optimizer.param_groups[0]["lr"]))


def test_learning_rates_by_group_and_groups_added_later() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    optimizer = torch.optim.SGD([{"params": model[0].parameters(), "lr": 0.5}], lr=0.1)
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        train(model, optimizer, criterion, batches(2))
        optimizer.add_param_group({"params": list(model[1].parameters()), "lr": 0.25})
        train(model, optimizer, criterion, batches(2))
    assert last(monitor, LR, "pg0") == 0.5
    assert last(monitor, LR, "pg1") == 0.25
    assert set(monitor.run.layers(GRAD_NORM)) == {n for n, _ in model.named_parameters()}


def test_wrapped_optimizers_are_looked_through() -> None:
    class Wrapper:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    model = mlp()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, Wrapper(Wrapper(inner)), nn.CrossEntropyLoss()) as monitor:  # type: ignore[arg-type]
        train(model, inner, nn.CrossEntropyLoss(), batches(2))
    assert monitor.step == 2


# --- gradients and models of all kinds --------------------------------------------------------------------------


def test_sparse_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 6, sparse=True), nn.Flatten(), nn.Linear(18, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        for _ in range(3):
            optimizer.zero_grad()
            criterion(model(torch.randint(0, 10, (5, 3))), torch.randint(0, 4, (5,))).backward()
            grad = model[0].weight.grad
            assert grad is not None
            norm = float(grad.to_dense().norm())
            optimizer.step()
    assert last(monitor, GRAD_NORM, "0.weight") == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_number_formats(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 300), nn.ReLU(), nn.Linear(300, 4)).to(dtype)
    with torch.no_grad():
        model[2].weight.mul_(100)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        for x, y in batches(2):
            train(model, optimizer, criterion, [(x.to(dtype), y)])
            norm = total_norm(model.parameters())
    assert last(monitor, GRAD_NORM) == pytest.approx(norm, rel=1e-4)  # summed in float32, not in its own format
    assert last(monitor, LOSS) > 0


def test_mixed_formats_in_one_optimizer() -> None:
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 4).double()])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, record_every=1) as monitor:
        for x, _ in batches(3):
            optimizer.zero_grad()
            model[1](model[0](x).double()).square().mean().backward()
            norm = total_norm(model.parameters())
            optimizer.step()
    assert last(monitor, GRAD_NORM) == pytest.approx(norm, rel=1e-5)
    assert last(monitor, BACKWARD_CALLS) == 2  # one per root: a container's members are each called


@pytest.mark.parametrize("name", MODELS)
def test_models_of_all_kinds(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        losses = train(model, optimizer, criterion, batches(6))
    assert last(monitor, LOSS) == pytest.approx(losses[-1])
    layers = monitor.run.layers(ACTIVATION_MEAN)
    assert len(layers) >= 2
    assert all(len(s) == 6 for s in layers.values())  # once per step each, checkpointed or not
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    assert set(monitor.run.layers(UPDATE_RATIO)) <= set(trainable)  # tied weights once, frozen ones not


def test_large_parameters_are_sampled_well() -> None:
    torch.manual_seed(0)
    model = nn.Linear(1000, 1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms: dict[str, tuple[float, float]] = {}
    for tier in ("standard", "deep"):
        twin = copy.deepcopy(model)
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
        with attach(twin, optimizer, tier=tier, record_every=1) as monitor:  # type: ignore[arg-type]
            for _ in range(2):
                optimizer.zero_grad()
                twin(torch.ones(4, 1000)).square().mean().backward()
                optimizer.step()
        norms[tier] = last(monitor, UPDATE_NORM, "weight"), last(monitor, WEIGHT_NORM, "weight")
    assert norms["standard"] == pytest.approx(norms["deep"], rel=0.02)
    assert norms["standard"] != norms["deep"]


def test_noise_scale_from_accumulation() -> None:
    """Linear regression on noise: both moments of the gradient are known."""
    torch.manual_seed(0)
    model = nn.Linear(20, 1, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    criterion = nn.MSELoss()
    random = torch.Generator().manual_seed(1)
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        for _ in range(120):
            optimizer.zero_grad()
            for _ in range(4):
                x = torch.randn(32, 20, generator=random)
                y = x[:, :1] * 1.0 + torch.randn(32, 1, generator=random)
                (criterion(model(x), y) / 4).backward()
            optimizer.step()
    # per-sample gradient -2 y x with y = x0 + e: mean -2 e0, so |G|^2 = 4, and
    # tr Cov = 4 (E[y^2 |x|^2] - 1) = 4 (20 * 2 + 2 - 1) = 164: noise scale 41 samples.
    assert last(monitor, NOISE_SCALE) == pytest.approx(41, rel=0.25)


# --- torch.compile -------------------------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.relu(self.first(x)))
        return out


@pytest.mark.parametrize("order", ["attach, then compile", "compile, then attach", "compiled in place"])
@pytest.mark.parametrize("every", [2, None])  # by the budget, hooks come and go
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compile_has_no_graph_breaks_and_no_recompiles(order: str, every: int | None) -> None:
    from torch._dynamo.testing import CompileCounter

    def go(monitored: bool) -> tuple[int, list[float], fitdoctor.Monitor | None]:
        torch._dynamo.reset()
        torch.manual_seed(0)
        counter = CompileCounter()
        model = Two()
        criterion = nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        monitor = None
        run: Any = model
        if monitored and order == "attach, then compile":
            monitor = attach(model, optimizer, criterion, record_every=every)
        if order == "compiled in place":
            model.compile(backend=counter, fullgraph=True)
        else:
            run = torch.compile(model, backend=counter, fullgraph=True)  # a graph break would be an error
        if monitored and monitor is None:
            monitor = attach(run, optimizer, criterion, record_every=every)
        losses = train(run, optimizer, criterion, batches(7 if every else 60))
        if monitor is not None:
            monitor.close()
        return counter.frame_count, losses, monitor

    frames, losses, _ = go(False)
    monitored_frames, monitored_losses, monitor = go(True)
    assert frames == monitored_frames == 1
    assert losses == monitored_losses
    assert monitor is not None
    if every:
        assert last(monitor, LOSS) == pytest.approx(losses[-1])
    assert len(monitor.run.layers(UPDATE_RATIO)) == 4
    assert "first.weight" in monitor.run.layers(GRAD_NORM)


# --- a SummaryWriter of the user in the same folder ---------------------------------------------------------------


def test_a_summary_writer_in_the_same_folder_is_not_disturbed(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(tmp_path))
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, nn.CrossEntropyLoss(), logdir=tmp_path):
        for i, loss in enumerate(train(model, optimizer, nn.CrossEntropyLoss(), batches(5))):
            writer.add_scalar("mine", loss, i)
    writer.close()
    files = [p.name for p in tmp_path.iterdir() if p.is_file()]
    assert len(files) == 1
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert len(accumulator.EventAccumulator(str(tmp_path)).Reload().Scalars("mine")) == 5


def test_resuming_continues_the_step_count(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()
    for expected in (4, 8):
        with attach(model, optimizer, criterion, logdir=tmp_path, record_every=2) as monitor:
            train(model, optimizer, criterion, batches(4))
        assert monitor.step == expected
    (run,) = fitdoctor.open_runs(tmp_path)
    loss = run.get(LOSS)
    assert loss is not None
    assert list(loss.steps) == list(range(1, 9))


# --- steps that are begun again ---------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_first", [True, False])
@pytest.mark.parametrize("clip", [True, False])
def test_what_an_overflow_left_is_not_mixed_into_the_next_attempt(zero_first: bool, clip: bool) -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    criterion = nn.CrossEntropyLoss()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    with attach(model, optimizer, criterion, scaler=scaler, record_every=1) as monitor:
        for i, (x, y) in enumerate(batches(6)):
            if zero_first:
                optimizer.zero_grad()
            loss = criterion(model(x), y)
            if not zero_first:
                optimizer.zero_grad()
            scaler.scale(loss).backward()
            if i in (0, 1, 4):  # from the very first step on
                for p in model.parameters():
                    assert p.grad is not None
                    p.grad.fill_(float("inf"))
            if clip:
                scaler.unscale_(optimizer)
                norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
    assert monitor.step == 3
    assert (monitor.last("skipped_steps"), monitor.last("loss_scale")) == (3, 128)
    assert monitor.first_nonfinite is None
    assert (monitor.last("backward_calls"), monitor.last("loss_weight")) == (1, 1)
    assert monitor.last("loss") == pytest.approx(loss.item())  # of the attempt that counted, no mean of two
    assert monitor.run.facts["gradient_accumulation_steps"] == 1
    if clip:
        assert monitor.last("grad_norm") == pytest.approx(float(norm))
        assert monitor.last("grad_norm_clipped") == pytest.approx(0.1, rel=1e-3)


def test_a_closure_is_no_second_attempt() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    criterion = nn.CrossEntropyLoss()
    calls = []
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        for x, y in batches(3):

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                calls.append(monitor.step)
                optimizer.zero_grad()
                loss: Tensor = criterion(model(x), y)
                loss.backward()
                return loss

            optimizer.step(closure)
    assert monitor.last("backward_calls") == calls.count(2) > 1
    assert monitor.last("zero_grad_calls") == calls.count(2)


def test_a_critic_that_steps_more_often_keeps_its_history() -> None:
    torch.manual_seed(0)
    nets = {"generator": mlp(), "critic": nn.Linear(4, 1)}
    first = torch.optim.Adam(nets["generator"].parameters(), 1e-3)
    second = torch.optim.SGD(nets["critic"].parameters(), 0.1)
    with attach(nets, {"generator": first, "critic": second}, record_every=1) as monitor:
        for x, _ in batches(6):
            for _ in range(3):
                second.zero_grad()
                nets["critic"](nets["generator"](x).detach()).square().mean().backward()
                second.step()
            first.zero_grad()
            (-nets["critic"](nets["generator"](x)).mean()).backward()
            first.step()
    assert (monitor.last("step_calls", "generator"), monitor.last("step_calls", "critic")) == (1, 3)
    series = monitor.run.get(UPDATE_RATIO, layer="critic.critic.weight")
    assert series is not None
    assert list(series.steps) == [1, 2, 3, 4, 5, 6]


def test_the_latest_value_by_name() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        assert math.isnan(monitor.last("loss"))  # nothing was measured yet
        losses = train(model, optimizer, criterion, batches(2))
        with pytest.raises(fitdoctor.FitdoctorError, match="no quantity"):
            monitor.last("wibble")
    assert monitor.last("loss") == pytest.approx(losses[-1])


def test_complex_parameters() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 3, dtype=torch.complex64))
    model = nn.ParameterDict({"w": weight})
    optimizer = torch.optim.Adam([weight], lr=0.1)
    with attach(model, optimizer, record_every=1) as monitor:
        for _ in range(5):
            before = weight.detach().clone()
            optimizer.zero_grad()
            (torch.randn(4, 6, dtype=torch.complex64) @ weight).abs().square().mean().backward()
            assert weight.grad is not None
            grad = float(torch.view_as_real(weight.grad).norm())
            optimizer.step()
            change = float(torch.view_as_real(weight.detach() - before).norm())
    assert monitor.last("grad_norm") == pytest.approx(grad, rel=1e-5)
    assert monitor.last("weight_norm") == pytest.approx(float(torch.view_as_real(before).norm()), rel=1e-5)
    assert monitor.last("update_norm") == pytest.approx(change, rel=1e-4)
    assert 0 <= monitor.last("adam_tiny_fraction", "w") <= 1
