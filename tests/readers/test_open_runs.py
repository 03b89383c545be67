"""Finding every run below a path: walk, grouping, twins, names, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from fitdoctor.errors import ConfigError, NoLogsFound, ReadError
from fitdoctor.readers import describe, find_runs, open_runs
from fitdoctor.run import Run
from fitdoctor.signals import ACCURACY, LOSS, LR

from .conftest import FIXTURES
from .event_files import event, record, simple, version

Write = Callable[..., Path]


@pytest.fixture
def events(tmp_path: Path) -> Write:
    """Writes an event file with curves given as tag -> values."""

    def write(folder: str, start: float = 1e9, first: int = 0, **tags: Iterable[float]) -> Path:
        path = tmp_path / folder / f"events.out.tfevents.{int(start)}.host"
        path.parent.mkdir(parents=True, exist_ok=True)
        body = record(version(start))
        for tag, values in tags.items():
            for i, value in enumerate(values):
                body += record(event(first + i, start + i + 1, simple(tag.replace("__", "/"), value)))
        path.write_bytes(body)
        return path

    return write


@pytest.fixture
def table(tmp_path: Path) -> Write:
    """Writes a CSV file with columns."""

    def write(name: str, **columns: Iterable[float]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = zip(*columns.values(), strict=True)
        path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
        return path

    return write


def names(path: Path, **more: object) -> list[str]:
    return [run.name for run in open_runs(path, **more)]  # type: ignore[arg-type]


def only(path: Path) -> Run:
    (run,) = open_runs(path)
    return run


def signals(run: Run) -> set[str]:
    return {str(s.signal) for s in run.series}


# --- real logs ---------------------------------------------------------------------------------------


def test_every_sample_is_found_and_understood() -> None:
    runs = {run.name: run for run in open_runs(FIXTURES) if not run.name.startswith("text_logs")}
    assert {name.split("/")[0] for name in runs} == {
        "clearml", "detectron2", "dvclive", "hf_trainer", "hf_trainer_nan", "hf_trainer_nan_nofilter", "keras",
        "lightning_csv", "mlflow_file", "mlflow_sqlite", "mmengine", "swanlab", "tensorboard", "timm", "trackio",
        "ultralytics", "wandb",
    }  # fmt: skip
    for name, run in runs.items():
        assert run.get(LOSS) is not None, name
        assert not [n for n in run.notes if n.kind == "ignored-file"], name


def test_add_scalars_and_add_hparams_belong_to_their_run() -> None:
    run = only(FIXTURES / "tensorboard")
    assert run.name == "run1"
    assert run.facts["batch_size"] == 32
    assert {"loss/train", "loss/val", "train/loss"} <= {s.tag for s in run.series}
    val = run.get(LOSS, "val")
    assert val is not None
    assert val.steps.tolist() == [20, 40, 60, 80, 100]


def test_two_logs_of_one_training_are_one_run() -> None:
    run = only(FIXTURES / "keras")  # training.log and history.json
    assert run.name == "keras"
    assert any("tells the same training" in note.text for note in run.notes)


def test_the_order_is_the_same_every_time_and_natural(table: Write, tmp_path: Path) -> None:
    for i in (10, 2, 1):
        table(f"run{i}/metrics.csv", step=[0, 1], loss=[1, 0.5])
    assert names(tmp_path) == ["run1", "run2", "run10"]


# --- names -------------------------------------------------------------------------------------------


def test_names(table: Write, tmp_path: Path) -> None:
    table("a/metrics.csv", step=[0, 1], loss=[1, 0.5])
    table("b/first.csv", step=[0, 1], loss=[1, 0.5])
    table("b/second.csv", step=[0, 1], loss=[3, 2.5])
    assert names(tmp_path) == ["a", "b/first", "b/second"]
    assert names(tmp_path / "a") == ["a"]
    assert names(tmp_path / "b" / "first.csv") == ["first"]
    assert names(tmp_path, match="b/*") == ["b/first", "b/second"]


def test_the_working_folder_has_a_name(table: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table("metrics.csv", step=[0, 1], loss=[1, 0.5])
    monkeypatch.chdir(tmp_path)
    assert names(Path()) == [tmp_path.name]


def test_the_log_of_the_monitor_is_called_after_the_run(table: Write, tmp_path: Path) -> None:
    """`attach(logdir="runs/a")` writes to runs/a/fitdoctor; the training is called a."""

    watched(tmp_path / "runs/a", [1.0, 0.5, 0.33])
    assert names(tmp_path) == ["runs/a"]
    for inside in ("runs", "runs/a", "runs/a/fitdoctor"):
        assert names(tmp_path / inside) == ["a"], inside
    assert [run.path for run in open_runs(tmp_path)] == [str(tmp_path / "runs" / "a" / "fitdoctor")]
    # Names stay unique, and a log at the top that has neighbours is not called after all of them.
    watched(tmp_path / "runs/b", [1.0, 0.5, 0.33])
    table("runs/b/metrics.csv", step=[0, 1], loss=[1, 0.5])
    watched(tmp_path, [1.0, 0.5, 0.33])
    assert names(tmp_path) == ["fitdoctor", "runs/a", "runs/b"]
    assert names(tmp_path, match="runs/a") == ["runs/a"]


def watched(folder: Path, loss: list[float], lr: float = 0.1) -> None:
    """What the monitor logs below a run's folder, from step 1."""
    (folder / "fitdoctor").mkdir(parents=True)
    values = {"train/loss": loss, "lr": [lr] * len(loss)}
    events = (event(i, 1.0 + i, simple(tag, v)) for tag, all_ in values.items() for i, v in enumerate(all_, 1))
    (folder / "fitdoctor" / "events.out.tfevents.1.host").write_bytes(b"".join(map(record, (version(), *events))))


