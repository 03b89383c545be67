"""The advice of probes: complete, and its code is code."""

from __future__ import annotations

import ast
import inspect

import pytest
from fitdoctor.finding import Remedy
from fitdoctor.remedies import before_run

REMEDIES = dict(inspect.getmembers(before_run, inspect.isfunction))


@pytest.mark.parametrize("name", REMEDIES)
def test_advice_says_what_why_and_how_to_see_that_it_worked(name: str) -> None:
    remedy = REMEDIES[name]()
    assert isinstance(remedy, Remedy)
    assert remedy.title[0].islower()
    assert not remedy.title.endswith(".")
    assert remedy.why
    assert remedy.confirm
    for code in remedy.code.values():
        ast.parse(code)


def test_a_rate_that_was_measured_stands_in_the_advice() -> None:
    remedy = before_run.set_learning_rate(0.0123)
    assert remedy.change is not None
    assert remedy.change.value == 0.012
    assert "0.012" in remedy.code["pytorch"]
    assert before_run.smaller_batches(8).change.value == 8
