"""Every exception that fitdoctor raises on purpose.

    FitdoctorError
    ├── ConfigError            an option, a rule name or a config file is wrong
    ├── ReadError              a log could not be read
    │   └── NoLogsFound        nothing below the path looks like a training log
    ├── RuleError              a rule file breaks the contract of `fitdoctor.rule`
    ├── ReportFormatError      a saved report is of a format this version does not read
    ├── WorkerDied             a process that was to judge runs ended without an answer
    ├── ExportError            findings could not be sent where they were to go
    ├── StateNotRestored       a probe changed something that could not be put back
    └── TrainingSick           a live diagnosis found what the user wants to stop on

Each message says what was expected, what was got, where, and what to do next.
"""

from __future__ import annotations


class FitdoctorError(Exception):
    """Base of all errors that fitdoctor raises on purpose."""


class ConfigError(FitdoctorError):
    """An option, a rule name or a configuration file is wrong."""


class ReadError(FitdoctorError):
    """A log could not be read. The message names the file and the place in it."""


class NoLogsFound(ReadError):
    """Nothing below the given path looks like a training log."""


class RuleError(FitdoctorError):
    """A rule breaks the contract of `fitdoctor.rule` (code, name, docstring or options)."""


class ReportFormatError(FitdoctorError):
    """A saved report is of a format version that this fitdoctor does not read."""


class WorkerDied(FitdoctorError):
    """A process that was to judge runs ended without an answer. The message says what that may mean."""


class ExportError(FitdoctorError):
    """Findings could not be sent where they were to go. The message holds no secret."""


class StateNotRestored(FitdoctorError):
    """Something that a probe changed could not be put back. The message names it."""


class TrainingSick(FitdoctorError):
    """Raised in the training loop when a live diagnosis finds what `stop_on` names.

    Attributes:
        report: the `fitdoctor.report.Report` that led to it.
    """

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message)
        self.report = report
