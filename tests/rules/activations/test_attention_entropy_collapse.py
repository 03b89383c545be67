"""ACT009 attention-entropy-collapse."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Confidence, Severity
from fitdoctor.run import Run
from fitdoctor.signals import ATTENTION_ENTROPY, ATTENTION_SHARP_FRACTION, LOSS
from tests.rules.activations.attending import run_of
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "attention-entropy-collapse"
SOUND = ("even", "one key from the start, normalised", "sharp for a while", "looks up", "looks up, sharp")


def final(name: str) -> float:
    loss = run_of(name).get(LOSS)
    assert loss is not None
    return float(np.mean(loss.values[-20:]))


@pytest.mark.parametrize("training", ["sharp from the start", "one key from the start"])
def test_queries_that_see_one_key_from_the_start(training: str) -> None:
    found = finding(NAME, run_of(training), Severity.WARNING)
    assert "from the start" in found.message
    assert found.confidence is Confidence.LOW  # an attention may be meant to be hard
    assert found.onset < 80
    assert found.remedies[0].kind == "initialisation"
    alarms = [d.root.rule for d in diagnose(run_of(training)).diagnoses if d.root.severity is not Severity.NOTE]
    assert alarms == [NAME]


@pytest.mark.parametrize("training", ["rate collapses it", "rate collapses the look-up"])
def test_attention_that_a_high_rate_collapses_is_part_of_that_diagnosis(training: str) -> None:
    found = finding(NAME, run_of(training), Severity.ERROR)
    assert "since step" in found.message
    assert found.remedies[0].change is not None
    assert found.remedies[0].change.knob == "learning_rate"
    (root,) = [d for d in diagnose(run_of(training)).diagnoses if d.root.severity is not Severity.NOTE]
    assert root.root.rule == "lr-too-high"
    assert NAME in {f.rule for f in root.explains}


def test_the_cure_helps() -> None:
    assert final("one key from the start, normalised") < 0.8 * final("one key from the start")
    assert final("even") < 0.8 * final("sharp from the start")


@pytest.mark.parametrize("training", SOUND)
def test_attention_that_does_its_task_is_none(training: str) -> None:
    assert findings(NAME, run_of(training)) == []


def test_the_look_alikes_look_alike() -> None:
    sharp = run_of("looks up, sharp").layers(ATTENTION_SHARP_FRACTION)["attention"]
    assert np.median(sharp.values[-20:]) >= 0.75
    early = run_of("sharp for a while").layers(ATTENTION_ENTROPY)["attention"]
    assert early.values[0] < 0.1
    assert early.values[-1] > 0.5


@pytest.mark.parametrize("training", SOUND)
def test_quiet_on_every_window_of_a_sound_run(training: str) -> None:
    run = run_of(training)
    assert run.steps is not None
    for step in np.unique(np.geomspace(5, run.steps.last, 12).round().astype(int)):
        report = diagnose(run.until(int(step)))
        assert [f.message for f in report.findings if f.rule == NAME] == [], f"at step {step}"


@pytest.mark.parametrize(("until", "found"), [(240, False), (350, True)])
def test_prompt_once_the_first_plateau_is_over(until: int, found: bool) -> None:
    assert bool(findings(NAME, run_of("rate collapses the look-up").until(until))) is found


def made(entropy: float, *, ends: float = 0.6, heads: float = 1.0, falls: bool = False, records: int = 40) -> Run:
    steps = 10 * np.arange(records)
    values = np.where(np.arange(records) < 10, 0.9, entropy)
    first = np.linspace(0.69, ends + 0.05, 120)
    rest = np.linspace(ends + 0.05, ends - 0.05, 280) if falls else np.full(280, ends)
    loss = np.concatenate([first, rest]) + 0.005 * np.random.default_rng(0).standard_normal(400)
    return make_run(
        series(LOSS, loss),
        series(ATTENTION_ENTROPY, values, steps, layer="blocks.0.attn"),
        series(ATTENTION_SHARP_FRACTION, np.where(values < 0.3, heads, 0.0), steps, layer="blocks.0.attn"),
        finished=True,
    )


@pytest.mark.parametrize(("entropy", "found"), [(0.11, False), (0.09, True)])
def test_boundary_of_the_entropy(entropy: float, found: bool) -> None:
    assert bool(findings(NAME, made(entropy))) is found


@pytest.mark.parametrize(("heads", "found"), [(0.7, False), (0.8, True)])
def test_boundary_of_the_heads(heads: float, found: bool) -> None:
    assert bool(findings(NAME, made(0.05, heads=heads))) is found


def test_without_harm_nothing_is_said() -> None:
    assert findings(NAME, made(0.02, ends=0.25)) == []  # more than half is learned
    assert findings(NAME, made(0.02, falls=True)) == []  # it goes on learning
    assert finding(NAME, made(0.02)).confidence is Confidence.MEDIUM  # it was open, and closed


def test_few_records_are_too_few() -> None:
    cannot_judge(NAME, made(0.02, records=9), "records")
    cannot_judge(NAME, make_run(series(LOSS, np.ones(100))), "attention_entropy")
