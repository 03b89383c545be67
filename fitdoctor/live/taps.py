"""Where the monitor listens: hooks on modules and optimizers, and how they come off again.

Three promises hold for every hook here. An exception in it never reaches the training loop: it is
logged once and that hook is switched off. A copy or a pickle of a hooked module carries no hook. And
`torch.compile` traces each of them as nothing.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fitdoctor.errors import TrainingSick
from fitdoctor.live.stepping import Stepper

log = logging.getLogger("fitdoctor")


class Tap:
    """A hook of the monitor.

    Args:
        name: what it measures, for the log.
        action: what it calls; its result is dropped, so a hook can change nothing.
        told: shared by hooks of one kind, of which only the first failure is logged.
    """

    __slots__ = ("action", "name", "off", "told")

    def __init__(self, name: str, action: Callable[..., object], told: list[str] | None = None) -> None:
        self.name = name
        self.action = action
        self.off = False
        self.told: list[str] = [] if told is None else told

    def __call__(self, *args: Any) -> None:
        if torch.compiler.is_compiling() or self.off:
            return
        try:
            self.action(*args)
        except TrainingSick:
            raise
        except Exception:
            self.off = True
            if not self.told:
                log.exception("fitdoctor: measuring %s failed and is switched off; training is not affected", self.name)
            self.told.append(self.name)

    def __reduce__(self) -> tuple[type[Silence], tuple[()]]:
        return Silence, ()


def listen(tensor: Tensor, tap: Tap) -> None:
    """Have a tap called with the gradient with respect to a tensor."""
    tensor.register_hook(tap)  # type: ignore[no-untyped-call]


class Silence:
    """What a copy of a hooked object holds where a hook could not be left out."""

    def __call__(self, *args: object) -> None:
        return


class _Hooks(OrderedDict[Any, Any]):
    """Hooks of a module; copies and pickles leave ours out and are plain."""

    def __reduce__(self) -> tuple[type, tuple[()], None, None, Iterator[tuple[Any, Any]]]:
        others = [(key, hook) for key, hook in self.items() if not isinstance(hook, Tap)]
        return OrderedDict, (), None, None, iter(others)


class ModuleTap:
    """A hook on a module that can be taken off and put on again at next to no cost.

    Args:
        module: where it sits.
        when: "before" its forward (the hook gets module, args, kwargs) or "after" it (module, args, output).
        tap: the hook.
    """

    def __init__(self, module: nn.Module, when: str, tap: Tap) -> None:
        self._module, self._tap = module, tap
        self._name = "_forward_pre_hooks" if when == "before" else "_forward_hooks"
        names = [self._name, f"{self._name}_with_kwargs"]
        for name in names:
            if type(module.__dict__[name]) is OrderedDict and not module.__dict__[name]:
                # Only an empty one is replaced: handles of hooks that are in it would point to the old dictionary.
                module.__dict__[name] = _Hooks()
        self._kept = [name for name in names if type(module.__dict__[name]) is _Hooks]
        if when == "before":
            # Before all others: what FSDP's own hook gathers is no waiting for data, and what a hook makes of the
            # arguments it makes again when a probe calls the model with them.
            self._handle = module.register_forward_pre_hook(tap, prepend=True, with_kwargs=True)
            # Torch asks only whether the key is there; with our hook as its value, copies leave it out as well.
            module._forward_pre_hooks_with_kwargs[self._handle.id] = tap  # type: ignore[assignment]
        else:
            self._handle = module.register_forward_hook(tap)

    def put(self) -> None:
        """Put it on again."""
        self._module.__dict__[self._name][self._handle.id] = self._tap

    def take(self) -> None:
        """Take it off for a while."""
        self._module.__dict__[self._name].pop(self._handle.id, None)

    def remove(self) -> None:
        """Take it off for good."""
        self._handle.remove()
        for name in self._kept:
            if type(self._module.__dict__[name]) is _Hooks and not self._module.__dict__[name]:
                self._module.__dict__[name] = OrderedDict()


class PassWatch(Protocol):
    """What looks at inputs and outputs of some layers in a recorded forward pass."""

    @property
    def layers(self) -> Collection[int]:
        """Indices of the layers that it still wants to see, asked before each pass."""

    def note(self, layer: int, args: Sequence[object], output: object) -> None:
        """One of these layers has run."""

    def finish(self) -> None:
        """The pass is over."""


class LayerHooks:
    """Forward hooks on many layers that are there only while a recorded forward pass runs.

    Args:
        modules: the layers.
        action: receives a layer's index and its output.
        watches: look at a pass with its inputs, each at the layers that it names.
    """

    def __init__(
        self, modules: tuple[nn.Module, ...], action: Callable[[int, object], None], watches: Sequence[PassWatch] = ()
    ) -> None:
        self._modules = modules
        told: list[str] = []
        self._taps = [Tap(f"the output of layer {i}", _LayerAction(i, action), told) for i in range(len(modules))]
        self._watches = watches
        self._watch_taps: list[list[Tap]] = []
        for watch in watches:
            told = []
            self._watch_taps.append(
                [Tap(f"the input of layer {i}", _InputAction(i, watch), told) for i in range(len(modules))]
            )
        self._ends = [Tap("the order of the layers", watch.finish) for watch in watches]
        self._put: list[tuple[nn.Module, Tap]] = []
        self.on = False

    def put(self) -> None:
        """Put the hooks on."""
        if not self.on:
            self.on = True
            for module, tap in zip(self._modules, self._taps, strict=True):
                module._forward_hooks[id(tap)] = tap
            for watch, taps in zip(self._watches, self._watch_taps, strict=True):
                for layer in watch.layers:
                    self._put.append((self._modules[layer], taps[layer]))
            for module, tap in self._put:
                module._forward_hooks[id(tap)] = tap

    def take(self) -> None:
        """Take the hooks off."""
        if self.on:
            self.on = False
            for module, tap in zip(self._modules, self._taps, strict=True):
                module._forward_hooks.pop(id(tap), None)
            for module, tap in self._put:
                module._forward_hooks.pop(id(tap), None)
            if self._put:
                self._put.clear()
                for end in self._ends:
                    end()


class _LayerAction:
    __slots__ = ("action", "layer")

    def __init__(self, layer: int, action: Callable[[int, object], None]) -> None:
        self.layer, self.action = layer, action

    def __call__(self, module: nn.Module, args: object, output: object) -> None:
        self.action(self.layer, output)


class _InputAction:
    __slots__ = ("layer", "watch")

    def __init__(self, layer: int, watch: PassWatch) -> None:
        self.layer, self.watch = layer, watch

    def __call__(self, module: nn.Module, args: Sequence[object], output: object) -> None:
        self.watch.note(self.layer, args, output)


class CountedZeroGrad:
    """Stands in for an optimizer's `zero_grad` and counts its calls.

    It sits on the instance: an optimizer's pickles and copies take only its state, so it stays behind.
    """

    def __init__(self, optimizer: Stepper) -> None:
        self._optimizer = optimizer
        self._own = optimizer.__dict__.get("zero_grad")
        self._original = optimizer.zero_grad
        self.calls = 0
        optimizer.zero_grad = self  # type: ignore[method-assign]

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self.calls += 1
        self._original(*args, **kwargs)

    def remove(self) -> None:
        """Put the original back; where somebody has wrapped this one, only another monitor's can be bypassed."""
        top = self._optimizer.__dict__.get("zero_grad")
        if top is self:
            if self._own is None:
                del self._optimizer.zero_grad
            else:
                self._optimizer.zero_grad = self._own
        while isinstance(top, CountedZeroGrad):
            if top._own is self:
                top._own, top._original = self._own, self._original
            top = top._own
