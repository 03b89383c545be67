"""Alerts of a Trackio run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fitdoctor.errors import ConfigError
from fitdoctor.export import alert
from fitdoctor.report import Diagnosis, Report

LEVELS = {"error": "ERROR", "warning": "WARN", "note": "INFO"}


@dataclass(frozen=True, slots=True)
class TrackioRun:
    """A run of Trackio.

    Attributes:
        run: what ``trackio.init`` returned.
    """

    run: Any

    @classmethod
    def of(cls, run: Any = None) -> TrackioRun:
        """That run, or the current one.

        Raises:
            ConfigError: if trackio is not installed, is too old to have alerts, or there is no run.
        """
        _trackio()
        if run is None:
            from trackio import context_vars

            run = context_vars.current_run.get()
        if not callable(getattr(run, "alert", None)):
            raise ConfigError(
                f"Trackio: expected a run as trackio.init() returns it, got {run!r}; call trackio.init() before"
            )
        return cls(run)

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"Trackio run {getattr(self.run, 'name', '')}"

    def tell(self, run: str, diagnosis: Diagnosis) -> None:
        """Raise an alert at the step at which the finding began."""
        from trackio import AlertLevel

        level = AlertLevel[LEVELS[diagnosis.root.severity]]
        self.run.alert(
            title=alert.title(diagnosis.root), text=alert.text(diagnosis), level=level, step=diagnosis.root.onset
        )

    def report(self, reports: Sequence[Report], new: Sequence[Diagnosis]) -> None:
        """Alerts of the root causes that are new, and the verdict as one of the lowest level."""
        from trackio import AlertLevel

        for diagnosis in new:
            self.tell("", diagnosis)
        for report in reports:
            last = report.steps.last if report.steps else None
            title = f"fitdoctor: {report.verdict}"
            self.run.alert(title=title, text=alert.headline(report), level=AlertLevel.INFO, step=last)


@contextmanager
def resumed(project: str, name: str) -> Iterator[TrackioRun]:
    """A run that exists, resumed for as long as the context lasts.

    Raises:
        ConfigError: if trackio is not installed, is too old to have alerts, or knows no such run.
    """
    trackio = _trackio()
    try:
        run = trackio.init(project=project, name=name, resume="must")
    except ValueError as error:
        raise ConfigError(f"Trackio: expected the name of a run of {project!r}, got {name!r}: {error}") from error
    try:
        yield TrackioRun.of(run)
    finally:
        trackio.finish()


def _trackio() -> Any:
    try:
        import trackio
    except ImportError as error:
        raise ConfigError("Trackio: expected the package trackio, got none; pip install trackio") from error
    if not hasattr(trackio, "AlertLevel"):
        raise ConfigError(
            f"Trackio: expected a version with alerts, got {getattr(trackio, '__version__', 'an old one')}; "
            "pip install -U trackio"
        )
    return trackio
