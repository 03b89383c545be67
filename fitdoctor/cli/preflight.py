"""`fitdoctor preflight MODULE:FUNCTION`: check a training program before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from fitdoctor.cli.analyze import _BY_SUFFIX, FORMATS

ORDER = ("model", "criterion", "optimizer", "train_loader", "val_loader", "scheduler", "device")
"""What a function that returns a tuple returns, in this order."""


@click.command(short_help="Check a training program before its first step.")
@click.argument("factory", metavar="MODULE:FUNCTION")
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="What to write.  [default: terminal, or by the suffix of FILE]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the report there instead of to stdout.",
)
@click.option("--select", metavar="NAMES", multiple=True, help="Only these probes or codes.")
@click.option("--ignore", metavar="NAMES", multiple=True, help="Leave these probes or codes out.")
@click.option("--budget", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="Spend so long, on the most informative probes first.  [default: no limit]")  # fmt: skip
@click.option("--fail-on", type=click.Choice(["error", "warning", "note", "never"]),
              help="Lowest severity that makes the exit status 1.  [default: error]")  # fmt: skip
@click.option("--exit-zero", is_flag=True, help="Exit with 0 unless usage or input was wrong.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Config file. Default: fitdoctor.toml, or [tool.fitdoctor] in pyproject.toml, upwards.")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Show every remedy, framework and skipped probe.")
@click.option("-q", "--quiet", is_flag=True, help="Show the verdict only, and no progress.")
@click.pass_context
def preflight(
    ctx: click.Context, /, factory: str, format_: str | None, output: Path | None, budget: float | None,
    exit_zero: bool, verbose: bool, quiet: bool, **given: Any,
) -> None:  # fmt: skip
    """Check the training program that FUNCTION makes: loss, optimizer, layers, data, learning rate.

    FUNCTION takes nothing and returns a dict of arguments of `fitdoctor.preflight` (model, criterion, optimizer,
    train_loader, val_loader, ...), or a tuple of them in that order. MODULE is a module such as package.train, or a
    file such as train.py. The program is not trained, and what the probes do to it is undone.

    Exit status as of analyze.
    """
    from fitdoctor.cli.exit_status import Tally
    from fitdoctor.cli.options import Given, names
    from fitdoctor.cli.output import opened, write_reports
    from fitdoctor.cli.progress import Progress

    config = Given(config=given["config"], ignore=given["ignore"], fail_on=given["fail_on"]).settings()
    tally = Tally(config.fail_on)
    format_ = format_ or (_BY_SUFFIX.get(output.suffix.lower(), "terminal") if output else "terminal")
    arguments = made_by(factory)
    with Progress(off=quiet) as progress, opened(output, progress, utf8=format_ != "terminal") as out:
        from fitdoctor.preflight import preflight as check

        report = check(
            **{"name": factory, "options": config.options, **arguments}, budget=budget,
            select=names(given["select"]), ignore=config.ignore, progress=progress.update,
        )  # fmt: skip
        write_reports(
            tally.passing([report]), format_, out, fail_on=config.fail_on, full=1, verbose=verbose, quiet=quiet
        )
    ctx.exit(tally.status(exit_zero=exit_zero))


def made_by(factory: str) -> dict[str, Any]:
    """The arguments of `preflight` that a function returns.

    Args:
        factory: ``package.module:function`` or ``path/to/file.py:function``.

    Raises:
        ConfigError: if there is no such function, or it returns something else.
    """
    from fitdoctor.errors import ConfigError

    home, colon, name = factory.rpartition(":")
    if not colon or not home or not name.isidentifier():
        raise ConfigError(f"{factory}: expected MODULE:FUNCTION, such as package.train:build or train.py:build")
    function = getattr(_module(home), name, None)
    if not callable(function):
        raise ConfigError(f"{factory}: {home} has no function {name!r}")
    made = function()
    if isinstance(made, tuple) and 4 <= len(made) <= len(ORDER):
        made = dict(zip(ORDER, made, strict=False))
    if not isinstance(made, Mapping) or not {"model", "optimizer", "train_loader"} <= made.keys():
        raise ConfigError(
            f"{factory}: expected a dict with model, criterion, optimizer and train_loader, or a tuple of them in "
            f"that order; got {type(made).__name__}"
        )
    _check_names(factory, made)
    return {"criterion": None, **made}


def _check_names(factory: str, made: Mapping[str, Any]) -> None:
    import inspect

    from fitdoctor.config import nearest
    from fitdoctor.errors import ConfigError
    from fitdoctor.preflight import preflight as check

    known = [k for k in inspect.signature(check).parameters if k not in ("budget", "select", "ignore", "progress")]
    for key in made:
        if key not in known:
            raise ConfigError(
                f"{factory}: unknown key {key!r}{nearest(str(key), known)}; it may return {', '.join(known)}"
            )


def _module(home: str) -> Any:
    """A module by its dotted name, or from a file; both may import what lies beside them."""
    import importlib
    import importlib.util
    import sys

    from fitdoctor.errors import ConfigError

    path = Path(home)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise ConfigError(f"{home}: no such file")
    folder = str(path.parent.resolve() if is_file else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = path.stem if is_file else home
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise ConfigError(f"{home}: no module of that name here or among the installed packages") from error
