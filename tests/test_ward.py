"""A part of the evaluation of benchmarks/accuracy/ward, trained again: the floor of how right the diagnoses are."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.accuracy.ward.arms import Said
from benchmarks.accuracy.ward.store import Store
from benchmarks.accuracy.ward.subset import Frozen, frozen

pytestmark = pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")  # one of the faults

PARTS = 2
"""The runs are trained in so many tests, which may run side by side."""


@pytest.mark.parametrize("part", range(PARTS))
def test_sound_runs_are_left_alone(part: int, tmp_path: Path) -> None:
    runs = [run for run in frozen() if not run.labels][part::PARTS]
    seen = _examined(runs, tmp_path)
    alarms = {run.case.name: said.root for run, said in seen if said.worst}
    assert len(runs) >= 6
    assert not [said for _, said in seen if said.worst == "error"], alarms
    assert len(alarms) <= 1, alarms


@pytest.mark.parametrize("part", range(PARTS))
def test_the_first_root_of_sick_runs_is_what_harms_them(part: int, tmp_path: Path) -> None:
    runs = [run for run in frozen() if run.labels][part::PARTS]
    seen = _examined(runs, tmp_path)
    wrong = {run.case.name: (run.labels, said.root or said.verdict) for run, said in seen if not run.right(said)}
    assert len(runs) >= 12
    assert len(wrong) <= 0.4 * len(runs), wrong  # 60 %: below what was measured when the labels were frozen


def _examined(runs: list[Frozen], folder: Path) -> list[tuple[Frozen, Said]]:
    store = Store(folder)
    store.hooks(runs[0].case.recipe).parent.mkdir(parents=True)
    return [(run, run.said(store)) for run in runs]
