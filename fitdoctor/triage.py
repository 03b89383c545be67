"""Which finding explains which: findings -> root causes, the most important first.

A root cause is a finding with no other finding that explains it and began no later than it did.
"Explains" is what the rules declare, taken transitively; of two that explain each other, the one that came first does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fitdoctor.finding import Finding, Severity
from fitdoctor.report import Diagnosis
from fitdoctor.run import Span

ONSET_SLACK = 0.05
"""How much later than its effect a cause may seem to begin, as a share of the run: onsets are read
off block medians of at most 60 blocks, so each is known to about two blocks."""


def triage(
    findings: Sequence[Finding],
    explains: Mapping[str, Sequence[str]],
    steps: Span | None,
    states: Collection[str] = (),
) -> list[Diagnosis]:
    """Group findings under their root causes.

    Args:
        findings: all findings of one run, with `Finding.rule` filled in.
        explains: rule name -> names of rules whose findings it accounts for.
        steps: first and last step of the run.
        states: names of rules that describe the whole run; their findings have no onset to be compared.

    Returns:
        One diagnosis per root cause, by the worst severity among the root and what it explains, then the
        root's own severity, its confidence, how much it explains, and its onset.
    """
    slack = 0 if steps is None else round(ONSET_SLACK * (steps.last - steps.first))
    closure = {name: _closure(name, explains) for name in {f.rule for f in findings}}

    def accounts_for(cause: Finding, effect: Finding) -> bool:
        mutual = cause.rule in closure[effect.rule]  # each explains the other: then only what came first does
        return (
            effect.rule in closure[cause.rule]
            and cause.rule != effect.rule
            and (cause.onset < effect.onset if mutual else effect.rule in states or cause.onset <= effect.onset + slack)
            and (cause.severity is not Severity.NOTE or effect.severity is Severity.NOTE)
        )

    def order(f: Finding) -> tuple[int, int, int, int, str, int, str]:
        effects = sum(accounts_for(f, other) for other in findings)
        return (-f.severity.rank, -f.confidence.rank, -effects, f.onset, f.rule, f.span.last, f.message)

    ranked = sorted(findings, key=order)
    roots: list[Finding] = []
    place: dict[int, int] = {}  # id of a finding -> its root
    for f in ranked:
        if not any(accounts_for(other, f) for other in ranked):
            if all(f.rule != root.rule for root in roots):
                roots.append(f)
            place[id(f)] = next(i for i, root in enumerate(roots) if root.rule == f.rule)

    def owner(f: Finding) -> int:
        """The root that accounts for a finding, or else for what explains it; "explains" has no cycles."""
        if id(f) not in place:
            direct = (i for i, root in enumerate(roots) if accounts_for(root, f))
            found = next(direct, None)
            cause = next(other for other in ranked if accounts_for(other, f))
            place[id(f)] = owner(cause) if found is None else found
        return place[id(f)]

    groups: list[list[Finding]] = [[] for _ in roots]
    for f in ranked:
        if all(f is not root for root in roots):
            groups[owner(f)].append(f)
    diagnoses = [
        Diagnosis(
            root=root,
            explains=tuple(sorted(group, key=lambda f: (f.onset, f.rule, f.span.last, f.message))),
            could_be=root.could_be,
            settle_with=root.settle_with,
        )
        for root, group in zip(roots, groups, strict=True)
    ]
    return sorted(diagnoses, key=lambda d: -max(f.severity.rank for f in (d.root, *d.explains)))


def _closure(name: str, explains: Mapping[str, Sequence[str]]) -> frozenset[str]:
    seen: set[str] = set()
    todo = list(explains.get(name, ()))
    while todo:
        effect = todo.pop()
        if effect not in seen:
            seen.add(effect)
            todo.extend(explains.get(effect, ()))
    return frozenset(seen - {name})
