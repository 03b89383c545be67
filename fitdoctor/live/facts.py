"""What is known of a training beside its curves: model, optimizer, loss and machine."""

from __future__ import annotations

import platform

import torch

from fitdoctor import __version__
from fitdoctor.live.layers import unwrapped
from fitdoctor.live.stepping import Stepper, kind_of
from fitdoctor.live.watched import Watched
from fitdoctor.run import Fact


def gather_facts(watched: Watched, **more: Fact | None) -> dict[str, Fact]:
    """The facts under the keys of `Run.facts` where one exists there.

    Args:
        watched: the parts of the training.
        more: facts to add; None for one that is not known.
    """
    models, optimizers, criterion = watched.models, list(watched.optimizers.values()), watched.criterion
    inner = [unwrapped(m) for m in models.values()]
    params = {id(p): p for m in inner for p in m.parameters()}
    owned = {id(p) for o in optimizers for g in o.param_groups for p in g["params"]}
    trainable = {k for k, p in params.items() if p.requires_grad}
    first = next(iter(params.values()), None)
    facts: dict[str, Fact] = {
        "framework": "pytorch",
        "monitor": f"fitdoctor {__version__}",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(first.device) if first is not None else "none",
        "dtype": str(first.dtype).removeprefix("torch.") if first is not None else "none",
        "model": ", ".join(type(m).__name__ for m in inner),
        "parameters": sum(p.numel() for p in params.values()),
        "trainable_parameters": sum(params[k].numel() for k in trainable),
        "optimizer": ", ".join(kind_of(o) for o in optimizers),
        "trainable_tensors": len(trainable),
        "trainable_tensors_not_in_optimizer": len(trainable - owned),
        "optimizer_tensors_not_in_model": len(owned - set(params)),
        **_settings(optimizers[0]),
    }
    if criterion is not None:
        facts["loss_function"] = type(criterion).__name__
        smoothing = getattr(criterion, "label_smoothing", None)
        if isinstance(smoothing, float):
            facts["label_smoothing"] = smoothing
    return facts | {key: value for key, value in more.items() if value is not None}


def _settings(optimizer: Stepper) -> dict[str, Fact]:
    group = optimizer.param_groups[0]
    out: dict[str, Fact] = {}
    for key, name in {
        "lr": "learning_rate",
        "weight_decay": "weight_decay",
        "momentum": "momentum",
        "eps": "eps",
    }.items():
        value = group.get(key)
        if isinstance(value, torch.Tensor):
            value = float(value)  # once, before training
        if isinstance(value, int | float):
            out[name] = float(value)
    betas = group.get("betas")
    if isinstance(betas, tuple | list) and all(isinstance(b, int | float) for b in betas):
        out.update({f"beta{i + 1}": float(b) for i, b in enumerate(betas)})
    return out
