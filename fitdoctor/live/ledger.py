"""Bookkeeping of a loop: modes, identities, counts and lifetimes. Nothing here touches a device.

What a loop forgets is seldom in its numbers: a model left in eval mode, a parameter that no optimizer holds,
a loss that is kept with its graph. All of it can be read off Python objects.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fitdoctor.live.activations import first_tensor
from fitdoctor.live.taps import Tap, listen
from fitdoctor.live.transport import Row
from fitdoctor.live.watched import Watched
from fitdoctor.run import Fact
from fitdoctor.signals import (
    EVAL_FORWARDS,
    EVAL_GRAD_FORWARDS,
    EVAL_GRAPHS_ALIVE,
    EVAL_TRAIN_MODE,
    GRAPHS_ALIVE,
    NORM_SAMPLES,
    TRAIN_MODE,
)

MOST_GRAPHS = 256
"""Losses whose graphs are followed."""

_MOST_NAMED = 8
_HANDED_ON = {
    "Alias", "AsStrided", "Clone", "Index", "Permute", "Reshape", "Select", "Slice", "Squeeze", "T", "ToCopy",
    "Transpose", "UnsafeView", "Unsqueeze", "View",
}  # fmt: skip
_BATCH_NORM = nn.modules.batchnorm._BatchNorm


class _Witness:
    """Lives as long as the node of the autograd graph that holds it."""

    __slots__ = ("__weakref__",)


class Graphs:
    """Which autograd graphs are still alive, by witnesses that their nodes hold.

    A node's metadata lives and dies with it, also where Python holds no tensor of the graph any more,
    as in ``total += loss``.
    """

    def __init__(self) -> None:
        self._witnesses: deque[weakref.ref[_Witness]] = deque(maxlen=MOST_GRAPHS)

    def follow(self, tensor: Tensor) -> None:
        """Follow the graph that made a tensor."""
        node: Any = tensor.grad_fn
        if node is not None:
            witness = _Witness()
            node.metadata["fitdoctor"] = witness
            self._witnesses.append(weakref.ref(witness))

    def alive(self) -> int:
        """How many of the graphs are alive, that of the tensor followed last not counted."""
        earlier = list(self._witnesses)[:-1]
        return sum(w() is not None for w in earlier)


class _Modal:
    """The layers of a model that behave differently in training."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.dropout = [m for m in module.modules() if _drops(m)]
        self.batch_norm = [m for m in module.modules() if isinstance(m, _BATCH_NORM) and m.track_running_stats]
        self.all = [*self.dropout, *self.batch_norm] or [module]

    def share(self) -> float:
        """Share in train mode."""
        return sum(m.training for m in self.all) / len(self.all)


def _drops(m: nn.Module) -> bool:
    if isinstance(m, nn.modules.dropout._DropoutNd):
        return m.p > 0
    if isinstance(m, nn.RNNBase):
        return m.dropout > 0 and m.num_layers > 1
    return isinstance(m, nn.MultiheadAttention) and m.dropout > 0


class _Pending:
    """Forward passes of one model in eval mode, with gradients, since the optimizer step before."""

    def __init__(self) -> None:
        self.forwards = self.graphs = 0
        self.used = False
        self.outputs = Graphs()


