"""A small real sweep, from the event files to the sweep, against losses that no log shows."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from fitdoctor.many import diagnose_runs
from fitdoctor.sweep import Sweep, sweep

FOLDER = Path(__file__).parents[2] / "sample_logs" / "sweep_digits"


@cache
def digits() -> Sweep:
    return sweep(diagnose_runs(FOLDER))


@cache
def truth() -> Mapping[tuple[int, float], float]:
    """Batch size and rate -> mean loss over seeds on digits that no log shows; inf where one is no number."""
    rows = tomllib.loads((FOLDER / "truth.toml").read_text("utf-8"))
    unfinished = {t.run for t in digits().trials if t.state == "unfinished"}
    losses: dict[tuple[int, float], list[float]] = {}
    for name, row in rows.items():
        if name not in unfinished:
            losses.setdefault((row["batch"], row["rate"]), []).append(row["loss"])
    return {key: float(np.nan_to_num(np.mean(own), nan=np.inf)) for key, own in losses.items()}


def test_the_configuration_is_read_from_the_event_files() -> None:
    found = digits()
    assert {a.name: len(a.values) for a in found.axes} == {"learning_rate": 9, "batch_size": 2}
    assert found.seeds == ("seed",)
    assert all(a.source == "log" for a in found.axes)


def test_the_run_that_was_cut_is_told() -> None:
    assert [t.run for t in digits().trials if t.state == "unfinished"] == ["trial_03"]
    assert any(c.startswith("1 of 36 runs ended before the others") for c in digits().cautions)


def test_the_rate_makes_runs_sick_and_the_batch_size_does_not() -> None:
    first, second = digits().separations
    assert (first.setting, first.finding) == ("learning_rate", "separates")
    assert (second.setting, second.finding) == ("batch_size", "not shown")
    assert {level.label for level in first.levels if level.sick == level.runs} >= {"1", "3.16", "10"}


def test_rates_of_the_bands_lose_little_on_digits_nobody_saw() -> None:
    for band in digits().bands:
        batch = int(band.group["batch_size"])  # type: ignore[arg-type]
        lost = {rate: loss for (b, rate), loss in truth().items() if b == batch}
        best = min(lost.values())
        for rate in band.rates:
            regret = (lost[rate.rate] - best) / band.range
            assert (regret < 2 * band.tolerance) if rate.inside else (regret > band.tolerance / 2), (band.group, rate)


def test_the_best_is_not_called_better_than_what_seeds_differ_by() -> None:
    (winner,) = digits().winners
    assert winner.noise_of == "seeds"
    assert winner.finding == "not alone"
    assert winner.rivals >= 1
    assert winner.value < winner.corrected
