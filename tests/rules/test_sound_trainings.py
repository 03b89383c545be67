"""No rule alarms on a training that is sound, however odd its curves look."""

from __future__ import annotations

import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from fitdoctor.signals import ACCURACY, LR
from tests.rules.judging import without
from tests.test_trainings import SOUND
from tests.trainings import run_of

KNOWN_FALSE_ALARMS = {
    "noisy targets, wide": "the loss on these 400 examples rises by 7 % of its range after epoch 7, the true one falls"
}


@pytest.mark.parametrize("name", [n for n in SOUND if n not in KNOWN_FALSE_ALARMS])
@pytest.mark.parametrize("left_out", [(), (LR,), (ACCURACY,), ("val",)], ids=["all", "no lr", "no accuracy", "no val"])
def test_a_sound_training_gives_no_alarm(name: str, left_out: tuple[object, ...]) -> None:
    report = diagnose(without(run_of(name), *left_out))  # type: ignore[arg-type]
    alarms = [f"{f.rule}: {f.message}" for f in report.findings if f.severity is not Severity.NOTE]
    assert alarms == []
    assert report.verdict in ("healthy", "cannot judge")
    assert [o.why for o in report.outcomes if o.status == "crashed"] == []


@pytest.mark.parametrize("name", KNOWN_FALSE_ALARMS)
def test_a_known_false_alarm_is_no_error(name: str) -> None:
    """What no log of one validation set can tell; the test is here so that it stays known, and a warning."""
    assert diagnose(run_of(name)).worst is Severity.WARNING


@pytest.mark.parametrize("name", ["sound", "sound per step", "sound adam", "sound warm-up", "dropout", "staged decay"])
def test_an_ordinary_sound_training_is_called_healthy(name: str) -> None:
    assert diagnose(run_of(name)).verdict == "healthy"
