"""What holds for every rule: it is documented, pure, total, and quiet about nothing."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import numpy as np
import pytest
from fitdoctor.catalogue import rules
from fitdoctor.finding import Finding
from fitdoctor.rule import SECTIONS, CannotJudge, Rule, sections
from fitdoctor.run import Run
from hypothesis import HealthCheck, given, settings
from tests.strategies import runs

RULES = rules()
by_rule = pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)


def judged(rule: Rule, run: Run) -> list[Finding] | str:
    """The findings, or why there are none."""
    if missing := rule.missing(run):
        return missing
    with np.errstate(all="ignore"):
        try:
            return list(rule(run))
        except CannotJudge as reason:
            return str(reason)


def check_finding(finding: Finding) -> None:
    """The form that every finding has, whatever it says."""
    message = finding.message
    assert 0 < len(message) <= 100, message
    assert message[0].islower() or message[0].isdigit(), message
    assert not message.endswith((".", "?", "!")), message
    assert "\n" not in message
    assert finding.span.first <= finding.span.last, finding
    for evidence in finding.evidence:
        assert evidence.observed, finding
        assert len(evidence.points) <= 200
        assert evidence.span.first <= evidence.span.last
    assert all(r.title and r.title[-1] not in ".!" for r in finding.remedies)
    assert len({r.title for r in finding.remedies}) == len(finding.remedies)


@given(runs())
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_rule_raises_and_every_finding_has_its_form(run: Run) -> None:
    for rule in RULES:
        outcome = judged(rule, run)
        if isinstance(outcome, str):
            assert outcome
        else:
            for finding in outcome:
                check_finding(finding)


@given(runs())
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_rules_are_deterministic(run: Run) -> None:
    for rule in RULES:
        assert repr(judged(rule, run)) == repr(judged(rule, run))


@given(runs())
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_rules_change_nothing(run: Run) -> None:
    before = [(s.steps.copy(), s.values.copy()) for s in run.series]
    facts = dict(run.facts)
    for rule in RULES:
        judged(rule, run)
    for s, (steps, values) in zip(run.series, before, strict=True):
        assert not s.values.flags.writeable
        assert np.array_equal(s.steps, steps)
        assert np.array_equal(s.values, values, equal_nan=True)
    assert dict(run.facts) == facts


@by_rule
def test_an_empty_run_is_no_ground_for_a_finding(rule: Rule) -> None:
    assert not isinstance(judged(rule, Run("empty", ())), list) or judged(rule, Run("empty", ())) == []


@by_rule
def test_manual_page(rule: Rule) -> None:
    page = rule.manual
    assert rule.summary.endswith(".")
    assert len(rule.summary) <= 100
    parts = sections(page)
    for title in SECTIONS:
        assert parts.get(title, "").strip(), f"{rule.name}: section {title!r} is missing or empty"
    for option in rule.options:
        assert re.search(rf"^{option}: ", parts["Options"], re.MULTILINE), (
            f"{rule.name}: option {option} is not explained"
        )
    listed = re.findall(r"^(\w+): ", parts["Options"], re.MULTILINE)
    assert set(listed) == set(rule.options)


@by_rule
def test_identity(rule: Rule) -> None:
    module = inspect.getmodule(rule.check)
    assert module is not None
    file = module.__name__.rpartition(".")[2]
    assert file == f"{rule.code.lower()}_{rule.name.replace('-', '_')}"
    assert module.__name__.split(".")[-2] == rule.family
    assert len({r.code[:3] for r in RULES if r.family == rule.family}) == 1


@by_rule
def test_options_have_defaults_of_plain_types(rule: Rule) -> None:
    for name, default in rule.options.items():
        assert isinstance(default, (int, float, str, bool)), f"{rule.name}: {name}"


def test_cut_runs_are_judged_as_well() -> None:
    """`Run.until` is how a live run looks; nothing may depend on what comes later."""
    steps = np.arange(0, 400, 4)
    from fitdoctor.run import Series
    from fitdoctor.signals import LOSS, Signal

    loss = Series(Signal(LOSS), steps, 2 * np.exp(-steps / 80))
    whole = Run("r", (loss,))
    cut, short = whole.until(200), replace(whole, series=(loss[:51],), finished=False)
    for rule in RULES:
        assert repr(judged(rule, cut)) == repr(judged(rule, short))


def test_long_logs_are_judged() -> None:
    """Half a million points: every rule gets through, whatever it thinks of them."""
    from fitdoctor.run import Series
    from fitdoctor.signals import ACCURACY, GRAD_NORM, LOSS, LR, Signal

    n = 500_000
    t = np.arange(n)
    rng = np.random.default_rng(0)
    values = {
        Signal(LOSS): 2 * np.exp(-3 * t / n) + 0.5 + 0.1 * rng.standard_normal(n),
        Signal(LR): 0.1 * np.cos(t / n),
        Signal(GRAD_NORM): np.exp(0.2 * rng.standard_normal(n)),
        Signal(ACCURACY): rng.random(n),
    }
    run = Run("long", tuple(Series(s, t, v) for s, v in values.items()), {"steps_per_epoch": 1000, "classes": 10})
    for rule in RULES:
        assert isinstance(judged(rule, run), (list, str))
