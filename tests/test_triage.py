"""Which finding becomes the root cause, and what goes under it."""

from __future__ import annotations

import pytest
from fitdoctor.finding import Confidence, Finding, Severity
from fitdoctor.run import Span
from fitdoctor.triage import triage
from hypothesis import given
from hypothesis import strategies as st

EXPLAINS = {"rate": ["blow-up", "stall"], "blow-up": ["nan"], "stall": ["noise"], "nan": [], "noise": []}
RUN = Span(0, 1000)


def finding(
    rule: str,
    onset: int = 0,
    severity: Severity = Severity.WARNING,
    confidence: Confidence = Confidence.MEDIUM,
    message: str = "",
) -> Finding:
    return Finding(message or f"{rule} at {onset}", severity, confidence, Span(onset, 1000), rule=rule)


def tree(*findings: Finding, explains: dict[str, list[str]] | None = None) -> dict[str, list[str]]:
    """Messages: root -> what it explains, in order."""
    found = triage(findings, EXPLAINS if explains is None else explains, RUN)
    return {d.root.message: [f.message for f in d.explains] for d in found}


def test_nothing_found_is_no_diagnosis() -> None:
    assert triage([], EXPLAINS, RUN) == []
    assert triage([], {}, None) == []


def test_a_root_takes_what_it_explains_at_any_remove_in_order_of_onset() -> None:
    assert tree(finding("nan", 300), finding("blow-up", 200), finding("rate", 100)) == {
        "rate at 100": ["blow-up at 200", "nan at 300"]
    }
    assert tree(finding("rate", 100), finding("nan", 300)) == {"rate at 100": ["nan at 300"]}


def test_what_began_clearly_earlier_is_not_explained_by_what_came_later() -> None:
    assert tree(finding("rate", 500), finding("nan", 100)) == {"nan at 100": [], "rate at 500": []}


def test_onsets_are_only_known_to_5_percent_of_the_run() -> None:
    assert tree(finding("rate", 150), finding("nan", 100)) == {"rate at 150": ["nan at 100"]}
    assert tree(finding("rate", 151), finding("nan", 100)) == {"nan at 100": [], "rate at 151": []}


def test_a_state_has_no_onset_that_could_come_too_early() -> None:
    late, early = finding("rate", 900), finding("noise", 0)
    assert [d.explains for d in triage([late, early], EXPLAINS, RUN)] == [(), ()]
    assert [d.explains for d in triage([late, early], EXPLAINS, RUN, {"noise"})] == [(early,)]


def test_a_note_is_never_the_root_of_a_warning() -> None:
    assert tree(finding("rate", severity=Severity.NOTE, message="n"), finding("nan", 100, message="w")) == {
        "w": [],
        "n": [],
    }
    assert tree(
        finding("rate", severity=Severity.NOTE, message="n"), finding("nan", 100, Severity.NOTE, message="m")
    ) == {"n": ["m"]}


def test_a_warning_may_be_the_root_of_an_error_and_leads_then() -> None:
    warning, error, other = (
        finding("rate", 10, message="w"),
        finding("nan", 20, Severity.ERROR, message="e"),
        finding("other", 0, Severity.WARNING, Confidence.HIGH, message="o"),
    )
    assert list(tree(warning, error, other).items()) == [("w", ["e"]), ("o", [])]


def test_roots_are_ranked_by_severity_then_confidence_then_effects_then_onset() -> None:
    assert list(
        tree(
            finding("a", 5, Severity.NOTE, Confidence.HIGH),
            finding("b", 4, Severity.WARNING, Confidence.LOW),
            finding("c", 3, Severity.WARNING, Confidence.HIGH),
            finding("d", 2, Severity.WARNING, Confidence.HIGH),
            finding("e", 9, Severity.WARNING, Confidence.HIGH),
            finding("f", 9, Severity.NOTE, Confidence.LOW),
            explains={"e": ["f"]},
        )
    ) == ["e at 9", "d at 2", "c at 3", "b at 4", "a at 5"]


def test_one_rule_makes_one_diagnosis() -> None:
    assert tree(finding("nan", 300), finding("nan", 100), finding("nan", 200, Severity.ERROR)) == {
        "nan at 200": ["nan at 100", "nan at 300"]
    }
    assert tree(finding("rate", 200), finding("nan", 300), finding("nan", 10)) == {
        "nan at 10": [],
        "rate at 200": ["nan at 300"],
    }


def test_of_rules_that_explain_each_other_the_first_explains_the_rest() -> None:
    circle = {"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"], "e": ["e"]}
    assert tree(finding("c", 3), finding("a", 2), finding("b", 1), explains=circle) == {"b at 1": ["a at 2", "c at 3"]}
    assert tree(finding("a", 2), finding("b", 2), explains=circle) == {"a at 2": [], "b at 2": []}
    assert tree(finding("a", 1), finding("b", 2), finding("d", 0), explains=circle) == {"d at 0": ["a at 1", "b at 2"]}
    assert tree(finding("e", 1), finding("e", 2), explains=circle) == {"e at 1": ["e at 2"]}


