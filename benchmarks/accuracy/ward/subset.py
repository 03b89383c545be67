"""The part of the ward that continuous integration trains: cheap families, labels frozen in `frozen.json`.

`python -m benchmarks.accuracy.ward freeze` writes the labels, with the hash of the package that the published tables
were made with; tests/test_ward.py trains the runs again and holds the floor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy.ward.arms import Said, judge, package_hash
from benchmarks.accuracy.ward.plan import Case, cases
from benchmarks.accuracy.ward.score import NAMED
from benchmarks.accuracy.ward.store import Store
from benchmarks.accuracy.ward.truth import truth

FROZEN = Path(__file__).parent / "frozen.json"
CHEAP = (
    "digits-mlp3-adam",
    "friedman-mlp3-tanh-adam",
    "blobs-mlp5-sgd",
    "digits-cnn-bn-momentum",
)
"""Families whose runs take a second or two, of those that may be looked at: a failed test prints their runs."""
MOST = {"healthy": 12, "sick": 26}
"""Runs of each kind: as many as fit into two minutes of one core."""


@dataclass(frozen=True)
class Frozen:
    """A run of the subset.

    Attributes:
        case: what is trained.
        labels: what clearly harms it; empty for a healthy run.
    """

    case: Case
    labels: tuple[str, ...]

    def said(self, store: Store) -> Said:
        """Train it, watched, and let fitdoctor look."""
        store.make(self.case.recipe, watched=True)
        return judge(store.hooks(self.case.recipe))

    def right(self, said: Said) -> bool:
        """Whether the first root names what the run has."""
        return said.root in frozenset().union(*(NAMED[label] for label in self.labels))


def freeze(store: Store) -> int:
    """Write the labels of the subset; returns how many runs it has."""
    chosen: dict[str, list[str]] = {}
    counts = dict.fromkeys(MOST, 0)
    for case in cases():
        if case.family.name not in CHEAP or (case.fault is not None and case.dose < max(case.fault.used)):
            continue
        if case.kind == "rate" and case.recipe.seed not in (0, 2):
            continue
        state = truth(case, store)
        kind = "healthy" if state.healthy else "sick" if state.harm == "yes" else ""
        room = kind and counts[kind] < MOST[kind] * (1 if case.kind == "fault" or kind == "healthy" else 0.3)
        if room and all(label in NAMED for label in state.harmful()):
            counts[kind] += 1
            chosen[case.name] = state.harmful()
    FROZEN.write_text(json.dumps({"package": package_hash(), "runs": chosen}, indent=1) + "\n", "utf-8")
    return len(chosen)


def frozen() -> list[Frozen]:
    """The runs of the subset with their labels."""
    by_name = {case.name: case for case in cases()}
    runs = json.loads(FROZEN.read_text("utf-8"))["runs"]
    return [Frozen(by_name[name], tuple(labels)) for name, labels in runs.items()]
