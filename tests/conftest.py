"""Settings for all tests."""

from __future__ import annotations

import os
import signal
import threading

from hypothesis import settings
from tests.browser import browser, visit  # noqa: F401  # fixtures

# Small nets are slower on several threads than on one, and `-n auto` already uses every core. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Keras asks when it is imported, and would look for tensorflow.
os.environ.setdefault("KERAS_BACKEND", "torch")
# No test may be answered with what another has stored, or touch the user's own cache.
os.environ["FITDOCTOR_CACHE_DIR"] = ""

# A shell starts what runs in the background deaf to Ctrl-C, and what we start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: a busy machine must not fail a test. Examples are the same in every run, so that a change is judged by
# what it changed; `FITDOCTOR_EXPLORE=5000 python -m pytest ...` looks for new ones, that many per test.
explore = os.environ.get("FITDOCTOR_EXPLORE")
settings.register_profile("fitdoctor", deadline=None, derandomize=True, database=None, max_examples=60)
settings.register_profile("explore", deadline=None, max_examples=int(explore or 100))
settings.load_profile("explore" if explore else "fitdoctor")
