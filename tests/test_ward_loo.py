"""The ward's choice of options without the family that is judged: on made rows, and on the sample logs."""

from __future__ import annotations

from pathlib import Path

import fitdoctor
import pytest
from benchmarks.accuracy.ward import loo, options
from benchmarks.accuracy.ward.arms import summary
from benchmarks.accuracy.ward.loo import Judged
from benchmarks.accuracy.ward.options import Examined, Setting
from benchmarks.accuracy.ward.recipe import Recipe
from benchmarks.accuracy.ward.store import Store
from fitdoctor import Confidence, Finding, Severity
from fitdoctor.config import Config
from fitdoctor.run import Span
from hypothesis import given
from hypothesis import strategies as st

SAMPLES = Path(__file__).parents[1] / "sample_logs"
HALF, TWICE = (Setting("lr-too-low", "worth", m) for m in (0.5, 2.0))
OTHER = Setting("overfitting", "errors", 2.0)


def finding(rule: str, severity: Severity = Severity.WARNING) -> Finding:
    return Finding("", severity, Confidence.HIGH, Span(0, 10), rule=rule)


def run(family: str, right: str = "", said: str = "", changed: dict[Setting, str] | None = None) -> Judged:
    """A run that is sick of `right`, or sound; each rule is silent where it does not say its own name."""
    rules = {"lr-too-low", "overfitting", said} - {""}
    found = {rule: (finding(rule),) if rule == said else () for rule in rules}
    other = {s: (finding(name),) if name else () for s, name in (changed or {}).items()}
    return Judged(family, bool(right), frozenset({right} - {""}), Examined(Span(0, 10), found, other))


# --- values ------------------------------------------------------------------------------------------------------


@given(st.floats(1e-9, 1 - 1e-9) | st.floats(1.0, 1e6) | st.integers(1, 10_000))
def test_other_values_are_of_the_same_kind_and_never_the_default(default: float) -> None:
    others = options.other_values(default)
    assert default not in others.values()
    assert list(others.values()) == sorted(others.values())
    for multiple, value in others.items():
        assert (value < default) == (multiple < 1)
        assert isinstance(value, int) == isinstance(default, int)
        assert value > 0
        assert value < 1 or not 0 < default < 1


def test_a_small_share_is_nearly_multiplied_and_a_large_one_keeps_away_from_one() -> None:
    assert options.other_values(0.001)[2.0] == pytest.approx(0.002, rel=0.01)
    assert 1 - options.other_values(0.999)[0.5] == pytest.approx(0.002, rel=0.01)


# --- one run -----------------------------------------------------------------------------------------------------


SAMPLED = ["double_softmax", "fast_convergence", "lr_decay_too_early", "lr_too_high_noisy", "warmup_missing"]


@pytest.mark.parametrize("sample", SAMPLED)
def test_changed_options_say_what_a_whole_diagnosis_with_them_says(sample: str) -> None:
    folder = SAMPLES / sample
    logged = next(iter(fitdoctor.open_runs(folder)))
    found = options.examine(folder)
    values = {s: v for rule in fitdoctor.catalogue.rules() for s, v in options.settings(rule).items()}

    def whole(chosen: list[Setting]) -> tuple[str, str]:
        given = {s.rule: {s.option: values[s]} for s in chosen}
        said = summary(fitdoctor.diagnose(logged, config=Config(options=given)))
        return said.root, said.worst

    assert not found.crashed
    assert found.told() == whole([])
    said = {found.told([setting]) for setting in found.changed}
    assert said - {found.told()}, "no option changes what is said: the comparison below says nothing"
    for setting in found.changed:
        assert found.told([setting]) == whole([setting]), setting
    together = list({s.rule: s for s in found.changed}.values())
    assert found.told(together) == whole(together)


def test_examined_runs_are_kept(tmp_path: Path) -> None:
    folder = SAMPLES / "lr_too_low"
    first = options.kept(tmp_path, "key", folder)
    assert options.kept(tmp_path, "key", tmp_path / "gone") == first


# --- choosing ----------------------------------------------------------------------------------------------------


