from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import fitdoctor
import numpy as np
import pytest
from fitdoctor.live import wire
from fitdoctor.live.sinks import FOLDER, EventFile, Facts, Point, Vector, last_step, tag_of
from fitdoctor.signals import GRAD_NORM, LOSS, LR, QUANTITIES, Signal
from hypothesis import given
from hypothesis import strategies as st

event_file_loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
tensor_util = pytest.importorskip("tensorboard.util.tensor_util")


def events(folder: Path) -> list[object]:
    """What TensorBoard itself reads; its loader checks every checksum."""
    found = []
    for path in sorted((folder / FOLDER).iterdir()):
        found += list(event_file_loader.EventFileLoader(str(path)).Load())
    return found


def items(n: int) -> list[Point | Vector]:
    layers = ("a.weight", "b.weight", "ü")
    out: list[Point | Vector] = []
    for i in range(1, n + 1):
        out.append(Point(i, 1000.0 + i, Signal(LOSS), 1 / i))
        out.append(Point(i, 1000.0 + i, Signal(LR, layer="pg1"), 0.1))
        out.append(Vector(i, 1000.0 + i, GRAD_NORM.name, layers, np.array([i, 2.0 * i, np.nan])))
    return out


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    sink = EventFile(tmp_path)
    sink.write([Facts(0, 1.0, {"optimizer": "Adam", "odd | name": "a\nb"}), *items(5)])
    sink.close()
    values: dict[str, list[tuple[int, list[float]]]] = {}
    kinds: dict[str, tuple[str, int, bytes]] = {}
    for event in events(tmp_path):
        for value in event.summary.value:  # type: ignore[attr-defined]
            if value.metadata.plugin_data.plugin_name:
                plugin = value.metadata.plugin_data
                kinds[value.tag] = (plugin.plugin_name, value.metadata.data_class, plugin.content)
            array = tensor_util.make_ndarray(value.tensor)
            if array.dtype.kind == "f":
                values.setdefault(value.tag, []).append((event.step, array.reshape(-1).tolist()))  # type: ignore[attr-defined]
    assert values["train/loss"] == [(i, [float(np.float32(1 / i))]) for i in range(1, 6)]
    assert values["grad_norm_per_layer"][1][1][:2] == [2.0, 4.0]
    assert kinds["train/loss"][:2] == ("scalars", 1)
    assert kinds["grad_norm_per_layer"][:2] == ("fitdoctor", 2)  # without a data class TensorBoard drops it
    assert b'"layers": ["a.weight", "b.weight", ' in kinds["grad_norm_per_layer"][2]
    assert kinds["config/text_summary"][0] == "text"


def test_accumulator_shows_scalars_natively(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sink = EventFile(tmp_path)
    sink.write(items(3))
    sink.close()
    found = accumulator.EventAccumulator(str(tmp_path / FOLDER), size_guidance={"tensors": 0}).Reload()
    assert found.Tags()["scalars"] == ["train/loss", "lr/pg1"]
    assert found.Tags()["tensors"] == ["grad_norm_per_layer"]
    assert found.summary_metadata["train/loss"].plugin_data.plugin_name == "scalars"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 0.0, 1e-300])
def test_any_number_can_be_written(tmp_path: Path, value: float) -> None:
    sink = EventFile(tmp_path)
    sink.write([Point(1, 1.0, Signal(LOSS), value)])
    sink.close()
    with np.errstate(over="ignore"):
        expected = np.float32(value)
    (got,) = [tensor_util.make_ndarray(v.tensor) for e in events(tmp_path) for v in e.summary.value]  # type: ignore[attr-defined]
    assert np.array_equal(got, expected, equal_nan=True)


@given(st.integers(0, 2**63 - 1))
def test_varints(number: int) -> None:
    data = wire.varint(number)
    value = sum((b & 0x7F) << 7 * i for i, b in enumerate(data))
    assert value == number
    assert all(b & 0x80 for b in data[:-1])
    assert not data[-1] & 0x80


