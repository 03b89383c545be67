from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.rules.learning_rate.lrn011_finetune_lr_too_high import finetune_lr_too_high
from fitdoctor.run import Run
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize("name", ["fine-tuned at 0.5", "fine-tuned at 0.3, Adam"])
def test_a_pretrained_model_that_is_thrown_away(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    run = watched.watched(name)
    finding = finds(finetune_lr_too_high, run)
    assert finding.severity == "error"
    roots = [d.root.rule for d in diagnose(run).diagnoses if d.root.severity != "note"]
    assert roots[0] == "finetune-lr-too-high"


@pytest.mark.parametrize("name", ["fine-tuning", "frozen backbone", "rate x30", "ordinary"])
def test_a_gentle_start_or_an_untrained_model(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(finetune_lr_too_high, watched.watched(name))


def tuned(rise: float, *, end: float = 1.0, first: float = 0.5, **facts: object) -> Run:
    loss = np.full(200, end)
    loss[:60] = first + rise * np.r_[0.0, np.ones(59)]
    return make_run(train_loss=loss, per="step", facts={"classes": 10, **facts})  # type: ignore[dict-item]


def test_the_rise_counts_in_units_of_guessing() -> None:
    finds(finetune_lr_too_high, tuned(0.5))
    is_silent(finetune_lr_too_high, tuned(0.4, end=0.8))
    finds(finetune_lr_too_high, tuned(0.5, end=0.8))


def test_a_run_that_made_up_for_it_is_left_alone() -> None:
    is_silent(finetune_lr_too_high, tuned(3.0, end=0.3))


def test_a_first_loss_of_guessing_is_judged_only_where_it_is_told_that_the_model_is_pretrained() -> None:
    is_silent(finetune_lr_too_high, tuned(2.0, first=2.3, end=3.0))
    assert finds(finetune_lr_too_high, tuned(2.0, first=2.3, end=3.0, pretrained=True)).confidence == "high"
    is_silent(finetune_lr_too_high, tuned(2.0, pretrained=False))


def test_it_abstains_where_it_cannot_know() -> None:
    check_skips(finetune_lr_too_high, make_run(train_loss=np.linspace(2.0, 1.0, 20)), "set the fact pretrained")