def test_the_log_of_the_monitor_is_joined_with_that_of_the_framework(table: Write, tmp_path: Path) -> None:
    """Lightning's CSVLogger counts steps from 0, logs every fifth, and knows what the user logs."""
    loss = [2.0 / (1 + 0.1 * i) for i in range(100)]
    watched(tmp_path, loss)
    every = list(range(4, 100, 5))
    table("metrics.csv", step=every, train_loss=[loss[i] for i in every], val_f1=[0.01 * i for i in every])
    run = only(tmp_path)
    assert run.name == tmp_path.name
    assert signals(run) == {"train loss", "lr", "val score of f1"}
    assert len(run.get(LOSS)) == 100
    assert any("tells the same training" in str(n) for n in run.notes)


def test_a_log_goes_on_where_the_monitor_was_switched_off(table: Write, tmp_path: Path) -> None:
    loss = [2.0 / (1 + 0.1 * i) for i in range(100)]
    watched(tmp_path, loss[:60])
    table("metrics.csv", step=list(range(100)), train_loss=loss)
    assert only(tmp_path).get(LOSS).steps[-1] == 99


def test_another_training_in_the_folder_of_the_monitor_stays_another(table: Write, tmp_path: Path) -> None:
    watched(tmp_path, [2.0 / (1 + 0.1 * i) for i in range(100)])
    table("metrics.csv", step=list(range(100)), train_loss=[3.0 - 0.001 * i for i in range(100)])
    assert len(list(open_runs(tmp_path))) == 2


def test_the_folder_of_the_monitor_is_the_run_of_what_lies_in_runs(events: Write, tmp_path: Path) -> None:
    """The Hugging Face Trainer: OUT/runs/<date> beside OUT/fitdoctor, and nothing in OUT itself."""
    loss = [2.0 / (1 + 0.1 * i) for i in range(50)]
    watched(tmp_path / "out", loss)
    events("out/runs/Nov23", loss=loss, grad_norm=[1.0 + 0.01 * i for i in range(50)])
    run = only(tmp_path / "out")
    assert run.name == "out"
    assert "grad_norm" in signals(run)


def test_a_pattern_that_fits_nothing_gives_nothing(table: Write, tmp_path: Path) -> None:
    table("a/metrics.csv", step=[0, 1], loss=[1, 0.5])
    assert names(tmp_path, match="nothing*") == []


# --- sub-runs of TensorBoard ----------------------------------------------------------------------------


