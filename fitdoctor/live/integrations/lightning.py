"""PyTorch Lightning.

from fitdoctor.live.integrations.lightning import FitdoctorCallback
trainer = Trainer(..., callbacks=[FitdoctorCallback()])
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:  # the same library under its older name
        from pytorch_lightning import Callback

from fitdoctor.live.integrations.guest import Guest, guarded
from fitdoctor.live.watched import Host
from fitdoctor.run import Fact


class FitdoctorCallback(Guest, Callback):
    """Watches a training by `Trainer.fit`; arguments and attributes are those of `Guest`.

    The monitor comes after the sanity check and goes when training ends. It logs to ``trainer.log_dir``, beside the
    logger's own files, and nowhere for a trainer without a logger. A criterion is found by itself where the module
    has one loss module. ``stop_on`` sets ``trainer.should_stop``.
    """

    _before: Mapping[str, Any] = {}
    _steps: int | None = None  # of the first optimizer, as a checkpoint has them

    # --- training ---------------------------------------------------------------------------------------

    @guarded
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach: the optimizers are there, a checkpoint is loaded, the sanity check is over."""
        folder = trainer.log_dir  # asks the other processes: to be called on all of them
        optimizers = list(trainer.optimizers)
        if not optimizers:
            return
        self.enter(
            pl_module,
            optimizers,
            host=Host(start=self._steps_done(trainer, pl_module), tells_batches=True),
            framework="lightning",
            folder=folder if trainer.loggers and not trainer.fast_dev_run else None,
            criterion=_criterion(pl_module),
            scheduler=_scheduler(trainer),
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            facts=_facts(trainer, pl_module),
        )

    @guarded
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A batch is there."""
        if self.running is not None:
            self.running.batch_begins(pl_module, batch)

    @guarded
    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        """The loss is there: over the number of accumulated batches, and times the loss scale."""
        if self.running is None:
            return
        self.running.batch_ends(pl_module)
        divided: torch.Tensor | float = 1.0
        if pl_module.automatic_optimization:
            divided = float(trainer.accumulate_grad_batches)
        scale = getattr(getattr(trainer.precision_plugin, "scaler", None), "_scale", None)
        if isinstance(scale, torch.Tensor):
            divided = divided / scale
        self.running.backward_begins(loss, divided_by=divided)

    @guarded
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The optimizer has stepped, unless batches are accumulated."""
        if self.running is None:
            return
        self.running.batch_ends(pl_module)
        if self.to_stop():
            trainer.should_stop = True

    @guarded
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """An epoch is over."""
        if self.running is not None:
            self.running.log(epoch=trainer.current_epoch + 1)

    # --- validation -------------------------------------------------------------------------------------

    @guarded
    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Remember what was logged before: what is new afterwards is of this validation."""
        self._before = dict(trainer.callback_metrics) if self.running is not None else {}

    @guarded
    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """A batch of validation is about to run."""
        if self.running is not None:
            self.running.batch_begins(pl_module, batch)

    @guarded
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """The user's metrics are there."""
        if self.running is None:
            return
        before, self._before = self._before, {}
        now = dict(trainer.callback_metrics)
        named = {tag: value for tag, value in now.items() if value is not before.get(tag)}
        self.log_validation(named, all_of_it=True)

    # --- checkpoints ------------------------------------------------------------------------------------

    @guarded
    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """With several optimizers stepped by hand, Lightning does not know how often the first one did."""
        if self.monitor is not None and not pl_module.automatic_optimization:
            checkpoint["fitdoctor_steps"] = self.monitor.step

    @guarded
    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """What was saved."""
        self._steps = checkpoint.get("fitdoctor_steps")

    def _steps_done(self, trainer: Any, pl_module: Any) -> int:
        """Steps of the first optimizer before this call of fit; `global_step` counts those of all optimizers."""
        steps, self._steps = self._steps, None
        if pl_module.automatic_optimization:
            return int(trainer.global_step)
        return steps if steps is not None else int(trainer.global_step) // len(trainer.optimizers)

    # --- the end ----------------------------------------------------------------------------------------

    @guarded
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Training is over."""
        self.leave()

    @guarded
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Training broke."""
        self.leave(exception)

    @guarded
    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Nothing of ours stays."""
        self.leave()


def _criterion(pl_module: nn.Module) -> nn.Module | None:
    """The one loss module among the parts of the module, or None."""
    found = [m for m in pl_module.modules() if isinstance(m, nn.modules.loss._Loss)]
    return found[0] if len(found) == 1 else None


def _scheduler(trainer: Any) -> Any:
    """The scheduler of the first optimizer, or None."""
    found = [c.scheduler for c in trainer.lr_scheduler_configs]
    return next((s for s in found if getattr(s, "optimizer", None) is trainer.optimizers[0]), None)


def _facts(trainer: Any, pl_module: Any) -> dict[str, Fact | None]:
    accumulated = int(trainer.accumulate_grad_batches) if pl_module.automatic_optimization else 1
    facts: dict[str, Fact | None] = {"gradient_accumulation_steps": accumulated}
    if pl_module.automatic_optimization or trainer.max_steps < 0:  # else max_steps counts the steps of all optimizers
        with suppress(Exception):  # loaders without a length
            facts["planned_steps"] = _finite(trainer.estimated_stepping_batches)
    if trainer.max_steps < 0 and trainer.max_epochs is not None and trainer.max_epochs > 0:
        facts["planned_epochs"] = int(trainer.max_epochs)
    batches = _finite(trainer.num_training_batches)
    if batches:
        facts["steps_per_epoch"] = math.ceil(batches / accumulated)
    if trainer.gradient_clip_val and trainer.gradient_clip_algorithm in (None, "norm"):  # the other one is "value"
        facts["clip_norm"] = float(trainer.gradient_clip_val)
    with suppress(Exception):
        facts["n_train"] = len(trainer.train_dataloader.dataset)
    with suppress(Exception):
        facts["batch_size"] = _finite(trainer.train_dataloader.batch_size)
    # At the start of a batch Lightning's autocast is not on yet, so it cannot be seen.
    facts["autocast"] = {"16-mixed": "float16", "bf16-mixed": "bfloat16"}.get(str(trainer.precision))
    if trainer.world_size > 1:
        facts["world_size"] = int(trainer.world_size)
    return facts


def _finite(count: Any) -> int | None:
    return int(count) if isinstance(count, int | float) and math.isfinite(count) and count > 0 else None
