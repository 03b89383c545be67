"""`fitdoctor signals [PATH]`: the vocabulary, or what the tags of a log were mapped to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fitdoctor.cli.options import LOG_PATH, Given, reading_options

if TYPE_CHECKING:
    from fitdoctor.reporters.page import Page
    from fitdoctor.run import Run


@click.command(short_help="Show what the tags of a log were mapped to.")
@click.argument("paths", nargs=-1, type=LOG_PATH, metavar="[PATH...]")
@reading_options
@click.option(
    "--format",
    "format_",
    type=click.Choice(["terminal", "json"]),
    default="terminal",
    show_default=True,
    help="What to write.",
)
@click.pass_context
def signals(
    ctx: click.Context, /, paths: tuple[str | Path, ...], format_: str, pattern: str | None, **given: Any
) -> None:
    """Show what the tags of the logs below PATH mean to fitdoctor, and which were left out.

    Without PATH: all quantities that a tag can be mapped to, with unit and definition.
    """
    from rich.console import Console

    from fitdoctor.cli.exit_status import NOTHING_FOUND, WRONG_INPUT
    from fitdoctor.reporters.page import Page

    if not paths:
        _show_vocabulary(Page(Console()), format_)
        return
    from fitdoctor.cli.logs import Logs
    from fitdoctor.cli.progress import Progress

    with Progress(off=format_ == "terminal") as progress:
        logs = Logs(paths, Given(**given).settings(), pattern, progress)
        if format_ == "json":
            import json

            click.echo(json.dumps([_plain(run, left_out) for run, left_out in logs.described()], indent=2))
        else:
            page = Page(Console())
            for run, left_out in logs.described():
                _show_mapping(run, left_out, page)
    ctx.exit(WRONG_INPUT if logs.report_failures() else NOTHING_FOUND)


def _show_vocabulary(page: Page, format_: str) -> None:
    from fitdoctor.signals import QUANTITIES, SPLIT_QUANTITIES

    if format_ == "json":
        import json

        known = [
            {"name": q.name, "unit": q.unit, "better": q.better, "per_split": q in SPLIT_QUANTITIES, "doc": q.doc}
            for q in QUANTITIES.values()
        ]
        click.echo(json.dumps(known, indent=2))
        return
    longest = max(map(len, QUANTITIES))
    for quantity in QUANTITIES.values():
        details = [f"in {quantity.unit}" if quantity.unit else "", "per split" if quantity in SPLIT_QUANTITIES else ""]
        details.append(f"{quantity.better} is better" if quantity.better else "")
        note = ", ".join(d for d in details if d)
        page.write(
            quantity.doc,
            (f"  ({note})" if note else "", "dim"), first=((f"{quantity.name:<{longest}}  ", "cyan"),),
        )  # fmt: skip
    page.gap()
    page.write(("--map TAG=QUANTITY or TAG=QUANTITY:SPLIT (train, val, test) says what a tag of a log means.", "dim"))


def _show_mapping(run: Run, left_out: Mapping[str, str], page: Page) -> None:
    from fitdoctor.reporters.harmless import one_line

    page.write((one_line(run.name) or "run", "bold"), (f"  {run.source}, {len(run.series)} series", "dim"))
    tags = [one_line(s.tag, 36) or "(no tag)" for s in run.series]
    longest = max(map(len, tags), default=0)
    meanings = [one_line(str(s.signal), 40) for s in run.series]
    widest = max(map(len, meanings), default=0)
    for tag, meaning, series in zip(tags, meanings, run.series, strict=True):
        per = f", per {series.per}" if series.per else ""
        first, last = series.span.first, series.span.last
        page.write(
            (f"{meaning:<{widest}}", "cyan"),
            (f"  {len(series):,} points, {run.step_unit}s {first:,} to {last:,}{per}", "dim"),
            first=f"  {tag:<{longest}}  ",
        )  # fmt: skip
    for key, value in run.facts.items():
        page.write((f"{one_line(key)} = {one_line(str(value))}", "dim"), first="  ")
    if left_out:
        page.write((f"{len(left_out)} left out", "yellow"), first="  ")
        for tag, why in left_out.items():
            page.write(one_line(tag), (f"  {one_line(why)}", "dim"), first="    ")
    for note in run.notes:
        page.write((f"{note.kind}: ", "yellow"), one_line(note.text), first="  ")
    page.gap()


def _plain(run: Run, left_out: Mapping[str, str]) -> dict[str, Any]:
    return {
        "run": run.name,
        "path": run.path,
        "source": run.source,
        "mapped": [
            {
                "tag": s.tag,
                "quantity": s.signal.quantity.name,
                "split": s.signal.split,
                "layer": s.signal.layer,
                "per": s.per,
                "points": len(s),
                "steps": [s.span.first, s.span.last],
            }
            for s in run.series
        ],
        "left_out": dict(left_out),
        "facts": dict(run.facts),
        "notes": [{"kind": n.kind, "text": n.text} for n in run.notes],
    }
