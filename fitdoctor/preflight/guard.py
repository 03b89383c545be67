"""Puts everything back that a probe may have changed, and proves it.

A `State` walks over the objects that a training program consists of: modules and their Python attributes, parameters,
buffers, gradients, modes, optimizer, scheduler and scaler, loaders with their samplers, generators and datasets. It
notes what each object holds. `restore` puts the same contents back into the same objects, so references that others
keep stay valid; `changes` compares a digest of every part with that of the beginning.
"""

from __future__ import annotations

import io
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset, Sampler

LONG = 2_000
"""Containers of the data longer than this are noted as a whole: their elements are examples, not state."""

LARGE = 256 * 2**20
"""Bytes of tensors and arrays inside datasets that are copied; beyond, they are trusted not to change."""

_OURS = (nn.Module, Optimizer, LRScheduler, torch.amp.GradScaler, DataLoader, Sampler, Dataset)
_OPAQUE = {
    *sys.stdlib_module_names, "torch", "numpy", "pandas", "PIL", "pyarrow", "polars", "h5py", "zarr", "datasets", "cv2",
    "scipy", "sklearn", "tokenizers", "transformers", "accelerate", "click", "rich", "fitdoctor",
}  # fmt: skip
"""Packages whose objects are not looked into, unless they are of a kind in `_OURS`."""


class State:
    """What some objects hold at the moment of making.

    Args:
        program: name -> object whose tensors may change: model, criterion, optimizer, scheduler, scaler.
        data: name -> loader; large arrays inside are not copied.
    """

    def __init__(self, program: dict[str, object], data: dict[str, object]) -> None:
        self._saved: list[_Saved] = []
        self._seen: dict[int, object] = {}  # objects are kept, so that no id is used twice
        self._copied = 0
        self._random = _random_states()
        for name, root in program.items():
            self._walk(name, root, data=False)
            for i, module in enumerate(root.modules() if isinstance(root, nn.Module) else ()):
                self._add(f"{name}, module {i}, mode", module, _Mode)  # a ScriptModule keeps its mode elsewhere
            if isinstance(root, nn.Module):
                for key, tensor in [*root.named_parameters(), *root.named_buffers()]:
                    self._walk(f"{name}.{key}", tensor, data=False)
        for name, root in data.items():
            self._walk(name, root, data=True)
        self._digests = [saved.digest() for saved in self._saved]

    def restore(self) -> None:
        """Put everything back."""
        with torch.no_grad():
            for saved in self._saved:
                saved.restore()
        _set_random_states(self._random)

    def changes(self) -> list[str]:
        """Where something differs from the beginning: names of parts, such as ``model.fc.weight``."""
        found = [s.where for s, before in zip(self._saved, self._digests, strict=True) if s.digest() != before]
        now = _random_states()
        found += [
            f"random numbers of {name}" for name, state in self._random.items() if not _same(state, now.get(name))
        ]
        return found

    def _add(self, where: str, thing: Any, kind: Callable[[str, Any], _Saved]) -> None:
        self._saved.append(kind(where, thing))

    def _walk(self, where: str, thing: object, *, data: bool) -> None:
        """Note an object and what it refers to; without recursion, since module graphs can be deep."""
        todo: list[tuple[str, object]] = [(where, thing)]
        while todo:
            place, item = todo.pop()
            if id(item) in self._seen or (kind := _kind_of(item)) is None:
                continue
            self._seen[id(item)] = item
            if data and isinstance(item, Tensor | np.ndarray):
                self._copied += item.nbytes
                if self._copied > LARGE:
                    continue
            self._add(place, item, kind)
            if not (data and isinstance(item, dict | list | tuple | set | deque) and len(item) > LONG):
                todo.extend((f"{place}{key}", child) for key, child in _children(item))


def _children(item: object) -> Iterator[tuple[str, object]]:
    if isinstance(item, Tensor):
        if item.is_leaf and item.grad is not None:
            yield ".grad", item.grad
    elif isinstance(item, dict):
        for i, (key, value) in enumerate(item.items()):
            name = key if isinstance(key, str | int) else i
            if not isinstance(key, str | int | Tensor):
                yield f"[key {i}]", key
            yield f"[{name!r}]", value
    elif isinstance(item, list | tuple | deque | set | frozenset):
        for i, value in enumerate(item):
            yield f"[{i}]", value
    elif not isinstance(
        item, torch.Generator | np.random.Generator | np.random.RandomState | random.Random | io.IOBase
    ):
        for key, value in _attributes(item).items():
            if isinstance(item, nn.Module) and key in ("_parameters", "_buffers", "_modules"):
                yield "", value
            else:
                yield f".{key}", value


