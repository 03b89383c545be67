"""The causal graph that the rules declare, and the experiments that decide between two causes.

An arrow leads from a rule to what its finding accounts for. Where two rules can each bring the other about, both
arrows are declared, and triage lets the one that began first explain the other; such circles are listed in `CIRCLES`,
so that none comes in unnoticed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from fitdoctor.rule import Rule

Edges = Mapping[str, Sequence[str]]

CIRCLES: tuple[frozenset[str], ...] = (
    # A loss that diverges overflows; a loss that is not finite has diverged.
    frozenset({"loss-divergence", "nonfinite-loss"}),
    # Gradients below epsilon stop the early layers; epsilon that swamps the gradients does so, too.
    frozenset({"vanishing-gradients", "adam-epsilon-dominated"}),
)
"""Sets of rules that account for each other."""

EXPERIMENTS: dict[frozenset[str], str] = {
    frozenset({"lr-too-high", "poor-init-scale"}): (
        "the gradient norm of the first batch at the initial weights: normal there means the learning rate "
        "(1 backward pass)"
    ),
    frozenset({"lr-too-high", "exploding-gradients"}): (
        "the gradient norm of the same batch at the initial weights: normal there means the learning rate "
        "(1 backward pass)"
    ),
    frozenset(
        {"lr-too-high", "missing-zero-grad"}
    ): "a tenth of the steps with the gradients cleared, at the same rate",
    frozenset({"lr-too-high", "batchnorm-tiny-batch"}): "a tenth of the steps with group norm, at the same rate",
    frozenset({"lr-too-low", "undertrained"}): (
        "a tenth of the steps at 3 times the rate: faster and as smooth means the rate, else time"
    ),
    frozenset({"lr-too-low", "vanishing-gradients"}): (
        "the update ratio of each layer over 20 steps: small everywhere means the rate, small in the early layers only "
        "means the gradients"
    ),
    frozenset({"lr-noise-floor", "underfitting"}): (
        "anneal the rate to 0 over 5-10 % of the budget: a drop means the rate, none means the model"
    ),
    frozenset(
        {"lr-noise-floor", "batch-too-small"}
    ): "anneal the rate to 0 over 5-10 % of the budget: a drop needs no batch",
    frozenset({"overfitting", "distribution-shift"}): (
        "pool both sets, split again and train a tenth of the steps: a gap that is gone means the split"
    ),
    frozenset({"overfitting", "memorisation-label-noise"}): (
        "look at 100 of the training examples that were fitted last: many wrong labels mean the labels"
    ),
    frozenset({"weight-decay-too-high", "lr-too-low"}): "a tenth of the steps without weight decay, at the same rate",
    frozenset({"gradient-clipping-saturated", "lr-too-low"}): "a tenth of the steps without clipping, at the same rate",
}
"""What decides between two causes that both fit, with its cost (`fitdoctor.preflight` runs some before a training)."""


def experiment(first: str, second: str) -> str:
    """What decides whether the first or the second finding is the cause.

    Example:
        >>> experiment("lr-too-high", "dead-relu")
        'undo lr-too-high alone for a tenth of the steps: if dead-relu stays, it has its own cause'
    """
    known = EXPERIMENTS.get(frozenset({first, second}))
    return known or f"undo {first} alone for a tenth of the steps: if {second} stays, it has its own cause"


def closure(name: str, explains: Edges) -> frozenset[str]:
    """All that a rule accounts for, at any remove, without itself."""
    seen: set[str] = set()
    todo = list(explains.get(name, ()))
    while todo:
        effect = todo.pop()
        if effect not in seen:
            seen.add(effect)
            todo.extend(explains.get(effect, ()))
    return frozenset(seen - {name})


def circles(explains: Edges) -> list[frozenset[str]]:
    """Sets of rules each of which accounts for all others of the set, at any remove."""
    reach = {name: closure(name, explains) for name in explains}
    found = {
        frozenset({name, *(other for other in reach[name] if name in reach.get(other, frozenset()))}) for name in reach
    }
    return sorted((c for c in found if len(c) > 1), key=sorted)


def direct(explains: Edges) -> dict[str, list[str]]:
    """The arrows without those that a longer way replaces, as a drawing needs them; arrows of circles stay.

    Example:
        >>> direct({"a": ["b", "c"], "b": ["c"], "c": []})
        {'a': ['b'], 'b': ['c'], 'c': []}
    """
    reach = {name: closure(name, explains) for name in explains}

    def replaced(cause: str, effect: str) -> bool:
        return any(
            effect in reach.get(middle, frozenset())
            for middle in explains[cause]
            if middle not in (cause, effect)
            and cause not in reach.get(middle, frozenset())
            and middle not in reach.get(effect, frozenset())
        )

    return {cause: [e for e in dict.fromkeys(effects) if not replaced(cause, e)] for cause, effects in explains.items()}


def mermaid(rules: Iterable[Rule]) -> str:
    """The graph as a Mermaid flow chart, a box per family."""
    listed = list(rules)
    code = {r.name: r.code for r in listed}  # names such as retained-graph hold words of Mermaid's own
    arrows = direct({r.name: r.explains for r in listed})
    drawn = {name for cause, effects in arrows.items() if effects for name in (cause, *effects)}
    families: dict[str, list[str]] = defaultdict(list)
    for rule in listed:
        if rule.name in drawn:
            families[rule.family].append(rule.name)
    lines = ["flowchart LR"]
    for family, names in families.items():
        lines.append(f'  subgraph {family}_rules["{family.replace("_", " ")}"]')
        lines += [*(f'    {code[name]}["{name}"]' for name in names), "  end"]
    lines += [f"  {code[cause]} --> {code[effect]}" for cause, effects in arrows.items() for effect in effects]
    return "\n".join(lines) + "\n"


def page(rules: Iterable[Rule]) -> str:
    """docs/causes.md: the drawing, the circles, the experiments, and what each rule accounts for."""
    listed = list(rules)
    return "\n".join(_page(listed)) + "\n"


def _page(rules: Sequence[Rule]) -> Iterator[str]:
    explains = {r.name: r.explains for r in rules}
    yield "# What causes what"
    yield ""
    yield "Made from the rules by `fitdoctor rule --format causes > docs/causes.md`."
    yield ""
    yield "An arrow leads from a finding to what it accounts for; arrows that a longer way replaces are not drawn."
    yield "The root of a diagnosis is a finding that no other one accounts for, at any remove, that began no later."
    yield ""
    yield "```mermaid"
    yield mermaid(rules).rstrip()
    yield "```"
    yield ""
    yield "## Circles"
    yield ""
    yield "Of findings that account for each other, the one that began first is taken for the cause."
    yield ""
    yield from (f"- {', '.join(sorted(circle))}" for circle in circles(explains))
    yield ""
    yield "## Experiments that decide"
    yield ""
    yield "Where two causes fit one effect, the diagnosis names the other one, and what decides between them."
    yield ""
    yield "| causes | experiment |"
    yield "|---|---|"
    yield from (f"| {', '.join(sorted(pair))} | {text} |" for pair, text in EXPERIMENTS.items())
    yield "| any other two | undo the first alone for a tenth of the steps |"
    yield ""
    yield "## All that a rule accounts for"
    yield ""
    yield "| rule | accounts for |"
    yield "|---|---|"
    yield from (f"| {r.name} | {', '.join(r.explains)} |" for r in rules if r.explains)
