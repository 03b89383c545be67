"""One track for each signal: cadence, the plainest of several tags, the whole for its only part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fitdoctor.readers.tags.words import word_set
from fitdoctor.readers.tracks import LeftOut, Track
from fitdoctor.run import Note, Per
from fitdoctor.signals import LOSS, LOSS_PART, LR, METRICS, MOMENTUM, SPLIT_QUANTITIES, SPLITS, WEIGHT_DECAY, Signal


def tell_cadence(tracks: Sequence[Track], step_unit: str) -> None:
    """Fill in `per` where the log leaves no doubt."""
    if step_unit == "epoch":
        for c in tracks:
            if not c.meaning.per:
                c.meaning = replace(c.meaning, per="epoch")
        return
    together: dict[Signal, list[Track]] = {}
    for c in tracks:
        if c.meaning.signal.quantity in SPLIT_QUANTITIES and not c.meaning.per and c.meaning.signal.split == "train":
            together.setdefault(c.meaning.signal, []).append(c)
    held_out = [c for c in tracks if c.meaning.signal.split in ("val", "test") and c.steps is not None]
    for several in together.values():
        if len(several) == 2:
            sparse, dense = sorted(several, key=len)
            if _evaluated_with(sparse, held_out) and not _evaluated_with(dense, held_out):
                sparse.meaning = replace(sparse.meaning, per="epoch")
                dense.meaning = replace(dense.meaning, per="step")


def tell_split(tracks: Sequence[Track], notes: list[Note]) -> None:
    """A metric that names no split, in a log that calls its training loss by name, is an evaluation.

    fastai logs ``train_loss, valid_loss, accuracy``; Keras, which leaves training unnamed, ``loss, val_loss``.
    """

    def splits(track: Track) -> str:
        return track.meaning.signal.split if track.meaning.split_named else ""

    named = {splits(t) for t in tracks if t.meaning.signal.quantity in (LOSS, LOSS_PART)}
    if "train" not in named or "" in named or not named & {"val", "test"}:
        return
    taken = {t.meaning.signal for t in tracks}
    for t in tracks:
        signal = t.meaning.signal
        moved = replace(signal, split="val")
        if signal.quantity in METRICS and not splits(t) and not t.meaning.by_user and signal.split == "train":
            if moved in taken:
                continue
            t.meaning = replace(t.meaning, signal=moved)
            notes.append(
                Note("ambiguous", f"{t.tag!r} names no split; as the log names its training loss, it is validation")
            )


def _evaluated_with(track: Track, held_out: Sequence[Track]) -> bool:
    """Whether a training curve stands on the steps of an evaluation: then it is one, on training data."""
    return any(np.array_equal(track.steps, c.steps) for c in held_out)  # type: ignore[arg-type]


def one_per_signal(tracks: list[Track], notes: list[Note]) -> tuple[list[Track], list[LeftOut]]:
    groups: dict[tuple[Signal, Per], list[Track]] = {}
    for c in tracks:
        if len(c):
            groups.setdefault((c.meaning.signal, c.meaning.per), []).append(c)
    kept: list[Track] = []
    left_out: list[LeftOut] = []
    for (signal, _), several in groups.items():
        most = max(_reach(c) for c in several)
        several.sort(key=lambda c: (not c.meaning.by_user, 2 * _reach(c) < most, c.meaning.detours, -len(c), c.tag))
        best = several[0]
        kept.append(best)
        for other in several[1:]:
            if not _tells_the_same(best, other):
                notes.append(
                    Note("ambiguous", f"{best.tag!r} and {other.tag!r} both read as {signal}; the first is used")
                )
            left_out.append(LeftOut(other.tag, other.statistic, len(other), f"{best.tag!r} stands for {signal}"))
    return [*_whole_model(kept), *_summed_objective(kept, notes)], left_out


def _reach(track: Track) -> int:
    """Steps from the first point to the last."""
    return 0 if track.steps is None else int(track.steps[-1]) - int(track.steps[0])


def _tells_the_same(first: Track, second: Track) -> bool:
    return (
        len(first) == len(second)
        and np.array_equal(first.steps, second.steps)  # type: ignore[arg-type]
        and np.array_equal(first.values, second.values, equal_nan=True)
    )


def _whole_model(tracks: list[Track]) -> list[Track]:
    """Name the whole model where a log names one part only, and that part can only be all of it.

    One loss of a split is the objective, whatever its name; one learning rate is the learning rate.
    """
    signals = {c.meaning.signal for c in tracks}
    for quantity, whole in ((LOSS_PART, LOSS), (LR, LR), (MOMENTUM, MOMENTUM), (WEIGHT_DECAY, WEIGHT_DECAY)):
        for split in SPLITS:
            parts = {s for s in signals if s.quantity == quantity and s.split == split and s.layer}
            if len(parts) != 1 or Signal(whole, split) in signals:
                continue
            for c in tracks:
                if c.meaning.signal in parts and not c.meaning.by_user:
                    c.meaning = replace(c.meaning, signal=Signal(whole, split))
    return tracks


_ADVERSARIES = word_set(
    """
    g d gen disc generator discriminator actor critic policy value real fake adv adversarial gan q qf qf1 qf2 pi vf
    """
)


def _summed_objective(tracks: Sequence[Track], notes: list[Note]) -> list[Track]:
    """The sum of the parts, where training and validation log the same parts and no whole (YOLO's box, cls, dfl).

    Parts of a game between models have no sum that means anything, nor have parts on different steps.
    """
    parts: dict[str, dict[str, Track]] = {"train": {}, "val": {}}
    for t in tracks:
        signal = t.meaning.signal
        if signal.quantity == LOSS:
            return []
        if signal.quantity == LOSS_PART and signal.split in parts:
            if signal.layer in parts[signal.split] or not _ADVERSARIES.isdisjoint(signal.layer.split("_")):
                return []
            parts[signal.split][signal.layer] = t
    if len(parts["train"]) < 2 or set(parts["train"]) != set(parts["val"]):
        return []
    out: list[Track] = []
    for split, several in parts.items():
        first, *rest = several.values()
        if not all(np.array_equal(first.steps, t.steps) and first.meaning.per == t.meaning.per for t in rest):  # type: ignore[arg-type]
            return []
        total = np.sum([t.values for t in several.values()], axis=0)
        meaning = replace(first.meaning, signal=Signal(LOSS, split))
        out.append(replace(first, tag=" + ".join(t.tag for t in several.values()), meaning=meaning, values=total))
    names = ", ".join(parts["train"])
    notes.append(Note("other", f"no whole loss is logged; the sum of its parts ({names}) stands for it"))
    return out
