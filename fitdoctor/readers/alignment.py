"""All tracks on one clock: training steps, or epochs when the log knows nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fitdoctor.readers.clocks import EpochMap, increases, spread_evenly, step_by_time, stride_of, untangle
from fitdoctor.readers.ordering import in_order
from fitdoctor.readers.tracks import Track
from fitdoctor.run import Fact, FloatArray, IntArray, Note
from fitdoctor.signals import EPOCH, METRICS, SPLIT_QUANTITIES


def on_one_clock(tracks: list[Track], notes: list[Note]) -> tuple[list[Track], dict[str, Fact]]:
    """Give every track training steps, or every track epochs when the log knows nothing else."""
    tracks = [c for c in tracks if len(c)]
    stepped = [c for c in tracks if c.steps is not None]
    if not stepped:
        return _on_epochs(tracks, notes)
    main = _main(stepped)
    facts: dict[str, Fact] = {"step_unit": "epoch" if _counts_epochs(stepped) else "step"}
    epochs: EpochMap | None = None
    if any(c.epochs is not None or c.meaning.signal.quantity == EPOCH for c in tracks):
        epochs = _epoch_map(tracks)
        if epochs is not None and (each := epochs.steps_per_epoch) is not None:
            facts["steps_per_epoch"] = each
    moved: dict[str, list[str]] = {}
    for track in tracks:
        if track is main or track.meaning.signal.quantity == EPOCH:
            continue
        if (how := _align(track, main, epochs)) is not None:
            moved.setdefault(how, []).append(track.tag)
    for how, tags in moved.items():
        shown = ", ".join(repr(t) for t in tags[:4]) + (f" and {len(tags) - 4} more" if len(tags) > 4 else "")
        notes.append(Note("aligned", f"{shown}: counted on another clock, placed on the training steps by {how}"))
    return [c for c in tracks if c.steps is not None and len(c)], facts


def _on_epochs(tracks: list[Track], notes: list[Note]) -> tuple[list[Track], dict[str, Fact]]:
    known = [c.epochs for c in tracks if c.epochs is not None]
    if not known:
        for track in tracks:
            track.steps = np.arange(len(track), dtype=np.int64)
        if tracks:
            notes.append(Note("aligned", "the log has no step and no epoch; its rows are counted from 0"))
        return tracks, {"step_unit": "step"}
    clock = np.unique(np.concatenate(known))
    clock = clock[np.isfinite(clock)]
    whole = bool((clock == np.floor(clock)).all()) and (not len(clock) or float(np.abs(clock).max()) < 2**53)
    if not whole:
        notes.append(Note("aligned", "the log has no step and its epochs are fractions; its points are counted from 0"))
    for track in tracks:
        epochs = track.epochs if track.epochs is not None else np.arange(len(track), dtype=np.float64)
        track.take(np.isfinite(epochs))
        epochs = epochs[np.isfinite(epochs)]
        track.steps = epochs.astype(np.int64) if whole else np.searchsorted(clock, epochs).astype(np.int64)
    return in_order([c for c in tracks if len(c)], notes), {"step_unit": "epoch" if whole else "step"}


def _main(tracks: Sequence[Track]) -> Track:
    """The track whose steps are the training steps: of the training split, with the most points."""

    def order(track: Track) -> tuple[bool, bool, int]:
        signal = track.meaning.signal
        return (signal.split == "train", track.meaning.per != "epoch", len(track))

    return max(tracks, key=order)


def _counts_epochs(tracks: Sequence[Track]) -> bool:
    """Whether the steps are epochs: train and validation stand on the same grid of stride one."""
    grids: dict[str, set[tuple[int, int, int]]] = {}
    for c in tracks:
        assert c.steps is not None
        if c.meaning.signal.quantity in SPLIT_QUANTITIES:
            if len(c) < 2 or stride_of(c.steps) != 1:
                return False
            grids.setdefault(c.meaning.signal.split, set()).add((int(c.steps[0]), int(c.steps[-1]), len(c)))
    train = grids.pop("train", set())
    return bool(train) and any(train & other for other in grids.values())


def _epoch_map(tracks: Sequence[Track]) -> EpochMap | None:
    """Pairs of step and epoch: of the track that has most of them, and of a logged epoch counter."""
    pairs: list[tuple[IntArray, FloatArray]] = []
    for track in tracks:
        if track.steps is not None and track.meaning.signal.quantity == EPOCH:
            pairs.append((track.steps, track.values))
        elif track.steps is not None and track.epochs is not None:
            pairs.append((track.steps, track.epochs))
    maps = [m for steps, epochs in pairs if (m := EpochMap.of(steps, epochs)) is not None]
    return max(maps, key=lambda m: len(m.steps)) if maps else None


def _align(track: Track, main: Track, epochs: EpochMap | None) -> str | None:
    """Put a track on the clock of `main`; how it was done, or None when nothing was to do."""
    assert main.steps is not None
    if track.steps is None:
        counted = track.epochs if track.epochs is not None else np.arange(len(track), dtype=np.float64)
        counted, missing = np.nan_to_num(counted, posinf=0, neginf=0), True
    else:
        if not _may_count_epochs(track, main.steps) or _knows_its_epochs(track, epochs):
            return None
        counted, missing = track.steps.astype(np.float64), False
    ways: list[tuple[str, IntArray]] = []
    if epochs is not None and (missing or _same_epochs(counted, epochs)):
        ways.append(("the logged epochs", epochs.step_at(counted)))
    if track.wall_time is not None and main.wall_time is not None:
        steps = step_by_time(track.wall_time, main.steps, main.wall_time)
        if missing or _runs_away(counted, steps):
            ways.append(("the time of writing", steps))
    elif missing or (epochs is None and _surely_epochs(track, main)):
        ways.append(("spreading its epochs evenly", spread_evenly(counted, int(main.steps[0]), int(main.steps[-1]))))
    for how, steps in ways:
        if len(np.unique(steps)) * 5 >= len(steps) * 4 or (missing and how == ways[-1][0]):
            _place(track, steps)
            return how
    if missing:
        _place(track, np.arange(len(track), dtype=np.int64))
        return "their order"
    return None


def _place(track: Track, steps: IntArray) -> None:
    track.steps = steps
    if not increases(steps):
        track.take(untangle(steps).keep)
    meaning = track.meaning
    signal = meaning.signal
    if signal.quantity in METRICS and not meaning.split_named and not meaning.by_user and signal.split == "train":
        signal = replace(signal, split="val")  # a metric without a split on its own clock is an evaluation
    track.meaning = replace(meaning, signal=signal, per=meaning.per or "epoch")


def _may_count_epochs(track: Track, main: IntArray) -> bool:
    """Whether steps look like a counter much shorter than the training steps.

    A training curve that was logged for a while looks so too, so it must count in ones.
    """
    steps = track.steps
    if steps is None or len(steps) < 2 or len(main) < 2 or int(steps[-1]) * 2 > int(main[-1]):
        return False
    stride = stride_of(steps)
    evaluation = track.meaning.signal.split != "train" or track.meaning.per == "epoch"
    return 0 <= int(steps[0]) <= stride and (stride == 1 or (stride > 1 and evaluation))


def _knows_its_epochs(track: Track, epochs: EpochMap | None) -> bool:
    """Whether the epochs logged with a track say that its steps are training steps."""
    if epochs is None or track.epochs is None or track.steps is None or not np.isfinite(track.epochs).all():
        return False
    away = np.abs(epochs.step_at(track.epochs) - track.steps)
    return float(np.median(away)) <= (epochs.steps_per_epoch or 0)


def _same_epochs(counted: FloatArray, epochs: EpochMap) -> bool:
    """Whether counted numbers end where the epochs of the log end."""
    stride = counted[1] - counted[0] if len(counted) > 1 else 1.0
    return bool(abs(float(counted[-1]) - float(np.ceil(epochs.epochs[-1]))) <= max(1.0, stride))


def _runs_away(counted: FloatArray, by_time: IntArray) -> bool:
    """Whether the time of writing puts the points far behind the steps that they claim."""
    return bool((by_time[1:] > 2 * counted[1:] + 1).mean() > 0.8) if len(counted) > 1 else False


def _surely_epochs(track: Track, main: Track) -> bool:
    """Whether, with no other clock at hand, a track can only count epochs."""
    assert track.steps is not None
    assert main.steps is not None
    evaluation = track.meaning.signal.split != "train" or track.meaning.per == "epoch"
    return (
        evaluation
        and len(track) >= 3
        and stride_of(track.steps) == 1
        and int(main.steps[-1]) >= 4 * int(track.steps[-1])
        and len(main) >= 2 * len(track)
    )
