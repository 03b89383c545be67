"""The rules on layers while a run trains: quiet on every window of a sound run, prompt on a sick one."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.catalogue import find, rules
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from hypothesis import HealthCheck, given, settings
from tests.rules.activations.trainings import SICK, SOUND, run_of
from tests.rules.judging import finds
from tests.rules.test_all_rules import check_finding, judged
from tests.strategies import watched_runs

MINE = [r for r in rules() if r.family in ("activations", "gradients")]


def alarms(run: Run) -> list[str]:
    found = [(rule.name, judged(rule, run)) for rule in MINE]
    return [f"{n}: {f.message}" for n, fs in found if not isinstance(fs, str) for f in fs if f.severity != "note"]


@pytest.mark.parametrize("training", SOUND)
def test_quiet_on_every_window_of_a_sound_run(training: str) -> None:
    run = run_of(training)
    span = run.steps
    assert span is not None
    for step in np.unique(np.geomspace(5, span.last, 12).round().astype(int)):
        assert alarms(run.until(int(step))) == [], f"at step {step}"
    assert alarms(run) == []


@pytest.mark.parametrize("training", SOUND)
def test_no_rule_alarms_on_a_sound_run(training: str) -> None:
    report = diagnose(run_of(training))
    assert [f"{f.rule}: {f.message}" for f in report.findings if f.severity is not Severity.NOTE] == []
    assert [o.why for o in report.outcomes if o.status == "crashed"] == []


@pytest.mark.parametrize(
    ("rule", "training", "by"),
    [
        ("dead-relu", "born dead", 60),
        ("dead-relu", "rate kills", 100),
        ("saturated-activations", "saturated weights", 60),
        ("poor-init-scale", "growing", 60),
        ("poor-init-scale", "default, deep", 60),
        ("input-collapse", "sigmoids", 60),
        ("symmetric-init", "constant", 60),
        ("missing-nonlinearity", "linear", 60),
        ("wrong-initial-loss", "shouting", 320),
        ("exploding-gradients", "growing, adam", 60),
        ("vanishing-gradients", "sigmoids", 60),
        ("logit-drift", "rising rate", 450),
    ],
)
def test_prompt_on_sick_runs(rule: str, training: str, by: int) -> None:
    found = judged(find(rule), run_of(training).until(by))
    assert not isinstance(found, str), found
    assert any(f.severity is not Severity.NOTE for f in found)


@pytest.mark.parametrize("training", SICK)
def test_findings_have_their_form(training: str) -> None:
    run = run_of(training)
    for rule in MINE:
        outcome = judged(rule, run)
        if not isinstance(outcome, str) and outcome:
            finds(rule, run)


def test_the_rules_agree_with_themselves_on_a_shorter_run() -> None:
    """`Run.until` is how a live run looks."""
    run = run_of("default, deep").until(120)
    assert [repr(judged(r, run)) for r in MINE] == [repr(judged(r, run.until(120))) for r in MINE]


@given(watched_runs())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_rule_raises_whatever_the_layers_did(run: Run) -> None:
    for rule in MINE:
        outcome = judged(rule, run)
        assert repr(outcome) == repr(judged(rule, run))
        for finding in [] if isinstance(outcome, str) else outcome:
            check_finding(finding)
