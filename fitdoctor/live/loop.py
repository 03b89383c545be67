"""What happens in one training step, as seen from outside, and what is measured at each moment.

    model(x)               forward_begins, layer outputs, forward_ends
    criterion(...)         loss_computed
    loss.backward()        backward_begins; gradients with respect to activations
    clip_grad_norm_(...)   clipped
    optimizer.step()       before_step, after_step: the row of this step is complete

The right moment for gradients is after the optimizer's step: before it they may still be scaled (fused
optimizers), stale (closures) or local to one process. `after_step` of the first optimizer is the clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fitdoctor.live.activations import ActivationRecorder, first_tensor
from fitdoctor.live.cadence import Cadence, Level
from fitdoctor.live.logits import take_logits
from fitdoctor.live.machine import memory_in_use
from fitdoctor.live.parameters import ParameterRecorder, local, norms
from fitdoctor.live.probes.step_quality import StepQuality
from fitdoctor.live.sinks import Point, Vector
from fitdoctor.live.taps import LayerHooks, Tap, listen
from fitdoctor.live.transport import Row, Transport, scalar
from fitdoctor.run import Fact, FloatArray
from fitdoctor.signals import (
    BACKWARD_CALLS,
    DATA_TIME,
    GRAD_LEFTOVER,
    GRAD_NORM,
    LOSS,
    LOSS_SCALE,
    LOSS_WEIGHT,
    LR,
    MEMORY,
    SCHEDULER_CALLS,
    STEP_TIME,
    TRAIN_MODE,
    ZERO_GRAD_CALLS,
)

_ATTEMPTS = 16  # backward passes without a step, after which they are told of, where a GradScaler is in use
_MODAL = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


@dataclass(slots=True, eq=False)
class Batch:
    """One forward pass of a training step, while it lasts.

    Attributes:
        module: the model that was called.
        args: its positional arguments.
        kwargs: its keyword arguments.
        criterion_args: what the criterion was called with.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    criterion_args: tuple[Any, ...] = ()


@dataclass(slots=True, eq=False)
class _Step:
    """What was noted since the last step of the first optimizer."""

    row: Row
    forwards: int = 0
    backwards: int = 0
    losses: list[float] = field(default_factory=list)
    loss_tensors: list[Tensor] = field(default_factory=list)
    weight: Tensor | None = None
    first_half: Tensor | None = None
    batch_size: int = 0
    data_time: float = 0.0
    spent: float = 0.0
    bad: bool = False
    clip_factor: Tensor | float = 1.0


