"""Event files that are cut, damaged, still growing, or no event files at all."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from fitdoctor.errors import ReadError
from fitdoctor.readers import tensorboard
from fitdoctor.readers.raw import RawRun
from fitdoctor.readers.tensorboard import EventFileTail
from fitdoctor.readers.tensorboard import files as event_file
from fitdoctor.run import Note
from hypothesis import given, settings
from hypothesis import strategies as st

from . import event_files as plain

NAME = "events.out.tfevents.1.host"


def bodies(steps: int = 60, image: int = 700) -> list[bytes]:
    """A log of every kind of record: version, scalars in both layouts, a histogram, an image."""
    out = [plain.version()]
    for step in range(steps):
        out.append(plain.event(step, 1e9 + step, plain.simple("train/loss", 1 / (step + 1))))
        out.append(plain.event(step, 1e9 + step, plain.content("acc", step / 100)))
        if step % 20 == 10:
            limits, counts = [-1.0, 0.0, 1.0], [0.0, 3.0, 4.0]
            out.append(plain.event(step, 2.0, plain.histogram("w", (-1.0, 1.0, 7.0, 1.0, 5.0), limits, counts)))
            out.append(plain.event(step, 2.0, plain.image("sample", image)))
    return out


def load(path: Path, data: bytes) -> RawRun:
    path.write_bytes(data)
    (run,) = tensorboard.read(path.parent, [path])
    return run


def rows(run: RawRun) -> set[tuple[str, str, int, float]]:
    return {
        (s.tag, s.statistic, step, value)
        for s in run.series
        for step, value in zip(s.steps.tolist() if s.steps is not None else (), s.values.tolist(), strict=True)
    }


def kinds(run: RawRun) -> list[str]:
    return [note.kind for note in run.notes]


def test_a_file_cut_anywhere_keeps_every_record_before_the_cut(tmp_path: Path) -> None:
    records = [plain.record(body) for body in bodies(11, image=40)]
    data = b"".join(records)
    ends = np.cumsum([len(r) for r in records]).tolist()
    whole = {end: rows(load(tmp_path / NAME, data[:end])) for end in (0, *ends)}
    for cut in range(len(data)):
        run = load(tmp_path / NAME, data[:cut])
        end = max(e for e in (0, *ends) if e <= cut)
        assert rows(run) == whole[end], cut
        if cut == end:
            assert not run.notes
        else:
            (note,) = run.notes
            assert (note.kind, note.amount) == ("truncated", cut - end)
            assert f"from byte {end} on" in note.text


def test_one_flipped_bit_costs_one_record_and_is_reported(tmp_path: Path) -> None:
    records = [plain.record(body) for body in bodies(25)]
    data = b"".join(records)
    intact = [rows(load(tmp_path / NAME, b"".join(records[:i] + records[i + 1 :]))) for i in range(len(records))]
    start, draw = 0, random.Random(3)
    for i, record in enumerate(records):
        end = len(record)
        # length, its checksum, the body's first byte, wall time, step, something in the middle, the last byte, checksum
        for place in {0, 5, 9, 12, 15, 22, end // 2, end - 5, end - 1, draw.randrange(end)}:
            damaged = bytearray(data)
            damaged[start + place] ^= 1 << draw.randrange(8)
            run = load(tmp_path / NAME, bytes(damaged))
            assert rows(run) == intact[i], (i, place)
            assert [(n.kind, n.amount) for n in run.notes] == [("corrupt", len(record))], (i, place)
            (note,) = run.notes
            # A damaged header at the very end leaves no record behind it to go on from.
            assert f"byte {start}" in note.text
        start += len(record)


@pytest.mark.parametrize("size", [1, 100, 3_000])
def test_a_stretch_of_zeros_costs_the_records_it_touches(tmp_path: Path, size: int) -> None:
    records = [plain.record(body) for body in bodies(300)]
    data = bytearray(b"".join(records))
    ends = np.cumsum([len(r) for r in records])
    at = 7_000
    data[at : at + size] = bytes(size)
    first, last = np.searchsorted(ends, [at, at + size - 1], side="right")
    left = b"".join(records[:first] + records[last + 1 :])
    wanted = rows(load(tmp_path / NAME, left))
    run = load(tmp_path / NAME, bytes(data))
    assert rows(run) == wanted
    assert set(kinds(run)) == {"corrupt"}
    assert sum(note.amount or 0 for note in run.notes) == ends[last] - (ends[first - 1] if first else 0)


def test_zeros_to_the_end_are_reported_as_lost(tmp_path: Path) -> None:
    data = b"".join(plain.record(body) for body in bodies(30))
    run = load(tmp_path / NAME, data + bytes(5_000_000))
    assert rows(run) == rows(load(tmp_path / "other.tfevents", data))
    (note,) = run.notes
    assert (note.kind, note.amount) == ("corrupt", 5_000_000)
    assert "no further record" in note.text


def test_junk_before_the_first_record_is_skipped(tmp_path: Path) -> None:
    data = b"".join(plain.record(body) for body in bodies(30))
    run = load(tmp_path / NAME, random.Random(1).randbytes(10_000) + data)
    assert rows(run) == rows(load(tmp_path / "other.tfevents", data))
    assert [(n.kind, n.amount) for n in run.notes] == [("corrupt", 10_000)]


def test_many_damaged_places_make_few_notes(tmp_path: Path) -> None:
    records = [bytearray(plain.record(body)) for body in bodies(200)]
    for record in records[5::7]:
        record[20] ^= 4
    lost = sum(len(r) for r in records[5::7])
    run = load(tmp_path / NAME, b"".join(records))
    assert len(run.notes) < 12
    assert sum(note.amount or 0 for note in run.notes) == lost


def test_the_same_damage_in_many_records_is_found(tmp_path: Path) -> None:
    """Sums over records must not let equal errors cancel each other."""
    draw = random.Random(5)
    for count in (1, 2, 3, 4, 5, 6, 8, 100):
        for _ in range(6):
            records = [plain.record(plain.event(s, 1e9 + s, plain.simple("loss", s))) for s in range(1000, 1000 + 500)]
            hit = set(draw.sample(range(500), count))
            broken = [bytes([*r[:40], r[40] ^ 16, *r[41:]]) if i in hit else r for i, r in enumerate(records)]
            run = load(tmp_path / NAME, plain.record(plain.version()) + b"".join(broken))
            (series,) = run.series
            assert series.steps is not None
            assert len(series.steps) == 500 - count
            assert not {1000 + i for i in hit} & set(series.steps.tolist())


def test_a_record_inside_a_record_is_not_read(tmp_path: Path) -> None:
    """An image may hold bytes that are themselves an event file."""
    inner = b"".join(plain.record(plain.event(i, 1.0, plain.simple("hidden", i))) for i in range(200))
    image = plain.message(1, b"image") + plain.message(4, plain.message(4, inner))
    parts = [plain.version()]
    for i in range(30):
        parts += [plain.event(i, 1.0, plain.simple("loss", i)), plain.event(i, 1.0, image)]
    run = load(tmp_path / NAME, b"".join(plain.record(p) for p in parts))
    assert [(s.tag, len(s.values)) for s in run.series] == [("loss", 30)]
    assert not run.notes


def test_a_huge_length_costs_no_memory(tmp_path: Path) -> None:
    data = plain.record(plain.version()) + plain.record(plain.event(1, 1.0, plain.simple("loss", 3)))
    for length in (1 << 20, 1 << 30, 1 << 40, (1 << 64) - 1):
        size = struct.pack("<Q", length)
        run = load(tmp_path / NAME, data + size + plain.masked(size) + bytes(1000))
        assert rows(run) == {("loss", "", 1, 3.0)}
        assert kinds(run) in (["truncated"], ["corrupt"])


def test_a_record_larger_than_the_buffer_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_file, "BLOCK", 4096)
    many = plain.event(3, 1.0, *(plain.simple(f"tag{i}", i) for i in range(2_000)))
    first, last = (plain.event(step, 1.0, plain.simple("loss", step)) for step in (1, 5))
    run = load(tmp_path / NAME, b"".join(plain.record(b) for b in (plain.version(), first, many, last)))
    assert len(run.series) == 2_001
    assert ("loss", "", 5, 5.0) in rows(run)


def test_a_record_beyond_the_limit_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_file, "BLOCK", 4096)
    monkeypatch.setattr(event_file, "LARGEST", 10_000)
    first, last = (plain.event(step, 1.0, plain.simple("loss", step)) for step in (1, 5))
    large = plain.event(2, 1.0, plain.image("x", 20_000))
    run = load(tmp_path / NAME, b"".join(plain.record(b) for b in (plain.version(), first, large, last)))
    assert rows(run) == {("loss", "", 1, 1.0), ("loss", "", 5, 5.0)}
    assert [(n.kind, n.amount) for n in run.notes] == [("other", len(plain.record(large)))]


def test_records_that_hold_no_event_are_counted(tmp_path: Path) -> None:
    parts = [plain.version(), b"\xff\xff\xff", plain.event(1, 1.0, plain.simple("loss", 1)), b"", bytes(40)]
    run = load(tmp_path / NAME, b"".join(plain.record(p) for p in parts))
    assert rows(run) == {("loss", "", 1, 1.0)}
    assert [n.kind for n in run.notes] == ["other"]


def test_a_missing_file_is_a_read_error(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="expected a readable log file"):
        list(tensorboard.read(tmp_path, [tmp_path / NAME]))


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=3000))
def test_arbitrary_bytes_never_raise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / NAME
    path.write_bytes(data)
    (run,) = tensorboard.read(path.parent, [path])
    assert all(isinstance(note, Note) for note in run.notes)
    assert bool(run.notes) == bool(data)


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(st.binary(max_size=200), max_size=60), at=st.integers(0, 20_000), junk=st.binary(max_size=40))
def test_arbitrary_records_never_raise(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], at: int, junk: bytes
) -> None:
    """Good frames around arbitrary bodies, with some bytes written over."""
    path = tmp_path_factory.mktemp("any") / NAME
    good = b"".join(plain.record(part) for part in bodies(4))
    data = bytearray(good + b"".join(plain.record(part) for part in parts) + good)
    data[at : at + len(junk)] = junk
    path.write_bytes(data)
    (run,) = tensorboard.read(path.parent, [path])
    assert run.source == "tensorboard"


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 25_000), max_size=12),
    block=st.sampled_from([512, 3_000, 4 << 20]),
    damage=st.lists(st.integers(0, 25_000), max_size=3),
)
def test_a_growing_file_read_in_pieces_gives_the_same_as_at_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], block: int, damage: list[int]
) -> None:
    path = tmp_path_factory.mktemp("grow") / NAME
    data = bytearray(b"".join(plain.record(body) for body in bodies(150)))
    for at in damage:
        data[at % len(data)] ^= 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_file, "BLOCK", block)
        tail, pieces = EventFileTail(path), set[tuple[str, str, int, float]]()
        path.write_bytes(b"")
        for cut in (*sorted(cuts), len(data)):
            path.write_bytes(data[:cut])
            part = tail.new()
            assert part.waiting <= cut
            pieces |= rows(RawRun("", "", "", part.series))
    assert pieces == rows(load(path, bytes(data)))


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"".join(plain.record(body) for body in bodies(50)))
    tail = EventFileTail(path)
    assert tail.new().series
    assert not tail.new().series
    path.write_bytes(b"".join(plain.record(b) for b in (plain.version(), plain.event(1, 1.0, plain.simple("x", 2)))))
    assert [s.tag for s in tail.new().series] == ["x"]
