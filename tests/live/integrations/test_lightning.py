"""PyTorch Lightning, with the real framework."""

from __future__ import annotations

import copy
import logging
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fitdoctor
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fitdoctor.errors import ConfigError
from fitdoctor.finding import Finding
from fitdoctor.live.monitor import Monitor
from fitdoctor.report import Report
from fitdoctor.run import Run
from fitdoctor.signals import (
    ACCURACY,
    BACKWARD_CALLS,
    EPOCH,
    EVAL_FORWARDS,
    EVAL_TRAIN_MODE,
    GRAD_LEFTOVER,
    GRAD_NORM,
    GRAD_NORM_CLIPPED,
    LOSS,
    LOSS_WEIGHT,
    LR,
    SCHEDULER_CALLS,
    STEP_CALLS,
    TRAIN_MODE,
    ZERO_GRAD_CALLS,
    Quantity,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what Lightning imports
    from fitdoctor.live.integrations.lightning import FitdoctorCallback
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:Starting from v1.9.0, `tensorboardX` has been removed"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

Batch = tuple[Tensor, Tensor]


def data(rows: int, *, seed: int) -> TensorDataset:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 12, generator=random)
    return TensorDataset(x, (x[:, :4] + 0.3 * torch.randn(rows, 4, generator=random)).argmax(1))


class Shuffled(Sampler[int]):
    """An order that changes with each epoch and is the same in every training, however many iterators are made."""

    epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        yield from torch.randperm(640, generator=torch.Generator().manual_seed(self.epoch)).tolist()

    def __len__(self) -> int:
        return 640


def train_batches() -> DataLoader[Any]:
    return DataLoader(data(640, seed=0), 32, sampler=Shuffled())


def val_batches() -> DataLoader[Any]:
    return DataLoader(data(200, seed=1), 100)


def net(*, depth: int = 2, bias: float | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(12 if i == 0 else 32, 32), nn.ReLU(), nn.Dropout(0.0)]
        if bias is not None:
            nn.init.constant_(layers[-3].bias, bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers, nn.Linear(32, 4))


