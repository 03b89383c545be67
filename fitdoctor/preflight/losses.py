"""What is computed on the way from the model to the loss: a spy on torch's own loss and activation functions.

A `Spy` is active during one forward pass and sees the calls of ``torch.nn.functional`` whoever makes them: a
criterion module, a lambda, or a model that computes its loss itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

LOSSES: dict[Callable[..., Any], str] = {
    F.cross_entropy: "cross_entropy",
    F.nll_loss: "nll_loss",
    F.binary_cross_entropy_with_logits: "binary_cross_entropy_with_logits",
    F.binary_cross_entropy: "binary_cross_entropy",
    F.mse_loss: "mse_loss",
    F.l1_loss: "l1_loss",
    F.smooth_l1_loss: "smooth_l1_loss",
    F.huber_loss: "huber_loss",
}
CLASS_LOSSES = ("cross_entropy", "nll_loss")
BINARY_LOSSES = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
VALUE_LOSSES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")

ACTIVATIONS = {
    "relu": "relu", "relu_": "relu", "relu6": "relu", "hardtanh": "hardtanh", "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid", "tanh": "tanh", "tanh_": "tanh",
}  # fmt: skip
"""Names of functions whose outputs can die or saturate -> kind."""

_PASSING = (
    "View",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Permute",
    "Clone",
    "ToCopy",
    "Slice",
    "T",
    "Select",
)


@dataclass(frozen=True, slots=True)
class LossCall:
    """One call of a loss function of torch.

    Attributes:
        name: of the function, such as "cross_entropy".
        input: what stands for the model's output.
        target: what it is compared with.
        options: the other arguments: weight, reduction, label_smoothing, ignore_index ...
        value: what it returned.
    """

    name: str
    input: Tensor
    target: Tensor
    options: dict[str, Any]
    value: Tensor

    @property
    def function(self) -> Callable[..., Tensor]:
        """The function itself."""
        return next(f for f, name in LOSSES.items() if name == self.name)

    @property
    def classes(self) -> int:
        """Number of classes of a loss over classes; 2 of a binary one with one output; 0 of a regression."""
        if self.name in CLASS_LOSSES:
            return int(self.input.shape[1 if self.input.ndim > 1 else 0])
        return 2 if self.name in BINARY_LOSSES else 0

    def of(self, output: Tensor, reduction: str = "mean") -> Tensor:
        """The same loss of another output."""
        options = {k: v for k, v in self.options.items() if k not in ("reduction", "size_average", "reduce")}
        return self.function(output, self.target, **options, reduction=reduction)

    def per_example(self) -> Tensor:
        """float[n], the loss of each example: the mean over what else it is summed over."""
        each = self.of(self.input.detach(), "none")
        return each.reshape(len(each), -1).float().mean(1) if each.ndim else each.reshape(1)


@dataclass(frozen=True, slots=True)
class ActivationCall:
    """One call of an activation function: its kind and its output."""

    kind: str
    output: Tensor


class Spy(TorchFunctionMode):
    """Notes the calls of loss functions, activations and dropout, and differences spread over a wrong shape."""

    def __init__(self, keep_activations: bool = False) -> None:
        super().__init__()
        self.keep_activations = keep_activations
        self.losses: list[LossCall] = []
        self.activations: list[ActivationCall] = []
        self.spread: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.dropped = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        value = func(*args, **kwargs)
        if func in LOSSES:
            given = inspect.signature(func).bind(*args, **kwargs).arguments
            subject, target = given.pop("input"), given.pop("target")
            if isinstance(subject, Tensor) and isinstance(target, Tensor) and isinstance(value, Tensor):
                self.losses.append(LossCall(LOSSES[func], subject, target, given, value))
        elif isinstance(value, Tensor):
            name = getattr(func, "__name__", "")
            self.dropped = self.dropped or _drops(func, name, args, kwargs)
            if self.keep_activations and name in ACTIVATIONS and value.ndim > 1:
                self.activations.append(ActivationCall(ACTIVATIONS[name], value))
            if name in ("sub", "subtract", "__sub__", "rsub", "__rsub__") and len(args) > 1:
                self._note_spread(args[0], args[1], value)
        return value

    def _note_spread(self, a: Any, b: Any, value: Tensor) -> None:
        """A column minus a row of the same length gives a square: every output compared with every target."""
        if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.ndim == b.ndim:
            return
        n = max(len(a) if a.ndim else 0, len(b) if b.ndim else 0)
        if n > 1 and a.numel() == b.numel() == n and tuple(value.shape) == (n, n):
            self.spread.append((tuple(a.shape), tuple(b.shape)))


def _drops(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call drops units at random: functional dropout with training on, or attention with a share to drop."""
    if name == "scaled_dot_product_attention":
        return float(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)) > 0
    if "dropout" not in name or not hasattr(F, name):
        return False
    try:
        given = inspect.signature(func).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return False
    given.apply_defaults()
    return bool(given.arguments.get("training")) and float(given.arguments.get("p", 0.0)) > 0


def last_step(tensor: Tensor) -> str:
    """What made a tensor, in lower case, reshaping left out: "softmax", "sigmoid", "relu", "addmm"; "" when unknown."""
    node: Any = tensor.grad_fn
    while node is not None:
        name = node.name().partition("Backward")[0]
        if not any(name.lstrip("_").startswith(p) for p in _PASSING) or not node.next_functions:
            return str(name).lstrip("_").lower()
        node = node.next_functions[0][0]
    return ""


def probability_rows(output: Tensor) -> float:
    """Share of rows (over dimension 1) that are non-negative and sum to 1 within 1e-3."""
    values = output.detach().float()
    if values.ndim < 2 or values.shape[1] < 2:
        return 0.0
    good = (values >= 0).all(1) & ((values.sum(1) - 1).abs() < 1e-3)
    return float(good.float().mean())


def log_probability_rows(output: Tensor) -> float:
    """Share of rows (over dimension 1) whose exponentials sum to 1 within 1e-3."""
    values = output.detach().float()
    if values.ndim < 2:
        return 0.0
    return float(((torch.logsumexp(values, 1)).abs() < 1e-3).float().mean())


def best_constant(call: LossCall, targets: Tensor) -> Tensor:
    """The constant output with the least loss on some targets: log shares, log odds, or the mean."""
    if call.name in ("cross_entropy", "nll_loss"):
        if targets.is_floating_point():
            share = targets.flatten(0, -2).mean(0) if targets.ndim == 2 else targets.mean((0, *range(2, targets.ndim)))
        else:
            kept = targets[targets != call.options.get("ignore_index", -100)].flatten()
            share = torch.bincount(kept, minlength=call.classes)[: call.classes].float() / max(1, len(kept))
        # Half an example more per class: a class that happens to be missing is not impossible.
        if call.options.get("weight") is not None:
            share = share * call.options["weight"] / (share * call.options["weight"]).sum()
        share = (share * targets.numel() + 0.5) / (targets.numel() + 0.5 * call.classes)
        return share.log()
    mean = targets.float().mean()
    if call.name == "binary_cross_entropy_with_logits":
        if (heavier := call.options.get("pos_weight")) is not None and heavier.numel() == 1:
            mean = heavier.reshape(()) * mean / (heavier.reshape(()) * mean + 1 - mean)
        return torch.logit(mean.clamp(1e-4, 1 - 1e-4))
    return mean.clamp(1e-4, 1 - 1e-4) if call.name == "binary_cross_entropy" else mean
