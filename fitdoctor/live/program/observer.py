"""Finds what a program trains, while it does, and puts a monitor on it.

An optimizer tells when it is made, and the first call of a model tells which one it trains: where that model holds all
that waits to be trained, the monitor is attached before the model runs, and the first step is measured whole. Where
several models and optimizers are at work, the first step of an optimizer decides, and all models called until
then are part of it. The hook on all modules is there only while an optimizer waits.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim import lr_scheduler
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data import DataLoader

from fitdoctor.config import Config
from fitdoctor.errors import TrainingSick
from fitdoctor.live.assembly import Tier
from fitdoctor.live.backward import BackwardWatch
from fitdoctor.live.entry import attach
from fitdoctor.live.monitor import Monitor
from fitdoctor.live.program.objective import CRITERIA, Call, Objective, function_call, module_call
from fitdoctor.live.program.reach import held_by_others
from fitdoctor.live.program.training import Parameters, Training, described, name_of
from fitdoctor.live.program.validation import Loaders
from fitdoctor.live.program.watch import Told
from fitdoctor.live.taps import Tap
from fitdoctor.report import Report
from fitdoctor.run import Fact

log = logging.getLogger("fitdoctor")

_SCHEDULERS = (
    lr_scheduler.LRScheduler, lr_scheduler.ReduceLROnPlateau, lr_scheduler.SequentialLR, lr_scheduler.ChainedScheduler,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """How the trainings of a program are watched; as in `fitdoctor.attach`.

    Attributes:
        name: name of the run.
        logdir: where to log, or None.
        tier: how much is measured.
        budget: share of the wall time that may be used.
        record_every: measure every so many steps.
        stop_on: rules whose finding stops the program.
        config: rules to select, ignore and override.
        facts: facts that cannot be seen.
    """

    name: str = "run"
    logdir: Path | None = None
    tier: Tier = "standard"
    budget: float = 0.01
    record_every: int | None = None
    stop_on: Collection[str] = ()
    config: Config | None = None
    facts: Mapping[str, Fact] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one training.

    Attributes:
        training: what was trained by what, in words.
        loss: what the loss is, in words.
        steps: optimizer steps seen.
        not_seen: what is not known of it, in sentences.
        report: the diagnosis; None where this process only helped another.
    """

    training: str
    loss: str
    steps: int
    not_seen: Sequence[str]
    report: Report | None