def _attributes(item: object) -> dict[str, Any]:
    found: dict[str, Any] = dict(getattr(item, "__dict__", {}))
    for cls in type(item).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(item, name):
                found[name] = getattr(item, name)
    return found


def _kind_of(item: object) -> Callable[[str, Any], _Saved] | None:
    """How to note an object; None for what cannot change, or cannot be looked into."""
    for types, kind in _KINDS:
        if isinstance(item, types):
            return kind
    if isinstance(item, type) or (callable(item) and not hasattr(item, "__dict__")):
        return None
    if isinstance(item, _OURS):
        return _Attributes
    home = type(item).__module__.partition(".")[0]
    plain = hasattr(item, "__dict__") or hasattr(type(item), "__slots__")
    return _Attributes if plain and home not in _OPAQUE and not isinstance(item, BaseException) else None


# --- how each kind of object is noted ------------------------------------------------------------------


@dataclass(slots=True)
class _Saved:
    """One object with what it held."""

    where: str
    thing: Any

    def restore(self) -> None:
        raise NotImplementedError

    def digest(self) -> bytes:
        raise NotImplementedError


class _Array(_Saved):
    def __init__(self, where: str, thing: Any) -> None:
        super().__init__(where, thing)
        self.copy = thing.copy()

    def restore(self) -> None:
        if self.thing.flags.writeable and self.digest() != _digest(self.copy.tobytes()):
            self.thing[...] = self.copy

    def digest(self) -> bytes:
        return _digest(self.thing.tobytes()) if self.thing.dtype != object else b""


