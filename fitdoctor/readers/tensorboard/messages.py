"""The few protobuf messages of an event file that need a real parser, built at run time.

Only the fields that are read are declared; protobuf skips the others (images, audio, graphs) without
looking inside. The field numbers are those of TensorFlow's ``event.proto``, ``summary.proto``,
``tensor.proto`` and of the hparams plugin's ``hparams.proto`` / ``plugin_data.proto``. Two choices
differ from those files, and both are compatible on the wire:

- Names and tags are ``bytes``: a tag that is not valid UTF-8 must not cost the event.
- Packed histogram buckets are ``bytes``: they become an array by `numpy.frombuffer` instead of one
  Python float each. Unpacked buckets, which no known writer produces, are left out.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "fitdoctor.tensorboard"

# message -> (field, number, type, repeated); a type that is no scalar type names another message.
_SCHEMA: dict[str, list[tuple[str, int, str, bool]]] = {
    "Event": [
        ("wall_time", 1, "double", False),
        ("step", 2, "int64", False),
        ("file_version", 3, "bytes", False),
        ("summary", 5, "Summary", False),
    ],
    "Summary": [("value", 1, "Value", True)],
    "Value": [
        ("tag", 1, "bytes", False),
        ("simple_value", 2, "float", False),
        ("histo", 5, "Histogram", False),
        ("tensor", 8, "Tensor", False),
        ("metadata", 9, "Metadata", False),
    ],
    "Histogram": [
        ("min", 1, "double", False),
        ("max", 2, "double", False),
        ("num", 3, "double", False),
        ("sum", 4, "double", False),
        ("sum_squares", 5, "double", False),
        ("bucket_limit", 6, "bytes", False),
        ("bucket", 7, "bytes", False),
    ],
    "Tensor": [
        ("dtype", 1, "int32", False),
        ("tensor_shape", 2, "Shape", False),
        ("tensor_content", 4, "bytes", False),
        ("float_val", 5, "float", True),
        ("double_val", 6, "double", True),
        ("int_val", 7, "int32", True),
        ("string_val", 8, "bytes", True),
        ("int64_val", 10, "int64", True),
        ("bool_val", 11, "bool", True),
        ("half_val", 13, "int32", True),
        ("uint32_val", 16, "uint32", True),
        ("uint64_val", 17, "uint64", True),
    ],
    "Shape": [("dim", 2, "Dim", True), ("unknown_rank", 3, "bool", False)],
    "Dim": [("size", 1, "int64", False)],
    "Metadata": [("plugin_data", 1, "PluginData", False), ("data_class", 4, "int32", False)],
    "PluginData": [("plugin_name", 1, "bytes", False), ("content", 2, "bytes", False)],
    # plugin_data.content of the hparams plugin
    "HParams": [
        ("session_start_info", 3, "SessionStart", False),
        ("session_end_info", 4, "SessionEnd", False),
    ],
    "SessionStart": [("hparams", 1, "HParam", True)],
    "HParam": [("key", 1, "bytes", False), ("value", 2, "HValue", False)],  # an entry of a protobuf map
    "HValue": [
        ("number_value", 2, "double", False),
        ("string_value", 3, "bytes", False),
        ("bool_value", 4, "bool", False),
    ],
    "SessionEnd": [("status", 1, "int32", False)],
}
_ONEOF = {
    "Value": ("value", {"simple_value", "histo", "tensor"}),
    "HParams": ("data", {"session_start_info", "session_end_info"}),
    "HValue": ("kind", {"number_value", "string_value", "bool_value"}),
}


@cache
def message(name: str) -> Any:
    """The class of a message of this module's schema, such as ``Event``.

    Example:
        >>> event = message("Event").FromString(bytes.fromhex("10 05"))
        >>> event.step, event.summary.value[:]
        (5, [])
    """
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="fitdoctor/tensorboard.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _SCHEMA.items():
        declared = file.message_type.add(name=name)
        group, members = _ONEOF.get(name, ("", set()))
        if group:
            declared.oneof_decl.add(name=group)
        for field, number, kind, repeated in fields:
            entry = declared.field.add(
                name=field, number=number, label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            )
            if kind in _SCHEMA:
                entry.type, entry.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                entry.type = getattr(_Field, f"TYPE_{kind.upper()}")
            if field in members:
                entry.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # a pool of our own: the default pool would clash with nothing, and see nothing of this
    return pool
