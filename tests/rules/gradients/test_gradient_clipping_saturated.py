"""GRD004 gradient-clipping-saturated."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.signals import GRAD_NORM, GRAD_NORM_CLIPPED, LOSS
from tests.digits import HEALTHY, Recipe, train
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series, warned

NAME = "gradient-clipping-saturated"
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("clip", [0.005, 0.01])
def test_a_real_run_held_back(clip: float) -> None:
    found = finding(NAME, train(Recipe(clip=clip)), Severity.WARNING)
    assert found.message == f"100% of the late steps are clipped at a gradient norm of {clip:g}"
    assert found.remedies[0].change is not None
    assert float(found.remedies[0].change.value or 0) > 10 * clip


def test_the_norm_after_clipping_gives_itself_away() -> None:
    run = train(Recipe(clip=0.01))
    norm, loss = run.get(GRAD_NORM), run.get(LOSS)
    assert norm is not None
    assert loss is not None
    after = np.minimum(norm.values, 0.01)
    after[:5] *= 0.9  # not every step was clipped
    found = finding(NAME, make_run(loss, series(GRAD_NORM, after), optimizer="sgd"))
    assert "pinned" in found.message
    assert found.remedies[0].change is not None
    assert found.remedies[0].change.value == 1.0  # what most programs clip at: the norms before are not known
    both = make_run(loss, norm, series(GRAD_NORM_CLIPPED, after), optimizer="sgd")
    change = finding(NAME, both).remedies[0].change
    assert change is not None
    assert float(change.value or 0) == pytest.approx(np.quantile(norm.values, 0.9), rel=0.01)


def test_under_adam_it_is_a_note() -> None:
    assert finding(NAME, train(Recipe(clip=0.01)).with_facts(optimizer="adam"), Severity.NOTE)


@pytest.mark.parametrize(("share", "found"), [(0.45, False), (0.55, True)])
def test_boundary_is_half_of_the_late_steps(share: float, found: bool) -> None:
    norms = np.where(np.arange(1000) % 20 < 20 * share, 2.0, 0.5) + 0.01 * RNG.random(1000)
    assert bool(findings(NAME, make_run(series(GRAD_NORM, norms), clip_norm=1.0))) is found


def test_clipping_in_the_warm_up_alone_is_usual() -> None:
    norms = np.r_[np.full(500, 5.0), np.full(500, 0.5)] + 0.01 * RNG.random(1000)
    assert findings(NAME, make_run(series(GRAD_NORM, norms), clip_norm=1.0)) == []


def test_a_constant_column_is_not_a_clipped_norm() -> None:
    cannot_judge(NAME, make_run(series(GRAD_NORM, np.ones(100))), "threshold is not known")


def test_a_clipped_norm_that_is_free() -> None:
    assert findings(NAME, make_run(series(GRAD_NORM_CLIPPED, RNG.random(200)))) == []


@pytest.mark.parametrize("recipe", [r for r in HEALTHY if r.clip])
def test_healthy_runs_have_no_warning(recipe: Recipe) -> None:
    assert warned(NAME, train(recipe)) == []


def test_without_a_threshold_it_abstains() -> None:
    cannot_judge(NAME, train(Recipe()), "set the fact clip_norm")