class Program(LightningModule):
    """As Lightning's users write them: parts are called, the module itself is not."""

    def __init__(self, lr: float = 0.1, *, loss_module: bool = True, one_cycle: bool = False, **shape: Any) -> None:
        super().__init__()
        self.net = net(**shape)
        self.lr, self.one_cycle = lr, one_cycle
        if loss_module:
            self.criterion: Any = nn.CrossEntropyLoss()
        else:
            self.criterion = F.cross_entropy

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss: Tensor = self.criterion(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        out = self.net(batch[0])
        self.log("val_loss", F.cross_entropy(out, batch[1]))
        self.log("acc", (out.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        if not self.one_cycle:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(
    program: LightningModule,
    watch: FitdoctorCallback | None = None,
    *,
    epochs: int = 4,
    ckpt: str | None = None,
    callbacks: list[Any] | None = None,
    **options: Any,
) -> tuple[FitdoctorCallback, Trainer]:
    watch = watch or FitdoctorCallback(record_every=1, verbose=False)
    settings: dict[str, Any] = {"max_epochs": epochs, "accelerator": "cpu", "logger": False, "log_every_n_steps": 5}
    settings |= {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(callbacks=[watch, *(callbacks or [])], **(settings | options))
    trainer.fit(program, train_batches(), val_batches(), ckpt_path=ckpt)
    return watch, trainer


def plainly(model: nn.Module, lr: float, *, epochs: int = 4) -> Report:
    """The same program as a plain loop."""
    optimizer, criterion = torch.optim.SGD(model.parameters(), lr=lr), nn.CrossEntropyLoss()
    batches = train_batches()
    with fitdoctor.attach(model, optimizer, criterion, record_every=1) as monitor:
        for epoch in range(1, epochs + 1):
            for x, y in batches:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                parts = [
                    (F.cross_entropy(out := model(x), y), (out.argmax(1) == y).float().mean()) for x, y in val_batches()
                ]
            model.train()
            loss, accuracy = (sum(column) / len(parts) for column in zip(*parts, strict=True))
            monitor.log(val_loss=loss, val_accuracy=accuracy, epoch=epoch)
    return monitor.close()


def run_of(watch: FitdoctorCallback) -> Run:
    assert watch.monitor is not None
    assert not watch.off
    return watch.monitor.run


def values(run: Run, quantity: Quantity, split: str = "train", layer: str = "") -> np.ndarray[Any, Any]:
    series = run.get(quantity, split, layer)
    assert series is not None, f"no {split} {quantity.name}"
    return np.asarray(series.values)


def found(report: Report | None) -> set[tuple[str, str]]:
    assert report is not None
    # How long a step waited for data depends on the machine.
    return {(f.rule, str(f.severity)) for f in report.findings if f.rule != "input-bound"}


PROGRAMS: dict[str, tuple[dict[str, Any], float, str]] = {
    "healthy": ({}, 0.5, ""),
    "rate far too high": ({"depth": 3}, 50.0, "lr-too-high"),
    "units born dead": ({"bias": -20.0}, 0.1, "dead-relu"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_findings_are_those_of_the_plain_loop(name: str) -> None:
    shape, lr, rule = PROGRAMS[name]
    plain = plainly(net(**shape), lr)
    watch, _ = fit(Program(lr, **shape))
    assert found(watch.report) == found(plain)
    assert watch.report is not None
    harmful = [d.root.rule for d in watch.report.diagnoses if str(d.root.severity) != "note"]
    assert harmful[:1] == ([rule] if rule else [])


def test_steps_epochs_losses_and_validation() -> None:
    watch, trainer = fit(Program())
    run = run_of(watch)
    assert run.steps is not None
    assert (run.steps.first, run.steps.last) == (1, 80)
    assert trainer.global_step == 80
    epochs = run.get(EPOCH)
    assert epochs is not None
    assert (list(epochs.steps), list(epochs.values)) == ([20, 40, 60, 80], [1, 2, 3, 4])
    plain = plainly(model := net(), 0.1)
    assert values(run, LOSS)[-1] == next(c for c in plain.curves if str(c.signal) == "train loss").points[-1][1]
    bare = Program()
    bare.load_state_dict({f"net.{k}": v for k, v in model.state_dict().items()}, strict=False)
    assert trainer.lightning_module is not None
    assert all(torch.equal(a, b) for a, b in zip(trainer.lightning_module.parameters(), bare.parameters(), strict=True))
    # Four validations and not the sanity check, in eval mode; their batches are counted before the step after them.
    val = run.get(LOSS, "val")
    assert val is not None
    assert list(val.steps) == [20, 40, 60, 80]
    assert val.values[-1] == pytest.approx(float(trainer.callback_metrics["val_loss"]))
    assert len(values(run, ACCURACY, "val")) == 4
    assert list(values(run, EVAL_FORWARDS)) == [2, 2, 2]
    assert set(values(run, EVAL_TRAIN_MODE)) == {0}
    assert set(values(run, TRAIN_MODE)) == {1}
    assert set(values(run, GRAD_LEFTOVER)) == {0}
    assert set(values(run, ZERO_GRAD_CALLS)) == {1}
    keys = ("planned_epochs", "planned_steps", "steps_per_epoch", "n_train", "batch_size", "framework", "loss_function")
    assert [run.facts.get(k) for k in keys] == [4, 80, 20, 640, 32, "lightning", "CrossEntropyLoss"]


@pytest.mark.parametrize("loss_module", [True, False])
def test_accumulation_clipping_precision_and_schedule(loss_module: bool, tmp_path: Path) -> None:
    """Lightning divides the loss; the last of the 20 batches of an epoch stand in a window of two."""
    watch, trainer = fit(
        Program(0.5, loss_module=loss_module, one_cycle=True),
        accumulate_grad_batches=3,
        gradient_clip_val=0.3,
        val_check_interval=0.5,
        precision="bf16-mixed",
        logger=CSVLogger(tmp_path),
        callbacks=[LearningRateMonitor()],
    )
    run = run_of(watch)
    assert run.steps is not None
    assert run.steps.last == trainer.global_step == 28
    calls = values(run, BACKWARD_CALLS)
    assert list(calls[:8]) == [3, 3, 3, 3, 3, 3, 2, 3]
    assert np.allclose(values(run, LOSS_WEIGHT), 1 / 3)
    assert values(run, LOSS)[0] == pytest.approx(1.39, abs=0.1)
    assert values(run, LOSS)[6] > 1.0  # that of two batches, neither divided by three
    assert (values(run, GRAD_NORM_CLIPPED) < 0.301).all()
    assert values(run, GRAD_NORM).max() > 0.31
    assert list(values(run, SCHEDULER_CALLS)) == [0] + [1] * 27  # each comes after its step
    assert values(run, LR)[8] > 3 * values(run, LR)[0]
    assert len(values(run, LOSS, "val")) == 8
    keys = ("gradient_accumulation_steps", "planned_steps", "steps_per_epoch", "clip_norm", "autocast", "lr_scheduler")
    assert [run.facts.get(k) for k in keys] == [3, 28, 7, 0.3, "bfloat16", "OneCycleLR"]
    assert "accumulation-scaling" not in {f.rule for f in watch.report.findings}  # type: ignore[union-attr]
    # The logger's own file and ours are one run, and what the user logged stands in it once.
    (logged,) = fitdoctor.open_runs(tmp_path)
    assert logged.name.endswith("version_0")
    assert len({s.signal for s in logged.series}) == len(logged.series)
    assert len(values(logged, LOSS, "val")) == 8
    assert logged.steps is not None
    assert logged.steps.last == 28


class Adversaries(LightningModule):
    """Two optimizers, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 12))
        self.critic = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        first, second = self.optimizers()  # type: ignore[attr-defined,misc]
        x = batch[0]
        fake = self.generator(torch.ones(len(x), 4))
        first.zero_grad()
        self.manual_backward(F.softplus(-self.critic(fake)).mean())
        first.step()
        for _ in range(2):
            second.zero_grad()
            loss = F.softplus(self.critic(fake.detach())).mean() + F.softplus(-self.critic(x)).mean()
            self.manual_backward(loss)
            self.clip_gradients(second, 0.1, "norm")
            second.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(self.generator.parameters(), 1e-3), torch.optim.SGD(self.critic.parameters(), 1e-2)]


def test_several_optimizers_by_hand(tmp_path: Path) -> None:
    watch, trainer = fit(Adversaries(), epochs=1, limit_val_batches=0, enable_checkpointing=False)
    run = run_of(watch)
    assert run.steps is not None
    assert (run.steps.last, trainer.global_step) == (20, 60)
    assert list(values(run, STEP_CALLS, layer="optimizer1")[1:]) == [2] * 19
    assert values(run, LOSS)[0] == pytest.approx(0.69, abs=0.2)
    assert values(run, LOSS)[1:] == pytest.approx([0.69] * 19, abs=0.2)  # the first one's, with no other's among it
    assert (values(run, GRAD_NORM_CLIPPED, layer="optimizer1") < 0.101).all()
    assert not {"loss-divergence", "lr-too-high"} & {rule for rule, _ in found(watch.report)}
    path = str(tmp_path / "x.ckpt")
    trainer.save_checkpoint(path)
    again, _ = fit(Adversaries(), epochs=2, limit_val_batches=0, ckpt=path)
    steps = run_of(again).steps
    assert steps is not None
    assert (steps.first, steps.last) == (21, 40)


def test_resuming_keeps_the_steps(tmp_path: Path) -> None:
    _, trainer = fit(Program(), epochs=2)
    path = str(tmp_path / "x.ckpt")
    trainer.save_checkpoint(path)
    watch, _ = fit(Program(), epochs=4, ckpt=path)
    run = run_of(watch)
    assert run.steps is not None
    assert (run.steps.first, run.steps.last) == (41, 80)
    assert (run.facts["resumed_at"], run.facts["planned_steps"]) == (40, 80)


def test_stopping_is_the_trainers_own(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Finding] = []
    watch = FitdoctorCallback(
        stop_on=("lr-too-high", "nonfinite-loss"), on_finding=told.append, judge_every=1, record_every=1, verbose=False
    )
    watch, trainer = fit(Program(1e6, depth=3), watch, epochs=20)
    assert trainer.should_stop
    assert trainer.global_step < 200
    assert {f.rule for f in told} & {"lr-too-high", "nonfinite-loss"}
    assert watch.report is not None
    assert watch.report.verdict == "sick"


def test_a_rule_that_does_not_exist_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="lr-too-hihg"):
        FitdoctorCallback(stop_on=("lr-too-hihg",))


def test_it_tells_once_what_it_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fit(Program(bias=-20.0), FitdoctorCallback(record_every=1, logdir=tmp_path / "here"))
    out = capsys.readouterr().out
    assert out.count("fitdoctor: here, 80 steps: sick: dead-relu") == 1
    assert "Try: " in out
    assert f"fitdoctor analyze {tmp_path / 'here'}" in out


def test_copies_and_pickles_leave_the_monitor_behind() -> None:
    kept: list[Any] = []

    class Copies(FitdoctorCallback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            kept.append((copy.deepcopy(self), pickle.loads(pickle.dumps(pl_module.net)), copy.deepcopy(pl_module.net)))

    fit(Program(), Copies(record_every=1, verbose=False), epochs=1)
    ((callback, loaded, copied),) = kept
    assert callback.monitor is None
    assert not any(m._forward_hooks for model in (loaded, copied) for m in model.modules())
    again, _ = fit(Program(), callback, epochs=1)
    assert run_of(again).steps is not None
    assert pickle.loads(pickle.dumps(FitdoctorCallback(stop_on=["dead-relu"])))._stop_on == {"dead-relu"}


def test_a_second_fit_is_another_training() -> None:
    program = Program()
    watch, _ = fit(program, epochs=1)
    first = watch.report
    watch, trainer = fit(program, watch, epochs=2)
    assert watch.report is not first
    trainer.validate(program, val_batches(), verbose=False)  # after the end
    steps = run_of(watch).steps
    assert steps is not None
    assert (steps.first, steps.last) == (1, 40)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in program.modules())


class Broken(Exception):
    """What the user's program raises."""


def test_an_exception_of_the_program_goes_its_way() -> None:
    class Breaks(Program):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 7:
                raise Broken

    program, watch = Breaks(), FitdoctorCallback(record_every=1, verbose=False)
    with pytest.raises(Broken):
        fit(program, watch)
    assert watch.report is not None
    assert watch.report.steps is not None
    assert watch.report.steps.last == 8


def test_what_fails_in_the_adapter_is_told_once_and_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Monitor, *args: object, **kwargs: object) -> None:
        raise RuntimeError("of ours")

    monkeypatch.setattr(Monitor, "backward_begins", fail)
    program = Program()
    with caplog.at_level(logging.ERROR, "fitdoctor"):
        watch, trainer = fit(program)
    assert trainer.global_step == 80
    assert watch.off
    told = [record for record in caplog.records if "FitdoctorCallback failed" in record.getMessage()]
    assert len(told) == 1
    assert "of ours" in str(told[0].exc_info)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in program.modules())
