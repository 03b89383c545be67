"""A training program that knows nothing of us: what it trains is found while it runs.

watch (constructors, functions and iterators of torch that tell what they do) -> observer (whose model is it, which
optimizer) -> `fitdoctor.attach`; objective (which of the losses is the one that is trained) and validation (what the
passes without gradients say) give the monitor what its user would.
"""

from __future__ import annotations

from fitdoctor.live.program.observer import Observer, Settings

__all__ = ["Observer", "Settings"]
