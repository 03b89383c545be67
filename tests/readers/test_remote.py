"""Logs at URLs: the same runs as from the disk, no more bytes than needed, and errors that say what to do."""

from __future__ import annotations

import functools
import http.server
import shutil
import sqlite3
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fitdoctor.cli import main
from fitdoctor.diagnose import diagnose
from fitdoctor.errors import ConfigError, NoLogsFound, ReadError
from fitdoctor.many import ReportStore, diagnose_runs
from fitdoctor.readers import find_runs, open_runs
from fitdoctor.readers.remote import mirror, mirror_at
from fitdoctor.readers.remote.listing import Entry, Listing, listed
from fitdoctor.readers.urls import below, place_of, shown
from fitdoctor.report import to_json
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).parent.parent / "fixtures"
SAMPLE = next((Path(__file__).parents[2] / "sample_logs" / "benign_spikes").glob("*tfevents*"))
EVENTS = "events.out.tfevents.1760000000.trainer.1.0"
TABLE = "step,train_loss,val_loss\n" + "".join(f"{i},{2 / (1 + i)},{2.1 / (1 + i)}\n" for i in range(40))


class Fetched:
    """What is asked of the memory file system: path -> bytes that went over the wire."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}

    def total(self) -> int:
        return sum(self.bytes.values())


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """An object store in this process, empty."""
    fs = fsspec.filesystem("memory")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield fs
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def wire(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> Fetched:
    """Counts the bytes that are fetched from `memory`."""
    fetched = Fetched()
    cat, get = MemoryFileSystem.cat_file, MemoryFileSystem.get_file

    def count(path: str, size: int) -> None:
        fetched.bytes[path] = fetched.bytes.get(path, 0) + size

    def cat_file(self: Any, path: str, **more: Any) -> bytes:
        data: bytes = cat(self, path, **more)
        count(path, len(data))
        return data

    def get_file(self: Any, path: str, target: str, **more: Any) -> None:
        get(self, path, target, **more)
        count(path, self.info(path)["size"])

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    monkeypatch.setattr(MemoryFileSystem, "get_file", get_file)
    return fetched


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a mirror that stays."""
    monkeypatch.setenv("FITDOCTOR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "remote"


def judged(place: str | Path, **more: Any) -> str:
    return to_json(diagnose_runs(place, **more))


def put(fs: Any, inside: str, data: str | bytes) -> None:
    fs.pipe_file(inside, data.encode() if isinstance(data, str) else data)


# --- the same as from the disk ------------------------------------------------------------------------------


def test_all_formats_are_read_from_a_url_as_from_the_disk(memory: Any, wire: Fetched, kept: Path) -> None:
    memory.put(f"{FIXTURES}/", "/bucket/fixtures", recursive=True)
    url = "memory://bucket/fixtures"
    local = judged(FIXTURES).replace(str(FIXTURES), url)
    assert judged(url) == local
    assert str(kept) not in local
    fetched = dict(wire.bytes)
    assert judged(url + "/") == local
    assert wire.bytes == fetched, "nothing is fetched twice"


def test_a_run_names_its_url(memory: Any, kept: Path) -> None:
    put(memory, "/bucket/lr-1/metrics.csv", TABLE)
    put(memory, "/bucket/lr-1/odd.csv", "step,loss\n1,2\n1,2,3,4\n")
    (run,) = open_runs("memory://bucket/lr-1/metrics.csv")
    assert (run.name, run.path) == ("metrics", "memory://bucket/lr-1/metrics.csv")
    runs = list(open_runs("memory://bucket"))
    assert {run.name.partition("/")[0] for run in runs} == {"lr-1"}
    assert all(run.path.startswith("memory://bucket/lr-1") for run in runs)
    assert all(str(kept) not in note.text for run in runs for note in run.notes)


def test_a_local_url_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "with space").mkdir()
    log = tmp_path / "with space" / "metrics.csv"
    log.write_text(TABLE)
    for url in (f"file://{log}", log.as_uri()):
        (run,) = open_runs(url)
        assert run.path == str(log)


def test_a_zip_is_read_in_place(tmp_path: Path, kept: Path) -> None:
    with zipfile.ZipFile(tmp_path / "logs.zip", "w") as archive:
        archive.writestr("runs/a/metrics.csv", TABLE)
        archive.write(SAMPLE, f"runs/b/{EVENTS}")
    runs = list(open_runs(f"zip://runs::{tmp_path}/logs.zip"))
    assert [(run.name, run.path) for run in runs] == [
        ("a", f"zip://runs/a/metrics.csv::{tmp_path}/logs.zip"),
        ("b", f"zip://runs/b::{tmp_path}/logs.zip"),
    ]
    assert len(runs[1].series) > 1


