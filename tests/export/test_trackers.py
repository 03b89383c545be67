"""W&B, MLflow and Trackio, the real packages: what stands in their stores afterwards."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fitdoctor.errors import ConfigError
from fitdoctor.export import to_mlflow, to_trackio, to_wandb
from fitdoctor.report import from_json
from tests.export.receiver import finding, report

ROOT = Path(__file__).parents[2]

LIVE_WANDB = """
import sys, wandb, fitdoctor
from tests.export.receiver import finding, report
run = wandb.init(project="p", id="abc", dir=sys.argv[1], settings=wandb.Settings(silent=True, console="off"))
alerts = fitdoctor.export.to_wandb(run)
alerts(finding("x"))
alerts(finding("x"))
assert alerts.close(report("a", finding("x"), finding("y"))), alerts.failures
run.finish()
"""

LIVE_TRACKIO = """
import json, os, sys
import trackio, fitdoctor
from tests.export.receiver import finding, report
trackio.init(project="p", name="r")
alerts = fitdoctor.export.to_trackio()
trackio.log({"loss": 1.0})
alerts(finding("x"))
alerts(finding("x"))
assert alerts.close(report("a", finding("x"), finding("y"))), alerts.failures
trackio.finish()
"""

TRACKIO_ALERTS = "import json, trackio; print(json.dumps(trackio.Api().alerts('p')))"


def python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter: the trackers read their environment when they are imported."""
    # Nothing of theirs goes out: W&B is offline, Trackio writes to a folder.
    env = {**os.environ, "WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env={**env, **environment}, capture_output=True,
        text=True, encoding="utf-8", timeout=240, check=False,
    )  # fmt: skip


