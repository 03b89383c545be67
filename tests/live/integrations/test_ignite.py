"""The engines of Ignite, with the real framework."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fitdoctor
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fitdoctor.errors import ConfigError
from fitdoctor.live.monitor import Monitor
from fitdoctor.report import Report
from fitdoctor.run import Run
from fitdoctor.signals import (
    ACCURACY,
    BACKWARD_CALLS,
    EPOCH,
    EVAL_FORWARDS,
    GRAD_NORM,
    GRAD_NORM_CLIPPED,
    LOSS,
    LOSS_SCALE,
    LOSS_WEIGHT,
    SKIPPED_STEPS,
    Quantity,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

with warnings.catch_warnings():  # Ignite imports parts of torch that tell of their end
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    from fitdoctor.live.integrations.ignite import FitdoctorHandler, attach
    from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
    from ignite.metrics import Accuracy, Loss

Data = tuple[Tensor, Tensor]


def data(rows: int = 800, *, seed: int = 0) -> Data:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 12, generator=random)
    return x, (x[:, :4] + 0.3 * torch.randn(rows, 4, generator=random)).argmax(1)


TRAIN, VAL = data(640), data(200, seed=1)


def net(*, depth: int = 2, bias: float | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(12 if i == 0 else 32, 32), nn.ReLU()]
        if bias is not None:
            nn.init.constant_(layers[-2].bias, bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers, nn.Linear(32, 4))


def loader(batch: int = 32) -> DataLoader[Any]:
    """Batches in an order that is the same in every training."""
    return DataLoader(TensorDataset(*TRAIN), batch, shuffle=True, generator=torch.Generator().manual_seed(0))


def plainly(model: nn.Module, optimizer: torch.optim.Optimizer, *, epochs: int = 4) -> Report:
    """The same program as a plain loop."""
    criterion, batches = nn.CrossEntropyLoss(), loader()
    with fitdoctor.attach(model, optimizer, criterion, record_every=1) as monitor:
        for epoch in range(1, epochs + 1):
            for x, y in batches:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                out = model(VAL[0])
                accuracy = (out.argmax(1) == VAL[1]).float().mean()
                monitor.log(val_loss=criterion(out, VAL[1]), val_accuracy=accuracy, epoch=epoch)
            model.train()
    return monitor.close()


def by_engine(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Callable[..., Any] | None = None,
    *,
    epochs: int = 4,
    made: dict[str, Any] | None = None,
    prepare: Callable[[Engine], object] = lambda trainer: None,
    **options: Any,
) -> tuple[FitdoctorHandler, Engine]:
    criterion = criterion or nn.CrossEntropyLoss()
    trainer = create_supervised_trainer(model, optimizer, criterion, **(made or {}))
    evaluator = create_supervised_evaluator(model)
    watch = attach(
        trainer, model, optimizer, criterion, evaluator=evaluator, verbose=False, **{"record_every": 1, **options}
    )
    Accuracy().attach(evaluator, "accuracy")  # after ours, as many programs do it
    Loss(nn.CrossEntropyLoss()).attach(evaluator, "nll")

    @trainer.on(Events.EPOCH_COMPLETED)
    def evaluate() -> None:
        evaluator.run([VAL])

    prepare(trainer)
    trainer.run(loader(), max_epochs=epochs)
    return watch, trainer


def run_of(watch: FitdoctorHandler) -> Run:
    assert watch.monitor is not None
    return watch.monitor.run


def values(run: Run, quantity: Quantity, split: str = "train") -> np.ndarray[Any, Any]:
    series = run.get(quantity, split)
    assert series is not None, f"no {split} {quantity.name}"
    return np.asarray(series.values)


def found(report: Report | None) -> set[tuple[str, str]]:
    assert report is not None
    # How long a step waited for data depends on the machine.
    return {(f.rule, str(f.severity)) for f in report.findings if f.rule != "input-bound"}


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr)


PROGRAMS: dict[str, tuple[dict[str, Any], float, str]] = {
    "healthy": ({}, 0.5, ""),
    "rate far too high": ({"depth": 3}, 50.0, "lr-too-high"),
    "units born dead": ({"bias": -20.0}, 0.1, "dead-relu"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_findings_are_those_of_the_plain_loop(name: str) -> None:
    shape, lr, rule = PROGRAMS[name]
    model = net(**shape)
    plain = plainly(model, sgd(model, lr))
    model = net(**shape)
    watch, _ = by_engine(model, sgd(model, lr))
    assert found(watch.report) == found(plain)
    assert watch.report is not None
    harmful = [d.root.rule for d in watch.report.diagnoses if str(d.root.severity) != "note"]
    assert harmful[:1] == ([rule] if rule else [])


def test_steps_epochs_losses_and_validation(tmp_path: Path) -> None:
    model = net()
    watch, _ = by_engine(model, sgd(model), logdir=tmp_path)
    run = run_of(watch)
    assert run.steps is not None
    assert (run.steps.first, run.steps.last) == (1, 80)
    epochs = run.get(EPOCH)
    assert epochs is not None
    assert list(epochs.steps) == [20, 40, 60, 80]
    assert list(epochs.values) == [1, 2, 3, 4]
    assert len(values(run, LOSS)) == 80
    assert len(values(run, LOSS, "val")) == len(values(run, ACCURACY, "val")) == 4
    criterion = nn.CrossEntropyLoss()
    with torch.no_grad():
        assert values(run, LOSS, "val")[-1] == pytest.approx(float(criterion(model(VAL[0]), VAL[1])), rel=1e-5)
    assert values(run, EVAL_FORWARDS).sum() >= 3  # the last one has no step after it
    facts = {k: run.facts[k] for k in ("planned_epochs", "planned_steps", "steps_per_epoch", "n_train", "framework")}
    assert facts == {
        "planned_epochs": 4, "planned_steps": 80, "steps_per_epoch": 20, "n_train": 640, "framework": "ignite",
    }  # fmt: skip
    (logged,) = fitdoctor.open_runs(tmp_path)
    assert logged.steps == run.steps


def test_training_is_what_it_was() -> None:
    ours = net()
    by_engine(ours, sgd(ours))
    bare = net()
    create_supervised_trainer(bare, sgd(bare), nn.CrossEntropyLoss()).run(loader(), max_epochs=4)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), bare.parameters(), strict=True))


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), F.cross_entropy], ids=["module", "function"])
def test_accumulated_batches(criterion: Any) -> None:
    whole = net()
    truth = by_engine(whole, sgd(whole), epochs=1)[0]
    model = net()
    watch, _ = by_engine(model, sgd(model, 0.0), criterion, epochs=1, made={"gradient_accumulation_steps": 4})
    run = run_of(watch)
    assert run.steps is not None
    assert run.steps.last == 5
    assert set(values(run, BACKWARD_CALLS)) == {4}
    assert values(run, LOSS)[0] < values(run_of(truth), LOSS)[0] * 1.5  # neither four times too high
    assert values(run, LOSS)[0] > values(run_of(truth), LOSS)[0] / 1.5  # nor a quarter
    assert run.facts["gradient_accumulation_steps"] == 4
    assert (run.facts["planned_steps"], run.facts["steps_per_epoch"]) == (5, 5)
    if isinstance(criterion, nn.Module):
        assert set(values(run, LOSS_WEIGHT)) == {0.25}


def test_the_engines_output_is_the_loss_where_the_user_says_so() -> None:
    def step(trainer: Engine, batch: Data) -> dict[str, Any]:
        optimizer.zero_grad()
        out = model(batch[0])
        loss = F.cross_entropy(out, batch[1]) + 0.1 * out.square().mean()
        (3 * loss).backward()
        optimizer.step()
        return {"parts": (loss.detach(), out.detach())}

    model = net()
    optimizer = sgd(model)
    trainer = Engine(step)
    watch = attach(trainer, model, optimizer, output_transform=lambda o: o["parts"][0], verbose=False)
    trainer.run(loader(), max_epochs=1)
    run = run_of(watch)
    assert len(values(run, LOSS)) == 20
    assert values(run, LOSS)[0] == pytest.approx(1.4, abs=0.3)


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_grad_scaler_of_the_trainer_is_followed() -> None:
    model = net()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1000)

    def overflow(trainer: Engine) -> None:
        weight = model[0].weight
        assert isinstance(weight, Tensor)
        weight.register_hook(lambda g: g + float("inf") if trainer.state.iteration == 5 else g)

    watch, _ = by_engine(
        model, sgd(model), epochs=1, made={"amp_mode": "amp", "scaler": scaler, "device": "cpu"}, prepare=overflow
    )
    run = run_of(watch)
    assert run.steps is not None
    assert run.steps.last == 19
    assert (values(run, SKIPPED_STEPS)[-1], values(run, LOSS_SCALE)[-1]) == (1, 512)
    assert values(run, GRAD_NORM).max() < 100  # unscaled
    assert watch.monitor is not None
    assert watch.monitor.first_nonfinite is None


def test_the_norm_before_clipping() -> None:
    def step(trainer: Engine, batch: Data) -> float:
        optimizer.zero_grad()
        loss = criterion(model(batch[0]), batch[1])
        loss.backward()
        before.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.05)))
        optimizer.step()
        return loss.item()

    model, criterion, before = net(), nn.CrossEntropyLoss(), []
    optimizer = sgd(model)
    trainer = Engine(step)
    watch = attach(trainer, model, optimizer, criterion, record_every=1, verbose=False)
    trainer.run(loader(), max_epochs=1)
    assert values(run_of(watch), GRAD_NORM) == pytest.approx(before, rel=1e-4)
    assert values(run_of(watch), GRAD_NORM_CLIPPED) == pytest.approx([0.05] * 20, rel=1e-3)


def test_stopping_is_terminating() -> None:
    events: list[str] = []

    def listen(trainer: Engine) -> None:
        trainer.add_event_handler(Events.TERMINATE, lambda: events.append("terminate"))
        trainer.add_event_handler(Events.COMPLETED, lambda: events.append("completed"))

    model = net(depth=3)
    watch, trainer = by_engine(
        model, sgd(model, 1e5), epochs=20, stop_on="nonfinite-loss", judge_every=1, prepare=listen
    )
    assert trainer.state.iteration < 100
    assert events == ["terminate", "completed"]
    assert watch.report is not None
    assert "nonfinite-loss" in {f.rule for f in watch.report.findings}


def test_a_loaded_engine_keeps_its_steps(tmp_path: Path) -> None:
    model = net()
    optimizer = sgd(model)
    made = {"gradient_accumulation_steps": 2}
    _, first = by_engine(model, optimizer, epochs=3, made=made, logdir=tmp_path / "a")
    state = first.state_dict()
    watch, _ = by_engine(
        model, optimizer, epochs=5, made=made, logdir=tmp_path / "b", prepare=lambda t: t.load_state_dict(state)
    )
    run = run_of(watch)
    assert run.steps is not None
    assert (run.steps.first, run.steps.last) == (31, 50)
    assert run.facts["resumed_at"] == 30
    assert run.facts["planned_steps"] == 50


def test_a_second_run_goes_on() -> None:
    model = net()
    watch, trainer = by_engine(model, sgd(model), epochs=1)
    assert watch.report is not None
    trainer.run(loader(), max_epochs=3)
    run = run_of(watch)
    assert run.steps is not None
    assert (run.steps.first, run.steps.last) == (21, 60)
    assert not any(len(m._forward_hooks) for m in model.modules())


def test_an_evaluation_of_the_training_data_is_no_validation() -> None:
    model = net()
    optimizer, criterion, batches = sgd(model), nn.CrossEntropyLoss(), loader()
    trainer = create_supervised_trainer(model, optimizer, criterion)
    evaluator = create_supervised_evaluator(model, metrics={"accuracy": Accuracy(), "loss": Loss(criterion)})
    watch = attach(trainer, model, optimizer, criterion, evaluator=evaluator, record_every=1, verbose=False)

    @trainer.on(Events.EPOCH_COMPLETED)
    def evaluate() -> None:
        evaluator.run(batches)
        evaluator.run([VAL])

    trainer.run(batches, max_epochs=2)
    run = run_of(watch)
    assert len(values(run, LOSS, "val")) == len(values(run, ACCURACY, "val")) == 2
    assert len(values(run, LOSS)) == len(values(run, ACCURACY)) == 40


class Broken(Exception):
    """What the user's program raises."""


