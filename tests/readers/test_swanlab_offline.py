"""SwanLab files as 0.10.3 (protobuf) and 0.7.20 (JSON) wrote them, whole, damaged and under other names."""

from __future__ import annotations

import random
import shutil
import struct
import zlib
from pathlib import Path

import fitdoctor
import numpy as np
import pytest
from fitdoctor.errors import ReadError
from fitdoctor.readers import swanlab_offline
from hypothesis import given
from hypothesis import strategies as st

from .conftest import FIXTURES, Reading, check, series

FILES = sorted((FIXTURES / "swanlab").rglob("*.swanlab"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.parts[-3])
def test_real_files(reading: Reading, path: Path) -> None:
    run = reading.run(swanlab_offline, path)
    assert (run.name, run.source, run.finished) == ("digits-mlp", "swanlab", True)
    assert run.params == {"batch_size": 32, "lr": 0.01, "model/width": 64, "optimizer": "sgd"}
    assert not run.notes
    loss, val, zero = (series(run, tag) for tag in ("train/loss", "val/loss", "zero"))
    assert loss.steps is not None
    assert val.steps is not None
    assert loss.wall_time is not None
    assert loss.steps.tolist() == list(range(30))
    np.testing.assert_allclose(loss.values, np.round(2.3 * 0.95 ** np.arange(30), 4), rtol=1e-15)
    assert val.steps.tolist() == [4, 9, 14, 19, 24, 29]
    assert np.flatnonzero(np.isnan(series(run, "train/grad_norm").values)).tolist() == [20]
    assert zero.values.tolist() == [0.0] * 6  # protobuf leaves a zero out
    assert 1795420620 < loss.wall_time[0] < 1795420680
    assert not any(s.tag.startswith("__swanlab__") for s in run.series)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.parts[-3])
def test_from_the_folder_to_the_run(path: Path) -> None:
    (run,) = fitdoctor.open_runs(path.parents[1])
    assert run.name == path.parent.name
    assert run.facts["learning_rate"] == 0.01
    assert run.unmapped == ("zero",)
    assert {str(s.signal) for s in run.series} == {"train loss", "lr", "grad_norm", "val loss", "val accuracy"}


def test_it_is_known_by_its_content(tmp_path: Path) -> None:
    shutil.copyfile(FILES[0], tmp_path / "saved.log")
    (run,) = fitdoctor.open_runs(tmp_path)
    assert run.source == "swanlab"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.parts[-3])
def test_a_cut_file_gives_what_came_before(tmp_path: Path, path: Path) -> None:
    data = path.read_bytes()
    cut = tmp_path / "run-x.swanlab"
    before = 0
    for end in range(2000, len(data), 1511):
        cut.write_bytes(data[:end])
        try:
            (run,) = swanlab_offline.read(cut, [cut])
        except ReadError:
            continue
        check(run)
        points = sum(len(s.values) for s in run.series)
        assert points >= before
        assert run.finished is None
        before = points
    assert before > 20


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.parts[-3])
def test_damage_is_told(tmp_path: Path, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    bad = tmp_path / "run-x.swanlab"
    bad.write_bytes(data)
    (run,) = swanlab_offline.read(bad, [bad])
    assert [n.kind for n in run.notes] == ["corrupt"]


def framed(records: list[bytes]) -> bytes:
    """A file with these records, each whole."""
    body = b"".join(struct.pack("<IHB", zlib.crc32(r, zlib.crc32(b"\x01")), len(r), 1) + r for r in records)
    return b":SWL\xd6\xe1\x02" + body


@given(st.lists(st.binary(max_size=60) | st.binary(max_size=40).map(lambda b: b"j" + bytes([len(b)]) + b), max_size=8))
def test_arbitrary_records(tmp_path_factory: pytest.TempPathFactory, records: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.swanlab"
    path.write_bytes(framed(records))
    try:
        for run in swanlab_offline.read(path, [path]):
            check(run)
    except ReadError:
        pass


def test_random_bytes(tmp_path: Path) -> None:
    generator = random.Random(3)
    path = tmp_path / "any.swanlab"
    for n in range(40):
        path.write_bytes(b":SWL\xd6\xe1" + generator.randbytes(n * 9))
        try:
            for run in swanlab_offline.read(path, [path]):
                check(run)
        except ReadError:
            pass
