"""RawRun -> Run: one series per signal, on one clock, in order.

    collect (tags joined, meaning) -> in_order (restarts) -> on_one_clock -> units -> one_per_signal

Nothing here raises on odd data: what cannot be used is left out, and the run's notes say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitdoctor.readers.alignment import on_one_clock
from fitdoctor.readers.choice import one_per_signal, tell_cadence, tell_split
from fitdoctor.readers.ordering import in_order
from fitdoctor.readers.raw import RawRun
from fitdoctor.readers.settings import plain_params
from fitdoctor.readers.tags import Overrides, facts_from_params
from fitdoctor.readers.tracks import LeftOut, collect
from fitdoctor.readers.units import convert_units
from fitdoctor.run import Note, Run
from fitdoctor.signals import EPOCH


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """A run, and what became of each tag."""

    run: Run
    left_out: tuple[LeftOut, ...]


def assemble(raw: RawRun, overrides: Overrides = ()) -> Run:
    """The run that a raw run tells of.

    Args:
        raw: what a reader found.
        overrides: what the user says about tags (`tags.parse_overrides`).
    """
    return assemble_in_full(raw, overrides).run


def assemble_in_full(raw: RawRun, overrides: Overrides = ()) -> Assembled:
    """The run, and what was left out of it."""
    notes: list[Note] = list(raw.notes)
    tracks, left_out = collect(raw.series, overrides)
    with np.errstate(all="ignore"):
        tracks = in_order(tracks, notes)
        tracks, facts = on_one_clock(tracks, notes)
        tell_split(tracks, notes)
        unit = str(facts.get("step_unit", "step"))
        tracks, unusable = convert_units(tracks, unit)
        left_out += [LeftOut(c.tag, c.statistic, len(c), why) for c, why in unusable]
        tell_cadence(tracks, unit)
        tracks, twice = one_per_signal(tracks, notes)
    left_out += twice
    run = Run(
        name=raw.name,
        series=tuple(c.series for c in tracks if c.meaning.signal.quantity != EPOCH),
        facts={**facts_from_params(raw.params), **facts, **raw.facts},
        finished=raw.finished,
        path=raw.path,
        source=raw.source,
        notes=tuple(notes),
        unmapped=tuple(dict.fromkeys(x.tag for x in left_out)),
        params=plain_params(raw.params),
    )
    return Assembled(run, tuple(left_out))