def test_train_and_validation_folders_are_one_run(events: Write, tmp_path: Path) -> None:
    events("a/train", epoch_loss=[3, 2, 1], epoch_learning_rate=[0.1, 0.1, 0.1])
    events("a/validation", epoch_loss=[4, 3, 2])
    run = only(tmp_path)
    assert run.name == "a"
    assert signals(run) == {"train loss", "val loss", "lr"}


def test_an_eval_folder_belongs_to_the_run_above(events: Write, tmp_path: Path) -> None:
    events("model", loss=[3, 2, 1])
    events("model/eval", loss=[4, 3, 2], accuracy=[0.1, 0.2, 0.3])
    run = only(tmp_path)
    assert signals(run) == {"train loss", "val loss", "val accuracy"}


def test_runs_named_like_splits_alone_stay_runs(events: Write, tmp_path: Path) -> None:
    events("train", loss=[3, 2, 1])
    assert names(tmp_path) == ["train"]


def test_neighbours_are_not_merged(events: Write, tmp_path: Path) -> None:
    events("exp_1", loss=[3, 2, 1])
    events("exp_2", loss=[3, 2, 1])
    assert names(tmp_path) == ["exp_1", "exp_2"]


def test_a_child_with_an_underscore_is_merged_only_for_add_scalars(events: Write, tmp_path: Path) -> None:
    events("run", lr=[1, 1, 1])
    events("run/acc_val", acc=[0.1, 0.2, 0.3])
    events("run/fine_tune", loss=[3, 2, 1])
    runs = {r.name: r for r in open_runs(tmp_path)}
    assert set(runs) == {"run", "run/fine_tune"}
    assert runs["run"].get(ACCURACY, "val") is not None


def test_several_event_files_are_a_restart(events: Write, tmp_path: Path) -> None:
    events("run", 1e9, loss=[9, 8, 7, 6, 5, 4])
    events("run", 1e9 + 100, first=3, loss=[60, 50, 40, 30])
    run = only(tmp_path)
    assert run.get(LOSS).values.tolist() == [9, 8, 7, 60, 50, 40, 30]  # type: ignore[union-attr]
    assert [n.kind for n in run.notes] == ["restart"]


# --- one training, several logs -------------------------------------------------------------------------


def test_csv_beside_event_files(events: Write, table: Write, tmp_path: Path) -> None:
    loss = [3.0, 2.0, 1.5, 1.25]
    events("version_0", train_loss=loss, lr=[0.1] * 4)
    table("version_0/metrics.csv", step=range(4), train_loss=loss)
    run = only(tmp_path)
    assert run.source == "tensorboard"
    assert run.get(LR) is not None
    assert [n.text for n in run.notes][-1].endswith("the tensorboard log is used")


def test_different_trainings_in_one_folder_stay_apart(events: Write, table: Write, tmp_path: Path) -> None:
    events("here", train_loss=[3.0, 2.0, 1.5, 1.25])
    table("here/metrics.csv", step=range(4), train_loss=[5, 4, 3, 2])
    assert len(names(tmp_path)) == 2
    assert len(set(names(tmp_path))) == 2


def test_event_files_in_runs_below_a_trainer_state(events: Write, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "hf_trainer", tmp_path / "out", dirs_exist_ok=True)
    state = json.loads((tmp_path / "out/trainer_state.json").read_text())
    loss = [row["loss"] for row in state["log_history"] if "loss" in row]
    events("out/runs/May01_host", first=1, train__loss=loss)
    run = only(tmp_path)
    assert (run.name, run.source) == ("out", "hf-trainer")


def test_a_log_above_other_runs_leaves_them_their_names(events: Write, table: Write, tmp_path: Path) -> None:
    table("train.csv", step=range(4), train_loss=[7, 6, 5, 4])
    events("runs/a", train_loss=[3.0, 2.0, 1.5, 1.25])
    events("runs/b", train_loss=[3.5, 2.5, 1.75, 1.5])
    found = names(tmp_path)
    assert found[0].startswith(tmp_path.name)
    assert found[1:] == ["runs/a", "runs/b"]


