"""The runs behind the tab: judged once per change, what is looked at first, and nothing outside the folder."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fitdoctor.report import Report
from fitdoctor.tensorboard_plugin.places import Place, places
from fitdoctor.tensorboard_plugin.watch import GROWS, LogWatch
from tests.readers.event_files import event, record, simple, version

MODULE = import_module("fitdoctor.diagnose")  # the package's attribute of this name is the function
OLD = 1.7e9  # when the logs of these tests were written, in seconds; the clock says later


def write(folder: Path, name: str, steps: int = 40, at: float = OLD) -> Path:
    """A log of a training that learns; its run is named after the folder."""
    path = folder / name / "metrics.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{i},{2 / (1 + i)},{2.1 / (1 + i)}\n" for i in range(steps))
    path.write_text("step,train_loss,val_loss\n" + rows, "utf-8")
    os.utime(path, (at, at))
    return path


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that were judged, in order."""
    names: list[str] = []
    real = MODULE.diagnose

    def noted(run: Any, **options: Any) -> Report:
        names.append(run.name)
        return real(run, **options)

    monkeypatch.setattr(MODULE, "diagnose", noted)
    return names


class Clock:
    now = OLD + 10 * GROWS

    def __call__(self) -> float:
        return self.now


class Idle(LogWatch):
    """A watch whose thread is not started: the tests take its turns."""

    def _attend(self) -> None:
        pass

    def work(self) -> None:
        self.look()
        while self.judge_next():
            pass


def idle(folder: Path, clock: Clock | None = None) -> Idle:
    return Idle([Place("", folder)], clock=clock or Clock())


def by_name(watch: LogWatch, since: int = 0) -> dict[str, dict[str, Any]]:
    return {r["run"]: r for r in watch.rows(session=watch.rows()["session"], since=since)["rows"]}


def test_runs_wait_then_are_judged_once(tmp_path: Path, judged: list[str]):
    for name in ("a", "b"):
        write(tmp_path, name)
    watch = idle(tmp_path)
    assert watch.rows()["looked"] is False
    watch.work()
    first = watch.rows()
    assert (first["looked"], first["total"], first["waiting"]) == (True, 2, 0)
    assert sorted(judged) == ["a", "b"]
    for _ in range(3):
        for watched in watch._watched.values():
            watched.not_before = 0.0  # it is not the rest after judging that holds them back
        watch.work()
    assert len(judged) == 2, "nothing has changed"
    assert watch.rows(first["session"], first["version"])["rows"] == []


def test_only_what_has_changed_is_judged_again(tmp_path: Path, judged: list[str]):
    for name in ("a", "b"):
        write(tmp_path, name)
    watch = idle(tmp_path)
    watch.work()
    before = watch.rows()
    write(tmp_path, "b", steps=60, at=OLD + 5)
    watch._watched["", "b"].not_before = 0.0
    watch.work()
    assert judged.count("a") == 1
    assert judged.count("b") == 2
    news = watch.rows(before["session"], before["version"])["rows"]
    assert [(r["run"], r["steps"]) for r in news] == [("b", 59)]
    sheet = json.loads(gzip.decompress(watch.sheet("b") or b""))
    assert sheet["row"]["steps"] == 59
    assert sheet["path"] == os.path.join("b", "metrics.csv")


def test_what_is_gone_is_told(tmp_path: Path):
    for name in ("a", "b"):
        write(tmp_path, name)
    watch = idle(tmp_path)
    watch.work()
    before = watch.rows()
    (tmp_path / "a" / "metrics.csv").unlink()
    watch.work()
    news = watch.rows(before["session"], before["version"])
    assert news["rows"] == [{"run": "a", "gone": True}]
    assert news["total"] == 1
    assert watch.sheet("a") is None
    write(tmp_path, "a")
    watch.work()
    assert by_name(watch)["a"]["verdict"]


def test_another_session_gets_everything(tmp_path: Path):
    write(tmp_path, "a")
    watch = idle(tmp_path)
    watch.work()
    assert len(watch.rows("of another TensorBoard", since=10**6)["rows"]) == 1


