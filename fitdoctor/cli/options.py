"""Options that several commands share, and the settings they make together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fitdoctor.config import Config
    from fitdoctor.run import Fact


class LogPath(click.Path):
    """A path that exists, or a URL such as ``s3://bucket/logs``, which stays a text."""

    def __init__(self) -> None:
        super().__init__(exists=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check what can be checked here: whether there is anything at a URL is known when it is listed."""
        if isinstance(value, str) and "://" in value:
            from fitdoctor.readers.urls import is_url, local_path

            if (local := local_path(value)) is not None:
                value = local
            elif is_url(value):
                return value
        return super().convert(value, param, ctx)


LOG_PATH = LogPath()


class Pair(click.ParamType[Any]):
    """An option value of the form ``KEY=VALUE``."""

    def __init__(self, form: str) -> None:
        self.name = form

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split at the last "=": tags may hold one, quantities and facts do not."""
        if isinstance(value, tuple):
            return value
        key, equals, target = str(value).rpartition("=")
        if not equals or not key or not target:
            self.fail(f"expected {self.name}, got {value!r}", param, ctx)
        return key, target


@dataclass(frozen=True, slots=True)
class Given:
    """What was given on the command line, before the config file is asked."""

    config: Path | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    fail_on: str | None = None

    def settings(self) -> Config:
        """The config file, overridden by the command line.

        Raises:
            ConfigError: if a file, a key or a value is wrong.
        """
        from fitdoctor.config import Config, check_fact, find_config, load_config

        path = self.config or find_config(Path.cwd())
        base = load_config(path) if path else Config()
        for key, _ in self.facts:
            check_fact(key)
        select = tuple(names(self.select)) or base.select
        # Whoever selects a rule by hand wants to see it, though the config file ignores it.
        kept = {name: why for name, why in base.ignore.items() if name not in names(self.select)}
        return replace(
            base,
            select=select,
            ignore={**kept, **dict.fromkeys(names(self.ignore), "on the command line")},
            tags={**base.tags, **dict(self.tags)},
            facts={**base.facts, **{key: fact(value) for key, value in self.facts}},
            fail_on=self.fail_on or base.fail_on,
        )


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command that reads logs: what to read and how to understand it."""
    for option in reversed(
        (
            click.option("--run", "pattern", metavar="GLOB", help="Only runs whose name fits, such as 'lr-*'."),
            click.option("--map", "tags", metavar="TAG=QUANTITY[:SPLIT]", type=Pair("TAG=QUANTITY[:SPLIT]"),
                         multiple=True, help="What a tag of the log means, such as my/acc=accuracy:val."),
            click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
                         help="Config file. Default: fitdoctor.toml, or [tool.fitdoctor] in pyproject.toml, upwards."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def judging_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command that judges runs: which rules, which facts, which exit status."""
    for option in reversed(
        (
            click.option("--select", metavar="NAMES", multiple=True, help="Only these rules, codes or families."),
            click.option("--ignore", metavar="NAMES", multiple=True, help="Leave these rules, codes or families out."),
            click.option("--fact", "facts", metavar="KEY=VALUE", type=Pair("KEY=VALUE"), multiple=True,
                         help="What the log does not say, such as classes=10."),
            click.option("--fail-on", type=click.Choice(["error", "warning", "note", "never"]),
                         help="Lowest severity that makes the exit status 1.  [default: error]"),
            click.option("--exit-zero", is_flag=True, help="Exit with 0 unless usage or input was wrong."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command that sends what it found elsewhere, too."""
    for option in reversed(
        (
            click.option("--to", "targets", metavar="TARGET", multiple=True,
                         help="Send findings there, too: https://..., webhook, wandb:[ENTITY/]PROJECT/RUN_ID, "
                         "mlflow:RUN_ID, trackio:PROJECT/RUN."),
            click.option("--send", type=click.Choice(["findings", "all"]), default="findings", show_default=True,
                         help="What a webhook gets; all adds curves, settings and notes of the log."),
            click.option("--allow-http", is_flag=True, help="Send to a webhook unencrypted, too."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def names(values: Iterable[str]) -> list[str]:
    """Names given one by one or as comma lists."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def fact(text: str) -> Fact:
    """A fact as a number or a truth value where it reads as one."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
