"""`fitdoctor watch PATH`: read a growing log again and again, and tell what is new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fitdoctor.cli.options import LOG_PATH, Given, export_options, judging_options, reading_options


@click.command(short_help="Follow a growing log and tell each new finding.")
@click.argument("path", type=LOG_PATH, metavar="PATH")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05),
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look once, then end.")
@click.option("--stop-after", type=click.FloatRange(min=0), metavar="S", help="End after so many seconds.")
@judging_options
@reading_options
@export_options
@click.pass_context
def watch(
    ctx: click.Context, /, path: str | Path, interval: float, once: bool, stop_after: float | None, exit_zero: bool,
    pattern: str | None, targets: tuple[str, ...], send: Any, allow_http: bool, **given: Any,
) -> None:  # fmt: skip
    """Read the logs below PATH again whenever they grow; tell each new finding once, and when one is gone.

    Ctrl-C ends it with a summary. Exit status as of analyze.
    """
    from rich.console import Console

    from fitdoctor.cli.follow import Follower
    from fitdoctor.export.targets import Alerts, opened
    from fitdoctor.reporters.page import Page

    config = Given(**given).settings()
    with opened(targets, send=send, allow_http=allow_http) as told:
        follower = Follower(path, config, pattern, Page(Console()), Alerts(told))
        follower.follow(interval, 0.0 if once else stop_after)
        status = follower.close(exit_zero=exit_zero)
    ctx.exit(status)
