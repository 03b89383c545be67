"""A monitor in a loop that a framework owns: what the adapters share.

An adapter is a guest: whatever fails in it is told once, it leaves, and the training goes on.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from fitdoctor import catalogue
from fitdoctor.config import Config
from fitdoctor.errors import TrainingSick
from fitdoctor.finding import Finding, Severity
from fitdoctor.live.assembly import Tier
from fitdoctor.live.entry import attach
from fitdoctor.live.layers import Model
from fitdoctor.live.monitor import Monitor
from fitdoctor.live.watched import Host, Optimizers
from fitdoctor.readers.tags import Mapped, interpret
from fitdoctor.report import Report
from fitdoctor.run import Fact
from fitdoctor.signals import LOSS, SPLIT_QUANTITIES, Signal

log = logging.getLogger("fitdoctor")

F = TypeVar("F", bound=Callable[..., Any])

_POLL = 16  # optimizer steps between two looks at what rank 0 decided
_attached = itertools.count()


def guarded(method: F) -> F:
    """A method that a framework calls: an exception in it is logged once and switches the guest off."""

    @wraps(method)
    def call(self: Guest, *args: Any, **kwargs: Any) -> Any:
        if self.off:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception:
            self.off = True
            log.exception(
                "fitdoctor: %s failed in %s; it is switched off, training is not affected",
                type(self).__name__,
                method.__name__,
            )
            self.leave()
            return None

    return cast(F, call)


class Guest:
    """What every adapter takes and gives.

    Args:
        logdir: where to log; None is the framework's own folder, False logs nowhere.
        criterion: the loss module, where the adapter does not find it by itself.
        stop_on: rules whose finding stops the training, in the framework's own way.
        on_finding: called with each finding when it is first seen.
        verbose: print a short diagnosis when training ends.
        tier: how much is measured, as in `fitdoctor.attach`; so are all that follow.
        budget: share of the wall time that the monitor may use.
        probe_train: a fixed batch of training data that is evaluated now and then.
        probe_val: the same of validation data.
        config: rules to select, ignore and override.
        record_every: measure every so many steps, whatever it costs.
        judge_every: diagnose every so many steps.
        probe_every: run the probes every so many steps.
        name: name of the run.
        facts: facts that nobody can see.

    Attributes:
        monitor: the monitor, while a training runs and after it; None before.
        report: the diagnosis of the last training, None before its end.
        off: whether the adapter failed and is switched off.

    Raises:
        ConfigError: if `stop_on` names no rule.
    """

    def __init__(
        self,
        *,
        logdir: str | Path | Literal[False] | None = None,
        criterion: nn.Module | None = None,
        stop_on: Collection[str] = (),
        on_finding: Callable[[Finding], object] | None = None,
        verbose: bool = True,
        tier: Tier = "standard",
        budget: float = 0.01,
        probe_train: Any = None,
        probe_val: Any = None,
        config: Config | None = None,
        record_every: int | None = None,
        judge_every: int | None = None,
        probe_every: int | None = None,
        name: str | None = None,
        facts: Mapping[str, Fact] | None = None,
    ) -> None:
        self.monitor: Monitor | None = None
        self.report: Report | None = None
        self.off = False
        self._logdir, self._criterion, self._verbose = logdir, criterion, verbose
        self._stop_on = {catalogue.find(r).name for r in ((stop_on,) if isinstance(stop_on, str) else stop_on)}
        self._on_finding = on_finding
        self._facts = dict(facts or {})
        self._options: dict[str, Any] = {
            "tier": tier,
            "budget": budget,
            "probe_train": probe_train,
            "probe_val": probe_val,
            "config": config,
            "record_every": record_every,
            "judge_every": judge_every,
            "probe_every": probe_every,
            "name": name,
        }
        self._stop: _Stop | None = None
        self._tags: dict[Signal, str] = {}
        self._ours: dict[str, bool] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry what was asked for, not the monitor that sits on this training."""
        return {**self.__dict__, "monitor": None, "_stop": None}

    # --- for the adapters -----------------------------------------------------------------------------

    @property
    def running(self) -> Monitor | None:
        """The monitor while a training runs, None before and after it."""
        return None if self.report is not None else self.monitor

    def enter(
        self,
        model: Model,
        optimizer: Optimizers,
        *,
        host: Host,
        framework: str,
        folder: str | Path | None,
        criterion: nn.Module | None = None,
        scheduler: Any = None,
        scaler: Any = None,
        facts: Mapping[str, Fact | None],
    ) -> None:
        """Attach a monitor to a training that begins.

        Args:
            model: the model.
            optimizer: its optimizer, or several.
            host: what the framework tells by itself.
            framework: its name, as remedies have it.
            folder: the framework's own folder for logs, or None.
            criterion: the loss module, unless the user gave one.
            scheduler: the learning rate scheduler.
            scaler: the GradScaler.
            facts: what the framework knows; None for what it does not.
        """
        self.leave()
        self.report, self._tags, self._ours = None, {}, {}
        logdir = folder if self._logdir is None else self._logdir
        self._stop = _Stop()
        self.monitor = attach(
            model,
            optimizer,
            self._criterion or criterion,
            logdir=logdir or None,
            scheduler=scheduler,
            scaler=scaler,
            on_finding=self._found,
            facts={k: v for k, v in facts.items() if v is not None} | {"framework": framework} | self._facts,
            host=host,
            **self._options,
        )

    def to_stop(self) -> bool:
        """Whether training is to stop here; to be asked on all processes after each optimizer step."""
        return bool(self._stop and self.running and self._stop.now(self.running.step))

    def log_validation(self, metrics: Mapping[str, Any], *, all_of_it: bool = False) -> None:
        """Log what a validation gave.

        Args:
            metrics: its results, under the names that the user gave them.
            all_of_it: whether names that tell of no split are of this validation, too.
        """
        if self.running is None:
            return
        for tag, value in metrics.items():
            name = _validation_name(tag, all_of_it=all_of_it)
            if name is None or not _is_number(value):
                continue
            meaning = interpret(name)
            # Of several validation sets, the first one is the validation: mixing them would make a curve that jumps.
            if isinstance(meaning, Mapped) and self._tags.setdefault(meaning.signal, tag) == tag:
                self.running.log(**{name: value})

    def log_training(self, metrics: Mapping[str, Any]) -> None:
        """Log metrics of the training's data that the monitor does not measure; its loss is always measured."""
        if self.monitor is None:
            return
        for tag, value in metrics.items():
            meaning = interpret(tag)
            if not isinstance(meaning, Mapped) or not _is_number(value) or meaning.signal.quantity == LOSS:
                continue
            signal = meaning.signal
            told = signal.quantity in SPLIT_QUANTITIES and signal.split == "train"
            if told and self._ours.setdefault(tag, not self._measured(signal)):
                self.monitor.log(**{tag: value})

    def _measured(self, signal: Signal) -> bool:
        assert self.monitor is not None
        self.monitor.flush()
        return not math.isnan(self.monitor.last(signal.quantity.name, signal.layer))

    def leave(self, error: BaseException | None = None) -> None:
        """Take the monitor off, and tell once what was found. Leaving twice does nothing.

        Args:
            error: the exception that ended the training, or None.
        """
        monitor = self.monitor
        if monitor is None or self.report is not None:
            return
        try:
            monitor.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
            self.report = monitor.close()
        except Exception:
            self.off = True
            self.monitor = None
            log.exception("fitdoctor: closing the monitor failed; training is not affected")
            return
        if self._verbose and monitor.leads and not self.off:
            print(in_short(self.report), flush=True)  # noqa: T201 - this is what `verbose` asks for

    def _found(self, finding: Finding) -> None:
        if self.monitor is not None and not self.monitor.leads:
            return
        if self._stop is not None and finding.rule in self._stop_on and finding.severity is not Severity.NOTE:
            self._stop.wanted = True
        if self._on_finding is not None:
            try:
                self._on_finding(finding)
            except TrainingSick as sick:  # the user's own way of saying stop
                log.warning("fitdoctor: %s", sick)
                if self._stop is not None:
                    self._stop.wanted = True