def test_resuming_goes_on_counting(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0
    for n in (7, 300):
        sink = EventFile(tmp_path)
        sink.write(items(n))
        sink.close()
        assert last_step(tmp_path) == n
    assert len(list((tmp_path / FOLDER).iterdir())) == 2
    path = sorted((tmp_path / FOLDER).iterdir())[-1]
    whole = path.read_bytes()
    for cut in range(1, 200, 7):  # a file whose last record is cut is read up to it
        path.write_bytes(whole[:-cut])
        assert 7 <= last_step(tmp_path) <= 300


def test_a_killed_process_leaves_a_good_file(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from fitdoctor.live.sinks import EventFile, Point
from fitdoctor.signals import LOSS, Signal
sink = EventFile(Path({str(tmp_path)!r}), every=0.05)
i = 0
while True:
    i += 1
    sink.write([Point(i, 1.0 * i, Signal(LOSS), 1.0)])
    time.sleep(0.001)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 60
        while last_step(tmp_path) < 100 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    steps = [e.step for e in events(tmp_path) if e.summary.value]  # type: ignore[attr-defined]
    assert len(steps) >= 100
    assert steps == list(range(1, len(steps) + 1))


def test_an_interpreter_that_ends_without_close_writes_the_rest(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from fitdoctor.live.sinks import EventFile, Point
from fitdoctor.signals import LOSS, Signal
sink = EventFile(Path({str(tmp_path)!r}), every=60)
sink.write([Point(5, 1.0, Signal(LOSS), 1.0)])
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert last_step(tmp_path) == 5


def test_a_full_disk_does_not_stop_the_training(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    sink = EventFile(tmp_path, every=0.01)
    sink.close()
    (tmp_path / "full").symlink_to("/dev/full")
    import threading
    import weakref
    from queue import SimpleQueue

    from fitdoctor.live import sinks

    queue: SimpleQueue[object] = SimpleQueue()
    queue.put(items(2))
    queue.put(None)
    urgent = threading.Event()
    urgent.set()
    sinks._write_until_told(tmp_path / "full", queue, urgent, 0.01, weakref.ref(sink))  # type: ignore[arg-type]
    assert isinstance(sink.failure, OSError)


def test_records_are_framed_as_tfrecords() -> None:
    data = wire.record(b"12345")
    assert struct.unpack_from("<Q", data) == (5,)
    assert len(data) == 5 + 16


def test_readers_understand_every_tag() -> None:
    """A log of the monitor means to `fitdoctor analyze` what it means in memory."""
    from fitdoctor.readers.tags import interpret

    wrong = []
    for quantity in QUANTITIES.values():
        for layer in ("", "pg1"):
            signal = Signal(quantity, layer=layer)
            meaning = interpret("fitdoctor/" + tag_of(signal))
            if isinstance(meaning, str) or meaning.signal != signal:
                wrong.append((tag_of(signal), str(meaning)))
    assert not wrong


@pytest.mark.parametrize("layers", [("only",), ("a/b", "c"), tuple(f"layer{i}" for i in range(50))])
def test_our_own_reader_reads_the_vectors(tmp_path: Path, layers: tuple[str, ...]) -> None:
    import fitdoctor
    from fitdoctor.live.sinks import ABSENT

    sink = EventFile(tmp_path / "a")
    values = np.arange(len(layers), dtype=float)
    for step in range(1, 9):
        row = values + step
        row[-1] = ABSENT if step == 3 else row[-1]
        sink.write(
            [Point(step, 1.0 * step, Signal(LOSS), 1 / step), Vector(step, 1.0 * step, "grad_norm", layers, row)]
        )
    sink.close()
    (run,) = fitdoctor.open_runs(tmp_path)
    assert (run.name, run.unmapped) == ("a", ())
    found = run.layers(GRAD_NORM)
    assert tuple(found) == layers
    assert list(found[layers[-1]].steps) == [1, 2, 4, 5, 6, 7, 8]
    assert found[layers[0]].values[-1] == 8
    loss = run.get(LOSS)
    assert loss is not None
    assert len(loss) == 8


def test_a_log_reads_as_the_run_in_memory(tmp_path: Path) -> None:
    import fitdoctor
    import torch
    from tests.live.loops import batches, mlp, train

    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    criterion = torch.nn.CrossEntropyLoss()
    monitor = fitdoctor.attach(model, optimizer, criterion, logdir=tmp_path / "run", record_every=3)
    train(model, optimizer, criterion, batches(30))
    monitor.log(val_loss=0.25)
    monitor.close()
    (read,) = fitdoctor.open_runs(tmp_path)
    live = {s.signal: s for s in monitor.run.series}
    logged = {s.signal: s for s in read.series}
    assert live.keys() == logged.keys()
    for what, series in live.items():
        assert np.array_equal(series.steps, logged[what].steps), what
        assert np.array_equal(series.values.astype(np.float32), logged[what].values.astype(np.float32)), what
    for key in ("optimizer", "learning_rate", "batch_size", "classes", "loss_function"):
        assert read.facts.get(key) == monitor.run.facts[key], key


def test_vectors_are_read_whose_metadata_stand_in_a_record_of_another_length(tmp_path: Path) -> None:
    """Many records alike are read together, and must not be read before the one that says what they are."""
    layers = ("weight", "bias")
    sink = EventFile(tmp_path)
    for step in range(1, 200):
        sink.write([Vector(step, 1e9 + step, "grad_norm", layers, np.array([1.0, float(step)]))])
    sink.close()
    (run,) = fitdoctor.open_runs(tmp_path)
    assert not run.notes
    found = run.layers(GRAD_NORM)
    assert found["bias"].values.tolist() == [float(step) for step in range(1, 200)]
