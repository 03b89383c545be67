"""What a monitor costs: time per training step with and without it, in alternating blocks, and exact counts.

    python benchmarks/speed/hooks.py                             # all workloads, five minutes
    python benchmarks/speed/hooks.py --workload mlp40 --seconds 300

Compared, in rounds in which each takes its turn for a block of about a tenth of a second (each with a model of its
own, warmed up; the order changes from round to round):

- `bare` twice: their ratio is the A/A control, and no other ratio is known better than that one;
- fitdoctor in each tier, writing its log, at its default budget of 1 %;
- a naive monitor: forward hooks and gradients read with ``.item()`` per layer at every step;
- `wandb.watch(model, log="gradients")` every 100 steps (its default is 1000), where wandb is installed (offline).

The time is the wall clock's and, beside it, the CPU time of the process, which other work on the machine
disturbs less. An overhead is the ratio of the sums over all rounds (a median would leave out the few blocks with a
record), with the interval that holds nine tenths of 500 bootstraps over the rounds. A target is met when the interval
begins at or below it, missed when it begins above it; where the control's own interval is wider than the target, the
machine is not quiet enough to tell, and it says so. The monitors' clocks stop while others have their turn.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.speed.hooks_workloads import WORKLOADS, Workload, counts_by_level, step
from fitdoctor.live import Monitor, attach

Run = Callable[[int], None]

BLOCK = 0.1
"""Seconds of a turn."""

BUDGET = 0.01
TARGETS = {"mlp40": 0.05, "cnn": 0.01, "transformer": 0.01}
"""What the default tier may cost, as a share of the time per step."""

STOPPED: dict[int, float] = {}
"""Identity of a monitor -> when its last turn ended."""


def bare(work: Workload, folder: Path) -> tuple[Run, Any]:
    return lambda n: [step(work) for _ in range(n)] and None, None


def fitdoctor(tier: Any) -> Callable[[Workload, Path], tuple[Run, Any]]:
    def make(work: Workload, folder: Path) -> tuple[Run, Any]:
        monitor = attach(work[0], work[1], work[2], logdir=folder / tier, tier=tier)
        return lambda n: [step(work) for _ in range(n)] and None, monitor

    return make


def naive(work: Workload, folder: Path) -> tuple[Run, Any]:
    """What one writes in five minutes: statistics of each output and gradient, read at once."""
    rows: list[float] = []

    def look(module: Any, args: Any, output: torch.Tensor) -> None:
        rows.append(output.detach().mean().item())
        rows.append(output.detach().norm().item())

    for module in work[0].modules():
        if not list(module.children()):
            module.register_forward_hook(look)

    def run(n: int) -> None:
        for _ in range(n):
            step(work)
            rows.extend(p.grad.norm().item() for p in work[0].parameters() if p.grad is not None)
            rows.clear()

    return run, None


def wandb_watch(every: int) -> Callable[[Workload, Path], tuple[Run, Any]]:
    def make(work: Workload, folder: Path) -> tuple[Run, Any]:
        import wandb

        run = wandb.init(
            mode="offline", dir=str(folder), settings=wandb.Settings(silent=True)
        )  # watch logs to this run
        run.watch(work[0], log="gradients", log_freq=every)

        def go(n: int) -> None:
            for _ in range(n):
                step(work)
                run.log({})

        return go, run

    return make


def variants() -> dict[str, Callable[[Workload, Path], tuple[Run, Any]]]:
    found: dict[str, Callable[[Workload, Path], tuple[Run, Any]]] = {
        "bare": bare,
        "bare again (A/A)": bare,
        **{f"fitdoctor {tier}": fitdoctor(tier) for tier in ("light", "standard", "deep")},
        "naive .item()": naive,
    }
    try:
        import wandb  # noqa: F401 - only whether it is there
    except ImportError:
        return found
    return {**found, "wandb.watch, every 100": wandb_watch(100)}  # it knows one run per process


Times = dict[str, list[tuple[float, float]]]


def measure(name: str, seconds: float, device: str) -> tuple[dict[str, dict[str, Any]], int]:
    """Overheads against bare with their intervals, and the monitors' own accounts; and the number of rounds."""
    times: Times = {}
    shares = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for key, make in variants().items():
            torch.manual_seed(0)
            runs[key] = make(WORKLOADS[name](device), Path(folder) / key.replace(" ", "-"))
        began = time.perf_counter()
        runs["bare"][0](5)
        began = time.perf_counter()
        runs["bare"][0](10)
        steps = max(1, round(BLOCK * 10 / (time.perf_counter() - began)))
        for run, watcher in runs.values():  # long enough for the cadence to settle
            wind_up(watcher)
            run(max(20, 3 * steps))
        end = time.perf_counter() + seconds
        shuffled = random.Random(0)
        while time.perf_counter() < end or len(times.get("bare", ())) < 10:
            for key in shuffled.sample(list(runs), len(runs)):
                run, watcher = runs[key]
                wind_up(watcher)
                wall, cpu = time.perf_counter(), time.process_time()
                run(steps)
                times.setdefault(key, []).append((time.perf_counter() - wall, time.process_time() - cpu))
                stop(watcher)
        for key, (_, watcher) in runs.items():
            if isinstance(watcher, Monitor):
                shares[key] = watcher.cost.share
                watcher.close()
            elif watcher is not None:
                watcher.finish()
    out: dict[str, dict[str, Any]] = {}
    for key in runs:
        values = times[key]
        out[key] = {
            "milliseconds": 1e3 * sum(wall for wall, _ in values) / steps / len(values),
            "wall": overhead(values, times["bare"], 0),
            "cpu": overhead(values, times["bare"], 1),
            "own_account": shares.get(key),
        }
    return out, len(times["bare"])


