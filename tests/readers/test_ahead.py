"""Small event files read together say what each says by itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fitdoctor.errors import ReadError
from fitdoctor.readers import open_runs, tensorboard
from fitdoctor.readers.raw import RawRun
from fitdoctor.readers.tensorboard import ReadAhead, blocks
from fitdoctor.readers.tensorboard import files as event_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import event_files as plain

NAME = "events.out.tfevents.1.host"
HPARAMS = plain.message(1, b"_hparams_/session_start_info") + plain.metadata(b"hparams", plain.message(3, b""))
TEXT = (
    plain.message(1, b"config")
    + plain.message(8, b"\x08\x07" + plain.message(8, b'{"lr": 0.1}'))
    + plain.metadata(b"text")
)


def steps(draw: random.Random, count: int, tags: Sequence[str], write: object = plain.simple, first: int = 0) -> bytes:
    assert callable(write)
    return b"".join(
        plain.record(plain.event(first + i, draw.random() * 1e9, write(tag, draw.gauss(0, 9))))
        for i in range(count)
        for tag in tags
    )


def alone(paths: Sequence[Path]) -> list[RawRun]:
    return [run for path in paths for run in tensorboard.read(path.parent, [path])]


def ahead(paths: Sequence[Path]) -> list[RawRun]:
    through = ReadAhead(paths)
    return [run for path in paths for run in tensorboard.read(path.parent, [path], through)]


def told(run: RawRun) -> object:
    series = [
        (s.tag, s.statistic, *(None if a is None else (a.dtype, a.tobytes()) for a in (s.steps, s.values, s.wall_time)))
        for s in run.series
    ]
    return run.name, series, run.params, run.notes, run.finished


@pytest.fixture
def by_itself(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read by themselves."""
    seen: list[Path] = []
    new = event_file.EventFileTail.new
    monkeypatch.setattr(event_file.EventFileTail, "new", lambda tail: seen.append(tail.path) or new(tail))
    monkeypatch.setattr(blocks, "_RECENT", {})
    return seen


def written(root: Path, contents: Sequence[bytes]) -> list[Path]:
    paths = [root / f"run{i:03}" / NAME for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return paths


@pytest.mark.parametrize("write", [plain.simple, plain.content], ids=["torch", "TensorFlow 2"])
def test_runs_of_one_script_are_read_together(tmp_path: Path, by_itself: list[Path], write: object) -> None:
    draw = random.Random(3)
    head = plain.record(plain.version())
    tags = ["train/loss", "train/acc", "lr"]
    paths = written(tmp_path, [head + steps(draw, 300 + 7 * i, tags, write) for i in range(60)])
    together = ahead(paths)
    assert len(by_itself) <= 3  # the first must be read to know what they look like
    assert list(map(told, together)) == list(map(told, alone(paths)))


def test_settings_before_the_curves_are_read(tmp_path: Path, by_itself: list[Path]) -> None:
    draw = random.Random(4)
    head = plain.record(plain.version()) + plain.record(plain.event(0, 1.0, TEXT))
    paths = written(tmp_path, [head + steps(draw, 200, ["loss", "lr"]) for _ in range(20)])
    together = ahead(paths)
    assert len(by_itself) <= 3
    assert together[-1].params == {"lr": 0.1}
    assert list(map(told, together)) == list(map(told, alone(paths)))


def test_one_damaged_file_among_many_says_so(tmp_path: Path, by_itself: list[Path]) -> None:
    draw = random.Random(5)
    contents = [plain.record(plain.version()) + steps(draw, 200, ["loss", "lr"]) for _ in range(40)]
    broken = bytearray(contents[20])
    broken[-9] ^= 1  # in the last value: only its checksum tells
    contents[20] = bytes(broken)
    runs = ahead(written(tmp_path, contents))
    assert [i for i, run in enumerate(runs) if run.notes] == [20]
    assert [n.kind for n in runs[20].notes] == ["corrupt"]
    assert all(len(s.values) == 200 for i, run in enumerate(runs) for s in run.series if i != 20)


_PIECES = ("alike", "alike", "alike", "alike", "other tags", "tensors", "settings", "hparams", "image", "late", "empty")


@st.composite
def folders(draw: st.DrawFn) -> list[bytes]:
    """Event files of which many look alike, and some do not, or are damaged or cut."""
    seed = random.Random(draw(st.integers(0, 2**32)))
    out = []
    for _ in range(draw(st.integers(2, 12))):
        kind, count = draw(st.sampled_from(_PIECES)), draw(st.sampled_from([0, 3, 40, 40, 140, 140, 141, 200]))
        write = plain.content if kind == "tensors" else plain.simple
        data = plain.record(plain.version(seed.random()))
        data += b"".join(
            plain.record(plain.event(0, 1.0, value))
            for name, value in (("settings", TEXT), ("hparams", HPARAMS), ("image", plain.image("i", 300)))
            if kind == name
        )
        tags = ["loss", "accuracy"] if kind == "other tags" else ["loss", "lr", "val"]
        data += steps(seed, count, tags, write, first=90 if kind == "late" else 0)
        if draw(st.integers(0, 4)) == 0:
            data += draw(st.sampled_from([b"\0" * 9, steps(seed, 1, ["loss"]), plain.record(b"\xff\xff"), TEXT]))
        if draw(st.integers(0, 4)) == 0:
            at = draw(st.integers(0, len(data) - 1))
            data = data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
        if draw(st.integers(0, 6)) == 0:
            data = data[: draw(st.integers(0, len(data)))]
        out.append(b"" if kind == "empty" else data)
    return out


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(contents=folders())
def test_any_mixture_is_read_as_file_by_file(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    paths = written(tmp_path_factory.mktemp("many"), contents)
    assert list(map(told, ahead(paths))) == list(map(told, alone(paths)))


def test_files_may_be_asked_for_in_any_order_and_more_than_once(tmp_path: Path) -> None:
    draw = random.Random(6)
    contents = [plain.record(plain.version()) + steps(draw, 50, ["loss", "lr"]) for _ in range(30)]
    paths = written(tmp_path, contents)
    through = ReadAhead(paths[:25])
    order = draw.choices(paths, k=60)
    for path in order:
        (run,) = tensorboard.read(path.parent, [path], through)
        (wanted,) = alone([path])
        assert told(run) == told(wanted)


def test_a_file_that_is_gone_is_a_read_error(tmp_path: Path) -> None:
    draw = random.Random(7)
    paths = written(tmp_path, [plain.record(plain.version()) + steps(draw, 50, ["loss"]) for _ in range(4)])
    paths[2].unlink()
    through = ReadAhead(paths)
    assert [len(through.read(path).series) for path in paths[:2]] == [1, 1]
    with pytest.raises(ReadError, match="expected a readable log file"):
        through.read(paths[2])
    assert len(through.read(paths[3]).series) == 1


def test_open_runs_reads_ahead(tmp_path: Path, by_itself: list[Path]) -> None:
    draw = random.Random(8)
    written(tmp_path, [plain.record(plain.version()) + steps(draw, 150, ["loss", "lr"]) for _ in range(30)])
    runs = list(open_runs(tmp_path))
    assert [run.name for run in runs] == [f"run{i:03}" for i in range(30)]
    assert all(np.array_equal(s.steps, np.arange(150)) for run in runs for s in run.series)
    assert len(by_itself) <= 3
