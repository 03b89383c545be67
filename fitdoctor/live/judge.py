"""Judging a run while it trains: the same `diagnose`, on what is in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from fitdoctor import catalogue
from fitdoctor.config import Config
from fitdoctor.diagnose import choose, diagnose
from fitdoctor.errors import TrainingSick
from fitdoctor.finding import Finding, Severity
from fitdoctor.report import Report
from fitdoctor.run import Run

log = logging.getLogger("fitdoctor")

_LEVELS = {Severity.ERROR: logging.ERROR, Severity.WARNING: logging.WARNING, Severity.NOTE: logging.INFO}


class Judge:
    """Diagnoses windows and tells what is new.

    Args:
        config: what to select, ignore and override.
        on_finding: called with each finding at its first sight.
        stop_on: rules (names or codes) whose finding stops the training.

    Raises:
        ConfigError: if `stop_on` or the config names no rule.
    """

    def __init__(
        self, config: Config, on_finding: Callable[[Finding], object] | None, stop_on: Collection[str] = ()
    ) -> None:
        self.config = config
        self.seen: dict[str, Finding] = {}
        self._on_finding = on_finding
        self._rules = catalogue.rules()
        choose(self._rules, config)
        stop_on = (stop_on,) if isinstance(stop_on, str) else stop_on
        self._stop_on = {catalogue.find(name).name for name in stop_on}

    def look(self, run: Run) -> Report:
        """Judge a window; log, call back and stop as agreed.

        Raises:
            TrainingSick: if a rule of `stop_on` found something.
        """
        report = diagnose(run, rules=[r for r in self._rules if r.live], config=self.config)
        self._tell(report)
        for finding in report.findings:
            if finding.rule in self._stop_on and finding.severity is not Severity.NOTE:
                raise TrainingSick(f"{finding.rule}: {finding.message} (step {finding.onset})", report)
        return report

    def conclude(self, run: Run, *, tell: bool = True) -> Report:
        """Judge the whole run with all rules; never stops anything.

        Args:
            run: all of it.
            tell: log and call back what is new; of several processes, one does.
        """
        report = diagnose(run, rules=self._rules, config=self.config)
        if tell:
            self._tell(report)
        return report

    def _tell(self, report: Report) -> None:
        for finding in report.findings:
            known = self.seen.get(finding.rule)
            if known is not None and known.severity.rank >= finding.severity.rank:
                continue
            self.seen[finding.rule] = finding
            level = _LEVELS[finding.severity]
            log.log(level, "fitdoctor: step %d: %s: %s", finding.onset, finding.rule, finding.message)
            if self._on_finding is not None:
                try:
                    self._on_finding(finding)
                except TrainingSick:
                    raise
                except Exception:
                    log.exception("fitdoctor: on_finding failed for %s", finding.rule)
