"""PRE020 group-leakage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.errors import ConfigError
from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, MEDIUM, WARNING, finding, seen, some
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import split_by_group
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from fitdoctor.preflight.bench import Bench


@probe("PRE020", "group-leakage", cost=Cost(), explains=["train-val-overlap"], since="0.1.0", worth=3)
def group_leakage(bench: Bench, *, share: float = 0.01) -> Iterator[Finding]:
    """Groups are on both sides of the split, or the validation split reaches back before the training split ends.

    Why it matters:
        Examples of one patient, user or document resemble each other, and the past knows the future of a random
        split: validation then measures memory.

    How it is measured:
        From the ids given as ``groups={"train": [...], "val": [...]}`` and ``times={...}``: the share of held-out
        examples whose group is in the training split, and of those that lie before the latest training time.

    Options:
        share: share of the held-out examples that is let pass.

    When it is wrong:
        Models that are meant for known groups may be validated on them. Overlapping times are wrong only where the
        model will have to predict what comes after its data.

    What to do:
        Split by group or by time.

    References:
        Kapoor and Narayanan 2023, Leakage and the reproducibility crisis in machine-learning-based science.
    """
    if not bench.ids:
        raise CannotJudge("no groups and no times given")
    for kind, ids in bench.ids.items():
        if "train" not in ids or len(ids) < 2:
            raise ConfigError(f"{kind}: expected ids of 'train' and of 'val' or 'test', got {sorted(ids)}")
        _check_lengths(bench, kind, ids)
        for split in (s for s in ids if s != "train"):
            held, train = list(ids[split]), list(ids["train"])
            if kind == "groups":
                known = set(train)
                common = sorted({str(g) for g in held if g in known})
                found = sum(g in known for g in held) / max(1, len(held))
                if found > share:
                    yield finding(
                        f"{found:.0%} of the {split} examples belong to groups that are in training too",
                        ERROR,
                        HIGH,
                        seen("accuracy", f"{len(common)} common groups: {some(common)}", "none", split=split),
                        remedies=[split_by_group()],
                    )
            else:
                last = max(train)
                found = sum(t < last for t in held) / max(1, len(held))
                if found > share:
                    yield finding(
                        f"{found:.0%} of the {split} examples lie before the end of the training data",
                        WARNING,
                        HIGH if found < 1 else MEDIUM,
                        seen("accuracy", f"{split} begins at {min(held)}", f"after {last}", split=split),
                        remedies=[split_by_group()],
                        could_be=("times that do not matter to the task",),
                    )


def _check_lengths(bench: Bench, kind: str, ids: Any) -> None:
    for split, values in ids.items():
        size = bench.sources[split].size if split in bench.sources else None
        given: Sequence[Any] = list(values)
        if size is not None and len(given) != size:
            raise ConfigError(f"{kind}[{split!r}]: expected one id per example ({size:,}), got {len(given):,}")
