"""`python -m benchmarks.accuracy.ward`: train the ward's runs, score what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from benchmarks.accuracy.ward import repairs, table
from benchmarks.accuracy.ward.arms import ARMS, package_hash
from benchmarks.accuracy.ward.score import Scored, sick
from benchmarks.accuracy.ward.scoring import chosen, probed, scored
from benchmarks.accuracy.ward.store import CACHE, Store

_CACHE = click.option("--cache", type=click.Path(path_type=Path), default=CACHE, help="Folder of all runs.")
_JOBS = click.option("--jobs", default=2, show_default=True, help="Processes.")
_GROUP = click.option(
    "--group", type=click.Choice(["calibration", "unseen", "all"]), default="all", help="Which families."
)


@click.group()
def ward() -> None:
    """Measure that the diagnoses are right and the remedies work."""


@ward.command()
@_CACHE
@_JOBS
@click.option("--again", is_flag=True, help="Also those that an older version of the monitor watched.")
def train(cache: Path, jobs: int, again: bool) -> None:
    """Train every run that is not there yet; it may be interrupted and goes on."""
    from benchmarks.accuracy.ward.plan import cases, trainings
    from benchmarks.accuracy.ward.truth import unsettled

    store = Store(cache)
    store.fill(trainings(), jobs=jobs, what="training", again=again)
    store.fill(unsettled(cases(), store), jobs=jobs, what="more seeds")


def _unseen(group: str) -> bool | None:
    return {"calibration": False, "unseen": True}.get(group)


@ward.command()
@_CACHE
@_JOBS
@_GROUP
@click.option("--arm", "arms", multiple=True, type=click.Choice(ARMS), default=("logs", "hooks"), help="Arms to score.")
@click.option("--show", default="", help="List runs: alarm, wrong, missed, found, three, open or root.")
@click.option("--only", default="", help="Only cases whose name holds this text.")
def score(cache: Path, jobs: int, group: str, arms: Sequence[str], show: str, only: str) -> None:
    """Score fitdoctor's arms; where the probes are among them, on the cases that they are tried on."""
    which = chosen(_unseen(group), only)
    rows = scored(probed(which) if {"probes", "everything"} & set(arms) else which, Store(cache), arms, jobs)
    first = next(iter(rows.values()))
    untried = sum(r.truth.untried for r in first)
    click.echo(f"package {package_hash()}, {len(first)} runs, {group}; {untried} interventions still to be trained\n")
    for text in (table.summary(rows), table.seed_diagnoses(rows), table.calibrated(rows)):
        click.echo(text)
    for arm, those in rows.items():
        click.echo(f"{arm}\n\n{table.doses(those)}\n{table.confused(those)}")
        if show:
            _list(those, show)


@ward.command("repair")
@_CACHE
@_JOBS
@_GROUP
@click.option("--arm", type=click.Choice(ARMS), default="hooks", help="Whose remedies.")
@click.option("--show", is_flag=True, help="List the remedies that did not work.")
def repair_command(cache: Path, jobs: int, group: str, arm: str, show: bool) -> None:
    """Apply the first remedy of every sick run and train again, on a fresh seed."""
    store = Store(cache)
    rows = scored(chosen(_unseen(group)), store, (arm,), jobs)[arm]
    tried = repairs.trials(rows, store)
    store.fill(repairs.trainings(tried), jobs=jobs, what="repairing")
    click.echo(table.repaired(repairs.rates(tried, store)))
    for name, labels, advised, share in repairs.failures(tried, store) if show else ():
        click.echo(f"{name}\n    true {labels}\n    advised {advised}: closed {share:.2f} of the gap")


@ward.command()
@_CACHE
@_JOBS
def loo(cache: Path, jobs: int) -> None:
    """Choose the options of the rules without the family that is judged; families that may be looked at only."""
    from benchmarks.accuracy.ward.loo import measure

    click.echo(measure(Store(cache), jobs))


@ward.command()
@_CACHE
@_JOBS
def report(cache: Path, jobs: int) -> None:
    """Print docs/accuracy.md."""
    from benchmarks.accuracy.ward.document import document

    click.echo(document(Store(cache), jobs), nl=False)


@ward.command()
@_CACHE
def freeze(cache: Path) -> None:
    """Write the labels of the runs that continuous integration trains."""
    from benchmarks.accuracy.ward.subset import FROZEN
    from benchmarks.accuracy.ward.subset import freeze as write

    click.echo(f"{write(Store(cache))} runs in {FROZEN}")


def _list(rows: Sequence[Scored], show: str) -> None:
    """Print the runs of one outcome."""
    those = [r for r in rows if r.truth.healthy and r.said.worst] if show == "alarm" else []
    those += [r for r in sick(rows) if r.outcome == show]
    for r in those:
        labels = {k: f"{v:.3g} {r.truth.harms[k]}" for k, v in r.truth.labels.items()}
        click.echo(f"{r.case.name}  {r.case.recipe.key()}\n    true {labels}\n    said {r.said.roots} {r.said.verdict}")


if __name__ == "__main__":
    ward()
