"""The watched trainings are what they are called: a cure lowers the loss by 5 %, or the error by a tenth."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from tests.rules.watched import SICK, cured, ending, watched


@pytest.mark.parametrize("name", [name for name, case in SICK.items() if case.cure])
def test_the_cure_of_a_sick_training_helps(name: str) -> None:
    case = SICK[name]
    before, after = (ending(run(name), case.better, accuracy=case.by_accuracy) for run in (watched, cured))
    if case.by_accuracy:
        assert after > before + 0.1 * (1 - before)
    else:
        assert before > 1.05 * after
