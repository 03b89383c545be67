"""Tags about tensors: gradients, weights, updates and activations, as scalars or histograms."""

from __future__ import annotations

import re

from fitdoctor.readers.tags import words as vocabulary
from fitdoctor.readers.tags.name import Mapped, Name, Reading
from fitdoctor.readers.tags.words import words_of
from fitdoctor.signals import (
    GRAD_ABSMAX,
    GRAD_NORM,
    GRAD_NORM_CLIPPED,
    GRAD_ZERO_FRACTION,
    QUANTITIES,
    UPDATE_NORM,
    UPDATE_RATIO,
    WEIGHT_NORM,
    Signal,
)

_BEFORE_CLIP = frozenset({"before", "pre", "preclip", "unclipped", "raw", "original"})
_AFTER_CLIP = frozenset({"after", "post", "postclip", "clipped"})
_SPREAD_WORDS = frozenset(
    {
        "std",
        "var",
        "variance",
        "max",
        "min",
        "ratio",
        "threshold",
        "ema",
        "median",
        "noise",
        "coef",
        "cosine",
        "similarity",
        "sim",
        "fraction",
        "count",
        "value",
        "scale",
        "percentile",
        "cos",
        "snr",
    }
)


def norms(name: Name, statistic: str) -> Reading | None:
    """Norms of gradients, weights and updates, and other scalars about them."""
    norm = name.has("norm", "norms", "l2", "gnorm", "l2norm", "globalnorm", "totalnorm")
    grad = name.has("grad", "grads", "gradient", "gradients", "gnorm")
    loss = name.has(*vocabulary.LOSS_WORDS)
    if name.has("update", "updates") and name.has("ratio", "weight", "param", "params", "norm", "rms") and not grad:
        quantity = UPDATE_NORM if norm and not name.has("ratio") else UPDATE_RATIO
        return Mapped(Signal(quantity, layer=_layer(name, _UPDATE_NAMES)))
    if grad and not (loss and not norm):
        return _gradient(name, norm)
    if norm and name.has("weight", "weights", "param", "params", "parameter", "parameters") and not loss:
        if not _SPREAD_WORDS.isdisjoint(name.present - {"value"}):
            return "a statistic of weight norms"
        return Mapped(Signal(WEIGHT_NORM, layer=_layer(name, _WEIGHT_NAMES)))
    if name.words == ("norm",):  # llm.c and build-nanogpt print the gradient norm so
        return Mapped(Signal(GRAD_NORM), detours=3)
    if name.words[-1] in ("globalnorm", "totalnorm") and not loss:
        return Mapped(Signal(GRAD_NORM), detours=1)
    return _moments(name)


def _gradient(name: Name, norm: bool) -> Reading:
    layer = _layer(name, _GRAD_NAMES)
    if (norm and name.has("inf", "infinity")) or name.has("absmax") or (name.has("abs") and name.has("max")):
        return Mapped(Signal(GRAD_ABSMAX, layer=layer))
    if name.has("sparsity", "zeros") or (name.has("zero") and name.has("fraction", "frac", "ratio")):
        return Mapped(Signal(GRAD_ZERO_FRACTION, layer=layer))
    clipping = name.has("clip", "clipping", "clipped", "preclip", "postclip", "unclipped")
    before, after = not _BEFORE_CLIP.isdisjoint(name.present), not _AFTER_CLIP.isdisjoint(name.present)
    if clipping and not before and not after:
        return "a setting or a count of gradient clipping"
    if not _SPREAD_WORDS.isdisjoint(name.present):
        return "a statistic of gradients that is not their norm"
    if not norm and name.has(
        "mean", "avg", "sum", "accum", "accumulation", "penalty", "steps", "time", "checkpointing"
    ):
        return "a statistic of gradients that is not their norm"
    if re.search(r"(?:^|[^\d.])1\.0|(?:^|_)l1(?:_|$)", name.tag):
        return "an L1 norm"
    return Mapped(
        Signal(GRAD_NORM_CLIPPED if after and not before else GRAD_NORM, layer=layer), detours=0 if norm else 2
    )


