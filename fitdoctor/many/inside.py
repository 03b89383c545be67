"""Whether logs lie in a folder, with all that their reader may open beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fitdoctor.readers import RunSource

_STORES = frozenset({"mlflow_store", "dvclive", "clearml_offline", "wandb_offline"})
"""Readers that look for more in the folders of their logs; the others look for settings only."""
_DATABASES = frozenset({"mlflow_store", "trackio_store"})
"""Readers of sqlite, which itself opens the files of a transaction beside a database."""


def is_inside(path: str | Path, folder: str | Path) -> bool:
    """Whether a path, its links followed, is a folder or lies in it.

    Example:
        >>> is_inside("/a/b", "/a"), is_inside("/a/../c", "/a"), is_inside("/ab", "/a")
        (True, False, False)
    """
    real, root = os.path.realpath(path), os.path.realpath(folder)
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)


def stray(source: RunSource, folder: str | Path) -> Path | None:
    """The first file of a source that lies outside a folder, or None.

    A walk without links (`find_runs(path, links=False)`) finds none outside; here is caught what became a link
    since, and what a reader would look at beside the log.
    """
    return next((p for p in (*source.files, *_beside(source)) if not is_inside(p, folder)), None)


def _beside(source: RunSource) -> Iterator[Path]:
    """Links in the folders of a source that a reader could open without having been given them."""
    from fitdoctor.readers import settings

    folders = {file.parent for file in source.files}
    for part in source.parts:
        if part.home not in part.files and part.home.is_dir() and part.module != "tensorboard":
            folders.update(Path(folder) for folder, _, _ in os.walk(part.home))
    stores = any(part.module in _STORES for part in source.parts)
    for part in source.parts:
        if part.module in _DATABASES:
            for path in (f.with_name(f.name + end) for f in part.files for end in ("-wal", "-shm", "-journal")):
                if path.is_symlink():
                    yield path
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink() and (stores or entry.name in settings.NAMES):
                        yield Path(entry.path)
        except OSError:
            continue
