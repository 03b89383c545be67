"""Which rules there are: our own, and those of plug-ins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
from fitdoctor import catalogue
from fitdoctor.catalogue import check_catalogue, find, rules
from fitdoctor.errors import ConfigError, RuleError
from fitdoctor.rule import Rule, rule, sections
from fitdoctor.run import Run
from fitdoctor.signals import GRAD_NORM, LOSS, Signal


def made(code: str, name: str, explains: tuple[str, ...] = ()) -> Rule:
    @rule(code, name, needs=[LOSS], explains=explains, since="0.1.0")
    def check(run: Run, *, limit: float = 2.0) -> list[object]:
        """Finds nothing.

        Why it matters: not at all.
        """
        return []

    return check


PLUGGED = made("XYZ001", "plugged-in", ("plateau",))
PLUGGED_LIST = [made("XYZ002", "second"), made("XYZ003", "third")]
NO_RULE = "a string"


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make attributes of this module look like entry points of an installed package."""

    def install(*attributes: str) -> None:
        points = [EntryPoint(a, f"{__name__}:{a}", catalogue.ENTRY_POINT_GROUP) for a in attributes]
        monkeypatch.setattr(catalogue, "entry_points", lambda *, group: points if group == "fitdoctor.rules" else [])
        monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.attr])
        rules.cache_clear()

    yield install
    rules.cache_clear()


def test_our_own_rules_are_found_by_their_folder_in_the_order_of_their_codes() -> None:
    codes = [r.code for r in rules()]
    assert codes == sorted(codes)
    assert {"LOS001", "LRN001", "FIT001"} <= set(codes)
    assert {r.family for r in rules() if r.code.startswith("LRN")} == {"learning_rate"}
    assert rules() is rules()


def test_rules_are_found_by_name_or_code_in_any_case() -> None:
    assert find("lr-too-high") is find("LRN001") is find("lrn001") is find("LR-Too-High")


def test_an_unknown_rule_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'lr-too-high'"):
        find("lr-to-high")
    with pytest.raises(ConfigError, match=r"no rule 'zzzzzz' \(`fitdoctor rule` lists them all\)"):
        find("zzzzzz")


def test_entry_points_offer_one_rule_or_several(plug_in: Callable[..., None]) -> None:
    plug_in("PLUGGED", "PLUGGED_LIST")
    assert [r.code for r in rules()[-3:]] == ["XYZ001", "XYZ002", "XYZ003"]
    assert find("second") is PLUGGED_LIST[0]


def test_an_entry_point_that_is_no_rule_is_refused_by_name(plug_in: Callable[..., None]) -> None:
    plug_in("NO_RULE")
    with pytest.raises(RuleError, match=r"entry point 'NO_RULE' of fitdoctor\.rules: expected a Rule, got 'a'"):
        rules()


def test_an_entry_point_that_cannot_be_loaded_is_refused_by_name(plug_in: Callable[..., None]) -> None:
    plug_in("MISSING")
    with pytest.raises(RuleError, match=r"entry point 'MISSING' of fitdoctor\.rules: .* cannot be loaded .KeyError"):
        rules()


def test_a_plug_in_may_not_take_a_code_or_a_name_that_is_taken(plug_in: Callable[..., None]) -> None:
    plug_in("PLUGGED", "PLUGGED")
    with pytest.raises(RuleError, match="'XYZ001' stands for two rules"):
        rules()
    with pytest.raises(RuleError, match="'AAA001' stands for two rules"):
        check_catalogue([made("AAA001", "a"), made("AAA001", "b")])
    with pytest.raises(RuleError, match="'same' stands for two rules"):
        check_catalogue([made("AAA001", "same"), made("AAA002", "same")])


def test_what_a_rule_explains_has_to_exist() -> None:
    check_catalogue([made("AAA001", "a", ("b",)), made("AAA002", "b")])
    with pytest.raises(RuleError, match=r"rule a explains \['c'\], which are no rules"):
        check_catalogue([made("AAA001", "a", ("c",))])


def test_no_rule_of_ours_explains_itself() -> None:
    assert [r.name for r in rules() if r.name in r.explains] == []


# --- rule -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["LR001", "lrn001", "LRNN01", "LRN01", "LRN0001", ""])
def test_a_malformed_code_is_refused(code: str) -> None:
    with pytest.raises(RuleError, match="expected three capitals and three digits"):
        made(code, "fine")


@pytest.mark.parametrize("name", ["Upper", "two words", "-a", "a-", "a--b", "a_b", ""])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(RuleError, match="expected kebab-case"):
        made("AAA001", name)


def test_a_rule_knows_its_options_and_its_manual() -> None:
    assert PLUGGED.options == {"limit": 2.0}
    assert PLUGGED.summary == "Finds nothing."
    assert sections(PLUGGED.manual)["Why it matters"] == "not at all."
    assert PLUGGED.needs == (Signal(LOSS),)


def test_needs_name_any_layer_by_a_star() -> None:
    from fitdoctor.testing import make_run

    starred = replace(PLUGGED, needs=(Signal(GRAD_NORM, layer="*"),))
    assert starred.missing(make_run(grad_norm=[1.0])) != ""
    assert starred.missing(make_run(layers={"grad_norm": {"0.weight": [1.0]}})) == ""


def test_sections_keep_lines_and_paragraphs() -> None:
    manual = "Summary.\n\nWhy it matters:\n    One.\n\n    Two: with a colon.\n\nOptions:\n    share: of it.\n"
    assert sections(manual) == {
        "": "Summary.",
        "Why it matters": "One.\n\nTwo: with a colon.",
        "Options": "share: of it.",
    }
