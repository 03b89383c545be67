"""Which files may be read: those below the folders that the server was started with, wherever names and links lead."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fitdoctor.errors import ReadError
from fitdoctor.many.inside import is_inside
from fitdoctor.readers import unique
from fitdoctor.reporters.harmless import one_line

LONGEST_NAME = 4096
"""Characters of a path or a name that are looked at."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that may be read.

    Attributes:
        label: what the names of its runs begin with, "" where there is one folder.
        path: the folder, its links followed when the server started.
    """

    label: str
    path: Path

    def run(self, name: str) -> str:
        """The name of a run of this folder among those of all folders."""
        return f"{self.label}/{name}" if self.label else name

    def below(self, path: str | Path) -> str:
        """A path as it stands below this folder; one that lies elsewhere is named by its last part."""
        real = os.path.realpath(path)
        return os.path.relpath(real, self.path).replace(os.sep, "/") if is_inside(real, self.path) else Path(path).name


def folders(paths: Sequence[str | Path]) -> tuple[Folder, ...]:
    """The folders at some paths; of several, each has its own name as label.

    Raises:
        ReadError: if one is no folder.
    """
    real = list(dict.fromkeys(Path(os.path.realpath(path)) for path in paths))
    for path in real:
        if not path.is_dir():
            raise ReadError(f"{path}: expected a folder with runs, got {'a file' if path.exists() else 'nothing'}")
    used: set[str] = set()
    return tuple(Folder(unique(p.name or "root", used) if len(real) > 1 else "", p) for p in real)


def resolve(text: str, among: Sequence[Folder]) -> tuple[Folder, Path]:
    """The place below a folder that a path means: absolute, or relative to a folder or beginning with its label.

    Whether something exists outside the folders cannot be told from what is raised.

    Raises:
        ReadError: if it leads out of the folders, or nothing is there.
    """
    shown = one_line(text, 120)
    known = ", ".join(f.label or f.path.name for f in among)
    outside = ReadError(
        f"expected a path below the folders of this server ({known}), got {shown!r}; list_runs tells what is there"
    )
    if not text or len(text) > LONGEST_NAME or "\x00" in text:
        raise outside
    parts = text.replace("\\", "/").split("/")
    if ".." in parts:
        raise ReadError(f"expected a path without '..', got {shown!r}; give it from the folder on, as list_runs does")
    if os.path.isabs(text):
        tries = [(folder, Path(text)) for folder in among]
    else:
        tries = [(f, f.path.joinpath(*parts[1:])) for f in among if f.label and f.label == parts[0]]
        tries += [(folder, folder.path / text) for folder in among]
    for folder, path in tries:
        try:
            real = Path(os.path.realpath(path))
            if is_inside(real, folder.path) and real.exists():
                return folder, real
        except (OSError, ValueError):  # a name that is too long, or a loop of links
            continue
    raise outside
