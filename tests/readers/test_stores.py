"""Stores of several files or runs: MLflow (sqlite and folders), Trackio, ClearML, DVCLive."""

from __future__ import annotations

import math
import os
import random
import shutil
import sqlite3
import zipfile
from pathlib import Path
from types import ModuleType

import fitdoctor
import numpy as np
import pytest
from fitdoctor.errors import NoLogsFound, ReadError
from fitdoctor.readers import clearml_offline, dvclive, mlflow_store, trackio_store
from hypothesis import given
from hypothesis import strategies as st

from .conftest import FIXTURES, Reading, check, series

MLFLOW_DB = FIXTURES / "mlflow_sqlite/mlflow.db"
TRACKIO_DB = FIXTURES / "trackio/demo.db"


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- MLflow ---------------------------------------------------------------------------------------------


def test_mlflow_sqlite(reading: Reading) -> None:
    run = reading.run(mlflow_store, MLFLOW_DB)
    assert (run.name, run.source, run.finished, run.params) == ("demo/r1", "mlflow", True, {"lr": "0.01", "bs": "32"})
    loss = series(run, "train_loss")
    assert loss.steps is not None
    assert loss.wall_time is not None
    assert loss.steps[:22].tolist() == [*range(1, 21), 0, 21]  # once per step and once per epoch, as logged
    assert loss.values[:2].tolist() == [1.1792452335357666, 1.070966362953186]
    assert loss.wall_time[0] == 1795386285.742
    assert len(loss.values) == 105


def test_mlflow_folders(reading: Reading, fixtures: Path) -> None:
    (meta,) = [p for p in (fixtures / "mlflow_file").rglob("meta.yaml") if reading.recognised(mlflow_store, p)]
    run = reading.run(mlflow_store, meta)
    assert (run.name, run.finished, run.params) == ("r1", True, {"lr": "0.01", "bs": "32"})
    assert series(run, "val_acc").values.tolist()[:2] == [0.7749999761581421, 0.8999999761581421]


def test_both_stores_tell_the_same(reading: Reading, fixtures: Path) -> None:
    meta = next(p for p in (fixtures / "mlflow_file").rglob("meta.yaml") if (p.parent / "metrics").is_dir())
    one = {s.tag: s.values.tolist() for s in reading.run(mlflow_store, MLFLOW_DB).series}
    other = {s.tag: s.values.tolist() for s in reading.run(mlflow_store, meta).series}
    assert one == other


def test_nothing_is_written(tmp_path: Path, reading: Reading) -> None:
    for source, module in ((MLFLOW_DB, mlflow_store), (TRACKIO_DB, trackio_store)):
        folder = tmp_path / module.SOURCE
        folder.mkdir()
        shutil.copyfile(source, folder / source.name)
        before = content(folder)
        assert reading.run(module, folder / source.name).series
        assert content(folder) == before


def test_read_only_folder(tmp_path: Path, reading: Reading) -> None:
    shutil.copyfile(TRACKIO_DB, tmp_path / "demo.db")
    os.chmod(tmp_path / "demo.db", 0o444)
    os.chmod(tmp_path, 0o555)
    try:
        assert reading.run(trackio_store, tmp_path / "demo.db").series
    finally:
        os.chmod(tmp_path, 0o755)


def test_a_write_ahead_log_is_read_too(tmp_path: Path, reading: Reading) -> None:
    path = tmp_path / "demo.db"
    shutil.copyfile(TRACKIO_DB, path)
    writer = sqlite3.connect(path)
    try:
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute(
            "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics)"
            " SELECT run_id, timestamp, run_name, 500, '{\"train/loss\": 0.125}' FROM metrics LIMIT 1"
        )
        writer.commit()
        before = content(tmp_path)
        assert before["demo.db-wal"]
        loss = series(reading.run(trackio_store, path), "train/loss")
        assert loss.steps is not None
        assert (loss.steps[-1], loss.values[-1]) == (500, 0.125)
        assert content(tmp_path) == before
    finally:
        writer.close()


