from __future__ import annotations

import numpy as np
from fitdoctor.catalogue import find
from fitdoctor.diagnose import diagnose
from fitdoctor.reporters.wording import skipped_by_reason
from fitdoctor.run import Run, Series
from fitdoctor.signals import LOSS, Signal


def logged(**facts: str) -> Run:
    """A loss and nothing else."""
    steps = np.arange(60)
    return Run("plain", (Series(Signal(LOSS), steps, 2 * np.exp(-steps / 20)),), facts)


def test_what_only_hooks_measure_is_one_reason() -> None:
    reasons = dict(skipped_by_reason([diagnose(logged())]))
    (hooks,) = [names for why, names in reasons.items() if "only fitdoctor.attach" in why]
    assert {"dead-relu", "edge-of-stability", "missing-zero-grad"} <= set(hooks)
    assert "exploding-gradients" not in hooks  # people log gradient norms themselves
    assert reasons["no grad_norm logged"]


def test_a_run_of_the_monitor_is_not_told_to_attach_it() -> None:
    watched = logged(monitor="fitdoctor 0.1.0")
    assert find("dead-relu").missing(watched).endswith("logged")
    assert not [why for why, _ in skipped_by_reason([diagnose(watched)]) if "only fitdoctor.attach" in why]
