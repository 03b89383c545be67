"""What a user may set: `Config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fitdoctor.run import Fact


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one diagnosis.

    Attributes:
        select: names, codes or families of the rules to run; empty means all.
        ignore: names, codes or families of rules to leave out -> the reason, which the report prints.
        options: rule name -> option -> value, overriding the rule's own defaults.
        tags: raw tag -> "quantity" or "quantity:split", overriding what `fitdoctor.readers.tags` makes of it.
        facts: what the log does not say, such as ``{"classes": 10}``; see `Run.facts` for the keys.
        fail_on: lowest severity that makes the exit status 1: "error", "warning", "note" or "never".
    """

    select: tuple[str, ...] = ()
    ignore: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Fact] = field(default_factory=dict)
    fail_on: str = "error"
