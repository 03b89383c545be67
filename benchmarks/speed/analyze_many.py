"""How long `fitdoctor analyze` takes over many runs: first, again, and on how many processes.

    python benchmarks/speed/analyze_many.py                      # 2,000 runs; a few minutes on an idle machine
    python benchmarks/speed/analyze_many.py --runs 200 --rounds 3

The runs are event files as torch's SummaryWriter writes them: a falling loss with noise, held-out loss, accuracy,
learning rate and gradient norm, 100 to 300 steps each; in one of five the loss climbs at the end. What is timed, in
rounds that alternate, is the whole command in a process of its own, the table of all runs written to a pipe:

- `one process`: `--workers 1 --no-cache`.
- `all cores`: `--no-cache`, and the default number of workers.
- `first call`: all cores, and the reports are stored.
- `second call`: everything is found in the store.

Before anything is timed, the JSON reports of all four are compared: they must be the same bytes. Each ratio is the
median of the ratios within a round. CPU counts the workers too; other work on the machine disturbs it less than the
clock. The last lines say where the CPU goes within one process: walking, reading, judging, storing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from event_logs import Log, simple_value, write_log

TAGS = ["train/loss", "train/grad_norm", "train/lr", "val/loss", "val/accuracy"]
NAME = "events.out.tfevents.1700000000.host.1.0"


def training(seed: int) -> Log:
    """What a made-up training logs: 100 to 300 steps of five tags."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(100, 300))
    t = np.arange(n) / n
    loss = 0.2 + 2.1 * np.exp(-rng.uniform(4, 12) * t) + 0.02 * rng.standard_normal(n)
    if seed % 5 == 0:
        loss = np.where(t > 0.6, loss * np.exp(8 * (t - 0.6)), loss)
    values = [
        loss, np.exp(0.2 * rng.standard_normal(n)), 0.1 * (1 + np.cos(np.pi * t)) / 2,
        loss + 0.05 + 0.02 * rng.standard_normal(n), np.clip(1 - loss / 2.4 + 0.01 * rng.standard_normal(n), 0, 1),
    ]  # fmt: skip
    points = n * len(TAGS)
    return Log(
        TAGS,
        np.arange(points) % len(TAGS),
        np.arange(points) // len(TAGS),
        np.stack(values, axis=1).reshape(-1).astype(np.float32),
        1.7e9 + np.arange(points) * 0.01,
    )


def call(runs: Path, store: Path, *options: str) -> bytes:
    """What a call writes to stdout."""
    command = [sys.executable, "-m", "fitdoctor", "analyze", runs, "--exit-zero", "--quiet", *options]
    environment = {**os.environ, "FITDOCTOR_CACHE_DIR": str(store)}
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout


def timed(runs: Path, store: Path, *options: str) -> tuple[float, float]:
    """Seconds by the clock and of CPU that one call takes, its workers included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    call(runs, store, *options)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def by_part(runs: Path, store: Path) -> dict[str, float]:
    """CPU seconds of the parts of the work, in this process."""
    from fitdoctor.config import Config
    from fitdoctor.diagnose import diagnose
    from fitdoctor.many import ReportStore
    from fitdoctor.many.work import Job
    from fitdoctor.readers import find_runs, open_runs, read_ahead

    diagnose(next(open_runs(runs)))  # imports
    kept, job = ReportStore(store), Job(Config())
    parts = dict.fromkeys(("walking", "reading", "judging", "storing", "found in store"), 0.0)

    def spent(part: str, since: float) -> float:
        now = time.process_time()
        parts[part] += now - since
        return now

    at = time.process_time()
    sources = find_runs(runs)
    at = spent("walking", at)
    through = read_ahead(sources)
    for source in sources:
        work = kept.identified(source, job)
        at = spent("storing", at)
        loaded = source.load(through)
        at = spent("reading", at)
        judged = [(run.name, diagnose(run)) for run in loaded]
        at = spent("judging", at)
        kept.put(work, judged)
        at = spent("storing", at)
        kept.get(work)
        at = spent("found in store", at)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    args = parser.parse_args()
    calls = {
        "one process": ("--workers", "1", "--no-cache"),
        "all cores": ("--no-cache",),
        "first call": (),
        "second call": (),
    }
    clock: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        points = 0
        for i in range(args.runs):
            log = training(i)
            points += len(log.steps)
            write_log(root / "runs" / f"run{i:05}" / NAME, log, simple_value)
        time.sleep(3)  # logs that have just changed are not stored
        store = root / "store"
        written = {call(root / "runs", store, "--format", "json", *options) for options in calls.values()}
        if len(written) != 1:
            raise SystemExit("the reports differ between the calls")
        verdicts = [report["verdict"] for report in json.loads(written.pop())["reports"]]
        stored = sum(path.stat().st_size for path in store.rglob("*.z"))
        for _ in range(args.rounds):
            shutil.rmtree(store)
            for name, options in calls.items():
                seconds, used = timed(root / "runs", store, *options)
                clock[name].append(seconds)
                cpu[name].append(used)
        parts = by_part(root / "runs", root / "parts")
    runs = args.runs
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores; {runs} runs of {points / runs:.0f} points")
    print(f"{verdicts.count('sick')} sick; {stored / runs / 1e3:.1f} KB stored a run; {args.rounds} rounds")
    print(
        f"  {'':<14}{'median s':>10}{'ms a run':>10}{'CPU s':>10}{'CPU ms a run':>14}{'one process / it':>18}{'CPU':>8}"
    )
    for name in calls:
        seconds, used = statistics.median(clock[name]), statistics.median(cpu[name])
        faster = statistics.median(a / b for a, b in zip(clock["one process"], clock[name], strict=True))
        cheaper = statistics.median(a / b for a, b in zip(cpu["one process"], cpu[name], strict=True))
        print(f"  {name:<14}{seconds:>10.2f}{seconds / runs * 1e3:>10.2f}{used:>10.2f}{used / runs * 1e3:>14.2f}"
              f"{faster:>18.2f}{cheaper:>8.2f}")  # fmt: skip
    print("CPU ms a run: " + ", ".join(f"{part} {1e3 * seconds / runs:.2f}" for part, seconds in parts.items()))
    if args.json:
        args.json.write_text(
            json.dumps({"runs": args.runs, "clock": clock, "cpu": cpu, "parts": parts}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
