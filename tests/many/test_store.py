"""Stored reports: found again when nothing has changed, and only then."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from fitdoctor import many
from fitdoctor.config import Config
from fitdoctor.errors import ReadError
from fitdoctor.many import ReportStore, diagnose_runs
from fitdoctor.many import store as stored
from fitdoctor.many.work import Job
from fitdoctor.readers import csv_table, find_runs
from fitdoctor.report import to_json

Write = Callable[..., Path]


def entries(store: ReportStore) -> list[Path]:
    return sorted(store.folder.glob("??/*"))


@pytest.fixture
def log(write: Write) -> Path:
    return write("run/metrics.csv", sick=True)


@pytest.fixture
def from_store(store: ReportStore, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Whether the report on a log comes from the store; it is stored if it does not, and can be."""

    def found(log: Path, config: Config | None = None, **more: Any) -> bool:
        judged: list[Any] = []
        judge = many.judge
        with monkeypatch.context() as patch:
            patch.setattr(many, "judge", lambda works, *rest: judged.append(works) or judge(works, *rest))
            reports = list(diagnose_runs(log, config=config, store=store, **more))
        assert to_json(reports) == to_json(diagnose_runs(log, config=config, **more))
        return not judged

    return found


def test_an_unchanged_log_is_judged_once(log: Path, from_store: Callable[..., bool]) -> None:
    assert [from_store(log) for _ in range(3)] == [False, True, True]


def test_a_changed_log_is_judged_again(log: Path, write: Write, from_store: Callable[..., bool]) -> None:
    assert [from_store(log), from_store(log)] == [False, True]
    size = log.stat().st_size
    log.write_text(log.read_text("utf-8").replace("nan", "0.3"), "utf-8")
    os.utime(log, (time.time() - 900,) * 2)
    assert log.stat().st_size == size
    assert [from_store(log), from_store(log)] == [False, True]
    before = log.stat()
    other = write("other.csv")
    os.replace(other, log)  # another file under the same name, with the time of the one before
    os.utime(log, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not from_store(log)


@pytest.mark.parametrize(
    "config",
    [
        Config(select=("nonfinite-loss",)),
        Config(ignore={"plateau": "on purpose"}),
        Config(options={"overfitting": {"rise": 0.5}}),
        Config(tags={"val_loss": "ignore"}),
        Config(facts={"classes": 10}),
    ],
    ids=["select", "ignore", "options", "tags", "facts"],
)
def test_other_settings_are_another_judgement(log: Path, config: Config, from_store: Callable[..., bool]) -> None:
    if config.options:
        from fitdoctor import catalogue

        option, default = next(iter(catalogue.find("overfitting").options.items()))
        config = Config(options={"overfitting": {option: default}})
    assert [from_store(log), from_store(log, config), from_store(log, config), from_store(log)] == [
        False, False, True, True,
    ]  # fmt: skip


def test_layers_are_asked_for_apart(log: Path, from_store: Callable[..., bool]) -> None:
    assert [from_store(log), from_store(log, layers=True), from_store(log, layers=True)] == [False, False, True]


def test_other_code_is_another_judgement(
    log: Path, from_store: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [from_store(log), from_store(log)] == [False, True]
    monkeypatch.setattr(stored, "_code", lambda: "another version")
    assert not from_store(log)


def test_a_log_that_is_being_written_is_not_stored(write: Write, from_store: Callable[..., bool]) -> None:
    growing = write("run/metrics.csv", age=-5)
    assert [from_store(growing), from_store(growing)] == [False, False]


def test_what_could_not_be_read_is_tried_again(
    log: Path, from_store: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(home: Path, files: object) -> Any:
        raise ReadError(f"{home}: permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(csv_table, "read", refused)
        assert [from_store(log), from_store(log)] == [False, False]
    assert [from_store(log), from_store(log)] == [False, True]


def _not_ours(identity: str) -> list[bytes]:
    report = {"run": "other"}
    return [
        b"",
        b"not zlib",
        zlib.compress(b"not json"),
        zlib.compress(b"[]"),
        zlib.compress(orjson.dumps({"identity": identity, "reports": [["run", report]]})),
        zlib.compress(orjson.dumps({"identity": identity, "reports": [["run", None]]})),
        zlib.compress(orjson.dumps({"identity": "another", "reports": []})),
    ]


@pytest.mark.parametrize("which", range(7))
def test_an_entry_that_is_damaged_is_no_entry(
    log: Path, store: ReportStore, from_store: Callable[..., bool], which: int
) -> None:
    assert not from_store(log)
    (entry,) = entries(store)
    entry.write_bytes(_not_ours(entry.stem)[which])
    assert [from_store(log), from_store(log)] == [False, True]


def test_every_cut_of_an_entry_is_noticed(log: Path, store: ReportStore) -> None:
    assert list(diagnose_runs(log, store=store))
    (entry,) = entries(store)
    whole = entry.read_bytes()
    (source,) = find_runs(log)
    work = store.identified(source, Job(Config()))
    assert store.get(work) is not None
    for size in range(0, len(whole), 37):
        entry.write_bytes(whole[:size])
        assert store.get(work) is None


def test_a_store_that_cannot_be_written_costs_nothing(log: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        store = ReportStore(folder)
        assert len(list(diagnose_runs(log, store=store))) == 1
        store.prune()


def test_no_half_written_entry_stays(log: Path, store: ReportStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert len(list(diagnose_runs(log, store=store))) == 1
    assert entries(store) == []


def test_entries_that_nobody_asks_for_are_deleted(write: Write, store: ReportStore, tmp_path: Path) -> None:
    for name in ("old", "used", "new"):
        write(f"{name}/metrics.csv")
    assert len(list(diagnose_runs(tmp_path / "logs", store=store))) == 3
    long_ago = time.time() - 40 * 24 * 3600
    for entry in entries(store):
        os.utime(entry, (long_ago, long_ago))
    (tmp_path / "logs" / "old" / "metrics.csv").unlink()
    write("new/metrics.csv", age=400)
    assert len(list(diagnose_runs(tmp_path / "logs", store=store))) == 2  # one found, one judged anew
    store.prune()
    assert len(entries(store)) == 2
    for entry in entries(store):
        os.utime(entry, (long_ago, long_ago))
    store.prune()  # not twice a day
    assert len(entries(store)) == 2


def test_where_reports_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FITDOCTOR_CACHE_DIR", "")
    assert ReportStore.default() is None
    monkeypatch.setenv("FITDOCTOR_CACHE_DIR", str(tmp_path / "mine"))
    assert ReportStore.default() == ReportStore(tmp_path / "mine")
    monkeypatch.delenv("FITDOCTOR_CACHE_DIR")
    standard = ReportStore.default()
    assert standard is not None
    assert "fitdoctor" in standard.folder.parts
