"""From the plan to scored rows: truth and answers of every case, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from benchmarks.accuracy.ward import arms, baselines, peers
from benchmarks.accuracy.ward.arms import Said
from benchmarks.accuracy.ward.plan import Case, cases
from benchmarks.accuracy.ward.score import Scored
from benchmarks.accuracy.ward.store import Store
from benchmarks.accuracy.ward.truth import truth

GROUPS = {"calibrated on": False, "unseen": True}


def chosen(unseen: bool | None, only: str = "") -> list[Case]:
    """The cases of one group of families, or of all."""
    return [c for c in cases() if (unseen is None or c.family.unseen is unseen) and only in c.name]


def _answer(case: Case, store: Store, who: Sequence[str]) -> dict[str, Said]:
    """What each of those asked says of a case."""
    import fitdoctor

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
    return out


def scored(which: Sequence[Case], store: Store, who: Sequence[str], jobs: int) -> dict[str, list[Scored]]:
    """Scored rows per arm, baseline or peer; cases that were not trained yet are left out."""
    there = [
        c for c in which if store.has(c.recipe, watched=True) and (c.twin is None or store.has(c.twin, watched=False))
    ]
    with ProcessPoolExecutor(jobs) as pool:
        truths = list(pool.map(partial(truth, store=store), there, chunksize=16))
        answers = list(pool.map(partial(_answer, store=store, who=tuple(who)), there, chunksize=4))
    return {name: [Scored(c, t, a[name]) for c, t, a in zip(there, truths, answers, strict=True)] for name in who}
