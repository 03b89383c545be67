"""How sharp attention is, read from what autograd has kept of it.

Nothing of the model is wrapped or run again. In a recorded forward pass each layer that takes the output of an
attention (its output projection, or `nn.MultiheadAttention` itself) is a place from where the graph leads back to it in
a few hops: to a fused kernel that has kept queries and keys, or to a softmax that has kept its result. Of those a few
queries are looked at. What runs inside torch.compile, a checkpointed segment or a kernel of another library is no such
node, and is not measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fitdoctor.live.activations import first_tensor
from fitdoctor.live.sinks import ABSENT, Point, Vector
from fitdoctor.live.transport import Row
from fitdoctor.run import FloatArray
from fitdoctor.signals import ATTENTION_ENTROPY, ATTENTION_LOGIT_ABSMAX, ATTENTION_SHARP_FRACTION

INPUTS, HEADS, QUERIES = 4, 16, 8
"""Inputs, heads of each and queries of each head that are looked at."""

SHARP = 0.1
"""Normalised entropy below which a head counts as sharp: a tenth of what even attention has."""

_HOPS = 10  # operations between an attention and the layer after it, and between its two products
_PASSES = frozenset(
    {
        "View", "UnsafeView", "Reshape", "ReshapeAlias", "AsStrided", "Permute", "Transpose", "T", "Squeeze",
        "Unsqueeze", "Expand", "Clone", "Contiguous", "ToCopy", "Alias", "NativeDropout", "Mul", "Div", "MaskedFill",
    }
)  # fmt: skip
"""Operations that hand on what they get."""

_PRODUCTS = ("Bmm", "Mm", "Addmm", "Baddbmm", "Matmul", "Linear")
_SOFTMAX = ("Softmax", "SafeSoftmax")
_FUSED = "ScaledDotProduct"


class AttentionRecorder:
    """Finds the attentions of a model in one forward pass, and looks at them in those that are recorded.

    Args:
        layers: name -> module, as in the per-layer signals.
        spend: is told the seconds of each look.
    """

    def __init__(self, layers: Mapping[str, nn.Module], spend: Callable[[float], None] = lambda seconds: None) -> None:
        self._names, self._modules = tuple(layers), tuple(layers.values())
        self._spend = spend
        self._found: dict[int, str] = {}  # layer -> name of the attention before it, or that it is
        self._seen: dict[int, Tensor] = {}
        self._most: dict[tuple[int, torch.Size], Tensor] = {}
        self._searched = False

    @property
    def layers(self) -> Collection[int]:
        """The layers whose inputs are worth a look: all until the attentions are found."""
        return self._found if self._searched else range(len(self._names))

    def note(self, layer: int, args: Sequence[object], output: object) -> None:
        """A layer has run; the graph behind it is there."""
        began = time.perf_counter()
        hooks: Any = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
        # Where hooks hold what autograd keeps (checkpointing, offloading), to read it is to compute or fetch it again.
        if (hooks is None or hooks(False) is None) and torch._C._current_graph_task_id() == -1:
            node = attention_behind(self._modules[layer], args, output)
            if node is not None and (layer in self._found or self._name(layer)):
                with torch.no_grad():
                    seen = self._look(layer, node)
                if seen is not None:
                    self._seen[layer] = seen
        self._spend(time.perf_counter() - began)

    def _name(self, layer: int) -> bool:
        """Give a layer's attention its name; False where another layer has it."""
        name = self._names[layer]
        if not isinstance(self._modules[layer], nn.MultiheadAttention):
            name = name.rpartition(".")[0] or name
        if name in self._found.values():
            return False
        self._found[layer] = name
        return True

    def _look(self, layer: int, node: Any) -> Tensor | None:
        """Entropy, share of sharp heads and largest logit of an attention, float32[3]."""
        if node.name().startswith(_FUSED):
            logits, allowed = _fused(node)
            if logits is None or allowed is None:
                return None
            p = logits.masked_fill(~allowed, -math.inf).softmax(-1)
            count = allowed.sum(-1).expand(p.shape[:-1])
            largest = logits.masked_fill(~allowed, 0.0).abs().amax()
        else:
            kept = _kept(node, self._modules[layer])
            if kept is None:
                return None
            p, largest = kept, kept.new_full((), math.nan)
            count = self._seen_keys(layer, p)
        several = count > 1
        share = torch.where(several, torch.special.entr(p).sum(-1) / count.float().log(), 0.0)
        rows = several.sum(-1)
        judged = rows > 0
        heads = torch.where(judged, share.sum(-1) / rows, 0.0)
        sharp = (heads < SHARP) & judged
        return torch.stack([*(torch.stack([heads.sum(), sharp.sum()]) / judged.sum()), largest])

    def _seen_keys(self, layer: int, p: Tensor) -> Tensor:
        """How many keys each query sees: those to which some head of its input gives a share that is not 0."""
        count = (p > 0).sum(-1).amax(1, keepdim=True)
        most = count.amax(0, keepdim=True)
        key = (layer, p.shape[1:])
        earlier = self._most.get(key)
        self._most[key] = most = most if earlier is None else torch.maximum(most, earlier)
        # One key alone: the mask leaves no other, or all others have underflowed; then earlier records tell.
        return torch.where(count == 1, most, count).expand(p.shape[:-1])

    def finish(self) -> None:
        """The pass is over: what was not found in it is not looked for again."""
        if not self._searched:
            self._searched = True
            self._decoder = _Attention(tuple(self._found.values()))

    def after_step(self, row: Row) -> None:
        """Put what was seen since the last record into the row."""
        if self._seen:
            nothing = next(iter(self._seen.values())).new_full((3,), math.nan)
            row.add(self._decoder, torch.cat([self._seen.get(layer, nothing) for layer in self._found]))
            self._seen.clear()


