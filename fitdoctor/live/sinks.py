"""Where the monitor writes: an event file of its own, encoded and written off the training thread.

The file lies in a folder of its own below the log folder. Beside a `SummaryWriter`'s file in the same
folder, a second event file can make TensorBoard stop reading the first.

Every write is one whole batch of records handed to the operating system. Killing the process loses at
most what has not been handed over, and can cut the last record; readers stop before a cut record.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np

from fitdoctor.errors import ConfigError
from fitdoctor.live import wire
from fitdoctor.run import Fact, FloatArray
from fitdoctor.signals import SPLIT_QUANTITIES, Signal

FOLDER = "fitdoctor"
"""Name of the sub-folder that the monitor writes to."""

PLUGIN = "fitdoctor"
"""Name under which per-layer vectors are filed. Their metadata: ``{"v": 1, "quantity": ..., "layers": [...]}``."""

ABSENT = float(np.finfo(np.float32).min)
"""What stands in a vector for a layer that was not measured, such as one without gradient: the lowest float32."""


class Point(NamedTuple):
    """One number to write. (A tuple: some ten of them are made at every tick.)"""

    step: int
    wall_time: float
    signal: Signal
    value: float


class Vector(NamedTuple):
    """One number per layer to write.

    Attributes:
        step: training step.
        wall_time: seconds since the Unix epoch.
        quantity: name of the quantity.
        layers: names of the layers, the same object as long as they stay the same.
        values: float32[n] or float64[n].
        group: which of several optimizers the layers belong to, "" for the only or first one.
    """

    step: int
    wall_time: float
    quantity: str
    layers: tuple[str, ...]
    values: FloatArray
    group: str = ""


class Facts(NamedTuple):
    """Settings to write as a text that TensorBoard shows and `fitdoctor analyze` reads."""

    step: int
    wall_time: float
    facts: Mapping[str, Fact]


Item = Point | Vector | Facts


@cache
def tag_of(signal: Signal) -> str:
    """The tag of a signal: ``train/loss``, ``lr``, ``lr/pg1``, ``grad_norm``."""
    name = signal.quantity.name
    if signal.quantity in SPLIT_QUANTITIES:
        name = f"{signal.split}/{name}"
    return f"{name}/{signal.layer}" if signal.layer else name


@dataclass(slots=True)
class Encoder:
    """Turns items into records; says what a tag is the first time it comes."""

    known: set[str] = field(default_factory=set)
    heads: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def encode(self, items: Iterable[Item]) -> bytes:
        """Records of all items; neighbours of one step share an event."""
        out: list[bytes] = []
        values: list[bytes] = []
        clock: tuple[int, float] = (0, 0.0)
        for item in items:
            if values and (item.step, item.wall_time) != clock:
                out.append(wire.record(wire.event(*clock, b"".join(values))))
                values = []
            clock = (item.step, item.wall_time)
            values.append(self._value(item))
        if values:
            out.append(wire.record(wire.event(*clock, b"".join(values))))
        return b"".join(out)

    def _value(self, item: Item) -> bytes:
        if isinstance(item, Point):
            return wire.scalar(self._head(tag_of(item.signal), "scalars", b"", wire.SCALAR_CLASS), item.value)
        if isinstance(item, Vector):
            tag = f"{item.quantity}_per_layer" + (f"/{item.group}" if item.group else "")
            content = b""
            # A tensor of one entry is a scalar to readers, so a single layer is followed by one that is never there.
            pad = len(item.layers) == 1
            if self.layers.get(tag) is not item.layers:
                self.layers[tag] = item.layers
                self.known.discard(tag)
                names = [*item.layers, ""] if pad else item.layers
                content = json.dumps({"v": 1, "quantity": item.quantity, "layers": names}).encode()
            values = np.append(item.values, ABSENT) if pad else item.values
            return wire.vector(self._head(tag, PLUGIN, content, wire.TENSOR_CLASS), values)
        head = self._head("config/text_summary", "text", b"", wire.TENSOR_CLASS)
        rows = "\n".join(f"| {key} | {_cell(value)} |" for key, value in item.facts.items())
        return wire.text(head, f"| fact | value |\n|---|---|\n{rows}")

    def _head(self, tag: str, plugin: str, content: bytes, data_class: int) -> bytes:
        head = self.heads.get(tag)
        if head is None:
            head = self.heads[tag] = wire.part(1, tag.encode("utf-8", errors="replace"))
        if tag in self.known:
            return head
        self.known.add(tag)
        return head + wire.metadata(plugin, content, data_class)


def _cell(value: Fact) -> str:
    return str(value).replace("|", "/").replace("\n", " ")


class EventFile:
    """An event file that a thread of its own encodes and writes.

    Args:
        logdir: the log folder; the file goes into its sub-folder `FOLDER`.
        every: seconds between writes.

    Raises:
        ConfigError: if the file cannot be made.
    """

    def __init__(self, logdir: Path, every: float = 0.5) -> None:
        self.folder = logdir / FOLDER
        self.path = _opened(self.folder)
        self.every = every
        self.failure: OSError | None = None
        self._queue: SimpleQueue[Sequence[Item] | None] = SimpleQueue()
        self._urgent = threading.Event()
        self._closed = False
        self._process = os.getpid()
        # A daemon: a crashed training must not hang on it. The finalizer lets it write the rest at exit.
        self._thread = threading.Thread(target=self._work, name="fitdoctor-writer", daemon=True)
        self._thread.start()
        self._finish = weakref.finalize(self, _stop, self._queue, self._urgent, self._thread, self._process)

    def write(self, items: Sequence[Item], *, now: bool = False) -> None:
        """Hand items over; they are written within `every` seconds, or at once with `now`."""
        if self._closed or os.getpid() != self._process:  # a forked data loader must not write
            return
        self._queue.put(items)
        if now:
            self._urgent.set()

    def close(self) -> None:
        """Write the rest and stop."""
        self._closed = True
        self._finish()

    def _work(self) -> None:
        _write_until_told(self.path, self._queue, self._urgent, self.every, weakref.ref(self))


def _write_until_told(
    path: Path,
    queue: SimpleQueue[Sequence[Item] | None],
    urgent: threading.Event,
    every: float,
    owner: weakref.ReferenceType[EventFile],
) -> None:
    encoder = Encoder()
    going = True
    with path.open("ab", buffering=0) as file:
        while going:
            urgent.wait(every)
            urgent.clear()
            items: list[Item] = []
            try:
                while (some := queue.get_nowait()) is not None:
                    items += some
                going = False
            except Empty:
                pass
            try:
                if items:
                    file.write(encoder.encode(items))
            except OSError as error:  # disk full: training goes on, and close() tells
                if (sink := owner()) is not None:
                    sink.failure = error


def _stop(
    queue: SimpleQueue[Sequence[Item] | None], urgent: threading.Event, thread: threading.Thread, process: int
) -> None:
    if os.getpid() != process:
        return
    queue.put(None)
    urgent.set()
    thread.join(timeout=30)


def _opened(folder: Path) -> Path:
    """A new event file with its first record."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _unused(folder)
        path.write_bytes(wire.record(wire.opening(time.time())))
    except OSError as error:
        raise ConfigError(
            f"logdir: expected a folder that can be written to, got {folder.parent} ({error.strerror}); "
            "choose another one, or leave logdir out to log nowhere"
        ) from error
    return path


def _unused(folder: Path) -> Path:
    """A file name as TensorBoard wants it: ``events.out.tfevents.<seconds>.<host>.<pid>.<n>``."""
    stem = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
    n = 0
    while (folder / f"{stem}.{n}").exists():
        n += 1
    return folder / f"{stem}.{n}"


def last_step(logdir: Path) -> int:
    """The last training step that earlier monitors wrote below a log folder, 0 for none."""
    last = 0
    for path in (logdir / FOLDER).glob("events.out.tfevents.*"):
        last = max(last, _last_step(path))
    return last


def _last_step(path: Path) -> int:
    """Last step of one file: headers are followed, only the first bytes of each event are read."""
    last = 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        while at + 16 <= size:
            head = file.read(33)
            (length,) = struct.unpack_from("<Q", head)
            if at + 16 + length > size:
                break
            if length > 10 and head[21:22] == b"\x10":  # field 2, after the nine bytes of wall_time
                last = max(last, _read_varint(head[22:]))
            at += 16 + length
            file.seek(at)
    return last


def _read_varint(data: bytes) -> int:
    value = 0
    for i, byte in enumerate(data[:10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            break
    return value
