"""Weights & Biases files as wandb 0.16.6, 0.19.11 and 0.31.0 wrote them, whole and damaged."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from fitdoctor.errors import ReadError
from fitdoctor.readers import wandb_offline
from hypothesis import given
from hypothesis import strategies as st

from .conftest import FIXTURES, Reading, check, series

FILES = sorted((FIXTURES / "wandb").rglob("*.wandb"))
SAME = FILES[:2]
"""Written by the same loop."""


@pytest.mark.parametrize("path", SAME, ids=lambda p: p.parts[-3])
def test_real_files(reading: Reading, path: Path) -> None:
    run = reading.run(wandb_offline, path)
    assert run.name == path.parent.name
    assert run.finished is True
    assert run.params == {"lr": 0.1}
    assert not run.notes
    loss = series(run, "train/loss")
    assert loss.steps is not None
    assert loss.wall_time is not None
    assert loss.steps.tolist() == list(range(100))
    np.testing.assert_allclose(loss.values, 1 / np.arange(1, 101), rtol=1e-15)
    assert 1795391866 < loss.wall_time[0] < 1795391930
    assert np.isnan(series(run, "g/n").values).all()


def test_the_newest_version(reading: Reading) -> None:
    assert [p.parts[-3] for p in FILES] == ["0.16.6", "0.19.11", "0.31.0"]
    run = reading.run(wandb_offline, FILES[2])
    assert (run.name, run.finished) == ("eager-sun", True)
    assert run.params == {"lr": 0.1, "optim/name": "adam", "optim/betas": [0.9, 0.999], "epochs": 3}
    loss, val, nested = (series(run, tag) for tag in ("train/loss", "val/loss", "nested/a"))
    assert loss.steps is not None
    assert val.steps is not None
    assert loss.steps.tolist() == list(range(0, 600, 10))  # train/global_step, not the logger's own count
    np.testing.assert_allclose(loss.values, 1 / np.arange(1, 61), rtol=1e-15)
    assert val.steps.tolist() == [190, 390, 590]
    assert repr(val.values.tolist()) == "[0.1, 0.05, nan]"
    assert np.flatnonzero(np.isinf(nested.values)).tolist() == [5]


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append((value & 0x7F) | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def history(**row: str) -> bytes:
    return field(
        2, b"".join(field(1, field(2, key.encode()) + field(16, value.encode())) for key, value in row.items())
    )


def log(*records: bytes) -> bytes:
    """A .wandb file of these records, split over blocks as LevelDB's log format says."""
    out = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        first = True
        while first or record:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += bytes(room)
                room = 32768
            part, record = record[: room - 7], record[room - 7 :]
            kind = (1 if not record else 2) if first else (4 if not record else 3)
            out += struct.pack("<IHB", zlib.crc32(part, zlib.crc32(bytes([kind]))), len(part), kind) + part
            first = False
    return bytes(out)


def rows(count: int) -> list[bytes]:
    return [history(_step=str(i), loss=repr(i / 7)) for i in range(count)]


def write(folder: Path, data: bytes) -> Path:
    path = folder / "run-abc.wandb"
    path.write_bytes(data)
    return path


def test_values_of_all_kinds(reading: Reading, tmp_path: Path) -> None:
    image = '{"_type": "image-file", "size": 3}'
    row = history(
        _step="3", a="NaN", b="-Infinity", c='"inf"', d="true", e='{"x": {"y": 2}}', f=image, _runtime="1.5", g="[1]"
    )
    run = reading.run(wandb_offline, write(tmp_path, log(row)))
    assert {s.tag: repr(s.values.tolist()) for s in run.series} == {
        "a": "[nan]",
        "b": "[-inf]",
        "c": "[inf]",
        "e/x/y": "[2.0]",
    }


def test_the_trainers_step_outranks_the_loggers(reading: Reading, tmp_path: Path) -> None:
    records = []
    for i in range(6):
        if i % 3 == 2:
            records.append(history(_step=str(i), val_loss="1"))
        else:
            records.append(history(**{"_step": str(i), "loss": "2", "trainer/global_step": str(10 * i + 9)}))
    run = reading.run(wandb_offline, write(tmp_path, log(*records)))
    steps = {s.tag: None if s.steps is None else s.steps.tolist() for s in run.series}
    assert steps == {"loss": [9, 19, 39, 49], "val_loss": [19, 49]}


