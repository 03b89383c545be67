"""Running one rule on one run, the way `diagnose` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fitdoctor.catalogue import find
from fitdoctor.finding import Finding, Severity
from fitdoctor.rule import CannotJudge
from fitdoctor.run import Fact, Note, Run, Series
from fitdoctor.signals import Quantity, Signal


def findings(rule: str, run: Run, **options: Any) -> list[Finding]:
    """What a rule finds in a run; fails the test if it cannot judge the run."""
    checked = find(rule)
    assert not checked.missing(run)
    with np.errstate(all="ignore"):
        return list(checked(run, **options))


def finding(rule: str, run: Run, severity: Severity | None = None, **options: Any) -> Finding:
    """The one finding of a rule, of a given severity."""
    found = findings(rule, run, **options)
    assert len(found) == 1, found
    if severity is not None:
        assert found[0].severity is severity, found[0].message
    return found[0]


def warned(rule: str, run: Run) -> list[Finding]:
    """Findings above a note."""
    return [f for f in findings(rule, run) if f.severity is not Severity.NOTE]


def cannot_judge(rule: str, run: Run, match: str = "") -> None:
    """Assert that the rule abstains, for a reason that matches."""
    checked = find(rule)
    if missing := checked.missing(run):
        assert match in missing
        return
    with np.errstate(all="ignore"), pytest.raises(CannotJudge, match=match or None):
        list(checked(run))


def series(
    quantity: Quantity, values: Any, steps: Any = None, *, split: str = "train", layer: str = "", per: str = ""
) -> Series:
    """A series from plain numbers, at steps 0, 1, 2 ... unless given."""
    values = np.asarray(values, dtype=np.float64)
    return Series(Signal(quantity, split, layer), np.arange(len(values)) if steps is None else steps, values, per=per)  # type: ignore[arg-type]


def make_run(
    *logged: Series,
    notes: Sequence[Note] = (),
    unmapped: Sequence[str] = (),
    finished: bool | None = None,
    **facts: Fact,
) -> Run:
    """A run from series, notes and facts."""
    return Run("made", tuple(logged), facts, finished, notes=tuple(notes), unmapped=tuple(unmapped))
