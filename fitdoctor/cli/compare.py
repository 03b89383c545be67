"""`fitdoctor compare BEFORE AFTER`: what changed between two runs, and whether it helped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fitdoctor.cli.options import Given, Pair, fact

if TYPE_CHECKING:
    from fitdoctor.compare import Comparison
    from fitdoctor.config import Config
    from fitdoctor.run import Run

FORMATS = ("terminal", "json", "markdown")
_PATTERN = re.compile(r"/[^/]*[*?\[].*")  # the end of a URL from the first part on that is a pattern
_BY_SUFFIX = {".json": "json", ".md": "markdown"}
NOTHING_IN_COMMON = 3


class _TwoSides(click.Command):
    """A command whose option --against takes all the paths that follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give each path after --against an --against of its own."""
        spread: list[str] = []
        taking = False
        for i, arg in enumerate(args):
            if taking and not arg.startswith("-"):
                if args[i - 1] != "--against":
                    spread.append("--against")
            elif arg.startswith("-"):
                taking = arg == "--against"
            spread.append(arg)
        return super().parse_args(ctx, spread)


@click.command(cls=_TwoSides, short_help="Say what changed between two runs, and whether it helped.")
@click.argument("paths", nargs=-1, required=True, metavar="BEFORE... [AFTER]")
@click.option("--against", multiple=True, metavar="AFTER...", help="All paths from here on are the runs after.")
@click.option("--paired", is_flag=True, help="Run i before and run i after have the same seed and data order.")
@click.option(
    "--by",
    "clock",
    type=click.Choice(["step", "epoch", "time"]),
    help="Align by equal steps, epochs or seconds.  [default: epochs where a step means another thing]",
)
@click.option("--metric", metavar="QUANTITY[:SPLIT]", help="The curve that decides, such as accuracy:val.")
@click.option(
    "--before",
    "facts_before",
    metavar="KEY=VALUE",
    type=Pair("KEY=VALUE"),
    multiple=True,
    help="A setting that the logs before do not tell.",
)
@click.option(
    "--after",
    "facts_after",
    metavar="KEY=VALUE",
    type=Pair("KEY=VALUE"),
    multiple=True,
    help="A setting that the logs after do not tell.",
)
@click.option(
    "--map",
    "tags",
    metavar="TAG=QUANTITY[:SPLIT]",
    type=Pair("TAG=QUANTITY[:SPLIT]"),
    multiple=True,
    help="What a tag of the logs means.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Config file. Default: fitdoctor.toml, or [tool.fitdoctor] in pyproject.toml, upwards.",
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
    "--fail-on",
    type=click.Choice(["error", "warning", "note", "never"]),
    help="Lowest severity of a new finding that makes the exit status 1.  [default: error]",
)
@click.option("--exit-zero", is_flag=True, help="Exit with 0 unless usage or input was wrong.")
@click.option("-v", "--verbose", is_flag=True, help="Show every curve, and settings of the environment.")
@click.pass_context
def compare(
    ctx: click.Context, /, paths: tuple[str, ...], against: tuple[str, ...], paired: bool, clock: Any,
    metric: str | None, facts_before: tuple[tuple[str, str], ...], facts_after: tuple[tuple[str, str], ...],
    format_: str | None, output: Path | None, exit_zero: bool, verbose: bool, **given: Any,
) -> None:  # fmt: skip
    """Say what changed between the run BEFORE and the run AFTER, and whether it helped.

    Several runs of each side, which differ by their seed only: fitdoctor compare a1 a2 a3 --against b1 b2 b3.
    A path may be a log, the folder of a run, a folder of runs, a quoted pattern such as 'runs/lr-1*', or a URL.

    Exit status: 0 nothing got worse, 1 the deciding metric is worse (p < 0.05) or a finding at or above
    --fail-on is new, 2 wrong usage or unreadable input, 3 no curve in common.
    """
    from fitdoctor.compare import compare as compared
    from fitdoctor.compare.judge import find_signal

    config = Given(**given).settings()
    sides = _sides(paths, against)
    before, after = (
        [_told(path, run, told) for path in side for run in runs_below(path, config)]
        for side, told in zip(sides, (facts_before, facts_after), strict=True)
    )
    signal = find_signal(metric) if metric else None
    found = compared(before, after, clock=clock, metric=signal, paired=paired, config=config)
    format_ = format_ or (_BY_SUFFIX.get(output.suffix.lower(), "terminal") if output else "terminal")
    from fitdoctor.cli.output import write_found

    write_found(found, "compare", format_, output, verbose=verbose)
    ctx.exit(status(found, config.fail_on, exit_zero=exit_zero))


def status(comparison: Comparison, fail_on: str, *, exit_zero: bool = False) -> int:
    """The exit status of a comparison."""
    from fitdoctor.finding import Severity

    if exit_zero:
        return 0
    new = comparison.new(Severity(fail_on)) if fail_on != "never" else ()
    if comparison.call == "worse" or new:
        return 1
    return 0 if comparison.decided_by is not None else NOTHING_IN_COMMON


def runs_below(path: str, config: Config) -> Iterator[Run]:
    """The runs of one argument: a path, a pattern of paths, or a path and a pattern of names of the runs in it.

    Raises:
        ReadError: if nothing is there.
    """
    from glob import glob

    from fitdoctor.errors import NoLogsFound
    from fitdoctor.readers import open_runs
    from fitdoctor.readers.urls import is_url, protocol

    if is_url(path):
        pattern = None if protocol(path) in ("http", "https") else _PATTERN.search(path)
        if pattern is None:
            yield from open_runs(path, tags=config.tags)
        else:
            yield from open_runs(path[: pattern.start()], tags=config.tags, match=path[pattern.start() + 1 :])
        return
    if Path(path).exists():
        yield from open_runs(Path(path), tags=config.tags)
        return
    if not any(c in path for c in "*?["):
        raise NoLogsFound(f"{path}: no such file or folder; a pattern has to be quoted, such as 'runs/lr-1*'")
    places = sorted(glob(path))
    for place in places:
        yield from open_runs(Path(place), tags=config.tags)
    if places:
        return
    for store in Path(path).parents:  # a store that holds many runs: the rest of the pattern is for their names
        if store.exists() and store != Path():
            yield from open_runs(store, tags=config.tags, match=str(Path(path).relative_to(store)))
            return
    raise NoLogsFound(f"{path}: nothing fits that pattern")


def _sides(paths: Sequence[str], against: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    if against:
        return paths, against
    if len(paths) != 2:
        raise click.UsageError(
            f"expected two paths, got {len(paths)}; several runs of a side: fitdoctor compare a1 a2 --against b1 b2"
        )
    return paths[:1], paths[1:]


def _told(path: str, run: Run, told: Sequence[tuple[str, str]]) -> Run:
    """The run under a name that tells it from others, with the facts given by hand."""
    from fitdoctor.readers.urls import shown

    path = shown(path)
    itself = run.name in ("", ".", Path(path).name, Path(path).stem)
    pattern = any(c in path for c in "*?[")
    name = run.name if pattern else path if itself else f"{path}/{run.name}"
    return replace(run, name=name, facts={**run.facts, **{key: fact(value) for key, value in told}})
