"""Configuration of a run to facts: ``per_device_train_batch_size`` is a batch size.

By words, like `tags`: hyper-parameters have as many spellings as metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fitdoctor.readers.tags.words import collapsed, word_set, words_of
from fitdoctor.run import Fact


@dataclass(frozen=True, slots=True)
class _Pattern:
    """Names of one fact: every word of one of `wanted`, and none of `never`."""

    fact: str
    wanted: tuple[frozenset[str], ...]
    accepts: Callable[[object], Fact | None]
    never: frozenset[str] = frozenset()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _positive(value: object) -> Fact | None:
    number = _number(value)
    if number is None or number <= 0:
        return None
    return int(number) if number == int(number) and number < 2**53 else number


def _share(value: object) -> Fact | None:
    number = _number(value)
    return number if number is not None and 0 <= number < 1 else None


def _count(value: object) -> Fact | None:
    number = _number(value)
    return int(number) if number is not None and number >= 1 and number == int(number) else None


def _not_negative(value: object) -> Fact | None:
    number = _number(value)
    return number if number is not None and number >= 0 else None


def _text(value: object) -> Fact | None:
    if isinstance(value, str) and 0 < len(value.strip()) <= 200:
        return value.strip()
    return None


def _words(*phrases: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(p.split()) for p in phrases)


_EVALUATION = word_set("eval evaluation val valid validation test testing predict inference")

_PATTERNS = (
    _Pattern(
        "batch_size",
        _words("batch size", "bs", "batchsize", "bsz", "batch", "bsize", "ims per batch"),
        _count,
        _EVALUATION | {"micro", "prefetch", "buffer", "sampler"},
    ),
    _Pattern(
        "gradient_accumulation_steps",
        _words(
            "accumulation steps",
            "gradient accumulation steps",
            "grad accumulation steps",
            "grad accum steps",
            "accumulate grad",
            "accum steps",
            "accum iter",
            "grad accum",
            "update freq",
            "gradient accumulation",
            "accumulate",
        ),
        _count,
    ),
    _Pattern(
        "clip_norm",
        _words(
            "max grad norm",
            "clip norm",
            "gradient clip",
            "grad clip",
            "clip grad",
            "clip grad norm",
            "clip gradient",
            "gradient clip val",
        ),
        _positive,
        frozenset({"algorithm", "mode", "type"}),
    ),
    _Pattern(
        "weight_decay",
        _words("weightdecay", "wd", "l2"),
        _not_negative,
        frozenset({"exclude", "bias", "schedule", "end", "final"}),
    ),
    _Pattern("label_smoothing", _words("labelsmoothing", "smoothing label"), _share),
    _Pattern(
        "warmup_steps",
        _words("warmup steps", "warmup iters", "warmup iterations", "warmup updates", "warm up steps"),
        _count,
        frozenset({"fraction", "ratio", "decay"}),
    ),
    _Pattern(
        "warmup_fraction",
        _words("warmup ratio", "warmup fraction", "warmup steps fraction", "warmup proportion"),
        _share,
        frozenset({"lr", "start"}),
    ),
    _Pattern("warmup_epochs", _words("warmup epochs", "warmup epoch"), _positive),
    _Pattern(
        "planned_epochs",
        _words(
            "epochs",
            "num epochs",
            "max epochs",
            "n epochs",
            "nepochs",
            "train epochs",
            "num train epochs",
            "total epochs",
            "max epoch",
            "num epoch",
            "n epoch",
        ),
        _positive,
        word_set(
            """
    warmup decay patience every start end save eval warm log cooldown freeze unfreeze current close
    mosaic early step per
    """
        ),
    ),
    _Pattern(
        "planned_steps",
        _words(
            "max steps",
            "total steps",
            "num train steps",
            "train steps",
            "max iters",
            "max iter",
            "num steps",
            "max updates",
            "max update",
            "total iterations",
            "num iterations",
            "training steps",
            "train iters",
            "total timesteps",
        ),
        _count,
        word_set("warmup decay eval save log per accumulation every sampling inner"),
    ),
    _Pattern(
        "classes",
        _words(
            "num classes",
            "n classes",
            "nclasses",
            "classes",
            "num labels",
            "n labels",
            "nb classes",
            "nc",
            "num class",
            "vocab size",
        ),
        _count,
        frozenset({"per", "each"}),
    ),
    _Pattern(
        "n_train",
        _words(
            "num train",
            "n train",
            "train size",
            "num train samples",
            "train samples",
            "num train examples",
            "train examples",
        ),
        _count,
        word_set("epochs epoch steps batch per step iters"),
    ),
    _Pattern("optimizer", _words("optimizer", "optim", "opt", "optimizer name", "optimizer type"), _text),
    _Pattern("loss_function", _words("loss", "criterion", "loss function", "loss fn", "loss type", "loss name"), _text),
    _Pattern(
        "learning_rate",
        _words("lr", "base lr", "lr0", "init lr", "initial lr", "max lr", "peak lr"),
        _positive,
        word_set(
            """
    min final decay factor schedule scheduler warmup end gamma patience mult multiplier ratio power
    step drop type
    """
        ),
    ),
)

_NOISE = word_set(
    """
    config cfg args hparams params hyperparameters hyper training train trainer model optimizer
    optim data dataset settings setup general per device gpu global base value val default hp opt
    solver the main total num n type name datamodule dataloader loader experiment
    """
)


def facts_from_params(params: Mapping[str, object]) -> dict[str, Fact]:
    """Facts that a run's configuration tells, under the keys of `Run.facts`.

    Of several names that fit one fact, the one with the fewest words wins, then the first. What our own monitor
    wrote are facts already, under their own names.

    Example:
        >>> facts_from_params({"per_device_train_batch_size": 8, "max_grad_norm": "1.0", "seed": 3})
        {'batch_size': 8, 'clip_norm': 1}
    """
    if str(params.get("monitor", "")).startswith("fitdoctor"):
        return {name: value for name, value in params.items() if isinstance(value, str | int | float)}
    best: dict[str, tuple[int, Fact]] = {}
    for name, value in params.items():
        words = collapsed(words_of(str(name).replace("/", " ")))
        if not words or len(words) > 10:
            continue
        for pattern in _PATTERNS:
            extra = _extra_words(words, pattern)
            if extra is None or (fact := pattern.accepts(value)) is None:
                continue
            if pattern.fact not in best or extra < best[pattern.fact][0]:
                best[pattern.fact] = (extra, fact)
            break
    return {pattern.fact: best[pattern.fact][1] for pattern in _PATTERNS if pattern.fact in best}


def _extra_words(words: Iterable[str], pattern: _Pattern) -> int | None:
    """How many words the name has beyond the pattern; None when it does not fit."""
    present = frozenset(words)
    if not pattern.never.isdisjoint(present):
        return None
    fitting = [w for w in pattern.wanted if w <= present and present - w <= _NOISE]
    return min((len(present - w) for w in fitting), default=None)
