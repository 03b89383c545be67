"""The bench on which a training program lies while probes work on it."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fitdoctor.errors import StateNotRestored
from fitdoctor.preflight import ranks
from fitdoctor.preflight.batches import Batch
from fitdoctor.preflight.guard import State
from fitdoctor.preflight.losses import BINARY_LOSSES, CLASS_LOSSES, VALUE_LOSSES, LossCall, Spy
from fitdoctor.preflight.recipe import Recipe
from fitdoctor.preflight.sources import Source
from fitdoctor.rule import CannotJudge
from fitdoctor.run import Fact

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass.

    Attributes:
        output: what the model returned.
        loss: the loss, a scalar with its graph.
        spy: what was called on the way.
    """

    output: Any
    loss: Tensor
    spy: Spy

    @property
    def call(self) -> LossCall | None:
        """The call of a loss function that the loss consists of; None when there are several, none, or other terms."""
        calls = self.spy.losses
        if len(calls) != 1:
            return None
        value, loss = calls[0].value.detach(), float(self.loss.detach().sum())
        if value.numel() > 1:  # averaged or weighted by hand
            return calls[0]
        sizes = {1, len(calls[0].input) if calls[0].input.ndim else 1, calls[0].input.numel(), calls[0].target.numel()}
        same = any(math.isclose(loss * n, float(value), rel_tol=1e-3, abs_tol=1e-9) for n in sizes)
        return calls[0] if same or not math.isfinite(loss) else None


