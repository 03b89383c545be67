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
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return float(int(file.read().split()[1]) * _PAGE)
    except (OSError, ValueError, IndexError):
        try:
            import resource
        except ImportError:
            return None
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def live_tensors(device: torch.device) -> float:
    """Memory blocks in use on a CUDA device, or tensors that Python holds (slow: walks all objects)."""
    if device.type == "cuda":
        return float(torch.cuda.memory_stats(device).get("active.all.current", 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated objects warn when they are looked at
        return float(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
