"""Whether the loss of a run is one objective that training ought to lower, and the same one all the time."""

from __future__ import annotations

import re

from fitdoctor.run import Run

_REWARD = frozenset({"reward", "rewards", "rew", "return", "returns"})
_PREFERENCE = frozenset({"chosen", "rejected", "margin", "margins", "accuracies"})
_AGENT = frozenset(
    re.findall(
        r"\w+",
        """
        episode episodes episodic ep eprew eplen rollout rollouts policy pi actor critic advantage advantages vf kl
        entropy sps env environment completion completions ppo dqn td explained
        """,
    )
)


def moving_target(run: Run) -> str:
    """Why a rise of the training loss may be no harm in this run, or "".

    In reinforcement learning the data come from the model itself and the loss has another minimum after every
    update: it may rise while the reward does. It is told by the names in the log: a reward or a return beside
    what an agent logs (episodes, a policy, an entropy), or a reward by itself. Preference losses (DPO) log the
    rewards of chosen and rejected answers and have a fixed objective. Several models with an optimizer each, as a
    GAN has them, are told by the monitor's facts; several optimizers of one model share its objective.

    Example:
        >>> from fitdoctor.testing import make_run
        >>> moving_target(make_run(train_loss=[1.0]))
        ''
    """
    tags = [s.tag or str(s.signal) for s in run.series] + list(run.unmapped)
    words = [frozenset(re.findall(r"[a-z]+", tag.lower())) for tag in tags]
    if any(w & _PREFERENCE and w & _REWARD for w in words):
        return ""
    rewarded = [w for w in words if w & _REWARD]
    if rewarded and (any("reward" in w or "rewards" in w for w in rewarded) or any(w & _AGENT for w in words)):
        return "the log has a reward: in reinforcement learning the loss may rise for good reasons; judge the reward"
    if all("," in str(run.facts.get(fact, "")) for fact in ("model", "optimizer")):
        return "several models with an optimizer each: where they work against each other the loss tells nothing"
    return ""
