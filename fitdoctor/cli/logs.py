"""The runs below the paths of a command; what cannot be read is told and does not stop the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fitdoctor.cli.progress import Progress
from fitdoctor.errors import ReadError

if TYPE_CHECKING:
    from fitdoctor.config import Config
    from fitdoctor.report import Report
    from fitdoctor.run import Run


class Logs:
    """Goes over runs, or over reports on them, and remembers what could not be read."""

    def __init__(self, paths: Sequence[str | Path], config: Config, pattern: str | None, progress: Progress) -> None:
        self._paths = paths
        self._config = config
        self._pattern = pattern
        self._progress = progress
        self._failures: list[str] = []
        self._found = 0

    def reports(self, *, layers: bool, workers: int | None, stored: bool, engine: str = "process") -> Iterator[Report]:
        """The reports on the runs.

        Args:
            layers: put what was logged per layer into them.
            workers: processes that read and judge; None for as many as there are cores, where it pays.
            stored: keep reports, and files fetched from a URL, for the next time, and take those kept.
            engine: what runs the workers, as in `fitdoctor.many.diagnose_runs`.
        """
        from fitdoctor.many import ReportStore, diagnose_runs

        store = ReportStore.default() if stored else None
        for path in self._paths:
            with self._failing_gently():
                for report in diagnose_runs(
                    path, config=self._config, match=self._pattern or "*", layers=layers, workers=workers, store=store,
                    keep=stored, engine=engine, tell=self._say, progress=self._progress.update,
                ):  # fmt: skip
                    self._found += 1
                    name = self._name(path, report.run)
                    yield report if name == report.run else replace(report, run=name)
        if store is not None:
            store.prune()

    def described(self) -> Iterator[tuple[Run, dict[str, str]]]:
        """The runs, each with the tags that were left out of it and why."""
        from fitdoctor.readers import describe, find_runs

        for path in self._paths:
            with self._failing_gently():
                sources = find_runs(path, tags=self._config.tags)
                for done, source in enumerate(sources):
                    self._progress.update(done, len(sources), source.name)
                    uses = describe(source)
                    for run in source.load():
                        if fnmatchcase(run.name, self._pattern or "*"):
                            left_out = {u.tag: u.why for u in uses if u.run == run.name and u.signal is None}
                            yield self._counted(path, run), left_out

    def _say(self, text: str) -> None:
        self._progress.hide()
        click.echo(f"Note: {text}", err=True)

    def _counted(self, path: str | Path, run: Run) -> Run:
        self._found += 1
        name = self._name(path, run.name)
        return run if name == run.name else replace(run, name=name)

    def _name(self, path: str | Path, name: str) -> str:
        """Runs are named relative to their path, and several paths may hold runs of one name."""
        return name if len(self._paths) == 1 else _joined(path, name)

    @contextmanager
    def _failing_gently(self) -> Iterator[None]:
        try:
            yield
        except ReadError as error:
            self._failures.append(str(error))

    def report_failures(self) -> int:
        """Tell on stderr what could not be read, and how many failures that makes."""
        for text in self._failures:
            click.echo(f"Error: {text}", err=True)
        if not self._found and not self._failures:
            fitting = f" that fits {self._pattern!r}" if self._pattern else ""
            from fitdoctor.readers.urls import shown

            where = ", ".join(shown(path) if isinstance(path, str) else str(path) for path in self._paths)
            click.echo(f"Error: no run{fitting} below {where}; `fitdoctor signals PATH` lists what is there", err=True)
            return 1
        return len(self._failures)


def _joined(path: str | Path, name: str) -> str:
    """The name below the path; a path that is the run itself is name enough."""
    if isinstance(path, str):
        from fitdoctor.readers.urls import below, shown

        return shown(path) if name in ("", ".", *_ends(path)) else below(shown(path), name)
    return str(path) if name in ("", ".", path.name, path.stem) else f"{path}/{name}"


def _ends(url: str) -> tuple[str, str]:
    """The last part of a URL, whole and without its suffix."""
    from fitdoctor.readers.urls import shown

    last = Path(shown(url).partition("::")[0].rpartition("/")[2])
    return last.name, last.stem
