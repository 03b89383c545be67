"""On a GPU: no step waits for the device, and the monitor stays under its budget.

    python benchmarks/speed/hooks_gpu.py

Needs a machine with CUDA, torch and numpy; nothing else (no log is written, so protobuf may be missing).
Ends with status 1 when a check fails:

1. Steps of every level and tier, with clipping and a GradScaler, under ``set_sync_debug_mode("error")``:
   an operation that makes the host wait raises. It covers forward, backward and step with all hooks.
   (The hooks contain their exceptions, so it is checked as well that none of them was switched off.) GradScaler's
   own step reads its overflow flag, so there the mode is on only outside of it.
2. Training is bit for bit the same with and without the monitor (deterministic algorithms).
3. Time per step against `bare`, in alternating rounds, with an A/A control; the aim is at most 1 %.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.speed.hooks import stop, wind_up
from benchmarks.speed.hooks_workloads import WORKLOADS, Workload, step
from fitdoctor.live import attach
from fitdoctor.live.cadence import Level

failures: list[str] = []


class Told(logging.Handler):
    """Collects what the hooks complain about."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "switched off" in record.getMessage():
            error = record.exc_info[1] if record.exc_info else None
            self.messages.append(f"{record.getMessage()}: {error}")


@contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def clipped_step(work: Workload) -> None:
    model, optimizer, criterion, x, y = work
    optimizer.zero_grad()
    criterion(model(x), y).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def scaled_step(work: Workload, scaler: Any) -> None:
    model, optimizer, criterion, x, y = work
    optimizer.zero_grad()
    with no_waiting(), torch.autocast("cuda", torch.float16):
        loss = criterion(model(x), y)
    with no_waiting():
        scaler.scale(loss).backward()
    scaler.step(optimizer)  # reads found_inf: GradScaler's own wait
    scaler.update()


def check_waits(told: Told) -> None:
    for name, make in WORKLOADS.items():
        for tier in ("light", "standard", "deep"):
            work = make("cuda")
            with attach(work[0], work[1], work[2], tier=tier) as monitor:  # type: ignore[arg-type]
                monitor._loop.probes.wanted = False  # a probe may wait; it is not part of a step
                for _ in range(3):
                    clipped_step(work)
                for level in Level:
                    for _ in range(2):
                        monitor._loop.begin(level)
                        with no_waiting():
                            clipped_step(work)
            print(f"waits: {name}, {tier}: none" if not told.messages else f"waits: {name}, {tier}: {told.messages}")
            failures.extend(told.messages)
            told.messages.clear()
    work = WORKLOADS["cnn"]("cuda")
    scaler = torch.amp.GradScaler("cuda")
    with attach(work[0], work[1], work[2], scaler=scaler, record_every=1) as monitor:
        monitor._loop.probes.wanted = False
        for _ in range(6):
            scaled_step(work, scaler)
    print(f"waits: GradScaler: {told.messages or 'none'}; {len(monitor.run.series)} series")
    failures.extend(told.messages)
    told.messages.clear()


def check_same() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    for name, make in WORKLOADS.items():
        finals = []
        for monitored in (False, True):
            torch.manual_seed(0)
            work = make("cuda")
            monitor = attach(work[0], work[1], work[2], record_every=1, probe_every=3) if monitored else None
            for _ in range(10):
                clipped_step(work)
            if monitor is not None:
                monitor.close()
            finals.append([t.clone() for t in work[0].state_dict().values()] + [torch.cuda.get_rng_state()])
        same = all(torch.equal(a, b) for a, b in zip(*finals, strict=True))
        print(f"same training: {name}: {same}")
        if not same:
            failures.append(f"{name} trains differently with a monitor")
    torch.use_deterministic_algorithms(False)


def check_time(rounds: int = 15) -> None:
    for name, make in WORKLOADS.items():
        works: dict[str, Workload] = {}
        monitors = {}
        for key in ("bare", "A/A", "light", "standard", "deep"):
            torch.manual_seed(0)
            works[key] = make("cuda")
            if key in ("light", "standard", "deep"):
                monitors[key] = attach(*works[key][:3], tier=key)  # type: ignore[arg-type]
        times: dict[str, list[float]] = {key: [] for key in works}
        for key, work in works.items():
            wind_up(monitors.get(key))
            for _ in range(300):
                step(work)
            stop(monitors.get(key))
        for i in range(rounds):
            for key in list(works) if i % 2 else list(reversed(works)):
                torch.cuda.synchronize()
                wind_up(monitors.get(key))
                began = time.perf_counter()
                for _ in range(100):
                    step(works[key])
                torch.cuda.synchronize()
                times[key].append((time.perf_counter() - began) / 100)
                stop(monitors.get(key))
        base = 1e3 * statistics.median(times["bare"])
        print(f"time: {name}: bare {base:.3f} ms/step")
        for key in works:
            ratio = statistics.median(a / b for a, b in zip(times[key], times["bare"], strict=True)) - 1
            account = f"  own account {monitors[key].cost.share:.2%}" if key in monitors else ""
            print(f"  {key:10} {ratio:+.2%}{account}")
        for monitor in monitors.values():
            monitor.close()


def main() -> int:
    if not torch.cuda.is_available():
        print("no CUDA device here")
        return 2
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name()}")
    told = Told()
    logger = logging.getLogger("fitdoctor")
    logger.addHandler(told)
    logger.propagate = False
    check_waits(told)
    check_same()
    check_time()
    print("\n".join(["FAILED", *failures]) if failures else "all checks passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