class Ledger:
    """Keeps the books of a loop.

    Args:
        watched: the parts of the training.
        facts: receives what is learned of the training.
        resumed: whether it goes on from an earlier run.

    Attributes:
        facts: the same.
        evaluating: whether what ran last was an evaluation, as far as is known.
    """

    def __init__(self, watched: Watched, facts: MutableMapping[str, Fact], *, resumed: bool) -> None:
        self.facts = facts
        self.evaluating = False
        self._watched = watched
        self._resumed = resumed
        self._first_step = True
        self._used = Tap("the use of an evaluation", self.note_backward)
        self._modal: dict[int, _Modal] = {}
        self._losses, self._outputs = Graphs(), Graphs()
        self._eval_mode: float | None = None
        self._eval_forwards = 0
        self._eval_grad_forwards = self._eval_graphs = 0
        self._pending: dict[int, _Pending] = {}
        self._norm_samples: float | None = None
        self._scheduled = scheduler_calls(watched.scheduler)
        self._others = _unowned(watched)
        self._versions = [p._version for p in self._others.values()]
        self._tell_first()

    def _tell_first(self) -> None:
        watched = self._watched
        modal = [self._modal_of(m) for m in watched.models.values()]
        self.facts["dropout_layers"] = sum(len(m.dropout) for m in modal)
        norms = [b for m in modal for b in m.batch_norm]
        self.facts["batch_norm_layers"] = len(norms)
        self.facts["frozen_batch_norm_layers"] = sum(
            not any(p.requires_grad for p in b.parameters(recurse=False)) for b in norms
        )
        if self._others:
            self.facts["trainable_not_in_optimizer"] = _listed(list(self._others))
        if watched.scheduler is not None:
            self.facts["lr_scheduler"] = type(watched.scheduler).__name__
            self.facts["scheduler_steps"] = 0
        reduction = getattr(watched.criterion, "reduction", None)
        if isinstance(reduction, str):
            self.facts["loss_reduction"] = reduction

    def _modal_of(self, module: nn.Module) -> _Modal:
        found = self._modal.get(id(module))
        if found is None:
            found = self._modal[id(module)] = _Modal(module)
        return found

    # --- forward ------------------------------------------------------------------------------------

    def note_mode(self, module: nn.Module, row: Row) -> None:
        """A recorded forward pass of a training step begins: its modes."""
        modal = self._modal_of(module)
        row.put(TRAIN_MODE, modal.share())
        row.put(TRAIN_MODE, float(module.training), "model")
        for kind, members in (("dropout", modal.dropout), ("batch_norm", modal.batch_norm)):
            if members:
                row.put(TRAIN_MODE, sum(m.training for m in members) / len(members), kind)
        device = self._watched.device.type
        if torch.is_autocast_enabled(device):
            self.facts["autocast"] = str(torch.get_autocast_dtype(device)).removeprefix("torch.")
        self._norm_samples = None

    def note_evaluation(self, module: nn.Module) -> None:
        """A forward pass without gradients begins."""
        self._eval_forwards += 1
        self.evaluating = True
        if self._eval_mode is None:
            self._eval_mode = self._modal_of(module).share() if module.training else 0.0

    def note_training(self, module: nn.Module) -> bool:
        """A forward pass with gradients begins; whether those before it, in eval mode, were something else.

        A pass in eval mode with gradients is training by a model left in eval mode, or an evaluation that
        forgot `no_grad`, or an attack that looks for an input. Which it was shows when the model is in train mode
        again before the optimizer has stepped.
        """
        self.evaluating = not module.training
        if not module.training:
            pending = self._pending.setdefault(id(module), _Pending())
            pending.forwards += 1
            pending.graphs = max(pending.graphs, pending.outputs.alive())
            return False
        if not self._pending:
            return False
        over = self._pending.pop(id(module), None)
        if over is not None and not over.used:
            self._eval_grad_forwards += over.forwards
            self._eval_graphs = max(self._eval_graphs, over.graphs)
        return over is not None

    def note_built(self, module: nn.Module, output: object) -> None:
        """A forward pass has built a graph."""
        if self._pending and not module.training:
            tensor = first_tensor(output)
            if tensor is not None and tensor.requires_grad and id(module) in self._pending:
                self._pending[id(module)].outputs.follow(tensor)
                listen(tensor, self._used)  # the loss may be one that nobody watches

    def note_backward(self, gradient: Tensor | None = None) -> None:
        """A backward pass begins: what ran before it in eval mode was run for its gradient."""
        self.evaluating = False
        for pending in self._pending.values():
            pending.used = True

    def note_output(self, module: nn.Module, output: object) -> None:
        """A watched layer has run in a recorded step."""
        if not isinstance(module, _BATCH_NORM) or isinstance(module, nn.SyncBatchNorm) or not module.training:
            return
        tensor = first_tensor(output)
        if tensor is not None and module.num_features:
            samples = tensor.numel() / module.num_features
            self._norm_samples = samples if self._norm_samples is None else min(samples, self._norm_samples)

    # --- loss ---------------------------------------------------------------------------------------

    def note_loss(self, args: Sequence[object], loss: Tensor) -> None:
        """The first loss of a recorded step is there."""
        self._losses.follow(loss)
        if "loss_input_shape" in self.facts or len(args) < 2:
            return
        given, target = args[0], args[1]
        if isinstance(given, Tensor) and isinstance(target, Tensor):
            self.facts["loss_input_shape"] = _shape(given)
            self.facts["loss_target_shape"] = _shape(target)
            made_by = operation(given)
            if made_by:
                self.facts["loss_input_from"] = made_by

    # --- step ---------------------------------------------------------------------------------------

    def before_step(self) -> None:
        """The first optimizer is about to step."""
        self.evaluating = False
        if not self._first_step:
            return
        self._first_step = False
        scheduler, clock = self._watched.scheduler, self._watched.clock
        if scheduler is not None and scheduler_calls(scheduler) > self._scheduled:
            self.facts["scheduler_before_optimizer"] = True
        if self._resumed:
            group = clock.param_groups[0]
            if "betas" in group or group.get("momentum") or isinstance(clock, torch.optim.LBFGS):
                self.facts["optimizer_state_restored"] = bool(clock.state)
            if scheduler is not None:
                self.facts["scheduler_restored"] = int(getattr(scheduler, "last_epoch", 0)) > 0

    def after_step(self, row: Row, *, record: bool) -> None:
        """A measured step is complete: what was noted since the one before."""
        self._pending.clear()
        if self._eval_forwards:
            row.put(EVAL_FORWARDS, float(self._eval_forwards))
            row.put(EVAL_TRAIN_MODE, self._eval_mode or 0.0)
            self._eval_forwards, self._eval_mode = 0, None
        if self._eval_grad_forwards:
            row.put(EVAL_GRAD_FORWARDS, float(self._eval_grad_forwards))
            row.put(EVAL_GRAPHS_ALIVE, float(self._eval_graphs))
            self._eval_grad_forwards = self._eval_graphs = 0
        if not record:
            return
        row.put(GRAPHS_ALIVE, float(self._losses.alive()))
        if self._norm_samples is not None:
            row.put(NORM_SAMPLES, self._norm_samples)
        if self._others:
            changed = sum(p._version != v for p, v in zip(self._others.values(), self._versions, strict=True))
            self.facts["trainable_not_in_optimizer_changed"] = changed
        if self._watched.scheduler is not None:
            self.note_schedule()

    def note_schedule(self) -> None:
        """How often the scheduler has stepped since the monitor was attached."""
        if self._watched.scheduler is not None:
            self.facts["scheduler_steps"] = scheduler_calls(self._watched.scheduler) - self._scheduled


