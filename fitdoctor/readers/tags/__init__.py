"""Raw tag names to signals: `train/loss_epoch` is the training loss per epoch.

A name is taken apart into words (`words`), and the words are tried against one family of quantities
after the other, the more telling first. No list of whole names: what is not understood is left out,
with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache

from fitdoctor.errors import ConfigError
from fitdoctor.readers.tags.machine import clock, machine, optimizer
from fitdoctor.readers.tags.name import Mapped, Name, Reading
from fitdoctor.readers.tags.objective import loss, metric
from fitdoctor.readers.tags.params import facts_from_params as facts_from_params
from fitdoctor.readers.tags.tensors import distribution, norms
from fitdoctor.signals import QUANTITIES, SPLIT_QUANTITIES, SPLITS, Signal

_OF_THE_MACHINE = frozenset(QUANTITIES[q] for q in ("step_time", "data_time", "throughput", "memory"))
_FAMILIES = (clock, machine, optimizer, norms, loss, metric)


def parse_tag(tag: str, statistic: str = "") -> Mapped | None:
    """The signal of a tag, or None when the name does not tell.

    Args:
        tag: the name in the log.
        statistic: statistic of a distribution (`raw.Statistic`), "" for a scalar.

    Example:
        >>> str(parse_tag("eval_loss").signal), str(parse_tag("lr-AdamW/pg1").signal)
        ('val loss', 'lr of pg1')
        >>> parse_tag("best_val_loss") is None
        True
    """
    found = interpret(tag, statistic)
    return found if isinstance(found, Mapped) else None


@lru_cache(maxsize=65536)
def interpret(tag: str, statistic: str = "") -> Reading:
    """The meaning of a tag, or the reason why it has none that fitdoctor uses."""
    if tag.startswith("fitdoctor/"):
        return _own(tag.removeprefix("fitdoctor/"))
    name = Name.of(tag)
    if not name.words:
        return "its name has no letters"
    families = (distribution,) if statistic else _FAMILIES
    for family in families:
        found = family(name, statistic)
        if isinstance(found, Mapped):
            quantity = found.signal.quantity
            if quantity not in SPLIT_QUANTITIES:
                found = replace(found, signal=replace(found.signal, split="train"))
            per = "" if quantity in _OF_THE_MACHINE else found.per or name.per
            return replace(found, per=per, split_named=bool(name.split))
        if found is not None:
            return found
    return "its name holds no quantity that fitdoctor knows"


def _own(tag: str) -> Reading:
    """A tag of our own monitor, taken at its word: ``[split/]quantity[/layer]``."""
    first, _, rest = tag.partition("/")
    split, tag = (first, rest) if first in SPLITS else ("train", tag)
    name, _, layer = tag.partition("/")
    if name not in QUANTITIES:
        return f"{name!r} is a quantity of another version of fitdoctor"
    return Mapped(Signal(QUANTITIES[name], split, layer), per="step", detours=-1)


# --- what the user says -----------------------------------------------------------------------------------

Overrides = tuple[tuple[str, Mapped | None], ...]
"""Tag or glob -> its meaning; None leaves it out."""


def parse_overrides(tags: Mapping[str, str] | None) -> Overrides:
    """What the user wants tags to mean.

    Args:
        tags: tag or glob -> ``quantity``, ``quantity:split`` or ``quantity:split:layer``; ``ignore`` leaves it out.

    Raises:
        ConfigError: if a quantity or split does not exist.
    """
    return tuple((tag, _parse_meaning(tag, meaning)) for tag, meaning in (tags or {}).items())


def _parse_meaning(tag: str, meaning: str) -> Mapped | None:
    quantity, _, more = meaning.strip().partition(":")
    if quantity in ("ignore", "none", "-"):
        return None
    split, _, layer = more.partition(":")
    if quantity not in QUANTITIES:
        import difflib

        near = difflib.get_close_matches(quantity, QUANTITIES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(QUANTITIES)
        raise ConfigError(f"tag {tag!r}: {quantity!r} is not a quantity; {hint}known are {known}, or 'ignore'")
    if split not in ("", *SPLITS):
        raise ConfigError(f"tag {tag!r}: {split!r} is not a split; expected one of {', '.join(SPLITS)} in {meaning!r}")
    return Mapped(Signal(QUANTITIES[quantity], split or "train", layer), detours=-1, by_user=True)


def resolve(tag: str, statistic: str, overrides: Overrides) -> Reading:
    """What a tag means: as the user says, else as its name tells."""
    for matches in (str.__eq__, fnmatchcase):
        for pattern, meaning in overrides:
            if matches(tag, pattern):
                return meaning if meaning is not None else "left out on request"
    return interpret(tag, statistic)


__all__ = [
    "Mapped",
    "Overrides",
    "Reading",
    "facts_from_params",
    "interpret",
    "parse_overrides",
    "parse_tag",
    "resolve",
]
