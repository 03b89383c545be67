"""Accelerate: the same findings and numbers as in a plain loop, through its wrappers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from fitdoctor.errors import ConfigError
from fitdoctor.live import attach
from fitdoctor.live.integrations import accelerate
from fitdoctor.run import Run
from fitdoctor.signals import (
    ACCURACY,
    BACKWARD_CALLS,
    GRAD_NORM,
    GRAD_NORM_CLIPPED,
    LOSS,
    LOSS_SCALE,
    LOSS_WEIGHT,
    Quantity,
)
from torch import Tensor, nn

PARTS = 2


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    states = (AcceleratorState, GradientState, PartialState)
    for state in states:
        state._reset_state()
    yield
    for state in states:
        state._reset_state()


def parts(lr: float) -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 4))
    x = torch.randn(3200, 12)
    data = list(zip(x.split(32), x[:, :4].argmax(1).split(32), strict=True))
    return model, torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9), data


def plain(lr: float, *, clip: bool = True) -> Any:
    model, optimizer, data = parts(lr)
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=3) as monitor:
        for i, (x, y) in enumerate(data):
            (criterion(model(x), y) / PARTS).backward()
            if i % PARTS == PARTS - 1:
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()
    return monitor


def accelerated(
    lr: float, *, criterion_given: bool = True, scaler: bool = False, precision: str = "no", direct: bool = False,
    **options: Any,
) -> Any:  # fmt: skip
    """The loop of Accelerate's documentation."""
    model, optimizer, data = parts(lr)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=PARTS, mixed_precision=precision)
    accelerator.gradient_state.plugin_kwargs["sync_with_dataloader"] = False
    if scaler:
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    model, optimizer = accelerator.prepare(model, optimizer)
    criterion = nn.CrossEntropyLoss() if criterion_given else None
    doctor = accelerate.attach(accelerator, model, optimizer, criterion, record_every=3, verbose=False, **options)
    for i, (x, y) in enumerate(data):
        with accelerator.accumulate(model):
            output = model(x)
            loss = criterion(output, y) if criterion else nn.functional.cross_entropy(output, y)
            (loss / PARTS).backward() if direct else accelerator.backward(loss)
            if accelerator.sync_gradients and not scaler:  # it unscales before clipping on GPUs only
                accelerator.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
        if i % 20 == 19:
            accelerator.log({"val_loss": 1.0 / (i + 1), "train_loss": 7.0, "lr": lr}, step=i)
        if accelerator.check_trigger():
            break
    accelerator.end_training()
    assert "backward" not in accelerator.__dict__
    assert doctor not in accelerator.trackers
    return doctor


def values(run: Run, quantity: Quantity, split: str = "train") -> list[float]:
    series = run.get(quantity, split)
    return [] if series is None else list(map(float, series.values))


@pytest.mark.parametrize(("lr", "sick"), [(0.05, False), (1e3, True)], ids=["healthy", "sick"])
def test_the_same_as_a_plain_loop(lr: float, sick: bool) -> None:
    one, other = plain(lr), accelerated(lr)
    run = other.monitor.run
    for quantity in (LOSS, GRAD_NORM, GRAD_NORM_CLIPPED, BACKWARD_CALLS, LOSS_WEIGHT, ACCURACY):
        expected = values(one.run, quantity)
        assert len(expected) > 10
        assert values(run, quantity) == pytest.approx(expected, nan_ok=True), quantity.name
    assert set(values(run, LOSS_WEIGHT)) == {1 / PARTS}
    val_only = {"no-validation-logged"}
    found = {(f.rule, f.severity, f.onset) for f in other.report.findings if f.rule not in val_only}
    assert found == {(f.rule, f.severity, f.onset) for f in one.close().findings if f.rule not in val_only}
    assert sick == bool({"lr-too-high"} & {f.rule for f in other.report.findings})
    assert other.report.steps.last == 100 // PARTS
    assert run.facts["framework"] == "accelerate"


@pytest.mark.parametrize(
    "how", [{"criterion_given": False}, {"criterion_given": False, "direct": True}, {"scaler": True},
            {"scaler": True, "criterion_given": False}],
    ids=["backward", "loss.backward", "scaler", "scaler, backward"],
)  # fmt: skip
def test_the_loss_is_undivided_and_unscaled_however_it_is_seen(how: dict[str, bool]) -> None:
    run = accelerated(0.05, **how).monitor.run
    expected = plain(0.05, clip=not how.get("scaler")).run
    direct = PARTS if how.get("direct") else 1  # divided by the user, whom nobody can look into
    assert [v * direct for v in values(run, LOSS)] == pytest.approx(values(expected, LOSS), rel=1e-4)
    assert values(run, GRAD_NORM) == pytest.approx(values(expected, GRAD_NORM), rel=1e-3)
    if not how.get("direct"):
        assert set(values(run, LOSS_WEIGHT)) == {1 / PARTS}
    if how.get("scaler"):
        assert set(values(run, LOSS_SCALE)) == {256.0}


def test_mixed_precision_is_known() -> None:
    run = accelerated(0.05, precision="bf16").monitor.run
    assert run.facts["autocast"] == "bfloat16"
    assert values(run, LOSS) == pytest.approx(values(plain(0.05).run, LOSS), rel=0.1)


def test_what_the_loop_logs_of_its_validation_arrives() -> None:
    run = accelerated(0.05).monitor.run
    val = run.get(LOSS, "val")
    assert val is not None
    assert val.values.tolist() == pytest.approx([1 / 20, 1 / 40, 1 / 60, 1 / 80, 1 / 100])
    assert val.steps.tolist() == [10, 20, 30, 40, 50]
    assert 7.0 not in values(run, LOSS)  # the training's own loss is measured


def test_a_finding_sets_the_trigger() -> None:
    doctor = accelerated(1e30, stop_on=["nonfinite-loss"])
    assert doctor.report.steps.last < 100 // PARTS
    assert "nonfinite-loss" in {f.rule for f in doctor.report.findings}


def test_init_trackers_keeps_it_and_gives_its_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, optimizer, data = parts(0.05)
    accelerator = Accelerator(cpu=True, project_dir=str(tmp_path))
    model, optimizer = accelerator.prepare(model, optimizer)
    doctor = accelerate.attach(accelerator, model, optimizer)
    accelerator.init_trackers("project", config={"planned_steps": 100, "colour": "red"})
    for x, y in data[:10]:
        accelerator.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
        optimizer.zero_grad()
    assert accelerator.get_tracker("fitdoctor", unwrap=True) is doctor.monitor
    accelerator.end_training()
    assert doctor.monitor.run.facts["planned_steps"] == 100
    assert "colour" not in doctor.monitor.run.facts
    assert list((tmp_path / "fitdoctor").glob("events.*"))
    assert "fitdoctor: " in capsys.readouterr().out


def test_the_training_is_bit_identical() -> None:
    ends = []
    for watched in (False, True):
        model, optimizer, data = parts(0.05)
        accelerator = Accelerator(cpu=True)
        model, optimizer = accelerator.prepare(model, optimizer)
        if watched:
            accelerate.attach(accelerator, model, optimizer, record_every=1, verbose=False)
        for x, y in data[:20]:
            accelerator.backward(nn.functional.cross_entropy(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
        accelerator.end_training()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*ends)


def test_what_is_no_accelerator_is_refused() -> None:
    model, optimizer, _ = parts(0.1)
    with pytest.raises(ConfigError, match=r"expected an accelerate\.Accelerator, got Sequential"):
        accelerate.attach(model, model, optimizer)  # type: ignore[arg-type]
