"""What a Keras model on the torch backend is made of, in the words of the monitor.

Its modules tell little: layers are not children of each other, parameters lie in one dictionary, kernels have their
units last, and a layer may apply its activation itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fitdoctor.live.layers import Described, watched_layers

_SILENT = {"InputLayer", "Dropout", "BaseDropout", "Flatten", "Reshape", "Identity", "Permute", "RepeatVector"}
_WHOLE = {"RNN", "Bidirectional", "MultiHeadAttention"}
"""Layers that are looked at as one: the parts of the first are called at every position of a sequence."""

_FUSED = {"relu": "relu", "relu6": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "linear": "", "NoneType": ""}
_SMOOTH = {"LeakyReLU", "PReLU", "ELU", "Softmax"}


class KerasAnatomy:
    """Names and kinds of the layers of a Keras model.

    Args:
        model: the model, built.
        inside: its layers can be looked at: a compiled step would be compiled anew for each hook that comes or goes.
    """

    units_last = True

    def __init__(self, model: Any, *, inside: bool = True) -> None:
        self._model, self._inside = model, inside
        self._layers = dict(_unique(_leaves(model, f"{model.name}/")))

    def layers(self) -> dict[str, nn.Module]:
        """The layers whose outputs are looked at, by name: "dense", "block/conv"."""
        found: dict[str, nn.Module] = {}
        for name, layer in self._layers.items() if self._inside else ():
            if _is(layer, "TorchModuleWrapper"):
                inner = watched_layers({"": layer.module})
                whole = len(inner) == 1 and layer.module in inner.values()
                found |= {name if whole else f"{name}.{n}": m for n, m in inner.items()}
            else:
                found[name] = layer
        return found

    def parameter_names(self) -> dict[int, str]:
        """Names of all parameters by identity: "dense/kernel"."""
        names: dict[int, str] = {}
        for name, layer in self._layers.items():
            if _is(layer, "TorchModuleWrapper"):
                names |= {id(p): f"{name}.{n}" for n, p in layer.module.named_parameters()}
        for variable in self._model.variables:
            names.setdefault(id(variable.value), variable.path.removeprefix(f"{self._model.name}/"))
        return names

    def describe(self, layer: nn.Module) -> Described:
        """What a layer is."""
        if not hasattr(layer, "get_config"):  # of torch, inside the model
            from fitdoctor.live.structure import described

            return described(layer)
        applied = getattr(layer, "activation", None)
        function = _FUSED.get(getattr(applied, "__name__", type(applied).__name__), "smooth")
        if _is(
            layer, "Dense", "EinsumDense", "BaseConv", "BaseConvTranspose", "BaseDepthwiseConv", "BaseSeparableConv"
        ):
            kernel = getattr(layer, "kernel", None)
            plain = _is(layer, "Dense", "BaseConv") and getattr(layer, "groups", 1) == 1 and kernel is not None
            shape = [int(n) for n in kernel.shape] if plain else [0]  # type: ignore[union-attr]
            return Described("affine", math.prod(shape[:-1]) if plain else 0, shape[-1], function)
        if _is(layer, "ReLU"):
            return Described("rectifier")
        if _is(layer, "Activation"):
            role = {"relu": "rectifier", "tanh": "saturating", "sigmoid": "saturating"}.get(function, "smooth")
            return Described(role, applies=function if role == "saturating" else "")
        if _is(layer, *_SMOOTH):
            return Described("smooth")
        return Described("norm" if type(layer).__name__.endswith("Normalization") else "other")

    def count(self, *kinds: str) -> int:
        """Layers of the given kinds, silent ones included; not dropout at a rate of 0."""
        return sum(_is(layer, *kinds) and getattr(layer, "rate", 1) != 0 for layer in _all(self._model))


def _all(layer: Any) -> Iterator[Any]:
    for child in getattr(layer, "_layers", ()):
        yield child
        yield from _all(child)


def _leaves(layer: Any, own: str) -> Iterator[tuple[str, Any]]:
    """Layers without parts of their own, by path below the model."""
    for child in getattr(layer, "_layers", ()):
        if _is(child, *_SILENT):
            continue
        if getattr(child, "_layers", ()) and not _is(child, *_WHOLE):
            yield from _leaves(child, own)
        else:
            yield str(child.path or child.name).removeprefix(own), child


def _unique(layers: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    names: dict[str, int] = {}
    seen: set[int] = set()
    for name, layer in layers:
        if id(layer) not in seen:
            seen.add(id(layer))
            count = names[name] = names.get(name, 0) + 1
            yield (name if count == 1 else f"{name}~{count}"), layer


def _is(layer: object, *kinds: str) -> bool:
    """Whether it is of one of these classes of Keras; nothing of Keras is imported for it."""
    return any(c.__name__ in kinds and not c.__module__.startswith("torch.") for c in type(layer).__mro__)


# --- the loss ---------------------------------------------------------------------------------------------


class _Heard(nn.Module):
    """Stands for a loss of Keras: it is shown the loss that was computed, and hooks on it hear of that."""

    def forward(self, output: object, target: object, loss: Tensor) -> Tensor:
        """The loss."""
        return loss


_KINDS: dict[str, type[nn.Module]] = {
    "sparsecategoricalcrossentropy": nn.CrossEntropyLoss,
    "categoricalcrossentropy": nn.CrossEntropyLoss,
    "binarycrossentropy": nn.BCELoss,
    "meansquarederror": nn.MSELoss,
    "mse": nn.MSELoss,
    "meanabsoluteerror": nn.L1Loss,
    "mae": nn.L1Loss,
    "huber": nn.HuberLoss,
}


class KerasLoss:
    """The loss of a model as a criterion of torch.

    Args:
        model: the model, compiled.

    Attributes:
        criterion: a module of the class of torch that computes the same, where there is one. Its hooks are called with
            what that would be called with: scores with the classes second, and labels.
        name: name of the loss in Keras.
    """

    def __init__(self, model: Any) -> None:
        loss = _single(getattr(model, "loss", None))
        self.name = _name(loss)
        self._kind = self.name.lower().replace("_", "")
        self._logits = bool(getattr(loss, "from_logits", False))
        kind = _KINDS.get(self._kind)
        if kind is nn.BCELoss and self._logits:
            kind = nn.BCEWithLogitsLoss
        if kind is nn.CrossEntropyLoss and not self._logits and not _ends_in_softmax(model):
            kind = nn.NLLLoss  # which says so when it is not given probabilities
        name = kind.__name__ if kind is not None else self.name or "loss"
        self.criterion: nn.Module = type(name, (_Heard, kind) if kind is not None else (_Heard,), {})()
        self._torch = kind
        smoothing = getattr(loss, "label_smoothing", None)
        if kind is nn.CrossEntropyLoss and isinstance(smoothing, int | float):
            self.criterion.label_smoothing = float(smoothing)
        if getattr(loss, "reduction", None) == "sum":
            self.criterion.reduction = "sum"

    def show(self, output: Any, target: Any, loss: Tensor) -> None:
        """The loss of a batch was computed."""
        if self.criterion._forward_hooks:  # they are off during most steps
            output, target = self._as_torch(output, target)
            self.criterion(output, target, loss)

    def _as_torch(self, output: Any, target: Any) -> tuple[Any, Any]:
        if self._torch is None or not isinstance(output, Tensor) or not isinstance(target, Tensor):
            return output, target
        if self._torch in (nn.CrossEntropyLoss, nn.NLLLoss):
            if self._kind.startswith("sparse"):
                target = target.reshape(output.shape[:-1]).long()
            elif target.shape == output.shape:
                target = target.argmax(-1)
            if not self._logits:  # the log of probabilities is as good a score as any: its softmax is they
                with torch.no_grad():
                    output = output.detach().clamp(min=1e-7).log()
            return (output.movedim(-1, 1) if output.ndim > 2 else output), target
        if target.ndim + 1 == output.ndim and output.shape[-1] == 1:  # Keras does so, too
            target = target.unsqueeze(-1)
        elif target.ndim == output.ndim + 1 and target.shape[-1] == 1:
            target = target.squeeze(-1)
        return output, target.to(output.dtype)


def _single(loss: Any) -> Any:
    """The loss itself where it comes in a list or mapping of one; None where there are several."""
    if isinstance(loss, Mapping):
        loss = list(loss.values())
    if isinstance(loss, list | tuple):
        return loss[0] if len(loss) == 1 else None
    return loss


def _name(loss: Any) -> str:
    if loss is None or isinstance(loss, str):
        return loss or ""
    return str(getattr(loss, "__name__", type(loss).__name__))


def _ends_in_softmax(model: Any) -> bool:
    """Whether the layer that makes the model's output applies a softmax."""
    layers = list(_all(model))
    last = layers[-1] if layers else None
    return _is(last, "Softmax") or getattr(getattr(last, "activation", None), "__name__", "") == "softmax"
