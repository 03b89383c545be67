"""Keras 3 on the torch backend.

from fitdoctor.live.integrations.keras import FitdoctorCallback
model.fit(..., callbacks=[FitdoctorCallback(logdir="runs/a")])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import torch
from torch import Tensor

from fitdoctor.errors import ConfigError
from fitdoctor.live.backward import BackwardWatch
from fitdoctor.live.integrations.guest import Guest, guarded
from fitdoctor.live.integrations.keras_model import KerasAnatomy, KerasLoss
from fitdoctor.live.integrations.keras_steps import KerasScale, KerasSteps, inner_optimizer
from fitdoctor.live.taps import Tap
from fitdoctor.live.watched import Host
from fitdoctor.run import Fact


class FitdoctorCallback(Guest, keras.callbacks.Callback):  # type: ignore[misc]
    """Watches a training by `Model.fit`; arguments and attributes are those of `Guest`.

    The monitor comes with the first batch, when weights are restored, and goes when `fit` returns. Steps go on where
    the optimizer's iterations stand. ``stop_on`` sets ``model.stop_training``. Under ``jit_compile`` nothing inside
    the compiled step is seen: no activations and no criterion; gradients only without accumulation and loss scale.

    Raises:
        ConfigError: if Keras does not run on torch.
    """

    def __init__(self, **options: Any) -> None:
        if keras.backend.backend() != "torch":
            raise ConfigError(
                f"FitdoctorCallback: expected Keras on the torch backend, got {keras.backend.backend()!r}; "
                "set the environment variable KERAS_BACKEND=torch before keras is imported"
            )
        for probe in ("probe_train", "probe_val"):
            if options.get(probe) is not None and not callable(options[probe]):
                raise ConfigError(
                    f"{probe}: expected a function of the model that returns its loss, "
                    f"got {type(options[probe]).__name__}"
                )
        keras.callbacks.Callback.__init__(self)
        Guest.__init__(self, **options)
        self._training = self._in_batch = False
        self._epoch = 0
        self._steps: KerasSteps | None = None
        self._restore: list[Callable[[], None]] = []
        self._tracked: tuple[Tensor, Tensor] | None = None
        self._counts_itself, self._before = False, 0  # whether, and how many, steps the optimizer has to be asked for

    def __getstate__(self) -> dict[str, Any]:
        """Without what sits on this training."""
        return {**super().__getstate__(), "_steps": None, "_restore": [], "_tracked": None}

    # --- training ---------------------------------------------------------------------------------------

    @guarded
    def on_train_begin(self, logs: Any = None) -> None:
        """Training begins; other callbacks may still restore weights."""
        self.leave()
        self._training, self._in_batch = True, False

    @guarded
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """An epoch begins."""
        self._epoch = epoch

    @guarded
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """A batch is there. (Hooks at the end of a batch would make Keras wait for the device.)"""
        self._end_batch()
        if self._training:
            self._training = False
            self._attach()
        if self.running is None or self._steps is None:
            return
        self._in_batch = True
        if self._steps.by_batch:
            self.running.batch_begins(self.model)
            self._tracked = self._totals() if self.running.measuring else None
            self._before = self._steps.steps if self._counts_itself else 0
            self._steps.begin_step()

    def _attach(self) -> None:
        steps = self._steps = KerasSteps(self.model)
        loss = KerasLoss(self.model)
        anatomy = KerasAnatomy(self.model, inside=not steps.by_batch)
        self._counts_itself = steps.accumulated > 1 or hasattr(self.model.optimizer, "dynamic_scale")
        restore = [steps.detach]
        if not steps.by_batch:
            restore += [_shown(self.model, loss), BackwardWatch(self._backward).remove]
        try:
            self._enter(steps, anatomy, loss)
        finally:
            self._restore = restore
        steps.register_step_post_hook(self._stepped)

    def _enter(self, steps: KerasSteps, anatomy: KerasAnatomy, loss: KerasLoss) -> None:
        self.enter(
            self.model,
            steps,
            host=Host(start=steps.steps, anatomy=anatomy, divides=steps.divides, tells_batches=steps.by_batch),
            framework="keras",
            folder=None,
            criterion=loss.criterion,
            scaler=KerasScale(self.model.optimizer) if hasattr(self.model.optimizer, "dynamic_scale") else None,
            facts=self._known(steps, anatomy, loss),
        )

    def _known(self, steps: KerasSteps, anatomy: KerasAnatomy, loss: KerasLoss) -> dict[str, Fact | None]:
        params = self.params or {}
        per_epoch, epochs = params.get("steps"), params.get("epochs")
        compute = str(self.model.dtype_policy.compute_dtype)
        each = per_epoch / steps.accumulated if per_epoch else None
        return {
            "keras": keras.__version__,
            "dtype": str(self.model.dtype_policy.variable_dtype),  # not that of the first variable, a random seed
            "keras_loss": loss.name or None,
            "planned_epochs": epochs,
            "planned_steps": steps.steps + int((epochs - self._epoch) * each) if epochs and each else None,
            "steps_per_epoch": int(each) if each and each.is_integer() else None,
            "gradient_accumulation_steps": steps.accumulated if steps.accumulated > 1 else None,
            "clip_norm": inner_optimizer(self.model.optimizer).global_clipnorm,
            "autocast": compute if compute in ("float16", "bfloat16") else None,
            "dropout_layers": anatomy.count("BaseDropout", "Dropout", "SpatialDropout"),
            "batch_norm_layers": anatomy.count("BatchNormalization"),
        }

    def _backward(self, loss: Tensor) -> None:
        """A training step that does not use `compute_loss`: its loss is what backward is called on."""
        if self.running is not None:
            scale = getattr(self.model.optimizer, "dynamic_scale", None)
            self.running.backward_begins(loss, divided_by=1.0 if scale is None else 1.0 / scale.value.detach())

    @guarded
    def _stepped(self, *args: Any) -> None:
        """The optimizer has stepped."""
        if self.to_stop():
            self.model.stop_training = True

    def _end_batch(self) -> None:
        """The batch before is over; its gradients are still there."""
        if not self._in_batch or self.running is None or self._steps is None:
            return
        self._in_batch = False
        if self._steps.by_batch:
            self.running.batch_ends(self.model)
            if self._tracked is not None and (now := self._totals()) is not None:
                total, count = (new - old for new, old in zip(now, self._tracked, strict=True))
                self.running.loss_told(total / count)
            if not self._counts_itself or self._steps.steps > self._before:
                self._steps.end_step()
        else:
            self._steps.batch_over()

    def _totals(self) -> tuple[Tensor, Tensor] | None:
        """What the model's own mean of the loss was made of so far: sum and weight."""
        for metric in self.model.metrics:
            if metric.name == "loss" and hasattr(metric, "total") and hasattr(metric, "count"):
                return metric.total.value.detach().clone(), metric.count.value.detach().clone()
        return None

    # --- validation, the end ------------------------------------------------------------------------------

    @guarded
    def on_test_begin(self, logs: Any = None) -> None:
        """A validation begins."""
        self._end_batch()

    @guarded
    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """An epoch is over, with its validation."""
        self._end_batch()
        if self.running is None:
            return
        self.running.log(epoch=epoch + 1)
        logs = logs or {}
        self.log_validation({k: v for k, v in logs.items() if k.startswith("val_")})
        self.log_training({k: v for k, v in logs.items() if not k.startswith("val_")})

    @guarded
    def on_train_end(self, logs: Any = None) -> None:
        """Training is over."""
        self._end_batch()
        self.leave()

    def leave(self, error: BaseException | None = None) -> None:
        """Take everything off, and tell once what was found.

        Args:
            error: the exception that ended the training, or None.
        """
        while self._restore:
            self._restore.pop()()
        self._training = self._in_batch = False
        super().leave(error)


def _shown(model: Any, loss: KerasLoss) -> Callable[[], None]:
    """Have the loss of each batch shown; returns what ends that."""
    original = model.compute_loss

    def compute_loss(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        if isinstance(found, Tensor) and found.requires_grad and torch.is_grad_enabled():
            given = dict(zip(("x", "y", "y_pred"), args, strict=False)) | kwargs
            tap(given.get("y_pred"), given.get("y"), found)
        return found

    tap = Tap("the loss", loss.show)
    model.__dict__["compute_loss"] = compute_loss

    def restore() -> None:
        if model.__dict__.get("compute_loss") is compute_loss:
            del model.__dict__["compute_loss"]

    return restore
