"""What kind of remedy comes first."""

from __future__ import annotations

from collections.abc import Collection

from fitdoctor.finding import Remedy, RemedyKind
from fitdoctor.knobs import KNOBS

ORDER: tuple[RemedyKind, ...] = (
    "free", "bug", "data", "memory", "initialisation", "learning rate", "clipping", "regularisation", "capacity",
    "stopping",
)  # fmt: skip
"""Kinds of remedies in the order of evidence: bug fixes before data, data before normalisation and initialisation,
these before the learning rate, then clipping, regularisation, capacity (Karpathy 2019; Godbole et al. 2023, Deep
Learning Tuning Playbook). What costs nothing goes first, stopping early last: it gives up the rest of the budget."""

SYMPTOMS = frozenset({"loss", "fit", "numerics"})
"""Families whose rules see what went wrong, not why: their remedies follow the evidence alone. The other rules have
measured a cause; what they advise first undoes it, and its kind leads."""


def in_order(remedies: Collection[Remedy], *, family: str = "") -> list[Remedy]:
    """Remedies by the strength of the evidence for their kind; among one kind as the rule gave them."""
    if not remedies:
        return []
    lead = "" if family in SYMPTOMS else kind_of(next(iter(remedies)))
    return sorted(remedies, key=lambda r: (kind_of(r) not in (lead, "free"), ORDER.index(kind_of(r))))


def kind_of(remedy: Remedy) -> RemedyKind:
    """What a remedy changes, by its own word or by the knob it turns."""
    if remedy.kind:
        return remedy.kind
    return "bug" if remedy.change is None or remedy.change.knob not in KNOBS else KNOBS[remedy.change.knob].kind
