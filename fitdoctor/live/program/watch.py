"""Attributes of torch that tell when they are used: constructors, loss functions, `backward`, data loaders.

Each keeps its signature, source and result. As with hooks, what goes wrong in us never reaches the program, and
`torch.compile` and `torch.jit` see the original.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

from fitdoctor.live.taps import Tap


class Told:
    """An attribute of a class or module whose calls are told.

    Args:
        owner: class or module.
        name: of the function in it.
        tell: receives positional and keyword arguments and what was returned (None when it is told before the call).
        first: whether it is told before the call.
    """

    def __init__(self, owner: Any, name: str, tell: Callable[..., object], *, first: bool = False) -> None:
        self._owner, self._name = owner, name
        self._own = owner.__dict__.get(name)
        original = getattr(owner, name)
        self._tap = tap = Tap(f"{getattr(owner, '__name__', owner)}.{name}", tell)
        compiling = torch.compiler.is_compiling
        busy: list[bool] = []  # tensor subclasses call the function a second time from inside it

        def before(*args: Any, **kwargs: Any) -> Any:
            if not compiling():
                tap(args, kwargs, None)
            return original(*args, **kwargs)

        def after(*args: Any, **kwargs: Any) -> Any:
            if compiling() or busy:
                return original(*args, **kwargs)
            busy.append(True)
            try:
                value = original(*args, **kwargs)
            finally:
                busy.pop()
            tap(args, kwargs, value)
            return value

        inner = before if first else after
        # With the globals of the original, torch.jit finds what the original's source mentions.
        space = getattr(original, "__globals__", inner.__globals__)
        told = FunctionType(inner.__code__, space, inner.__name__, inner.__defaults__, inner.__closure__)
        self._told = functools.update_wrapper(told, original)
        setattr(owner, name, self._told)

    def remove(self) -> None:
        """Put the original back, unless somebody has replaced the attribute since; then only fall silent."""
        self._tap.off = True
        if self._owner.__dict__.get(self._name) is self._told:
            if self._own is None:
                delattr(self._owner, self._name)
            else:
                setattr(self._owner, self._name, self._own)
