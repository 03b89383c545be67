"""The runs below the paths of a command; what cannot be read is told and does not stop the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fitdoctor.cli.progress import Progress
from fitdoctor.errors import ReadError

if TYPE_CHECKING:
    from fitdoctor.config import Config
    from fitdoctor.run import Run


class Logs:
    """Iterates over runs and remembers what could not be read."""

    def __init__(self, paths: Sequence[Path], config: Config, pattern: str | None, progress: Progress) -> None:
        self._paths = paths
        self._config = config
        self._pattern = pattern
        self._progress = progress
        self._failures: list[str] = []
        self._found = 0

    def __iter__(self) -> Iterator[Run]:
        from fitdoctor.readers import open_runs

        for path in self._paths:
            try:
                for run in open_runs(
                    path, tags=self._config.tags, match=self._pattern or "*", progress=self._progress.update
                ):
                    self._found += 1
                    # Runs are named relative to their path: several paths may hold runs of one name.
                    yield run if len(self._paths) == 1 else replace(run, name=_joined(path, run.name))
            except ReadError as error:
                self._failures.append(str(error))

    def report_failures(self) -> int:
        """Tell on stderr what could not be read, and how many failures that makes."""
        for text in self._failures:
            click.echo(f"Error: {text}", err=True)
        if not self._found and not self._failures:
            fitting = f" that fits {self._pattern!r}" if self._pattern else ""
            where = ", ".join(map(str, self._paths))
            click.echo(f"Error: no run{fitting} below {where}; `fitdoctor signals PATH` lists what is there", err=True)
            return 1
        return len(self._failures)


def _joined(path: Path, name: str) -> str:
    return name if name.startswith(str(path)) else f"{path}/{name}" if name not in ("", ".") else str(path)
