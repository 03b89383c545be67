"""The parts of the TensorBoard reader: checksums, framing, tensors, histograms, settings."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from fitdoctor.readers import tensorboard
from fitdoctor.readers.raw import RawRun
from fitdoctor.readers.tensorboard import framing
from fitdoctor.readers.tensorboard.crc32c import crc32c, crc_of_zeros, linear_rows, masked, subset_sums, unmasked
from fitdoctor.readers.tensorboard.framing import BACK, FRAME, FRONT, HEADER, frames, intact, resync
from fitdoctor.readers.tensorboard.settings import params_of_text
from hypothesis import given, settings
from hypothesis import strategies as st

from . import event_files as plain

# --- checksums -----------------------------------------------------------------------------------


@given(st.binary(max_size=900))
def test_crc32c_equals_the_plain_one(data: bytes) -> None:
    assert crc32c(data) == plain.crc32c(data)
    assert struct.pack("<I", masked(crc32c(data))) == plain.masked(data)
    stored = np.frombuffer(plain.masked(data), "<u4").astype(np.uint32)
    assert unmasked(stored)[0] == plain.crc32c(data)


@pytest.mark.parametrize(
    "size", [0, 1, 3, 4, 5, 63, 64, 65, 255, 256, 257, 5_000, 7_046, 7_047, 14_094, 28_189, 56_377, 70_001]
)
def test_crc32c_of_every_size(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == plain.crc32c(data)
    assert crc_of_zeros(size) == plain.crc32c(bytes(size))


@pytest.mark.parametrize(("n", "width"), [(1, 1), (3, 57), (600, 57), (600, 300), (5, 700), (4, 0)])
def test_linear_rows_are_checksums_without_their_constant(n: int, width: int) -> None:
    rows = np.random.default_rng(n).integers(0, 256, (n, width), np.uint8)
    wanted = [plain.crc32c(row.tobytes()) ^ plain.crc32c(bytes(width)) for row in rows]
    assert linear_rows(rows).tolist() == wanted


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 31, 33, 255, 256, 257, 1_000, 5_000])
def test_subset_sums_tell_any_three_errors(n: int) -> None:
    """No one, two or three rows may add up to nothing, whatever equal errors they hold."""
    rng = np.random.default_rng(n)
    for count in (1, 2, 3):
        for _ in range(200 if n >= count else 0):
            rows = np.zeros(n, np.uint32)
            errors = np.array([1, 1, 1] if rng.random() < 0.5 else [1, 2, 3], np.uint32)[:count]
            rows[rng.choice(n, count, replace=False)] = errors
            assert subset_sums(rows).any()


def test_subset_sums_are_linear() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 777, 13), np.uint8)
    assert np.array_equal(subset_sums(a) ^ subset_sums(b), subset_sums(a ^ b))
    assert not subset_sums(np.zeros((777, 13), np.uint8)).any()


# --- framing ---------------------------------------------------------------------------------------


def room(data: bytes) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint8]], int, int]:
    return np.frombuffer(bytes(FRONT) + data + bytes(BACK), np.uint8), FRONT, FRONT + len(data)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 5, 30, 41, 57, 300, 5_000]), min_size=1, max_size=700),
    cut=st.integers(0, 60),
    zeros=st.booleans(),
)
def test_frames_are_where_the_records_were_put(sizes: list[int], cut: int, zeros: bool) -> None:
    body = bytes if zeros else np.random.default_rng(len(sizes)).bytes
    records = [plain.record(body(size)) for size in sizes]
    data = b"".join(records)
    data = data[: len(data) - cut]
    found = frames(*room(data))
    ends = np.cumsum([len(r) for r in records])
    whole = int(np.searchsorted(ends, len(data), side="right"))
    assert found.lengths.tolist() == sizes[:whole]
    assert (found.starts + FRAME + found.lengths - FRONT).tolist() == ends[:whole].tolist()
    assert found.end - FRONT == (ends[whole - 1] if whole else 0)
    assert not found.broken


@pytest.mark.parametrize("most", [1, 3, 8])
def test_chains_that_are_followed_on_find_each_record_once(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More records stand between two places where a header was recognised than are followed in lockstep."""
    monkeypatch.setattr(framing, "_MOST_STEPS", most)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sizes = rng.choice([7, 25, 69, 170, 1479], 400, p=[0.1, 0.4, 0.3, 0.1, 0.1]).tolist()
        found = frames(*room(b"".join(plain.record(rng.bytes(size)) for size in sizes)))
        assert found.lengths.tolist() == sizes


