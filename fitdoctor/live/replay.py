"""Run the batch at which training broke once more, with anomaly detection: which operation was it?"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fitdoctor.live.activations import first_tensor
from fitdoctor.live.layers import watched_layers
from fitdoctor.live.probes.guard import untouched


@dataclass(frozen=True, slots=True)
class Replay:
    """What a second run of one batch showed.

    Attributes:
        forward: first layer whose output is not finite, "" if all are.
        backward: autograd function whose gradient is the first that is nan, "" if none is.
        traceback: where in the forward pass that function was called.
        inputs_finite: whether all floating point inputs were finite.
        weights_finite: whether all parameters were.
    """

    forward: str
    backward: str
    traceback: str
    inputs_finite: bool
    weights_finite: bool


def replay(model: nn.Module, criterion: nn.Module, inputs: Any, target: Any) -> Replay:
    """Run one batch forward and backward; gradients, modes, buffers and random numbers are as before afterwards.

    Args:
        model: the model, with the weights it had at that step (a checkpoint, or as it stands).
        criterion: the loss module.
        inputs: what the model is called with; a tuple for several arguments.
        target: what the criterion is called with beside the output.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
        >>> batch = torch.tensor([[1.0, float("inf")]])
        >>> replay(model, torch.nn.MSELoss(), batch, torch.zeros(1, 2)).forward
        '0'
    """
    args = inputs if isinstance(inputs, tuple | list) else (inputs,)
    bad: list[str] = []
    handles = []
    for name, layer in watched_layers({"": model}).items():

        def look(m: nn.Module, a: Any, out: Any, name: str = name) -> None:
            tensor = first_tensor(out)
            if tensor is not None and not bool(torch.isfinite(tensor.detach()).all()):
                bad.append(name)

        handles.append(layer.register_forward_hook(look))
    params = [p for p in model.parameters() if p.requires_grad]
    operation, where = "", ""
    try:
        with untouched(model), torch.enable_grad(), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with torch.autograd.set_detect_anomaly(True):
                loss = criterion(model(*args), target)
                try:
                    torch.autograd.grad(loss.mean(), params, allow_unused=True)
                except RuntimeError as error:
                    found = re.search(r"Function '(\w+)' returned nan", str(error))
                    operation = found[1] if found else str(error)
                    where = next((str(w.message) for w in told if "Traceback of forward call" in str(w.message)), "")
    finally:
        for handle in handles:
            handle.remove()
    finite = [bool(torch.isfinite(t).all()) for t in args if isinstance(t, torch.Tensor) and t.is_floating_point()]
    weights = all(bool(torch.isfinite(p.detach()).all()) for p in params)
    return Replay(bad[0] if bad else "", operation, where, all(finite), weights)