def test_many_rows_come_in_pieces(tmp_path: Path):
    for i in range(7):
        write(tmp_path, f"run{i}", steps=12)
    watch = idle(tmp_path)
    watch.work()
    session, since, seen, more = "", 0, [], True
    while more:
        piece = watch.rows(session, since, most=3)
        assert len(piece["rows"]) <= 3
        session, since, more = piece["session"], piece["version"], piece["more"]
        seen += [r["run"] for r in piece["rows"]]
    assert sorted(seen) == [f"run{i}" for i in range(7)]


def test_what_is_on_the_screen_is_judged_first(tmp_path: Path, judged: list[str]):
    for i in range(5):  # event files, of which it is known before reading that they hold one run
        (tmp_path / f"run{i}").mkdir()
        body = b"".join(record(event(k, OLD + k, simple("train/loss", 2 / (1 + k)))) for k in range(40))
        path = tmp_path / f"run{i}" / "events.out.tfevents.1.host"
        path.write_bytes(record(version()) + body)
        os.utime(path, (OLD, OLD))
    watch = idle(tmp_path)
    watch.look()
    waiting = by_name(watch)
    assert [r["verdict"] for r in waiting.values()] == [""] * 5
    watch.rows(wanted=[waiting["run3"]["number"]])
    assert watch.sheet("run4") is None, "asked for, so the next but one"
    while watch.judge_next():
        pass
    assert set(judged[:2]) == {"run3", "run4"}


def test_rules_that_need_the_end_wait_for_it(tmp_path: Path):
    clock = Clock()
    path = write(tmp_path, "a", at=clock.now - 1)
    watch = idle(tmp_path, clock)
    watch.work()
    assert by_name(watch)["a"]["growing"] is True
    reasons = dict(json.loads(gzip.decompress(watch.sheet("a") or b""))["ignored"])
    assert "overfitting" not in reasons.get("it judges finished runs only", [])
    assert "undertrained" in reasons["it judges finished runs only"]
    clock.now = path.stat().st_mtime + GROWS + 1
    watch._watched["", "a"].not_before = 0.0
    watch.work()
    assert by_name(watch)["a"]["growing"] is False
    assert json.loads(gzip.decompress(watch.sheet("a") or b""))["ignored"] == []


def test_a_growing_run_is_not_judged_without_rest(tmp_path: Path, judged: list[str]):
    watch = idle(tmp_path)
    write(tmp_path, "a")
    watch.work()
    watch._watched["", "a"].not_before = float("inf")
    write(tmp_path, "a", steps=50, at=OLD + 1)
    watch.work()
    assert len(judged) == 1


def test_one_odd_run_does_not_keep_the_others_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = MODULE.diagnose

    def sometimes(run: Any, **options: Any) -> Report:
        if run.name == "odd":
            raise RuntimeError("boom \x1b[31m")
        return real(run, **options)

    monkeypatch.setattr(MODULE, "diagnose", sometimes)
    for name in ("a", "odd", "z"):
        write(tmp_path, name)
    watch = idle(tmp_path)
    watch.work()
    rows = by_name(watch)
    assert rows["odd"]["failed"] == "RuntimeError: boom"
    assert rows["a"]["verdict"] == rows["z"]["verdict"] == "healthy"


