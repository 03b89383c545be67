"""Out of memory: what the exception and its traceback say about where and why."""

from __future__ import annotations

import re
import traceback
from types import TracebackType

import torch

from fitdoctor.run import Fact

_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SAYS = (r"tried to allocate", r"can't allocate memory", r"out of memory", r"cannot allocate memory")
_PLACES = (
    ("loading", ("torch/serialization", "load_state_dict")),
    ("data", ("torch/utils/data", "torch/utils/_pytree/data")),
    ("backward", ("torch/autograd", "torch/_tensor.py")),
    ("optimizer", ("torch/optim",)),
    ("forward", ("torch/nn/modules", "torch/nn/functional")),
)


def out_of_memory_facts(
    error: BaseException | None, trace: TracebackType | None, *, step: int, training: bool, stepped: bool
) -> dict[str, Fact]:
    """Facts about an exception, where it says that memory ran out; none otherwise.

    Args:
        error: the exception that ended the training, or None.
        trace: its traceback.
        step: optimizer steps done.
        training: whether a training step was in progress, not an evaluation.
        stepped: whether an optimizer step of this process was complete.

    Returns:
        ``out_of_memory`` ("device" or "host"), ``out_of_memory_step``, ``out_of_memory_place`` ("forward", "backward",
        "optimizer", "loading", "data", "evaluation" or "unknown"), ``out_of_memory_first`` (no step was complete), and
        the bytes ``_requested``, ``_allocated``, ``_reserved`` and ``_total`` where the message tells them.

    Example:
        >>> error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        >>> out_of_memory_facts(error, None, step=3, training=True, stepped=True)["out_of_memory_requested"]
        2147483648
    """
    if error is None or not _tells(error):
        return {}
    text = str(error)
    device = isinstance(error, torch.OutOfMemoryError)
    facts: dict[str, Fact] = {
        "out_of_memory": "device" if device else "host",
        "out_of_memory_step": step,
        "out_of_memory_place": _place(trace, training=training),
        "out_of_memory_first": not stepped,
    }
    for name, pattern in (
        ("requested", r"[Tt]ried to allocate ([\d.]+) ?(\w+)"),
        ("requested", r"allocate memory: you tried to allocate (\d+) ?(bytes)"),
        ("allocated", r"([\d.]+) (\w+) is allocated by PyTorch"),
        ("reserved_free", r"([\d.]+) (\w+) is reserved by PyTorch but unallocated"),
        ("total", r"total capacity of ([\d.]+) (\w+)"),
    ):
        found = re.search(pattern, text)
        if found is not None and found[2] in _UNITS:
            facts[f"out_of_memory_{name}"] = round(float(found[1]) * _UNITS[found[2]])
    return facts


def _tells(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(re.search(said, str(error).lower()) for said in _SAYS)


def _place(trace: TracebackType | None, *, training: bool) -> str:
    """Where it happened, by the innermost file of torch that tells."""
    files = [frame.filename.replace("\\", "/") for frame in traceback.extract_tb(trace)]
    names = [frame.name for frame in traceback.extract_tb(trace)]
    for file, name in zip(reversed(files), reversed(names), strict=True):
        for place, parts in _PLACES:
            if any(part in file or part == name for part in parts):
                return place if training or place in ("loading", "data") else "evaluation"
    return "unknown" if training else "evaluation"
