"""The causal graph of all rules: no unknown name, no circle that is not meant, and a drawing that is fresh."""

from __future__ import annotations

from pathlib import Path

import pytest
from fitdoctor import catalogue, causes
from fitdoctor.finding import Confidence, Finding, Severity
from fitdoctor.run import Span
from fitdoctor.triage import triage
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
RULES = catalogue.rules()
EXPLAINS = {r.name: r.explains for r in RULES}
RUN = Span(0, 1000)


def test_every_name_is_a_rule_and_is_named_once() -> None:
    for name, effects in EXPLAINS.items():
        assert set(effects) <= EXPLAINS.keys(), name
        assert len(set(effects)) == len(effects), name
        assert name not in effects


def test_the_graph_has_only_the_circles_that_are_meant() -> None:
    assert sorted(map(sorted, causes.circles(EXPLAINS))) == sorted(map(sorted, causes.CIRCLES))


def test_experiments_are_between_rules() -> None:
    for pair in causes.EXPERIMENTS:
        assert len(pair) == 2
        assert pair <= EXPLAINS.keys()


def test_the_drawing_holds_every_arrow_or_a_longer_way() -> None:
    drawn = causes.direct(EXPLAINS)
    for name in EXPLAINS:
        assert causes.closure(name, drawn) == causes.closure(name, EXPLAINS), name


def test_every_arrow_is_drawn_between_boxes_that_are_there() -> None:
    lines = [line.strip() for line in causes.mermaid(RULES).splitlines()]
    boxes = [line.partition("[")[0] for line in lines if line.endswith('"]') and not line.startswith("subgraph")]
    ends = [tuple(line.split(" --> ")) for line in lines if " --> " in line]
    assert len(boxes) == len(set(boxes))
    assert {name for pair in ends for name in pair} == set(boxes)
    assert len(ends) == len(set(ends)) == sum(map(len, causes.direct(EXPLAINS).values()))
    assert sum(line.startswith("subgraph") for line in lines) == lines.count("end")


def test_the_page_is_fresh() -> None:
    page = (ROOT / "docs" / "causes.md").read_text("utf-8")
    assert page == causes.page(RULES), "make it again: fitdoctor rule --format causes > docs/causes.md"


# --- what the literature says of causes ---------------------------------------------------------------

CHAINS = [
    "poor-init-scale > exploding-gradients > nonfinite-loss",
    "poor-init-scale > lr-too-high > loss-divergence",
    "lr-too-high > dead-relu > vanishing-gradients > no-learning",
    "lr-too-high > dead-relu > class-collapse",
    "lr-too-high > exploding-gradients > gradscaler-stuck > no-parameter-updates > no-learning",
    "missing-zero-grad > lr-too-high > loss-spikes",
    "symmetric-init > no-learning > plateau",
    "double-softmax > underfitting",
    "no-parameter-updates > no-learning > underfitting",
    "optimizer-missing-params > lr-too-low",
    "scheduler-misstepped > lr-decay-too-early > undertrained",
    "memorisation-label-noise > overfitting > overconfidence-drift",
    "logit-drift > overconfidence-drift",
    "retained-graph > out-of-memory",
    "growth-in-eval > out-of-memory",
    "batchnorm-tiny-batch > distribution-shift",
    "finetune-lr-too-high > lr-too-high > loss-divergence",
    "adam-second-moment-lag > loss-spikes",
    "amp-gradient-underflow > no-learning",
    "low-precision-update-loss > no-parameter-updates",
    "nonfinite-loss > class-collapse",
    "weight-decay-too-high > underfitting",
    "gradient-clipping-saturated > undertrained",
    "warmup-missing-or-short > loss-spikes",
]


def found(rule: str, onset: int, severity: Severity = Severity.ERROR) -> Finding:
    return Finding(rule, severity, Confidence.MEDIUM, Span(onset, 1000), rule=rule)


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_of_causes_is_one_diagnosis(chain: str) -> None:
    names = chain.split(" > ")
    findings = [found(name, 100 * i) for i, name in enumerate(names)]
    (diagnosis,) = triage(findings, EXPLAINS, RUN)
    assert diagnosis.root.rule == names[0]
    assert [f.rule for f in diagnosis.explains] == names[1:]


# --- graphs in general --------------------------------------------------------------------------------

names = st.sampled_from("abcdef")
graphs = st.dictionaries(names, st.lists(names, max_size=4, unique=True)).map(
    lambda g: {n: [e for e in g.get(n, []) if e != n] for n in "abcdef"}
)


@given(graphs)
def test_a_drawing_reaches_what_the_graph_reaches(graph: dict[str, list[str]]) -> None:
    drawn = causes.direct(graph)
    for name, effects in graph.items():
        assert set(drawn[name]) <= set(effects)
        assert causes.closure(name, drawn) == causes.closure(name, graph)


@given(graphs)
def test_circles_are_what_reaches_each_other(graph: dict[str, list[str]]) -> None:
    for circle in causes.circles(graph):
        for name in circle:
            assert circle - {name} <= causes.closure(name, graph)
    inside = {n for c in causes.circles(graph) for n in c}
    for name in graph.keys() - inside:
        assert not any(name in causes.closure(e, graph) for e in causes.closure(name, graph))
