"""Findings of a training leave it while it goes on."""

from __future__ import annotations

import fitdoctor
import pytest
import torch
from fitdoctor.report import Report
from tests.export.receiver import Server, until
from torch import nn


def train(alerts: object, *, wait: Server | None = None) -> Report:
    """A small regression whose rate is far too high; from step 40 on it goes on when the server has heard of it."""
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = x @ torch.randn(8, 1)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=30.0)
    criterion = nn.MSELoss()
    monitor = fitdoctor.attach(model, optimizer, criterion, on_finding=alerts, record_every=1, judge_every=10)
    for step in range(80):
        optimizer.zero_grad()
        criterion(model(x[:64]), y[:64]).backward()
        optimizer.step()
        if step == 40 and wait is not None:
            until(lambda: wait.got)
    return monitor.close()


def test_findings_arrive_while_the_training_goes_on(server: Server):
    alerts = fitdoctor.export.to_webhook(server.url, run="too-fast")
    report = train(alerts, wait=server)
    assert alerts.close(report), alerts.failures
    *findings, last = server.said
    assert findings
    assert {f["event"] for f in findings} == {"finding"}
    roots = [f["reports"][0]["diagnoses"][0]["root"] for f in findings]
    explained = [rule for f in findings for rule in f["reports"][0]["diagnoses"][0]["explains"]]
    assert "nonfinite-loss" in roots + explained
    assert not set(roots) & set(explained), "one message for one fault"
    assert {f["reports"][0]["run"] for f in findings} == {"too-fast"}
    assert (last["event"], last["reports"][0]["verdict"]) == ("report", "sick")
    assert last["reports"][0]["run"] == "too-fast"


def test_a_server_that_never_answers_holds_nothing_up(server: Server):
    server.answers = [None]
    alerts = fitdoctor.export.to_webhook(server.url)
    report = train(alerts)  # the server answers when the test is over: had anything waited, the training would
    assert report.verdict == "sick"
    assert not alerts.close(report, timeout=0.1)
    assert alerts.failures == ["not everything was sent within 0.1 s"]


def test_what_raises_in_a_destination_does_not_reach_the_loop(server: Server, caplog: pytest.LogCaptureFixture):
    server.answers = [(410, {}, "")]
    alerts = fitdoctor.export.to_webhook(server.url)
    assert train(alerts).verdict == "sick"
    assert not alerts.close()
    told = [r.getMessage() for r in caplog.records if "webhook" in r.getMessage()]
    assert told == [
        "fitdoctor: webhook 127.0.0.1: expected an answer of status 2xx, got 410 Gone (told once; the training goes on)"
    ]
