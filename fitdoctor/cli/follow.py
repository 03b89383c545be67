"""Following a growing log: look, compare with the last look, tell what is new and what is gone."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fitdoctor.cli.exit_status import Tally, told_of
from fitdoctor.diagnose import diagnose, while_running
from fitdoctor.errors import NoLogsFound
from fitdoctor.export.targets import Alerts
from fitdoctor.finding import Finding
from fitdoctor.readers import find_runs
from fitdoctor.readers.tensorboard import Memory
from fitdoctor.readers.urls import shown
from fitdoctor.report import Report
from fitdoctor.reporters import terminal, wording
from fitdoctor.reporters.harmless import one_line
from fitdoctor.reporters.terminal_table import show_all

if TYPE_CHECKING:
    from fitdoctor.config import Config
    from fitdoctor.readers import RunSource
    from fitdoctor.reporters.page import Page
    from fitdoctor.run import Run

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(slots=True)
class _Seen:
    """What is known of one source since the last look."""

    fingerprint: Fingerprint
    reports: dict[str, Report] = field(default_factory=dict)


class Follower:
    """Looks at the logs below a path and remembers what it has told."""

    def __init__(
        self, path: str | Path, config: Config, pattern: str | None, page: Page, alerts: Alerts | None = None
    ) -> None:
        self._path = path
        self._config = config
        self._pattern = pattern or "*"
        self._page = page
        self._alerts = alerts or Alerts(())
        self._seen: dict[str, _Seen] = {}
        self._memory = Memory()
        self._waiting = False

    def follow(self, interval: float, stop_after: float | None) -> None:
        """Look every `interval` seconds until interrupted, or for `stop_after` seconds."""
        began = time.monotonic()
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                self.look()
                left = None if stop_after is None else began + stop_after - time.monotonic()
                if left is not None and left <= 0:
                    return
                time.sleep(interval if left is None else min(interval, left))

    def look(self) -> None:
        """Read what has changed since the last look, and tell what is new."""
        try:
            sources = find_runs(self._path, tags=self._config.tags)
        except NoLogsFound:
            if not self._waiting:
                self._say(("no log yet, waiting for one below ", "dim"), (one_line(shown(str(self._path))), "dim"))
            self._waiting = True
            return
        for source in sources:
            # Taken before reading: what is written meanwhile is read at the next look.
            fingerprint = source.fingerprint()
            before = self._seen.get(source.name)
            if before is None or before.fingerprint != fingerprint:
                after = _Seen(fingerprint, self._judged(source))
                self._compare(before.reports if before else {}, after.reports)
                for report in after.reports.values():
                    self._alerts.look(report)
                self._seen[source.name] = after

    def close(self, *, exit_zero: bool) -> int:
        """Write the summary; the exit status."""
        reports = [r for seen in self._seen.values() for r in seen.reports.values()]
        self._page.gap()
        tally = Tally(self._config.fail_on)
        show_all(tally.passing(reports), self._page.console)
        tally.unreadable = told_of(self._alerts.close(reports))
        if not reports:
            raise NoLogsFound(
                f"{shown(str(self._path))}: no run that fits {self._pattern!r} was logged while it was watched"
            )
        return tally.status(exit_zero=exit_zero)

    def _judged(self, source: RunSource) -> dict[str, Report]:
        from fnmatch import fnmatchcase

        runs = [run for run in source.load(self._memory) if fnmatchcase(run.name, self._pattern)]
        return {run.name: diagnose(run, config=self._settings(run)) for run in runs}

    def _settings(self, run: Run) -> Config:
        """While a run goes on, rules that need its end are left out."""
        return self._config if run.finished else while_running(self._config)

    def _compare(self, before: dict[str, Report], after: dict[str, Report]) -> None:
        for name, report in after.items():
            old = {f.rule: f for f in before[name].findings} if name in before else {}
            new: dict[str, Finding] = {}
            for finding in report.findings:
                new.setdefault(finding.rule, finding)
            if name not in before:
                verdict, _ = wording.headline(report)
                self._say((one_line(name), "bold"), f" {verdict}, {wording.facts_line(report)}")
            for rule, finding in new.items():
                if rule not in old or old[rule].severity != finding.severity:
                    self._tell(report, finding)
            for rule in sorted(old.keys() - new.keys()):
                self._say((one_line(name), "bold"), ("  gone: ", "green"), rule, f"  {self._at(report)}")

    def _tell(self, report: Report, finding: Finding) -> None:
        mark, style = terminal.symbol(self._page, finding.severity)
        self._say(
            (one_line(report.run), "bold"), (f"  {mark} {finding.severity} {finding.rule}", style),
            f"  {one_line(finding.message)}",
            (f"  since {wording.when(report, finding.onset)}, seen {self._at(report)}", "dim"),
        )  # fmt: skip

    def _at(self, report: Report) -> str:
        return f"at {wording.when(report, report.steps.last)}" if report.steps else ""

    def _say(self, *pieces: str | tuple[str, str]) -> None:
        self._page.write(*pieces, first=((time.strftime("%H:%M:%S  "), "dim"),))
