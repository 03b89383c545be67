"""TensorProto messages to numpy arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fitdoctor.run import FloatArray

STRING = 7
"""DT_STRING of TensorFlow's ``types.proto``."""

# DT_* -> numpy type of tensor_content, and the field that holds the values when tensor_content is empty.
_TYPES: dict[int, tuple[str, str]] = {
    1: ("<f4", "float_val"),
    2: ("<f8", "double_val"),
    3: ("<i4", "int_val"),
    4: ("|u1", "int_val"),
    5: ("<i2", "int_val"),
    6: ("|i1", "int_val"),
    9: ("<i8", "int64_val"),
    10: ("|b1", "bool_val"),
    14: ("<u2", "half_val"),  # bfloat16: the upper half of a float32
    17: ("<u2", "int_val"),
    19: ("<f2", "half_val"),
    22: ("<u4", "uint32_val"),
    23: ("<u8", "uint64_val"),
}
_BFLOAT16, _HALF = 14, 19
_MOST = 1 << 24  # elements of a tensor that is unpacked at all: a shape may claim anything


def shape_of(tensor: Any) -> tuple[int, ...] | None:
    """The shape of a TensorProto, or None where it is not fully known."""
    if tensor.tensor_shape.unknown_rank:
        return None
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    return shape if all(size >= 0 for size in shape) else None


def array_of(tensor: Any) -> FloatArray | None:
    """The values of a numeric TensorProto, or None where it holds none that can be read.

    As in TensorFlow, the last value given repeats until the shape is full.

    Returns:
        float64 array of the tensor's shape.
    """
    kind = _TYPES.get(tensor.dtype)
    shape = shape_of(tensor)
    if kind is None or shape is None:
        return None
    size = math.prod(shape)
    if size > _MOST:
        return None
    dtype, field = np.dtype(kind[0]), kind[1]
    flat: np.ndarray[Any, Any]
    if tensor.tensor_content:
        if len(tensor.tensor_content) != size * dtype.itemsize:
            return None
        flat = np.frombuffer(tensor.tensor_content, dtype)
    else:
        given = getattr(tensor, field)[:size]
        if tensor.dtype in (_BFLOAT16, _HALF):
            flat = (np.array(given, np.int64) & 0xFFFF).astype(np.uint16).view(dtype)
        else:
            flat = np.array(given, np.float64 if dtype.kind == "f" else np.dtype(kind[0]).newbyteorder("="))
        if len(flat) < size:
            flat = np.concatenate(
                (flat, np.repeat(flat[-1:] if len(flat) else np.zeros(1, flat.dtype), size - len(flat)))
            )
    if tensor.dtype == _BFLOAT16:
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # a signalling nan is data here
        return flat.astype(np.float64).reshape(shape)
