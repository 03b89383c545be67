"""docs/accuracy.md: what was measured, how, and by which code."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.accuracy.ward import baselines, loo, peers, repairs, score, table
from benchmarks.accuracy.ward.arms import package_hash
from benchmarks.accuracy.ward.families import FAMILIES
from benchmarks.accuracy.ward.score import Scored
from benchmarks.accuracy.ward.scoring import SHARES, chosen, how_early, probed, scored
from benchmarks.accuracy.ward.store import Store
from benchmarks.accuracy.ward.truth import NONE, scale

HEAD = """# How right are the diagnoses?

Made by

    python -m benchmarks.accuracy.ward train                 # about two hours on two cores, may be interrupted
    python -m benchmarks.accuracy.ward loo
    python -m benchmarks.accuracy.ward repair --group unseen
    python -m benchmarks.accuracy.ward report > docs/accuracy.md

from {runs} real small trainings ({unseen} of families that nobody looked at while rules were written) and their twins
without the fault. Code that judged: `{hash}` (a hash of the package, `arms.package_hash`).

A label is never read off a curve that a rule sees. A learning rate is too high above the low-regret band of
a grid of nine rates (two seeds, training loss and oracle loss must agree); a fault does harm when the same program
without it ends better on an oracle set that no log holds (where one pair of seeds leaves that open: six pairs, and a
two-sided test that flips their signs); overfitting is what the oracle set lost since the checkpoint
with the best validation loss; a run is healthy when nothing that was tried (rate, budget, batch, clipping, width,
regularisation) makes it better. Below 2 % of the range of the loss (or two standard deviations between seeds) there is
no harm, from 6 % (three) on it is clear; runs between are ambiguous and left out of the tables of root causes.
{current} of the runs were recorded by the monitor as it is now, the others before it noted that a run is over, and the
size of its largest rather than its last batch.

Families that thresholds may be calibrated on: {calibration}.
Unseen: {families}.

It is small (seconds on a CPU), the faults are ours, and the authors of the rules wrote the faults too.
"Right" means that the first root named is the fault, or the same fault in other words (`faults.py` lists them).
"""


def document(store: Store, jobs: int) -> str:
    """The whole page."""
    everyone = ("logs", "hooks", *peers.PEERS, *baselines.BASELINES)
    unseen = scored(chosen(True), store, everyone, jobs)
    seen = scored(chosen(False), store, ("logs", "hooks"), jobs)
    before = scored(probed(chosen(True)), store, ("logs", "hooks", "probes", "everything"), jobs)
    ours = {name: unseen[name] for name in ("logs", "hooks")}
    parts = [
        HEAD.format(
            runs=len(unseen["hooks"]) + len(seen["hooks"]),
            unseen=len(unseen["hooks"]),
            hash=package_hash(),
            current=_current([*unseen["hooks"], *seen["hooks"]], store),
            calibration=", ".join(f.name for f in FAMILIES if not f.unseen),
            families=", ".join(f.name for f in FAMILIES if f.unseen),
        ),
        "## Unseen families\n",
        _makeup(unseen["hooks"]),
        table.summary(ours),
        table.seed_diagnoses(ours),
        table.calibrated(ours),
        _mild(unseen["hooks"], store),
        "## Aims, with hooks\n",
        _aims(unseen["hooks"], store),
        "## Before the first step\n",
        PROBES,
        table.summary(before),
        table.doses(before["probes"]),
        "## Does the first remedy work?\n",
        _repaired(unseen["hooks"], store),
        "## How early, with hooks\n",
        _early(unseen["hooks"], store, jobs),
        "## Detection by dose, with hooks\n",
        table.doses(unseen["hooks"]),
        "## What is confused with what, with hooks\n",
        table.confused(unseen["hooks"], 25),
        "## Others on the same runs\n",
        OTHERS,
        table.summary({name: unseen[name] for name in ("hooks", *peers.PEERS)}),
        table.summary({name: unseen[name] for name in baselines.BASELINES}),
        table.seed_diagnoses({name: unseen[name] for name in ("hooks", *peers.PEERS)}),
        table.seed_diagnoses({name: unseen[name] for name in baselines.BASELINES}),
        "## Families that were looked at\n",
        table.summary(seen),
        table.seed_diagnoses(seen),
        "## What other thresholds would give\n",
        loo.read(store),
        "## Before and after\n",
        _history(unseen["hooks"]),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


PROBES = """`fitdoctor.preflight` on the unseen programs before they train, without a budget (2 to 3 s of CPU each):
every fault from its middle dose on, every rate of the grid once, everything odd. Faults that only a run can show
(overfitting, schedules, rates) are among them, and count as missed. The other columns are the same runs after they were
trained; "everything" is what somebody reads who has both: errors of the probes first, then what the monitor names, then
warnings of the probes, and alarms of either count.
"""

HISTORY = """With hooks, on families that nobody looked at:

| when | families calibrated on | clearly sick: root cause named first | sound runs with a warning, an error |
| --- | --- | --- | --- |
| at first contact | 5 | 50 % of 273 | 6 and 0 of 103 |
| after the confusions of the 5 were worked through | 5 | 59 % of 254 | 6 and 0 of 105 |
| the same, of 10, in a larger ward | 10 | 67 % of 286 | 8 and 0 of 159 |
| now | {calibration} | {root:.0%} of {sick} | {warned} and {errors} of {sound} |

