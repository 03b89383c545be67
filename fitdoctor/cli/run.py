"""`fitdoctor run SCRIPT`: run a training program as it is, watch what it trains, and diagnose it at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fitdoctor.cli.options import Given, Pair, fact

if TYPE_CHECKING:
    from fitdoctor.cli.script import Program
    from fitdoctor.live.program import Observer
    from fitdoctor.live.program.observer import Outcome


class Launch(BaseException):
    """Leaves click with a program to run: what the program raises is nobody's but the interpreter's."""

    def __init__(self, run: Callable[[], None]) -> None:
        super().__init__()
        self.run = run


@click.command(
    short_help="Run a training script as it is, watch it, and diagnose it at the end.",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("program", metavar="SCRIPT [ARGS]...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-m", "is_module", is_flag=True, help="SCRIPT is the name of a module, as in python -m.")
@click.option("--logdir", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Log there; read it with analyze or TensorBoard.  [default: log nowhere]")  # fmt: skip
@click.option("--name", metavar="NAME", help="Name of the run.  [default: the folder's, or the script's]")
@click.option("--tier", type=click.Choice(["light", "standard", "deep"]), default="standard", show_default=True,
              help="How much is measured.")  # fmt: skip
@click.option("--budget", type=click.FloatRange(0, 1, min_open=True), default=0.01, show_default=True,
              metavar="SHARE", help="Share of the time that may be used for it.")  # fmt: skip
@click.option("--record-every", type=click.IntRange(min=1), metavar="N",
              help="Measure every N steps, whatever that costs.")  # fmt: skip
@click.option("--stop-on", metavar="NAMES", multiple=True, help="Rules whose finding ends the script.")
@click.option("--select", metavar="NAMES", multiple=True, help="Only these rules, codes or families.")
@click.option("--ignore", metavar="NAMES", multiple=True, help="Leave these rules, codes or families out.")
@click.option("--fact", "facts", metavar="KEY=VALUE", type=Pair("KEY=VALUE"), multiple=True,
              help="What cannot be seen, such as planned_steps=9000.")  # fmt: skip
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Config file. Default: fitdoctor.toml, or [tool.fitdoctor] in pyproject.toml, upwards.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write the report there, too; the suffix chooses the format.")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Show every remedy, framework, tag and skipped rule.")
@click.option("-q", "--quiet", is_flag=True, help="Show verdicts only.")
def run(
    program: tuple[str, ...], is_module: bool, stop_on: tuple[str, ...], facts: tuple[tuple[str, str], ...],
    logdir: Path | None, output: Path | None, **options: Any,
) -> None:  # fmt: skip
    """Run SCRIPT with ARGS as python does, and watch the models and optimizers that it makes.

    The script is not changed, and trains what it would train without this. At the end the diagnosis goes to stderr; the
    exit status is the script's.
    """
    from fitdoctor.cli.options import names
    from fitdoctor.cli.script import Program as Found

    found = Found(program[0], program[1:], is_module)
    found.check()
    launched = Watching(
        found, Given(config=options.pop("config"), select=options.pop("select"), ignore=options.pop("ignore")),
        stop_on=names(stop_on), facts={key: fact(value) for key, value in facts},
        logdir=logdir.absolute() if logdir else None, output=output.absolute() if output else None, **options,
    )  # fmt: skip
    launched.check()
    raise Launch(launched)


@dataclass(slots=True, kw_only=True)
class Watching:
    """A program that is run and watched.

    Attributes:
        program: the program.
        given: what was given on the command line about rules.
        stop_on: rules whose finding ends the program.
        facts: what cannot be seen.
        logdir: where to log, or None.
        output: where the report is written, too, or None.
        name: name of the run, or None.
        tier: how much is measured.
        budget: share of the time.
        record_every: distance of records, or None.
        verbose: show everything.
        quiet: show verdicts only.
    """

    program: Program = field(kw_only=False)
    given: Given = field(kw_only=False)
    stop_on: list[str]
    facts: dict[str, Any]
    logdir: Path | None
    output: Path | None
    name: str | None
    tier: Literal["light", "standard", "deep"]
    budget: float
    record_every: int | None
    verbose: bool
    quiet: bool
    observer: Observer | None = None
    failed: bool = False
    _imports: list[Any] = field(default_factory=list)
    _begun: bool = False

    def check(self) -> None:
        """Fail on wrong names before the program begins. Nothing heavy is loaded where no name was given."""
        if self.given != Given() or self.stop_on or self.facts:
            from fitdoctor import catalogue
            from fitdoctor.config import check_fact
            from fitdoctor.diagnose import choose

            choose(catalogue.rules(), self.given.settings())
            for name in self.stop_on:
                catalogue.find(name)
            for key in self.facts:
                check_fact(key)

    def __call__(self) -> None:
        """Run the program; ends as the program does."""
        from fitdoctor.cli.script import AfterImport, quiet_interrupt, shown_traceback
        from fitdoctor.errors import FitdoctorError

        process = os.getpid()
        # Not before the program does it: it may set variables first that torch reads as it is loaded.
        self._imports = [AfterImport(name, self.watch) for name in ("torch", "fitdoctor.live")]
        for import_ in self._imports:
            import_.wait()
        error: BaseException | None = None
        try:
            self.program.run()
        except BaseException as raised:
            error = raised
        if os.getpid() != process:  # a child that the program has forked
            if error is not None:
                raise error
            return
        for import_ in self._imports:
            import_.remove()
        if isinstance(error, FitdoctorError):
            tell(f"stopped: {error}" if type(error).__name__ == "TrainingSick" else str(error))
        elif error is not None and not isinstance(error, SystemExit):
            shown_traceback(error)
        try:
            self.conclude(error)
        except KeyboardInterrupt:
            tell("interrupted: no diagnosis")
        if isinstance(error, SystemExit):
            raise error
        if isinstance(error, KeyboardInterrupt):
            quiet_interrupt()
        if error is not None:
            sys.exit(1)

    def watch(self) -> None:
        """Torch is there, and the program does not just import us itself: watch what is made."""
        if self._begun or "torch" not in sys.modules or any(i.under_way for i in self._imports):
            return
        self._begun = True
        try:
            from fitdoctor.live.program import Observer, Settings

            name = self.name or (self.logdir.name if self.logdir else self.program.name)
            self.observer = Observer(
                Settings(
                    name=name, logdir=self.logdir, tier=self.tier, budget=self.budget, record_every=self.record_every,
                    stop_on=self.stop_on, config=self.given.settings(), facts=self.facts,
                ),
                _tell_if_first,
            )  # fmt: skip
        except Exception as error:
            self.failed = True
            tell(f"cannot watch this program ({type(error).__name__}: {error}); it runs without")

    def conclude(self, error: BaseException | None) -> None:
        """The program has ended: say what was watched, what was not, and what was found."""
        if self.observer is None:
            if not self.failed and not isinstance(error, Exception):
                tell("the program never imported torch: nothing was watched")
            return
        outcomes = self.observer.finish(error)
        told = [o for o in outcomes if o.report is not None]
        if self._first_process():
            for sentence in self.observer.remarks():
                tell(sentence)
            for outcome in told:
                self._tell_seen(outcome)
        reports = [o.report for o in told if o.report is not None]
        if not reports:
            return
        from rich.console import Console

        from fitdoctor.reporters.terminal_table import show_all

        sys.stdout.flush()
        show_all(reports, Console(stderr=True), verbose=self.verbose, quiet=self.quiet)
        if self.output is not None:
            self._write(reports, self.output)

    def _tell_seen(self, outcome: Outcome) -> None:
        name = outcome.report.run if outcome.report else ""
        tell(f"{name}: {outcome.steps:,} steps of {outcome.training}; loss: {outcome.loss}")
        for sentence in outcome.not_seen:
            tell(f"{name}: not seen: {sentence}")

    def _write(self, reports: list[Any], output: Path) -> None:
        from fitdoctor.cli.analyze import _BY_SUFFIX
        from fitdoctor.cli.output import write_reports

        format_ = _BY_SUFFIX.get(output.suffix.lower(), "terminal")
        try:
            with output.open("w", encoding="utf-8", newline="\n") as file:
                write_reports(reports, format_, file, fail_on="error", full=3, verbose=self.verbose, quiet=self.quiet)
        except OSError as error:  # the exit status is the program's all the same
            tell(f"{output}: {error.strerror or error}")

    @staticmethod
    def _first_process() -> bool:
        return os.environ.get("RANK", "0") == "0"


def tell(sentence: str) -> None:
    """Say something beside the output of the program."""
    if sys.stderr is not None:
        print(f"fitdoctor: {sentence}", file=sys.stderr, flush=True)  # noqa: T201


def _tell_if_first(sentence: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        tell(sentence)
