"""Before the run: small experiments on model, data, loss and optimizer that leave no trace.

    report = fitdoctor.preflight(model, criterion, optimizer, train_loader, val_loader)
    print(fitdoctor.find_lr(model, criterion, optimizer, train_loader))

`judge.py` runs the probes of `probes/` one by one, `guard.py` puts everything back after each of them, `bench.py` is
what they work on, `learning_rate.py` and its neighbours find the learning rate. torch is imported when one of
the two functions is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fitdoctor.preflight.judge import preflight
    from fitdoctor.preflight.learning_rate import LearningRates, find_lr

__all__ = ["LearningRates", "find_lr", "preflight"]

_HOME = {"preflight": "judge", "find_lr": "learning_rate", "LearningRates": "learning_rate"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fitdoctor.preflight' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fitdoctor.preflight.{_HOME[name]}"), name)