class Loop:
    """Follows the training loop and measures.

    Args:
        optimizers: name -> unwrapped optimizer; the first one is the clock.
        parameters: name of optimizer -> what measures its parameters.
        activations: what measures outputs of layers, or None.
        cadence: decides what is measured when.
        transport: receives the finished rows.
        criterion: the loss module, or None.
        scaler: the GradScaler, or None.
        scheduler: the learning rate scheduler, or None.
        zero_grad_calls: counts calls of zero_grad so far.
        extras: what else is measured at records, after the step.
        probes: experiments on the model, done after a step where the budget allows.
        step_quality: the model whose steps are probed, or None.
        probe_every: distance of probes in steps, or None to leave it to the cadence.
        start: steps done before this process.
    """

    def __init__(
        self,
        *,
        optimizers: Mapping[str, torch.optim.Optimizer],
        parameters: Mapping[str, ParameterRecorder],
        activations: ActivationRecorder | None,
        cadence: Cadence,
        transport: Transport,
        criterion: nn.Module | None,
        scaler: Any = None,
        scheduler: Any = None,
        zero_grad_calls: Callable[[], int] = lambda: 0,
        extras: Sequence[Callable[[Row], None]] = (),
        probes: Sequence[Callable[[Row], None]] = (),
        step_quality: nn.Module | None = None,
        probe_every: int | None = None,
        start: int = 0,
    ) -> None:
        self.step = start
        self.paused = False
        self.facts: dict[str, Fact] = {}
        self.batch: Batch | None = None
        self.on_bad_loss: Callable[[float], None] = lambda value: None
        self.after_row: Callable[[Row, bool], None] = lambda row, recorded: None
        self.layer_hooks: LayerHooks | None = None
        self._backward = Tap("the backward pass", self.backward_begins)
        self._gradient_taps: dict[int, Tap] = {}
        self._recorders = {id(o): parameters[name] for name, o in optimizers.items()}
        self._main = next(iter(optimizers.values()))
        self._activations = activations
        self._cadence = cadence
        self._transport = transport
        self._criterion = criterion
        self._scaler, self._scheduler = scaler, scheduler
        self._zero_grad_calls = zero_grad_calls
        self._extras, self._probes = [Tap(str(e), e) for e in extras], [Tap("a probe", p) for p in probes]
        self._probed_model = step_quality
        self._probe_every = probe_every
        self._start_quality = Tap("step quality", self._new_quality)
        self._measure_quality = Tap("step quality", self._quality, self._start_quality.told)
        self._probe: StepQuality | None = None
        self._counted = (0, 0)
        self._ended = self._last = self._probing = 0.0
        self._probe_due = False
        self.wants_probes = bool(probes) or step_quality is not None
        self._interrupted = False
        self._modal: dict[int, list[nn.Module]] = {}
        self._begin(Level.RECORD)

    # --- forward ------------------------------------------------------------------------------------

    def forward_begins(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The model is about to run."""
        if not self.tick:
            return
        began = time.perf_counter()
        if self.paused or not torch.is_grad_enabled() or _inside_backward():
            self._interrupted = self._interrupted or not self.paused
            return
        now = self._now
        if self._scaler is not None and now.backwards and (now.bad or now.backwards % _ATTEMPTS == 0):
            self.note_attempt()
        now.forwards += 1
        if now.forwards == 1 and self._ended and not self._interrupted:
            now.data_time = began - self._ended
        self.batch = Batch(module, args, kwargs)
        if self.record and self._probe_due and self._probed_model is module and now.forwards == 1:
            self._start_quality(module)
        if self.record:
            now.batch_size += _batch_size(args, kwargs)
            if now.forwards == 2 and now.backwards == 1:
                self._note_first_half(now)
            if now.forwards == 1:
                self._note_mode(module)
            if self.layer_hooks is not None:
                self.layer_hooks.put()
        now.spent += time.perf_counter() - began

    def note_attempt(self) -> None:
        """A GradScaler that skips every step lets no step complete: tell what is known of the attempts."""
        now = self._now
        if self._scaler is None or not now.backwards:
            return
        row = Row(self.step + 1)
        if now.losses:
            row.put(LOSS, now.losses[-1])
        elif now.loss_tensors:
            row.add(scalar(LOSS), now.loss_tensors[-1])
        self._note_scale(row)
        if self.record and self._activations is not None:
            self._activations.finish(row)
            self._activations.start()
        if now.bad:
            now.losses.clear()
        now.bad = False
        self._transport.add(row)
        self.after_row(row, self.record)

    def _note_mode(self, module: nn.Module) -> None:
        modal = self._modal.get(id(module))
        if modal is None:
            modal = self._modal[id(module)] = [m for m in module.modules() if isinstance(m, _MODAL)] or [module]
        self._now.row.put(TRAIN_MODE, sum(m.training for m in modal) / len(modal))

    def _note_first_half(self, now: _Step) -> None:
        """Gradient of the first of several accumulated batches: the small batch of the noise scale."""
        recorder = self._recorders[id(self._main)]
        grads = [p.grad for p in recorder.params if p.grad is not None and p.grad.layout == torch.strided]
        if grads and not any(hasattr(g, "to_local") for g in grads):
            with torch.no_grad():
                now.first_half = torch.linalg.vector_norm(norms(grads)).reshape(1)

    def layer_output(self, layer: int, output: object) -> None:
        """A watched layer has run."""
        if _inside_backward() or self._activations is None:  # a checkpointed segment runs again
            return
        began = time.perf_counter()
        self._activations.take(layer, output, gradient=self._gradient_tap(layer))
        self._now.spent += time.perf_counter() - began

    def _gradient_tap(self, layer: int) -> Tap:
        tap = self._gradient_taps.get(layer)
        if tap is None:
            tap = self._gradient_taps[layer] = Tap(
                f"activation gradients of layer {layer}", partial(self.layer_gradient, layer)
            )
        return tap

    def forward_ends(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """The model has run."""
        if not self.tick or self.paused or not torch.is_grad_enabled() or _inside_backward():
            return
        if self.layer_hooks is not None:
            self.layer_hooks.take()
        if self._criterion is None:
            loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
            if isinstance(loss, Tensor):
                self._take_loss(loss)
            elif (tensor := first_tensor(output)) is not None and tensor.requires_grad:
                listen(tensor, self._backward)

    def loss_computed(self, criterion: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """The criterion has run."""
        if not self.tick or self.paused or not torch.is_grad_enabled() or _inside_backward():
            return
        if not isinstance(output, Tensor) or not output.requires_grad:
            return
        began = time.perf_counter()
        if self.batch is not None:
            self.batch.criterion_args = args
        if self.record and not self._now.losses and not self._now.loss_tensors:
            classes = take_logits(self._now.row, criterion, args)
            if classes is not None:
                self.facts.setdefault("classes", classes)
        self._take_loss(output)
        self._now.spent += time.perf_counter() - began

    def _take_loss(self, loss: Tensor) -> None:
        value = loss.detach()
        if value.ndim:
            value = value.mean()
        if value.device.type == "cpu" and value.dtype in (torch.float32, torch.float64):
            number = float(value.numpy())  # shares memory with the tensor; nothing to wait for
            self._now.losses.append(number)
            if not math.isfinite(number):
                self._now.bad = True
                self.on_bad_loss(number)
        else:
            self._now.loss_tensors.append(value.float().clone() if value.dtype == torch.float32 else value.float())
        if loss.requires_grad:
            listen(loss, self._backward)

    # --- backward -----------------------------------------------------------------------------------

    def backward_begins(self, grad: Tensor) -> None:
        """Backward has reached the loss; no gradient of a parameter has changed yet."""
        if self.paused:
            return
        began = time.perf_counter()
        now = self._now
        now.backwards += 1
        if self.record and now.backwards == 1:
            if grad.ndim == 0:
                now.weight = grad.detach().float().reshape(1).clone()
            self._note_leftover(now)
        now.spent += time.perf_counter() - began

    def _note_leftover(self, now: _Step) -> None:
        params = self._recorders[id(self._main)].params
        left = params[0].grad if params else None
        if left is None:
            now.row.put(GRAD_LEFTOVER, 0.0)
        elif left.layout == torch.strided and not hasattr(left, "to_local"):
            with torch.no_grad():
                now.row.add(scalar(GRAD_LEFTOVER), norms([left.detach()]))

    def layer_gradient(self, layer: int, grad: Tensor) -> None:
        """The gradient with respect to a watched layer's output is there."""
        if self._activations is None or self.paused or not self.record:
            return
        began = time.perf_counter()
        self._activations.take_gradient(layer, grad)
        self._now.spent += time.perf_counter() - began

    # --- step -----------------------------------------------------------------------------------------

    def clipped(self, parameters: Sequence[Tensor] | Tensor, limit: float, norm: Tensor) -> None:
        """Gradients are about to be clipped; this is their norm so far."""
        if not self.tick or self.paused:
            return
        members = [parameters] if isinstance(parameters, Tensor) else parameters
        known = {id(p) for p in members}
        for key, recorder in self._recorders.items():
            params = recorder.params
            if not params or id(params[0]) not in known:
                continue
            if self._still_scaled(key):
                self.facts["clipped_before_unscale"] = True
            elif len(known) >= len(params):
                if self._probe is not None and recorder.optimizer is self._main:
                    self._now.clip_factor = (limit / (norm.detach() + 1e-6)).clamp(max=1.0)
                share = hasattr(norm, "to_local")  # of sharded gradients each process knows its part
                value = local(norm.detach()).reshape(1)
                self._now.row.parts.insert(0, (_Clip(recorder.label, float(limit), share), value))

    def _still_scaled(self, optimizer: int) -> bool:
        if self._scaler is None or not self._scaler.is_enabled():
            return False
        states = getattr(self._scaler, "_per_optimizer_states", {})
        stage = states[optimizer].get("stage") if optimizer in states else None
        return stage is None or getattr(stage, "name", "") == "READY"

    def before_step(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        """An optimizer is about to step."""
        if not self.record or self.paused:
            return
        began = time.perf_counter()
        self._recorders[id(optimizer)].before_step()
        self._now.spent += time.perf_counter() - began

    def after_step(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        """An optimizer has stepped."""
        if self.paused:
            return
        began = time.perf_counter()
        now = self._now
        if self.gradient:
            self._recorders[id(optimizer)].after_step(now.row, found_inf=getattr(optimizer, "found_inf", None))
        if optimizer is not self._main:
            now.spent += time.perf_counter() - began
            return
        self.step += 1
        seconds = began - self._ended if self._ended else 0.0
        wall, self._last = began - self._last if self._last else 0.0, began
        self._run_probes(now)
        recorded = self.record
        if self.tick:
            if not self.gradient:
                self._note_rates(now.row, optimizer)
            self._complete(now, seconds)
            self.after_row(now.row, recorded)
            self.batch = None
        ended = time.perf_counter()
        if seconds:
            self._cadence.stepped(seconds, wall)
        if self.tick:
            self._cadence.spent(self._level.kind, now.spent + ended - began - self._probing)
            self._probing = 0.0
            self._interrupted = False
            self._cadence.adapt()
        self._begin(self._cadence.level(self.step + 1))
        self._ended = time.perf_counter()

    def _run_probes(self, now: _Step) -> None:
        """Experiments, after a step at which everything else is measured too."""
        probe, self._probe = self._probe, None
        if not self._probe_due or not self.record:
            return
        began = time.perf_counter()
        self._probe_due = False
        self.paused = True
        try:
            if probe is not None:
                self._measure_quality(probe, now)
            for tap in self._probes:
                tap(now.row)
        finally:
            self.paused = False
        self._probing = time.perf_counter() - began
        self._cadence.spent("probe", self._probing)

    def _new_quality(self, module: nn.Module) -> None:
        self._probe = StepQuality(module, self._recorders[id(self._main)].params, _device_of(module))

    def _quality(self, probe: StepQuality, now: _Step) -> None:
        """Only a step of one batch, through the model and the criterion once, can be run again."""
        loss = now.losses[0] if now.losses else now.loss_tensors[0] if now.loss_tensors else None
        if now.forwards == 1 and loss is not None and self.batch is not None and self.batch.criterion_args:
            assert self._criterion is not None
            probe.measure(now.row, self.batch, self._criterion, loss, now.clip_factor)

    def _begin(self, level: Level) -> None:
        """Get ready for the next step."""
        self._level = level
        self._probe_due = False
        self.tick, self.gradient, self.record = level > Level.IDLE, level > Level.TICK, level is Level.RECORD
        if not self.tick:
            return
        self._now = _Step(Row(self.step + 1))
        self._counted = (self._zero_grad_calls(), self._scheduled())
        if self.record:
            due = self._cadence.may("probe") if not self._probe_every else (self.step + 1) % self._probe_every == 0
            self._probe_due = self.wants_probes and due
            for recorder in self._recorders.values():
                recorder.refresh()
            if self._activations is not None:
                self._activations.start()

    def _note_rates(self, row: Row, optimizer: torch.optim.Optimizer) -> None:
        groups = optimizer.param_groups
        for i, group in enumerate(groups):
            if isinstance(group.get("lr"), int | float):
                row.put(LR, float(group["lr"]), f"pg{i}" if len(groups) > 1 else "")

    def _complete(self, now: _Step, seconds: float) -> None:
        """Finish the row of this step and hand it over."""
        row = now.row
        row.wall_time = time.time()
        if now.losses:
            row.put(LOSS, sum(now.losses) / len(now.losses))
        if now.loss_tensors:
            first = now.loss_tensors[0]
            row.add(scalar(LOSS), first if len(now.loss_tensors) == 1 else torch.stack(now.loss_tensors).mean())
        if seconds and not self._interrupted:
            row.put(STEP_TIME, seconds)
            if now.data_time:
                row.put(DATA_TIME, now.data_time)
        self._note_scale(row)
        if self.record:
            self._complete_record(now)
        self._transport.add(row)

    def _complete_record(self, now: _Step) -> None:
        row = now.row
        if now.backwards:
            row.put(BACKWARD_CALLS, float(now.backwards))
        row.put(ZERO_GRAD_CALLS, float(self._zero_grad_calls() - self._counted[0]))
        if self._scheduler is not None:
            row.put(SCHEDULER_CALLS, float(self._scheduled() - self._counted[1]))
        params = self._recorders[id(self._main)].params
        memory = memory_in_use(params[0].device) if params else None
        if memory is not None:
            row.put(MEMORY, memory)
        if now.weight is not None:
            row.add(_Weight(), now.weight)
        if now.first_half is not None and now.forwards > 1:
            row.parts.insert(0, (_FirstHalf(now.forwards, now.batch_size), now.first_half))
        for tap in self._extras:
            tap(row)
        if self._activations is not None:
            self._activations.finish(row, weight=now.weight)
        if now.batch_size:
            self.facts["batch_size"] = now.batch_size // max(1, now.forwards)
            self.facts["gradient_accumulation_steps"] = max(1, now.forwards)

    def _scheduled(self) -> int:
        count = getattr(self._scheduler, "_step_count", 0)
        return count if isinstance(count, int) else 0

    def _note_scale(self, row: Row) -> None:
        scale = getattr(self._scaler, "_scale", None)
        if isinstance(scale, Tensor):
            if scale.device.type == "cpu":
                row.context["scale"] = float(scale.numpy())
                row.put(LOSS_SCALE, row.context["scale"])
            else:
                row.parts.insert(0, (_Scale(), scale.detach().clone()))


class _Clip:
    def __init__(self, label: str, limit: float, share: bool) -> None:
        self.label, self.limit, self.share = label, limit, share

    def __call__(self, row: Row, values: FloatArray) -> list[Point | Vector]:
        if self.share:
            row.context[f"clip_share{self.label}"] = float(values[0])
            row.context[f"clip_limit{self.label}"] = self.limit
            return []
        row.context[f"clip_norm_before{self.label}"] = float(values[0])
        row.context[f"clip_limit{self.label}"] = self.limit
        return [row.point(GRAD_NORM, float(values[0]), self.label)]


class _Weight:
    def __call__(self, row: Row, values: FloatArray) -> list[Point | Vector]:
        row.context["weight"] = float(values[0])
        scale = row.context.get("scale", 1.0)
        return [row.point(LOSS_WEIGHT, float(values[0]) / scale)] if scale else []


class _Scale:
    def __call__(self, row: Row, values: FloatArray) -> list[Point | Vector]:
        row.context["scale"] = float(values[0])
        return [row.point(LOSS_SCALE, float(values[0]))]


class _FirstHalf:
    def __init__(self, forwards: int, samples: int) -> None:
        self.forwards, self.samples = forwards, samples

    def __call__(self, row: Row, values: FloatArray) -> list[Point | Vector]:
        row.context["first_norm"] = float(values[0])
        row.context["forwards"], row.context["samples"] = float(self.forwards), float(self.samples)
        return []


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _inside_backward() -> bool:
    return bool(torch._C._current_graph_task_id() != -1)


def _batch_size(args: Sequence[object], kwargs: Mapping[str, object]) -> int:
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim:
            return int(value.shape[0])
        if isinstance(value, Mapping | list | tuple):
            found = _batch_size(list(value.values()) if isinstance(value, Mapping) else value, {})
            if found:
                return found
    return 0
