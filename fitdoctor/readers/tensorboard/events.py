"""Events of any shape, one at a time, through protobuf.

The bulk decoder takes the scalars of regular shape; what it leaves comes here: histograms, text,
hyperparameters, scalars in an unusual encoding. Images, audio and graphs are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from fitdoctor.readers.raw import RawSeries
from fitdoctor.readers.tensorboard.histograms import Histograms
from fitdoctor.readers.tensorboard.messages import message
from fitdoctor.readers.tensorboard.settings import hparams_of, params_of_text
from fitdoctor.readers.tensorboard.tensors import STRING, array_of, shape_of
from fitdoctor.readers.tensorboard.vectors import PLUGIN, Vectors

_SCALAR_CLASS = 1  # DataClass.DATA_CLASS_SCALAR
_LONGEST_TEXT = 1 << 20  # settings are short; a longer text is not parsed


class Scalar(NamedTuple):
    """One logged number."""

    tag: bytes
    step: int
    value: float
    wall_time: float


@dataclass(slots=True)
class EventDecoder:
    """Decodes events and keeps what is not a scalar.

    Attributes:
        params: settings found so far.
        finished: False once the log said that the run failed.
        histograms: by tag, not yet reduced.
        plugins: which plugin a tag belongs to; writers may say so only once per tag.
        vectors: per-layer vectors of our own monitor, by tag.
        left_out: shapes (None: unknown) of numeric tensors that are neither scalar nor histogram, by tag.
        unreadable: records with a good checksum that are no event.
    """

    params: dict[str, object] = field(default_factory=dict)
    finished: bool | None = None
    histograms: dict[bytes, Histograms] = field(default_factory=dict)
    plugins: dict[bytes, bytes] = field(default_factory=dict)
    vectors: dict[bytes, Vectors] = field(default_factory=dict)
    left_out: dict[bytes, tuple[int, ...] | None] = field(default_factory=dict)
    unreadable: int = 0

    def decode(self, body: bytes | memoryview) -> list[Scalar]:
        """The scalars in one event."""
        try:
            event = message("Event").FromString(body)
        except DecodeError:
            self.unreadable += 1
            return []
        return [s for value in event.summary.value if (s := self._value(event.step, event.wall_time, value))]

    def _value(self, step: int, wall_time: float, value: Any) -> Scalar | None:
        tag: bytes = value.tag
        plugin = self._plugin(tag, value)
        kind = value.WhichOneof("value")
        if plugin == b"hparams":
            self._hparams(value.metadata.plugin_data.content)
        if kind == "simple_value":
            return Scalar(tag, step, value.simple_value, wall_time)
        if kind == "histo":
            self._histogram(tag, step, wall_time, value.histo)
        elif kind == "tensor":
            if plugin == PLUGIN and value.metadata.plugin_data.content:
                self._announced(tag, value.metadata.plugin_data.content)
            return self._tensor(tag, step, wall_time, value.tensor, plugin, value.metadata.data_class)
        return None

    def _hparams(self, content: bytes) -> None:
        """Take what the hparams plugin says about the run."""
        try:
            params, finished = hparams_of(content)
        except DecodeError:
            self.unreadable += 1
        else:
            self.params.update(params)
            self.finished = self.finished if finished is None else finished

    def _plugin(self, tag: bytes, value: Any) -> bytes:
        name: bytes = value.metadata.plugin_data.plugin_name
        return self.plugins.setdefault(tag, name) if name else self.plugins.get(tag, b"")

    def _tensor(
        self, tag: bytes, step: int, wall_time: float, tensor: Any, plugin: bytes, data_class: int
    ) -> Scalar | None:
        if tensor.dtype == STRING:
            if plugin in (b"text", b"") and tensor.string_val and len(tensor.string_val[0]) <= _LONGEST_TEXT:
                self.params.update(params_of_text(tag.decode("utf-8", errors="replace"), tensor.string_val[0]))
            return None
        if plugin == PLUGIN:
            self._vector(tag, step, wall_time, tensor)
            return None
        if plugin == b"histograms":
            rows = array_of(tensor)
            if rows is not None:
                self.histograms.setdefault(tag, Histograms()).add_tensor(step, wall_time, rows)
            return None
        if plugin not in (b"scalars", b"") and data_class != _SCALAR_CLASS:
            return None  # precision-recall curves, images, meshes
        shape = shape_of(tensor)
        if shape is None or any(size != 1 for size in shape):
            self.left_out.setdefault(tag, shape)
            return None
        values = array_of(tensor)
        return None if values is None else Scalar(tag, step, float(values.reshape(-1)[0]), wall_time)

    def _announced(self, tag: bytes, content: bytes) -> None:
        told, known = Vectors.announced(content), self.vectors.get(tag)
        if told is not None and known is not None and told.quantity == known.quantity:
            told.points = known.points
        if told is not None:
            self.vectors[tag] = told

    def _vector(self, tag: bytes, step: int, wall_time: float, tensor: Any) -> None:
        known, values = self.vectors.get(tag), array_of(tensor)
        if known is not None and values is not None:
            known.add(step, wall_time, values)

    def _histogram(self, tag: bytes, step: int, wall_time: float, histo: Any) -> None:
        moments = (histo.min, histo.max, histo.num, histo.sum, histo.sum_squares)
        limits, counts = (
            np.frombuffer(packed, "<f8", count=len(packed) // 8) for packed in (histo.bucket_limit, histo.bucket)
        )
        self.histograms.setdefault(tag, Histograms()).add_proto(step, wall_time, moments, limits, counts)

    def series(self) -> list[RawSeries]:
        """The histograms collected so far, reduced to series; they are forgotten here."""
        out = []
        for tag, histograms in self.histograms.items():
            if not histograms.steps:
                continue
            steps = np.array(histograms.steps, np.int64)
            wall = np.array(histograms.wall_times, np.float64)
            for statistic, (index, values) in histograms.reduce().items():
                out.append(
                    RawSeries(
                        tag.decode("utf-8", errors="replace"),
                        values,
                        steps[index],
                        wall_time=wall[index],
                        statistic=statistic,
                    )
                )
        self.histograms.clear()
        for vectors in self.vectors.values():
            out += vectors.series()
        return out
