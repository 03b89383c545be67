"""Properties of the rules on bookkeeping, half precision and memory: total, linear, quiet and prompt while training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fitdoctor.catalogue import find, rules
from fitdoctor.finding import Severity
from fitdoctor.rule import Rule
from fitdoctor.run import Run, Series
from fitdoctor.signals import LOSS, Signal
from fitdoctor.testing import make_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.rules.books import adam, healthy, modal, net, sgd, short, sound_loop
from tests.rules.setup.test_accumulation_scaling import accumulated
from tests.rules.setup.test_missing_zero_grad import forgotten
from tests.rules.test_all_rules import check_finding, judged
from tests.rules.test_linear import cost
from tests.strategies import values

OURS = [r for r in rules() if r.family in ("setup", "memory") or r.code in ("NUM003", "NUM004", "NUM005", "SCH003")]
QUANTITIES = sorted(
    {s for r in OURS for need in r.needs for s in (need if isinstance(need, tuple) else (need,))}, key=str
)

IN_TEST_LINEAR = ("SET001", "SCH003")

ANYTHING = st.sampled_from((True, False, "", "device", "float16", "2x3", "x", "CrossEntropyLoss")) | (
    st.integers(-3, 10**20) | st.floats()
)
NAMES = """
    autocast backward_calls_without_step batch_norm_layers batch_size clip_norm dropout_layers
    frozen_batch_norm_layers gradient_accumulation_steps lr_scheduler nonfinite_name nonfinite_place nonfinite_step
    optimizer optimizer_state_restored optimizer_tensors_not_in_model out_of_memory_allocated out_of_memory_first
    out_of_memory_place out_of_memory_requested out_of_memory_reserved_free out_of_memory_step resumed_at
    scheduler_before_optimizer scheduler_restored scheduler_steps trainable_not_in_optimizer
    trainable_not_in_optimizer_changed trainable_tensors trainable_tensors_not_in_optimizer
