"""Whether a program still holds an object that a monitor of ours holds, too."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from types import FrameType, ModuleType
from typing import Any

_MOST_LEVELS = 8


def held_by_others(objects: Iterable[Any]) -> bool:
    """Whether any frame or module reaches one of the objects on a way that does not lead through us.

    Cycles (an optimizer and its scheduler) hold nothing. Where the ways are long the answer is yes, the careful one.

    Args:
        objects: optimizers of a training.
    """
    frames = _frames()  # a frame is an object, and known to the collector, only while somebody asks for it
    level: list[Any] = list(objects)
    seen = {id(o) for o in level} | {id(level)}
    spaces = {id(m.__dict__) for m in list(sys.modules.values()) if isinstance(m, ModuleType)}
    for _ in range(_MOST_LEVELS):
        found = [o for o in gc.get_referrers(*level) if id(o) not in seen and o is not frames and not _ours(o)]
        if any(id(o) in spaces or isinstance(o, FrameType) for o in found):
            return True
        if not found:
            return False
        seen.update(id(o) for o in found)
        level = found
        seen.add(id(level))
        seen.add(id(found))
    return True


def _ours(holder: Any) -> bool:
    if isinstance(holder, FrameType):
        return str(holder.f_globals.get("__name__", "")).startswith("fitdoctor")
    return type(holder).__module__.startswith("fitdoctor")


def _frames() -> list[FrameType]:
    found = []
    for frame in sys._current_frames().values():
        inner: FrameType | None = frame
        while inner is not None:
            found.append(inner)
            inner = inner.f_back
    return found