class _TensorState(_Saved):
    def __init__(self, where: str, thing: Tensor) -> None:
        super().__init__(where, thing)
        self.alias = thing.detach()
        self.copy = _copied(self.alias)
        self.asks_grad = thing.requires_grad
        self.grad = thing.grad if thing.is_leaf else None

    def restore(self) -> None:
        tensor: Tensor = self.thing
        if tensor.is_leaf:
            if tensor.requires_grad != self.asks_grad:
                tensor.requires_grad_(self.asks_grad)
            tensor.grad = None  # a gradient of another shape may stand there while .data is put back
            if tensor.data_ptr() != self.alias.data_ptr() or tensor.shape != self.alias.shape:
                tensor.data = self.alias
        self.alias.copy_(self.copy)
        if tensor.is_leaf:
            tensor.grad = self.grad

    def digest(self) -> bytes:
        tensor: Tensor = self.thing
        grad = id(tensor.grad) if tensor.is_leaf else 0
        return _digest(f"{tensor.requires_grad} {grad} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum(tensor))


class _Mapping(_Saved):
    def __init__(self, where: str, thing: dict[Any, Any]) -> None:
        super().__init__(where, thing)
        self.items = list(thing.items())

    def restore(self) -> None:
        if list(map(_mark, self.thing.items())) != list(map(_mark, self.items)):
            self.thing.clear()
            dict.update(self.thing, self.items)

    def digest(self) -> bytes:
        return _digest(repr([(_mark(k), _mark(v)) for k, v in self.thing.items()]).encode())


class _Sequence(_Saved):
    def __init__(self, where: str, thing: Any) -> None:
        super().__init__(where, thing)
        self.items = list(thing)

    def restore(self) -> None:
        if isinstance(self.thing, tuple | frozenset):
            return
        if list(map(_mark, self.thing)) != list(map(_mark, self.items)):
            self.thing.clear()
            (self.thing.update if isinstance(self.thing, set) else self.thing.extend)(self.items)

    def digest(self) -> bytes:
        marks = [repr(_mark(v)) for v in self.thing]
        return _digest(repr(sorted(marks) if isinstance(self.thing, set | frozenset) else marks).encode())


class _Attributes(_Saved):
    def __init__(self, where: str, thing: Any) -> None:
        super().__init__(where, thing)
        self.items = _attributes(thing)

    def restore(self) -> None:
        now = _attributes(self.thing)
        for name in now.keys() - self.items.keys():
            object.__delattr__(self.thing, name)
        for name, value in self.items.items():
            if name not in now or _mark(now[name]) != _mark(value):
                object.__setattr__(self.thing, name, value)

    def digest(self) -> bytes:
        return _digest(repr([(name, _mark(value)) for name, value in _attributes(self.thing).items()]).encode())


class _Mode(_Saved):
    def __init__(self, where: str, thing: nn.Module) -> None:
        super().__init__(where, thing)
        self.training = thing.training

    def restore(self) -> None:
        if self.thing.training != self.training:
            self.thing.training = self.training  # .train() would recurse, and may be overridden

    def digest(self) -> bytes:
        return bytes([self.thing.training])


class _Source(_Saved):
    """A generator of random numbers, or a position in a file."""

    def __init__(self, where: str, thing: Any) -> None:
        super().__init__(where, thing)
        self.state = self._get()

    def _get(self) -> Any:
        thing = self.thing
        if isinstance(thing, torch.Generator):
            return thing.get_state()
        if isinstance(thing, np.random.Generator):
            return thing.bit_generator.state
        if isinstance(thing, np.random.RandomState):
            return thing.get_state(legacy=False)
        if isinstance(thing, random.Random):
            return thing.getstate()
        return thing.tell() if not thing.closed and thing.seekable() else None

    def restore(self) -> None:
        thing = self.thing
        if isinstance(thing, torch.Generator):
            thing.set_state(self.state)
        elif isinstance(thing, np.random.Generator):
            thing.bit_generator.state = self.state
        elif isinstance(thing, np.random.RandomState):
            thing.set_state(self.state)
        elif isinstance(thing, random.Random):
            thing.setstate(self.state)
        elif self.state is not None and not thing.closed:
            thing.seek(self.state)

    def digest(self) -> bytes:
        return _digest(_flat(self._get()))


_KINDS: tuple[tuple[Any, Callable[[str, Any], _Saved]], ...] = (
    (Tensor, _TensorState),
    (np.ndarray, _Array),
    (dict, _Mapping),
    ((list, tuple, set, frozenset, deque), _Sequence),
    ((torch.Generator, np.random.Generator, np.random.RandomState, random.Random, io.IOBase), _Source),
)


def checksum(tensor: Tensor) -> bytes:
    """A digest of a tensor's values; on an accelerator computed there, since copying to the host would take longer."""
    values = tensor.detach()
    if values.layout is not torch.strided or hasattr(values, "device_mesh"):
        values = values.to_local() if hasattr(values, "to_local") else values.to_dense()
    if values.device.type in ("cpu", "meta"):
        return (
            b""
            if values.device.type == "meta"
            else values.contiguous().view(torch.uint8).numpy().tobytes()
            if values.ndim
            else values.reshape(1).view(torch.uint8).numpy().tobytes()
        )
    lanes = values.contiguous().reshape(-1).view(torch.uint8).to(torch.int64)
    # Positions enter through odd multipliers, so that swapped values are seen; int64 wraps around.
    place = (
        torch.arange(lanes.numel(), device=lanes.device, dtype=torch.int64) * 6364136223846793005 + 1442695040888963407
    )
    return int((lanes * (place | 1)).sum()).to_bytes(8, "little", signed=True)


def _copied(tensor: Tensor) -> Tensor:
    """A copy beside the tensor, or on the host where the device has not twice the room."""
    if tensor.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(tensor.device)
        if free < 4 * tensor.nbytes + 2**28:
            return tensor.to("cpu", copy=True)
    return tensor.clone()


def _mark(value: object) -> object:
    """A value that cannot change as itself, any other object by its identity."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return repr(value)
    if isinstance(value, tuple) and len(value) < 8:
        return tuple(_mark(v) for v in value)
    return id(value)


def _digest(*parts: bytes) -> bytes:
    summary = blake2b(digest_size=16)
    for part in parts:
        summary.update(part)
    return summary.digest()


def _flat(state: Any) -> bytes:
    if isinstance(state, Tensor):
        return state.cpu().numpy().tobytes()
    if isinstance(state, dict):
        return b"".join(str(k).encode() + _flat(v) for k, v in state.items())
    return state.tobytes() if isinstance(state, np.ndarray) else repr(state).encode()


def _random_states() -> dict[str, Any]:
    """The states of all global generators."""
    states = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False), "torch": torch.get_rng_state()}  # noqa: NPY002
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for i, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"cuda:{i}"] = state
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    for name, state in states.items():
        if name.startswith("cuda:"):
            torch.cuda.set_rng_state(state, int(name[5:]))
        elif name == "mps":
            torch.mps.set_rng_state(state)


def _same(a: Any, b: Any) -> bool:
    return _flat(a) == _flat(b)
