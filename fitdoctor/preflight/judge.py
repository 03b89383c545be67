"""`preflight(...) -> Report`: the only caller of probes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import fitdoctor
from fitdoctor import catalogue
from fitdoctor.errors import ConfigError, FitdoctorError, StateNotRestored
from fitdoctor.preflight import ranks
from fitdoctor.preflight.bench import Bench, place_of
from fitdoctor.preflight.evidence import START
from fitdoctor.preflight.probe import Probe
from fitdoctor.preflight.recipe import recipe
from fitdoctor.prescribe import prescribe
from fitdoctor.report import Outcome, Report
from fitdoctor.rule import CannotJudge
from fitdoctor.run import Fact, Note, Run
from fitdoctor.triage import triage


class Progress(Protocol):
    """What is told while probes run."""

    def __call__(self, done: float, total: float, what: str, /) -> None: ...


def preflight(
    model: nn.Module,
    criterion: Callable[..., Tensor] | None,
    optimizer: Optimizer,
    train_loader: Iterable[Any],
    val_loader: Iterable[Any] | None = None,
    scheduler: Any = None,
    device: torch.device | str | None = None,
    *,
    test_loader: Iterable[Any] | None = None,
    scaler: Any = None,
    amp: torch.dtype | str | bool | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    loss_of: Callable[[nn.Module, Any], Tensor] | None = None,
    groups: Mapping[str, Sequence[Any]] | None = None,
    times: Mapping[str, Sequence[Any]] | None = None,
    budget: float | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] | Mapping[str, str] = (),
    options: Mapping[str, Mapping[str, object]] | None = None,
    name: str = "",
    progress: Progress | None = None,
) -> Report:
    """Look for faults of a training program before its first epoch.

    Whatever the probes do to the program is undone: parameters, buffers, gradients, modes, the state of optimizer,
    scheduler and scaler, loaders, and all random generators are as before, which is verified after every probe.
    In a distributed training all processes call it, and all get the same report.

    Args:
        model: the model, as the training loop will use it.
        criterion: called with the model's output and the target; None for a model that returns its loss.
        optimizer: the optimizer, over the model's parameters.
        train_loader: yields batches: ``(x, y)``, ``(x1, x2, y)``, or a mapping with keyword arguments.
        val_loader: the validation batches; what compares the splits needs it.
        scheduler: the learning rate scheduler.
        device: where to run; where the model is, when None.
        test_loader: the test batches.
        scaler: the gradient scaler; where a probe trains, it scales as in training.
        amp: type of autocast as in training, such as ``torch.bfloat16``; True for the device's own.
        accumulate: batches per optimizer step, as in training.
        clip_norm: gradient clipping threshold, as in training.
        loss_of: ``loss_of(model, batch) -> loss``, where the loss of a batch is something else than
            ``criterion(model(x), y)``.
        groups: split -> one group per example (patient, user, document), in the order of the dataset.
        times: split -> one time per example, in the order of the dataset.
        budget: seconds to spend; the most informative probes come first, the others are reported as skipped.
            No limit when None.
        select: names or codes of the probes to run; all when empty.
        ignore: names or codes of probes to leave out, with reasons where it is a mapping.
        options: probe -> option -> value.
        name: what the report calls this program; the model's class when empty.
        progress: called with done, total and a word on what is being done.

    Returns:
        The report. A probe that raises is reported as crashed and stops nothing.

    Raises:
        ConfigError: if an argument is no such thing, or a probe or option is unknown.
        StateNotRestored: if something that a probe changed could not be put back; the message names it.
    """
    _check(model, criterion, optimizer, train_loader, loss_of)
    probes, ignored = _choose(select, ignore)
    settings = _options(options or {})
    how = recipe(
        "preflight", place_of(model, device), amp=amp, scaler=scaler, accumulate=accumulate, clip_norm=clip_norm
    )
    bench = Bench(
        model, criterion, optimizer, {"train": train_loader, "val": val_loader, "test": test_loader},
        scheduler=scheduler, scaler=scaler, device=device, loss_of=loss_of, recipe=how,
        ids={key: ids for key, ids in (("groups", groups), ("times", times)) if ids is not None},
    )  # fmt: skip
    given = {"train_loader", *(f"{split}_loader" for split in bench.sources), *bench.ids}
    if scheduler is not None:
        given.add("scheduler")
    failed = ""
    outcomes: dict[str, Outcome] = {}
    try:
        outcomes = _run_all(bench, probes, settings, given, budget, progress)
    except FitdoctorError as error:
        if ranks.world() == 1:
            raise
        failed = str(error)  # the other processes wait for this one
    finally:
        bench.rewind()
        for source in bench.sources.values():
            source.give_back()
    outcomes, facts = _agreed(outcomes, bench.facts, failed)
    return _report(bench, probes, outcomes, facts, ignored, name or type(bench.model).__name__)


def _agreed(
    outcomes: dict[str, Outcome], facts: dict[str, Fact], failed: str
) -> tuple[dict[str, Outcome], dict[str, Fact]]:
    """What all processes saw together: of each probe the worst outcome, by severity; the facts of the first process.

    Raises:
        StateNotRestored: in every process, if one of them could not put something back.
    """
    if ranks.world() == 1:
        return outcomes, facts
    told = ranks.gathered((outcomes, facts, failed))
    for rank, (_, _, why) in enumerate(told):
        if why:
            raise StateNotRestored(f"process {rank}: {why}")

    def weight(outcome: Outcome) -> tuple[int, int]:
        worst = max((f.severity.rank for f in outcome.findings), default=-1)
        return worst, ("skipped", "clean", "crashed", "found").index(outcome.status)

    return {name: max((o[name] for o, _, _ in told), key=weight) for name in outcomes}, told[0][1]


def _check(model: Any, criterion: Any, optimizer: Any, loader: Any, loss_of: Any) -> None:
    for what, value, kind in (("model", model, nn.Module), ("optimizer", optimizer, Optimizer)):
        if not isinstance(value, kind):
            raise ConfigError(f"preflight: expected {what} to be a torch {kind.__name__}, got {type(value).__name__}")
    if criterion is not None and not callable(criterion):
        raise ConfigError(f"preflight: expected criterion to be callable or None, got {type(criterion).__name__}")
    if loss_of is not None and not callable(loss_of):
        raise ConfigError(f"preflight: expected loss_of to be a function, got {type(loss_of).__name__}")
    if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
        raise ConfigError(f"preflight: expected train_loader to yield batches, got {type(loader).__name__}")


def _choose(select: Sequence[str], ignore: Sequence[str] | Mapping[str, str]) -> tuple[list[Probe], dict[str, str]]:
    """The probes to run, and the ignored ones with their reasons. Names of rules are for others and pass."""

    def matching(key: str) -> list[Probe]:
        wanted = key.lower()
        found = [p for p in catalogue.probes() if wanted in (p.name, p.code.lower(), p.family, "pre")]
        if not found and not any(wanted in (r.name, r.code.lower(), r.family, r.code[:3].lower())
                                 for r in catalogue.rules()):  # fmt: skip
            catalogue.find_entry(key)  # raises, and names the nearest
        return found

    reasons = ignore if isinstance(ignore, Mapping) else dict.fromkeys(ignore, "")
    left_out = {p.name: why for key, why in reasons.items() for p in matching(key)}
    chosen = {p.name for key in select for p in matching(key)}
    if select and not chosen:
        raise ConfigError(f"preflight: {', '.join(select)} selects rules, which judge runs, and no probe")
    wanted = chosen or {p.name for p in catalogue.probes()}
    return [p for p in catalogue.probes() if p.name in wanted and p.name not in left_out], left_out


def _options(options: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, object]]:
    """Options by probe name; those of rules are for others and pass."""
    checked: dict[str, dict[str, object]] = {}
    for key, values in options.items():
        entry = catalogue.find_entry(key)
        if not isinstance(entry, Probe):
            continue
        for option, value in values.items():
            if option not in entry.options:
                takes = ", ".join(entry.options) or "none"
                raise ConfigError(f"probe {entry.name} has no option {option!r}; it takes {takes}")
            default = entry.options[option]
            fits = (
                isinstance(value, int | float) if isinstance(default, int | float) else isinstance(value, type(default))
            )
            if not fits:
                raise ConfigError(
                    f"option {option} of probe {entry.name}: expected {type(default).__name__}, got {value!r}"
                )
        checked[entry.name] = dict(values)
    return checked


# --- running ------------------------------------------------------------------------------------------


def _run_all(
    bench: Bench,
    probes: Sequence[Probe],
    settings: Mapping[str, Mapping[str, object]],
    given: set[str],
    budget: float | None,
    progress: Progress | None,
) -> dict[str, Outcome]:
    """The outcomes by probe name. With a budget, the probe that is worth most comes first."""
    began = time.monotonic()
    pace = _Pace(bench) if budget is not None else None
    bench.deadline = None if budget is None else began + budget
    order = sorted(probes, key=lambda p: (-p.worth, pace.seconds(p))) if pace else list(probes)
    outcomes: dict[str, Outcome] = {}
    for i, probe in enumerate(order):
        if progress is not None:
            progress(i, len(order), probe.name)
        left = None if budget is None else ranks.least(began + budget - time.monotonic(), bench.device)
        # Costs are upper bounds, and most probes need far less: one is tried if a third of its cost fits.
        if pace and left is not None and pace.seconds(probe) / 3 > left:
            why = f"about {pace.seconds(probe):.0f} s at most, {max(left, 0):.0f} s of the budget are left"
            outcomes[probe.name] = Outcome(probe.code, probe.name, "skipped", why=why, vital=probe.vital)
            continue
        outcomes[probe.name] = _apply(probe, bench, settings.get(probe.name, {}), given)
    return outcomes


class _Pace:
    """How long this program takes, from one pass of one batch; made under a budget only."""

    def __init__(self, bench: Bench) -> None:
        self._per_pass = self._per_example = 0.0
        with suppress(Exception):
            began = time.monotonic()
            batch = bench.batch(1 << 30)
            read = time.monotonic()
            bench.look(bench.run(batch).loss)
            if bench.device.type == "cuda":
                torch.cuda.synchronize(bench.device)
            self._per_pass = time.monotonic() - read
            self._per_example = (read - began) / max(1, len(batch))
        bench.rewind()
        self._per_pass = ranks.largest(self._per_pass, bench.device)
        self._per_example = ranks.largest(self._per_example, bench.device)

    def seconds(self, probe: Probe) -> float:
        """What a probe takes at most."""
        return probe.cost.passes * self._per_pass + probe.cost.examples * self._per_example


def _apply(probe: Probe, bench: Bench, options: Mapping[str, object], given: set[str]) -> Outcome:
    def outcome(status: Any, **more: Any) -> Outcome:
        return Outcome(probe.code, probe.name, status, vital=probe.vital, **more)

    if missing := [need for need in probe.needs if need not in given]:
        return outcome("skipped", why=f"no {' and no '.join(missing)} given")
    try:
        with torch.enable_grad():
            findings = tuple(replace(f, rule=probe.name) for f in probe(bench, **options))
    except CannotJudge as reason:
        return outcome("skipped", why=str(reason))
    except Exception as error:
        if error is bench.raised and not bench.fails:
            text = " ".join(str(error).split())[:120]
            return outcome("skipped", why=f"the program raises {type(error).__name__} on part of a batch: {text}")
        if bench.fails:
            return outcome("skipped", why="no batch gets through model and loss")
        return outcome("crashed", why=f"{type(error).__name__}: {error}")
    else:
        return outcome("found", findings=findings) if findings else outcome("clean")
    finally:
        bench.rewind()
        bench.verify(f"probe {probe.name} ({probe.code})")


def _report(
    bench: Bench,
    probes: Sequence[Probe],
    outcomes: dict[str, Outcome],
    measured: Mapping[str, Fact],
    ignored: Mapping[str, str],
    name: str,
) -> Report:
    facts = {**_facts(bench), **measured}
    _prescribe(outcomes, facts)
    found = [f for p in probes for f in outcomes[p.name].findings]
    notes = tuple(Note("other", s.why_unreadable) for s in bench.sources.values() if s.why_unreadable)
    explains = {p.name: p.explains for p in probes}
    return Report(
        run=name,
        path="",
        source="preflight",
        steps=START,
        outcomes=tuple(outcomes[p.name] for p in probes),
        diagnoses=tuple(triage(found, explains, START, explains)),
        facts=facts,
        notes=notes,
        fitdoctor=fitdoctor.__version__,
        ignored=ignored,
    )


def _prescribe(outcomes: dict[str, Outcome], facts: Mapping[str, Fact]) -> None:
    """Put the remedies of all findings in order, without those that the program speaks against."""
    run = Run("", (), facts, source="preflight")
    found = frozenset(name for name, outcome in outcomes.items() if outcome.findings)
    for name, outcome in outcomes.items():
        if outcome.findings:
            findings = tuple(prescribe(f, run, family="preflight", found=found) for f in outcome.findings)
            outcomes[name] = replace(outcome, findings=findings)


def _facts(bench: Bench) -> dict[str, Fact]:
    """What the program itself tells of the run that is to come."""
    facts: dict[str, Fact] = {"framework": "pytorch", "optimizer": type(bench.optimizer).__name__}
    rates = {float(group["lr"]) for group in bench.optimizer.param_groups if "lr" in group}
    if len(rates) == 1:
        facts["learning_rate"] = rates.pop()
    with suppress(Exception):
        if (size := bench.train.batch_size) is not None:
            facts["batch_size"] = size
    for split in ("train", "val"):
        if split in bench.sources and (size := bench.sources[split].size) is not None:
            facts[f"n_{split}"] = size
    decays = {float(group["weight_decay"]) for group in bench.optimizer.param_groups if "weight_decay" in group}
    if len(decays) == 1:
        facts["weight_decay"] = decays.pop()
    if bench.recipe.accumulate > 1:
        facts["gradient_accumulation_steps"] = bench.recipe.accumulate
    if bench.recipe.clip_norm is not None:
        facts["clip_norm"] = float(bench.recipe.clip_norm)
    if bench.recipe.amp is not None:
        facts["autocast"] = str(bench.recipe.amp).removeprefix("torch.")
    return facts