def wandb_records(folder: Path) -> list[Any]:
    """The messages in all .wandb files below a folder: a LevelDB log, records split over blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted(folder.rglob("*.wandb")):
        data, at, parts = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if (left := 32768 - at % 32768) < 7:
                at += left
                continue
            _, length, kind = struct.unpack_from("<IHB", data, at)
            parts += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # whole, or the last part
                found.append(wandb_internal_pb2.Record.FromString(parts))
                parts = b""
    return found


def trackio_alerts(folder: Path) -> list[tuple[str, str, str, int]]:
    done = python("-c", TRACKIO_ALERTS, TRACKIO_DIR=str(folder))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return sorted((a["run"], a["title"], a["level"], a["step"]) for a in found)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb")
class TestWandb:
    def test_alerts_and_the_verdict_stand_in_the_run(self, tmp_path: Path):
        pytest.importorskip("wandb")
        done = python("-c", LIVE_WANDB, tmp_path)
        assert done.returncode == 0, done.stderr
        records = wandb_records(tmp_path)
        alerts = [r.alert for r in records if r.WhichOneof("record_type") == "alert"]
        assert [(a.title, a.level) for a in alerts] == [("x (error)", "ERROR"), ("y (error)", "ERROR")]
        assert alerts[0].text.splitlines() == [
            "loss rose from 1.2 to 9.4, since step 240",
            "train loss: 9.4 at step 900 (expected below 1.2)",
            "To do: Lower the learning rate",
            "Confidence: high",
        ]
        summary = {u.key or "/".join(u.nested_key): u.value_json for r in records for u in r.summary.update}
        assert summary["fitdoctor/verdict"] == '"sick"'
        assert summary["fitdoctor/root_cause"] == '"x"'

    def test_from_the_command_line(self, tmp_path: Path, logs: Path):
        pytest.importorskip("wandb")
        log = logs / "nan.csv"
        done = python(
            "-m", "fitdoctor", "analyze", log, "--to", "wandb:me/p/abc", "--format", "json", WANDB_DIR=str(tmp_path)
        )
        assert done.returncode == 1, done.stderr
        assert from_json(done.stdout)[0].verdict == "sick"
        records = wandb_records(tmp_path)
        (run,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
        assert (run.run_id, run.project, run.entity) == ("abc", "p", "me")
        titles = [r.alert.title for r in records if r.WhichOneof("record_type") == "alert"]
        assert titles == ["nonfinite-loss (error)"]

    def test_no_run_is_an_error_that_says_so(self):
        pytest.importorskip("wandb")
        with pytest.raises(ConfigError, match=r"expected a run as wandb\.init\(\) returns it, got None"):
            to_wandb()
        with pytest.raises(ConfigError, match="got 'abc'"):
            to_wandb("abc")


class TestTrackio:
    WANTED = (("r", "fitdoctor: sick", "info", 900), ("r", "x (error)", "error", 240), ("r", "y (error)", "error", 240))

    def test_alerts_stand_in_the_run(self, tmp_path: Path):
        pytest.importorskip("trackio")
        done = python("-c", LIVE_TRACKIO, TRACKIO_DIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert trackio_alerts(tmp_path) == list(self.WANTED)

    def test_from_the_command_line(self, tmp_path: Path, logs: Path):
        pytest.importorskip("trackio")
        store = str(tmp_path / "store")
        made = python("-c", "import trackio; trackio.init('p', 'r').log({'a': 1}); trackio.finish()", TRACKIO_DIR=store)
        assert made.returncode == 0, made.stderr
        arguments = ("-m", "fitdoctor", "analyze", logs / "nan.csv", "--format", "json")
        done = python(*arguments, "--to", "trackio:p/r", TRACKIO_DIR=store)
        assert done.returncode == 1, done.stderr
        assert from_json(done.stdout)[0].verdict == "sick", "what Trackio prints stays out of the report"
        assert trackio_alerts(Path(store)) == [
            ("r", "fitdoctor: sick", "info", 590),
            ("r", "nonfinite-loss (error)", "error", 400),
        ]
        done = python(*arguments, "--to", "trackio:p/nobody", TRACKIO_DIR=store)
        assert done.returncode == 2
        assert "Trackio: expected the name of a run of 'p', got 'nobody'" in done.stderr

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_no_run_is_an_error_that_says_so(self):
        pytest.importorskip("trackio")
        with pytest.raises(ConfigError, match=r"expected a run as trackio\.init\(\) returns it"):
            to_trackio()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file store: the only one that mlflow-skinny has."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture
def run_id(store: str) -> str:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    return str(client.create_run(client.create_experiment("e")).info.run_id)


def tags(store: str, run_id: str) -> dict[str, str]:
    from mlflow.tracking import MlflowClient

    found = MlflowClient(store).get_run(run_id).data.tags
    return {key: value for key, value in found.items() if key.startswith("fitdoctor.")}


@pytest.mark.filterwarnings("ignore::FutureWarning:mlflow", "ignore::DeprecationWarning")
class TestMlflow:
    def test_tags_and_the_report_stand_in_the_run(self, store: str, run_id: str, tmp_path: Path):
        sent = to_mlflow(run_id, tracking_uri=store)
        sent(finding("x"))
        told = report("a", finding("x"), finding("y"))
        assert sent.close(told), sent.failures
        text = "error: loss rose from 1.2 to 9.4, since step 240"
        assert tags(store, run_id) == {
            "fitdoctor.x": text,
            "fitdoctor.y": text,
            "fitdoctor.verdict": "sick",
            "fitdoctor.root_cause": "x",
        }
        (json_file,) = tmp_path.rglob("fitdoctor/report.json")
        assert from_json(json_file.read_text("utf-8")) == [told]
        (page,) = tmp_path.rglob("fitdoctor/report.html")
        assert page.read_text("utf-8").startswith("<!doctype html>")

    def test_from_the_command_line(self, store: str, run_id: str, logs: Path, run):
        done = run("analyze", logs / "nan.csv", "--to", f"mlflow:{run_id}")
        assert done.exit_code == 1
        assert tags(store, run_id)["fitdoctor.root_cause"] == "nonfinite-loss"

    def test_the_active_run_is_meant_where_none_is_named(self, store: str, run_id: str):
        import mlflow

        with pytest.raises(ConfigError, match=r"expected a run id or an active run, got neither"):
            to_mlflow()
        mlflow.set_tracking_uri(store)
        with mlflow.start_run(run_id):
            assert to_mlflow().close(report("a"))
        assert tags(store, run_id)["fitdoctor.verdict"] == "healthy"

    def test_no_such_run_is_an_error_without_the_password_of_the_store(self, store: str):
        with pytest.raises(ConfigError, match=r"expected the id of a run in file:///.*, got 'f{32}'"):
            to_mlflow("f" * 32, tracking_uri=store)
        from fitdoctor.export.mlflow_run import _without_password

        assert _without_password("https://me:pw@host/x") == "https://host/x"


@pytest.mark.parametrize(("package", "make"), [("wandb", to_wandb), ("trackio", to_trackio), ("mlflow", to_mlflow)])
def test_a_tracker_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, package: str, make: Any):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"expected the package {package}.*pip install {package}"):
        make()
