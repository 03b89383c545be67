"""The settings of a run that stand in a file beside its log: hparams.yaml, args.yaml, hparams.json ..."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fitdoctor.readers.decoding import decode
from fitdoctor.run import Fact

NAMES = (
    "hparams.yaml",
    "args.yaml",
    "hparams.json",
    "params.json",
    "args.json",
    "params.yaml",
    "config.yaml",
    "hparams.yml",
)
_SHORT_LIST, _LONGEST_WORD, _MOST_PARAMS = 8, 200, 500
_LARGEST = 1 << 20  # settings are small; a larger file of this name is something else


def flattened(nested: Mapping[Any, Any], prefix: str = "", depth: int = 8) -> dict[str, object]:
    """One level of names joined with "/": ``{"optim": {"lr": 0.1}}`` becomes ``{"optim/lr": 0.1}``.

    Example:
        >>> flattened({"optim": {"lr": 0.1}, "seed": 1})
        {'optim/lr': 0.1, 'seed': 1}
    """
    out: dict[str, object] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and depth > 1:
            out.update(flattened(value, f"{name}/", depth - 1))
        else:
            out[name] = value
    return out


def plain_params(params: Mapping[str, object]) -> dict[str, Fact]:
    """Those of a configuration that are a number, a word or a truth value; a short list counts as a word.

    Example:
        >>> plain_params({"lr": 0.1, "betas": [0.9, 0.99], "seed": None, "notes": "x" * 999})
        {'lr': 0.1, 'betas': '0.9, 0.99'}
    """
    out: dict[str, Fact] = {}
    for name, value in params.items():
        if isinstance(value, (list, tuple)) and 0 < len(value) <= _SHORT_LIST:
            if not all(isinstance(v, str | int | float) for v in value):
                continue
            value = ", ".join(map(str, value))
        if isinstance(value, bool) or (isinstance(value, int | float) and -(2**53) <= value <= 2**53):
            out[name] = value
        elif isinstance(value, str) and 0 < len(value.strip()) <= _LONGEST_WORD:
            out[name] = value.strip()
        if len(out) >= _MOST_PARAMS:
            break
    return out


def parse_yaml(text: str) -> object:
    """The plain data in a YAML document; None where it is broken.

    Python objects that loggers dump into it (``!!python/object``) become plain data and are never built.
    """
    import yaml

    class Plain(yaml.SafeLoader):
        """A SafeLoader that reads past tags that it does not know."""

    def untagged(loader: yaml.SafeLoader, _suffix: str, node: yaml.Node) -> object:
        if isinstance(node, yaml.ScalarNode):
            return loader.construct_scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else None

    Plain.add_multi_constructor("", untagged)
    try:
        return yaml.load(text, Loader=Plain)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return None


def read_settings(path: Path) -> dict[str, object]:
    """The settings in one file, flat; empty when there is no such file or it holds none."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return {}
        text = decode(path.read_bytes())
    except OSError:
        return {}
    loaded: object
    if path.suffix == ".json":
        try:
            loaded = json.loads(text)
        except (ValueError, RecursionError):
            return {}
    else:
        loaded = parse_yaml(text)
    return flattened(loaded) if isinstance(loaded, Mapping) else {}


def settings_beside(folder: Path) -> dict[str, object]:
    """The settings in all files of a known name in a folder; the first file that has a name wins."""
    found: dict[str, object] = {}
    for name in NAMES:
        found = {**read_settings(folder / name), **found}
    return found
