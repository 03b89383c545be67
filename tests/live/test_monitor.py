from __future__ import annotations

import copy
import gc
import io
import logging
import pickle
from pathlib import Path
from typing import Any

import fitdoctor
import numpy as np
import pytest
import torch
from fitdoctor.errors import ConfigError, TrainingSick
from fitdoctor.live import attach
from fitdoctor.live.taps import Tap
from fitdoctor.signals import (
    ACTIVATION_ABSMAX,
    ACTIVATION_GRAD_RMS,
    ACTIVATION_MEAN,
    ACTIVATION_SATURATED_FRACTION,
    ACTIVATION_ZERO_FRACTION,
    BACKWARD_CALLS,
    DATA_TIME,
    GRAD_LEFTOVER,
    GRAD_NORM,
    GRAD_NORM_CLIPPED,
    LOSS,
    LOSS_WEIGHT,
    LR,
    PARAMETERS_WITHOUT_GRAD,
    PROBABILITY_ROWS,
    SCHEDULER_CALLS,
    STEP_TIME,
    TRAIN_MODE,
    UPDATE_NORM,
    UPDATE_RATIO,
    WEIGHT_NORM,
    ZERO_GRAD_CALLS,
    Quantity,
)
from tests.live.loops import MODELS, batches, mlp, train
from torch import Tensor, nn


def hooks_of(model: nn.Module) -> list[object]:
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [hook for m in model.modules() for name in names for hook in m.__dict__[name].values()]


def setup(**options: Any) -> tuple[nn.Module, torch.optim.Optimizer, nn.Module]:
    torch.manual_seed(0)
    model = mlp()
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), nn.CrossEntropyLoss(**options)


def last(monitor: fitdoctor.Monitor, quantity: Quantity, layer: str = "") -> float:
    series = monitor.run.get(quantity, layer=layer)
    assert series is not None, f"no {quantity.name} of {layer!r}"
    return float(series.values[-1])


def test_measures_what_the_definitions_say() -> None:
    model, optimizer, criterion = setup()
    inner = model[0]
    outputs: list[Tensor] = []
    (x, y), *_ = batches(1)
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        handle = inner.register_forward_hook(lambda m, a, out: outputs.append(out.detach().clone()))
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.zero_grad()
        out = model(x)
        loss = criterion(out, y)
        loss.backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        optimizer.step()
        handle.remove()
    names = [n for n, _ in model.named_parameters()]

    def norm(tensors: list[Tensor]) -> float:
        return float(torch.sqrt(sum((t.double() ** 2).sum() for t in tensors)))

    changes = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
    assert last(monitor, LOSS) == pytest.approx(float(loss.detach()))
    assert last(monitor, GRAD_NORM) == pytest.approx(norm(grads), rel=1e-5)
    assert last(monitor, WEIGHT_NORM) == pytest.approx(norm(before), rel=1e-5)
    assert last(monitor, UPDATE_NORM) == pytest.approx(norm(changes), rel=1e-5)
    assert last(monitor, UPDATE_RATIO) == pytest.approx(norm(changes) / norm(before), rel=1e-5)
    for i, name in enumerate(names):
        assert last(monitor, GRAD_NORM, name) == pytest.approx(norm([grads[i]]), rel=1e-5)
        assert last(monitor, UPDATE_RATIO, name) == pytest.approx(norm([changes[i]]) / norm([before[i]]), rel=1e-5)
    assert last(monitor, LR) == 0.1
    assert last(monitor, ACTIVATION_MEAN, "0") == pytest.approx(float(outputs[0].mean()), rel=1e-4)
    assert last(monitor, ACTIVATION_ABSMAX, "0") == pytest.approx(float(outputs[0].abs().max()), rel=1e-5)
    assert last(monitor, ACTIVATION_ZERO_FRACTION, "1") == pytest.approx(float((outputs[0] <= 0).float().mean()))
    assert (last(monitor, TRAIN_MODE), last(monitor, BACKWARD_CALLS), last(monitor, ZERO_GRAD_CALLS)) == (1, 1, 1)
    assert (last(monitor, GRAD_LEFTOVER), last(monitor, LOSS_WEIGHT), last(monitor, PARAMETERS_WITHOUT_GRAD)) == (
        0,
        1,
        0,
    )


