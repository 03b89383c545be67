"""Which parts of a model are watched, and under which names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import nn

Model = nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module]

MOST_LAYERS = 1000
"""Layers whose activations are watched; beyond it, evenly spaced ones."""

_SILENT = (nn.Dropout, nn.Identity, nn.Flatten, nn.modules.dropout._DropoutNd, nn.modules.loss._Loss)
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


class Described(NamedTuple):
    """What a layer is; see `fitdoctor.views.depth.Layer`.

    Attributes:
        role: "affine", "rectifier", "saturating", "smooth", "norm" or "other".
        inputs: inputs of one unit of an affine layer, 0 where that is not known.
        outputs: its units, 0 where that is not known.
        applies: the function that the layer applies to its result before it returns it: "relu", "tanh", "sigmoid",
            "smooth" for any other; "" for none.
    """

    role: str
    inputs: int = 0
    outputs: int = 0
    applies: str = ""


class Anatomy(Protocol):
    """What a framework knows of its model, where the names and kinds of modules do not tell it.

    Attributes:
        units_last: the units of a layer are the last dimension of its weight, not the first.
    """

    units_last: bool

    def parameter_names(self) -> dict[int, str]:
        """Names of all parameters by identity."""

    def layers(self) -> dict[str, nn.Module]:
        """The layers whose outputs are looked at, by name."""

    def describe(self, layer: nn.Module) -> Described:
        """What one of these layers is."""


def plain_name(name: str) -> str:
    """A parameter's or module's name without what wrappers put into it.

    Example:
        >>> plain_name("_orig_mod.fc1._checkpoint_wrapped_module.weight")
        'fc1.weight'
    """
    for wrapper in ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."):
        name = name.replace(wrapper, "")
    return name


def named_models(model: Model) -> dict[str, nn.Module]:
    """The models by name: one under "", several under their keys or numbers."""
    if isinstance(model, nn.Module):
        return {"": model}
    if isinstance(model, Mapping):
        return dict(model)
    return {str(i): m for i, m in enumerate(model)}


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        if compiled(model) and isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def compiled(module: nn.Module) -> bool:
    """Whether a module's forward runs through torch.compile."""
    return type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None


def roots(model: nn.Module) -> list[nn.Module]:
    """The modules that are called from outside: the model, or the members of one that has no forward."""
    if isinstance(model, _CONTAINERS) or type(model).forward is nn.Module.forward:
        return [root for child in model.children() for root in roots(child)]
    return [model]


def watched_layers(models: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The layers whose outputs are looked at: without children, attention as a whole, none inside torch.compile."""
    found: dict[str, nn.Module] = {}
    for label, model in models.items():
        inner = unwrapped(model)
        if any(compiled(m) for m in (model, inner)) or (
            isinstance(model, nn.parallel.DistributedDataParallel) and compiled(model.module)
        ):
            continue
        for name, module in _leaves(inner, ""):
            full = ".".join(x for x in (label, plain_name(name)) if x) or type(module).__name__
            if module not in found.values():
                found[full] = module
    if len(found) > MOST_LAYERS:
        names = list(found)
        kept = [names[i * len(names) // MOST_LAYERS] for i in range(MOST_LAYERS)]
        found = {name: found[name] for name in kept}
    return found


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, (*_SILENT, torch.jit.ScriptModule)) or (name and compiled(module)) or _is_metric(module):
        return
    children = list(module.named_children())
    if not children or isinstance(module, nn.MultiheadAttention):  # its out_proj is called without hooks
        if not isinstance(module, _CONTAINERS):
            yield name, module
        return
    for child_name, child in children:
        yield from _leaves(child, f"{name}.{child_name}" if name else child_name)


def _is_metric(module: nn.Module) -> bool:
    """Whether it is one of torchmetrics: a module that no data flows through."""
    return any(kind.__module__.partition(".")[0] == "torchmetrics" for kind in type(module).__mro__)


def parameter_names(models: Mapping[str, nn.Module]) -> dict[int, str]:
    """Names of all parameters by identity; a tied one has its first name."""
    names: dict[int, str] = {}
    for label, model in models.items():
        for name, p in unwrapped(model).named_parameters():
            names.setdefault(id(p), ".".join(x for x in (label, plain_name(name)) if x))
    return names
