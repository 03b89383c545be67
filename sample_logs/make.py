"""Make the sample logs again: real trainings, seconds each, on a CPU.

    python sample_logs/make.py [--only NAME] [--verify | --words]

Each sample lies in ``sample_logs/<name>/`` with an ``expected.toml`` that says how the run was made and
what a diagnosis must and must not say. These expectations come from how the run was made. With `--verify`
they are also checked by intervention, and the measured numbers are written next to them: the same run is
repeated at other learning rates, for twice as long, and without its fault, and judged on data that the log
never shows.

Needs torch, scikit-learn and tensorboard, and for some samples lightning, transformers with accelerate, wandb.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from recipes import bugs, fit, gradients, learning_rate, monitor_runs, schedule, transformers_runs  # noqa: E402
from recipes.shared import Knobs, Sample, Truth  # noqa: E402

SAMPLES = [
    sample
    for module in (learning_rate, fit, gradients, schedule, bugs, transformers_runs, monitor_runs)
    for sample in module.SAMPLES
]

RATES = (0.1, 0.3, 3.0, 10.0)
SMALL, CLEAR = 0.02, 0.05
"""Shares of the range of a loss below which a difference counts for nothing, and above which it is clear."""


class Broken(Exception):
    """The truth about a run is not what its label says; the recipe has to be made anew."""


def gain(run: Truth, other: Truth) -> tuple[float, float]:
    """What `other` gains over `run`: in final training and oracle loss, as shares of the range of `other`."""

    def share(mine: float, theirs: float) -> float:
        if not math.isfinite(theirs):
            return -math.inf
        if not math.isfinite(mine):
            return math.inf
        return (mine - theirs) / max(other.start - min(mine, theirs), 0.05 * other.start)

    return share(run.train, other.train), share(run.oracle[-1], other.oracle[-1])


def overfit(run: Truth) -> tuple[float, float]:
    """What the oracle set lost between the best val loss and the end: share of its range, and score."""
    if not all(map(math.isfinite, run.val)):
        return 0.0, 0.0
    best = min(range(len(run.val)), key=run.val.__getitem__)
    span = max(run.start, run.oracle[0]) - min(run.oracle)
    return (run.oracle[-1] - run.oracle[best]) / span, run.score[best] - run.score[-1]


def verify(sample: Sample, run: Truth) -> dict[str, object]:
    """Check the label of a sample by intervention.

    Returns:
        The measured numbers, for `expected.toml`. Gains are pairs, on the training and on the oracle loss;
        each row of `gain_at_rate` begins with the factor on the rate.

    Raises:
        Broken: if they do not bear the label out.
    """
    measured: dict[str, object] = {"train_loss": run.train, "oracle_loss": run.oracle[-1]}
    if sample.check == "none":
        return measured
    rise, score = overfit(run)
    measured |= {"oracle_rise_since_best_val": rise, "oracle_score_lost_since_best_val": score}
    if sample.check in ("fixed", "exact"):
        fixed = gain(run, sample.train(None, Knobs(fixed=True)))
        measured["gain_without_the_fault"] = list(fixed)
        _require(sample, min(fixed) > CLEAR or sample.check == "exact", f"without its fault the run gains only {fixed}")
    elif sample.check == "overfit":
        _require(sample, rise > CLEAR, f"the oracle loss rises by only {rise:.3f} of its range")
    else:
        gains = {rate: gain(run, sample.train(None, Knobs(rate=rate))) for rate in RATES}
        measured["gain_at_rate"] = [[rate, *g] for rate, g in gains.items()]
        lower = max(min(g) for rate, g in gains.items() if rate < 1)
        higher = max(min(g) for rate, g in gains.items() if rate > 1)
        if sample.check == "lower rate":
            _require(
                sample, lower > CLEAR and lower > higher, f"lower rates gain {lower:.3f}, higher ones {higher:.3f}"
            )
        elif sample.check == "higher rate":
            _require(
                sample, higher > CLEAR and higher > lower, f"higher rates gain {higher:.3f}, lower ones {lower:.3f}"
            )
        else:
            longer = gain(run, sample.train(None, Knobs(length=2.0)))
            measured["gain_of_twice_the_length"] = list(longer)
            worst = max(lower, higher, min(longer))
            _require(sample, worst < SMALL, f"another rate or length gains {worst:.3f}: {measured}")
            _require(
                sample,
                rise < SMALL or (score <= 0 and rise < CLEAR),
                f"the oracle loss rises by {rise:.3f} of its range after the best val loss",
            )
    return measured


def _require(sample: Sample, holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(f"{sample.name} is labelled {sample.verdict!r}, but {otherwise}")


def expectation(sample: Sample, measured: dict[str, object]) -> str:
    """The text of `expected.toml`."""

    def value(item: object) -> str:
        if isinstance(item, float):
            return (
                "nan"
                if math.isnan(item)
                else ("inf" if item > 0 else "-inf")
                if math.isinf(item)
                else repr(round(item, 4))
            )
        if isinstance(item, (list, tuple)):
            return "[" + ", ".join(value(x) for x in item) + "]"
        return json.dumps(item, ensure_ascii=False)

    made = {
        "how": sample.how,
        "why": sample.why,
        "format": sample.format,
        "script": "make.py",
        "seed": "fixed in the recipe",
    }
    expect = {
        "verdict": sample.verdict,
        "must": sample.must,
        "must_any": sample.must_any,
        "must_not": sample.must_not,
        "root": sample.root,
    }
    parts = {"made": made, "expect": expect, "measured": measured}
    blocks = [
        "\n".join([f"[{title}]", *(f"{k} = {value(v)}" for k, v in part.items())])
        for title, part in parts.items()
        if part
    ]
    text = "\n\n".join(blocks) + "\n"
    tomllib.loads(text)
    return text


def make(sample: Sample, *, check: bool) -> Truth:
    """Train a sample and write its folder. Without `check`, what was measured before is kept."""
    folder = HERE / sample.name
    old = tomllib.loads((folder / "expected.toml").read_text()) if (folder / "expected.toml").exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / sample.name
        fresh.mkdir()
        run = sample.train(fresh, Knobs())
        measured = verify(sample, run) if check else old.get("measured", {})
        (fresh / "expected.toml").write_text(expectation(sample, measured))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(fresh, folder)
    return run


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="only the sample of this name")
    parser.add_argument("--verify", action="store_true", help="check the labels by intervention; takes some minutes")
    parser.add_argument("--words", action="store_true", help="train nothing, only write expected.toml again")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    broken = 0
    for sample in SAMPLES:
        if arguments.only not in ("", sample.name):
            continue
        if arguments.words:
            path = HERE / sample.name / "expected.toml"
            path.write_text(expectation(sample, tomllib.loads(path.read_text()).get("measured", {})))
            continue
        began = time.time()
        try:
            run = make(sample, check=arguments.verify)
            print(
                f"{sample.name}: train {run.train:.4g}, oracle {run.oracle[-1]:.4g}, {time.time() - began:.0f} s",
                flush=True,
            )
        except Broken as error:
            broken += 1
            print(f"BROKEN {error}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
