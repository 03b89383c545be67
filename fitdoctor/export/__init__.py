"""Findings sent elsewhere: W&B, MLflow, Trackio, or any server that takes a JSON POST.

    alerts = fitdoctor.export.to_wandb(run)                        # or to_mlflow, to_trackio, to_webhook
    monitor = fitdoctor.attach(model, optimizer, criterion, on_finding=alerts)
    ...                                                            # the loop, unchanged
    alerts.close(monitor.close())                                  # before run.finish()

Each function returns an `Outbox`: what is handed over is sent by a thread of its own, so that a slow or dead server
never slows a training. On the command line: ``fitdoctor analyze LOGDIR --to TARGET``, ``fitdoctor watch LOGDIR
--to TARGET``.

    outbox.py    the thread between a training and a destination
    webhook.py   a POST of JSON
    wandb_run.py, mlflow_run.py, trackio_run.py   the trackers; each imports its package when it is used
    targets.py   what stands behind --to
    alert.py     a finding in a title and a few lines
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fitdoctor.export.outbox import Outbox
from fitdoctor.finding import Severity

if TYPE_CHECKING:
    from fitdoctor.export.outbox import Destination
    from fitdoctor.export.webhook import Content


def to_wandb(run: Any = None, *, least: str = "warning") -> Outbox:
    """Findings as alerts of a W&B run, and the verdict in its summary.

    Args:
        run: what ``wandb.init`` returned; the current run when left out.
        least: lowest severity that is sent: "error", "warning" or "note".

    Raises:
        ConfigError: if wandb is not installed, or there is no run.
    """

    def destination() -> Destination:
        from fitdoctor.export.wandb_run import WandbRun

        return WandbRun.of(run)

    return _outbox(destination, least)


def to_mlflow(run_id: str | None = None, *, tracking_uri: str | None = None, least: str = "warning") -> Outbox:
    """Findings as tags of an MLflow run, and the report among its artifacts.

    Args:
        run_id: the run; the active one when left out.
        tracking_uri: the tracking server or store; MLflow's own setting when left out.
        least: lowest severity that is sent.

    Raises:
        ConfigError: if MLflow is not installed, or there is no such run.
    """

    def destination() -> Destination:
        from fitdoctor.export.mlflow_run import MlflowRun

        return MlflowRun.of(run_id, tracking_uri)

    return _outbox(destination, least)


def to_trackio(run: Any = None, *, least: str = "warning") -> Outbox:
    """Findings as alerts of a Trackio run.

    Args:
        run: what ``trackio.init`` returned; the current run when left out.
        least: lowest severity that is sent.

    Raises:
        ConfigError: if trackio is not installed, is too old to have alerts, or there is no run.
    """

    def destination() -> Destination:
        from fitdoctor.export.trackio_run import TrackioRun

        return TrackioRun.of(run)

    return _outbox(destination, least)


def to_webhook(
    url: str | None = None,
    *,
    run: str = "",
    send: Content = "findings",
    allow_http: bool = False,
    timeout: float = 10.0,
    least: str = "warning",
) -> Outbox:
    """Findings as JSON, sent by POST; see docs/export.md for its form.

    A header for the server, such as ``Authorization: Bearer ...``, is taken from FITDOCTOR_WEBHOOK_HEADER.

    Args:
        url: https, or http to this machine; that in FITDOCTOR_WEBHOOK_URL when left out.
        run: name of the run, as the server is to be told.
        send: "findings", or "all" for curves, settings and notes of the log, too.
        allow_http: send unencrypted over the network, too.
        timeout: seconds that each attempt may wait for the server.
        least: lowest severity that is sent.

    Raises:
        ConfigError: if the URL or the header cannot be used.
    """

    def destination() -> Destination:
        from fitdoctor.export.webhook import Webhook

        return Webhook.of(url, send=send, allow_http=allow_http, timeout=timeout)

    return _outbox(destination, least, run)


def _outbox(destination: Callable[[], Destination], least: str, run: str = "") -> Outbox:
    from fitdoctor.errors import ConfigError

    if least not in [s.value for s in Severity]:
        raise ConfigError(f"least: expected 'error', 'warning' or 'note', got {least!r}")
    return Outbox(destination(), run=run, least=Severity(least))


__all__ = ["Outbox", "to_mlflow", "to_trackio", "to_wandb", "to_webhook"]
