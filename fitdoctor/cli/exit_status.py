"""The exit status of a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fitdoctor.report import Report

NOTHING_FOUND = 0
FINDINGS = 1
WRONG_INPUT = 2
NOT_JUDGED = 3

_RANKS = {"note": 0, "warning": 1, "error": 2, "never": 3}


@dataclass(slots=True)
class Tally:
    """Counts reports as they pass by.

    Attributes:
        fail_on: lowest severity that counts as a failure, or "never".
        runs: how many reports have passed.
        judged: how many of them reached a verdict.
        worst: rank of the worst severity seen, -1 for none.
        damaged: how many of them tell of a log that could not be read at all.
        unreadable: how many paths could not be read, or targets not be sent to.
    """

    fail_on: str
    runs: int = 0
    judged: int = 0
    worst: int = -1
    damaged: int = 0
    unreadable: int = 0

    def passing(self, reports: Iterable[Report]) -> Iterator[Report]:
        """The same reports, counted."""
        for report in reports:
            self.count(report)
            yield report

    def count(self, report: Report) -> None:
        """Take one report into account."""
        self.runs += 1
        self.damaged += report.steps is None and any(note.kind == "ignored-file" for note in report.notes)
        self.judged += report.verdict != "cannot judge"
        if report.worst is not None:
            self.worst = max(self.worst, report.worst.rank)

    def status(self, *, exit_zero: bool = False) -> int:
        """The exit status: wrong input first, then findings, then that nothing could be judged."""
        if self.unreadable or self.damaged == self.runs:  # among sound runs a damaged log is reported, no more
            return WRONG_INPUT
        if exit_zero:
            return NOTHING_FOUND
        if self.worst >= _RANKS[self.fail_on]:
            return FINDINGS
        return NOTHING_FOUND if self.judged else NOT_JUDGED


def told_of(failures: Sequence[str]) -> int:
    """Tell on stderr what could not be sent, and how many failures that makes."""
    for text in failures:
        click.echo(f"Error: not sent: {text}", err=True)
    return len(failures)
