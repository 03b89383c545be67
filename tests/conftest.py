"""Settings for all tests."""

from __future__ import annotations

from hypothesis import settings

# No deadline: a busy machine must not fail a test. derandomize would find nothing new from run to run.
settings.register_profile("fitdoctor", deadline=None)
settings.load_profile("fitdoctor")
