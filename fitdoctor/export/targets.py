"""What stands behind ``--to TARGET`` on the command line.

https://example.org/hook           a webhook; `webhook` alone takes the address from FITDOCTOR_WEBHOOK_URL
wandb:[ENTITY/]PROJECT/RUN_ID      alerts of a W&B run that exists
mlflow:RUN_ID                      tags and artifacts of an MLflow run; the store as MLFLOW_TRACKING_URI says
trackio:PROJECT/RUN                alerts of a Trackio run that exists
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fitdoctor.errors import ConfigError, ExportError
from fitdoctor.export.outbox import Destination, Outbox
from fitdoctor.finding import Severity
from fitdoctor.report import Diagnosis, Report
from fitdoctor.reporters.harmless import one_line

if TYPE_CHECKING:
    from fitdoctor.export.webhook import Content

TOGETHER = 50
"""Reports that are held before they are sent."""


@dataclass(slots=True)
class Target:
    """A destination named on the command line.

    Attributes:
        destination: where to.
        one_run: it is one run of a tracker, which takes the findings of one run only.
    """

    destination: Destination
    one_run: bool


@contextmanager
def opened(texts: Sequence[str], *, send: Content = "findings", allow_http: bool = False) -> Iterator[list[Target]]:
    """The targets, runs of trackers resumed and in the end finished.

    Raises:
        ConfigError: if one is no target, or cannot be used.
    """
    with ExitStack() as stack:
        # Trackers print; stdout belongs to the report.
        with redirect_stdout(sys.stderr):
            targets = [_opened(text, stack, send, allow_http) for text in texts]
        yield targets
        with redirect_stdout(sys.stderr):
            stack.close()


def _opened(text: str, stack: ExitStack, send: Content, allow_http: bool) -> Target:
    kind, colon, place = text.partition(":")
    if text == "webhook" or place.startswith("//"):
        from fitdoctor.export.webhook import Webhook

        return Target(Webhook.of(None if text == "webhook" else text, send=send, allow_http=allow_http), one_run=False)
    parts = place.split("/")
    if colon and all(parts):
        if kind == "mlflow" and len(parts) == 1:
            from fitdoctor.export.mlflow_run import MlflowRun

            return Target(MlflowRun.of(place), one_run=True)
        if kind == "wandb" and len(parts) in (2, 3):
            from fitdoctor.export.wandb_run import resumed

            entity = parts[0] if parts[2:] else None
            return Target(stack.enter_context(resumed(parts[-2], parts[-1], entity)), one_run=True)
        if kind == "trackio" and len(parts) == 2:
            from fitdoctor.export.trackio_run import resumed as of_trackio

            return Target(stack.enter_context(of_trackio(*parts)), one_run=True)
    shown = one_line(kind if colon else text, 40)  # the rest may hold a secret
    raise ConfigError(
        "--to: expected https://..., webhook, wandb:[ENTITY/]PROJECT/RUN_ID, mlflow:RUN_ID or trackio:PROJECT/RUN, "
        f"got one that begins with {shown!r}"
    )


class Exports:
    """Sends reports that pass by, and remembers what could not be sent.

    Attributes:
        failures: a sentence for each target that did not get everything.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self.failures: list[str] = []
        self._targets = list(targets)

    def passing(self, reports: Iterable[Report]) -> Iterator[Report]:
        """The same reports; each is sent after it was told."""
        held: list[Report] = []
        runs = 0
        for report in reports:
            yield report
            runs += 1
            held.append(report)
            if len(held) == TOGETHER:
                self._send(held, runs)
                held = []
        self._send(held, runs, last=True)

    def _send(self, held: Sequence[Report], runs: int, *, last: bool = False) -> None:
        for target in list(self._targets):
            try:
                if target.one_run and runs > 1:
                    raise several()
                if held and (last or not target.one_run):
                    new = [d for r in held for d in r.diagnoses if d.root.severity is not Severity.NOTE]
                    with redirect_stdout(sys.stderr):
                        target.destination.report(held, new)
            except Exception as error:  # whatever a tracker raises must not cost the user the other reports
                self.failures.append(_failure(target, str(error) or type(error).__name__))
                self._targets.remove(target)  # it is tried no further


class Alerts:
    """Sends root causes as they appear, each by a thread of its target.

    Args:
        targets: where to.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = [(t, Outbox(_OneRun(t.destination) if t.one_run else t.destination)) for t in targets]

    def look(self, report: Report) -> None:
        """Send what is new in a report."""
        for _, outbox in self._targets:
            outbox.look(report)

    def close(self, reports: Sequence[Report]) -> list[str]:
        """Send the reports, wait until everything has arrived, and say of each target that did not get everything."""
        failures = []
        for target, outbox in self._targets:
            if reports and not (target.one_run and len(reports) > 1):
                outbox.report(*reports)
            if not outbox.close(timeout=60.0):
                failures.append(_failure(target, outbox.failures[0]))
        return failures


@dataclass(slots=True)
class _OneRun:
    """A run of a tracker, to which findings of another run do not belong."""

    destination: Destination
    run: str | None = None

    @property
    def name(self) -> str:
        return self.destination.name

    def tell(self, run: str, diagnosis: Diagnosis) -> None:
        if self.run not in (None, run):
            raise several()
        self.run = run
        self.destination.tell(run, diagnosis)

    def report(self, reports: Sequence[Report], new: Sequence[Diagnosis]) -> None:
        self.destination.report(reports, new)


def several() -> ExportError:
    """The error for several runs that are to become one."""
    return ExportError("expected the findings of one run, got those of several; choose one with --run")


def _failure(target: Target, why: str) -> str:
    return f"{target.destination.name}: {one_line(why, 500)}"