class _Attention:
    """Makes measurements of three numbers per attention."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def __call__(self, row: Row, values: FloatArray) -> list[Point | Vector]:
        entropy, sharp, largest = values.reshape(-1, 3).T
        measured = (
            (ATTENTION_ENTROPY, entropy),
            (ATTENTION_SHARP_FRACTION, sharp),
            (ATTENTION_LOGIT_ABSMAX, largest),
        )
        return [
            row.vector(quantity, self.names, np.where(np.isnan(found), ABSENT, found))
            for quantity, found in measured
            if not np.isnan(found).all()
        ]


# --- finding it in the graph --------------------------------------------------------------------------


def attention_behind(module: nn.Module, args: Sequence[object], output: object) -> Any:
    """The node of the graph that made the attention whose output a layer takes; None where there is none."""
    if isinstance(module, nn.MultiheadAttention):
        projected = getattr(first_tensor(output), "grad_fn", None)
        return next((n for n in _back(projected, through=_PRODUCTS) if _attends(n)), None)
    node = getattr(first_tensor(list(args)), "grad_fn", None)
    for inner in _back(node):
        if _attends(inner):
            return inner
        if _kind(inner) in ("Bmm", "Matmul"):
            # The product of shares and values: the shares come from a softmax, through dropout at most.
            return next((n for child in _inputs(inner)[:1] for n in _back(child) if _kind(n) in _SOFTMAX), None)
    return None


def _attends(node: Any) -> bool:
    return bool(node.name().startswith(_FUSED)) or _kind(node) in _SOFTMAX


def _back(node: Any, through: Collection[str] = ()) -> Iterator[Any]:
    """The nodes behind one, itself included, as far as each only hands on what it gets; breadth first."""
    waiting = [] if node is None else [(node, 0)]
    for node, hops in waiting:
        yield node
        if hops < _HOPS + 4 * bool(through) and (_kind(node) in _PASSES or _kind(node) in through):
            waiting += [(inner, hops + 1) for inner in _inputs(node)]


def _inputs(node: Any) -> list[Any]:
    return [inner for inner, _ in node.next_functions if inner is not None]


def _kind(node: Any) -> str:
    name: str = node.name()
    return name.rstrip("0123456789").removesuffix("Backward")


# --- looking at it ------------------------------------------------------------------------------------


def _fused(node: Any) -> tuple[Tensor | None, Tensor | None]:
    """Logits of some queries of a fused attention, float32[inputs, heads, queries, keys], and which keys they see."""
    q, k = _saved(node, "query"), _saved(node, "key")
    if q is None or k is None or q.ndim != 4 or k.shape[-1] != q.shape[-1]:
        return None, None
    scale = getattr(node, "_saved_scale", None)
    inputs, heads, queries = _every(q.shape[0], INPUTS), _every(q.shape[1], HEADS), _every(q.shape[2], QUERIES)
    grouped = q.shape[1] // k.shape[1]
    if grouped > 1:
        k = k.repeat_interleave(grouped, 1)
    some = q[inputs, heads, queries].float()
    keys = k[inputs, heads].float()
    logits = some @ keys.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    bias = _saved(node, "attn_mask")
    bias = _saved(node, "attn_bias") if bias is None else bias
    allowed = torch.ones(1, 1, 1, k.shape[2], dtype=torch.bool, device=q.device)
    if bias is not None:
        bias = bias.expand(*q.shape[:3], k.shape[2])[inputs, heads, queries].float()
        logits, allowed = (
            logits + bias.masked_fill(bias == -math.inf, 0.0),
            bias > -1e4,
        )  # HF masks with the least float
    if getattr(node, "_saved_is_causal", False):
        at = torch.arange(q.shape[2], device=q.device)[queries]
        allowed = allowed & (torch.arange(k.shape[2], device=q.device) <= at.unsqueeze(-1))
    return logits, allowed


def _kept(node: Any, module: nn.Module) -> Tensor | None:
    """Shares of some queries as a softmax has kept them, float32[inputs, heads, queries, keys]."""
    p = _saved(node, "result")
    if p is None or p.ndim not in (3, 4) or p.shape[-1] < 2:
        return None
    dim = getattr(node, "_saved_dim", p.ndim - 1)
    if dim % 2**63 not in (p.ndim - 1, 2**63 - 1):
        return None
    if p.ndim == 3:
        heads = module.num_heads if isinstance(module, nn.MultiheadAttention) else 1
        heads = heads if heads and len(p) % heads == 0 else 1
        p = p.view(len(p) // heads, heads, *p.shape[1:]) if heads > 1 else p.unsqueeze(0)
    inputs, heads_, queries = _every(p.shape[0], INPUTS), _every(p.shape[1], HEADS), _every(p.shape[2], QUERIES)
    return p[inputs, heads_, queries].float()


def _saved(node: Any, name: str) -> Tensor | None:
    """A tensor that a node has kept, if its numbers lie on this process."""
    value = getattr(node, f"_saved_{name}", None)
    if not isinstance(value, Tensor) or value.layout != torch.strided or hasattr(value, "to_local"):
        return None
    return value.detach()


def _every(size: int, most: int) -> slice:
    """At most so many evenly spaced places, the last among them: the last query sees the most keys."""
    step = -(-size // most)
    return slice((size - 1) % step, None, step)
