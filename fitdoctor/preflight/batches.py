"""Batches: what a loader yields, parted into what the model takes and what the loss compares it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TARGET_KEYS = ("labels", "label", "targets", "target", "y")
"""Keys under which a batch that is a mapping holds its targets."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch.

    Attributes:
        inputs: positional arguments of the model (a tuple), or its keyword arguments (a dict).
        target: what the criterion compares the output with; None where the model takes it itself.
        raw: the batch as the loader gave it.
    """

    inputs: tuple[Any, ...] | dict[str, Any]
    target: Any
    raw: Any

    @classmethod
    def of(cls, raw: Any, *, with_criterion: bool, takes: float = 1) -> Batch:
        """Part what a loader gave: ``(x, ..., y)``, or a mapping with a target under a usual key.

        Args:
            raw: what the loader gave.
            with_criterion: whether a criterion compares output and target; otherwise the model takes both.
            takes: how many positional arguments such a model takes at most; one that takes fewer gets no target.
        """
        if isinstance(raw, Mapping):
            key = next((k for k in TARGET_KEYS if k in raw), None)
            inputs = {k: v for k, v in raw.items() if k != key or not with_criterion}
            return cls(inputs, None if key is None else raw[key], raw)
        if isinstance(raw, list | tuple) and len(raw) > 1:
            whole = not with_criterion and len(raw) <= takes
            return cls(tuple(raw if whole else raw[:-1]), raw[-1], raw)
        if isinstance(raw, list | tuple) and len(raw) == 1:
            raw = raw[0]
        return cls((raw,), raw if with_criterion else None, raw)  # an autoencoder compares with its input

    def __len__(self) -> int:
        first = next(iter(self.inputs.values() if isinstance(self.inputs, dict) else self.inputs), None)
        notes = self.target if isinstance(self.target, list) else []
        if isinstance(first, list) and len(first) == len(notes) and any(isinstance(v, Mapping) for v in notes):
            return len(notes)  # images of their own sizes and what is on them, one of each per example
        sizes = [len(t) for t in tensors(self.inputs) if t.ndim]
        return sizes[0] if sizes else 0

    @property
    def x(self) -> Tensor | None:
        """The first tensor among the inputs that has one row per example."""
        n = len(self)
        return next((t for t in tensors(self.inputs) if t.ndim and len(t) == n), None)

    @property
    def y(self) -> Tensor | None:
        """The target, where it is one tensor with one row per example."""
        target = self.target
        return target if isinstance(target, Tensor) and target.ndim and len(target) == len(self) else None

    @property
    def own_target(self) -> bool:
        """Whether the input is its own target, as of an autoencoder: `raw` cannot hold the one without the other."""
        return isinstance(self.inputs, tuple) and len(self.inputs) == 1 and self.inputs[0] is self.target

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with every tensor changed; a tensor that occurs twice is changed once."""
        seen: dict[int, Tensor] = {}

        def once(tensor: Tensor) -> Tensor:
            return seen.setdefault(id(tensor), change(tensor)) if id(tensor) not in seen else seen[id(tensor)]

        return Batch(apply(self.inputs, once), apply(self.target, once), apply(self.raw, once))

    def rows(self, index: Sequence[int] | Tensor | slice) -> Batch:
        """Some of the examples; tensors without one row per example stay whole.

        What the batch holds twice, as raw part and as input or target, the result holds twice too: whatever replaces
        one of them (`with_inputs`, `with_target`) finds the other by its identity.
        """
        n = len(self)
        places = range(n)[index] if isinstance(index, slice) else [int(i) for i in index]
        picked: dict[int, Any] = {}

        def pick(value: Any) -> Any:
            if id(value) not in picked:
                picked[id(value)] = cut(value)
            return picked[id(value)]

        def cut(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value[index] if value.ndim and len(value) == n else value
            if isinstance(value, list) and len(value) == n and not _columns(value, n):
                return [value[i] for i in places]
            if isinstance(value, Mapping):
                return {k: pick(v) for k, v in value.items()}
            if isinstance(value, tuple) and hasattr(value, "_fields"):
                return type(value)(*(pick(v) for v in value))
            return type(value)(pick(v) for v in value) if isinstance(value, list | tuple) else value

        parts = self.raw  # the pair of inputs and target is no list of two examples
        raw = type(parts)(pick(v) for v in parts) if type(parts) in (list, tuple) else pick(parts)
        inputs = (
            {k: pick(v) for k, v in self.inputs.items()}
            if isinstance(self.inputs, dict)
            else tuple(pick(v) for v in self.inputs)
        )
        return Batch(inputs, pick(self.target), raw)

    @property
    def listed(self) -> bool:
        """Whether some part is a list with one entry per example, such as what was found on each image."""
        parts = self.inputs.values() if isinstance(self.inputs, dict) else self.inputs
        return any(
            isinstance(v, list) and len(v) == len(self) and not _columns(v, len(self)) for v in (*parts, self.target)
        )

    def with_inputs(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with its input tensors changed and its target left alone."""
        target = set() if self.own_target else {id(t) for t in tensors(self.target)}
        both = {id(t): change(t) for t in tensors(self.inputs) if id(t) not in target}

        def swap(tensor: Tensor) -> Tensor:
            return both.get(id(tensor), tensor)

        return Batch(apply(self.inputs, swap), self.target, apply(self.raw, swap))

    def with_target(self, target: Any) -> Batch:
        """The batch with another target."""
        old = self.target

        def swap(value: Any) -> Any:
            return target if value is old else value

        given = self.inputs
        if isinstance(given, dict):
            inputs: Any = {k: swap(v) for k, v in given.items()}
        else:
            inputs = given if self.own_target else tuple(swap(v) for v in given)
        raw: Any = self.raw
        if isinstance(raw, Mapping):
            raw = {k: swap(v) for k, v in raw.items()}
        elif isinstance(raw, list | tuple):
            raw = tuple(swap(v) for v in raw)
        return Batch(inputs, target, raw)


def _columns(values: list[Any], n: int) -> bool:
    """Whether a list holds tensors with one row per example each, rather than one entry per example."""
    return bool(values) and all(isinstance(v, Tensor) and v.ndim and len(v) == n for v in values)


def apply(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A nest of tuples, lists and mappings with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {k: apply(v, change) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(apply(v, change) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(apply(v, change) for v in value)
    return value


def tensors(value: Any) -> list[Tensor]:
    """All tensors in a nest, in order."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [t for part in parts for t in tensors(part)]


def joined(batches: Sequence[Batch]) -> Batch | None:
    """Several batches as one; None where their tensors do not fit together, as after padding by batch."""
    if len(batches) == 1:
        return batches[0]
    if any(b.listed for b in batches):
        return None
    columns = [[tensors((b.inputs, b.target, b.raw)) for b in batches]]
    lists = columns[0]
    if not lists or len({len(found) for found in lists}) > 1:
        return None
    sizes = [len(b) for b in batches]
    merged: dict[int, Tensor] = {}
    for parts in zip(*lists, strict=True):
        if any(t.ndim == 0 or len(t) != n for t, n in zip(parts, sizes, strict=True)):
            whole = parts[0]
        elif len({t.shape[1:] for t in parts}) > 1:
            return None
        else:
            whole = torch.cat(parts)
        merged.setdefault(id(parts[0]), whole)
    first = batches[0]

    def swap(tensor: Tensor) -> Tensor:
        return merged[id(tensor)]

    return Batch(apply(first.inputs, swap), apply(first.target, swap), apply(first.raw, swap))