class _Stop:
    """The decision to stop, which rank 0 takes and all processes must act on after the same step.

    Nothing is exchanged but one key in the store that `torch.distributed` was started with: rank 0 writes it
    before it begins another step, and every process looks at it every `_POLL` steps. None can be further than the
    gradient exchange of that step without rank 0, so all of them find it at the same one.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._key = f"fitdoctor/stop/{next(_attached)}"
        alone = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
        self._store = None if alone else dist.distributed_c10d._get_default_store()
        self._announced: int | None = None

    def now(self, step: int) -> bool:
        """Whether to stop after this optimizer step."""
        if self._store is None:
            return self.wanted
        leads = dist.get_rank() == 0
        if leads and self.wanted and self._announced is None:
            self._announced = step
            self._store.set(self._key, "stop")
        if step % _POLL:
            return False
        if leads:
            return self._announced is not None and step > self._announced
        return bool(self._store.check([self._key]))


def _validation_name(tag: str, *, all_of_it: bool) -> str | None:
    """The name under which a metric is one of the validation, or None."""
    for name in (tag, f"val_{tag}") if all_of_it else (tag,):
        meaning = interpret(name)
        if not isinstance(meaning, Mapped) or meaning.signal.quantity not in SPLIT_QUANTITIES:
            return None
        if meaning.split_named:
            return name if meaning.signal.split == "val" else None
    return None


def _is_number(value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, int | float) and not isinstance(value, bool)


def in_short(report: Report) -> str:
    """The diagnosis in one paragraph.

    Args:
        report: of a training.
    """
    steps = f"{report.steps.last:,} steps" if report.steps else "no steps"
    begun = f"fitdoctor: {report.run}, {steps}: {report.verdict}"
    more = f"More: fitdoctor analyze {report.path}" if report.path else "More: callback.report"
    harmful = [d for d in report.diagnoses if d.root.severity is not Severity.NOTE]
    if not harmful:
        notes = ", ".join(d.root.rule for d in report.diagnoses)
        return f"{begun}.{f' Notes: {notes}.' if notes else ''} {more}"
    root = harmful[0].root
    parts = [f"{begun}: {root.rule}, {root.severity}, {root.confidence} confidence, from step {root.onset:,}."]
    parts.append(f"{root.message[:1].upper()}{root.message[1:]}.")
    if harmful[0].explains:
        parts.append(f"It accounts for {', '.join(dict.fromkeys(f.rule for f in harmful[0].explains))}.")
    if root.remedies:
        parts.append(f"Try: {root.remedies[0].title}.")
    others = [d.root.rule for d in harmful[1:]]
    if others:
        parts.append(f"Also: {', '.join(others)}.")
    return " ".join([*parts, more])
