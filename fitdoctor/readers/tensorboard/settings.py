"""Settings of a run that stand inside its event file: the hparams plugin's data, and text summaries.

HF Trainer logs its arguments as a JSON text under ``args``; others log a markdown table or lines of
``name: value`` under ``config``, ``hparams`` or the like. Text under any other tag is somebody's
sample output and is left alone.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from fitdoctor.readers.settings import flattened
from fitdoctor.readers.tensorboard.messages import message

# fmt: off
_SETTINGS = frozenset((
    "args", "arguments", "cfg", "config", "configs", "configuration", "flags", "hparam", "hparams",
    "hyper", "hyperparameter", "hyperparameters", "hyperparams", "options", "opt", "opts", "param",
    "parameters", "params", "settings", "training_args", "training_arguments",
))
# fmt: on
_FENCE = re.compile(r"\A\s*(?:```\w*\s*\n(?P<fenced>.*?)```|<pre>(?P<pre>.*?)</pre>)\s*\Z", re.DOTALL)
_RULE = re.compile(r":?-+:?")
_LINE = re.compile(r"\s*[-*]?\s*\**`?(?P<name>[A-Za-z_][\w./ -]*?)`?\**\s*[:=]\s*(?P<value>\S.*?)\s*")
_FAILURE = 2  # Status.STATUS_FAILURE


def hparams_of(content: bytes) -> tuple[dict[str, object], bool | None]:
    """The hyperparameters in the hparams plugin's data, and False when the session says that it failed.

    A session that says "success" is no evidence: torch and Lightning write that with the
    hyperparameters, before training.

    Raises:
        google.protobuf.message.DecodeError: if the bytes are not such a message.
    """
    data = message("HParams").FromString(content)
    found: dict[str, object] = {}
    for entry in data.session_start_info.hparams:
        kind = entry.value.WhichOneof("kind")
        if kind is not None:
            value = getattr(entry.value, kind)
            found[_text(entry.key)] = _text(value) if kind == "string_value" else _whole(value)
    return found, False if data.session_end_info.status == _FAILURE else None


def params_of_text(tag: str, text: bytes) -> dict[str, object]:
    """The settings in a text summary; empty when its tag or its form does not say that it holds any.

    Example:
        >>> params_of_text("args/text_summary", b'{"learning_rate": 0.1, "seed": 1}')
        {'learning_rate': 0.1, 'seed': 1}
        >>> params_of_text("model_config", b"| key | value |\\n|---|---|\\n| layers | 12 |")
        {'model_config/layers': 12}
        >>> params_of_text("samples", b'{"prompt": "hello"}')
        {}
    """
    name = tag.removesuffix("/text_summary")
    last = name.rsplit("/", 1)[-1].lower()
    if last not in _SETTINGS and _SETTINGS.isdisjoint(re.split(r"[^a-z]+", last)):
        return {}
    body = _text(text)
    fence = _FENCE.match(body)
    if fence:
        body = fence["fenced"] or fence["pre"] or ""
    found = _from_json(body) or _from_table(body) or _from_lines(body)
    prefix = "" if last in _SETTINGS else f"{last}/"
    return {f"{prefix}{key}": value for key, value in found.items()}


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")


def _whole(value: Any) -> object:
    """hparams know only floats: 32 comes back as 32.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _from_json(text: str) -> dict[str, object]:
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return flattened(loaded) if isinstance(loaded, Mapping) else {}


def _from_table(text: str) -> dict[str, object]:
    """A markdown table of two columns."""
    rows = [
        [cell.strip().strip("`*") for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.strip()
    ]
    ruled = [i for i, row in enumerate(rows) if all(_RULE.fullmatch(cell.strip()) for cell in row)]
    if not ruled or any(len(row) != 2 for row in rows):
        return {}
    return {name: _literal(value) for name, value in rows[ruled[0] + 1 :] if name}


def _from_lines(text: str) -> dict[str, object]:
    """Lines of ``name: value`` or ``name = value``, when nothing else stands between them."""
    found: dict[str, object] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            return {}
        found[match["name"]] = _literal(match["value"])
    return found


def _literal(text: str) -> object:
    """A number, truth value or quoted string where the text is one; else the text."""
    bare = text.strip().strip("`")
    if bare in ("true", "false"):
        return bare == "true"
    try:
        value = ast.literal_eval(bare)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return bare
    return value if isinstance(value, bool | int | float | str) or value is None else bare