def _moments(name: Name) -> Reading | None:
    """Scalars such as ``weights/fc1/std`` or ``activations/relu3/zero_fraction``."""
    kind = ""
    if name.has(*(vocabulary.ACTIVATION_WORDS - {"output", "outputs", "hidden", "feature", "features"})):
        kind = "activation"
    elif name.has("weights", "weight", "param", "params") and name.segments and not name.has(*vocabulary.LOSS_WORDS):
        kind = "weight"
    if not kind:
        return None
    statistic = next((s for s in ("mean", "std", "rms", "median", "spread") if name.has(s)), "")
    if name.has("absmax") or (name.has("abs") and name.has("max")):
        statistic = "absmax"
    if name.has("sparsity", "zeros") or (name.has("zero") and name.has("fraction", "frac", "ratio")):
        statistic = "zero_fraction"
    quantity = QUANTITIES.get(f"{kind}_{statistic}")
    if quantity is None:
        return None
    return Mapped(Signal(quantity, layer=_layer(name, _ACTIVATION_NAMES if kind == "activation" else _WEIGHT_NAMES)))


_BUFFERS = frozenset({"running", "tracked"})


def distribution(name: Name, statistic: str) -> Reading:
    """A statistic of a histogram: of gradients, activations or weights, as the name tells."""
    if name.has(*_BUFFERS) and name.has("mean", "var", "batches"):
        return "a buffer, not a parameter"
    last = [w for w in name.words if not w.isdigit()][-1:]
    if name.has(*vocabulary.GRAD_WORDS):
        kind, names = "grad", _GRAD_NAMES
    elif (last and last[0] in vocabulary.WEIGHT_WORDS) or name.has("weights", "params", "parameters"):
        kind, names = "weight", _WEIGHT_NAMES
    elif name.has(*vocabulary.ACTIVATION_WORDS):
        kind, names = "activation", _ACTIVATION_NAMES
    elif name.has("weight", "bias", "kernel", "embedding", "gamma", "beta"):
        kind, names = "weight", _WEIGHT_NAMES
    else:
        return "a histogram that is named neither as gradients, weights nor activations"
    quantity = QUANTITIES.get(f"{kind}_{statistic}")
    if quantity is None:
        return f"the {statistic} of a histogram of {kind}s is not used"
    return Mapped(Signal(quantity, layer=_layer(name, names)))


_COMMON = (
    r"norms?|l2|stats?|hist(?:ogram)?s?|distributions?|mean|std|rms|abs|max|absmax|zero|fraction|frac|sparsity|zeros|"
    r"median|spread|\d\.\d|inf"
)
_GRAD_NAMES = re.compile(
    rf"grad(?:ient)?s?|gnorm|g|{_COMMON}|total|global|all|model|before|after|pre|post|pre_?clip|post_?clip|clip(?:ped|ping)?|"
    r"unclipped|train(?:ing)?|metrics|optim(?:izer)?|average|avg|overall|raw|debug|health|norm_type|learning|default|policy|agent",
    re.I,
)
_WEIGHT_NAMES = re.compile(
    rf"weights|weight(?=[ _-]?norm)|params?|parameters?|{_COMMON}|total|global|train(?:ing)?|model|all|debug", re.I
)
_ACTIVATION_NAMES = re.compile(rf"activations?|acts?|outputs?|{_COMMON}|train(?:ing)?", re.I)
_UPDATE_NAMES = re.compile(
    rf"updates?|ratios?|to|weights?|params?|relative|{_COMMON}|total|global|train(?:ing)?|log10", re.I
)
_JOINTS = r" ._:\-"


def _layer(name: Name, family: re.Pattern[str]) -> str:
    """The layer's name as logged, without the words that say what was measured."""
    kept: list[str] = []
    for segment in name.segments:
        words = [w for w in words_of(segment) if not w.isdigit()]
        if words and all(w in vocabulary.NOISE or w in vocabulary.SPLIT_OF or family.fullmatch(w) for w in words):
            continue
        text = segment
        while match := re.match(rf"(?:{family.pattern})(?:[{_JOINTS}]+|$)", text, re.I):
            text = text[match.end() :]
        while match := re.search(rf"(?:^|[{_JOINTS}]+)(?:{family.pattern})$", text, re.I):
            text = text[: match.start()]
        if text:
            kept.append(text)
    return "/".join(x for x in (name.replica, *kept) if x)
