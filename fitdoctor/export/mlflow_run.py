"""Tags of an MLflow run, and the report among its artifacts.

MLflow has no alerts; tags are what its list of runs shows, sorts and searches:
``tags."fitdoctor.verdict" = 'sick'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fitdoctor.errors import ConfigError
from fitdoctor.export import alert
from fitdoctor.report import Diagnosis, Report, to_json
from fitdoctor.reporters import html
from fitdoctor.reporters.harmless import one_line

_LONGEST = 500
"""Characters of a tag; MLflow takes 5,000 and shows fewer."""


@dataclass(frozen=True, slots=True)
class MlflowRun:
    """A run of MLflow.

    Attributes:
        client: an ``MlflowClient``.
        run_id: the run.
    """

    client: Any
    run_id: str

    @classmethod
    def of(cls, run_id: str | None = None, tracking_uri: str | None = None) -> MlflowRun:
        """The run of that id, or the active one.

        Raises:
            ConfigError: if MLflow is not installed, or there is no such run.
        """
        try:
            import mlflow
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise ConfigError(
                "MLflow: expected the package mlflow or mlflow-skinny, got none; pip install mlflow"
            ) from error
        if run_id is None:
            active = mlflow.active_run()
            if active is None:
                raise ConfigError(
                    "MLflow: expected a run id or an active run, got neither; call mlflow.start_run() before"
                )
            run_id = str(active.info.run_id)
        try:
            client = MlflowClient(tracking_uri=tracking_uri)
            client.get_run(run_id)
        except MlflowException as error:
            where = tracking_uri or mlflow.get_tracking_uri()
            raise ConfigError(
                f"MLflow: expected the id of a run in {_without_password(where)}, got {run_id!r}: "
                f"{one_line(error.message, 300)}"
            ) from error
        return cls(client, run_id)

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"MLflow run {self.run_id}"

    def tell(self, run: str, diagnosis: Diagnosis) -> None:
        """Set a tag ``fitdoctor.<rule>``."""
        text = one_line(f"{diagnosis.root.severity}: {alert.line(diagnosis.root)}", _LONGEST)
        self.client.set_tag(self.run_id, f"fitdoctor.{diagnosis.root.rule}", text)

    def report(self, reports: Sequence[Report], new: Sequence[Diagnosis]) -> None:
        """Set the tags of the verdict, and log the report as HTML and JSON below ``fitdoctor/``."""
        for diagnosis in new:
            self.tell("", diagnosis)
        for report in reports:
            root = report.diagnoses[0].root.rule if report.verdict == "sick" and report.diagnoses else ""
            self.client.set_tag(self.run_id, "fitdoctor.verdict", report.verdict)
            self.client.set_tag(self.run_id, "fitdoctor.root_cause", root)
            self.client.log_text(self.run_id, html.render([report]), "fitdoctor/report.html")
            self.client.log_text(self.run_id, to_json([report], fitdoctor=report.fitdoctor), "fitdoctor/report.json")


def _without_password(address: str) -> str:
    """An address without what stands before the @."""
    before, slashes, rest = address.partition("://")
    return f"{before}{slashes}{rest.rpartition('@')[2]}" if slashes else address