"""
FACTS = st.fixed_dictionaries(
    {},
    optional={
        "loss_function": st.sampled_from(("CrossEntropyLoss", "NLLLoss", "BCEWithLogitsLoss", "MSELoss")),
        "loss_input_from": st.sampled_from(("Sigmoid", "Softmax")),
        "loss_input_shape": st.sampled_from(("50x1", "0x3", "99999999999x2", "scalar", "", "ax2")) | ANYTHING,
        "loss_target_shape": st.sampled_from(("50", "3x1", "scalar", "")) | ANYTHING,
        "out_of_memory": st.sampled_from(("device", "host")) | ANYTHING,
        "dtype": st.sampled_from(("float16", "bfloat16", "float32")),
        "device": st.sampled_from(("cpu", "cuda:0")),
        "tier": st.just("standard"),
        **dict.fromkeys(NAMES.split(), ANYTHING),
    },
)


@st.composite
def watched_runs(draw: st.DrawFn) -> Run:
    """A run as the monitor makes it, with arbitrary numbers and facts: one clock, several layers."""
    n = draw(st.sampled_from((1, 4, 12, 40, 130)))
    steps = draw(st.integers(0, 3)) + draw(st.sampled_from((1, 5))) * np.arange(n)
    found: dict[Signal, Series] = {}
    for signal in [Signal(LOSS), *draw(st.lists(st.sampled_from(QUANTITIES), min_size=4, max_size=12))]:
        for layer in ("0.weight", "0", "1.weight") if signal.layer == "*" else (signal.layer,):
            own = Signal(signal.quantity, signal.split, layer)
            found[own] = Series(own, steps, draw(values(n)), per="step")
    return Run("watched", tuple(found.values()), draw(FACTS), draw(st.sampled_from((None, True, False))))


@given(watched_runs())
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_rule_raises_whatever_was_measured(run: Run) -> None:
    for rule in [*OURS, find("nonfinite-loss"), find("restart-discontinuity")]:
        outcome = judged(rule, run)
        if isinstance(outcome, list):
            for finding in outcome:
                check_finding(finding)


def long_run(n: int, by_layer: tuple[str, ...]) -> Run:
    """Plausible numbers in all that these rules may ask for."""
    rng = np.random.default_rng(0)
    whole = {s.quantity.name: rng.random(n) for s in QUANTITIES if s.layer != "*" and s.quantity is not LOSS}
    layers = {name: {f"{i}.weight": rng.random(n) for i in range(3)} for name in by_layer}
    facts = {"loss_function": "MSELoss", "loss_input_shape": "9x1", "loss_target_shape": "9", "autocast": "float16"}
    loss = 2 * np.exp(-3 * np.arange(n) / n)
    return make_run(train_loss=loss, layers=layers, facts=facts, **{k: v for k, v in whole.items() if k != "loss"})


@pytest.mark.parametrize("rule", [r for r in OURS if r.code not in IN_TEST_LINEAR], ids=lambda r: r.name)
def test_twice_the_points_cost_at_most_about_twice(rule: Rule) -> None:
    by_layer = tuple(s.quantity.name for need in rule.needs for s in _members(need) if s.layer == "*")
    run, longer = (long_run(n, by_layer) for n in (3_000, 6_000))
    if rule.missing(run):
        pytest.skip(rule.missing(run))
    cost(rule, run)  # imports and caches
    (calls, memory), (more_calls, more_memory) = cost(rule, run), cost(rule, longer)
    assert more_calls <= 2.5 * calls + 1000
    assert more_memory <= 2.5 * memory + 1_000_000


def _members(need: Signal | tuple[Signal, ...]) -> tuple[Signal, ...]:
    return need if isinstance(need, tuple) else (need,)


# --- while it trains -----------------------------------------------------------------------------------


def alarms(run: Run, rule: Rule) -> list[str]:
    found = judged(rule, run)
    return [] if isinstance(found, str) else [f.message for f in found if f.severity is not Severity.NOTE]


SOUND: dict[str, Callable[[], Run]] = {
    "modes": healthy,
    "evaluations": sound_loop,
    "accumulation": lambda: short(step=accumulated(5)),
    "adam": lambda: short(optimizer=adam(0.01)),
    "momentum": lambda: short(optimizer=sgd(0.02, momentum=0.9)),
}


@pytest.mark.parametrize("name", SOUND)
def test_quiet_on_every_prefix_of_a_sound_run(name: str) -> None:
    run = SOUND[name]()
    span = run.steps
    assert span is not None
    for step in np.unique(np.geomspace(2, span.last, 8).round().astype(int)):
        for rule in OURS:
            if rule.live:
                assert alarms(run.until(int(step)), rule) == [], f"{rule.name} at step {step}"


@pytest.mark.parametrize(
    ("rule", "make", "latency"),
    [
        ("missing-zero-grad", lambda: short(step=forgotten), 9),
        ("no-parameter-updates", lambda: short(optimizer=sgd(0.0)), 15),
        ("double-softmax", lambda: short(criterion=_nll()), 6),
        ("eval-mode-in-training", lambda: short(modal, step=_in_eval_mode), 9),
        ("optimizer-missing-params", lambda: short(net, lambda m: _sgd(list(m.parameters())[:-1])), 3),
    ],
)
def test_prompt_on_sick_runs(rule: str, make: Callable[[], Run], latency: int) -> None:
    assert alarms(make().until(latency), find(rule))


def _nll() -> object:
    import torch

    return torch.nn.NLLLoss()


def _sgd(params: list[object]) -> object:
    import torch

    return torch.optim.SGD(params, lr=0.1)  # type: ignore[arg-type]


def _in_eval_mode(model: object, criterion: object, optimizer: object, x: object, y: object) -> None:
    from tests.hooked import ordinary_step

    model.eval()  # type: ignore[attr-defined]
    ordinary_step(model, criterion, optimizer, x, y)  # type: ignore[arg-type]
