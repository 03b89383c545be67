"""Which of the losses that a program computes is the one it trains, and what it is worth.

What goes into `backward` is the truth. Where it is the result of one call of a loss function, apart from constant
factors (accumulation, a GradScaler) and views, that call is the criterion, as a user would hand it to
`fitdoctor.attach`. Where it is something else (a sum of several losses, a formula), the tensor itself is the loss, and
constant factors are taken out of it.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fitdoctor.live.monitor import Monitor
from fitdoctor.run import Fact

CRITERIA: dict[str, type[nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "nll_loss": nn.NLLLoss,
    "binary_cross_entropy_with_logits": nn.BCEWithLogitsLoss,
    "binary_cross_entropy": nn.BCELoss,
    "mse_loss": nn.MSELoss,
    "l1_loss": nn.L1Loss,
    "smooth_l1_loss": nn.SmoothL1Loss,
    "huber_loss": nn.HuberLoss,
    "kl_div": nn.KLDivLoss,
    "poisson_nll_loss": nn.PoissonNLLLoss,
}
"""Loss functions of ``torch.nn.functional`` -> the module that computes the same."""

_MARK = "fitdoctor loss"
_VIEWS = ("Mean", "View", "Reshape", "UnsafeView", "Squeeze", "Unsqueeze", "ToCopy", "Alias", "Clone")
_MOST_HOPS = 12
_MOST_KEPT = 64  # calls before it is clear which one is trained


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of a loss function or of a module that may be a criterion.

    Attributes:
        kind: name of the function, or a weak reference to the module.
        criterion: a module that computes the same.
        args: what goes into the criterion: input, target.
        output: what came out.
    """

    kind: Any
    criterion: nn.Module
    args: tuple[Any, ...]
    output: Tensor


