"""Putting a monitor's parts together: what is measured at which tier, and on what the hooks sit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from fitdoctor.live.activations import ActivationRecorder
from fitdoctor.live.adam import AdamRecorder
from fitdoctor.live.attention import AttentionRecorder
from fitdoctor.live.backward import BackwardWatch
from fitdoctor.live.cadence import Cadence
from fitdoctor.live.clipping import ClipWatch
from fitdoctor.live.layers import compiled, roots, unwrapped
from fitdoctor.live.loop import Loop
from fitdoctor.live.low_precision import LowPrecisionRecorder
from fitdoctor.live.machine import host_memory, live_tensors
from fitdoctor.live.parameters import ParameterRecorder
from fitdoctor.live.probes.fixed_batch import FixedBatch
from fitdoctor.live.probes.turns import Probes
from fitdoctor.live.stepping import StepSource
from fitdoctor.live.structure import Structure
from fitdoctor.live.symmetry import SymmetryRecorder
from fitdoctor.live.taps import CountedZeroGrad, LayerHooks, ModuleTap, Tap
from fitdoctor.live.transport import Row, Transport
from fitdoctor.live.watched import Host, Watched
from fitdoctor.signals import HOST_MEMORY, LIVE_TENSORS

log = logging.getLogger("fitdoctor")

Tier = Literal["light", "standard", "deep"]

_MOST_PROBED = 50_000_000  # parameters of a model whose weights are copied to probe a step


def followed(
    watched: Watched,
    *,
    tier: Tier,
    cadence: Cadence,
    transport: Transport,
    fixed_batches: Mapping[str, Any],
    probe_every: int | None,
    alone: bool,
    start: int,
) -> tuple[Loop, list[Callable[[], None]]]:
    """Put hooks on a training.

    Args:
        watched: the parts of the training.
        tier: how much is measured.
        cadence: decides what is measured when.
        transport: receives the finished rows.
        fixed_batches: split -> batch that is evaluated now and then, or None.
        probe_every: distance of the probes in steps, or None.
        alone: whether this is the only process of the training.
        start: steps done before this process.

    Returns:
        What follows the training, and what takes each hook off again.

    Raises:
        ConfigError: if a fixed batch cannot be evaluated.
    """
    names = watched.parameter_names()
    anatomy = watched.host.anatomy if watched.host else None
    recorders = {k: ParameterRecorder(o, names, k, exact=tier == "deep") for k, o in watched.optimizers.items()}
    main = next(iter(recorders.values()))
    layers = watched.layers() if tier != "light" else {}
    activations = ActivationRecorder(layers) if layers else None
    batches = [FixedBatch(s, b, watched.model, watched.criterion) for s, b in fixed_batches.items() if b is not None]
    probes = Probes(
        [batch.evaluate for batch in batches],
        model=_probed(watched) if alone and tier != "light" else None,
        params=lambda: main.params,
        criterion=watched.criterion,
        cadence=cadence,
        every=probe_every,
    )
    zero_grad = CountedZeroGrad(watched.clock)
    loop = Loop(
        watched,
        parameters=recorders,
        activations=activations,
        cadence=cadence,
        transport=transport,
        probes=probes,
        zero_grad_calls=lambda: zero_grad.calls,
        extras=_extras(tier, list(recorders.values()), watched, cadence),
        start=start,
    )
    removers = [zero_grad.remove]
    if activations is not None:
        tell = partial(loop.facts.__setitem__, "layers")
        first = Structure(layers, tell, activations.note_functions, anatomy.describe if anatomy else None)
        attention = AttentionRecorder(layers, loop.spend)
        loop.extras.append(Tap("attention", attention.after_step))
        loop.layer_hooks = LayerHooks(activations.modules, loop.layer_output, [first, attention])
        removers.append(loop.layer_hooks.take)
    return loop, removers + _tapped(loop, watched)


def _extras(
    tier: Tier, recorders: Sequence[ParameterRecorder], watched: Watched, cadence: Cadence
) -> list[Callable[[Row], None]]:
    """What is measured at records beside parameters and activations, by tier."""
    extras: list[Callable[[Row], None]] = [LowPrecisionRecorder(r).after_step for r in recorders]
    extras.append(_HostMemory())
    if tier != "light":
        anatomy = watched.host.anatomy if watched.host else None
        units_last = anatomy is not None and anatomy.units_last
        extras += [SymmetryRecorder(r, units_last).after_step for r in recorders]
        extras += [AdamRecorder(r).after_step for r in recorders if AdamRecorder.fits(r.optimizer)]
    if tier == "deep":
        extras.append(_TensorCount(watched.device, cadence))
    return extras


class _HostMemory:
    """Looks at the memory of the process and its children, at every eighth record."""

    def __init__(self) -> None:
        self._records = 0

    def __call__(self, row: Row) -> None:
        self._records += 1
        if self._records % 8 == 1 and (found := host_memory()) is not None:
            row.put(HOST_MEMORY, found)


class _TensorCount:
    """Counts live tensors, at most every ten seconds and when half of the budget has saved up what it costs.

    On the host it walks through all objects; as a part of a record it would be paid for only afterwards.
    """

    def __init__(self, device: torch.device, cadence: Cadence) -> None:
        self._device = device
        self._cadence = cadence
        self._counted = 0.0
        self._seconds = 0.1  # a guess: some 500,000 objects

    def __call__(self, row: Row) -> None:
        now, cost = time.perf_counter(), self._cadence.cost
        saved = cost.total + self._seconds <= 0.5 * self._cadence.budget * cost.wall
        if now - self._counted > 10 and (saved or self._cadence.record_every):
            row.put(LIVE_TENSORS, live_tensors(self._device))
            self._counted = time.perf_counter()
            self._seconds = self._counted - now


def _probed(watched: Watched) -> nn.Module | None:
    """The model whose steps can be probed: one that is called itself, with one optimizer and a criterion."""
    model = watched.model
    single = len(watched.models) == len(watched.optimizers) == 1 and watched.criterion is not None
    closure = isinstance(watched.clock, torch.optim.LBFGS | StepSource)
    if watched.host is not None and watched.host.tells_batches:
        return None
    if not single or closure or compiled(model) or roots(model) != [model]:
        return None
    return model if sum(p.numel() for p in model.parameters()) <= _MOST_PROBED else None


def _tapped(loop: Loop, watched: Watched) -> list[Callable[[], None]]:
    """Put the hooks on; returns what takes them off."""
    host = watched.host or Host()
    called = [] if host.tells_batches else [r for m in watched.models.values() for r in roots(m)]
    before = [ModuleTap(root, "before", Tap("the forward pass", loop.forward_begins)) for root in called]
    after = [ModuleTap(root, "after", Tap("the forward pass", loop.forward_ends)) for root in called]
    if isinstance(watched.criterion, nn.Module):
        after.append(ModuleTap(watched.criterion, "after", Tap("the loss", loop.loss_computed)))
    loop.module_taps = after  # those before stay: an evaluation is noted whenever it comes
    removers: list[Callable[[], None]] = [tap.remove for tap in (*before, *after)]
    for optimizer in watched.optimizers.values():
        removers.append(optimizer.register_step_pre_hook(Tap("weights before the step", loop.before_step)).remove)
        removers.append(optimizer.register_step_post_hook(Tap("the optimizer's step", loop.after_step)).remove)
    removers.append(ClipWatch(loop.clipped).remove)
    if host.hears_losses:
        removers.append(BackwardWatch(loop.take_backward).remove)
    if any(compiled(m) or compiled(unwrapped(m)) for m in watched.models.values()):
        log.info("fitdoctor: activations inside torch.compile are not measured; everything else is")
    return removers
