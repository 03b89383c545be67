"""`attach(model, optimizer, criterion)`: a monitor in the user's own training loop.

monitor = fitdoctor.attach(model, optimizer, criterion, logdir="runs/a")
...                       # the loop, unchanged
report = monitor.close()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fitdoctor.config import Config
from fitdoctor.errors import ConfigError
from fitdoctor.finding import Finding
from fitdoctor.live.assembly import Tier
from fitdoctor.live.cadence import Cadence
from fitdoctor.live.judge import Judge
from fitdoctor.live.layers import Model
from fitdoctor.live.monitor import Monitor
from fitdoctor.live.watched import Host, Optimizers, Watched
from fitdoctor.run import Fact


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
    host: Host | None = None,
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
        on_finding: called with each finding when it is first seen; `fitdoctor.export` offers some
            that send root causes elsewhere.
        stop_on: rules whose finding raises `TrainingSick` in the loop.
        config: rules to select, ignore and override.
        record_every: measure every so many steps, whatever it costs; None keeps the budget.
        judge_every: diagnose every so many steps; None keeps the budget.
        probe_every: run the probes every so many steps, where these are recorded; None keeps the budget.
        name: name of the run; the log folder's when left out.
        facts: facts that the monitor cannot know, under the keys of `Run.facts` (``planned_steps`` ...).
        host: for adapters: what a framework that owns the loop tells by itself.

    Returns:
        The monitor; close it, or use it as a context manager.

    Raises:
        ConfigError: if an argument is not of the expected kind.

    Example:
        >>> import torch
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
    began = time.perf_counter()
    cadence = Cadence(budget, record_every)
    monitor = Monitor(
        Watched.of(model, optimizer, criterion, scheduler, scaler, host),
        logdir=None if logdir is None else Path(logdir),
        tier=tier,
        cadence=cadence,
        fixed_batches={"train": probe_train, "val": probe_val},
        judge=Judge(config or Config(), on_finding, stop_on),
        judge_every=judge_every,
        probe_every=probe_every,
        name=name,
        facts=facts or {},
    )
    cadence.cost.early = cadence.cost.early_wall = time.perf_counter() - began
    return monitor
