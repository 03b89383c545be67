"""Losses that need not fall: which runs are known by, and that only rules on the loss leave them alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.run import Run
from fitdoctor.testing import make_run
from fitdoctor.views.objectives import moving_target


def tagged(*tags: str) -> Run:
    """A run whose loss rises, with these tags beside it."""
    loss = np.linspace(0.1, 3.0, 200)
    return replace(make_run(train_loss=loss, lr=np.full(200, 0.1)), unmapped=tags)


@pytest.mark.parametrize(
    "tags",
    [
        ("rollout/ep_rew_mean", "rollout/ep_len_mean", "train/policy_gradient_loss"),
        ("charts/episodic_return", "losses/approx_kl"),
        ("train/reward", "train/kl"),
        ("reward",),
    ],
)
def test_reinforcement_learning_is_known_by_its_tags(tags: tuple[str, ...]) -> None:
    assert "reward" in moving_target(tagged(*tags))


@pytest.mark.parametrize(
    "tags",
    [
        (),
        ("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen"),
        ("test/return",),
        ("kl", "entropy"),
        ("val/accuracy", "policy"),
    ],
)
def test_supervised_and_preference_losses_have_to_fall(tags: tuple[str, ...]) -> None:
    assert moving_target(tagged(*tags)) == ""


def test_models_that_work_against_each_other_are_known_by_their_facts() -> None:
    assert moving_target(tagged().with_facts(model="G, D", optimizer="Adam, Adam"))
    assert not moving_target(tagged().with_facts(model="Net", optimizer="Muon, AdamW"))


def test_a_rising_loss_is_judged_only_where_it_has_to_fall() -> None:
    supervised, agent = diagnose(tagged()), diagnose(tagged("episode_reward"))
    assert "loss-divergence" in {f.rule for f in supervised.findings}
    assert agent.findings == () or not [f for f in agent.findings if f.severity != "note"]
    assert agent.verdict == "cannot judge"
    whys = {o.rule: o.why for o in agent.outcomes}
    assert "reinforcement" in whys["loss-divergence"]


def test_what_is_not_finite_is_told_in_any_run() -> None:
    run = tagged("episode_reward")
    (loss, rate) = run.series
    broken = np.r_[loss.values[:150], np.full(50, np.nan)]
    sick = replace(run, series=(replace(loss, values=broken), rate))
    assert "nonfinite-loss" in {f.rule for f in diagnose(sick).findings}
