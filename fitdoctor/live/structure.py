"""What the layers of a model are, in which order they run, and which takes its input straight from which.

Found in one forward pass, from the modules and from the autograd graph that the pass builds. Nothing is
computed and nothing kept: the graph's nodes are forgotten when the pass ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from fitdoctor.live.activations import SATURATING, first_tensor
from fitdoctor.live.layers import Described

_AFFINE = (nn.Linear, nn.modules.conv._ConvNd)
_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Threshold)
_SMOOTH = (
    nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Softplus, nn.Hardswish,
    nn.Softmax, nn.LogSoftmax, nn.GLU,
)  # fmt: skip
_NORMS = (
    nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm,
)  # fmt: skip

_PASSES = {
    "View", "UnsafeView", "Reshape", "ReshapeAlias", "AsStrided", "Permute", "Transpose", "T", "Squeeze", "Unsqueeze",
    "Expand", "Clone", "Contiguous", "ToCopy", "Alias", "NativeDropout", "Mul", "Div",
}  # fmt: skip
"""Operations that hand on what they get; products only when the other factor needs no gradient, like dropout's mask."""

_POOLS = {"MaxPool2DWithIndices", "MaxPool3DWithIndices", "AvgPool2D", "Mean", "Slice", "Select"}
_FUNCTIONS = {"Relu": "relu", "Threshold": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
_MOST_HOPS = 8

APPLIED = "applied "
"""Prefix of a function that a layer applies itself, so that its output is the function's."""


@dataclass(slots=True)
class _Entry:
    """What was found of one layer, in the order of the forward pass."""

    name: str
    role: str
    inputs: int
    outputs: int
    after: str = ""
    source: str = ""

    def row(self) -> list[str | int]:
        after = {"relu": "rectifier", "smooth": "smooth", "": ""}.get(self.after.removeprefix(APPLIED), "saturating")
        return [self.name, self.role, self.inputs, self.outputs, after, self.source]


class Structure:
    """Watches one forward pass.

    Args:
        layers: name -> module, as in the per-layer signals.
        tell: receives what was found, in the form of the fact ``layers``.
        functions: receives, for each layer whose output goes into an activation without a module, its index and the
            function: "relu", "tanh" or "sigmoid", after `APPLIED` where the output is that of the function.
        describe: tells what a layer is.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        tell: Callable[[str], None],
        functions: Callable[[Mapping[int, str]], None] = lambda found: None,
        describe: Callable[[nn.Module], Described] | None = None,
    ) -> None:
        self._layers = list(layers.items())
        self._tell, self._functions = tell, functions
        self._describe = describe or described
        self._entries: dict[int, _Entry] = {}
        self._made: dict[Any, int] = {}  # node of the graph -> layer whose output it made
        self._summed: set[int] = set()  # layers whose output is a summand of a skip connection
        self.done = False

    @property
    def layers(self) -> Collection[int]:
        """All layers until a pass was seen, none after it."""
        return () if self.done else range(len(self._layers))

    def note(self, layer: int, args: Sequence[object], output: object) -> None:
        """A layer has run."""
        if self.done:
            return
        name, module = self._layers[layer]
        made: Any = getattr(first_tensor(output), "grad_fn", None)
        node: Any = getattr(first_tensor(list(args)), "grad_fn", None)
        if node is not None and node is made:  # in place: the input is the output by now
            node = node.next_functions[0][0] if node.next_functions else None
        if layer not in self._entries:
            role, inputs, outputs, applies = self._describe(module)
            self._entries[layer] = _Entry(name, role, inputs, outputs, APPLIED + applies if applies else "")
            self._follow(layer, node)
        if made is not None:
            self._made[made] = layer

    def _follow(self, layer: int, node: Any) -> None:
        """Find the layer from which an input comes, and what was done to it on the way."""
        changed, function = False, ""
        for _ in range(_MOST_HOPS):
            if node is None:
                return
            origin = self._made.get(node)
            if origin is not None:
                entry = self._entries[origin]
                if function:
                    entry.after = entry.after or function
                elif not changed:
                    self._entries[layer].source = entry.name
                return
            kind = node.name().rstrip("0123456789").removesuffix("Backward")
            inner = [n for n, _ in node.next_functions if n is not None]
            if kind == "Add":
                self._summed.update(self._made[n] for n in inner if n in self._made)
            if kind in _FUNCTIONS and not function:
                function = _FUNCTIONS[kind]
            elif kind in _POOLS:
                changed = True
            elif kind not in _PASSES:
                return
            node = inner[0] if len(inner) == 1 else None

    def finish(self) -> None:
        """The pass is over."""
        if self.done or not self._entries:
            return
        self.done = True
        self._made.clear()
        skipped = {self._entries[i].name for i in self._summed if self._entries[i].role == "affine"}
        for entry in self._entries.values():  # what also goes round a layer is not only that layer's input
            entry.source = "" if entry.source in skipped else entry.source
        found = {i: e.after for i, e in self._entries.items() if e.after}
        self._tell(json.dumps([e.row() for e in self._entries.values()], separators=(",", ":")))
        if found:
            self._functions(found)


def described(module: nn.Module) -> Described:
    """What a module of torch is."""
    weight = getattr(module, "weight", None)
    if isinstance(module, _AFFINE) or (type(module).__name__ == "Conv1D" and getattr(weight, "ndim", 0) == 2):
        if getattr(weight, "ndim", 0) < 2:  # lazy, quantised or parametrised away
            return Described("affine")
        assert weight is not None
        grouped = getattr(module, "groups", 1) > 1
        return Described("affine", 0 if grouped else int(weight[0].numel()), int(weight.shape[0]))
    for role, kinds in (("rectifier", _RECTIFIERS), ("saturating", tuple(SATURATING)), ("smooth", _SMOOTH)):
        if isinstance(module, kinds):
            return Described(role)
    return Described("norm" if isinstance(module, _NORMS) else "other")
