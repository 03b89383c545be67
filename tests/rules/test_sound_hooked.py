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


def test_no_alarm_on_two_models_that_work_against_each_other() -> None:
    """A GAN on points of a ring: its losses rise and fall for good reasons, and nothing is said about them."""
    torch = pytest.importorskip("torch")
    import fitdoctor
    from tests.hooked import mlp

    torch.manual_seed(0)
    generator, critic = mlp(2, 32, 2), mlp(2, 32, 1)
    steps = {
        "critic": torch.optim.Adam(critic.parameters(), 1e-3),
        "generator": torch.optim.Adam(generator.parameters(), 1e-3),
    }
    loss = torch.nn.BCEWithLogitsLoss()
    one, none = torch.ones(64, 1), torch.zeros(64, 1)
    monitor = fitdoctor.attach({"critic": critic, "generator": generator}, steps, loss, record_every=5)
    with monitor:
        for _ in range(200):
            angle = 6.283 * torch.rand(64)
            real = torch.stack([angle.cos(), angle.sin()], 1)
            steps["critic"].zero_grad()
            made = generator(torch.randn(64, 2))
            (loss(critic(real), one) + loss(critic(made.detach()), none)).backward()
            steps["critic"].step()
            steps["generator"].zero_grad()
            loss(critic(made), one).backward()
            steps["generator"].step()
    report = diagnose(monitor.run)
    assert [f"{f.rule}: {f.message}" for f in report.findings if f.severity is not Severity.NOTE] == []
    assert report.verdict == "cannot judge"
