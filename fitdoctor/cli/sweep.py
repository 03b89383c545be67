"""`fitdoctor sweep LOGDIR`: the runs below a folder read as a sweep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fitdoctor.cli.options import LOG_PATH, Given, Pair, reading_options

if TYPE_CHECKING:
    from fitdoctor.config import Config
    from fitdoctor.report import Report
    from fitdoctor.sweep.objective import Curves

FORMATS = ("terminal", "json", "markdown")
_BY_SUFFIX = {".json": "json", ".md": "markdown"}
NO_SWEEP = 3


@click.command(short_help="Read many runs as a sweep: what made them sick, which learning rates work.")
@click.argument("paths", nargs=-1, required=True, type=LOG_PATH, metavar="LOGDIR...")
@click.option("--metric", metavar="QUANTITY[:SPLIT]", help="Rank by this, such as accuracy:val, or by a tag.")
@click.option("--mode", type=click.Choice(["min", "max"]), help="Whether less or more of the metric is better.")
@click.option(
    "--at",
    type=click.Choice(["best", "final"]),
    default="best",
    show_default=True,
    help="Rank by the best smoothed value of the curves, or by their end.",
)
@click.option(
    "--regret",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.02,
    show_default=True,
    metavar="SHARE",
    help="What a learning rate may lose, as a share of the range of training, and still count as good.",
)
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
    help="Write there instead of to stdout.",
)
@click.option(
    "--fact",
    "facts",
    metavar="KEY=VALUE",
    type=Pair("KEY=VALUE"),
    multiple=True,
    help="What the logs do not say, such as classes=10.",
)
@reading_options
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that read and judge.  [default: one a core, where there is enough to do]",
)
@click.option("--cache/--no-cache", default=True, help="Keep reports in the user's cache folder and use those kept.")
@click.option("-v", "--verbose", is_flag=True, help="Show every setting's table, and every learning rate.")
@click.pass_context
def sweep(
    ctx: click.Context, /, paths: tuple[Path, ...], metric: str | None, mode: Literal["min", "max"] | None,
    at: Literal["final", "best"], regret: float, format_: str | None, output: Path | None, pattern: str | None,
    workers: int | None, cache: bool, verbose: bool, **given: Any,
) -> None:  # fmt: skip
    """Read the runs below LOGDIR as a sweep.

    Says which setting separates the sick runs from the healthy ones, which learning rates cost next to nothing
    against the best one, and whether the best run is better than noise.

    Exit status: 0 done, 2 wrong usage or unreadable input, 3 no setting varies, or nothing to rank by.
    """
    from fitdoctor.cli.logs import Logs
    from fitdoctor.cli.progress import Progress
    from fitdoctor.sweep import sweep as read_as_sweep

    config = Given(**given).settings()
    with Progress() as progress:
        logs = Logs(paths, config, pattern, progress)
        reports = list(logs.reports(layers=False, workers=workers, stored=cache))
        curves: Curves = {}
        if metric is not None and reports and not _holds(reports, metric):
            curves = {metric: _tagged(paths, config, pattern, progress, metric, mode)}
    unreadable = logs.report_failures()
    if not reports:
        ctx.exit(2)
    found = read_as_sweep(reports, metric=metric, mode=mode, at=at, regret=regret, curves=curves)
    format_ = format_ or (_BY_SUFFIX.get(output.suffix.lower(), "terminal") if output else "terminal")
    from fitdoctor.cli.output import write_found

    write_found(found, "sweep", format_, output, verbose=verbose)
    ctx.exit(2 if unreadable else 0 if found.axes and found.objective is not None else NO_SWEEP)


def _holds(reports: list[Report], metric: str) -> bool:
    """Whether the reports hold the curve themselves."""
    from fitdoctor.sweep.objective import signal_of

    signal = signal_of(metric)
    return any(c.signal == signal for r in reports for c in r.curves)


def _tagged(
    paths: tuple[Path, ...], config: Config, pattern: str | None, progress: Any, tag: str, mode: str | None
) -> dict[str, tuple[tuple[int, float], ...]]:
    """The curve of a tag in each run, read from the logs once more; a tag nobody understands needs a mode."""
    from fitdoctor.cli.logs import Logs
    from fitdoctor.run import thin

    if mode is not None:
        quantity = "error" if mode == "min" else "score"
        config = replace(config, tags={**config.tags, tag: f"{quantity}:val:{tag.replace(':', '_')}"})
    runs = Logs(paths, config, pattern, progress).described()
    return {
        run.name: thin(series)
        for run, _ in runs
        if (series := next((s for s in run.series if tag in (s.tag, str(s.signal)) and len(s)), None)) is not None
    }
