"""Settings in the names of runs: what is taken for one, and what is not."""

from __future__ import annotations

import pytest
from fitdoctor.sweep.names import settings_in_names
from hypothesis import given, settings
from hypothesis import strategies as st

GRID = [(o, r, s) for o in ("adam", "sgd") for r in ("0.1", "1e-3") for s in (0, 1)]


@pytest.mark.parametrize(
    "pattern",
    [
        "{o}_lr{r}_seed{s}",
        "{o}-lr-{r}-seed-{s}",
        "opt={o},lr={r},seed={s}",
        "opt={o}_lr={r}_seed={s}",
        "exp_opt={o}_lr={r}/seed={s}",
        "lr_{r}/{o}_seed{s}",
        "{o}/learning_rate={r}/seed_{s}/version_0",
    ],
)
def test_spellings(pattern: str) -> None:
    found = settings_in_names([pattern.format(o=o, r=r, s=s) for o, r, s in GRID])
    for own, (o, r, s) in zip(found, GRID, strict=True):
        assert own["learning_rate"] == float(r)
        assert own["seed"] == s
        assert o in own.values()


@pytest.mark.parametrize(
    "names",
    [
        ["run_1", "run_2", "run_3"],
        ["version_0", "version_1"],
        ["2026-01-01_10-00-00", "2026-01-02_11-30-00", "2026-01-03_09-15-12"],
        ["bold-sun-1", "calm-moon-2", "eager-star-3"],
        ["a", "b", "c", "d"],
        ["same", "same"],
        [],
    ],
)
def test_names_that_only_count_or_call(names: list[str]) -> None:
    assert all(not own for own in settings_in_names(names))


def test_a_data_set_in_a_folder_is_one_word() -> None:
    names = [f"{d}/adam_lr{r}" for d in ("cifar10_3c3d", "mnist_vae") for r in (0.1, 0.01)]
    assert {own["folder 1"] for own in settings_in_names(names)} == {"cifar10_3c3d", "mnist_vae"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab=_-/.0123e+lr ,\n\x00é", max_size=25), max_size=6))
def test_any_names(names: list[str]) -> None:
    found = settings_in_names(names)
    assert len(found) == len(names)
