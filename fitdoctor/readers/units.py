"""Units that only the values tell: percent or fraction, seconds of a step or since the start."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fitdoctor.readers.tags.words import SPLIT_OF, words_of
from fitdoctor.readers.tracks import Track
from fitdoctor.run import FloatArray
from fitdoctor.signals import ACCURACY, GRAD_NORM, SCORE, STEP_TIME, TOP5_ACCURACY

PERCENT_ABOVE = 1.5
"""An accuracy above this is in percent: a fraction ends at 1, and rounding does not add half of it."""


def convert_units(tracks: Sequence[Track], step_unit: str) -> tuple[list[Track], list[tuple[Track, str]]]:
    """Bring values to the units of `signals`.

    Args:
        tracks: the tracks, on one clock.
        step_unit: what their steps count, "step" or "epoch".

    Returns:
        the tracks, and those that cannot be what their name says, with the reason.
    """
    percent = _families_in_percent(tracks)
    kept: list[Track] = []
    unusable: list[tuple[Track, str]] = []
    for c in tracks:
        quantity, scale = c.meaning.signal.quantity, c.meaning.scale
        if quantity in (ACCURACY, TOP5_ACCURACY) and not c.meaning.by_user:
            low, high = _range(c.values)
            if high > 100.5 or low < -0.01:
                layer = c.meaning.signal.layer or "accuracy"
                c.meaning = replace(c.meaning, signal=replace(c.meaning.signal, quantity=SCORE, layer=layer))
                scale = 1.0
            else:
                scale = 0.01 if _family(c.tag) in percent or scale != 1.0 else 1.0
        elif quantity == STEP_TIME and c.meaning.detours >= 3 and step_unit == "epoch":
            unusable.append((c, "a time per epoch or since the start, not the time of one step"))
            continue
        elif quantity == STEP_TIME and c.meaning.detours >= 3 and _adds_up(c.values):
            unusable.append((c, "a time since the start, not the time of one step"))
            continue
        elif quantity == GRAD_NORM and c.meaning.detours >= 2 and _range(c.values)[0] < 0:
            unusable.append((c, "it is negative, so it is no norm"))
            continue
        if scale != 1.0:
            c.values = c.values * scale
        kept.append(c)
    return kept, unusable


def _range(values: FloatArray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)


def _adds_up(values: FloatArray) -> bool:
    return len(values) >= 3 and bool((values[1:] > values[:-1]).all())


def _families_in_percent(tracks: Sequence[Track]) -> set[str]:
    """Accuracies that differ only in split or rank are logged in one unit."""
    return {
        _family(c.tag)
        for c in tracks
        if c.meaning.signal.quantity in (ACCURACY, TOP5_ACCURACY) and PERCENT_ABOVE < _range(c.values)[1] <= 100.5
    }


def _family(tag: str) -> str:
    words = [re.sub(r"\d", "", w) for w in words_of(tag) if w not in SPLIT_OF]
    return " ".join(w for w in words if w not in ("step", "epoch", ""))