def scheduler_calls(scheduler: Any) -> int:
    """How often a learning rate scheduler has stepped, its own first call included."""
    count, last = getattr(scheduler, "_step_count", 0), getattr(scheduler, "last_epoch", -1)
    # CosineAnnealingWarmRestarts has a step of its own that leaves _step_count alone.
    return max(count if isinstance(count, int) else 0, last + 1 if isinstance(last, int) else 0)


def operation(tensor: Tensor) -> str:
    """The operation that made a tensor, views and copies looked through: "Softmax", "Addmm"; "" for none.

    Example:
        >>> operation(torch.softmax(torch.ones(2, 3, requires_grad=True), 1).squeeze())
        'Softmax'
    """
    node: Any = tensor.grad_fn
    for _ in range(8):
        if node is None:
            return ""
        name = str(node.name()).rpartition("::")[2]
        stem = name.rstrip("0123456789").removesuffix("Backward")
        if stem not in _HANDED_ON:
            return stem
        node = node.next_functions[0][0] if node.next_functions else None
    return ""


def _shape(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape) or "scalar"


def _unowned(watched: Watched) -> dict[str, Tensor]:
    """Trainable parameters of the models that no optimizer holds, by name."""
    owned = {id(p) for o in watched.optimizers.values() for g in o.param_groups for p in g["params"]}
    names = watched.parameter_names()
    params = {id(p): p for m in watched.models.values() for p in m.parameters() if p.requires_grad}
    return {names.get(key, f"parameter {i}"): p for i, (key, p) in enumerate(params.items()) if key not in owned}


def _listed(names: Sequence[str]) -> str:
    """Names for a person, the first few of many."""
    more = f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


__all__ = ["Graphs", "Ledger", "operation", "scheduler_calls"]