def test_mlflow_non_finite_values_and_other_runs(tmp_path: Path, reading: Reading) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copyfile(MLFLOW_DB, path)
    with sqlite3.connect(path) as db:
        db.execute(
            "INSERT INTO runs (run_uuid, name, status, start_time, lifecycle_stage, experiment_id)"
            " VALUES ('b', 'second', 'RUNNING', 1895386273830, 'active', 1),"
            " ('c', 'gone', 'FINISHED', 1, 'deleted', 1),"
            " ('d', 'empty', 'FINISHED', 1, 'active', 1)"
        )
        rows = [("loss", 0.0, 1000, "b", 0, 1), ("loss", 1.7976931348623157e308, 2000, "b", 1, 0)]
        rows += [
            ("loss", -1.7976931348623157e308, 3000, "b", 2, 0),
            ("loss", 0.25, 4000, "b", 3, 0),
            ("x", 1.0, 1, "c", 0, 0),
        ]
        db.executemany(
            "INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", [(k, v, t, r, s, n) for k, v, t, r, s, n in rows]
        )
    db.close()
    first, second = reading.runs(mlflow_store, path)
    assert (first.name, second.name, second.finished) == ("demo/r1", "demo/second", False)
    assert repr(series(second, "loss").values.tolist()) == "[nan, inf, -inf, 0.25]"


def test_mlflow_folder_with_odd_lines(tmp_path: Path, reading: Reading) -> None:
    folder = tmp_path / "mlruns/0/abc"
    (folder / "metrics/val").mkdir(parents=True)
    (folder / "meta.yaml").write_text("run_id: abc\nstatus: 4\nlifecycle_stage: active\nrun_name: tidy\n")
    (folder / "metrics/val/loss").write_text("1000 nan 0\nrubbish\n2000 inf 1\n3000 0.5 2\n4000 0.")
    (folder / "metrics/old").write_text("1000 0.5\n2000 0.25\n")
    run = reading.run(mlflow_store, folder / "meta.yaml")
    assert (run.name, run.finished) == ("tidy", False)
    assert repr(series(run, "val/loss").values.tolist()[:3]) == "[nan, inf, 0.5]"
    steps = series(run, "old").steps
    assert steps is not None
    assert steps.tolist() == [0, 1]
    assert [(n.kind, n.amount) for n in run.notes] == [("corrupt", 1)]


@pytest.mark.parametrize(("original", "module"), [(MLFLOW_DB, mlflow_store), (TRACKIO_DB, trackio_store)])
def test_damaged_databases(tmp_path: Path, original: Path, module: ModuleType) -> None:
    data = original.read_bytes()
    path = tmp_path / original.name
    generator = random.Random(11)
    told = 0
    for i in range(60):
        damaged = bytearray(data[: generator.randrange(len(data))] if i % 2 else data)
        for _ in range(i):
            if damaged:
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        module.recognise(path, bytes(damaged[:4096]))
        try:
            for run in module.read(path, [path]):
                check(run)
        except ReadError:
            told += 1
    assert told > 10


@given(st.binary(max_size=150))
def test_arbitrary_metric_files(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "arbitrary"
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    (folder / "meta.yaml").write_bytes(b"run_id: a\n" + data)
    (folder / "metrics/loss").write_bytes(b"1 0.5 0\n" + data)
    for run in mlflow_store.read(folder, [folder / "meta.yaml"]):
        check(run)


# --- Trackio ----------------------------------------------------------------------------------------------


def test_trackio(reading: Reading) -> None:
    run = reading.run(trackio_store, TRACKIO_DB)
    assert (run.name, run.params) == ("run1", {"lr": 0.01})
    loss, val = series(run, "train/loss"), series(run, "val/loss")
    assert loss.steps is not None
    assert loss.epochs is not None
    assert val.steps is not None
    assert loss.steps.tolist()[:3] == [1, 2, 3]
    assert loss.epochs[0] == 0
    assert val.steps.tolist() == [21, 41, 61, 81, 101]
    assert loss.values[0] == 1.1792452335357666


def test_each_database_has_one_reader(reading: Reading) -> None:
    assert not reading.recognised(mlflow_store, TRACKIO_DB)
    assert not reading.recognised(trackio_store, MLFLOW_DB)


def test_trackio_writes_nan_as_a_string(tmp_path: Path, reading: Reading) -> None:
    path = tmp_path / "p.db"
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
        )
        values = ['{"loss": "NaN"}', '{"loss": "Infinity", "t": {"acc": 0.5}}', "broken"]
        db.executemany("INSERT INTO metrics VALUES (?, 'x', 'r', ?, ?)", [(i, i, v) for i, v in enumerate(values)])
    db.close()
    run = reading.run(trackio_store, path)
    assert repr(series(run, "loss").values.tolist()) == "[nan, inf]"
    assert series(run, "t/acc").values.tolist() == [0.5]
    assert [(n.kind, n.amount) for n in run.notes] == [("corrupt", 1)]


