"""Every case of the ward: grids of learning rates, faults by dose, odd but healthy runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from benchmarks.accuracy.ward.families import FAMILIES, Family
from benchmarks.accuracy.ward.faults import FAULTS, Fault
from benchmarks.accuracy.ward.odd import odd_recipes
from benchmarks.accuracy.ward.recipe import Recipe

PER_FAULT = 2
"""Families that get a fault: so many of those that were looked at, and so many of the unseen."""
TWINS = (0, 1)
"""Seeds over which a grid is averaged."""
AGAIN, NEAR_BASE = (2, 3, 4), (5, 6)
"""More seeds of the five rates in the middle of a grid, and of the three: there must be many healthy runs."""
PAIRS = 6
"""Seeds of a sick recipe and its sound twin where one pair leaves it open how much harm there is: with fewer, a
two-sided sign-flip test cannot reach 0.05."""


@dataclass(frozen=True)
class Case:
    """One run that is scored.

    Attributes:
        name: unique.
        family: what is learned by what.
        kind: "rate", "fault" or "odd".
        what: fault or oddity, "" for a rate.
        dose: 1 to 5, 0 where there is none.
        recipe: what is trained and watched.
        twin: the same without the fault.
        fault: the fault.
    """

    name: str
    family: Family
    kind: str
    what: str
    dose: int
    recipe: Recipe
    twin: Recipe | None = None
    fault: Fault | None = None


@cache
def cases() -> tuple[Case, ...]:
    """All cases, in order."""
    out = []
    for family in FAMILIES:
        for i, lr in enumerate(family.grid()):
            seeds = (0, *(AGAIN if 2 <= i <= 6 else ()), *(NEAR_BASE if 3 <= i <= 5 else ()))
            for seed in seeds:
                recipe = replace(family.base, lr=lr, seed=seed)
                out.append(Case(f"{family.name}/rate/{lr:.3g}-seed{seed}", family, "rate", "", 0, recipe))
    for number, fault in enumerate(FAULTS):
        for family in _carriers(fault, number):
            for dose in fault.used:
                sick, sound = fault.recipes(family, dose, seed=(number + (0 if fault.graded else dose)) % 3)
                name = f"{family.name}/{fault.name}/{dose}"
                out.append(Case(name, family, "fault", fault.name, dose, sick, sound, fault))
    for what, family, recipe in odd_recipes():
        name = f"{family.name}/odd/{what.replace(',', '').replace(' ', '-')}"
        out.append(Case(name, family, "odd", what, 0, recipe))
    return tuple(out)


def _carriers(fault: Fault, number: int) -> list[Family]:
    """The families that get a fault: in turn, so that every family gets its share."""
    chosen = []
    for unseen in (False, True):
        able = [f for f in FAMILIES if f.unseen is unseen and fault.fits(f)]
        start = number % len(able) if able else 0
        chosen += (able[start:] + able[:start])[:PER_FAULT]
    return chosen


def configured(case: Case) -> Recipe:
    """The recipe that a case's interventions start from: they are tried once for all seeds of a rate."""
    return replace(case.recipe, seed=0) if case.kind == "rate" else case.recipe


def pairs(case: Case) -> list[tuple[Recipe, Recipe]]:
    """More seeds of a case with a fault and of its twin, for when one pair does not settle it."""
    if case.twin is None:
        return []
    seeds = range(100, 100 + PAIRS - 1)
    return [(replace(case.recipe, seed=s), replace(case.twin, seed=s)) for s in seeds]


def interventions(case: Case) -> dict[str, Recipe]:
    """What else is tried to learn the true state of a run; each by its name."""
    recipe, out = configured(case), {}
    if case.kind == "odd" or (case.kind == "rate" and recipe in _near_base(case.family)):
        out["epochs x2"] = replace(recipe, epochs=2 * recipe.epochs)
    if case.fault is not None and case.fault.other_rate and case.dose > 1:
        factor = case.fault.other_rate
        out[f"lr x{factor:.3g}"] = replace(recipe, lr=recipe.lr * factor)
    if case.kind == "odd":
        out |= {f"lr x{f:.3g}": replace(recipe, lr=recipe.lr * f) for f in (0.3, 3.0)}
    if case.kind == "rate" and recipe == case.family.base:
        out["width x2"] = replace(recipe, width=2 * recipe.width)
        out["clip 1"] = replace(recipe, clip=1.0)
        out["weight decay"] = replace(recipe, weight_decay=1e-3)
        out["half the batch"] = replace(recipe, batch=recipe.batch // 2)
        if case.family.kind == "classes":
            out["dropout"] = replace(recipe, dropout=0.25)
    return out


def _near_base(family: Family) -> list[Recipe]:
    return [replace(family.base, lr=lr) for lr in family.grid()[2:7]]


def trainings() -> list[tuple[Recipe, bool]]:
    """Every training that the ward needs, and whether the monitor watches it."""
    watched = [(case.recipe, True) for case in cases()]
    twins = [(case.twin, False) for case in cases() if case.twin is not None]
    grids = [(replace(f.base, lr=lr, seed=seed), False) for f in FAMILIES for lr in f.grid() for seed in TWINS]
    others = [(recipe, False) for case in cases() for recipe in interventions(case).values()]
    return [*grids, *watched, *twins, *others]
