"""Alerts of a W&B run, and the verdict in its summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from fitdoctor.errors import ConfigError
from fitdoctor.export import alert
from fitdoctor.report import Diagnosis, Report

LEVELS = {"error": "ERROR", "warning": "WARN", "note": "INFO"}


@dataclass(frozen=True, slots=True)
class WandbRun:
    """A run of W&B.

    Attributes:
        run: what ``wandb.init`` returned.
    """

    run: Any

    @classmethod
    def of(cls, run: Any = None) -> WandbRun:
        """That run, or the current one.

        Raises:
            ConfigError: if wandb is not installed, or there is no run.
        """
        if run is None:
            try:
                import wandb
            except ImportError as error:
                raise ConfigError("W&B: expected the package wandb, got none; pip install wandb") from error
            run = wandb.run
        if not callable(getattr(run, "alert", None)):
            raise ConfigError(f"W&B: expected a run as wandb.init() returns it, got {run!r}; call wandb.init() before")
        return cls(run)

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"W&B run {getattr(self.run, 'id', '')}"

    def tell(self, run: str, diagnosis: Diagnosis) -> None:
        """Raise an alert."""
        self.run.alert(
            title=alert.title(diagnosis.root), text=alert.text(diagnosis), level=LEVELS[diagnosis.root.severity]
        )

    def report(self, reports: Sequence[Report], new: Sequence[Diagnosis]) -> None:
        """Alerts of the root causes that are new; verdict and root cause in the summary."""
        for diagnosis in new:
            self.tell("", diagnosis)
        for report in reports:
            root = report.diagnoses[0].root.rule if report.verdict == "sick" and report.diagnoses else ""
            self.run.summary.update({"fitdoctor/verdict": report.verdict, "fitdoctor/root_cause": root})


@contextmanager
def resumed(project: str, run_id: str, entity: str | None = None) -> Iterator[WandbRun]:
    """A run that exists, resumed for as long as the context lasts.

    Raises:
        ConfigError: if wandb is not installed, or cannot resume that run.
    """
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("W&B: expected the package wandb, got none; pip install wandb") from error
    how: Literal["allow", "must"]
    settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
    offline = wandb.setup().settings.mode == "offline"
    try:
        # Offline nobody can tell whether the run exists; `wandb sync --append` joins it to the other.
        how = "allow" if offline else "must"
        run = wandb.init(entity=entity, project=project, id=run_id, resume=how, settings=settings)
    except wandb.Error as error:
        raise ConfigError(f"W&B: expected the id of a run in {project}, got {run_id!r}: {error}") from error
    try:
        yield WandbRun(run)
    finally:
        run.finish()