# --- ClearML ----------------------------------------------------------------------------------------------


def clearml_file() -> Path:
    (path,) = (FIXTURES / "clearml").rglob("metrics.jsonl")
    return path


def test_clearml(reading: Reading) -> None:
    run = reading.run(clearml_offline, clearml_file())
    assert run.name == clearml_file().parent.name
    loss = series(run, "loss/train")
    assert loss.steps is not None
    assert loss.wall_time is not None
    assert (loss.steps[0], loss.values[0], loss.wall_time[0]) == (1, 1.1792452335357666, 1795387010.226)
    assert {s.tag: len(s.values) for s in run.series} == {
        "loss/train": 100,
        "acc/train": 100,
        "lr/train": 100,
        "grad_norm/train": 100,
        "epoch/train": 100,
        "loss/val": 5,
    }


def test_clearml_session_packed(tmp_path: Path, reading: Reading) -> None:
    path = tmp_path / "offline-1.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(clearml_file(), "metrics.jsonl")
    packed, plain = reading.run(clearml_offline, path), reading.run(clearml_offline, clearml_file())
    assert packed.name == "offline-1"
    assert [(s.tag, s.values.tolist()) for s in packed.series] == [(s.tag, s.values.tolist()) for s in plain.series]


TASK = (
    '{"name": "r1", "type": "training", "hyperparams": {"General": {"lr": {"section": "General", "name": "lr",'
    ' "value": "0.01", "type": "float", "description": ""}}, "Optim": {"name": {"value": "adam"}, "odd": 3}}}'
)


def test_a_clearml_folder_and_its_archive_are_one_session_with_settings(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "offline-1"
    folder.mkdir(parents=True)
    shutil.copyfile(clearml_file(), folder / "metrics.jsonl")
    (folder / "task.json").write_text(TASK)
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        archive.write(folder / "metrics.jsonl", "metrics.jsonl")
        archive.write(folder / "task.json", "task.json")
    (run,) = fitdoctor.open_runs(tmp_path)
    assert run.params == {"lr": "0.01", "Optim/name": "adam"}
    assert (run.facts["learning_rate"], run.facts["optimizer"]) == (0.01, "adam")
    shutil.rmtree(folder)
    (packed,) = fitdoctor.open_runs(tmp_path)
    assert packed.params == run.params
    assert len(packed.series) == len(run.series)


@pytest.mark.parametrize("task", ["", "{", "[]", '{"hyperparams": 3}', '{"hyperparams": {"a": [1]}}'])
def test_a_broken_clearml_task_costs_no_curves(tmp_path: Path, task: str) -> None:
    shutil.copyfile(clearml_file(), tmp_path / "metrics.jsonl")
    (tmp_path / "task.json").write_text(task)
    (run,) = fitdoctor.open_runs(tmp_path)
    assert len(run.series) >= 4
    assert not run.params


def test_other_archives_are_not_claimed(tmp_path: Path, reading: Reading) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "loss")
    assert not reading.recognised(clearml_offline, path)


def test_clearml_cut(tmp_path: Path) -> None:
    data = clearml_file().read_bytes()
    path = tmp_path / "metrics.jsonl"
    before = 0
    for end in range(600, len(data), 2503):
        path.write_bytes(data[:end])
        (run,) = clearml_offline.read(path, [path])
        check(run)
        count = sum(len(s.values) for s in run.series)
        assert count >= before
        before = count
    assert before > 400


# --- DVCLive ----------------------------------------------------------------------------------------------