def test_an_event_file_by_itself(events: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = events("here", loss=[3.0, 2.0])
    assert names(path) == ["here"]
    monkeypatch.chdir(path.parent)
    assert names(Path(path.name)) == ["here"]


# --- what is not read -----------------------------------------------------------------------------------


def test_files_inside_a_store_are_left_to_it(table: Write, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "mlflow_file", tmp_path / "store", dirs_exist_ok=True)
    inside = next((tmp_path / "store").rglob("metrics")).parent
    shutil.copy(FIXTURES / "timm" / "summary.csv", inside / "summary.csv")
    assert len(names(tmp_path)) == 1


def test_hidden_folders_and_binaries_are_skipped(table: Write, tmp_path: Path) -> None:
    table("a/metrics.csv", step=[0, 1], loss=[1, 0.5])
    table(".git/metrics.csv", step=[0, 1], loss=[1, 0.5])
    table("node_modules/metrics.csv", step=[0, 1], loss=[1, 0.5])
    (tmp_path / "a" / "model.pt").write_bytes(b"step,loss\n1,2\n2,1\n")
    assert names(tmp_path) == ["a"]


def test_a_data_set_is_not_opened_file_by_file(table: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fitdoctor.readers import walk

    for i in range(300):
        (tmp_path / f"{i:04}.txt").write_text("3 0.1 0.2 0.3 0.4\n")
    table("zz_metrics.csv", step=[0, 1], loss=[1, 0.5])
    table("a_train_log.txt", step=[0, 1], loss=[3, 2.5])
    opened: list[Path] = []
    real = walk.read_head
    monkeypatch.setattr(walk, "read_head", lambda path: opened.append(path) or real(path))
    assert names(tmp_path) == ["a_train_log", "zz_metrics"]
    assert len(opened) == walk.ENOUGH_REFUSALS + 2


def test_links_do_not_loop_and_count_once(table: Write, tmp_path: Path) -> None:
    table("root/a/metrics.csv", step=[0, 1], loss=[1, 0.5])
    table("elsewhere/metrics.csv", step=[0, 1], loss=[1, 0.5])
    root = tmp_path / "root"
    (root / "a" / "up").symlink_to(root)
    (root / "latest").symlink_to(root / "a")
    (root / "other").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere")
    (root / "gone").symlink_to(tmp_path / "nothing")
    found = names(root)
    assert len(found) == 2
    assert "a" in found


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_a_pipe_does_not_block(table: Write, tmp_path: Path) -> None:
    table("a/metrics.csv", step=[0, 1], loss=[1, 0.5])
    os.mkfifo(tmp_path / "a" / "pipe.log")
    assert names(tmp_path) == ["a"]


# --- errors ---------------------------------------------------------------------------------------------


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"expected a log file or a folder with logs, but there is no such path"):
        list(open_runs(tmp_path / "nowhere"))


def test_nothing_found_says_where_and_what(tmp_path: Path) -> None:
    with pytest.raises(NoLogsFound, match="the folder is empty"):
        find_runs(tmp_path)
    (tmp_path / "notes.txt").write_text("buy milk\n")
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(
        NoLogsFound,
        match=r"among 2 files in 1 folder \(1 \.pt, 1 \.txt\); looked for .*; nearest are notes\.txt, which",
    ):
        find_runs(tmp_path)
    with pytest.raises(NoLogsFound, match="not a training log that fitdoctor reads"):
        find_runs(tmp_path / "notes.txt")


def test_a_wrong_map_is_told_before_anything_is_read(table: Write, tmp_path: Path) -> None:
    table("metrics.csv", step=[0, 1], loss=[1, 0.5])
    with pytest.raises(ConfigError, match="not a quantity"):
        find_runs(tmp_path, tags={"loss": "lots"})


def test_one_broken_log_does_not_hide_the_others(table: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fitdoctor.readers import csv_table

    table("a/metrics.csv", step=[0, 1], loss=[1, 0.5])
    table("b/metrics.csv", step=[0, 1], loss=[1, 0.5])
    real = csv_table.read

    def read(home: Path, files: list[Path]) -> object:
        if "a" in home.parts[-2:]:
            raise ValueError("bad luck")
        return real(home, files)

    monkeypatch.setattr(csv_table, "read", read)
    broken, good = open_runs(tmp_path)
    assert (broken.name, broken.series) == ("a", ())
    assert broken.notes[0].kind == "ignored-file"
    assert "ValueError: bad luck" in broken.notes[0].text
    assert len(good.series) == 1


def test_what_cannot_be_opened_is_told(table: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fitdoctor.readers import walk

    table("a/metrics.csv", step=[0, 1], loss=[1, 0.5])
    table("b/metrics.csv", step=[0, 1], loss=[1, 0.5])
    real = walk.read_head

    def read_head(path: Path) -> bytes:
        if path.parent.name == "b":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(walk, "read_head", read_head)
    good, closed = open_runs(tmp_path)
    assert good.name == "a"
    assert closed.series == ()
    assert closed.notes[0].text.endswith("b/metrics.csv: not read: Permission denied")


@pytest.mark.parametrize(
    "name", ["metrics.csv", "events.out.tfevents.1.h", "trainer_state.json", "log.jsonl", "x.wandb"]
)
@pytest.mark.parametrize("content", [b"", b"\0" * 50, b"{", b"step,loss\n", bytes(range(256)) * 20])
def test_damaged_files_never_raise(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    try:
        runs = list(open_runs(tmp_path))
    except NoLogsFound:
        return
    assert all(isinstance(run, Run) for run in runs)


# --- sources --------------------------------------------------------------------------------------------


def test_progress_counts_sources(table: Write, tmp_path: Path) -> None:
    for name in "abc":
        table(f"{name}/metrics.csv", step=[0, 1], loss=[1, 0.5])
    seen: list[tuple[int, int, str]] = []
    list(open_runs(tmp_path, progress=lambda *at: seen.append(at)))
    assert seen == [(0, 3, "a"), (1, 3, "b"), (2, 3, "c"), (3, 3, "")]


def test_a_fingerprint_changes_when_a_log_grows(events: Write, tmp_path: Path) -> None:
    path = events("run", loss=[1, 2, 3])
    (source,) = find_runs(tmp_path)
    before = source.fingerprint()
    assert before == source.fingerprint()
    with path.open("ab") as file:
        file.write(record(event(3, 1e9 + 9, simple("loss", 0.5))))
    assert source.fingerprint() != before
    assert len(source.load()[0].series[0]) == 4
    grown = source.fingerprint()
    events("run", 2e9, loss=[5])  # a second writer
    assert source.fingerprint() != grown


def test_describe_tells_every_tag(table: Write, tmp_path: Path) -> None:
    table("metrics.csv", step=[0, 1], loss=[1, 0.5], best_loss=[1, 0.5], mystery=[1, 2])
    (source,) = find_runs(tmp_path)
    uses = {use.tag: use for use in describe(source)}
    assert str(uses["loss"].signal) == "train loss"
    assert uses["loss"].points == 2
    assert "derived" in uses["best_loss"].why
    assert uses["mystery"].signal is None
    assert uses["mystery"].why


def test_the_user_may_map_tags(table: Write, tmp_path: Path) -> None:
    table("metrics.csv", step=[0, 1], mystery=[1, 2], loss=[3, 4])
    (run,) = open_runs(tmp_path, tags={"myst*": "accuracy:val", "loss": "ignore"})
    assert signals(run) == {"val accuracy"}


def test_two_thousand_runs_take_no_time_to_find(events: Write, tmp_path: Path) -> None:
    import time

    path = events("run0", loss=np.linspace(1, 0, 5))
    for i in range(1, 2000):
        folder = tmp_path / f"run{i}"
        folder.mkdir()
        shutil.copy(path, folder)
    began = time.process_time()
    assert len(find_runs(tmp_path)) == 2000
    assert time.process_time() - began < 2.0  # 0.2 s here


def test_finding_imports_only_the_readers_it_needs(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.h").write_bytes(record(version()))
    code = (
        "import sys; from fitdoctor.readers import find_runs; find_runs(sys.argv[1]);"
        "print(sorted({'pandas', 'sqlite3', 'torch', 'tensorboard', 'yaml'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
