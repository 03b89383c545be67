"""Which logs are read together, because they may tell of one training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fitdoctor.readers.walk import Found

_TOGETHER = 8
"""More logs than this in one folder are not several views of one training."""
_INSIDE = ("runs", "logs", "log", "tensorboard", "tb", "tb_logs", "tf_logs", "vis_data", "csv_logs", "summaries")
"""Folders in which a framework keeps another log of the run whose folder they lie in."""
OF_THE_MONITOR = "fitdoctor"
"""The folder that `fitdoctor.attach` makes in a run's folder; as `fitdoctor.live.sinks.FOLDER`, which needs torch."""


def one_training(parts: Sequence[Found], subruns: Mapping[Path, Path]) -> bool:
    """Whether logs of one folder may be views of one training: of different readers, and few.

    Logs in folders inside it (`_INSIDE`) may be of one reader; the first part lies in the folder itself.
    """
    if len(parts) == 1:
        return True
    mains = [p for p in parts if p.home not in subruns or p.module != "tensorboard"]
    here = [p for p in mains if p.place == mains[0].place]
    return len({p.module for p in here}) == len(here) and len(mains) <= _TOGETHER


def apart(parts: Sequence[Found], subruns: Mapping[Path, Path]) -> list[list[Found]]:
    """Logs of one folder, each a source of its own; event files stay with their sub-runs."""
    events = [p for p in parts if p.module == "tensorboard"]
    rest = [[p] for p in parts if p.module != "tensorboard"]
    return [events, *rest] if events else rest


def with_logs_inside(groups: dict[Path, list[Found]], subruns: Mapping[Path, Path]) -> dict[Path, list[Found]]:
    """Add to a run's folder what lies in a folder inside it: another log of it (``OUT/runs/<date>``).

    A folder that the monitor logged into is a run's folder, whether or not there is another log in it.
    """
    watched = {place.parent for place in groups if place.name == OF_THE_MONITOR}
    inside: dict[Path, list[Path]] = {}
    for place in groups:
        for folder in (place, place.parent):
            if place in watched or folder.name not in (*_INSIDE, OF_THE_MONITOR):
                continue
            if (above := folder.parent) != place and (above in groups or above in watched):
                inside.setdefault(above, []).append(place)
                break
    out = dict(groups)
    for above, places in inside.items():
        own = groups.get(above, [])
        alone = not own and len(places) == 1
        if alone or len(places) > _TOGETHER or not (one_training(own, subruns) if own else True):
            continue
        parts = [p for place in (above, *places) for p in out.get(place, [])]
        for place in places:
            out.pop(place, None)
        out[above] = parts
    return out
