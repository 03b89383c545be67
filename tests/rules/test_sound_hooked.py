"""No rule alarms on a sound training that the hooks watched, however odd it looks."""

from __future__ import annotations

import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from tests.rules.watched import SOUND, ending, watched


@pytest.mark.parametrize("name", SOUND)
def test_it_is_sound(name: str) -> None:
    """It has learned what there is to learn, on data seen in evaluation mode."""
    assert ending(watched(name), "val", accuracy=True) > 0.9
    assert ending(watched(name), "train", accuracy=True) > 0.95


@pytest.mark.parametrize("name", SOUND)
def test_no_alarm(name: str) -> None:
    report = diagnose(watched(name))
    assert [f"{f.rule}: {f.message}" for f in report.findings if f.severity is not Severity.NOTE] == []
    assert [o.why for o in report.outcomes if o.status == "crashed"] == []
    assert report.verdict == "healthy"
