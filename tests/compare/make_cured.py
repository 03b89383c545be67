"""Make the logs in `cured/` again: sample logs trained once more without what made them sick.

    python tests/compare/make_cured.py

Needs what sample_logs/make.py needs. The names are those of the sample logs; the cure is the one that
sample_logs/make.py verifies the sample by.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "sample_logs"))

from make import SAMPLES  # noqa: E402
from recipes.shared import Knobs  # noqa: E402

CURES = {
    "lr_too_high_nan": Knobs(rate=0.1),
    "lr_too_low": Knobs(rate=10.0),
    "double_softmax": Knobs(fixed=True),
    "no_shuffling": Knobs(fixed=True),
}

if __name__ == "__main__":
    for sample in SAMPLES:
        if sample.name in CURES:
            folder = HERE / "cured" / sample.name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            sample.train(folder, CURES[sample.name])
