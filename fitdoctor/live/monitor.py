"""`attach(model, optimizer, criterion)`: a monitor in the user's own training loop.

    monitor = fitdoctor.attach(model, optimizer, criterion, logdir="runs/a")
    ...                       # the loop, unchanged
    report = monitor.close()

The monitor only looks: it uses no random numbers, adds nothing to the autograd graph's arithmetic and
changes no mode, so training is bit for bit what it was.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn

from fitdoctor.config import Config
from fitdoctor.errors import ConfigError, TrainingSick
from fitdoctor.finding import Finding
from fitdoctor.live.activations import ActivationRecorder
from fitdoctor.live.adam import AdamRecorder
from fitdoctor.live.cadence import Cadence, Cost
from fitdoctor.live.digest import Digest
from fitdoctor.live.facts import gather_facts
from fitdoctor.live.history import History
from fitdoctor.live.judge import Judge
from fitdoctor.live.layers import Model, compiled, named_models, parameter_names, roots, unwrapped, watched_layers
from fitdoctor.live.loop import Loop
from fitdoctor.live.machine import live_tensors
from fitdoctor.live.nonfinite import NonFinite
from fitdoctor.live.parameters import ParameterRecorder
from fitdoctor.live.probes.fixed_batch import FixedBatch
from fitdoctor.live.ranks import ranks_of
from fitdoctor.live.sinks import EventFile, Facts, Point, last_step
from fitdoctor.live.taps import ClipWatch, CountedZeroGrad, LayerHooks, Tap, tap_module
from fitdoctor.live.transport import Row, Transport
from fitdoctor.report import Report
from fitdoctor.run import Fact, Note, Run
from fitdoctor.signals import LIVE_TENSORS, LOSS, PROBE_LOSS, Signal

log = logging.getLogger("fitdoctor")

Tier = Literal["light", "standard", "deep"]
Optimizers = torch.optim.Optimizer | Sequence[Any] | Mapping[str, Any]

FLUSH_SECONDS = 0.5
_VAL_LOSS, _VAL_PROBE = Signal(LOSS, "val"), Signal(PROBE_LOSS, "val")
_MOST_PROBED = 50_000_000  # parameters of a model whose weights are copied to probe a step
_MOST_WAITING = 256  # rows that may wait on the device


def attach(
    model: Model,
    optimizer: Optimizers,
    criterion: nn.Module | None = None,
    *,
    logdir: str | Path | None = None,
    tier: Tier = "standard",
    budget: float = 0.01,
    scheduler: Any = None,
    scaler: Any = None,
    probe_train: Any = None,
    probe_val: Any = None,
    on_finding: Callable[[Finding], object] | None = None,
    stop_on: Collection[str] = (),
    config: Config | None = None,
    record_every: int | None = None,
    judge_every: int | None = None,
    probe_every: int | None = None,
    name: str | None = None,
    facts: Mapping[str, Fact] | None = None,
) -> Monitor:
    """Watch a training loop.

    Args:
        model: the module that the loop calls, wrapped or not; several as a sequence or mapping.
        optimizer: the optimizer, or several; the first one is the clock. Wrappers with an ``optimizer``
            attribute are looked through.
        criterion: the loss module; without it, use `Monitor.log(loss=...)` (or a model that returns its loss).
        logdir: where to log; a sub-folder ``fitdoctor`` is made in it. None logs nowhere.
        tier: "light" (no activations, no step quality), "standard", or "deep" (exact updates of large
            parameters, live tensors).
        budget: share of the wall time that the monitor may use.
        scheduler: the learning rate scheduler, to count its steps.
        scaler: the GradScaler, to follow its scale and tell overflows from real failures.
        probe_train: a fixed batch of training data, ``(inputs, target)``, or a function that takes the model
            and returns its loss; evaluated in eval mode now and then.
        probe_val: the same of validation data.
        on_finding: called with each finding when it is first seen.
        stop_on: rules whose finding raises `TrainingSick` in the loop.
        config: rules to select, ignore and override.
        record_every: measure every so many steps, whatever it costs; None keeps the budget.
        judge_every: diagnose every so many steps; None keeps the budget.
        probe_every: run the probes every so many steps, where these are recorded; None keeps the budget.
        name: name of the run; the log folder's when left out.
        facts: facts that the monitor cannot know, under the keys of `Run.facts` (``planned_steps`` ...).

    Returns:
        The monitor; close it, or use it as a context manager.

    Raises:
        ConfigError: if an argument is not of the expected kind.

    Example:
        >>> model = torch.nn.Linear(3, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> criterion = torch.nn.CrossEntropyLoss()
        >>> with attach(model, optimizer, criterion) as monitor:
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         criterion(model(torch.ones(4, 3)), torch.zeros(4, dtype=torch.long)).backward()
        ...         _ = optimizer.step()
        >>> monitor.step, monitor.run.steps
        (3, Span(first=1, last=3))
    """
    if tier not in ("light", "standard", "deep"):
        raise ConfigError(f"tier: expected 'light', 'standard' or 'deep', got {tier!r}")
    if not 0 < budget <= 1:
        raise ConfigError(f"budget: expected a share of the wall time between 0 and 1 such as 0.01, got {budget!r}")
    return Monitor(
        models=named_models(model),
        optimizers=_optimizers(optimizer),
        criterion=criterion,
        logdir=None if logdir is None else Path(logdir),
        tier=tier,
        cadence=Cadence(budget, record_every),
        scheduler=scheduler,
        scaler=scaler,
        probes={"train": probe_train, "val": probe_val},
        judge=Judge(config or Config(), on_finding, stop_on),
        judge_every=judge_every,
        probe_every=probe_every,
        name=name,
        facts=facts or {},
    )


def _optimizers(given: Optimizers) -> dict[str, torch.optim.Optimizer]:
    """Unwrapped optimizers by name: "" for the first, "optimizer1" ... for others without names."""
    if isinstance(given, Mapping):
        named = {str(k): v for k, v in given.items()}
    else:
        members = list(given) if isinstance(given, Sequence) else [given]
        named = {f"optimizer{i}" if i else "": o for i, o in enumerate(members)}
    out = {}
    for key, optimizer in named.items():
        inner = optimizer
        for _ in range(8):  # accelerate and others wrap, and their register_step_post_hook raises
            inner = getattr(inner, "optimizer", inner)
        if not isinstance(inner, torch.optim.Optimizer):
            raise ConfigError(
                f"optimizer: expected a torch.optim.Optimizer (or several), got {type(optimizer).__name__}; "
                "attach(model, optimizer, criterion) takes them in this order"
            )
        out[key] = inner
    if not out:
        raise ConfigError("optimizer: expected at least one, got none")
    return out


class Monitor:
    """Watches one training loop; made by `attach`.

    Attributes:
        cost: what the monitor spent so far.
    """

    def __init__(
        self,
        *,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        criterion: nn.Module | None,
        logdir: Path | None,
        tier: Tier,
        cadence: Cadence,
        scheduler: Any,
        scaler: Any,
        probes: Mapping[str, Any],
        judge: Judge,
        judge_every: int | None,
        probe_every: int | None,
        name: str | None,
        facts: Mapping[str, Fact],
    ) -> None:
        self._name = name or (logdir.resolve().name if logdir else "run")
        self._logdir = logdir
        self._cadence = cadence
        self._judge = judge
        self._judge_every = judge_every
        self._history = History()
        self._digest = Digest(self._history)
        self._transport = Transport()
        self._report: Report | None = None
        self._flushed = time.perf_counter()
        self._judged_at = 0
        self._urgent = False
        self._bad_loss = False
        self._counted = 0.0
        self._device = next((p.device for m in models.values() for p in m.parameters()), torch.device("cpu"))
        names = parameter_names(models)
        self._ranks = ranks_of(
            {names.get(id(p), ""): p for o in optimizers.values() for g in o.param_groups for p in g["params"]}
        )
        leads = self._ranks is None or self._ranks.leads
        start = last_step(logdir) if logdir else 0
        self._sink = EventFile(logdir) if logdir and leads else None
        self._removers: list[Callable[[], None]] = []
        zero_grads = [CountedZeroGrad(o) for o in optimizers.values()]
        self._removers += [z.remove for z in zero_grads]
        layers = watched_layers(models) if tier != "light" else {}
        activations = ActivationRecorder(layers) if layers else None
        recorders = {k: ParameterRecorder(o, names, k, exact=tier == "deep") for k, o in optimizers.items()}
        model = next(iter(models.values()))
        batches = [FixedBatch(s, b, model, criterion) for s, b in probes.items() if b is not None]
        self._alias_val = "val" in {b.split for b in batches}
        self._loop = Loop(
            optimizers=optimizers,
            parameters=recorders,
            activations=activations,
            cadence=cadence,
            transport=self._transport,
            criterion=criterion,
            scaler=scaler,
            scheduler=scheduler,
            zero_grad_calls=lambda: zero_grads[0].calls,
            extras=self._extras(tier, recorders),
            probes=[b.evaluate for b in batches],
            step_quality=self._probed(tier, models, optimizers, criterion),
            probe_every=probe_every,
            start=start,
        )
        self._loop.after_row = self._after_row
        self._loop.on_bad_loss = self._note_bad_loss
        if activations is not None:
            self._loop.layer_hooks = LayerHooks(activations.modules, self._loop.layer_output)
            self._removers.append(self._loop.layer_hooks.take)
        self._facts = gather_facts(
            models, list(optimizers.values()), criterion, resumed_at=start or None, tier=tier, **facts
        )
        self._tell_facts()
        self._tap(models, optimizers, criterion)

    def _extras(self, tier: Tier, recorders: Mapping[str, ParameterRecorder]) -> list[Callable[[Row], None]]:
        """What is measured at records beside parameters and activations, by tier."""
        extras: list[Callable[[Row], None]] = []
        if tier != "light":
            extras += [AdamRecorder(r).after_step for r in recorders.values() if AdamRecorder.fits(r.optimizer)]
        if tier == "deep":
            extras.append(self._count_tensors)
        return extras

    def _count_tensors(self, row: Row) -> None:
        now = time.perf_counter()
        if now - self._counted > 10:  # on the host it walks through all objects
            self._counted = now
            row.put(LIVE_TENSORS, live_tensors(self._device))

    def _probed(
        self,
        tier: Tier,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        criterion: nn.Module | None,
    ) -> nn.Module | None:
        """The model whose steps can be probed: one that is called itself, with one optimizer and a criterion."""
        (model, *others) = models.values()
        alone = not others and len(optimizers) == 1 and self._ranks is None and criterion is not None
        closure = any(isinstance(o, torch.optim.LBFGS) for o in optimizers.values())
        if tier == "light" or not alone or closure or compiled(model) or roots(model) != [model]:
            return None
        if sum(p.numel() for p in model.parameters()) > _MOST_PROBED:
            return None
        return model

    def _tap(
        self, models: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer], criterion: object
    ) -> None:
        loop = self._loop
        for root in [r for m in models.values() for r in roots(m)]:
            self._removers.append(tap_module(root, "before", Tap("the forward pass", loop.forward_begins)))
            self._removers.append(tap_module(root, "after", Tap("the forward pass", loop.forward_ends)))
        if isinstance(criterion, nn.Module):
            self._removers.append(tap_module(criterion, "after", Tap("the loss", loop.loss_computed)))
        for optimizer in optimizers.values():
            before = optimizer.register_step_pre_hook(Tap("weights before the step", loop.before_step))
            after = optimizer.register_step_post_hook(Tap("the optimizer's step", loop.after_step))
            self._removers += [before.remove, after.remove]
        self._removers.append(ClipWatch(loop.clipped).remove)
        if any(compiled(m) or compiled(unwrapped(m)) for m in models.values()):
            log.info("fitdoctor: activations inside torch.compile are not measured; everything else is")

    # --- for the user ---------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Optimizer steps done so far, earlier runs in the same log folder included."""
        return self._loop.step

    @property
    def cost(self) -> Cost:
        """What the monitor spent so far."""
        return self._cadence.cost

    @property
    def run(self) -> Run:
        """What was measured so far, without what is still on the device."""
        path = str(self._logdir) if self._logdir else ""
        return self._history.run(
            self._name, path, {**self._facts, **self._loop.facts}, finished=self._report is not None
        )

    @property
    def first_nonfinite(self) -> NonFinite | None:
        """Where training first met a value that is not finite, or None."""
        return self._digest.nonfinite.found

    def log(self, step: int | None = None, **scalars: Any) -> None:
        """Log what the monitor cannot see: ``monitor.log(val_loss=0.31, val_accuracy=0.9)``.

        Args:
            step: training step; that of the monitor when left out.
            scalars: numbers or one-element tensors, under names such as a log would have.

        Raises:
            ConfigError: if a name tells no quantity that fitdoctor knows.
        """
        from fitdoctor.readers.tags import interpret

        now = time.time()
        points = []
        for tag, value in scalars.items():
            meaning = interpret(tag)
            if isinstance(meaning, str):
                raise ConfigError(f"log: {tag!r} tells nothing ({meaning}); such as loss, val_loss, val_accuracy do")
            signal = Signal(meaning.signal.quantity, meaning.signal.split, meaning.signal.layer)
            points.append(Point(self.step if step is None else step, now, signal, float(value) * meaning.scale))
        for point in points:
            self._alias_val = self._alias_val and point.signal != _VAL_LOSS
            self._history.add(point)
        if self._sink is not None:
            self._sink.write(points)

    def report(self) -> Report:
        """Diagnose what was measured so far."""
        self._receive(wait=True)
        return self._judge.conclude(self.run)

    def close(self) -> Report:
        """Take all hooks off, write the rest, and diagnose the whole run. Closing twice returns the same report."""
        if self._report is not None:
            return self._report
        for remove in self._removers:
            with contextlib.suppress(Exception):  # one that fails must not keep the others on
                remove()
        self._removers.clear()
        self._loop.note_attempt()
        self._receive(wait=True)
        self._tell_facts()
        self._report = self._judge.conclude(self.run)
        self._report = self._judge.conclude(self.run)
        if self._sink is not None:
            self._sink.close()
            if self._sink.failure is not None:
                log.warning("fitdoctor: the log could not be written in full: %s", self._sink.failure)
        return self._report

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- after a step ----------------------------------------------------------------------------------

    def _after_row(self, row: Row, recorded: bool) -> None:
        """A row is complete: send it on, and judge when it is time."""
        now = time.perf_counter()
        if (
            now - self._flushed > FLUSH_SECONDS
            or self._bad_loss
            or self._transport.under_way
            or len(self._transport.waiting) >= _MOST_WAITING
        ):
            self._flushed = now
            self._bad_loss = False
            self._receive()
        if self._time_to_judge():
            self._look()

    def _note_bad_loss(self, value: float) -> None:
        self._bad_loss = True

    def _receive(self, *, wait: bool = False) -> None:
        self._transport.ship()
        rows = self._transport.arrived(wait=wait)
        if self._ranks is not None:
            self._ranks.send(rows)
            rows = self._ranks.join(rows) if self._ranks.leads else rows
        for row, items in rows:
            items, bad = self._digest.take(row, items)
            if bad:
                self._urgent = True
                self._cadence.alert()
                self._history.notes.append(Note("other", str(self._digest.nonfinite.found), row.step))
            if self._alias_val:  # until a validation loss is logged, the fixed batch stands for it
                more = [i._replace(signal=_VAL_LOSS) for i in items if isinstance(i, Point) and i.signal == _VAL_PROBE]
                for point in more:
                    self._history.add(point)
                items += more
            if self._sink is not None:
                self._sink.write(items, now=bad)

    def _time_to_judge(self) -> bool:
        if self._ranks is not None and not self._ranks.leads:
            return False
        if self._urgent:
            return True
        if self._judge_every is not None:
            return self.step - self._judged_at >= self._judge_every
        return self.step >= 100 and self._cadence.may("judge", expected=0.1)

    def _look(self) -> None:
        began = time.perf_counter()
        self._urgent = False
        self._judged_at = self.step
        self._receive()
        try:
            self._judge.look(self.run)
        finally:
            self._cadence.spent("judge", time.perf_counter() - began)

    def _tell_facts(self) -> None:
        if self._sink is not None:
            self._sink.write([Facts(self.step, time.time(), {**self._facts, **self._loop.facts})])


__all__ = ["Monitor", "TrainingSick", "attach"]
