"""Memory of this process and its devices, at a cost that can be paid in a step."""

from __future__ import annotations

import gc
import os
import warnings

import torch

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def memory_in_use(device: torch.device) -> float | None:
    """Bytes allocated on a CUDA device, or resident on the host; None where it cannot be told."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device))
    resident = _resident("self")
    if resident is not None:
        return resident
    try:
        import resource
    except ImportError:
        return None
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def host_memory() -> float | None:
    """Bytes resident on the host, of this process and of those that it started; None where it cannot be told."""
    own = _resident("self")
    if own is None:
        return None
    children: list[str] = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
                children += file.read().split()
        except OSError:  # a thread that has ended, or a kernel that does not tell
            continue
    return own + sum(_resident(child) or 0.0 for child in children)


def _resident(process: str) -> float | None:
    try:
        with open(f"/proc/{process}/statm", "rb", buffering=0) as file:
            return float(int(file.read().split()[1]) * _PAGE)
    except (OSError, ValueError, IndexError):
        return None


def live_tensors(device: torch.device) -> float:
    """Memory blocks in use on a CUDA device, or tensors that Python holds (slow: walks all objects)."""
    if device.type == "cuda":
        return float(torch.cuda.memory_stats(device).get("active.all.current", 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated objects warn when they are looked at
        return float(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