@pytest.mark.parametrize("what", ["folder", "file", "settings"])
def test_links_out_of_the_folder_are_not_followed(tmp_path: Path, what: str):
    """Every file that is opened is seen by an audit hook, in a process of its own: hooks cannot be removed."""
    outside, inside = tmp_path / "outside", tmp_path / "logs"
    secret = write(outside, "secret")
    write(inside, "own")
    if what == "folder":
        (inside / "link").symlink_to(outside, target_is_directory=True)
    elif what == "file":
        (inside / "own" / "more.csv").symlink_to(secret)
    else:
        (outside / "hparams.yaml").write_text("learning_rate: 0.123\n", "utf-8")
        (inside / "own" / "hparams.yaml").symlink_to(outside / "hparams.yaml")
    code = """
import json, os, sys
from pathlib import Path
opened = []
outside = os.path.realpath(sys.argv[2])
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        if os.path.realpath(os.fsdecode(arguments[0])).startswith(outside):
            opened.append(os.fsdecode(arguments[0]))
sys.addaudithook(hook)
from fitdoctor.tensorboard_plugin.places import Place
from fitdoctor.tensorboard_plugin.watch import LogWatch
watch = LogWatch([Place("", Path(sys.argv[1]))])
watch.look()
while watch.judge_next(): pass
shown = {h: s.row for h, s in watch._shown.items()}
links = opened[:]
open(os.path.join(outside, "secret", "metrics.csv")).close()  # the hook does see
print(json.dumps([shown, links, len(opened) - len(links)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(inside), str(outside)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown, links, seen = json.loads(done.stdout)
    assert (links, seen) == ([], 1)
    assert list(shown) == ["own"]
    if what == "settings":
        assert shown["own"]["failed"] == "hparams.yaml leads out of the log folder and is not read"
    else:
        assert shown["own"]["verdict"] == "healthy"


def test_nobody_waits_for_a_run_that_is_being_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    began, may_end = threading.Event(), threading.Event()
    real = MODULE.diagnose

    def slow(run: Any, **options: Any) -> Report:
        began.set()
        assert may_end.wait(60)
        return real(run, **options)

    monkeypatch.setattr(MODULE, "diagnose", slow)
    write(tmp_path, "a")
    watch = LogWatch([Place("", tmp_path)], clock=Clock())
    try:
        watch.rows()  # starts the thread
        assert began.wait(60)
        answer = watch.rows()
        assert not answer["rows"] or answer["rows"][0]["verdict"] == ""
        assert watch.sheet("a") is None
    finally:
        may_end.set()


class TestPlaces:
    def test_other_links_beside_a_log_do_no_harm(self, tmp_path: Path):
        """Folders of models are full of links into a cache."""
        write(tmp_path / "logs", "a")
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (tmp_path / name).write_text("{}", "utf-8")
            (tmp_path / "logs" / "a" / name).symlink_to(tmp_path / name)
        watch = idle(tmp_path / "logs")
        watch.work()
        assert by_name(watch)["a"]["verdict"] == "healthy"

    def test_a_spec_names_its_folders(self, tmp_path: Path):
        for name in ("one", "two"):
            write(tmp_path / name, "a")
        folders, remote = places("", f"x:{tmp_path}/one,{tmp_path}/two,gs://bucket/three")
        watch = Idle(folders, remote, clock=Clock())
        watch.work()
        assert sorted(by_name(watch)) == sorted(["x/a", f"{tmp_path}/two/a"])
        assert watch.rows()["trouble"] == ["gs://bucket/three is not on this machine; fitdoctor reads local files only"]

    def test_a_folder_without_logs_says_what_was_looked_for(self, tmp_path: Path):
        watch = idle(tmp_path)
        watch.work()
        (told,) = watch.rows()["trouble"]
        assert told.startswith(f"{tmp_path}: the folder is empty; expected TensorBoard event files")
        watch = idle(tmp_path / "missing")
        watch.work()
        assert "there is no such path" in watch.rows()["trouble"][0]

    def test_the_root_itself_may_be_a_link(self, tmp_path: Path):
        write(tmp_path / "real", "a")
        (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
        watch = idle(tmp_path / "link")
        watch.work()
        assert by_name(watch)["a"]["verdict"] == "healthy"


class TestPlugin:
    def test_being_active_costs_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        base_plugin = pytest.importorskip("tensorboard.plugins.base_plugin")
        from fitdoctor.tensorboard_plugin import FitdoctorLoader

        context = base_plugin.TBContext(logdir=str(tmp_path), flags=SimpleNamespace(logdir_spec=""))
        plugin = FitdoctorLoader().load(context)
        for name in ("scandir", "stat", "open", "listdir"):
            monkeypatch.setattr(os, name, lambda *a, **k: pytest.fail("asked the disk"))
        threads = threading.active_count()
        assert all(plugin.is_active() for _ in range(3))
        assert threading.active_count() == threads
        assert set(plugin.get_plugin_apps()) == {"/static/*", "/runs", "/run"}

    def test_what_tensorboard_imports_first_is_light(self):
        """An exception there would end TensorBoard, and seconds there would be everybody's."""
        pytest.importorskip("tensorboard")
        code = (
            "import sys; import tensorboard.plugins.base_plugin; before = set(sys.modules);"
            "import fitdoctor.tensorboard_plugin;"
            "print(sorted({m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
        )
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        assert done.stdout.strip() == "['fitdoctor']"
