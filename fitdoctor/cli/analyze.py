"""`fitdoctor analyze PATH...`: read logs, judge them, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fitdoctor.cli.options import LOG_PATH, Given, export_options, judging_options, reading_options

FORMATS = ("terminal", "json", "markdown", "html", "github", "sarif", "junit")
_BY_SUFFIX = {".json": "json", ".md": "markdown", ".html": "html", ".htm": "html", ".sarif": "sarif", ".xml": "junit"}


@click.command(short_help="Diagnose the runs logged below some paths.")
@click.argument("paths", nargs=-1, required=True, type=LOG_PATH, metavar="PATH...")
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="What to write.  [default: terminal, or by the suffix of FILE]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the report there instead of to stdout.",
)
@judging_options
@reading_options
@export_options
@click.option(
    "--full",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="Of many runs, show the N worst whole.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that read and judge.  [default: one a core, where there is enough to do]",
)
@click.option(
    "--engine",
    default="process",
    show_default=True,
    metavar="ENGINE",
    help="What runs the workers: process, or dask[://SCHEDULER] for a Dask cluster.",
)
@click.option(
    "--cache/--no-cache",
    default=True,
    help="Keep reports in the user's cache folder and use those kept, as long as log and rules are unchanged.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show every remedy, framework, tag and skipped rule.")
@click.option("-q", "--quiet", is_flag=True, help="Show verdicts only, and no progress.")
@click.pass_context
def analyze(
    ctx: click.Context, /, paths: tuple[str | Path, ...], format_: str | None, output: Path | None, exit_zero: bool,
    pattern: str | None, full: int, workers: int | None, engine: str, cache: bool, targets: tuple[str, ...], send: Any,
    allow_http: bool, verbose: bool, quiet: bool, **given: Any,
) -> None:  # fmt: skip
    """Diagnose the runs logged below PATH: TensorBoard, CSV, JSON, W&B, MLflow, text and more.

    Exit status: 0 nothing at or above --fail-on, 1 findings, 2 wrong usage or unreadable input, 3 no run
    could be judged.
    """
    from fitdoctor.cli.exit_status import Tally, told_of
    from fitdoctor.cli.logs import Logs
    from fitdoctor.cli.output import opened, write_reports
    from fitdoctor.cli.progress import Progress
    from fitdoctor.export.targets import Exports
    from fitdoctor.export.targets import opened as opened_targets

    config = Given(**given).settings()
    tally = Tally(config.fail_on)
    format_ = format_ or (_BY_SUFFIX.get(output.suffix.lower(), "terminal") if output else "terminal")
    with (
        opened_targets(targets, send=send, allow_http=allow_http) as told,
        Progress(off=quiet) as progress,
        opened(output, progress, utf8=format_ != "terminal") as out,
    ):
        exports = Exports(told)
        logs = Logs(paths, config, pattern, progress)
        found = logs.reports(layers=format_ == "html", workers=workers, stored=cache, engine=engine)
        reports = exports.passing(tally.passing(found))
        write_reports(reports, format_, out, fail_on=config.fail_on, full=full, verbose=verbose, quiet=quiet)
    tally.unreadable = logs.report_failures() + told_of(exports.failures)
    ctx.exit(tally.status(exit_zero=exit_zero))
