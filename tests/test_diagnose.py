"""`diagnose`: what is run, what is left out, what becomes of a rule that fails."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from fitdoctor.config import Config
from fitdoctor.diagnose import diagnose
from fitdoctor.errors import ConfigError
from fitdoctor.finding import Confidence, Finding, Severity
from fitdoctor.report import from_json, to_json
from fitdoctor.rule import CannotJudge, Rule, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import GRAD_NORM, LOSS, LR, Signal
from fitdoctor.testing import make_run
from hypothesis import HealthCheck, given, settings
from tests.strategies import runs


def found(message: str, severity: Severity = Severity.WARNING, onset: int = 0) -> Finding:
    return Finding(message, severity, Confidence.HIGH, Span(onset, onset + 1))


@rule("AAA001", "always", needs=[LOSS], explains=["late"], since="0.1.0", vital=True)
def always(
    run: Run, *, times: int = 1, share: float = 0.5, word: str = "loss", loud: bool = False
) -> Iterator[Finding]:
    """Finds something in any run."""
    for i in range(times):
        yield found(f"{word} {i} {share} {loud} of {run.facts.get('classes')}")


@rule("AAA002", "late", needs=[(GRAD_NORM, LOSS)], since="0.1.0")
def late(run: Run) -> Iterator[Finding]:
    """Finds something that the first rule explains."""
    yield found("an effect", onset=1)


@rule("BBB001", "picky", needs=[GRAD_NORM], since="0.1.0")
def picky(run: Run) -> Iterator[Finding]:
    """Needs what is not logged."""
    yield found("never")


@rule("BBB002", "undecided", needs=[LOSS, (Signal(LOSS, "val"), Signal(LOSS, "test"))], since="0.1.0")
def undecided(run: Run) -> Iterator[Finding]:
    """Cannot judge."""
    raise CannotJudge("3 values, 8 are needed")
    yield


@rule("BBB003", "broken", needs=[], since="0.1.0")
def broken(run: Run) -> Iterator[Finding]:
    """Fails half way."""
    yield found("half")
    raise ZeroDivisionError("division by zero")


@rule("BBB004", "overflowing", needs=[], since="0.1.0")
def overflowing(run: Run) -> Iterator[Finding]:
    """Computes what overflows, without being stopped by it."""
    if np.float64(1e308) * 10 == math.inf:
        yield found("inf", Severity.NOTE)


RULES: tuple[Rule, ...] = (always, late, picky, undecided, broken, overflowing)
RUN = make_run(train_loss=[3.0, 2.0, 1.0], val_loss=[3.0, 2.0], facts={"classes": 10})


def statuses(**config: object) -> dict[str, str]:
    report = diagnose(RUN, rules=RULES, config=Config(**config))  # type: ignore[arg-type]
    return {o.rule: o.status for o in report.outcomes}


def test_every_rule_has_an_outcome_with_its_reason() -> None:
    report = diagnose(RUN, rules=RULES)
    assert [(o.code, o.status, o.why) for o in report.outcomes] == [
        ("AAA001", "found", ""),
        ("AAA002", "found", ""),
        ("BBB001", "skipped", "no grad_norm logged"),
        ("BBB002", "skipped", "3 values, 8 are needed"),
        ("BBB003", "crashed", "ZeroDivisionError: division by zero"),
        ("BBB004", "found", ""),
    ]
    assert [o.vital for o in report.outcomes] == [True, False, False, False, False, False]


def test_a_crashed_rule_says_nothing_and_stops_nobody() -> None:
    report = diagnose(RUN, rules=RULES)
    crashed = next(o for o in report.outcomes if o.status == "crashed")
    assert crashed.findings == ()
    assert all(f.message != "half" for f in report.findings)
    assert report.counts == {"findings": 3, "clean": 0, "skipped": 2, "crashed": 1}


def test_one_of_several_needs_is_named_with_its_alternatives() -> None:
    bare = diagnose(make_run(lr=[1.0]), rules=RULES)
    why = {o.rule: o.why for o in bare.outcomes}
    assert why["late"] == "no grad_norm or train loss logged"
    assert why["undecided"] == "no train loss logged"
    only_train = diagnose(make_run(train_loss=[1.0]), rules=RULES)
    assert {o.rule: o.why for o in only_train.outcomes}["undecided"] == "no val loss or test loss logged"


def test_findings_carry_their_rule_and_are_triaged_by_what_the_rules_declare() -> None:
    report = diagnose(RUN, rules=RULES)
    assert {f.rule for f in report.findings} == {"always", "late", "overflowing"}
    assert [(d.root.rule, [f.rule for f in d.explains]) for d in report.diagnoses] == [
        ("always", ["late"]),
        ("overflowing", []),
    ]
    assert report.verdict == "sick"


@pytest.mark.parametrize(
    ("select", "ignore", "left"),
    [
        ((), {}, {"always", "late", "picky", "undecided", "broken", "overflowing"}),
        (("always",), {}, {"always"}),
        (("aaa001",), {}, {"always"}),
        (("AAA",), {}, {"always", "late"}),
        (("AAA", "picky"), {}, {"always", "late", "picky"}),
        ((), {"BBB": "not now", "late": "known"}, {"always"}),
        (("AAA",), {"always": ""}, {"late"}),
    ],
)
def test_rules_are_selected_and_ignored_by_name_code_or_family(
    select: tuple[str, ...], ignore: dict[str, str], left: set[str]
) -> None:
    assert set(statuses(select=select, ignore=ignore)) == left


def test_the_family_is_the_folder_of_the_rule() -> None:
    report = diagnose(RUN, config=Config(select=("loss",)))
    assert {o.code[:3] for o in report.outcomes} == {"LOS"}


def test_the_reason_of_an_ignored_rule_stands_in_the_report() -> None:
    report = diagnose(RUN, rules=RULES, config=Config(ignore={"AAA": "a reason"}))
    assert report.ignored == {"always": "a reason", "late": "a reason"}


@pytest.mark.parametrize(
    "config", [Config(select=("alwys",)), Config(ignore={"alwys": ""}), Config(options={"alwys": {"times": 2}})]
)
def test_a_name_that_fits_no_rule_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match="no rule 'alwys'"):
        diagnose(RUN, rules=RULES, config=config)


def test_a_name_that_nearly_fits_is_offered() -> None:
    with pytest.raises(ConfigError, match="did you mean 'overfitting'"):
        diagnose(RUN, config=Config(select=("overfiting",)))


def test_a_rule_of_the_catalogue_that_is_not_applied_here_is_refused() -> None:
    with pytest.raises(ConfigError, match="'overfitting' is not among the rules of this diagnosis"):
        diagnose(RUN, rules=RULES, config=Config(select=("overfitting",)))


@pytest.mark.parametrize("name", ["always", "AAA001"])
def test_options_reach_the_rule(name: str) -> None:
    report = diagnose(RUN, rules=[always], config=Config(options={name: {"times": 2, "share": 1, "word": "x"}}))
    assert [f.message for f in report.findings] == ["x 0 1 False of 10", "x 1 1 False of 10"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tims": 2}, "rule always has no option 'tims'; it takes times, share, word, loud"),
        ({"times": "2"}, "option times of rule always: expected int, got '2'"),
        ({"share": True}, "option share of rule always: expected float, got True"),
        ({"word": 1}, "option word of rule always: expected str, got 1"),
        ({"loud": 1}, "option loud of rule always: expected bool, got 1"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        diagnose(RUN, rules=RULES, config=Config(options={"always": options}))
    with pytest.raises(ConfigError, match="rule late has no option 'x'; it takes none"):
        diagnose(RUN, rules=RULES, config=Config(options={"late": {"x": 1}}))


def test_facts_of_the_user_override_those_of_the_log() -> None:
    report = diagnose(RUN, rules=[always], config=Config(facts={"classes": 3}))
    assert report.facts["classes"] == 3
    assert report.findings[0].message.endswith("of 3")
    assert RUN.facts["classes"] == 10


def test_the_schedule_is_recognised_and_reported() -> None:
    halved = make_run(train_loss=np.ones(100), lr=0.1 * 0.5 ** (np.arange(100) // 25))
    assert "step" in str(diagnose(halved, rules=[always]).facts["schedule"])
    assert "schedule" not in diagnose(RUN, rules=[always]).facts


def test_the_main_curves_come_along_for_drawing() -> None:
    layers = {"grad_norm": {"0.weight": [1.0, 2.0]}}
    run = make_run(train_loss=np.arange(1000.0), lr=[0.1], weight_norm=[1.0], layers=layers)
    curves = diagnose(run, rules=[]).curves
    assert [str(c.signal) for c in curves] == ["train loss", "lr"]
    assert all(len(c.points) <= 200 for c in curves)


def test_a_run_without_anything_cannot_be_judged() -> None:
    report = diagnose(Run("empty", ()))
    assert report.verdict == "cannot judge"
    assert report.steps is None
    assert report.findings == ()
    assert all(o.why for o in report.outcomes if o.status == "skipped")


@given(runs())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_run_is_diagnosed_by_all_rules_without_a_crash_and_the_report_can_be_kept(run: Run) -> None:
    report = diagnose(run)
    assert [o for o in report.outcomes if o.status == "crashed"] == []
    assert sum(len((d.root, *d.explains)) for d in report.diagnoses) == len(report.findings)
    (again,) = from_json(to_json([report]))
    assert [repr(f) for f in again.findings] == [repr(f) for f in report.findings]
    assert again.verdict == report.verdict


def test_a_rate_logged_per_group_is_among_the_curves() -> None:
    groups = [Series(Signal(LR, layer=f"pg{i}"), [0, 1], [0.1 * i, 0.1]) for i in range(2)]
    (curve,) = diagnose(Run("r", tuple(groups)), rules=()).curves
    assert str(curve.signal) == "lr of pg0"