@pytest.mark.parametrize("own_handler", [False, True])
def test_an_exception_of_the_program_goes_its_way(own_handler: bool) -> None:
    model = net()
    caught: list[BaseException] = []

    def spoil(trainer: Engine) -> None:
        @trainer.on(Events.ITERATION_COMPLETED(once=7))
        def fail() -> None:
            raise Broken

        if own_handler:
            trainer.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: caught.append(error))

    if own_handler:  # which swallows it
        watch, _ = by_engine(model, sgd(model), prepare=spoil)
        assert [type(e) for e in caught] == [Broken]
        assert watch.report is not None
    else:
        with pytest.raises(Broken):
            by_engine(model, sgd(model), prepare=spoil)
    assert not any(len(m._forward_hooks) for m in model.modules())


def test_what_fails_in_the_adapter_is_told_once_and_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Monitor, *args: object, **kwargs: object) -> None:
        raise RuntimeError("of ours")

    monkeypatch.setattr(Monitor, "log", fail)
    model = net()
    with caplog.at_level(logging.ERROR, "fitdoctor"):
        watch, trainer = by_engine(model, sgd(model))
    assert trainer.state.iteration == 80
    assert watch.off
    assert len(caplog.records) == 1
    assert "of ours" in str(caplog.records[0].exc_info)
    assert not any(len(m._forward_hooks) for m in model.modules())


def test_an_engine_is_asked_for() -> None:
    model = net()
    optimizer = sgd(model)
    with pytest.raises(ConfigError, match=r"trainer: expected an ignite\.engine\.Engine, got Sequential"):
        attach(model, optimizer, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="evaluator val: expected"):
        attach(create_supervised_trainer(model, optimizer, F.cross_entropy), model, optimizer, evaluator=model)  # type: ignore[arg-type]