def test_dvclive(reading: Reading, fixtures: Path) -> None:
    files = sorted((fixtures / "dvclive").rglob("*.tsv"))
    run = reading.run(dvclive, *files)
    assert (run.name, run.params) == ("dvclive", {"lr": 0.01})
    assert sorted(s.tag for s in run.series) == ["lr", "train/acc", "train/loss", "val/acc", "val/loss"]
    loss = series(run, "val/loss")
    assert loss.steps is not None
    assert loss.steps.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(loss.values[:2], [0.6094165444374084, 0.3264518976211548])


def test_dvclive_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "live/plots/metrics"
    folder.mkdir(parents=True)
    (folder / "a.tsv").write_text("step\ta\n0\tnan\n1\t0.5\n2")
    (folder / "b.tsv").write_bytes(b"step\tb\n\xff\xfe\0\n")
    (run,) = dvclive.read(dvclive.home(folder / "a.tsv"), sorted(folder.iterdir()))
    assert math.isnan(series(run, "a").values[0])
    assert "truncated" in {n.kind for n in run.notes}


def test_dvclive_tables_are_known_wherever_they_lie(tmp_path: Path) -> None:
    """Without ``plots/metrics``, and as old versions wrote them: a time in front, below ``scalars``."""
    for source, below in ((FIXTURES / "dvclive/dvclive/plots/metrics", "moved"), (None, "old/scalars")):
        folder = tmp_path / below
        if source is not None:
            shutil.copytree(source, folder)
        else:
            (folder / "train").mkdir(parents=True)
            rows = "".join(f"{1_600_000_000_000 + i}\t{i}\t{1 / (i + 1)}\n" for i in range(9))
            (folder / "train/loss.tsv").write_text("timestamp\tstep\tloss\n" + rows)
            (folder / "lr.tsv").write_text("timestamp\tstep\tlr\n" + rows)
    runs = {run.name: run for run in fitdoctor.open_runs(tmp_path)}
    assert {name: run.source for name, run in runs.items()} == {"moved": "dvclive", "old": "dvclive"}
    assert {s.tag for s in runs["moved"].series} >= {"lr", "train/acc", "train/loss", "val/acc", "val/loss"}
    assert {s.tag for s in runs["old"].series} == {"lr", "train/loss"}


def test_what_has_no_curves_is_named(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/wandb-summary.json").write_text('{"_step": 99, "train/loss": 0.3}')
    with pytest.raises(NoLogsFound, match=r"wandb-summary.json is the last values .* curves are in run-ID.wandb"):
        list(fitdoctor.open_runs(tmp_path))


def test_another_table_of_tabs_is_no_dvclive(tmp_path: Path) -> None:
    rows = "".join(f"{i}\t{1 / (i + 1)}\t{2 / (i + 1)}\n" for i in range(9))
    (tmp_path / "metrics.tsv").write_text("step\ttrain_loss\tval_loss\n" + rows)
    (run,) = fitdoctor.open_runs(tmp_path)
    assert run.source == "csv"


MISPLACED = {
    "wandb/0.31.0/offline-run-20261123_021937-i3aqu7eu/run-i3aqu7eu.wandb": ("saved.data", "wandb"),
    "mlflow_sqlite/mlflow.db": ("backup", "mlflow"),
    "trackio/demo.db": ("store.bak", "trackio"),
    "hf_trainer/trainer_state.json": ("state.txt", "hf-trainer"),
    "timm/summary.csv": ("results.txt", "timm"),
    "mmengine/20261122_223946/vis_data/scalars.json": ("run.log", "mmengine"),
    "keras/history.json": ("h.txt", "keras-history"),
    "detectron2/metrics.json": ("d2.txt", "detectron2"),
    "clearml/offline-1a2ff23fe3674f6a98fa9864d3eadf3f/metrics.jsonl": ("events.log", "clearml"),
    "tensorboard/run1/events.out.tfevents.1795386169.vm.25522.0": ("x.tfevents", "tensorboard"),
}


@pytest.mark.parametrize("original", MISPLACED)
def test_formats_are_known_by_content(tmp_path: Path, original: str) -> None:
    name, source = MISPLACED[original]
    shutil.copyfile(FIXTURES / original, tmp_path / name)
    (run,) = fitdoctor.open_runs(tmp_path)
    assert run.source == source
    assert any(len(s) for s in run.series)