class Bench:
    """A training program and its data, with what probes do to them.

    Args:
        model, criterion, optimizer, scheduler, scaler: the program. The criterion is None for a model that
            returns its loss.
        loaders: split -> loader.
        device: where to run; that of the model when None.
        loss_of: ``loss_of(model, batch) -> loss`` for programs whose batches mean something else.
        ids: "groups" or "times" -> split -> one id per example.
        recipe: how the loop takes a step; plainly when None.

    Attributes:
        model: the bare model, without wrappers that talk to other processes or compile it.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[..., Tensor] | None,
        optimizer: Optimizer,
        loaders: Mapping[str, Any],
        *,
        scheduler: Any = None,
        scaler: Any = None,
        device: torch.device | str | None = None,
        loss_of: Callable[[nn.Module, Any], Tensor] | None = None,
        ids: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        self.model = ranks.bare(model)
        self.criterion = criterion
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scaler = scaler
        self.loss_of = loss_of
        self.ids = ids or {}
        self.facts: dict[str, Fact] = {}
        self.deadline: float | None = None
        self.raised: Exception | None = None  # by the program, not by a probe
        self.sources = {
            split: Source(loader, split, with_criterion=criterion is not None, takes=_positional(self.model))
            for split, loader in loaders.items()
            if loader is not None
        }
        self.device = place_of(model, device)
        self.recipe = recipe or Recipe(self.device, scaler=scaler)
        parts = {
            "model": model,
            "criterion": criterion,
            "optimizer": optimizer,
            "scheduler": scheduler,
            "scaler": scaler,
        }
        parts["loss_of"] = loss_of
        self._ratios: tuple[float, ...] = self.rates[1] if all("lr" in g for g in optimizer.param_groups) else ()
        self.state = State(
            {name: part for name, part in parts.items() if part is not None},
            {f"{split}_loader": s.loader for split, s in self.sources.items()},
        )

    # --- data ---------------------------------------------------------------------------------------

    @property
    def train(self) -> Source:
        """The training split."""
        return self.sources["train"]

    def batches(self, examples: int, split: str = "train") -> list[Batch]:
        """Whole batches on the device; without those of one example where batch norm would refuse them."""
        found = self.sources[split].batches(examples)
        return [self.placed(b) for b in (self._fit_for_norms(found) or found)]

    def _fit_for_norms(self, batches: Sequence[Batch]) -> list[Batch]:
        """The last batch of an epoch may hold one example: that is the business of the probe ragged-last-batch."""
        return [b for b in batches if len(b) != 1 or not self._normed]

    @cached_property
    def _normed(self) -> bool:
        return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.model.modules())

    def batch(self, examples: int, split: str = "train") -> Batch:
        """The first examples of an epoch, from one batch: at most so many, and at most a batch."""
        batch = self.sources[split].batches(1)[0]
        return self.placed(batch.rows(slice(0, examples)) if len(batch) > examples else batch)

    def placed(self, batch: Batch) -> Batch:
        """A copy of a batch on the device, so that nothing can change the original."""
        return batch.mapped(lambda t: t.to(self.device, copy=True))

    # --- running ------------------------------------------------------------------------------------

    def run(self, batch: Batch, *, keep_activations: bool = False) -> Pass:
        """One forward pass in the model's present mode."""
        try:
            return Pass(*self._run(batch, keep_activations))
        except Exception as error:
            self.raised = error
            raise

    def _run(self, batch: Batch, keep_activations: bool) -> tuple[Any, Tensor, Spy]:
        spy = Spy(keep_activations)
        with self.recipe.precision(), spy:
            if self.loss_of is not None:
                output, loss = None, self.loss_of(self.model, batch.raw)
            else:
                args, kwargs = ((), batch.inputs) if isinstance(batch.inputs, dict) else (batch.inputs, {})
                output = self.model(*args, **kwargs)
                loss = output if self.criterion is None else self.criterion(output, batch.target)
        return output, _as_loss(loss), spy

    def output(self, batch: Batch) -> Tensor:
        """The model's output as one tensor, without a graph.

        Raises:
            CannotJudge: if the output holds no tensor with a row per example.
        """
        with torch.no_grad():
            done = self.run(batch)
        found = done.output
        if done.call is not None and len(done.call.input) == len(batch):
            found = done.call.input
        elif not isinstance(found, Tensor):
            found = getattr(found, "logits", found[0] if isinstance(found, tuple | list) and found else None)
        if not isinstance(found, Tensor) or not found.ndim or len(found) != len(batch):
            raise CannotJudge("the model's output holds no tensor with one row per example")
        return found.detach()

    def rewind(self) -> None:
        """Everything as it was before the probes began."""
        self.state.restore()

    def verify(self, who: str) -> None:
        """Check that everything is as before.

        Raises:
            StateNotRestored: if not; the message names it.
        """
        if changed := self.state.changes():
            raise StateNotRestored(
                f"{who} changed what could not be put back: {', '.join(changed[:5])}; make the program anew, and leave "
                "that out"
            )

    def fit(
        self,
        batches: Sequence[Batch],
        steps: int,
        optimizer: Optimizer | None = None,
        stop: Callable[[int, float, Pass], bool] | None = None,
    ) -> list[float]:
        """Train for some steps, cycling over the batches; the loss of each step, before it.

        Args:
            batches: on the device.
            steps: at most so many.
            optimizer: the user's own when None.
            stop: called with step, loss and pass before the update; True ends it.
        """
        optimizer = optimizer or self.optimizer
        losses: list[float] = []
        for step in range(steps):
            self.check_time(f"{step} of {steps} steps")
            done = self.run(batches[step % len(batches)])
            loss = float(done.loss.detach())
            losses.append(loss)
            if not torch.isfinite(done.loss.detach()) or (stop is not None and stop(step, loss, done)):
                break
            optimizer.zero_grad(set_to_none=True)
            self.recipe.backward(done.loss)
            self.update(optimizer, batches[step % len(batches)])
        return losses

    def look(self, loss: Tensor) -> None:
        """Gradients of a loss, to be looked at."""
        self.recipe.look(loss, self.trainable.values())

    def update(self, optimizer: Optimizer, batch: Batch) -> bool:
        """One step of an optimizer on gradients that are there; False where the scaler skipped it."""

        def again() -> Tensor:  # LBFGS computes them again as often as it likes
            optimizer.zero_grad()
            loss = self.run(batch).loss
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        return self.recipe.update(optimizer, self.trainable.values(), again)

    def step(self, stream: Iterator[Batch]) -> float:
        """One step of the user's optimizer, as the loop takes it; the mean loss of its batches over all processes.

        Raises:
            CannotJudge: in every process, if the budget of one is spent or one of them fails.
        """
        accumulate = self.recipe.accumulate

        def local() -> Tensor:
            self.check_time("a part of its trainings")
            total = torch.zeros((), device=self.device)
            for _ in range(accumulate):
                loss = self.run(next(stream)).loss
                self.recipe.backward(loss / accumulate)
                total += loss.detach().float() / accumulate
            return total

        self.optimizer.zero_grad(set_to_none=True)
        mean = self.together(local)
        ranks.average_gradients(self.trainable.values())
        self.recipe.update(self.optimizer, self.trainable.values())
        return mean

    def level(self, batches: Sequence[Batch]) -> float:
        """The mean loss of some batches in train mode without dropout, over all processes."""

        def local() -> Tensor:
            losses = [self.run(b).loss.float() for b in batches]
            return torch.stack(losses).mean()

        with torch.no_grad(), self.mode(training=True, dropout=False):
            return self.together(local)

    def together(self, local: Callable[[], Tensor]) -> float:
        """The mean over all processes of a number that each computes; all of them raise where one does.

        Raises:
            CannotJudge: if another process failed, or whatever this one raised.
        """
        failed: Exception | None = None
        value = torch.zeros((), device=self.device)
        try:
            value = local().detach()
        except Exception as error:
            if ranks.world() == 1:
                raise
            failed = error  # the others wait for this process: it must not leave them alone
        if ranks.largest(float(failed is not None), self.device):
            raise failed or CannotJudge("another process failed, or ran out of time")
        return float(ranks.mean(value))

    @property
    def rates(self) -> tuple[float, tuple[float, ...]]:
        """The rate of the first parameter group that has one, and those of all groups relative to it."""
        base = [float(g.get("initial_lr", g["lr"])) for g in self.optimizer.param_groups]
        first = next((b for b in base if b > 0), 0.0)
        return first, tuple(b / first if first else 1.0 for b in base)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the first parameter group; the others keep their ratios to it."""
        for group, ratio in zip(self.optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = group["lr"].fill_(rate * ratio) if isinstance(group["lr"], Tensor) else rate * ratio

    def endless(self) -> Iterator[Batch]:
        """Training batches on the device, epoch after epoch.

        Raises:
            CannotJudge: if there are none.
        """
        while True:
            empty = True
            for raw in self.train.fresh():
                batch = self.train.parted(raw)
                if self._fit_for_norms([batch]):
                    empty = False
                    yield self.placed(batch)
            if empty:
                raise CannotJudge("train_loader yields no batch")

    def adam(self, lr: float) -> Optimizer:
        """A plain Adam over all trainable parameters: the optimizer that forgives most."""
        return torch.optim.Adam(list(self.trainable.values()), lr=lr)

    def check_time(self, done: str) -> None:
        """Give up when the budget is spent.

        Raises:
            CannotJudge: if it is.
        """
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise CannotJudge(f"the budget ended after {done}")

    @contextmanager
    def mode(self, *, training: bool, dropout: bool = True) -> Iterator[None]:
        """Train or eval mode inside; the guard brings back the rest."""
        modes = [(m, m.training) for m in self.model.modules()]
        rates = [(m, m.dropout) for m in self.model.modules() if isinstance(m, nn.RNNBase | nn.MultiheadAttention)]
        self.model.train(training)
        if not dropout:
            for module in self.model.modules():
                if isinstance(module, DROPOUT):
                    module.training = False
            for module, _ in rates:
                module.dropout = 0.0
        try:
            yield
        finally:
            for module, was in modes:
                module.training = was
            for module, rate in rates:
                module.dropout = rate

    # --- what the program is --------------------------------------------------------------------------

    @cached_property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The trainable parameters of the model by name, tied ones once."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @cached_property
    def first_call(self) -> LossCall | None:
        """The one loss function that the first batch goes through, without a graph; None when there is not one."""
        self.model.eval()
        try:
            with torch.no_grad():
                return self.run(self.batch(256)).call
        except CannotJudge:
            raise
        except Exception:
            return None  # what does not run is the business of the probe program-fails
        finally:
            self.rewind()

    @cached_property
    def fails(self) -> bool:
        """Whether the program itself raises on its first batch: then it is no bug of a probe that does, too."""
        self.rewind()
        try:
            with self.mode(training=True):
                self.look(self.run(self.batch(1 << 30)).loss.sum())
        except Exception:
            return True
        finally:
            self.rewind()
        return False

    @property
    def task(self) -> str:
        """What the loss is for: "classes", "binary", "values", or "" when that cannot be told."""
        call = self.first_call
        kinds = {"classes": CLASS_LOSSES, "binary": BINARY_LOSSES, "values": VALUE_LOSSES}
        return "" if call is None else next(kind for kind, names in kinds.items() if call.name in names)

    def labels(self, batch: Batch) -> Tensor | None:
        """int64[n], one class per example; None where the target is something else."""
        y = batch.y
        if y is None or self.task == "values":
            return None
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim == 2 and y.is_floating_point() and self.task == "classes":
            y = y.argmax(1)
        if y.ndim != 1:
            return None
        whole = y.long()
        return whole if bool((whole == y).all()) else None


def place_of(model: nn.Module, device: torch.device | str | None = None) -> torch.device:
    """Where a model is, or where it is said to run."""
    first = next(model.parameters(), None)
    return torch.device(device if device is not None else first.device if first is not None else "cpu")


def _positional(model: nn.Module) -> float:
    """How many positional arguments the forward pass of a model takes at most."""
    try:
        kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
    except (TypeError, ValueError):
        return 1
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return math.inf
    return sum(k in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for k in kinds)


def _as_loss(given: Any) -> Tensor:
    """The loss in what a criterion, or a model without one, returned.

    A tensor, the first of a tuple, ``.loss``, ``["loss"]``, or the sum of a mapping that holds nothing but losses.

    Raises:
        TypeError: if it holds none.
    """
    found = given
    if isinstance(given, Mapping):
        parts = list(given.values())
        only_losses = parts and all(
            isinstance(p, Tensor) and p.numel() == 1 and (p.requires_grad or not torch.is_grad_enabled()) for p in parts
        )
        found = given.get("loss", torch.stack([p.reshape(()) for p in parts]).sum() if only_losses else None)
    elif not isinstance(given, Tensor):
        found = getattr(given, "loss", given[0] if isinstance(given, tuple | list) and given else None)
    if isinstance(found, Tensor):
        return found
    keys = f" with {', '.join(map(str, list(given)[:6]))}" if isinstance(given, Mapping) else ""
    raise TypeError(
        f"expected a loss, got {type(given).__name__}{keys}: pass a criterion, or loss_of=lambda model, batch: ..."
    )