def test_gradient_with_respect_to_activations() -> None:
    model, optimizer, criterion = setup()
    held: list[Tensor] = []
    (x, y), *_ = batches(1)
    with attach(model, optimizer, criterion, record_every=1) as monitor:

        def keep(m: nn.Module, a: object, out: Tensor) -> None:
            out.retain_grad()
            held.append(out)

        handle = model[0].register_forward_hook(keep)
        train(model, optimizer, criterion, [(x, y)])
        handle.remove()
    assert held[0].grad is not None
    assert last(monitor, ACTIVATION_GRAD_RMS, "0") == pytest.approx(
        float(held[0].grad.square().mean().sqrt()), rel=1e-5
    )


def test_saturation_is_measured_where_it_can_happen() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    with torch.no_grad():
        model[0].weight.mul_(1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with attach(model, optimizer, nn.CrossEntropyLoss(), record_every=1) as monitor:
        train(model, optimizer, nn.CrossEntropyLoss(), batches(2))
    assert set(monitor.run.layers(ACTIVATION_SATURATED_FRACTION)) == {"1"}
    assert last(monitor, ACTIVATION_SATURATED_FRACTION, "1") > 0.9


def test_every_step_has_its_loss_and_clock() -> None:
    model, optimizer, criterion = setup()
    with attach(model, optimizer, criterion, record_every=5) as monitor:
        losses = train(model, optimizer, criterion, batches(20))
    series = monitor.run.get(LOSS)
    assert series is not None
    assert series.values == pytest.approx(losses)
    assert list(series.steps) == list(range(1, 21))
    times, waits = monitor.run.get(STEP_TIME), monitor.run.get(DATA_TIME)
    assert times is not None
    assert waits is not None
    assert (waits.values < times.values).all()


def test_clipping_is_heard_by_layer() -> None:
    model, optimizer, criterion = setup()
    norms = []
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        for x, y in batches(5):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            layer = float(model[0].weight.grad.norm())
            norms.append((float(nn.utils.clip_grad_norm_(model.parameters(), 0.1)), layer))
            optimizer.step()
    assert last(monitor, GRAD_NORM) == pytest.approx(norms[-1][0])
    assert last(monitor, GRAD_NORM_CLIPPED) == pytest.approx(0.1, rel=1e-3)
    assert last(monitor, GRAD_NORM, "0.weight") == pytest.approx(norms[-1][1], rel=1e-4)  # before clipping too


def test_clipping_functions_are_put_back() -> None:
    import torch.nn.utils.clip_grad as module

    own = module._clip_grads_with_norm_
    monitors = [attach(*setup()) for _ in range(3)]
    assert module._clip_grads_with_norm_ is not own
    for monitor in monitors:
        monitor.close()
    assert module._clip_grads_with_norm_ is own


def test_accumulation_and_its_weight() -> None:
    model, optimizer, criterion = setup()
    losses: list[float] = []
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        for i, (x, y) in enumerate(batches(96)):
            loss = criterion(model(x), y)
            losses.append(float(loss.detach()))
            loss /= 4  # in place: the measured loss must be the one before
            loss.backward()
            if i % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
    assert monitor.step == 24
    assert last(monitor, LOSS) == pytest.approx(float(np.mean(losses[-4:])))
    assert (last(monitor, BACKWARD_CALLS), last(monitor, LOSS_WEIGHT)) == (4, 0.25)
    assert monitor.run.facts["gradient_accumulation_steps"] == 4
    assert monitor.run.facts["batch_size"] == 16


def test_forgotten_zero_grad_is_seen() -> None:
    model, optimizer, criterion = setup()
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        for x, y in batches(4):
            criterion(model(x), y).backward()
            optimizer.step()
    assert last(monitor, ZERO_GRAD_CALLS) == 0
    assert last(monitor, GRAD_LEFTOVER) > 0


def test_scheduler_steps_are_counted() -> None:
    model, optimizer, criterion = setup()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    with attach(model, optimizer, criterion, scheduler=scheduler, record_every=1) as monitor:
        for x, y in batches(4):
            train(model, optimizer, criterion, [(x, y)])
            scheduler.step()
    assert last(monitor, LR) == pytest.approx(0.1 / 8)
    assert last(monitor, SCHEDULER_CALLS) == 1


def test_probabilities_fed_to_cross_entropy_are_seen() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Softmax(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        train(model, optimizer, criterion, batches(2))
    assert last(monitor, PROBABILITY_ROWS) == 1


def test_validation_inside_the_epoch_is_not_training() -> None:
    model, optimizer, criterion = setup()
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        for x, y in batches(6):
            losses = train(model, optimizer, criterion, [(x, y)])
            model.eval()
            with torch.no_grad():
                criterion(model(x * 100), y)
            model.train()
    assert last(monitor, LOSS) == pytest.approx(losses[-1])
    assert last(monitor, TRAIN_MODE) == 1
    assert monitor.run.get(DATA_TIME) is None  # the pause for validation is not waiting for data


def test_wrong_mode_is_seen() -> None:
    model, optimizer, criterion = setup()
    model.eval()
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        train(model, optimizer, criterion, batches(2))
    assert last(monitor, TRAIN_MODE) == 0


@pytest.mark.parametrize("name", MODELS)
def test_copies_carry_no_hooks(name: str) -> None:
    model = MODELS[name]()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=1):
        train(model, optimizer, criterion, batches(2))
        assert any(isinstance(h, Tap) for h in hooks_of(model))  # the original has them
        twin = copy.deepcopy(model)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        saved = torch.load(buffer, weights_only=False)
        pickled = pickle.loads(pickle.dumps(criterion))
        again = copy.deepcopy(optimizer)
    for other in (twin, saved, pickled):
        assert not hooks_of(other)
        assert type(other._forward_hooks).__name__ == "OrderedDict"
    assert not again._optimizer_step_post_hooks
    assert "zero_grad" not in again.__dict__
    x = torch.randn(2, 8)
    model.eval(), twin.eval()
    assert torch.equal(twin(x), model(x))


def test_hooks_of_others_survive_copies() -> None:
    model, optimizer, criterion = setup()
    calls: list[int] = []
    model.register_forward_hook(lambda *a: calls.append(0))
    with attach(model, optimizer, criterion):
        twin = copy.deepcopy(model)
        twin(torch.randn(2, 8))
    assert calls == [0]


def test_attaching_and_closing_leaves_nothing_behind() -> None:
    model, optimizer, criterion = setup()
    keys = set(optimizer.__dict__)
    for _ in range(5):
        with attach(model, optimizer, criterion):
            train(model, optimizer, criterion, batches(2))
    assert not hooks_of(model)
    assert not hooks_of(criterion)
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert set(optimizer.__dict__) == keys


def test_an_exception_in_a_hook_is_told_once_and_training_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fitdoctor.live.activations import ActivationRecorder

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(ActivationRecorder, "take", fail)
    model, optimizer, criterion = setup()
    with caplog.at_level(logging.ERROR, "fitdoctor"), attach(model, optimizer, criterion, record_every=1) as monitor:
        losses = train(model, optimizer, criterion, batches(5))
    assert len(losses) == monitor.step == 5
    told = [r for r in caplog.records if "is switched off" in r.getMessage()]
    assert len(told) == 1  # not once per layer, not once per step
    assert last(monitor, GRAD_NORM) > 0


def test_a_failing_forward_leaves_no_layer_hooks() -> None:
    model, optimizer, criterion = setup()
    with attach(model, optimizer, criterion, record_every=1):
        with pytest.raises(RuntimeError):
            model(torch.randn(2, 9))  # wrong width
        train(model, optimizer, criterion, batches(2))
    assert not hooks_of(model)


def test_log_takes_names_as_logs_have_them() -> None:
    model, optimizer, criterion = setup()
    with attach(model, optimizer, criterion) as monitor:
        train(model, optimizer, criterion, batches(3))
        monitor.log(val_loss=torch.tensor(0.5), val_accuracy=0.9)
        with pytest.raises(ConfigError, match="val_loss"):
            monitor.log(wibble=1)
    found = monitor.run.get(LOSS, "val")
    assert found is not None
    assert (list(found.steps), list(found.values)) == ([3], [0.5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tier": "huge"}, "tier: expected"),
        ({"budget": 5}, "budget: expected a share"),
        ({"stop_on": ["no-such-rule"]}, "no-such-rule"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(fitdoctor.FitdoctorError, match=message):
        attach(*setup(), **arguments)


def test_arguments_in_the_wrong_order() -> None:
    model, _, criterion = setup()
    with pytest.raises(ConfigError, match=r"expected a torch\.optim\.Optimizer"):
        attach(model, criterion)  # type: ignore[arg-type]


def test_nonfinite_loss_stops_the_training_and_names_the_layer(tmp_path: Path) -> None:
    model, optimizer, criterion = setup()
    seen: list[str] = []
    monitor = attach(
        model, optimizer, criterion, logdir=tmp_path, record_every=1, stop_on=["nonfinite-loss"],
        on_finding=lambda f: seen.append(f.rule),
    )  # fmt: skip
    data = batches(40)
    data[20] = (data[20][0] * float("inf"), data[20][1])
    with pytest.raises(TrainingSick) as caught:
        train(model, optimizer, criterion, data)
    assert monitor.step == 21
    report = caught.value.report
    assert isinstance(report, fitdoctor.Report)
    assert report.verdict == "sick"
    assert seen == ["nonfinite-loss"]
    first = monitor.first_nonfinite
    assert first is not None
    assert (first.step, first.place, first.name, first.sure) == (21, "forward", "0", True)
    assert first.before["activation_rms"] > 0
    monitor.close()
    assert any("output of 0 is the first" in note.text for note in monitor.close().notes)


def test_nonfinite_gradient_is_told_from_nonfinite_output() -> None:
    class BadGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * float("nan")

    class Layer(nn.Module):
        bad = False

        def forward(self, x: Tensor) -> Tensor:
            return BadGradient.apply(x) if self.bad else x

    layer = Layer()
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), layer, nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        train(model, optimizer, criterion, batches(4))
        layer.bad = True
        train(model, optimizer, criterion, batches(3))
    first = monitor.first_nonfinite
    assert first is not None
    assert (first.step, first.place, first.name) == (5, "backward", "1")


def test_memory_does_not_grow() -> None:
    model, optimizer, criterion = setup()
    data = batches(50)
    monitor = attach(model, optimizer, criterion, record_every=10)

    def alive() -> tuple[int, int]:
        monitor.report()  # nothing is left on its way
        gc.collect()
        objects = gc.get_objects()
        return len(objects), sum(issubclass(type(o), Tensor) for o in objects)

    def go(steps: int) -> None:
        for _ in range(steps // 50):
            train(model, optimizer, criterion, data)

    go(500)
    objects, tensors = alive()
    go(2000)
    more_objects, more_tensors = alive()
    monitor.close()
    # 200 records of 9 quantities may be kept, as one small array each; nothing that holds tensors.
    assert more_tensors <= tensors + 10
    assert more_objects - objects < 2000 / 10 * 40


def test_several_optimizers_and_models() -> None:
    torch.manual_seed(0)
    nets = {"generator": mlp(), "critic": nn.Linear(4, 1)}
    first = torch.optim.Adam(nets["generator"].parameters(), 1e-3)
    second = torch.optim.SGD(nets["critic"].parameters(), 0.1)
    with attach(nets, [first, second], record_every=1) as monitor:
        for x, _ in batches(4):
            second.zero_grad()
            nets["critic"](nets["generator"](x).detach()).mean().backward()
            second.step()
            first.zero_grad()
            (-nets["critic"](nets["generator"](x)).mean()).backward()
            first.step()
    assert monitor.step == 4
    assert last(monitor, GRAD_NORM) > 0
    assert last(monitor, GRAD_NORM, "optimizer1") > 0
    assert last(monitor, LR, "optimizer1") == 0.1
    assert last(monitor, GRAD_NORM, "optimizer1.critic.weight") > 0
    assert last(monitor, ACTIVATION_MEAN, "generator.0") != 0


def test_model_that_returns_its_loss() -> None:
    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 4)

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.fc(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    model = WithLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, record_every=1) as monitor:
        for x, y in batches(3):
            optimizer.zero_grad()
            out = model(x=x, labels=y)
            out["loss"].backward()
            optimizer.step()
    assert last(monitor, LOSS) == pytest.approx(float(out["loss"].detach()))
    assert last(monitor, BACKWARD_CALLS) == 1
    assert monitor.run.facts["batch_size"] == 16


def test_budget_holds_on_cheap_steps() -> None:
    torch.set_num_threads(1)
    model, optimizer, criterion = setup()
    data = batches(500)
    with attach(model, optimizer, criterion, budget=0.05) as monitor:
        for _ in range(4):
            train(model, optimizer, criterion, data)
    assert monitor.cost.calls["tick"] > 0
    # The clock of a shared machine stutters; far from the 100 % and more that every step in full would cost.
    assert monitor.cost.share < 0.15


def test_a_notebook_shows_the_report() -> None:
    model, optimizer, criterion = setup()
    monitor = attach(model, optimizer, criterion, name="<b>run</b>", record_every=1)
    data = batches(6)
    data[3] = (data[3][0] * float("nan"), data[3][1])
    train(model, optimizer, criterion, data)
    shown = monitor.close()._repr_html_()
    assert "nonfinite-loss" in shown
    assert "&lt;b&gt;run&lt;/b&gt;" in shown
    assert "<b>run</b>" not in shown
