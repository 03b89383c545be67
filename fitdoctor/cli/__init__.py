"""The command line: one file per command; everything heavy is imported inside the commands."""

from __future__ import annotations

from typing import Any

import click

from fitdoctor import __version__
from fitdoctor.cli.analyze import analyze
from fitdoctor.cli.compare import compare
from fitdoctor.cli.mcp import mcp
from fitdoctor.cli.preflight import preflight
from fitdoctor.cli.rule import rule
from fitdoctor.cli.run import Launch, run
from fitdoctor.cli.signals import signals
from fitdoctor.cli.sweep import sweep
from fitdoctor.cli.watch import watch
from fitdoctor.errors import FitdoctorError

INTERRUPTED = 130  # what shells say of a command that Ctrl-C ended
BUG = 70  # EX_SOFTWARE of sysexits.h


class Failure(click.ClickException):
    """An error of ours or of the file system, told without a traceback. Exit status 2."""

    exit_code = 2


class _Commands(click.Group):
    """The group of commands, which turns exceptions into messages and exit statuses."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Parse, and do as told; a program that `run` was given runs outside of click and of any handler of ours."""
        try:
            return super().main(*args, **kwargs)
        except Launch as launch:
            program = launch.run
        return program()

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FitdoctorError as error:
            raise Failure(str(error)) from error
        except BrokenPipeError:
            raise  # click ends quietly when the reader of a pipe has gone
        except OSError as error:
            raise Failure(f"{error.filename or 'input'}: {error.strerror or error}") from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:
            import traceback

            # Python's own exit status for this, 1, would read as "findings".
            click.echo(traceback.format_exc(), err=True, nl=False)
            click.echo("That is a bug in fitdoctor: please report it with the lines above.", err=True)
            ctx.exit(BUG)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 nothing found, 1 findings, 2 wrong usage or unreadable input, 3 no run could be judged.",
)
@click.version_option(__version__, prog_name="fitdoctor")
def main() -> None:
    """Say what is wrong with a training run, how sure that is, and what to change.

    Start with: fitdoctor analyze LOGDIR
    """


for _command in (analyze, compare, sweep, watch, preflight, run, rule, signals, mcp):
    main.add_command(_command)
