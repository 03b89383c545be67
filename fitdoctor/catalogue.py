"""Which rules exist: those below `fitdoctor/rules/`, then those of installed plug-ins; and which probes.

A plug-in offers rules through the entry point group ``fitdoctor.rules``; each entry point names a
`Rule` or a list of rules.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeVar

from fitdoctor.errors import ConfigError, RuleError
from fitdoctor.preflight.probe import Probe
from fitdoctor.rule import Rule

ENTRY_POINT_GROUP = "fitdoctor.rules"

Entry = TypeVar("Entry", bound=Rule | Probe)


@cache
def rules() -> tuple[Rule, ...]:
    """All rules, in the order of their codes.

    Raises:
        RuleError: if two rules share a code or a name, or a rule explains one that does not exist.
    """
    found = sorted([*_own(), *_plugged_in()], key=lambda r: r.code)
    check_catalogue(found)
    return tuple(found)


@cache
def probes() -> tuple[Probe, ...]:
    """All probes of `preflight`, in the order of their codes; their modules import no torch.

    Raises:
        RuleError: if two probes share a code or a name, or a probe explains one that does not exist.
    """
    from fitdoctor.preflight import probes as package

    found = sorted(
        (p for module in _modules(package) for p in vars(module).values() if isinstance(p, Probe)),
        key=lambda p: p.code,
    )
    check_catalogue(found)
    return tuple(found)


def entries() -> tuple[Rule | Probe, ...]:
    """Everything that has a manual page: the rules, then the probes."""
    return (*rules(), *probes())


def find(name_or_code: str) -> Rule:
    """The rule with that name or code.

    Raises:
        ConfigError: if there is none; the message names the nearest.
    """
    return _named(name_or_code, rules())


def find_entry(name_or_code: str) -> Rule | Probe:
    """The rule or probe with that name or code.

    Raises:
        ConfigError: if there is none; the message names the nearest.
    """
    return _named(name_or_code, entries())


def _named(name_or_code: str, among: Sequence[Entry]) -> Entry:
    for entry in among:
        if name_or_code.lower() in (entry.name, entry.code.lower()):
            return entry
    import difflib

    names = [n for r in among for n in (r.name, r.code)]
    near = difflib.get_close_matches(name_or_code, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"no rule {name_or_code!r}{hint} (`fitdoctor rule` lists them all)")


def check_catalogue(found: Iterable[Rule | Probe]) -> None:
    """Check that codes and names are unique and that every explained rule exists.

    Raises:
        RuleError: if not.
    """
    codes: dict[str, Rule | Probe] = {}
    names: dict[str, Rule | Probe] = {}
    for rule in found:
        for seen, key in ((codes, rule.code), (names, rule.name)):
            if key in seen:
                raise RuleError(
                    f"{key!r} stands for two rules: {seen[key].check.__module__} and {rule.check.__module__}"
                )
            seen[key] = rule
    for rule in names.values():
        unknown = [name for name in rule.explains if name not in names]
        if unknown:
            raise RuleError(f"rule {rule.name} explains {unknown}, which are no rules")


def _own() -> Iterator[Rule]:
    import fitdoctor.rules as package

    for module in _modules(package):
        yield from _rules_in(module)


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.ispkg:
            yield importlib.import_module(module.name)


def _plugged_in() -> Iterator[Rule]:
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            loaded = point.load()
        except Exception as error:
            raise RuleError(
                f"entry point {point.name!r} of {ENTRY_POINT_GROUP}: {point.value} cannot be loaded "
                f"({type(error).__name__}: {error}); update or uninstall the package that offers it"
            ) from error
        for item in [loaded] if isinstance(loaded, Rule) else list(loaded):
            if not isinstance(item, Rule):
                raise RuleError(f"entry point {point.name!r} of {ENTRY_POINT_GROUP}: expected a Rule, got {item!r}")
            yield item


def _rules_in(module: object) -> Iterator[Rule]:
    yield from (value for value in vars(module).values() if isinstance(value, Rule))
