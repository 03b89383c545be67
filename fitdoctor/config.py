"""What a user may set: `Config`, and where it is read from.

[tool.fitdoctor]                       # in pyproject.toml; the same keys without the prefix in fitdoctor.toml
select = ["LRN", "overfitting"]        # rules, codes or families; all when left out
fail_on = "warning"

[tool.fitdoctor.ignore]                # or a plain list of names
plateau = "the schedule ends on a plateau on purpose"

[tool.fitdoctor.map]
"my/metric" = "accuracy:val"

[tool.fitdoctor.facts]
classes = 10

[tool.fitdoctor.rules.overfitting]
patience = 5
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitdoctor.errors import ConfigError

if TYPE_CHECKING:
    from fitdoctor.run import Fact  # imports numpy, which settings can do without

FAIL_ON = ("error", "warning", "note", "never")
"""What `Config.fail_on` may be, the most lenient but one first."""

FACT_KEYS = (
    "optimizer", "learning_rate", "batch_size", "gradient_accumulation_steps", "weight_decay", "clip_norm",
    "label_smoothing", "loss_function", "classes", "n_train", "n_val", "planned_steps", "planned_epochs",
    "steps_per_epoch", "step_unit", "framework",
)  # fmt: skip
"""Facts that the rules know; a plug-in's rules may know more."""


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one diagnosis.

    Attributes:
        select: names, codes or families of the rules to run; empty means all.
        ignore: names, codes or families of rules to leave out -> the reason, which the report prints.
        options: rule name -> option -> value, overriding the rule's own defaults.
        tags: raw tag or glob -> "quantity", "quantity:split", "quantity:split:layer" or "ignore", overriding
            what `fitdoctor.readers.tags` makes of it.
        facts: what the log does not say, such as ``{"classes": 10}``; see `Run.facts` for the keys.
        fail_on: lowest severity that makes the exit status 1: "error", "warning", "note" or "never".
    """

    select: tuple[str, ...] = ()
    ignore: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Fact] = field(default_factory=dict)
    fail_on: str = "error"


def find_config(start: Path) -> Path | None:
    """The nearest config file from `start` upwards: fitdoctor.toml, or a pyproject.toml with [tool.fitdoctor]."""
    for folder in (start, *start.parents):
        own = folder / "fitdoctor.toml"
        if own.is_file():
            return own
        shared = folder / "pyproject.toml"
        # A broken pyproject.toml that never mentions us is somebody else's concern.
        if shared.is_file() and b"tool.fitdoctor" in shared.read_bytes():
            return shared
    return None


def load_config(path: Path) -> Config:
    """The settings in a TOML file.

    Args:
        path: a pyproject.toml, of which [tool.fitdoctor] is read, or any other TOML file, read whole.

    Raises:
        ConfigError: if the file cannot be read, or a key or value in it is wrong.
    """
    try:
        return config_from(_section(path) or {})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def config_from(data: Mapping[str, Any]) -> Config:
    """The settings in plain data, checked.

    Raises:
        ConfigError: if a key is unknown (the message names the nearest), or a value is of the wrong kind.
    """
    known = ("select", "ignore", "fail_on", "map", "facts", "rules")
    for key in data:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}{nearest(key, known)}; the keys are {', '.join(known)}")
    ignore = data.get("ignore", [])
    if isinstance(ignore, list):
        ignore = dict.fromkeys(_names("ignore", ignore), "")
    facts = _table("facts", data, (str, int, float, bool))
    for key in facts:
        check_fact(key)
    return Config(
        select=tuple(_names("select", data.get("select", []))),
        ignore=_table("ignore", {"ignore": ignore}, str),
        options={name: _table(name, {name: table}, object) for name, table in _table("rules", data, dict).items()},
        tags=_table("map", data, str),
        facts=facts,
        fail_on=check_choice("fail_on", data.get("fail_on", "error"), FAIL_ON),
    )


def check_fact(key: str) -> None:
    """Check the name of a fact.

    Raises:
        ConfigError: if it looks like a misspelt one. Names of their own are allowed: plug-ins may know them.
    """
    if key not in FACT_KEYS and (near := difflib.get_close_matches(key, FACT_KEYS, n=1, cutoff=0.8)):
        raise ConfigError(f"unknown fact {key!r}; did you mean {near[0]!r}?")


def check_choice(key: str, value: object, choices: Iterable[str]) -> str:
    """The value, if it is one of the choices.

    Raises:
        ConfigError: if it is not.
    """
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{key}: expected one of {', '.join(choices)}, got {value!r}{nearest(str(value), choices)}")
    return value


def nearest(name: str, choices: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the choice nearest to `name`, or nothing when none is near."""
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _section(path: Path) -> Mapping[str, Any] | None:
    import tomllib

    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected TOML: {error}") from error
    if path.name != "pyproject.toml":
        return data
    section = data.get("tool", {}).get("fitdoctor")
    if section is not None and not isinstance(section, dict):
        raise ConfigError(f"tool.fitdoctor: expected a table, got {section!r}")
    return section


def _names(key: str, value: object) -> list[str]:
    if isinstance(value, str) or not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ConfigError(f"{key}: expected a list of names, got {value!r}")
    return value


def _table(key: str, data: Mapping[str, Any], kind: type | tuple[type, ...]) -> dict[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{key}: expected a table, got {value!r}")
    for name, item in value.items():
        if not isinstance(item, kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            raise ConfigError(f"{key}.{name}: expected {' or '.join(k.__name__ for k in kinds)}, got {item!r}")
    return value
