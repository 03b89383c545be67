"""Which folders the tab may read: those that TensorBoard was given, and nothing that a link leads to elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fitdoctor.readers import RunSource

_REMOTE = re.compile(r"[a-zA-Z][0-9a-zA-Z.]*://")
_STORES = frozenset({"mlflow_store", "dvclive", "clearml_offline", "wandb_offline"})
"""Readers that look for more in the folders of their logs; the others look for settings only."""


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
        """The first file of a source that lies outside the folder, or None.

        The walk follows no link out of the folder; here is caught what became a link since, and what a reader would
        look at beside the log.
        """
        root = os.path.realpath(self.path)
        for path in (*source.files, *_beside(source)):
            real = os.path.realpath(path)
            if real != root and not real.startswith(root.rstrip(os.sep) + os.sep):
                return path
        return None


def _beside(source: RunSource) -> Iterator[Path]:
    """Links in the folders of a source that a reader could open without having been given them."""
    from fitdoctor.readers import settings

    folders = {file.parent for file in source.files}
    for part in source.parts:
        if part.home not in part.files and part.home.is_dir() and part.module != "tensorboard":
            folders.update(Path(folder) for folder, _, _ in os.walk(part.home))
    stores = any(part.module in _STORES for part in source.parts)
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink() and (stores or entry.name in settings.NAMES):
                        yield Path(entry.path)
        except OSError:
            continue


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