def mixed() -> list[Judged]:
    """In family a, half the option finds two faults; in b it raises an alarm; c has nothing to say about it."""
    return [
        run("a", "lr-too-low", changed={HALF: "lr-too-low"}),
        run("a", "lr-too-low", changed={HALF: "lr-too-low", TWICE: ""}),
        run("b", changed={HALF: "lr-too-low"}),
        run("b", "lr-too-low", "lr-too-low", {TWICE: ""}),
        run("c", "overfitting", changed={OTHER: "overfitting"}),
        run("c", said="overfitting", changed={OTHER: ""}),
    ]


def test_points_weigh_false_alarms_more_than_faults_that_are_missed() -> None:
    assert [r.points() for r in mixed()] == [0, 0, 0, 1, 0, -2]
    assert run("a", "lr-too-low", "overfitting").points() == 0
    assert loo.POINTS["error"] < loo.POINTS["warning"] < -1


def test_gains_are_by_family_and_against_the_defaults() -> None:
    gained = loo.gains(mixed())
    assert gained[HALF] == {"a": 2, "b": -2}
    assert gained[TWICE] == {"b": -1}
    assert gained[OTHER] == {"c": 3}


def test_the_family_left_out_has_no_say() -> None:
    gained = loo.gains(mixed())
    assert loo.chosen_one([HALF, TWICE], gained, left_out="b") == HALF
    assert loo.chosen_one([HALF, TWICE], gained, left_out="a") is None
    assert loo.chosen_one([HALF, TWICE], gained, left_out="c") is None  # 2 - 2: a tie goes to the default


def test_an_option_that_only_fits_its_families_stands_out() -> None:
    by_name = {(o.rule, o.option): o for o in loo.tuned(mixed())}
    fits = by_name["lr-too-low", "worth"]
    assert fits.picked == [(2, -2)]
    assert (fits.inside, fits.outside) == (2, -2)
    assert fits.reading == "another value fits its families only"
    lucky = by_name["overfitting", "errors"]  # chosen by c alone, where it gains: not when c is left out
    assert lucky.picked == [(3, 0), (3, 0)]
    assert lucky.reading == "nothing gained elsewhere"
    assert by_name["overfitting", "share"].reading == "flat around the default"
    assert {rule for rule, _ in by_name} == {"lr-too-low", "overfitting"}, "rules that no run could be asked of"


def test_settings_are_chosen_together_as_long_as_they_gain() -> None:
    assert loo.chosen_together(mixed()) == [OTHER]
    assert loo.chosen_together([r for r in mixed() if r.family != "b"]) == [OTHER, HALF]
    both = Setting("overfitting", "share", 2.0)
    rows = [run("a", "overfitting", changed={OTHER: "overfitting", both: "overfitting"})]
    assert len(loo.chosen_together(rows)) == 1, "two options of one rule"
    assert loo.chosen_together([]) == []


def test_settings_that_gain_alone_but_not_together() -> None:
    settings = {HALF: "lr-too-low", OTHER: "overfitting"}
    row = run("a", "lr-too-low", changed=settings)
    row.right |= {"overfitting"}
    assert len(loo.chosen_together([row])) == 1


def test_nested_tallies_are_worse_than_fitted_ones_where_options_only_fit() -> None:
    frozen, nested, fitted = loo.tallies(mixed()).values()
    assert (frozen.root, frozen.sick, frozen.alarms, frozen.errors, frozen.sound) == (1, 4, 1, 0, 2)
    assert frozen.points == -1
    assert nested.points == -3  # half the option, chosen without b, is an alarm in b; without c nothing mends c
    assert fitted.points == 2
    assert (nested.moved, fitted.moved) == ([1, 2, 0], [1])


# --- the page ----------------------------------------------------------------------------------------------------


def test_the_section_shows_totals_and_the_largest_effects() -> None:
    runs = mixed()
    text = loo.section(loo.tuned(runs), loo.tallies(runs), runs, most=2)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| points | -1 | -3 | 2 |" in rows
    assert [row.split(" | ")[0] for row in rows[-2:]] == ["| overfitting: errors", "| lr-too-low: worth"]
    assert "1 lose (lr-too-low: worth)" in text


def test_what_was_not_measured_is_said_to_be_so(tmp_path: Path) -> None:
    assert loo.read(Store(tmp_path)).startswith("Not measured")


def test_unseen_families_are_never_touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def there(_: Store, recipe: Recipe, *, watched: bool) -> bool:
        return True

    monkeypatch.setattr(Store, "has", there)
    found = loo.candidates(Store(tmp_path))
    assert found
    assert not [case for case in found if case.family.unseen]
