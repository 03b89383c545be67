"""What the ward asks of the probes: the program as it is trained, which cases, and what both arms say together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from benchmarks.accuracy.ward import training
from benchmarks.accuracy.ward.arms import Said, _Order, together
from benchmarks.accuracy.ward.plan import cases
from benchmarks.accuracy.ward.recipe import Recipe
from benchmarks.accuracy.ward.scoring import probed
from benchmarks.accuracy.ward.training import Program, prepare

BASE = Recipe("digits", "mlp3", "adam", 1e-3, epochs=2, batch=100, n_train=200)


@pytest.mark.parametrize(
    "recipe", [BASE, replace(BASE, sorted_batches=0.5), replace(BASE, fixed_order=True, seed=3)], ids=str
)
def test_probes_get_the_examples_in_the_order_of_the_training(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    step = training._step

    def noted(program: Program, batches: Iterator[training.Pair], *rest: object) -> tuple[float, float, float]:
        x, y = next(batches)
        seen.append(x)
        return step(program, iter([(x, y)]), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "_step", noted)
    training.train(recipe)
    program = prepare(recipe)
    order = _Order(program)
    assert len(order) == 200
    epochs = [list(order), list(order)]
    assert (epochs[0] == epochs[1]) == recipe.fixed_order
    assert torch.equal(torch.cat(seen), program.train[0][epochs[0] + epochs[1]])


def test_a_batch_is_mixed_only_where_the_recipe_mixes() -> None:
    plain, mixed = prepare(BASE), prepare(replace(BASE, mixup=0.3))
    x, y = plain.train[0][:50], plain.train[1][:50]
    assert torch.equal(training.forward(plain, x, y)[0], plain.model(x))
    assert not torch.equal(training.forward(mixed, x, y)[0], mixed.model(x))


# --- both arms together --------------------------------------------------------------------------------------------

LR = ("set", "learning_rate", 0.1)
ERROR = Said("sick", (("wrong-loss-input", "error", "high"),), (("wrong-loss-input", "error"),), ("x",), LR)
WARNING = Said("sick", (("dead-units", "warning", "high"),), (("dead-units", "warning"),))
RUN = Said("sick", (("lr-too-low", "warning", "low"),), (("lr-too-low", "warning"),), ("plateau",))
SILENT, BLIND = Said("healthy"), Said("cannot judge")


@pytest.mark.parametrize(
    ("before", "during", "roots", "verdict"),
    [
        (ERROR, RUN, ["wrong-loss-input", "lr-too-low"], "sick"),
        (WARNING, RUN, ["lr-too-low", "dead-units"], "sick"),
        (WARNING, SILENT, ["dead-units"], "sick"),
        (SILENT, RUN, ["lr-too-low"], "sick"),
        (SILENT, SILENT, [], "healthy"),
        (SILENT, BLIND, [], "cannot judge"),
        (BLIND, SILENT, [], "healthy"),
    ],
)
def test_errors_of_the_probes_come_first_and_their_warnings_last(
    before: Said, during: Said, roots: list[str], verdict: str
) -> None:
    said = together(before, during)
    assert [root for root, _, _ in said.roots] == roots
    assert said.verdict == verdict
    assert set(said.found) == {*before.found, *during.found}


def test_other_causes_and_the_change_are_those_of_the_first_root() -> None:
    assert (together(ERROR, RUN).could_be, together(ERROR, RUN).change) == (("x",), LR)
    assert (together(WARNING, RUN).could_be, together(WARNING, RUN).change) == (("plateau",), None)


# --- cases ---------------------------------------------------------------------------------------------------------


def test_every_fault_and_everything_odd_is_probed_in_every_family_that_has_it() -> None:
    chosen = probed(cases())
    names = {case.name for case in chosen}
    assert names >= {case.name for case in cases() if case.kind == "odd"}
    carried = {(c.family.name, c.what) for c in cases() if c.fault is not None}
    assert {(c.family.name, c.what) for c in chosen if c.fault is not None} == carried
    assert all(case.dose in (2, 3, 5) for case in chosen if case.fault is not None)
    rates = [case for case in chosen if case.kind == "rate"]
    assert len(rates) == 9 * len({case.family.name for case in cases()})
    assert {case.recipe.seed for case in rates} == {0}
