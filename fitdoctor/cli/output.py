"""Where a report goes: stdout or a file, as text of the chosen format."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from fitdoctor import __version__

if TYPE_CHECKING:
    from fitdoctor.cli.progress import Progress
    from fitdoctor.report import Report


class _Beside(io.TextIOBase):
    """stdout, beside which a progress bar may be shown: it is hidden before every writing."""

    def __init__(self, file: TextIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the file behind."""
        return self._file.encoding or "utf-8"

    def isatty(self) -> bool:
        """Whether the file behind is a terminal."""
        return self._file.isatty()

    def write(self, text: str) -> int:
        """Hide the bar, then write."""
        self._progress.hide()
        return self._file.write(text)

    def flush(self) -> None:
        """Flush the file behind."""
        self._file.flush()


@contextlib.contextmanager
def opened(output: Path | None, progress: Progress, *, utf8: bool = False) -> Iterator[TextIO]:
    """The file to write to, or stdout.

    Args:
        output: the file, or None for stdout. A file is UTF-8, whatever the locale is.
        progress: the bar to hide before writing to stdout.
        utf8: make stdout UTF-8 too: JSON, SARIF and JUnit are by definition.
    """
    if output is None:
        if utf8 and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        yield _Beside(sys.stdout, progress)  # type: ignore[misc]  # all of TextIO that is used here
        return
    with output.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def write_reports(
    reports: Iterable[Report], format_: str, out: TextIO, *, fail_on: str, full: int, verbose: bool, quiet: bool
) -> None:
    """Write the reports in a format, each as soon as the format allows.

    Args:
        reports: judged one by one.
        format_: one of `fitdoctor.reporters.FORMATS`.
        out: where to.
        fail_on: lowest severity that counts as a failure.
        full: how many of many runs a terminal shows whole.
        verbose: show everything (terminal).
        quiet: show verdicts only (terminal).
    """
    if format_ == "terminal":
        from rich.console import Console

        from fitdoctor.reporters.terminal_table import show_all

        show_all(reports, Console(file=out), verbose=verbose, quiet=quiet, in_full=full)
        return
    for piece in _pieces(reports, format_, fail_on):
        out.write(piece)
        out.flush()


def _pieces(reports: Iterable[Report], format_: str, fail_on: str) -> Iterable[str]:
    if format_ == "json":
        from fitdoctor.reporters import json

        return json.stream(reports, fitdoctor=__version__)
    if format_ == "html":
        from fitdoctor.reporters import html

        return html.stream(reports)
    if format_ == "github":
        from fitdoctor.reporters import github

        return github.stream(reports)
    if format_ == "junit":
        from fitdoctor.reporters import junit

        return junit.stream(reports, fail_on=fail_on)
    if format_ == "sarif":
        from fitdoctor import catalogue
        from fitdoctor.reporters import sarif

        manuals = {rule.code: rule.manual for rule in catalogue.entries()}
        return [sarif.render(reports, fitdoctor=__version__, manuals=manuals)]
    from fitdoctor.reporters import markdown

    return [markdown.render(reports)]


def write_found(found: Any, part: str, format_: str, output: Path | None, *, verbose: bool) -> None:
    """Write what a part of the package found ("compare", "sweep") as terminal text, JSON or Markdown.

    Args:
        found: has `to_dict`.
        part: has the modules ``markdown`` (`render`) and ``terminal`` (`show`).
        format_: "terminal", "json" or "markdown".
        output: file to write; standard output when None.
        verbose: whether the terminal shows everything.
    """
    from importlib import import_module

    from fitdoctor.cli.progress import Progress

    with Progress(off=True) as progress, opened(output, progress, utf8=format_ != "terminal") as out:
        if format_ == "json":
            import json

            json.dump(found.to_dict(), out, indent=2, ensure_ascii=False, allow_nan=False)
            out.write("\n")
        elif format_ == "markdown":
            out.write(import_module(f"fitdoctor.{part}.markdown").render(found))
        else:
            from rich.console import Console

            import_module(f"fitdoctor.{part}.terminal").show(found, Console(file=out), verbose=verbose)
