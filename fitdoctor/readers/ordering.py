"""Tracks in the order of their own clocks: restarts, repeated steps, two counters under one tag."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fitdoctor.readers.clocks import CROWDED, Restart, increases, untangle
from fitdoctor.readers.tracks import Track
from fitdoctor.run import IntArray, Note


def in_order(tracks: list[Track], notes: list[Note]) -> list[Track]:
    """Every track in the order of its own clock; tracks that mix two clocks become two."""
    out: list[Track] = []
    duplicates: dict[str, int] = {}
    resumed = _resumed(tracks)
    for track in tracks:
        steps = track.steps
        if steps is None or increases(steps):
            out.append(track)
            continue
        if _crowded(track):
            text = f"{track.tag!r}: up to {_most_per_step(steps)} points share a step; they are counted in file order"
            notes.append(Note("duplicate-steps", text, amount=float(len(steps) - len(np.unique(steps)))))
            track.epochs = steps.astype(np.float64) if np.ptp(steps) > 0 and increases_weakly(steps) else track.epochs
            track.steps = np.arange(len(steps), dtype=np.int64)
            out.append(track)
            continue
        order = untangle(steps, track.wall_time)
        if len(order.other):
            out.append(_other_clock(track, order.other, order.other_after))
            notes.append(
                Note("aligned", f"{track.tag!r} is logged per step and, under the same tag, per epoch; split in two")
            )
        track.restarts = order.restarts
        if order.duplicates:
            duplicates[track.tag] = order.duplicates
        track.take(order.keep)
        out.append(track)
    _supersede(out)
    _tell_restarts(out, notes)
    notes += resumed
    if duplicates:
        most = max(duplicates, key=lambda tag: duplicates[tag])
        text = f"{sum(duplicates.values())} points repeat a step of their tag ({most!r} most); the last of each stands"
        notes.append(Note("duplicate-steps", text, amount=float(sum(duplicates.values()))))
    return out


def increases_weakly(steps: IntArray) -> bool:
    """Whether steps never fall."""
    return bool((steps[1:] >= steps[:-1]).all())


def _most_per_step(steps: IntArray) -> int:
    return int(np.unique(steps, return_counts=True)[1].max())


def _crowded(track: Track) -> bool:
    """Whether the logged step cannot be the clock of the points, because many points share each step."""
    steps = track.steps
    assert steps is not None
    return len(steps) >= 6 and increases_weakly(steps) and len(steps) / len(np.unique(steps)) >= CROWDED


def _other_clock(track: Track, index: IntArray, after: IntArray) -> Track:
    meaning = replace(track.meaning, per="epoch")
    part = replace(track, meaning=meaning)
    part.take(index)
    part.steps = after
    if not increases(after):
        part.take(np.r_[after[1:] != after[:-1], True])
    return part


def _resumed(tracks: list[Track]) -> list[Note]:
    """Restarts that left no other mark than a new file: its steps go on where the file before ended."""
    several = [t for t in tracks if t.starts and t.steps is not None]
    if not several:
        return []
    main = max(several, key=len)
    steps, wall = main.steps, main.wall_time
    assert steps is not None
    notes: list[Note] = []
    for at in (i for i in main.starts if 0 < i < len(steps)):
        before, step = int(steps[:at].max()), int(steps[at])
        if step > before and (wall is None or wall[at] >= wall[at - 1]):
            notes.append(
                Note("restart", f"a new file begins at step {step}, after step {before}", step=step, amount=0.0)
            )
    return notes


def _supersede(tracks: list[Track]) -> None:
    """A restart that one tag shows holds for all: drop what others logged on the abandoned branch."""
    sure = [(r.step, r.wall_time) for c in tracks for r in c.restarts if r.wall_time is not None and r.superseded >= 3]
    for track in tracks:
        if track.steps is None or track.wall_time is None or not len(track):
            continue
        stale = np.zeros(len(track), bool)
        for step, moment in sure:
            later = track.wall_time >= moment
            if later.any():  # a tag that ended before the restart is not told to have been logged again
                stale |= ~later & (track.steps >= step)
        if stale.any():
            track.take(~stale)


def _tell_restarts(tracks: list[Track], notes: list[Note]) -> None:
    found: dict[int, list[Restart]] = {}
    for track in tracks:
        for restart in track.restarts:
            found.setdefault(restart.step, []).append(restart)
    for step, restarts in sorted(found.items()):
        before, lost = max(r.before for r in restarts), sum(r.superseded for r in restarts)
        text = f"training went back from step {before} to step {step}; {lost} points logged before that are superseded"
        notes.append(Note("restart", text, step=step, amount=float(lost)))
