from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.rules.fit.fit007_memorisation_label_noise import memorisation_label_noise
from fitdoctor.run import Run
from fitdoctor.signals import PROBE_ACCURACY
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent, without


@pytest.mark.parametrize("name", ["wrong labels", "wrong labels, dropout"])
def test_wrong_labels_that_are_memorised(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    run = watched.watched(name)
    finding = finds(memorisation_label_noise, run)
    assert finding.severity == "warning"
    roots = [d.root.rule for d in diagnose(run).diagnoses if d.root.severity != "note"]
    assert roots == ["memorisation-label-noise"]


@pytest.mark.parametrize("name", ["dropout", "tiny validation set", "never annealed", "transposed validation"])
def test_no_memorisation_or_another_disease(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(memorisation_label_noise, watched.watched(name))


def phases(lead: float, fall: float, *, climbs: bool = True) -> Run:
    """Held-out accuracy 0.8 at its best, that of the training batch `lead` below; then one climbs and one falls."""
    t = np.linspace(0, 1, 60)
    rise = np.minimum(t / 0.3, 1)
    later = np.clip((t - 0.35) / 0.5, 0, 1)
    end = 0.95 if climbs else 0.8 - lead
    return make_run(
        train_loss=2 * np.exp(-3 * t),
        probe_accuracy=(0.8 - lead) * rise + (end - 0.8 + lead) * later,
        val_accuracy=0.8 * rise - fall * later,
        facts={"n_val": 10_000, "n_probe_train": 10_000, "classes": 10},
    )


def test_lead_and_fall_are_both_needed() -> None:
    finds(memorisation_label_noise, phases(0.15, 0.1))
    is_silent(memorisation_label_noise, phases(0.03, 0.1))
    is_silent(memorisation_label_noise, phases(0.15, 0.03))
    is_silent(memorisation_label_noise, phases(0.15, 0.1, climbs=False))


def test_it_abstains_without_the_fixed_batch() -> None:
    check_skips(memorisation_label_noise, without(phases(0.15, 0.1), PROBE_ACCURACY), "no train probe_accuracy")
    check_skips(memorisation_label_noise, make_run(train_loss=[2.0, 1.0], probe_accuracy=[0.1, 0.5]), "probe_train")