@settings(max_examples=40, deadline=None)
@given(hit=st.integers(0, 999), place=st.integers(0, 11), seed=st.integers(0, 99))
def test_frames_stop_at_a_damaged_header(hit: int, place: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    records = [bytearray(plain.record(rng.bytes(int(size)))) for size in rng.integers(0, 90, 1000)]
    records[hit][place] ^= 1 << seed % 8
    data, start, stop = room(b"".join(records))
    found = frames(data, start, stop)
    begin = sum(len(r) for r in records[:hit])
    assert (len(found.starts), found.end - FRONT, found.broken) == (hit, begin, True)
    after = resync(data, found.end + 1, stop)
    if hit == 999:
        assert after is None
    else:
        assert after is not None
        assert after - FRONT == begin + len(records[hit])


def test_intact_tells_damaged_bodies_of_all_sizes() -> None:
    rng = np.random.default_rng(1)
    sizes = [*rng.integers(0, 200, 300).tolist(), 1_000, 4_095, 4_096, 4_097, 9_000, 3, 2, 1, 0]
    records = [bytearray(plain.record(rng.bytes(size))) for size in sizes]
    hit = set(rng.choice(len(sizes), 60, replace=False).tolist())
    for i in hit:
        records[i][int(rng.integers(HEADER, len(records[i])))] ^= 64
    data, start, stop = room(b"".join(records))
    found = frames(data, start, stop)
    assert set(np.flatnonzero(~intact(data, found.starts, found.lengths)).tolist()) == hit


# --- what is no plain scalar --------------------------------------------------------------------------


def load(path: Path, *bodies: bytes) -> RawRun:
    path.write_bytes(b"".join(plain.record(b) for b in (plain.version(), *bodies)))
    (run,) = tensorboard.read(path.parent, [path])
    return run


def statistics(run: RawRun, tag: str) -> dict[str, list[float]]:
    return {s.statistic: s.values.tolist() for s in run.series if s.tag == tag}


def tf_limits() -> list[float]:
    positive = [1e-12]
    while positive[-1] < 1e20:
        positive.append(positive[-1] * 1.1)
    return [-p for p in positive[::-1]] + [0.0, *positive]


def tf_histogram(tag: str, values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bytes:
    """As TensorFlow 1 makes it: right edges, from the first bucket that holds something to the last."""
    limits = np.array([*tf_limits(), 1.7e308])
    counts = np.bincount(np.searchsorted(limits, values, side="right"), minlength=len(limits))
    held = np.flatnonzero(counts)
    part = slice(int(held[0]), int(held[-1]) + 1)
    moments = (values.min(), values.max(), len(values), values.sum(), (values**2).sum())
    return plain.histogram(tag, tuple(map(float, moments)), limits[part].tolist(), counts[part].astype(float).tolist())


def test_histogram_statistics_of_tensorflow_buckets(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = [np.where(rng.random(5_000) < 0.3, 0.0, rng.normal(k, 2.0, 5_000)) for k in range(4)]
    events = [plain.event(10 * k, 5.0 + k, tf_histogram("w", values)) for k, values in enumerate(samples)]
    got = statistics(load(tmp_path / "tfevents", *events), "w")
    for k, values in enumerate(samples):
        assert got["norm"][k] == pytest.approx(np.linalg.norm(values), rel=1e-12)
        assert got["absmax"][k] == np.abs(values).max()
        assert got["mean"][k] == pytest.approx(values.mean(), rel=1e-9)
        assert got["std"][k] == pytest.approx(values.std(), rel=1e-9)
        assert got["zero_fraction"][k] == (values == 0).mean()
        low, median, high = np.percentile(values, [5, 50, 95])
        assert got["median"][k] == pytest.approx(median, rel=0.1, abs=1e-9)
        assert got["spread"][k] == pytest.approx(high - low, rel=0.1)


def test_histogram_of_nothing_but_zeros(tmp_path: Path) -> None:
    got = statistics(load(tmp_path / "tfevents", plain.event(1, 1.0, tf_histogram("w", np.zeros(9)))), "w")
    assert got == {
        "norm": [0.0], "absmax": [0.0], "mean": [0.0], "std": [0.0], "median": [0.0], "spread": [0.0],
        "zero_fraction": [1.0],
    }  # fmt: skip


def test_wide_buckets_say_nothing_about_zeros(tmp_path: Path) -> None:
    body = plain.histogram("w", (-1.0, 1.0, 10.0, 0.0, 4.0), [-1.0, 0.0, 1.0], [0.0, 5.0, 5.0])
    got = statistics(load(tmp_path / "tfevents", plain.event(1, 1.0, body)), "w")
    assert "zero_fraction" not in got
    assert got["spread"] == [pytest.approx(1.8)]


@pytest.mark.parametrize(
    ("moments", "limits", "counts", "known"),
    [
        ((0.0, 0.0, 0.0, 0.0, 0.0), [1.0], [0.0], set()),  # no entries
        ((-1.0, 1.0, 4.0, 0.0, 4.0), [], [], {"norm", "absmax", "mean", "std"}),  # moments only
        ((-1.0, 1.0, 4.0, 0.0, 4.0), [1.0, 0.0], [2.0, 2.0], {"norm", "absmax", "mean", "std"}),  # edges go back
        ((-1.0, 1.0, 4.0, 0.0, 4.0), [0.0, 1.0], [-2.0, 6.0], {"norm", "absmax", "mean", "std"}),  # negative count
    ],
)
def test_broken_histograms_give_what_still_holds(
    tmp_path: Path, moments: tuple[float, ...], limits: list[float], counts: list[float], known: set[str]
) -> None:
    run = load(tmp_path / "tfevents", plain.event(1, 1.0, plain.histogram("w", moments, limits, counts)))
    assert statistics(run, "w").keys() - {"zero_fraction"} == known


def tensor(tag: str, dtype: int, shape: list[int], content: bytes, plugin: bytes, inner: bytes = b"") -> bytes:
    dims = b"".join(plain.message(2, b"\x08" + plain.varint(size)) for size in shape)
    body = b"\x08" + plain.varint(dtype) + plain.message(2, dims) + content
    return plain.message(1, tag.encode()) + plain.message(8, body) + plain.metadata(plugin, inner)


@pytest.mark.parametrize("kind", ["d", "f"])
def test_histograms_of_tensorflow_2(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(3).normal(1.0, 2.0, 4_000)
    counts, edges = np.histogram(values, 30)
    rows = np.stack((edges[:-1], edges[1:], counts), axis=1).astype(kind)
    first = tensor("w", {"f": 1, "d": 2}[kind], [30, 3], plain.message(4, rows.tobytes()), b"histograms")
    got = statistics(load(tmp_path / "tfevents", plain.event(1, 1.0, first)), "w")
    assert got["mean"] == [pytest.approx(values.mean(), abs=0.02)]
    assert got["std"] == [pytest.approx(values.std(), rel=0.02)]
    assert got["norm"] == [pytest.approx(np.linalg.norm(values), rel=0.02)]
    assert got["absmax"] == [pytest.approx(np.abs(values).max(), rel=1e-6)]
    assert got["median"] == [pytest.approx(np.median(values), abs=0.1)]


@pytest.mark.parametrize(
    ("dtype", "raw", "value"),
    [
        (14, np.uint16(0x3FC0).tobytes(), 1.5),  # bfloat16
        (19, np.float16(1.5).tobytes(), 1.5),
        (10, b"\x01", 1.0),
        (4, b"\xff", 255.0),
        (6, b"\xff", -1.0),
        (23, np.uint64(2**63).tobytes(), 2.0**63),
    ],
)
def test_rarer_types_of_scalars(tmp_path: Path, dtype: int, raw: bytes, value: float) -> None:
    body = tensor("x", dtype, [], plain.message(4, raw), b"scalars")
    (series,) = load(tmp_path / "tfevents", *(plain.event(i, 1.0, body) for i in range(40))).series
    assert series.values.tolist() == [value] * 40


def test_tensors_that_are_no_scalars_are_left_out_and_named(tmp_path: Path) -> None:
    vector = tensor("per_layer", 1, [3], plain.message(4, bytes(12)), b"scalars")
    one = tensor("one", 1, [1], plain.message(4, struct.pack("<f", 2.0)), b"scalars")
    run = load(tmp_path / "tfevents", *(plain.event(i, 1.0, body) for i in range(50) for body in (vector, one)))
    assert [(s.tag, len(s.values)) for s in run.series] == [("one", 50)]
    (note,) = run.notes
    assert "per_layer of shape (3,)" in note.text


# --- settings ------------------------------------------------------------------------------------------


def hparams(*pairs: tuple[str, bytes]) -> bytes:
    entries = b"".join(plain.message(1, plain.message(1, k.encode()) + plain.message(2, v)) for k, v in pairs)
    return plain.message(3, entries)


def number(value: float) -> bytes:
    return b"\x11" + struct.pack("<d", value)


def test_hparams_of_torch_and_of_tensorflow_2(tmp_path: Path) -> None:
    torch = plain.message(1, b"_hparams_/session_start_info") + plain.metadata(b"hparams", hparams(("lr", number(0.1))))
    given = (("units", number(64.0)), ("act", plain.message(3, b"relu")), ("bias", b"\x20\x01"))
    keras = tensor("_hparams_/session_start_info", 1, [0], b"", b"hparams", hparams(*given))
    run = load(tmp_path / "tfevents", plain.event(0, 1.0, torch), plain.event(0, 1.0, keras))
    assert run.params == {"lr": 0.1, "units": 64, "act": "relu", "bias": True}
    assert (run.finished, run.series, run.notes) == (None, (), ())


def test_a_session_that_failed_says_so_and_one_that_succeeded_does_not(tmp_path: Path) -> None:
    for status, finished in ((1, None), (2, False)):
        end = plain.message(4, b"\x08" + plain.varint(status))
        body = plain.message(1, b"_hparams_/session_end_info") + plain.metadata(b"hparams", end)
        assert load(tmp_path / "tfevents", plain.event(0, 1.0, body)).finished is finished


@pytest.mark.parametrize(
    ("tag", "text", "params"),
    [
        ("args/text_summary", '{"lr": 5e-05, "seed": 42, "fp16": false}', {"lr": 5e-05, "seed": 42, "fp16": False}),
        ("model_config", '{"hidden": 768, "sub": {"a": 1}}', {"model_config/hidden": 768, "model_config/sub/a": 1}),
        ("hyperparameters", "|key|value|\n|-|-|\n|lr|1e-3|\n|env|A|\n|on|True|", {"lr": 0.001, "env": "A", "on": True}),
        ("config", "```json\n{\"lr\": 0.1}\n```", {"lr": 0.1}),
        ("Config", "<pre>lr: 0.1\nname: 'x'</pre>", {"lr": 0.1, "name": "x"}),
        ("opt", "lr = 0.1\n\nbatch_size = 32", {"lr": 0.1, "batch_size": 32}),
        ("config", "Training went well: see below.\nNothing to add.", {}),
        ("config", "| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |", {}),
        ("config", "[1, 2]", {}),
        ("config", "", {}),
        ("generated", '{"text": "hello"}', {}),
        ("argsort", '{"a": 1}', {}),
    ],
)  # fmt: skip
def test_settings_in_text(tag: str, text: str, params: dict[str, object]) -> None:
    assert params_of_text(tag, text.encode()) == params


@given(st.sampled_from(["config", "args"]), st.binary(max_size=300))
def test_any_text_is_taken_or_left(tag: str, text: bytes) -> None:
    assert all(isinstance(name, str) for name in params_of_text(tag, text))
