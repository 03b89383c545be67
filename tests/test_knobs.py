"""The vocabulary of changes: closed, documented, and kept by every remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from fitdoctor.cli import main
from fitdoctor.finding import Change, RemedyKind
from fitdoctor.knobs import KNOBS, SWITCH, fault, page
from fitdoctor.prescribe import ORDER
from tests.test_remedies import REMEDIES, made

DOCS = Path(__file__).parents[1] / "docs"

WITHOUT = {
    "activations.check_inputs_reach_the_output", "before_run.batch_first", "before_run.consistent_evaluation",
    "before_run.make_it_run", "before_run.restore_inputs", "bugs.check_updates",
    "bugs.overfit_one_batch", "fit.find_mislabelled", "learning_rate.search_learning_rate", "logs.map_tags",
    "logs.write_one_log_per_run", "memory.keep_less_on_host", "memory.share_worker_data", "optimizer.balance_layers",
    "stability.find_first_nonfinite",
}  # fmt: skip
"""Remedies that a person has to carry out: they look for something, or change how code is written."""


@pytest.mark.parametrize("name", REMEDIES)
def test_a_change_is_one_that_is_defined(name: str) -> None:
    for remedy in made(name):
        assert remedy.change is None or fault(remedy.change) == ""


@pytest.mark.parametrize("name", REMEDIES)
def test_a_remedy_that_a_program_can_apply_has_its_change(name: str) -> None:
    assert any(remedy.change is not None for remedy in made(name)) == (name not in WITHOUT)


def test_no_remedy_is_excused_that_is_not_there() -> None:
    assert set(REMEDIES) >= WITHOUT


def test_every_knob_says_what_it_means() -> None:
    for name, knob in KNOBS.items():
        assert name.isidentifier()
        assert knob.meaning
        assert not knob.meaning.endswith(".")
        assert knob.kind in ORDER
        assert knob.ops
        assert (knob.ops == SWITCH) == (knob.values == ()), "a switch, and only a switch, has no value"


@pytest.mark.parametrize(
    "change",
    [
        Change("learning_rat", "multiply", 0.1),
        Change("zero_grad", "set", "yes"),
        Change("zero_grad", "enable", 1),
        Change("learning_rate", "enable"),
        Change("learning_rate", "multiply", "0.1"),
        Change("learning_rate", "set", True),
        Change("n_val", "set", 12.5),
        Change("loss_input", "set", "probabilities"),
        Change("checkpoint", "set", "last"),
        Change("checkpoint", "set", None),
        Change("epochs", "add", 3),
    ],
)
def test_what_is_not_defined_is_refused(change: Change) -> None:
    assert change.knob in fault(change) or "expected" in fault(change)


def test_the_page_is_made_from_the_vocabulary() -> None:
    assert (DOCS / "changes.md").read_text("utf-8") == page()
    assert CliRunner().invoke(main, ["rule", "--format", "changes"]).output == page()
    assert all(f"| `{name}` |" in page() for name in KNOBS)


def test_the_examples_of_the_page_are_changes() -> None:
    lines = [json.loads(line) for line in page().splitlines() if line.startswith("    {")]
    assert len(lines) == 3
    assert [fault(Change(**line)) for line in lines] == [""] * 3


def test_the_schema_points_to_the_vocabulary() -> None:
    schema = json.loads((DOCS / "report.schema.json").read_text("utf-8"))
    change = schema["$defs"]["remedy"]["properties"]["change"]["anyOf"][1]
    assert "changes.md" in change["properties"]["knob"]["description"]


def test_every_kind_of_remedy_can_be_asked_of_a_program() -> None:
    assert {k.kind for k in KNOBS.values()} == set(RemedyKind.__args__) - {""}  # type: ignore[attr-defined]