class Observer:
    """Watches the trainings of this process, from now on.

    Args:
        settings: how.
        tell: receives what was attached to, in words, when it is.

    Attributes:
        outcomes: the trainings that are over.
        by_itself: models that the program watches with a monitor of its own, in words.
    """

    def __init__(self, settings: Settings, tell: Callable[[str], object]) -> None:
        self.outcomes: list[Outcome] = []
        self.by_itself: list[str] = []
        self._settings, self._tell = settings, tell
        self._process = os.getpid()
        self._trainings: list[Training] = []
        self._attaching = False
        self._attached = 0
        self._waiting: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._others: weakref.WeakSet[Optimizer] = weakref.WeakSet()  # of monitors that the program has itself
        self._over: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._schedulers: list[weakref.ref[Any]] = []
        self._scaler: weakref.ref[Any] | None = None
        self._loaders = Loaders()
        self._objective, self._roots = Objective(self._follow), list[nn.Module]()
        self._looks: list[Any] = []  # the hooks on all modules, while an optimizer waits
        self._untold: list[Training] = []
        self._late_steps = 0
        self._backward = BackwardWatch(self._handed_over)
        before, after = Tap("who steps", self._before_step), Tap("who steps", self._after_step)
        self._removers: list[Callable[[], None]] = [
            self._backward.remove,
            register_optimizer_step_pre_hook(before).remove,
            register_optimizer_step_post_hook(after).remove,
            Told(Optimizer, "__init__", self._optimizer_made).remove,
            Told(torch.amp.GradScaler, "__init__", self._scaler_made).remove,
            Told(Monitor, "__init__", self._monitor_made).remove,
            Told(DataLoader, "__iter__", self._loader_opened, first=True).remove,
            *(Told(kind, "__init__", self._scheduler_made).remove for kind in _SCHEDULERS),
            *(Told(F, name, _Named(name, self._loss_called)).remove for name in CRITERIA),
        ]

    # --- what is made -----------------------------------------------------------------------------------

    def _here(self) -> bool:
        return os.getpid() == self._process

    def _optimizer_made(self, args: Sequence[Any], kwargs: object, value: object) -> None:
        if self._here():
            self._waiting.add(args[0])
            self._look()

    def _scheduler_made(self, args: Sequence[Any], kwargs: object, value: object) -> None:
        self._schedulers.append(weakref.ref(args[0]))

    def _scaler_made(self, args: Sequence[Any], kwargs: object, value: object) -> None:
        self._scaler = weakref.ref(args[0])

    def _monitor_made(self, args: Sequence[Any], kwargs: Mapping[str, Any], value: object) -> None:
        """A monitor that is not ours: what it watches is left to it."""
        if self._attaching:
            return
        watched = kwargs["watched"] if "watched" in kwargs else args[1]
        self.by_itself.append(described(watched.models))
        for optimizer in watched.optimizers.values():
            self._others.add(optimizer)
            self._waiting.discard(optimizer)
            for training in [t for t in self._trainings if t.holds(optimizer)]:
                self._trainings.remove(training)
                if training in self._untold:
                    self._untold.remove(training)
                training.close()
                training.monitor.close()
        self._look()

    def _loader_opened(self, args: Sequence[Any], kwargs: object, value: object) -> None:
        if self._here():
            self._loaders.opened(args[0])

    # --- losses -----------------------------------------------------------------------------------------

    def _loss_called(self, name: str, args: Sequence[Any], kwargs: dict[str, Any], value: object) -> None:
        training = self._whose_turn()
        if not self._here() or (training is not None and training.idle):
            return
        call = function_call(name, args, kwargs, value)
        if call is not None:
            self._call_seen(call)

    def _call_seen(self, call: Call) -> None:
        training = self._whose_turn()
        if training is not None:
            training.loss_called(call)
        elif torch.is_grad_enabled() and call.output.requires_grad:
            self._objective.called(call)

    def _handed_over(self, tensor: Tensor) -> None:
        if not self._here() or torch._C._current_graph_task_id() != -1:
            return
        training = self._whose_turn()
        if training is not None:
            if not training.idle:
                training.handed_over(tensor)
        elif self._waiting:
            self._objective.handed_over(tensor)
        self._look()

    def _whose_turn(self) -> Training | None:
        """The training whose model was called last; None where that was a model that is not attached to yet."""
        if self._roots:
            return None
        return max(self._trainings, key=lambda t: t.turn, default=None)

    def _follow(self, criterion: nn.Module) -> None:
        training = self._whose_turn()
        if training is not None:
            training.follow(criterion)

    # --- whose model it is ------------------------------------------------------------------------------

    def _look(self) -> None:
        """Put the hooks on all modules on while they are needed, and take them off."""
        # With a hook on all modules, torch.compile would compile another function than without.
        deciding = any(not t.objective.known and not t.compiled for t in self._trainings)
        needed = bool(self._waiting) or deciding
        if needed and not self._looks:
            warnings.filterwarnings("ignore", message=r"Using `torch\.compile\(module\)` when there are global hooks")
            before, after = Tap("which model is trained", self._called), Tap("which loss is trained", self._ran)
            self._looks = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
        elif not needed and self._looks:
            for handle in self._looks:
                handle.remove()
            self._looks = []

    def _called(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Some module is about to run, and an optimizer waits for its model."""
        if not self._waiting or not self._here() or any(module is m for r in self._roots for m in r.modules()):
            return
        held = {id(p) for p in module.parameters()}
        if not held:
            return
        waiting = [o for o in self._waiting if _params(o)]
        if not any(id(p) in held for o in waiting for p in _params(o)):
            return
        members = {id(m) for m in module.modules()}
        self._roots = [r for r in self._roots if id(r) not in members] + [module]
        if all(id(p) in held for o in waiting for p in _params(o)):
            training = self._attach(waiting)
            if training is not None:
                # The hooks of this call were chosen before it: the monitor's own is not among them.
                kwargs = sys._getframe(2).f_locals.get("kwargs")
                training.begin(module, args, kwargs if isinstance(kwargs, dict) else None)

    def _ran(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """Some module has run while it is not known which loss is trained: it may be the criterion."""
        if not (isinstance(output, Tensor) and output.ndim == 0 and output.requires_grad and self._here()):
            return
        if not any(module is r for r in self._roots) and not any(
            module is m for t in self._trainings for m in t.models.values()
        ):
            self._call_seen(module_call(module, args, output))

    def _before_step(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        """An optimizer is about to step: where nobody watches it, attach."""
        if not self._here() or optimizer in self._others or any(t.holds(optimizer) for t in self._trainings):
            return
        if optimizer in self._over:
            self._late_steps += 1
            return
        owned = {id(p) for p in _params(optimizer)}
        if any(owned <= {id(p) for o in t.optimizers.values() for p in _params(o)} for t in self._stepping()):
            self._waiting.discard(optimizer)  # it is a part of the one that is stepping
            return
        called = {id(p) for r in self._roots for p in r.parameters()}
        joined = [o for o in self._waiting if o is not optimizer and any(id(p) in called for p in _params(o))]
        self._attach([optimizer, *joined])

    def _after_step(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        for training in [t for t in self._untold if t.holds(optimizer)]:
            self._untold.remove(training)
            where = f"; log: {self._last_logdir}" if self._last_logdir else ""
            self._tell(f"attached to {training}; loss: {training.objective.name}{where}")
            training.first_step_done()
            self._look()

    def _stepping(self) -> list[Training]:
        return [t for t in self._trainings if t.steps or t in self._untold]

    # --- attaching --------------------------------------------------------------------------------------

    _last_logdir: Path | None = None

    def _attach(self, optimizers: Sequence[Optimizer]) -> Training | None:
        for optimizer in optimizers:
            self._waiting.discard(optimizer)
        self._end_abandoned()
        roots, self._roots = self._roots, []
        objective, self._objective = self._objective, Objective(self._follow)
        models = _named_models(_models_of(optimizers, roots))
        named = _named_optimizers(optimizers, models)
        self._attached += 1
        logdir = self._settings.logdir
        name = self._settings.name
        if self._attached > 1:
            logdir = logdir / f"run-{self._attached}" if logdir else None
            name = f"{name}-{self._attached}"
        self._attaching = True
        try:
            monitor = attach(
                models if len(models) > 1 else next(iter(models.values())),
                named if len(named) > 1 else optimizers[0],
                objective.criterion,
                logdir=logdir, name=name, tier=self._settings.tier, budget=self._settings.budget,
                record_every=self._settings.record_every, stop_on=self._settings.stop_on, config=self._settings.config,
                facts=self._settings.facts, scheduler=self._scheduler_of(optimizers),
                scaler=self._scaler() if self._scaler is not None else None,
            )  # fmt: skip
        finally:
            self._attaching = False
        training = Training(models, named, objective, self._loaders, monitor)
        self._trainings.append(training)
        self._look()
        self._untold.append(training)
        self._last_logdir = logdir
        training.take_turn()
        return training

    def _scheduler_of(self, optimizers: Sequence[Optimizer]) -> Any:
        """The scheduler of the first optimizer; of several, the one made last, which may hold the others."""
        self._schedulers = [r for r in self._schedulers if r() is not None]
        mine = [s for r in self._schedulers if getattr(s := r(), "optimizer", None) is optimizers[0]]
        return mine[-1] if mine else None

    def _end_abandoned(self) -> None:
        """Close the trainings whose optimizers nobody but the monitor holds any more."""
        for training in list(self._trainings):
            if training.steps and not held_by_others(list(training.optimizers.values())):
                self._end(training)

    def _end(self, training: Training, error: BaseException | None = None, trace: TracebackType | None = None) -> None:
        self._trainings.remove(training)
        for optimizer in training.optimizers.values():
            self._over.add(optimizer)
        monitor = training.monitor
        report = None
        try:
            training.close()
            monitor.__exit__(type(error) if error else None, error, trace)
            report = monitor.close() if monitor.leads else None
        except Exception:
            log.exception("fitdoctor: the diagnosis of a training failed; the program is not affected")
        if training.steps or report is not None:
            self.outcomes.append(
                Outcome(str(training), training.objective.name, training.steps, training.not_seen(), report)
            )

    def finish(self, error: BaseException | None = None) -> list[Outcome]:
        """The program has ended: take everything off and conclude.

        Args:
            error: the exception that ended it, or None.
        """
        for remove in self._removers:
            with suppress(Exception):
                remove()
        self._removers.clear()
        self._waiting.clear()
        for handle in self._looks:
            handle.remove()
        for training in list(self._trainings):
            self._end(training, error, error.__traceback__ if error is not None else None)
        return self.outcomes

    def remarks(self) -> list[str]:
        """What is to be said of the whole program, in sentences."""
        said = [f"{models}: watched by a monitor of the program's own, and left to it" for models in self.by_itself]
        if not self.outcomes and not self.by_itself:
            said.append(
                "no optimizer took a step in this process: nothing to diagnose. Processes that the program starts are "
                "not watched; torchrun -m fitdoctor run SCRIPT watches its own"
            )
        if self._late_steps:
            said.append(f"{self._late_steps} steps came after their run had been closed and are not in it")
        return said


class _Named:
    """Passes a name on with what is told."""

    def __init__(self, name: str, tell: Callable[..., None]) -> None:
        self._name, self._told = name, tell

    def __call__(self, args: Sequence[Any], kwargs: dict[str, Any], value: object) -> None:
        self._told(self._name, args, kwargs, value)


def _params(optimizer: Optimizer) -> list[Tensor]:
    return [p for g in getattr(optimizer, "param_groups", ()) for p in g["params"]]


def _models_of(optimizers: Sequence[Optimizer], roots: Sequence[nn.Module]) -> list[nn.Module]:
    """The modules that hold what some optimizers train: those that were called, then others that are there."""
    missing = {id(p): p for o in optimizers for p in _params(o)}
    found: list[nn.Module] = []
    for root in roots:
        held = {id(p) for p in root.parameters()}
        if held & missing.keys():
            found.append(root)
            missing = {k: p for k, p in missing.items() if k not in held}
    if missing and not found:
        for module in _outermost(missing):
            found.append(module)
            held = {id(p) for p in module.parameters()}
            missing = {k: p for k, p in missing.items() if k not in held}
    if not found:
        found.append(Parameters(list(missing.values())))
    return found


def _outermost(wanted: Collection[int]) -> list[nn.Module]:
    """Living modules that hold some parameters, those inside of others left out."""
    alive = [o for o in gc.get_objects() if issubclass(type(o), nn.Module) and "_modules" in o.__dict__]
    holding = [m for m in alive if any(id(p) in wanted for p in m.parameters())]
    inside = {id(c) for m in holding for c in m.modules() if c is not m}
    return [m for m in holding if id(m) not in inside]


def _named_models(models: Sequence[nn.Module]) -> dict[str, nn.Module]:
    if len(models) == 1:
        return {"": models[0]}
    names: dict[str, nn.Module] = {}
    for model in models:
        name = name_of(model) or type(model).__name__
        names[name if name not in names else f"{name}{len(names)}"] = model
    return names


def _named_optimizers(optimizers: Sequence[Optimizer], models: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
    """Optimizers under the name of the only model that they train, or of their variable."""
    named: dict[str, Optimizer] = {}
    for optimizer in optimizers:
        mine = {id(p) for p in _params(optimizer)}
        trained = [n for n, m in models.items() if mine & {id(p) for p in m.parameters()}]
        name = trained[0] if len(trained) == 1 and len(models) > 1 else name_of(optimizer) or type(optimizer).__name__
        named[name if name not in named else f"{name}{len(named)}"] = optimizer
    return named


__all__ = ["Observer", "Outcome", "Settings", "TrainingSick"]
