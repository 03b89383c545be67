"""Every rule is linear in the length of the log.

Not by a stopwatch, which a busy machine fails: twice as many points may make at most about twice as many
calls and need about twice as much memory. A loop over pairs shows in the first, an array of pairs in the second.
"""

from __future__ import annotations

import sys
import tracemalloc

import numpy as np
import pytest
from fitdoctor.catalogue import rules
from fitdoctor.rule import CannotJudge, Rule
from fitdoctor.run import Run
from fitdoctor.testing import make_run

FEW = 50_000


def long_run(n: int) -> Run:
    """A descent with noise and rare spikes, in all that a rule may ask for."""
    rng = np.random.default_rng(0)
    t = np.arange(n) / n
    noise = np.exp(0.1 * rng.standard_normal((6, n)))
    loss = (0.3 + 2 * np.exp(-8 * t)) * noise[0]
    loss[n // 7 :: n // 7] *= 20
    return make_run(
        train_loss=loss,
        val_loss=(0.5 + 2 * np.exp(-8 * t) + 0.3 * t) * noise[1],
        train_accuracy=np.clip((1 - np.exp(-8 * t)) * noise[2], 0, 1),
        val_accuracy=np.clip(0.9 * (1 - np.exp(-8 * t)) * noise[3], 0, 1),
        lr=0.1 * (1 + np.cos(np.pi * t)) / 2,
        grad_norm=(1 + np.exp(-8 * t)) * noise[4],
        epoch=np.floor(50 * t),
        logit_absmax=np.exp(6 * t) * noise[5],
        layers={
            "grad_norm": {f"{i}.weight": (1 + i) * noise[5] for i in range(4)},
            "weight_rows_alike": {f"{i}.weight": np.ones(n) for i in range(2)},
            **{f"activation_{q}": {str(i): noise[i] * 10.0 ** (-i) for i in range(6)} for q in ("rms", "grad_rms")},
            **{f"activation_{q}_fraction": {str(i): 0.9 * t for i in range(2)} for q in ("zero", "dead", "saturated")},
            "activation_input_spread": {str(i): 0.7 ** (i * i) * noise[i] for i in range(6)},
        },
        facts={"classes": 10, "clip_norm": 1.5, "steps_per_epoch": n // 50, "loss_function": "CrossEntropyLoss"},
    )


def cost(rule: Rule, run: Run) -> tuple[int, int]:
    """Calls made and bytes needed at the peak."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    tracemalloc.start()
    sys.setprofile(count)
    try:
        list(rule(run))
    except CannotJudge:
        pass
    finally:
        sys.setprofile(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return calls, peak


@pytest.mark.parametrize("rule", rules(), ids=lambda r: r.name)
def test_twice_the_points_cost_at_most_about_twice(rule: Rule) -> None:
    run, longer = long_run(FEW), long_run(2 * FEW)
    if rule.missing(run):
        pytest.skip(rule.missing(run))
    cost(rule, long_run(FEW))  # imports; the runs themselves stay fresh, since what is made of a series is made once
    (calls, memory), (more_calls, more_memory) = cost(rule, run), cost(rule, longer)
    assert more_calls <= 2.5 * calls + 1000
    assert more_memory <= 2.5 * memory + 1_000_000


def test_a_quadratic_rule_would_be_seen() -> None:
    from dataclasses import replace

    def pairs(run: Run) -> list[object]:
        n = len(run.series[0]) // 50
        np.subtract.outer(np.arange(n), np.arange(n)).max()
        return []

    def loops(run: Run) -> list[object]:
        for _ in range((len(run.series[0]) // 500) ** 2):
            len(run.series)
        return []

    run, longer = long_run(FEW), long_run(2 * FEW)
    base = rules()[0]
    wide, slow = (replace(base, check=check) for check in (pairs, loops))
    assert cost(wide, longer)[1] > 3 * cost(wide, run)[1]
    assert cost(slow, longer)[0] > 3 * cost(slow, run)[0]