def test_what_only_a_middle_link_explains_goes_under_the_root_of_that_link() -> None:
    """Each link is within the slack of the next, the whole chain is not."""
    assert tree(finding("rate", 240), finding("blow-up", 200), finding("nan", 160)) == {
        "rate at 240": ["nan at 160", "blow-up at 200"]
    }


def test_a_name_that_no_rule_declares_explains_nothing() -> None:
    assert tree(finding("plug-in", 5), finding("nan", 5)) == {"nan at 5": [], "plug-in at 5": []}


def test_a_diagnosis_carries_the_doubts_of_its_root() -> None:
    root = Finding(
        "m", Severity.ERROR, Confidence.LOW, RUN, could_be=("data",), settle_with="replay the batch", rule="rate"
    )
    (diagnosis,) = triage([root, finding("nan")], EXPLAINS, RUN)
    assert (diagnosis.could_be, diagnosis.settle_with) == (("data",), "replay the batch")


def test_an_effect_that_two_roots_account_for_names_the_other_and_what_decides() -> None:
    two = {"rate": ["nan"], "init": ["nan"]}
    first, second, effect = finding("rate", 10, Severity.ERROR), finding("init", 12), finding("nan", 20)
    (lead, other) = triage([first, second, effect], two, RUN)
    assert (lead.root, lead.explains) == (first, (effect,))
    assert lead.could_be == ("init",)
    assert lead.settle_with == "undo rate alone for a tenth of the steps: if init stays, it has its own cause"
    assert (other.root, other.could_be, other.settle_with) == (second, (), "")
    note = finding("nan", 20, Severity.NOTE)
    assert [d.could_be for d in triage([first, second, note], two, RUN)] == [(), ()]


def test_the_experiment_of_the_rule_itself_goes_before_the_general_one() -> None:
    root = Finding("m", Severity.ERROR, Confidence.LOW, RUN, could_be=("data",), settle_with="replay", rule="rate")
    found = triage([root, finding("init"), finding("nan")], {"rate": ["nan"], "init": ["nan"]}, RUN)
    assert (found[0].could_be, found[0].settle_with) == (("data", "init"), "replay")


def test_a_doubt_between_rules_is_never_left_without_an_experiment() -> None:
    doubted = Finding("m", Severity.ERROR, Confidence.LOW, RUN, could_be=("bad luck", "noise"), rule="rate")
    (diagnosis,) = triage([doubted], EXPLAINS, RUN)
    assert diagnosis.settle_with == "undo rate alone for a tenth of the steps: if noise stays, it has its own cause"
    plain = Finding("m", Severity.ERROR, Confidence.LOW, RUN, could_be=("bad luck",), rule="rate")
    assert triage([plain], EXPLAINS, RUN)[0].settle_with == ""


def test_a_note_that_would_account_for_a_harmful_root_is_named() -> None:
    root, note = finding("nan", 300), finding("rate", 100, Severity.NOTE)
    lead, _ = triage([root, note], EXPLAINS, RUN)
    assert (lead.root, lead.could_be) == (root, ("rate",))
    assert lead.settle_with
    late = finding("rate", 600, Severity.NOTE)
    assert triage([root, late], EXPLAINS, RUN)[0].could_be == ()


names = st.sampled_from("abcdef")
any_findings = st.lists(
    st.builds(
        finding, names, st.integers(0, 1000), st.sampled_from(list(Severity)), st.sampled_from(list(Confidence)),
        st.text(min_size=1, max_size=6),
    ),
    max_size=12, unique_by=lambda f: f.message,
)  # fmt: skip
any_explains = st.dictionaries(names, st.lists(names, max_size=3))


@given(any_findings, any_explains, st.sets(names), st.none() | st.just(RUN), st.randoms())
def test_every_finding_has_one_place_whatever_their_order(
    findings: list[Finding],
    explains: dict[str, list[str]],
    states: set[str],
    steps: Span | None,
    random: object,
) -> None:
    found = triage(findings, explains, steps, states)
    placed = [f for d in found for f in (d.root, *d.explains)]
    assert sorted(f.message for f in placed) == sorted(f.message for f in findings)
    assert len({d.root.rule for d in found}) == len(found)
    for d in found:
        assert d.root.severity is not Severity.NOTE or all(f.severity is Severity.NOTE for f in d.explains)
        assert [f.onset for f in d.explains] == sorted(f.onset for f in d.explains)
    worst = [max(f.severity.rank for f in (d.root, *d.explains)) for d in found]
    assert worst == sorted(worst, reverse=True)
    shuffled = list(findings)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert triage(shuffled, explains, steps, states) == found


@pytest.mark.parametrize("steps", [None, Span(5, 5)])
def test_a_run_without_length_has_no_slack(steps: Span | None) -> None:
    assert len(triage([finding("rate", 6), finding("nan", 5)], EXPLAINS, steps)) == 2
    assert len(triage([finding("rate", 5), finding("nan", 5)], EXPLAINS, steps)) == 1
