"""From the plan to scored rows: truth and answers of every case, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial

from benchmarks.accuracy.ward import arms, baselines, peers
from benchmarks.accuracy.ward.arms import Said
from benchmarks.accuracy.ward.plan import Case, cases
from benchmarks.accuracy.ward.score import Scored
from benchmarks.accuracy.ward.store import Store
from benchmarks.accuracy.ward.truth import Truth, truth

GROUPS = {"calibrated on": False, "unseen": True}


def chosen(unseen: bool | None, only: str = "") -> list[Case]:
    """The cases of one group of families, or of all."""
    return [c for c in cases() if (unseen is None or c.family.unseen is unseen) and only in c.name]


@cache
def _by_name() -> dict[str, Case]:
    return {case.name: case for case in cases()}


def _examined(name: str, store: Store, who: Sequence[str]) -> tuple[Truth, dict[str, Said]]:
    """The truth of a case, and what each of those asked says of it."""
    import fitdoctor

    case = _by_name()[name]
    out: dict[str, Said] = {}
    run = None
    if any(name in baselines.BASELINES for name in who):
        run = next(iter(fitdoctor.open_runs(store.hooks(case.recipe))))
    for name in who:
        if name in arms.ARMS:
            out[name] = arms.say(case, store, name)
        elif name in peers.PEERS:
            out[name] = peers.ask(name, store.outcome(case.recipe))
        else:
            out[name] = baselines.ask(name, store.outcome(case.recipe), run, case.recipe)
    return truth(case, store), out


def probed(which: Sequence[Case]) -> list[Case]:
    """The cases that the probes are tried on, 2 s of CPU each: faults from the middle dose on, one grid, what is odd.

    The fourth dose of faults that have one is left out, and so are further seeds of a rate.
    """

    def wanted(case: Case) -> bool:
        if case.fault is not None:
            return case.dose in (3, 5) or case.dose == max(case.fault.used)
        return case.kind == "odd" or case.recipe.seed == 0

    return [case for case in which if wanted(case)]


SHARES = (0.1, 0.25, 0.5, 1.0)
"""Shares of a run after which somebody looks."""


def _seen_early(name: str, store: Store) -> tuple[frozenset[str], ...]:
    """Rules with a warning or an error after each share of a run."""
    folder = store.hooks(_by_name()[name].recipe)
    return tuple(frozenset(rule for rule, _ in arms.judge(folder, share).found) for share in SHARES)


def how_early(rows: Sequence[Scored], store: Store, jobs: int) -> list[tuple[int, int]]:
    """(alarms that name what harms the run, alarms of any kind) after each share of the sick runs."""
    with ProcessPoolExecutor(jobs) as pool:
        seen = list(pool.map(partial(_seen_early, store=store), [r.case.name for r in rows], chunksize=8))
    return [
        (sum(bool(s[i] & r.right) for s, r in zip(seen, rows, strict=True)), sum(bool(s[i]) for s in seen))
        for i in range(len(SHARES))
    ]


def scored(which: Sequence[Case], store: Store, who: Sequence[str], jobs: int) -> dict[str, list[Scored]]:
    """Scored rows per arm, baseline or peer; cases that were not trained yet are left out."""
    there = [
        c for c in which if store.has(c.recipe, watched=True) and (c.twin is None or store.has(c.twin, watched=False))
    ]
    with ProcessPoolExecutor(jobs) as pool:
        asked = partial(_examined, store=store, who=tuple(who))
        seen = list(pool.map(asked, [c.name for c in there], chunksize=8))
    return {name: [Scored(c, t, said[name]) for c, (t, said) in zip(there, seen, strict=True)] for name in who}
