"""Event files for the benchmarks: what SummaryWriter and TensorFlow write, with numbers made up."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fitdoctor.readers.tensorboard.crc32c import crc_of_zeros, linear_rows, masked
from numpy.typing import NDArray

_START = 1_700_000_000.0


def varint(value: int) -> bytes:
    """A number as a protobuf varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def event(step: int, wall_time: float, values: bytes) -> bytes:
    """An Event with a summary."""
    head = b"\x09" + struct.pack("<d", wall_time) + (b"\x10" + varint(step) if step else b"")
    return head + field(5, values)


def simple_value(tag: bytes, value: float) -> bytes:
    """A Summary.Value as torch and TensorFlow 1 write a scalar."""
    return field(1, field(1, tag) + b"\x15" + struct.pack("<f", value))


def tensor_value(tag: bytes, value: float) -> bytes:
    """A Summary.Value as TensorFlow 2 and Keras write a scalar: a tensor, with the plugin's metadata."""
    tensor = b"\x08\x01\x12\x00" + field(4, struct.pack("<f", value))
    metadata = field(1, field(1, b"scalars")) + b"\x20\x01"
    return field(1, field(1, tag) + field(8, tensor) + field(9, metadata))


class Log(NamedTuple):
    """Points in the order in which they are logged.

    Attributes:
        tags: the tags.
        which: int64[n], index of the tag of each point.
        steps: int64[n].
        values: float32[n].
        walls: float64[n].
    """

    tags: list[str]
    which: NDArray[np.int64]
    steps: NDArray[np.int64]
    values: NDArray[np.float32]
    walls: NDArray[np.float64]


def write_log(path: Path, log: Log, layout: Callable[[bytes, float], bytes]) -> None:
    """Write an event file with one event for each point, in this layout."""
    names = [tag.encode() for tag in log.tags]
    points = zip(log.which.tolist(), log.steps.tolist(), log.values.tolist(), log.walls.tolist(), strict=True)
    write_records(path, [event(step, wall, layout(names[i], value)) for i, step, value, wall in points])


def write_records(path: Path, events: Sequence[bytes]) -> None:
    """Write an event file with these events after the version that every writer puts first."""
    events = [b"\x09" + struct.pack("<d", _START) + field(3, b"brain.Event:2"), *events]
    lengths = np.array([len(e) for e in events])
    checks = np.empty(len(events), np.uint32)
    heads = {}
    for length in np.unique(lengths).tolist():
        here = np.flatnonzero(lengths == length)
        rows = np.frombuffer(b"".join([events[i] for i in here]), np.uint8).reshape(-1, length)
        checks[here] = linear_rows(rows) ^ np.uint32(crc_of_zeros(length))
        size = np.frombuffer(struct.pack("<Q", length), np.uint8)[None]
        heads[length] = size.tobytes() + struct.pack("<I", masked(int(linear_rows(size)[0]) ^ crc_of_zeros(8)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for e, check in zip(events, checks.tolist(), strict=True):
            file.write(heads[len(e)] + e + struct.pack("<I", masked(check)))


_REGULAR = ["train/loss", "train/accuracy", "train/grad_norm", "train/lr", "train/throughput"]
_IRREGULAR = [
    *_REGULAR, "loss", "val/loss", "val/accuracy", "epoch", "lr-AdamW/pg1", "lr-AdamW/pg2",
    *(f"encoder/layers.{i}.self_attn.out_proj.weight/grad_norm" for i in range(12)),
    *(f"layer{i}/activation_mean" for i in range(7)),
]  # fmt: skip


def regular(points: int, seed: int = 0) -> Log:
    """Five tags, always logged in the same order."""
    rng = np.random.default_rng(seed)
    points -= points % len(_REGULAR)
    return Log(
        _REGULAR,
        np.arange(points) % len(_REGULAR),
        np.arange(points) // len(_REGULAR),
        rng.standard_normal(points).astype(np.float32),
        _START + np.cumsum(rng.exponential(0.01, points)),
    )


def irregular(points: int, seed: int = 0) -> Log:
    """Thirty tags with names of 4 to 53 letters, in random order, each at times that nothing foretells."""
    rng = np.random.default_rng(seed)
    return Log(
        _IRREGULAR,
        rng.integers(0, len(_IRREGULAR), points),
        np.arange(points) // len(_IRREGULAR),
        rng.standard_normal(points).astype(np.float32),
        _START + np.cumsum(rng.exponential(0.01, points)),
    )
