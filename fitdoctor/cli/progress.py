"""A progress bar on stderr, for work that takes long enough to wonder."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PATIENCE = 0.7
"""Seconds before anything is shown: people begin to wonder at about one."""

PACE = 0.1
"""Seconds between two drawings."""


class Progress:
    """Shows how much of the work is done; does nothing where stderr is no terminal.

    Everything that writes to the same terminal calls `hide` first.
    """

    def __init__(self, *, off: bool = False) -> None:
        self._off = off or not sys.stderr.isatty()
        self._began = self._drawn = time.monotonic()
        self._bar: Bar | None = None
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hide()

    def update(self, done: float, total: float, what: str) -> None:
        """Say how far the work is.

        Args:
            done: units of work done.
            total: units of work in all; 0 when unknown.
            what: what is being worked on.
        """
        now = time.monotonic()
        if self._off or now - self._began < PATIENCE or now - self._drawn < PACE:
            return
        self._drawn = now
        bar = self._bar or self._make()
        if not self._shown:
            bar.start()
            self._shown = True
        from rich.text import Text

        from fitdoctor.reporters.harmless import one_line

        task = bar.task_ids[0]
        bar.update(task, completed=done, total=total or None, what=Text(one_line(what, 40)))
        bar.refresh()

    def hide(self) -> None:
        """Take the bar off the screen; the next `update` shows it again."""
        if self._bar is not None and self._shown:
            self._bar.stop()
            self._shown = False

    def _make(self) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        # stdout must stay what it is: rich would send it to the console of the bar, which is stderr.
        self._bar = Bar(
            BarColumn(24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}", markup=False),
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bar.add_task("", total=None, what="")
        return self._bar