class Criterion(nn.Module):
    """Stands for the criterion of a program until it is known; then it computes the same."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Callable[..., Tensor] | None = None

    def forward(self, *args: Any) -> Tensor:
        """The loss; it is only asked for after a call of the true criterion was seen."""
        if self.found is None:
            raise RuntimeError("the criterion of the program is not known yet")
        return self.found(*args)


def function_call(name: str, args: Sequence[Any], kwargs: dict[str, Any], output: object) -> Call | None:
    """A call of a function of `CRITERIA`, None where it has no tensors."""
    given = _signature(name).bind(*args, **kwargs).arguments
    subject, target = given.pop("input", None), given.pop("target", None)
    if not (isinstance(subject, Tensor) and isinstance(target, Tensor) and isinstance(output, Tensor)):
        return None
    options = {k: v for k, v in given.items() if k not in ("size_average", "reduce") and v is not None}
    return Call(name, CRITERIA[name](**options), (subject, target), output)


def module_call(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Call:
    """A call of a module that may be a criterion."""
    return Call(weakref.ref(module), module, args, output)


_signatures: dict[str, inspect.Signature] = {}


def _signature(name: str) -> inspect.Signature:
    if name not in _signatures:
        _signatures[name] = inspect.signature(getattr(F, name))
    return _signatures[name]


class Objective:
    """Follows the loss of one training.

    Args:
        follow: called with the module that is found to be the criterion.

    Attributes:
        criterion: what the monitor is given as criterion.
        kind: what the loss is made by; None while it is not known, and where it is no single call.
        whole: whether the tensor that goes into `backward` is the loss itself.
    """

    def __init__(self, follow: Callable[[nn.Module], None]) -> None:
        self.criterion = Criterion()
        self.kind: Any = None
        self.whole = False
        self._follow = follow
        self._monitor: Monitor | None = None
        self._calls: list[Call] = []  # until it is known which one is trained
        self._early: list[Tensor] = []  # losses before there was a monitor
        self._told = False
        self._strangers = 0  # backward passes of something else than the criterion, one after another

    @property
    def known(self) -> bool:
        """Whether it is known what the loss is."""
        return self.whole or self.kind is not None

    @property
    def name(self) -> str:
        """What the loss is, for a person."""
        if self.whole:
            return "what goes into backward (no single loss function of torch made it)"
        if self.kind is None:
            return "not seen"
        return self.kind if isinstance(self.kind, str) else type(self.kind()).__name__

    @property
    def module(self) -> nn.Module | None:
        """The module that is the criterion, where one is."""
        return self.kind() if isinstance(self.kind, weakref.ref) else None

    def go_to(self, monitor: Monitor) -> None:
        """From now on a monitor takes the losses."""
        self._monitor = monitor
        for value in self._early:
            monitor.loss_told(value)
        self._early.clear()
        self._tell_facts()

    def called(self, call: Call) -> None:
        """A loss function was called in training."""
        node: Any = call.output.grad_fn
        if node is None:
            return
        node.metadata.setdefault(_MARK, call.kind)
        if not self.known:
            self._calls = [*self._calls[1 - _MOST_KEPT :], call]
        elif call.kind == self.kind:
            self._take(call)
        elif self.whole and self._monitor is not None:
            self._monitor.criterion_called(call.criterion, call.args, None)

    def handed_over(self, tensor: Tensor) -> None:
        """A tensor is about to go into `backward`."""
        made_by = _made_by(tensor.grad_fn)
        if not self.known:
            self._decide(made_by)
        if not self.whole and made_by != self.kind:
            self._strangers += 1
            if self._strangers < 3:
                return
            self.whole, self.kind = True, None  # the program has gone over to another loss
        self._strangers = 0
        if self.whole and tensor.grad_fn is not None:
            divided_by = _divided_by(tensor.grad_fn)
            if self._monitor is None:
                self._keep(tensor.detach().float() * divided_by)
            else:
                self._monitor.backward_begins(tensor, divided_by=divided_by)

    def _decide(self, made_by: Any) -> None:
        calls, self._calls = self._calls, []
        self.kind, self.whole = made_by, made_by is None
        self._tell_facts()
        if self.whole:
            if self._monitor is not None and calls:
                self._monitor.criterion_called(calls[0].criterion, calls[0].args, None)
            return
        mine = [c for c in calls if c.kind == made_by]
        if (module := self.module) is not None:
            self._follow(module)
        for call in mine:
            self._take(call)

    def _take(self, call: Call) -> None:
        self.criterion.found = call.criterion
        if self._monitor is not None:
            self._monitor.criterion_called(call.criterion, call.args, call.output)
            self._tell_facts()
        else:
            self._keep(call.output.detach().float().mean())

    def _keep(self, value: Tensor) -> None:
        self._early = [*self._early[1 - _MOST_KEPT :], value]

    def _tell_facts(self) -> None:
        """What a monitor learns from the criterion it is given, once."""
        found = self.criterion.found
        if self._monitor is None or self._told or not isinstance(found, nn.Module):
            return
        self._told = True
        facts: dict[str, Fact] = {"loss_function": type(found).__name__}
        smoothing, reduction = getattr(found, "label_smoothing", None), getattr(found, "reduction", None)
        if isinstance(smoothing, float):
            facts["label_smoothing"] = smoothing
        if isinstance(reduction, str):
            facts["loss_reduction"] = reduction
        self._monitor.learn(**facts)


def _operation(node: Any) -> str:
    return str(node.name()).rpartition("::")[2].rstrip("0123456789").removesuffix("Backward")


def _parent(node: Any) -> Any:
    """The only function whose result a function takes; None where there are several or none."""
    inner = [n for n, _ in node.next_functions if n is not None]
    return inner[0] if len(inner) == 1 else None


def _constant(node: Any) -> Tensor | None:
    """What a product or quotient multiplies or divides with, where that is one number."""
    if _operation(node) not in ("Mul", "Div") or node.next_functions[0][0] is None:
        return None
    other = getattr(node, "_saved_other", None)
    return other if isinstance(other, Tensor) and other.ndim == 0 else None


def _made_by(node: Any) -> Any:
    """The kind of the marked call that made a tensor, through views and constant factors; None where it is none."""
    for _ in range(_MOST_HOPS):
        if node is None:
            return None
        kind = node.metadata.get(_MARK)
        if kind is not None:
            return kind
        if _operation(node) not in _VIEWS and _constant(node) is None:
            return None
        node = _parent(node)
    return None


def _divided_by(node: Any) -> Tensor | float:
    """What a loss was divided by at its end: the product of constant factors, of which a GradScaler's is one.

    A sum that is divided is a mean: that divisor belongs to it.
    """
    divided_by: Tensor | float = 1.0
    for _ in range(_MOST_HOPS):
        factor, inner = _constant(node), _parent(node)
        if factor is None or inner is None or _operation(inner) in ("Sum", "NanToNum"):
            break
        number = float(factor) if factor.device.type == "cpu" else factor.detach()
        if isinstance(number, float) and not number:
            break
        divided_by = divided_by / number if _operation(node) == "Mul" else divided_by * number
        node = inner
    return divided_by
