"""Which finding explains which: findings -> root causes, the most important first.

A root cause is a finding with no other finding that explains it and began no later than it did.
"Explains" is what the rules declare, taken transitively; of two that explain each other, the one that came first does.
Where another root would account for an effect as well, or a mere note for the root itself, the diagnosis names it
together with the experiment that decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fitdoctor.causes import closure as closure_of
from fitdoctor.causes import experiment
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
    closure = {name: closure_of(name, explains) for name in {f.rule for f in findings}}

    def may_cause(cause: Finding, effect: Finding) -> bool:
        mutual = cause.rule in closure[effect.rule]  # each explains the other: then only what came first does
        return (
            effect.rule in closure[cause.rule]
            and cause.rule != effect.rule
            and (cause.onset < effect.onset if mutual else effect.rule in states or cause.onset <= effect.onset + slack)
        )

    def accounts_for(cause: Finding, effect: Finding) -> bool:
        return may_cause(cause, effect) and (cause.severity is not Severity.NOTE or effect.severity is Severity.NOTE)

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
    diagnoses = []
    for root, group in zip(roots, groups, strict=True):
        rivals = [
            other
            for other in roots
            if other is not root
            and (
                any(_harmful(f) and accounts_for(other, f) for f in group if f.rule != root.rule)
                or (_harmful(root) and not _harmful(other) and may_cause(other, root))
            )
        ]
        could_be = tuple(dict.fromkeys((*root.could_be, *(r.rule for r in rivals))))
        rival = next((name for name in (*(r.rule for r in rivals), *could_be) if name in explains), "")
        settle_with = root.settle_with or (experiment(root.rule, rival) if rival else "")
        explained = tuple(sorted(group, key=lambda f: (f.onset, f.rule, f.span.last, f.message)))
        diagnoses.append(Diagnosis(root, explained, could_be, settle_with))
    return sorted(diagnoses, key=lambda d: -max(f.severity.rank for f in (d.root, *d.explains)))


def _harmful(finding: Finding) -> bool:
    return finding.severity is not Severity.NOTE
