"""What torch is doing while a hook runs."""

from __future__ import annotations

import torch


def inside_backward() -> bool:
    """Whether a backward pass is under way, as when a checkpointed segment runs again."""
    return bool(torch._C._current_graph_task_id() != -1)


def inside_transform() -> bool:
    """Whether `torch.func` (vmap, grad) is at work: its tensors have no numbers to look at."""
    return torch._C._functorch.peek_interpreter_stack() is not None
