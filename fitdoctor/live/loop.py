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

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from fitdoctor.live.activations import ActivationRecorder
from fitdoctor.live.autograd import inside_backward, inside_transform
from fitdoctor.live.cadence import Cadence, Level
from fitdoctor.live.clipping import clipped_optimizers, note_clipping
from fitdoctor.live.completion import Completion
from fitdoctor.live.ledger import Ledger
from fitdoctor.live.losses import Losses
from fitdoctor.live.out_of_memory import out_of_memory_facts
from fitdoctor.live.parameters import ParameterRecorder
from fitdoctor.live.probes.turns import Probes
from fitdoctor.live.scaling import LossScale
from fitdoctor.live.step import Batch, Step, size_of_batch
from fitdoctor.live.taps import LayerHooks, ModuleTap, Tap
from fitdoctor.live.transport import Row, Transport
from fitdoctor.live.watched import Watched
from fitdoctor.run import Fact

_LEFTOVERS = 32  # backward passes of a step before which the witness gradient is looked at
_ATTEMPTS = 16  # backward passes without a step, after which they are told of, where a GradScaler is in use


class Loop:
    """Follows the training loop and measures.

    Args:
        watched: the parts of the training.
        parameters: name of optimizer -> what measures its parameters.
        activations: what measures outputs of layers, or None.
        cadence: decides what is measured when.
        transport: receives the finished rows.
        probes: experiments on the model.
        zero_grad_calls: counts calls of the first optimizer's zero_grad so far.
        extras: what else is measured at records, after the step.
        start: steps done before this process.

    Attributes:
        step: optimizer steps done.
        facts: what was learned of the training on the way.
        after_row: called when the row of a step is complete; returns the seconds of its work that are accounted apart.
        layer_hooks: the hooks on layers, or None.
        module_taps: hooks on modules that are off during idle steps.
        losses: which number is the loss of a batch.
        extras: hooks that are called with the row of a record, after the step.
    """

    def __init__(
        self,
        watched: Watched,
        *,
        parameters: Mapping[str, ParameterRecorder],
        activations: ActivationRecorder | None,
        cadence: Cadence,
        transport: Transport,
        probes: Probes,
        zero_grad_calls: Callable[[], int] = lambda: 0,
        extras: Sequence[Callable[[Row], None]] = (),
        start: int = 0,
    ) -> None:
        self.step = start
        self.facts: dict[str, Fact] = {}
        self.after_row: Callable[[Row], float] = lambda row: 0.0
        self.layer_hooks: LayerHooks | None = None
        self.module_taps: Sequence[ModuleTap] = ()
        self.probes = probes
        self._gradient_taps: dict[int, Tap] = {}
        self._recorders = {id(o): parameters[name] for name, o in watched.optimizers.items()}
        self._clock = watched.clock
        self._scale = LossScale(watched.scaler)
        self._activations = activations
        self._cadence = cadence
        self._transport = transport
        self._zero_grad_calls = zero_grad_calls
        self._ledger = Ledger(watched, self.facts, resumed=start > 0)
        backward = Tap("the backward pass", self.backward_begins)
        self.losses = Losses(watched, ledger=self._ledger, scale=self._scale, facts=self.facts, backward=backward)
        self._completion = Completion(
            watched,
            recorders=self._recorders,
            activations=activations,
            ledger=self._ledger,
            scale=self._scale,
            zero_grad_calls=zero_grad_calls,
            facts=self.facts,
            extras=extras,
        )
        self.extras = self._completion.extras
        self._start = start
        self._batch: Batch | None = None
        self._paused = False  # while probes run the model
        self._interrupted = False  # by a validation pass: the time of this step is not that of a step
        self._tick = True
        self._ended, self._last = 0.0, time.perf_counter()
        self.begin(Level.RECORD)

    @property
    def measuring(self) -> bool:
        """Whether anything of the step under way is measured."""
        return self._tick

    @property
    def probing(self) -> bool:
        """Whether the model is being run by us."""
        return self._paused

    def begin(self, level: Level) -> None:
        """Get ready for the next step."""
        if (level > Level.IDLE) != self._tick:
            for tap in self.module_taps:
                tap.put() if level > Level.IDLE else tap.take()
        self._level = level
        self._tick, self._gradient, self._record = level > Level.IDLE, level > Level.TICK, level is Level.RECORD
        self.probes.due = False
        if not self._tick:
            return
        self._now = Step(Row(self.step + 1))
        self._completion.begin()
        if self._record:
            self.probes.decide(self.step + 1)
            for recorder in self._recorders.values():
                recorder.refresh()
            if self._activations is not None:
                self._activations.start()

    # --- forward ------------------------------------------------------------------------------------

    def forward_begins(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The model is about to run."""
        if not torch.is_grad_enabled() and not self._paused and not inside_backward():
            self._ledger.note_evaluation(module)
        if not self._tick:
            return
        began = time.perf_counter()
        if self._not_training():
            self._interrupted = self._interrupted or not self._paused
            return
        if self._ledger.note_training(module):  # what ran before it was an evaluation with gradients
            self._begin_again(Step(Row(self.step + 1)))
        if self._now.thrown_away(self._zero_grad_calls()):
            self._try_again(keep_last=False)
        self.losses.shown = False
        now = self._now
        if self._scale.used and now.backwards and (now.bad or now.backwards % _ATTEMPTS == 0):
            self.note_attempt()
        now.forwards += 1
        now.since_forward = 0
        if now.forwards == 1 and self._ended and not self._interrupted:
            now.data_time = began - self._ended
        self._batch = Batch(module, args, kwargs)
        if self.probes.due and now.forwards == 1:
            self.probes.before_forward(module)
        if self._record:
            now.batch_size += size_of_batch(args, kwargs)
            if now.forwards == 2 and now.backwards == 1:
                now.note_first_half(p.grad for p in self._params())
            if now.forwards == 1:
                self._ledger.note_mode(module, now.row)
            if self.layer_hooks is not None:
                self.layer_hooks.put()
        now.spent += time.perf_counter() - began

    def _not_training(self) -> bool:
        """Whether the model runs for something else: probes, validation, a checkpointed segment, `torch.func`."""
        return self._paused or not torch.is_grad_enabled() or inside_backward() or inside_transform()

    def note_attempt(self) -> None:
        """A GradScaler that skips every step lets no step complete: tell what is known of the attempts."""
        now = self._now
        if not self._scale.used or not now.backwards:
            return
        row = self._completion.attempted(now, record=self._record)
        if now.bad:
            now.losses.clear()
        now.bad = False
        self._transport.add(row)
        self.after_row(row)

    def _try_again(self, *, keep_last: bool) -> None:
        """The gradients of this step were thrown away, as after an overflow: what was measured goes with them."""
        now = self._now
        if now.bad or now.attempts % _ATTEMPTS == _ATTEMPTS - 1:
            self.note_attempt()
        self._begin_again(now.again(keep_last=keep_last))

    def _begin_again(self, step: Step) -> None:
        """Forget what was measured since the step before."""
        self._now = step
        self._interrupted = True
        if self._record and self._activations is not None:
            self._activations.start()

    def finish(self) -> None:
        """The training is over: tell what no completed step could tell."""
        now = self._now
        self._ledger.note_schedule()
        self.note_attempt()
        calls = now.backwards + now.attempts  # an attempt that was thrown away called backward, too
        if self.step > self._start or self._scale.used or calls < 2:
            return
        self.facts["backward_calls_without_step"] = calls
        self._transport.add(self._completion.abandoned(now, calls))

    def note_end(self, error: BaseException | None, trace: TracebackType | None) -> None:
        """The block that the monitor stands in is left, by this exception or None."""
        stepped = self.step > self._start
        evaluating = self._ledger.evaluating
        self.facts.update(out_of_memory_facts(error, trace, step=self.step, training=not evaluating, stepped=stepped))

    def layer_output(self, layer: int, output: object) -> None:
        """A watched layer has run."""
        if inside_backward() or self._activations is None:  # a checkpointed segment runs again
            return
        began = time.perf_counter()
        self._activations.take(layer, output, gradient=self._gradient_tap(layer))
        self._ledger.note_output(self._activations.modules[layer], output)
        self._now.spent += time.perf_counter() - began

    def spend(self, seconds: float) -> None:
        """Count time that was spent on measuring at this step."""
        self._now.spent += seconds

    def _gradient_tap(self, layer: int) -> Tap:
        tap = self._gradient_taps.get(layer)
        if tap is None:
            name = f"activation gradients of layer {layer}"
            tap = self._gradient_taps[layer] = Tap(name, partial(self.layer_gradient, layer))
        return tap

    def forward_ends(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """The model has run."""
        if not self._tick or self._not_training():
            return
        if self.layer_hooks is not None:
            self.layer_hooks.take()
        self._ledger.note_built(module, output)
        if self._batch is not None:
            self._batch.note_output(output)
        self.losses.of_model(self._now, output, self._batch.kwargs if self._batch else {}, record=self._record)

    def loss_computed(self, criterion: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """The criterion has run."""
        if not self._tick or self._not_training():
            return
        if not isinstance(output, Tensor) or not output.requires_grad:
            return
        began = time.perf_counter()
        if self._batch is not None:
            if self._batch.scored_before(args):
                self._now.row.context["mixed targets"] = 1.0
            self._batch.criterion_args = args
        self.criterion_called(criterion, args)
        self.losses.of_criterion(self._now, output, args, record=self._record)
        self._now.spent += time.perf_counter() - began

    def criterion_called(self, criterion: nn.Module, args: tuple[Any, ...]) -> None:
        """A criterion has run, whose result may be a part of the loss only: look at what went into it."""
        if self._record and not self._not_training():
            self.losses.look_at_inputs(self._now, criterion, args, record=True)

    def loss_told(self, value: Tensor) -> None:
        """The loss of a batch that ran before anybody watched."""
        if self._tick:
            self._now.take(value.detach())

    def take_backward(self, loss: Tensor, divided_by: Tensor | float | None = None) -> None:
        """`backward` is about to be called on this, the objective over `divided_by`: the loss, where none was shown."""
        if self._tick and not self._not_training():
            self.losses.of_backward(self._now, loss, divided_by, record=self._record)

    # --- backward -----------------------------------------------------------------------------------

    def backward_begins(self, grad: Tensor) -> None:
        """Backward has reached the loss; no gradient of a parameter has changed yet."""
        if self._paused:
            return
        began = time.perf_counter()
        zeroed = self._zero_grad_calls()
        if self._now.thrown_away(zeroed):
            self._try_again(keep_last=True)
        now = self._now
        now.zeroed, now.stepped = zeroed, sum(now.steps.values())
        now.backwards += 1
        if now.several and len(now.firsts) >= now.backwards:
            now.note_share(now.firsts[now.backwards - 1], grad)
        self._ledger.note_backward()
        if self._record and now.backwards <= _LEFTOVERS:
            now.note_leftover(next((p.grad for p in self._params() if p.grad is not None), None))
        if self._record and now.backwards == 1 and grad.ndim == 0:
            now.weight = grad.detach().float().reshape(1).clone()
        now.spent += time.perf_counter() - began

    def layer_gradient(self, layer: int, grad: Tensor) -> None:
        """The gradient with respect to a watched layer's output is there."""
        if self._activations is None or self._paused or not self._record:
            return
        began = time.perf_counter()
        self._activations.take_gradient(layer, grad)
        self._now.spent += time.perf_counter() - began

    # --- step -----------------------------------------------------------------------------------------

    def clipped(self, parameters: Sequence[Tensor] | Tensor, limit: float, norm: Tensor) -> None:
        """Gradients are about to be clipped; this is their norm so far."""
        if not self._tick or self._paused:
            return
        for key, whole in clipped_optimizers(self._recorders, parameters):
            if self._scale.still_on(key):
                self.facts["clipped_before_unscale"] = True
            elif whole and key not in self._now.clipped:
                self._now.clipped.add(key)
                recorder = self._recorders[key]
                if self.probes.follows_step and recorder.optimizer is self._clock:
                    self._now.clip_factor = (limit / (norm.detach() + 1e-6)).clamp(max=1.0)
                note_clipping(self._now.row, recorder.label, float(limit), norm)

    def before_step(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        """An optimizer is about to step."""
        if optimizer is self._clock:
            self._ledger.before_step()
        if not self._tick or self._paused:
            return
        self._now.stepping = True
        if not self._record or id(optimizer) in self._now.steps:
            return
        began = time.perf_counter()
        self._recorders[id(optimizer)].before_step()
        self._now.spent += time.perf_counter() - began

    def after_step(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        """An optimizer has stepped."""
        if self._paused:
            return
        began = time.perf_counter()
        now = self._now
        if self._tick:
            now.stepping = False
            done = now.steps.get(id(optimizer), 0)
            now.steps[id(optimizer)] = done + 1
            if self._gradient and not done:  # of several steps between two of the clock, the first is measured
                self._recorders[id(optimizer)].after_step(now.row, found_inf=getattr(optimizer, "found_inf", None))
        if optimizer is self._clock:
            self._clock_stepped(began)
        else:
            now.spent += time.perf_counter() - began

    def _clock_stepped(self, began: float) -> None:
        now, probing, apart = self._now, 0.0, 0.0
        self.step += 1
        seconds = began - self._ended if self._ended else 0.0
        wall, self._last = began - self._last, began
        if self.probes.due:
            self._paused = True
            try:
                probing = self.probes.run(now, self._batch)
            finally:
                self._paused = False
        if self._tick:
            if not self._gradient:
                self._completion.note_rates(now.row)
            whole = 0.0 if self._interrupted else seconds
            self._transport.add(self._completion.complete(now, seconds=whole, record=self._record))
            apart = self.after_row(now.row)
            self._batch = None
        ended = time.perf_counter()
        self._cadence.stepped(seconds, wall)
        if probing:
            self._cadence.spent("probe", probing)
        if self._tick:
            self._cadence.spent(self._level.kind, now.spent + ended - began - probing - apart)
            self._interrupted = False
            self._cadence.adapt()
        self.begin(self._cadence.level(self.step + 1))
        self._ended = time.perf_counter()

    def _params(self) -> list[Tensor]:
        """Trainable parameters of the first optimizer."""
        return self._recorders[id(self._clock)].params
