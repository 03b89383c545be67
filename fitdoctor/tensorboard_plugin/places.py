"""Which folders the tab may read: those that TensorBoard was given, and nothing that a link leads to elsewhere."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fitdoctor.many.inside import stray

if TYPE_CHECKING:
    from fitdoctor.readers import RunSource

_REMOTE = re.compile(r"[a-zA-Z][0-9a-zA-Z.]*://")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that TensorBoard was given.

    Attributes:
        name: what the names of its runs begin with, "" where there is one folder.
        path: the folder, as given.
    """

    name: str
    path: Path

    def run(self, name: str) -> str:
        """The name of a run of this folder among those of all folders."""
        return f"{self.name}/{name}" if self.name else name

    def strays(self, source: RunSource) -> Path | None:
        """The first file of a source that lies outside the folder, or None."""
        return stray(source, self.path)


def places(logdir: str, logdir_spec: str = "") -> tuple[list[Place], list[str]]:
    """The folders behind TensorBoard's ``--logdir`` or ``--logdir_spec``, and what cannot be read from here.

    Example:
        >>> [(p.name, p.path.as_posix()) for p in places("", "a:/x/one,/y/b:c")[0]]
        [('a', '/x/one'), ('/y/b:c', '/y/b:c')]
        >>> places("gs://bucket/logs")
        ([], ['gs://bucket/logs'])
    """
    local: list[Place] = []
    remote: list[str] = []
    given = [("", logdir)] if logdir else [_named(s) for s in (logdir_spec or "").split(",") if s]
    for name, path in given:
        if _REMOTE.match(path):
            remote.append(path)
        else:
            local.append(Place(name, Path(os.path.abspath(os.path.expanduser(path)))))
    return local, remote


def _named(spec: str) -> tuple[str, str]:
    """The name and the path of ``name:path``; a path alone, which may hold a colon, is its own name."""
    if _REMOTE.match(spec) or spec.startswith("/") or os.path.splitdrive(spec)[0] or ":" not in spec:
        return spec, spec
    name, _, path = spec.partition(":")
    return name, path
