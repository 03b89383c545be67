"""From the device to the host without waiting: one copy per flush for all that was measured.

What a step measures stays on its device as a few short vectors. A flush joins them into one and starts
one non-blocking copy into pinned memory; the numbers are read when the copy has arrived, at a later
step. On the CPU there is nothing to wait for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor

from fitdoctor.live.sinks import Point, Vector
from fitdoctor.run import FloatArray
from fitdoctor.signals import Quantity, Signal

Decoder = Callable[["Row", FloatArray], Iterable[Point | Vector]]
"""Turns the float64 numbers of one part of a row into measurements."""


_signal = cache(Signal)  # making one takes longer than finding it


@dataclass(slots=True, eq=False)
class Row:
    """What was measured around one optimizer step, still on its device.

    Attributes:
        step: training step, counted from 1.
        wall_time: seconds since the Unix epoch.
        parts: vectors, each with what makes measurements of it.
        ready: measurements that were numbers of the host from the start.
        context: numbers that the decoders of other parts leave for later ones.
    """

    step: int
    wall_time: float = field(default_factory=time.time)
    parts: list[tuple[Decoder, Tensor]] = field(default_factory=list)
    ready: list[Point | Vector] = field(default_factory=list)
    context: dict[str, float] = field(default_factory=dict)

    def add(self, decoder: Decoder, values: Tensor) -> None:
        """Add numbers of the device."""
        self.parts.append((decoder, values))

    def put(self, quantity: Quantity, value: float, layer: str = "", split: str = "train") -> None:
        """Add a number of the host."""
        self.ready.append(self.point(quantity, value, layer, split))

    def point(self, quantity: Quantity, value: float, layer: str = "", split: str = "train") -> Point:
        """A measurement of this row."""
        return Point(self.step, self.wall_time, _signal(quantity, split, layer), value)

    def vector(self, quantity: Quantity, layers: tuple[str, ...], values: FloatArray, group: str = "") -> Vector:
        """A measurement of this row, per layer."""
        return Vector(self.step, self.wall_time, quantity.name, layers, values, group)


@dataclass(slots=True, eq=False)
class _Shipment:
    rows: list[Row]
    numbers: Tensor
    arrived: torch.cuda.Event | None

    def complete(self) -> bool:
        return self.arrived is None or bool(self.arrived.query())  # type: ignore[no-untyped-call]


@dataclass(slots=True, eq=False)
class Transport:
    """Rows on their way to the host."""

    waiting: list[Row] = field(default_factory=list)
    under_way: list[_Shipment] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Take a row that is complete."""
        self.waiting.append(row)

    def ship(self) -> None:
        """Start the copy of all waiting rows; waits for nothing."""
        if not self.waiting:
            return
        rows, self.waiting = self.waiting, []
        with torch.no_grad():
            parts = [t.reshape(-1) for row in rows for _, t in row.parts]
            device = next((t.device for t in parts if t.device.type != "cpu"), None)
            # float64 keeps what a float64 model measured; everything else fits into float32.
            wide = any(t.dtype == torch.float64 for t in parts)
            dtype = torch.float64 if wide else torch.float32
            if not parts:
                self.under_way.append(_Shipment(rows, torch.empty(0), None))
                return
            joined = torch.cat([t.to(device or "cpu", dtype, non_blocking=True) for t in parts])
            if device is None:
                self.under_way.append(_Shipment(rows, joined, None))
                return
            host = torch.empty(joined.shape, dtype=dtype, pin_memory=device.type == "cuda")
            host.copy_(joined, non_blocking=True)
            event = None
            if device.type == "cuda":
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(torch.cuda.current_stream(device))
            self.under_way.append(_Shipment(rows, host, event))

    def arrived(self, *, wait: bool = False) -> list[tuple[Row, list[Point | Vector]]]:
        """Rows whose numbers are on the host, decoded.

        Args:
            wait: wait for all that is under way.
        """
        out: list[tuple[Row, list[Point | Vector]]] = []
        while self.under_way:
            shipment = self.under_way[0]
            if not shipment.complete():
                if not wait:
                    break
                assert shipment.arrived is not None
                shipment.arrived.synchronize()
            del self.under_way[0]
            out += _unpacked(shipment)
        return out


def constant(values: Sequence[float], device: torch.device) -> Tensor:
    """Numbers of the host on a device, without waiting for it: from pinned memory."""
    if device.type != "cuda":
        return torch.tensor(values, device=device)
    return torch.tensor(values, pin_memory=True).to(device, non_blocking=True)


def _unpacked(shipment: _Shipment) -> list[tuple[Row, list[Point | Vector]]]:
    numbers = shipment.numbers.numpy().astype(np.float64)
    out = []
    at = 0
    for row in shipment.rows:
        items = list(row.ready)
        for decoder, values in row.parts:
            size = math.prod(values.shape)
            items += decoder(row, numbers[at : at + size])
            at += size
        out.append((row, items))
    return out


def scalar(quantity: Quantity, layer: str = "") -> Decoder:
    """Decoder of a part that is one number."""

    def decode(row: Row, values: FloatArray) -> Iterable[Point | Vector]:
        return [row.point(quantity, float(values[0]), layer)]

    return decode