def test_settings_and_name(reading: Reading, tmp_path: Path) -> None:
    item = field(1, field(1, b"optim") + field(16, b'{"lr": 0.1, "betas": [0.9, 0.999]}'))
    about = field(17, field(4, item) + field(8, b"eager-sun-7"))
    later = field(5, field(1, field(1, b"seed") + field(16, b"3")) + field(1, field(1, b"_wandb") + field(16, b"{}")))
    run = reading.run(wandb_offline, write(tmp_path, log(about, later, *rows(2), field(18, field(1, 1)))))
    assert (run.name, run.finished) == ("eager-sun-7", False)
    assert run.params == {"optim/lr": 0.1, "optim/betas": [0.9, 0.999], "seed": 3}


def test_records_longer_than_a_block(reading: Reading, tmp_path: Path) -> None:
    big = history(_step="0", loss="0.5", text='"' + "x" * 100_000 + '"')
    run = reading.run(wandb_offline, write(tmp_path, log(big, *rows(2000))))
    assert len(series(run, "loss").values) == 2001
    assert not run.notes


def test_killed_while_writing(reading: Reading, tmp_path: Path) -> None:
    data = log(*rows(3000))
    run = reading.run(wandb_offline, write(tmp_path, data[:65536]))  # whole blocks reach the disk
    count = len(series(run, "loss").values)
    assert 1000 < count < 3000
    assert run.finished is None
    assert {n.kind for n in run.notes} <= {"truncated"}


def test_damage_costs_a_block_at_most(reading: Reading, tmp_path: Path) -> None:
    data = bytearray(log(*rows(6000)))
    data[32768 + 500] ^= 0xFF
    run = reading.run(wandb_offline, write(tmp_path, bytes(data)))
    loss = series(run, "loss")
    assert 4500 < len(loss.values) < 6000
    assert loss.steps is not None
    np.testing.assert_array_equal(loss.values, loss.steps / 7)
    assert [n.kind for n in run.notes] == ["corrupt"]


def test_nothing_logged_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, b":W&B\xe1\xbe\x00")
    with pytest.raises(ReadError, match=r"expected rows of history in a \.wandb file, got none in 7 bytes"):
        list(wandb_offline.read(path, [path]))


@pytest.mark.parametrize("original", FILES, ids=lambda p: p.parts[-3])
def test_cut_anywhere(tmp_path: Path, original: Path) -> None:
    data = original.read_bytes()
    counts = []
    for end in range(0, len(data), 61):
        path = write(tmp_path, data[:end])
        try:
            (run,) = wandb_offline.read(path, [path])
        except ReadError:
            continue
        check(run)
        assert not any(n.kind == "corrupt" for n in run.notes)
        counts.append(max((len(s.values) for s in run.series), default=0))
    assert counts == sorted(counts)
    assert max(counts) == (100 if original in SAME else 60)


def test_flipped_bytes(tmp_path: Path) -> None:
    data = FILES[0].read_bytes()
    generator = random.Random(5)
    for _ in range(150):
        damaged = bytearray(data)
        damaged[generator.randrange(7, len(data))] ^= 1 << generator.randrange(8)
        path = write(tmp_path, bytes(damaged))
        try:
            (run,) = wandb_offline.read(path, [path])
        except ReadError:
            continue
        check(run)
        for s in run.series:
            if s.tag == "train/loss":
                assert s.steps is not None
                np.testing.assert_allclose(s.values, 1 / (s.steps + 1), rtol=1e-15)  # the CRC guards every value


@given(st.binary(max_size=200))
def test_arbitrary_records(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    for content in (
        b":W&B\xe1\xbe\x00" + data,
        log(data),
        log(field(2, data)),
        log(field(2, field(1, data)), *rows(1)),
    ):
        path = write(folder, content)
        try:
            for run in wandb_offline.read(path, [path]):
                check(run)
        except ReadError:
            pass
