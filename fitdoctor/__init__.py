"""fitdoctor: what is wrong with this training run, how sure are we, what to change.

>>> import fitdoctor
>>> for run in fitdoctor.open_runs("logs"):                       # doctest: +SKIP
...     report = fitdoctor.diagnose(run)
...     print(report.verdict, report.diagnoses[0].root.message)

Names are loaded when they are first used, so ``import fitdoctor`` costs almost nothing and never
imports torch.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fitdoctor.compare import Comparison, compare
    from fitdoctor.config import Config
    from fitdoctor.diagnose import diagnose
    from fitdoctor.errors import FitdoctorError, TrainingSick
    from fitdoctor.finding import Change, Confidence, Evidence, Finding, Remedy, Severity
    from fitdoctor.live import Monitor, attach
    from fitdoctor.preflight import find_lr, preflight
    from fitdoctor.readers import open_runs
    from fitdoctor.report import Diagnosis, Outcome, Report
    from fitdoctor.rule import CannotJudge, Rule, rule
    from fitdoctor.run import Run, Series, Span
    from fitdoctor.signals import Quantity, Signal
    from fitdoctor.sweep import Sweep, sweep

_HOME = {
    "Comparison": "compare",
    "compare": "compare",
    "Config": "config",
    "diagnose": "diagnose",
    "FitdoctorError": "errors",
    "TrainingSick": "errors",
    "Monitor": "live",
    "attach": "live",
    "Change": "finding",
    "Confidence": "finding",
    "Evidence": "finding",
    "Finding": "finding",
    "Remedy": "finding",
    "Severity": "finding",
    "find_lr": "preflight",
    "preflight": "preflight",
    "open_runs": "readers",
    "Diagnosis": "report",
    "Outcome": "report",
    "Report": "report",
    "CannotJudge": "rule",
    "Rule": "rule",
    "rule": "rule",
    "Run": "run",
    "Series": "run",
    "Span": "run",
    "Quantity": "signals",
    "Signal": "signals",
    "Sweep": "sweep",
    "sweep": "sweep",
}

__all__ = [
    "CannotJudge",
    "Change",
    "Comparison",
    "Confidence",
    "Config",
    "Diagnosis",
    "Evidence",
    "Finding",
    "FitdoctorError",
    "Monitor",
    "Outcome",
    "Quantity",
    "Remedy",
    "Report",
    "Rule",
    "Run",
    "Series",
    "Severity",
    "Signal",
    "Span",
    "Sweep",
    "TrainingSick",
    "__version__",
    "attach",
    "compare",
    "diagnose",
    "find_lr",
    "open_runs",
    "preflight",
    "rule",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name == "export":  # the one module that is used through the package: fitdoctor.export.to_wandb(run)
        from importlib import import_module

        return import_module("fitdoctor.export")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'fitdoctor' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"fitdoctor.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Door(ModuleType):
    """The package itself, which keeps `diagnose` and `rule` functions.

    Importing the submodule `fitdoctor.diagnose` would bind it over the function of the same name. Modules
    are still reached by ``from fitdoctor.diagnose import ...``.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Door
