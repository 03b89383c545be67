"""What a monitor costs: time per training step with and without it, in alternating rounds, and exact counts.

    python benchmarks/speed/hooks.py                             # all workloads, a quarter of an hour on two cores
    python benchmarks/speed/hooks.py --workload mlp40 --rounds 7 --steps 100

Compared, in rounds that alternate between all of them (each with a model of its own, warmed up):

- `bare` twice: their ratio is the A/A control, and no other ratio is known better than that one;
- fitdoctor in each tier, writing its log, at its default budget of 1 %;
- a naive monitor: forward hooks and gradients read with ``.item()`` per layer at every step;
- `wandb.watch(model, log="gradients")` every 100 steps (its default is 1000), where wandb is installed (offline).

The time is the wall clock's and, beside it, the CPU time of the process, which other work on the machine
disturbs less. The numbers are medians over rounds of the ratio to the `bare` of the same round.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.speed.hooks_workloads import WORKLOADS, Workload, counts_by_level, step
from fitdoctor.live import attach

Run = Callable[[int], None]


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


def measure(name: str, rounds: int, steps: int, warm: int, device: str) -> dict[str, Any]:
    """Ratios of time per step to bare, and the monitors' own accounts."""
    times: dict[str, list[tuple[float, float]]] = {}
    shares = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for key, make in variants().items():
            torch.manual_seed(0)
            runs[key] = make(WORKLOADS[name](device), Path(folder) / key.replace(" ", "-"))
        for run, _ in runs.values():
            run(warm)
        for i in range(rounds):
            order = list(runs) if i % 2 == 0 else list(reversed(runs))
            for key in order:
                wall, cpu = time.perf_counter(), time.process_time()
                runs[key][0](steps)
                times.setdefault(key, []).append((time.perf_counter() - wall, time.process_time() - cpu))
        for key, (_, closing) in runs.items():
            if key.startswith("fitdoctor"):
                shares[key] = (closing.cost.share, str(closing.cost))
                closing.close()
            elif closing is not None:
                closing.finish()
    out = {}
    for key, values in times.items():
        pairs = list(zip(values, times["bare"], strict=True))
        out[key] = {
            "milliseconds": 1e3 * statistics.median(wall for wall, _ in values) / steps,
            "wall": statistics.median(a[0] / b[0] for a, b in pairs) - 1,
            "cpu": statistics.median(a[1] / b[1] for a, b in pairs) - 1,
            "own_account": shares.get(key, (None, ""))[0],
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workload", choices=list(WORKLOADS), action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=0, help="steps per round (default: by workload)")
    parser.add_argument("--warm", type=int, default=0, help="steps before the first round (default: by workload)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("WANDB_SILENT", "true")
    logging.getLogger("fitdoctor").setLevel(logging.CRITICAL)
    usual = {"mlp40": (200, 400), "cnn": (20, 60), "transformer": (10, 30)}
    result: dict[str, Any] = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rounds} rounds\n")
    for name in options.workload or WORKLOADS:
        steps, warm = usual[name]
        found = measure(name, options.rounds, options.steps or steps, options.warm or warm, options.device)
        print(f"{name}: {'':24} ms/step     wall      CPU   own account")
        for key, row in found.items():
            share = "" if row["own_account"] is None else f"{row['own_account']:10.2%}"
            print(f"  {key:32} {row['milliseconds']:8.2f} {row['wall']:+8.1%} {row['cpu']:+8.1%} {share}")
        counts = counts_by_level(lambda name=name: WORKLOADS[name](options.device))  # type: ignore[misc]
        print("  counts of one step      operations   hook calls   host waits   bytes read")
        for level, c in counts.items():
            print(f"  {level:22} {c.operations:12,} {c.hook_calls:12,} {c.syncs:12,} {c.bytes_read:12,}")
        print(flush=True)
        result[name] = {
            "times": found,
            "counts": {k: [c.operations, c.hook_calls, c.syncs, c.bytes_read] for k, c in counts.items()},
        }
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
