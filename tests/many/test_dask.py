"""A Dask cluster judges as one process does; lost workers, unreadable runs and wrong clusters are said."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from fitdoctor import many
from fitdoctor.cli import main
from fitdoctor.errors import ConfigError
from fitdoctor.many import ReportStore, diagnose_runs, engines
from fitdoctor.readers import find_runs
from fitdoctor.report import to_json

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:distributed"),
]
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def here() -> Iterator[str]:
    """The address of a cluster in this process: two workers, of two threads each."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None, protocol="tcp"
    ) as cluster:
        yield "dask://" + cluster.scheduler_address.removeprefix("tcp://")


@pytest.fixture(scope="module")
def processes() -> Iterator[Any]:
    """A cluster of two processes; a worker that ends is not replaced before the test has seen it."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


def address(cluster: Any) -> str:
    return f"dask://{cluster.scheduler_address}"


def test_the_reports_are_the_same_to_the_byte(logs: Path, here: str) -> None:
    assert to_json(diagnose_runs(logs, engine=here)) == to_json(diagnose_runs(logs))


def test_reports_are_stored_here(logs: Path, here: str, store: ReportStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = to_json(diagnose_runs(logs, engine=here, store=store))
    assert len(list(store.folder.glob("??/*"))) == 40
    monkeypatch.setattr(engines, "started", None)  # nothing is left to be done, and no cluster is asked
    assert to_json(diagnose_runs(logs, engine="dask://nowhere:1", store=store)) == first


def test_progress_and_no_more_under_way_than_the_cluster_can_take(
    logs: Path, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fitdoctor.many.dask_cluster import DaskCluster

    pieces: list[Any] = []
    most = 0
    judge = DaskCluster.judge

    def counted(self: Any, works: Any) -> Any:
        nonlocal most
        future = judge(self, works)
        pieces.append(future)
        most = max(most, len([p for p in pieces if not p.done()]))
        return future

    monkeypatch.setattr(DaskCluster, "judge", counted)
    monkeypatch.setattr(many, "_FEW", 1)
    told: list[int] = []
    assert len(list(diagnose_runs(logs, engine=here, progress=lambda done, *_: told.append(done)))) == 40
    assert told == [*range(40), 40]
    assert len(pieces) == 40
    assert most <= DaskCluster.ahead * 4 + 1


def test_an_unreadable_run_is_one_that_cannot_be_judged(logs: Path, here: str) -> None:
    (logs / "run7" / "metrics.csv").write_bytes(b"step,train_loss\n1,2\n\xff\xfe\x00" * 3)
    folder = logs / "run8" / "events.out.tfevents.1.host"
    folder.mkdir()  # no file at all
    assert to_json(diagnose_runs(logs, engine=here)) == to_json(diagnose_runs(logs))


def test_leaving_early_ends_what_is_under_way(logs: Path, processes: Any) -> None:
    begun = diagnose_runs(logs, engine=address(processes))
    assert next(begun).run == "run0"
    begun.close()  # as Ctrl-C does
    with distributed.Client(processes, set_as_default=False) as client:
        until = time.monotonic() + 60
        while any(client.processing().values()) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(client.processing().values())


def test_remote_logs_are_fetched_by_the_workers(
    logs: Path, processes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FITDOCTOR_CACHE_DIR", str(tmp_path / "mine"))
    import zipfile

    with zipfile.ZipFile(tmp_path / "logs.zip", "w") as archive:
        for i in range(6):
            archive.write(logs / f"run{i}" / "metrics.csv", f"run{i}/metrics.csv")
    url = f"zip://::{tmp_path}/logs.zip"
    plain = to_json(diagnose_runs(url))
    assert '"path": "zip://run3/metrics.csv::' in plain
    assert to_json(diagnose_runs(url, engine=address(processes))) == plain


def _lose_the_worker_once(mark: str, source: Any, through: object = None) -> Any:
    """Ends its process the first time, as one does that the system kills."""
    if not os.path.exists(mark):
        Path(mark).touch()
        os._exit(9)
    return source.load()


def test_a_lost_worker_is_said_and_its_work_is_done_by_another(
    logs: Path, processes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = to_json(diagnose_runs(logs))
    sources: list[Any] = find_runs(logs)
    sources[7] = _odd(sources[7], partial(_lose_the_worker_once, str(tmp_path / "mark"), sources[7]))
    monkeypatch.setattr(many, "find_runs", lambda path, **_: sources)
    told: list[str] = []
    assert to_json(diagnose_runs(logs, engine=address(processes), tell=told.append)) == plain
    assert (tmp_path / "mark").exists()
    assert any("Dask lost a worker" in text for text in told)


def test_work_that_costs_every_worker_costs_one_run(
    logs: Path, processes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask

    sources: list[Any] = find_runs(logs)[:4]
    sources[2] = _odd(sources[2], partial(eval, "__import__('os')._exit(3)"))
    monkeypatch.setattr(many, "find_runs", lambda path, **_: sources)
    processes.scheduler.allowed_failures = 0
    with dask.config.set({"distributed.comm.timeouts.connect": "30s"}):
        reports = list(diagnose_runs(logs, engine=address(processes)))
    assert [r.run for r in reports] == ["run0", "run1", "run2", "run3"]
    assert [r.verdict for r in reports] == ["sick", "healthy", "cannot judge", "healthy"]
    assert "Dask workers were lost" in reports[2].notes[0].text


def _odd(source: Any, load: Any) -> Any:
    odd = SimpleNamespace(
        name=source.name, path=source.path, where=source.where, source=source.source, parts=source.parts, single=True,
        origin=None, load=load,
    )  # fmt: skip
    odd.moved = partial(_itself, odd.__dict__)
    return odd


def _itself(told: Any) -> Any:
    return SimpleNamespace(**told)


def test_a_cluster_that_cannot_be_used(logs: Path, here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fitdoctor.many import dask_cluster

    monkeypatch.setattr(dask_cluster, "_PATIENCE", 1)
    with pytest.raises(ConfigError, match=r"expected process, dask or dask://HOST:PORT of a scheduler, got 'spark'"):
        next(diagnose_runs(logs, engine="spark"))
    with pytest.raises(ConfigError, match=r"expected a Dask scheduler at 127.0.0.1:9, got"):
        next(diagnose_runs(logs, engine="dask://127.0.0.1:9"))
    with monkeypatch.context() as patch:
        patch.setattr(dask_cluster, "__version__", "9.9")
        patch.setattr(dask_cluster, "_hello", lambda paths: ("0.0.1", ""))
        with pytest.raises(ConfigError, match=r"has fitdoctor 0.0.1, expected 9.9 as here"):
            next(diagnose_runs(logs, engine=here))
        patch.setattr(dask_cluster, "_hello", lambda paths: ("9.9", paths[0]))
        with pytest.raises(ConfigError, match=r"does not see .*run0.*; expected a file system that all workers share"):
            next(diagnose_runs(logs, engine=here))
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "distributed", None)
        with pytest.raises(ConfigError, match=r"pip install 'fitdoctor\[dask\]'"):
            next(diagnose_runs(logs, engine=here))
    with pytest.raises(click.ClickException, match="expected process, dask or"):
        main(["analyze", str(logs), "--engine", "spark"], standalone_mode=False)


def test_a_scheduler_without_workers(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fitdoctor.many import dask_cluster

    monkeypatch.setattr(dask_cluster, "_PATIENCE", 1)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None, protocol="tcp") as cluster,
        pytest.raises(ConfigError, match="has no worker, and none came within 1 s"),
    ):
        next(diagnose_runs(logs, engine=address(cluster)))