def test_one_file_of_a_web_server(tmp_path: Path, kept: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "metrics.csv").write_text(TABLE)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    quiet = functools.partial(Quiet, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site = f"http://127.0.0.1:{server.server_port}"
        (run,) = open_runs(f"{site}/metrics.csv?signature=secret")
        with pytest.raises(ReadError, match="got a web page"):
            find_runs(f"{site}/")
        with pytest.raises(ReadError, match="no such bucket, folder or file"):
            find_runs(f"{site}/other.csv")
        server.shutdown()
    assert (run.name, run.path) == ("metrics", f"{site}/metrics.csv")
    assert diagnose(run).steps is not None


def test_worker_processes_are_not_sent_to_the_memory_of_this_one(memory: Any, kept: Path) -> None:
    for i in range(3):
        put(memory, f"/bucket/run{i}/metrics.csv", TABLE)
    assert judged("memory://bucket", workers=2) == judged("memory://bucket")


def test_a_source_that_was_found_on_another_machine(
    memory: Any, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.put(f"{FIXTURES}/", "/bucket/fixtures", recursive=True)
    sources = find_runs("memory://bucket/fixtures")
    here = [(run.name, run.path, len(run.series)) for source in sources for run in source.load()]
    shutil.rmtree(kept / "memory")
    monkeypatch.setenv("FITDOCTOR_CACHE_DIR", str(tmp_path / "other"))
    moved = [source.moved() for source in sources]
    assert all(str(file).startswith(str(tmp_path / "other")) for source in moved for file in source.files)
    assert [(run.name, run.path, len(run.series)) for source in moved for run in source.load()] == here
    assert not (kept / "memory").exists()


# --- no more than needed ------------------------------------------------------------------------------------


def test_what_is_no_log_is_not_fetched(memory: Any, wire: Fetched, kept: Path) -> None:
    put(memory, "/bucket/run/metrics.csv", TABLE)
    put(memory, "/bucket/run/checkpoint.pt", bytes(3 << 20))
    put(memory, "/bucket/run/.git/config", "hidden")
    put(memory, "/bucket/data/corpus.txt", "words of a text, without numbers\n" * 50_000)
    for i in range(200):
        put(memory, f"/bucket/data/{i}.json", '{"picture": "none"}')
    (run,) = open_runs("memory://bucket")
    assert run.name == "run"
    assert not any(path.endswith((".pt", "config")) for path in wire.bytes)
    assert 0 < wire.bytes["/bucket/data/corpus.txt"] <= 1 << 18
    assert sum(path.endswith(".json") for path in wire.bytes) <= 64


def test_runs_that_are_not_asked_for_are_not_fetched(memory: Any, wire: Fetched, kept: Path) -> None:
    for i in range(4):
        put(memory, f"/bucket/run{i}/{EVENTS}", SAMPLE.read_bytes())
    assert [r.run for r in diagnose_runs("memory://bucket", match="run2")] == ["run2"]
    assert list(wire.bytes) == [f"/bucket/run2/{EVENTS}"]


def test_stored_reports_need_no_event_file(memory: Any, wire: Fetched, kept: Path, tmp_path: Path) -> None:
    store = ReportStore(tmp_path / "reports")
    for i in range(3):
        put(memory, f"/bucket/run{i}/{EVENTS}", SAMPLE.read_bytes())
    first = judged("memory://bucket", store=store)
    wire.bytes.clear()
    assert judged("memory://bucket", store=store, keep=False) == first
    assert wire.bytes == {}, "the listing tells that nothing has changed"
    put(memory, f"/bucket/run1/{EVENTS}", SAMPLE.read_bytes()[:-50])
    assert judged("memory://bucket", store=store) != first
    assert list(wire.bytes) == [f"/bucket/run1/{EVENTS}"]


def test_a_grown_event_file_is_read_on(memory: Any, wire: Fetched, kept: Path, tmp_path: Path) -> None:
    whole = SAMPLE.read_bytes()
    log = tmp_path / "local" / EVENTS
    log.parent.mkdir()
    for share in (0.3, 0.6, 1.0):
        data = whole[: int(share * len(whole))]
        wire.bytes.clear()
        put(memory, f"/bucket/local/{EVENTS}", data)
        log.write_bytes(data)
        found = judged("memory://bucket/local")
        assert found == judged(log.parent).replace(str(log.parent), "memory://bucket/local")
        if share > 0.3:
            assert wire.total() < 0.45 * len(whole)
    put(memory, f"/bucket/local/{EVENTS}", whole[:-1000] + bytes(3000))  # another file, though a longer one
    log.write_bytes(whole[:-1000] + bytes(3000))
    assert judged("memory://bucket/local") == judged(log.parent).replace(str(log.parent), "memory://bucket/local")


def test_what_is_deleted_there_is_not_read_here(memory: Any, kept: Path) -> None:
    memory.put(f"{FIXTURES}/mlflow_file", "/bucket", recursive=True)
    put(memory, "/bucket/extra/metrics.csv", TABLE)
    before = {run.name: len(run.series) for run in open_runs("memory://bucket")}
    memory.rm(next(p for p in memory.find("/bucket") if p.endswith("metrics/val_loss")))
    memory.rm("/bucket/extra/metrics.csv")
    after = {run.name: len(run.series) for run in open_runs("memory://bucket")}
    assert before.keys() - after.keys() == {"extra"}
    (name,) = after
    assert after[name] == before[name] - 1


def test_a_mirror_has_a_limit(memory: Any, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = SAMPLE.stat().st_size
    for i in range(40):
        put(memory, f"/bucket/run{i}/{EVENTS}", SAMPLE.read_bytes())
    everything = judged("memory://bucket")
    assert sum(f.stat().st_size for f in kept.rglob("*tfevents*")) == 40 * size
    monkeypatch.setenv("FITDOCTOR_MIRROR_GB", str(20.5 * size / 1e9))
    put(memory, "/bucket/run0/" + EVENTS, SAMPLE.read_bytes())  # one to be fetched again
    assert judged("memory://bucket") == everything
    assert sum(f.stat().st_size for f in kept.rglob("*tfevents*")) <= 21 * size
    monkeypatch.setenv("FITDOCTOR_MIRROR_GB", "little")
    memory.rm("/bucket", recursive=True)
    put(memory, "/bucket/run0/" + EVENTS, SAMPLE.read_bytes())
    with pytest.raises(ConfigError, match="FITDOCTOR_MIRROR_GB: expected a number of gigabytes, got 'little'"):
        judged("memory://bucket")


def test_without_a_cache_nothing_stays(memory: Any, kept: Path) -> None:
    for i in range(3):
        put(memory, f"/bucket/run{i}/{EVENTS}", SAMPLE.read_bytes())
    assert len(list(diagnose_runs("memory://bucket", keep=False))) == 3
    assert not kept.exists()
    assert not list(mirror.passing_mirror().folder.rglob("*tfevents*"))


def test_what_was_cut_short_here_is_fetched_again(memory: Any, wire: Fetched, kept: Path) -> None:
    put(memory, f"/bucket/run/{EVENTS}", SAMPLE.read_bytes())
    first = judged("memory://bucket")
    (copy,) = kept.rglob("*tfevents*")
    copy.write_bytes(SAMPLE.read_bytes()[:100])  # as a full disk leaves it
    assert judged("memory://bucket") == first


def test_a_folder_that_cannot_hold_a_mirror(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FITDOCTOR_CACHE_DIR", str(tmp_path / "file"))
    put(memory, "/bucket/run/metrics.csv", TABLE)
    assert [run.name for run in open_runs("memory://bucket")] == ["run"]
    with pytest.raises(ReadError, match="FITDOCTOR_CACHE_DIR"):
        mirror_at(tmp_path / "file", True)


def test_a_damaged_index_is_said(memory: Any, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: Any) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    put(memory, f"/bucket/run/{EVENTS}", SAMPLE.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(mirror.Mirror, "fetch", damaged)
        patch.setattr(mirror.Mirror, "release", damaged)
        (report,) = diagnose_runs("memory://bucket")
    assert "is malformed; try again, delete that folder" in report.notes[0].text
    (kept / "index.sqlite").parent.joinpath("other").mkdir()
    (kept / "other" / "index.sqlite").write_text(
        "no database at all, though as long as the header of one would be " * 9
    )
    with pytest.raises(ReadError, match="FITDOCTOR_CACHE_DIR"):
        mirror_at(kept / "other", True)


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_fetched_costs_its_run_only(
    memory: Any, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = MemoryFileSystem.get_file

    def refused(self: Any, path: str, target: str, **more: Any) -> None:
        if "run1" in path:
            raise PermissionError("Access Denied")
        get(self, path, target, **more)

    for i in range(3):
        put(memory, f"/bucket/run{i}/{EVENTS}", SAMPLE.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get_file", refused)
        first, second, third = diagnose_runs("memory://bucket")
    assert (first.verdict, second.verdict, third.verdict) == ("healthy", "cannot judge", "healthy")
    assert "access was denied" in second.notes[0].text
    assert second.path == "memory://bucket/run1"
    assert [r.verdict for r in diagnose_runs("memory://bucket")] == ["healthy"] * 3


def test_a_download_that_ends_early_is_no_log(memory: Any, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(self: Any, path: str, target: str, **more: Any) -> None:
        Path(target).write_bytes(SAMPLE.read_bytes()[:1000])

    put(memory, f"/bucket/run/{EVENTS}", SAMPLE.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get_file", cut)
        (run,) = open_runs("memory://bucket")
    assert "changed while it was read" in run.notes[0].text
    assert not run.series


def test_a_key_cannot_leave_the_mirror(memory: Any, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(memory, "/bucket/run/metrics.csv", TABLE)
    find = MemoryFileSystem.find

    def hostile(self: Any, path: str, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = find(self, path, **more)
        about = found["/bucket/run/metrics.csv"]
        return {**found, **{f"/bucket/{key}": about for key in ("../../../evil.csv", "a/../../b.csv", "x//y.csv")}}

    monkeypatch.setattr(MemoryFileSystem, "find", hostile)
    listing = listed("memory://bucket")
    assert list(listing.entries) == ["run/metrics.csv"]
    runs = {run.name: run for run in open_runs("memory://bucket")}
    assert runs.pop("run").series
    assert len(runs) == 3
    assert all("no path on this machine" in run.notes[0].text for run in runs.values())
    assert {f.name for f in kept.parent.rglob("*.csv")} == {"metrics.csv"}


def test_nothing_there_is_said(memory: Any, kept: Path) -> None:
    with pytest.raises(ReadError, match=r"memory://bucket/none: expected logs, but there is no such bucket"):
        find_runs("memory://bucket/none")
    put(memory, "/bucket/model.pt", b"weights")
    with pytest.raises(NoLogsFound, match=r"memory://bucket: no training log among 1 file .*\.pt"):
        find_runs("memory://bucket")
    put(memory, "/bucket/notes.txt", "nothing")
    with pytest.raises(NoLogsFound, match=r"memory://bucket/notes.txt: not a training log"):
        find_runs("memory://bucket/notes.txt")


@pytest.mark.parametrize(
    ("url", "missing", "said"),
    [
        ("s3://bucket/logs", "fsspec.core", r"pip install 'fitdoctor\[remote\]' s3fs"),
        ("s3://bucket/logs", "s3fs", r"s3:// needs a package that is not installed; pip install s3fs"),
        ("gs://bucket/logs", "gcsfs", r"gs:// needs a package that is not installed; pip install gcsfs"),
        ("hf://datasets/me/logs", "huggingface_hub", r"pip install huggingface_hub"),
        ("nonsense://x", "", r"got the protocol 'nonsense', which fsspec does not know"),
    ],
)
def test_a_missing_package_is_named(url: str, missing: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, url.partition("://")[0], raising=False)
    with pytest.raises(ReadError, match=said):
        find_runs(url)


# --- the commands -------------------------------------------------------------------------------------------


def test_the_commands_take_urls(memory: Any, kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(memory, "/bucket/a/metrics.csv", TABLE)
    put(memory, "/bucket/b/metrics.csv", TABLE.replace("2.1", "nan"))
    run = functools.partial(main, standalone_mode=False)
    assert run(["analyze", "memory://bucket/a", "memory://bucket/b", "--format", "json", "--exit-zero"]) == 0
    said = capsys.readouterr().out
    assert '"run": "memory://bucket/a"' in said
    assert '"path": "memory://bucket/b/metrics.csv"' in said
    assert run(["analyze", "memory://bucket/b", "--format", "sarif", "--exit-zero"]) == 0
    assert '"uri": "memory://bucket/b/metrics.csv"' in capsys.readouterr().out
    assert run(["analyze", "memory://bucket/none"]) == 2
    assert "no such bucket, folder or file" in capsys.readouterr().err
    assert run(["signals", "memory://bucket/a"]) == 0
    assert "val loss" in capsys.readouterr().out
    assert run(["watch", "memory://bucket", "--once", "--exit-zero"]) == 0
    assert "2 runs" in capsys.readouterr().out
    run(["compare", "memory://bucket/a", "memory://bucket/b", "--exit-zero"])
    assert "memory://bucket/b" in capsys.readouterr().out
    run(["compare", "memory://bucket/a*", "--against", "memory://bucket/b*", "--exit-zero"])
    assert "val loss" in capsys.readouterr().out


def test_a_growing_log_is_followed(memory: Any, wire: Fetched, kept: Path) -> None:
    from fitdoctor.readers.tensorboard import Memory

    whole = SAMPLE.read_bytes()
    before, points, looks = None, [], Memory()
    for share in (0.3, 0.6, 0.6, 1.0):
        put(memory, f"/bucket/run/{EVENTS}", whole[: int(share * len(whole))])
        (source,) = find_runs("memory://bucket")
        assert source.fingerprint() != before
        before = source.fingerprint()
        (run,) = source.load(looks)
        points.append(sum(len(series) for series in run.series))
    assert points[0] < points[1] == points[2] < points[3]
    (afresh,) = find_runs("memory://bucket")[0].load()
    assert sum(len(series) for series in afresh.series) == points[3]


# --- names of places ----------------------------------------------------------------------------------------


@given(st.text(st.sampled_from("ab/.:@?#%*\\ é~"), max_size=30), st.sampled_from(["s3", "https", "zip"]))
def test_a_mirror_of_any_url_stays_in_its_folder(rest: str, scheme: str) -> None:
    parts = place_of(f"{scheme}://{rest}")
    assert parts[0] == scheme
    assert not any(part in ("", ".", "..") or set(part) & set('/\\:*?"<>|') for part in parts)


@given(st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), max_size=20))
def test_what_may_be_stored_of_a_url_is_no_secret(path: str) -> None:
    path = path.replace("?", "").replace("#", "").replace("@", "").strip("/")
    assert shown(f"https://me:secret@host/{path}?key=secret#secret") == f"https://host/{path}".rstrip("/")
    assert shown(below("s3://bucket", path or "x")).startswith("s3://bucket/")


# --- S3, by a server that speaks it -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 with a bucket of logs."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The S3 file system, as a user has set it up."""
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": s3,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = fsspec.filesystem("s3")
    if not fs.exists("bucket"):
        fs.mkdir("bucket")
        fs.put(f"{FIXTURES}/", "bucket/logs/", recursive=True)
    yield fs
    s3fs.S3FileSystem.clear_instance_cache()


noisy = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
)
"""aiobotocore leaves its connections to the end of the process."""


@noisy
def test_s3_is_read_as_the_disk(bucket: Any, kept: Path, tmp_path: Path) -> None:
    url = "s3://bucket/logs"
    local = judged(FIXTURES).replace(str(FIXTURES), url)
    assert judged(url) == local
    store = ReportStore(tmp_path / "reports")
    assert judged(url, store=store) == local
    shutil.rmtree(kept / "s3")
    assert judged(url, store=store) == local


@noisy
def test_the_errors_of_s3_say_what_to_do(bucket: Any, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    for url in ("s3://no-such-bucket/logs", "s3://bucket/nothing"):
        with pytest.raises(ReadError, match=f"{url}: expected logs, but there is no such bucket"):
            find_runs(url)
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        patch.setenv("HOME", str(kept))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(kept / "none"))
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(ReadError, match=r"no credentials to read it with; set AWS_PROFILE"):
            find_runs("s3://bucket/logs")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(ReadError, match=r"the service was not reached"):
            find_runs("s3://bucket/logs")


def test_an_entry_without_a_stamp_is_fetched_every_time(memory: Any, wire: Fetched, kept: Path) -> None:
    put(memory, "/bucket/metrics.csv", TABLE)
    fetch = Callable[[], dict[str, str]]
    entry = Entry("/bucket/metrics.csv", len(TABLE), "")
    want = mirror.Want("memory/bucket/metrics.csv", entry)
    here = mirror_at(kept, True)
    again: fetch = lambda: here.fetch(memory, "memory://bucket", [want])  # noqa: E731
    assert again() == again() == {}
    assert wire.total() == 2 * len(TABLE)
    stamped = replace(want, entry=replace(entry, stamp="1"))
    assert here.fetch(memory, "memory://bucket", [stamped]) == here.fetch(memory, "memory://bucket", [stamped]) == {}
    assert wire.total() == 3 * len(TABLE)
    assert Listing("memory://bucket", memory, {"": entry}).single