Before the last row rules were changed on more faults in the families that may be looked at (faults that the ward itself
tries in two of them only) and on 116 programs that others wrote, half of them sound. The unseen families had been
counted by then, so the last row is less blind than the one above it: what was seen were tables like these, no run.

The ward changed as well. Between the first rows: a validation loss that rises without more errors is neither healthy
nor clearly sick, and another learning rate is tried on faults that it might mend. Before the third: every fault in two
unseen families, more that is odd, and six pairs of seeds where one leaves open how much harm there is.
"""

OTHERS = """Installable peers, run on the fullest log of each run (every step, every epoch), and published rules
re-expressed from their thresholds. Their findings count under the rule of ours that says the same (`peers.py`,
`baselines.py`); none of them claims to name most of the faults here, so the rows of alarms on sound runs are the fairer
comparison.
"""


def _makeup(rows: Sequence[Scored]) -> str:
    """How many runs of which kind."""
    healthy = sum(r.truth.healthy for r in rows)
    ambiguous = sum(r.truth.harm == "ambiguous" for r in rows)
    sick = len(score.sick(rows))
    return (
        f"{len(rows)} runs: {healthy} healthy or odd but healthy, {sick} clearly sick, {ambiguous} ambiguous, "
        f"{len(rows) - healthy - ambiguous - sick} with a fault that did no harm.\n"
    )


def _current(rows: Sequence[Scored], store: Store) -> str:
    """How many of the runs today's monitor recorded."""
    fresh = sum(store.recorded_now(r.case.recipe) for r in rows)
    return f"{fresh} of {len(rows)}"


def _history(rows: Sequence[Scored]) -> str:
    """What the same question gave before."""
    those, sound = score.sick(rows), [r for r in rows if r.truth.healthy]
    return HISTORY.format(
        calibration=sum(not f.unseen for f in FAMILIES),
        root=sum(r.outcome == "root" for r in those) / len(those),
        sick=len(those),
        warned=sum(r.said.worst == "warning" for r in sound),
        errors=sum(r.said.worst == "error" for r in sound),
        sound=len(sound),
    )


def _mild(rows: Sequence[Scored], store: Store) -> str:
    """What is said where a fault is there and does no harm, in programs whose rate is as good as any of the grid."""
    bands = {f: scale(store, f) for f in {r.case.family for r in rows}}
    those = [
        r
        for r in rows
        if r.case.twin is not None
        and r.truth.harm == "no"
        and r.case.twin.lr in bands[r.case.family].regrets
        and max(bands[r.case.family].regrets[r.case.twin.lr]) < NONE
    ]
    alarmed = [r for r in those if r.said.worst]
    named = sum(bool({x for x, _ in r.said.found} & r.names(list(r.truth.labels))) for r in alarmed)
    return (
        f"With hooks, of {len(those)} runs whose fault did no harm and whose rate is in the band, {len(alarmed)} got a "
        f"warning or an error; in {named} of these the report names the fault.\n"
    )


def _aims(rows: Sequence[Scored], store: Store) -> str:
    """What this project set out to reach, and what was measured."""
    those, sound = score.sick(rows), [r for r in rows if r.truth.healthy]
    root = sum(r.outcome == "root" for r in those) / len(those)
    errors = sum(r.said.worst == "error" for r in sound) / len(sound)
    alarms = sum(r.said.worst != "" for r in sound) / len(sound)
    worst = min(score.SEEDS, key=lambda name: score.f1(*score.seed_diagnosis(rows, name)))
    lines = [
        _aim("root cause named first, clearly sick runs", root, 0.9, least=True),
        _aim("sound runs with an error", errors, 0.01, least=False),
        _aim("sound runs with a warning or an error", alarms, 0.05, least=False),
        _aim(
            f"F1 of the worst seed diagnosis ({worst})", score.f1(*score.seed_diagnosis(rows, worst)), 0.95, least=True
        ),
    ]
    tried = repairs.trials(rows, store)
    if all(store.has(recipe, watched=False) for recipe, _ in repairs.trainings(tried)):
        worked, harmed = repairs.shares(tried, store)
        lines.append(_aim("first remedies that close half of the gap", worked, 0.9, least=True))
        lines.append(_aim("first remedies that make it worse", harmed, 0.02, least=False))
    return table.table(["", "aim", "measured", ""], lines)


def _aim(what: str, measured: float, aim: float, *, least: bool) -> list[object]:
    met = measured >= aim if least else measured <= aim
    return [what, f"{'at least' if least else 'at most'} {aim:.0%}", f"{measured:.1%}", "met" if met else "missed"]


def _early(rows: Sequence[Scored], store: Store, jobs: int) -> str:
    """What is seen of the sick runs after a part of each."""
    those = score.sick(rows)
    seen = how_early(those, store, jobs)
    head = ["looked at after", *(f"{share:.0%}" for share in SHARES)]
    lines = [
        [
            "clearly sick runs with an alarm that names what harms them",
            *(f"{right} of {len(those)}" for right, _ in seen),
        ],
        ["... with any alarm", *(f"{alarm} of {len(those)}" for _, alarm in seen)],
    ]
    return table.table(head, lines)


def _repaired(rows: Sequence[Scored], store: Store) -> str:
    """The table of repairs, of the trials that were trained."""
    tried = repairs.trials(rows, store)
    wanted = repairs.trainings(tried)
    missing = sum(not store.has(recipe, watched=False) for recipe, _ in wanted)
    if missing:
        return f"Not measured: {missing} of {len(wanted)} trainings are missing.\n"
    return table.repaired(repairs.rates(tried, store))