def wind_up(watcher: Any) -> None:
    """A monitor's turn begins: the time since its last one was not its training's."""
    if isinstance(watcher, Monitor):
        now = time.perf_counter()
        loop = watcher._loop
        idle = now - STOPPED.pop(id(watcher), now)
        loop._last += idle
        loop._ended += idle if loop._ended else 0.0
        watcher._flushed += idle


def stop(watcher: Any) -> None:
    """A monitor's turn is over."""
    STOPPED[id(watcher)] = time.perf_counter()


def overhead(
    mine: list[tuple[float, float]], bare: list[tuple[float, float]], clock: int
) -> tuple[float, float, float]:
    """Relative overhead, and the ends of the interval that holds nine tenths of the bootstraps over rounds."""
    a, b = [x[clock] for x in mine], [x[clock] for x in bare]
    rng, n = random.Random(1), len(a)
    found = []
    for _ in range(500):
        chosen = rng.choices(range(n), k=n)
        found.append(sum(a[i] for i in chosen) / sum(b[i] for i in chosen) - 1)
    found.sort()
    return sum(a) / sum(b) - 1, found[25], found[474]


def verdict(name: str, found: dict[str, dict[str, Any]]) -> list[str]:
    """What is to be said of the targets for the default tier."""
    target = TARGETS[name]
    lines = []
    for clock, of in (("wall", "wall time"), ("cpu", "CPU time")):
        control = max(abs(end) for end in found["bare again (A/A)"][clock][1:])
        middle, low, high = found["fitdoctor standard"][clock]
        what = f"{name}, standard tier: {middle:+.1%} [{low:+.1%}, {high:+.1%}] of {of}, aim {target:.0%}"
        if control > target:
            lines.append(f"CANNOT TELL  {what}; the A/A control itself reaches {control:.1%}")
        else:
            same = ", not to be told from the control" if low <= control else ""
            lines.append(f"{_met(low <= target)} {what}{same}")
    for key, row in found.items():
        own = row["own_account"]
        if own is not None:
            lines.append(f"{_met(own <= BUDGET)} {name}, {key}: {own:.2%} by its own account, budget {BUDGET:.0%}")
    return lines


def _met(met: bool) -> str:
    return "MET         " if met else "MISSED      "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workload", choices=list(WORKLOADS), action="append")
    parser.add_argument("--seconds", type=float, default=75.0, help="seconds of rounds per workload")
    parser.add_argument("--threads", type=int, default=1, help="of torch; 0 for torch's own choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("WANDB_SILENT", "true")
    logging.getLogger("fitdoctor").setLevel(logging.CRITICAL)
    if options.threads:
        torch.set_num_threads(options.threads)
    result: dict[str, Any] = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    verdicts = []
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}\n")
    for name in options.workload or WORKLOADS:
        found, rounds = measure(name, options.seconds, options.device)
        print(
            f"{name}: {rounds} rounds {'':16} ms/step      wall [90 % interval]           CPU [90 % interval]   account"
        )
        for key, row in found.items():
            share = "" if row["own_account"] is None else f"{row['own_account']:10.2%}"
            spans = "  ".join(f"{m:+8.1%} [{a:+7.1%}, {b:+7.1%}]" for m, a, b in (row["wall"], row["cpu"]))
            print(f"  {key:32} {row['milliseconds']:8.2f} {spans} {share}")
        counts = counts_by_level(lambda name=name: WORKLOADS[name](options.device))  # type: ignore[misc]
        print("  counts of one step      operations   hook calls   host waits   bytes read")
        for level, c in counts.items():
            print(f"  {level:22} {c.operations:12,} {c.hook_calls:12,} {c.syncs:12,} {c.bytes_read:12,}")
        print(flush=True)
        verdicts += verdict(name, found)
        result[name] = {
            "rounds": rounds,
            "times": found,
            "counts": {k: [c.operations, c.hook_calls, c.syncs, c.bytes_read] for k, c in counts.items()},
        }
    print("\n".join(verdicts))
    if options.json:
        options.json.write_text(json.dumps({**result, "verdicts": verdicts}, indent=1))


if __name__ == "__main__":
    main()
