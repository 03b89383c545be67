"""Watching a PyTorch loop: `attach` puts a monitor on it, the monitor makes a `Run`, `diagnose` judges it.

loop (what happens when) -> parameters, activations, logits (what is measured, on the device)
  -> transport (one copy) -> digest -> history (a Run in memory), sinks (an event file) -> judge
"""

from __future__ import annotations

from fitdoctor.live.entry import attach
from fitdoctor.live.monitor import Monitor
from fitdoctor.live.replay import Replay, replay

__all__ = ["Monitor", "Replay", "attach", "replay"]
