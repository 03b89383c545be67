"""How fast TensorBoard event files are read, against TensorBoard's own two readers.

    python benchmarks/speed/read_tensorboard.py                   # 1 M points, about ten minutes
    python benchmarks/speed/read_tensorboard.py --points 100000 --rounds 3
    python benchmarks/speed/read_tensorboard.py --json result.json

What is compared, in rounds that alternate between all of them:

- `fitdoctor`: all points of one file as numpy arrays, every checksum verified. Timed twice in each round
  ("again"); their ratio, which should be 1, says how far the other ratios can be trusted.
- `EventAccumulator`: TensorBoard's Python reader, keeping every point (``size_guidance`` of 0). Verifies checksums.
- `data server`: TensorBoard's reader in Rust (package tensorboard-data-server), ``--samples-per-plugin scalars=all``,
  from its start until its gRPC interface reports the last step of every tag. It verifies no checksums unless
  asked to, which is timed as well (`data server --checksum`).

Before anything is timed, the points that fitdoctor reads are compared with those that were written.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from event_logs import Log, irregular, regular, simple_value, tensor_value, write_log

NAME = "events.out.tfevents.1700000000.host.1.0"


def read_with_fitdoctor(*folders: Path) -> None:
    from fitdoctor.readers import tensorboard

    for folder in folders:
        for run in tensorboard.read(folder, sorted(folder.iterdir())):
            sum(float(series.values[-1]) for series in run.series)


def read_many_with_fitdoctor(root: Path) -> None:
    """Every run below a folder, as the walk finds them: the way of `open_runs`, without giving tags a meaning."""
    from fitdoctor.readers import find_runs, read_ahead

    sources = find_runs(root)
    through = read_ahead(sources)
    for source in sources:
        for run in source.raw_runs(through):
            sum(float(series.values[-1]) for series in run.series)


def read_with_event_accumulator(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    sum(accumulator.Scalars(tag)[-1].value for tag in tags["scalars"])
    sum(accumulator.Tensors(tag)[-1].step for tag in tags["tensors"])


@contextmanager
def data_server(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """TensorBoard's data server, started the way that TensorBoard starts it, and a client of it."""
    import tensorboard_data_server
    from tensorboard.data import grpc_provider, server_ingester
    from tensorboard.util import grpc_util

    with tempfile.TemporaryDirectory() as temporary:
        port_file = Path(temporary, "port")
        command = [
            tensorboard_data_server.server_binary(), f"--logdir={folder}", "--reload=once", "--port=0",
            f"--port-file={port_file}", "--samples-per-plugin=scalars=all", "--die-after-stdin", *flags,
        ]  # fmt: skip
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            while not (port_file.exists() and port_file.read_text().endswith("\n")):
                time.sleep(0.0005)
            address = f"localhost:{int(port_file.read_text())}"
            stub = server_ingester._make_stub(address, grpc_util.ChannelCredsType.LOCAL)
            yield process, grpc_provider.GrpcDataProvider(address, stub)
        finally:
            process.kill()
            process.wait()


def wait_for_data_server(provider: Any, wanted: dict[str, dict[str, int]]) -> None:
    """Return as soon as the last step of every tag of every run can be read."""
    from tensorboard import context

    while True:
        have = provider.list_scalars(context.RequestContext(), experiment_id="", plugin_name="scalars")
        if all(
            run in have and all(tag in have[run] and have[run][tag].max_step >= step for tag, step in tags.items())
            for run, tags in wanted.items()
        ):
            return
        time.sleep(0.002)


def read_with_data_server(folder: Path, wanted: dict[str, dict[str, int]], *flags: str) -> float:
    """CPU seconds that the server took."""
    with data_server(folder, *flags) as (process, provider):
        wait_for_data_server(provider, wanted)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- measuring -------------------------------------------------------------------------------------


@dataclass
class Timing:
    """Seconds of each round, on the clock and of CPU time, by what was timed."""

    seconds: dict[str, list[float]]
    cpu: dict[str, list[float]]

    def ratio(self, name: str, of: dict[str, list[float]], base: str = "fitdoctor") -> float:
        """Median over the rounds of how many times longer than `base` it took in the same round."""
        return statistics.median(a / b for a, b in zip(of[name], of[base], strict=False))


def timed_in_rounds(
    contestants: dict[str, Callable[[], float | None]], rounds: int, slow: Iterable[str], slow_rounds: int
) -> Timing:
    """Time everything once per round, in turns, so that a slow moment of the machine meets all alike.

    A contestant that works in another process returns the CPU seconds it took there.
    """
    timing = Timing({name: [] for name in contestants}, {name: [] for name in contestants})
    for turn in range(rounds):
        for name, run in contestants.items():
            if name in slow and turn >= slow_rounds:
                continue
            gc.collect()
            start, cpu = time.perf_counter(), time.process_time()
            elsewhere = run()
            timing.cpu[name].append(time.process_time() - cpu if elsewhere is None else elsewhere)
            timing.seconds[name].append(time.perf_counter() - start)
    return timing


MEMORY_PROBE = """
import sys, gc
from pathlib import Path
sys.path.insert(0, {here!r})
import read_tensorboard as b
def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
folder = Path({folder!r})
b.{function}(Path({warm!r}))  # imports and tables
gc.collect()
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # start the peak anew
b.{function}(folder)
print(max(status("VmHWM") - before, 0))
"""


def peak_memory(function: str, folder: Path, warm: Path) -> float:
    """Peak of resident memory while reading in a fresh process, above what it had before, in MB."""
    code = MEMORY_PROBE.format(here=str(Path(__file__).parent), folder=str(folder), warm=str(warm), function=function)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


def data_server_memory(folder: Path, wanted: dict[str, dict[str, int]]) -> float:
    with data_server(folder) as (process, provider):
        wait_for_data_server(provider, wanted)
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


# --- the comparisons ----------------------------------------------------------------------------------


def check(folder: Path, log: Log) -> None:
    """Fail unless fitdoctor reads exactly what was written."""
    from fitdoctor.readers import tensorboard

    compare(tensorboard.read(folder, sorted(folder.iterdir())), log, folder)


def compare(runs: Iterable[Any], log: Log, folder: Path) -> None:
    """Fail unless these runs are one and hold exactly what was written."""
    (run,) = runs
    if run.notes:
        raise SystemExit(f"{folder}: {run.notes}")
    order = {tag: np.flatnonzero(log.which == i) for i, tag in enumerate(log.tags)}
    for series in run.series:
        here = order.pop(series.tag)
        written = (log.steps[here], log.values[here].astype(np.float64), log.walls[here])
        for got, want in zip((series.steps, series.values, series.wall_time), written, strict=True):
            if not np.array_equal(got, want):
                raise SystemExit(f"{folder}: {series.tag} differs from what was written")
    if any(len(here) for here in order.values()):
        raise SystemExit(f"{folder}: {sorted(order)} missing")


def last_steps(log: Log) -> dict[str, int]:
    return {tag: int(log.steps[log.which == i].max()) for i, tag in enumerate(log.tags) if (log.which == i).any()}


def compare_one_file(
    name: str, log: Log, layout: Callable[[bytes, float], bytes], args: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    write_log(folder / NAME, log, layout)
    check(folder, log)
    wanted = {".": last_steps(log)}
    contestants: dict[str, Callable[[], float | None]] = {
        "fitdoctor": lambda: read_with_fitdoctor(folder),
        "data server": lambda: read_with_data_server(folder, wanted),
        "fitdoctor again": lambda: read_with_fitdoctor(folder),
        "data server --checksum": lambda: read_with_data_server(folder, wanted, "--checksum"),
        "EventAccumulator": lambda: read_with_event_accumulator(folder),
    }
    if not args.slow_rounds:
        del contestants["EventAccumulator"]
    read_with_fitdoctor(folder)
    timing = timed_in_rounds(contestants, args.rounds, {"EventAccumulator"}, args.slow_rounds)
    size = (folder / NAME).stat().st_size
    print(f"\n{name}: {len(log.steps)} points in one file of {size / 1e6:.0f} MB, {args.rounds} rounds")
    result = report(timing, len(log.steps))
    result["peak MB above start"] = {
        "fitdoctor": peak_memory("read_with_fitdoctor", folder, args.warm),
        "data server": data_server_memory(folder, wanted),
    }
    if "EventAccumulator" in contestants and name == "regular":
        result["peak MB above start"]["EventAccumulator"] = peak_memory(
            "read_with_event_accumulator", folder, args.warm
        )
    for reader, megabytes in result["peak MB above start"].items():
        print(f"  {'peak memory of ' + reader:<36}{megabytes:8.1f} MB")
    return result


def report(timing: Timing, points: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    print(f"  {'reader':<24}{'median s':>10}{'ns/point':>10}{'x fitdoctor':>13}{'CPU s':>10}{'x fitdoctor':>13}")
    for name, seconds in timing.seconds.items():
        wall, cpu = statistics.median(seconds), statistics.median(timing.cpu[name])
        ratio, cpu_ratio = timing.ratio(name, timing.seconds), timing.ratio(name, timing.cpu)
        result[name] = {"seconds": seconds, "cpu seconds": timing.cpu[name], "ns per point": wall / points * 1e9,
                        "ratio": ratio, "cpu ratio": cpu_ratio}  # fmt: skip
        print(f"  {name:<24}{wall:>10.3f}{wall / points * 1e9:>10.0f}{ratio:>13.2f}{cpu:>10.3f}{cpu_ratio:>13.2f}")
    return result


def compare_many_runs(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    from fitdoctor.readers import find_runs, read_ahead

    lengths = np.random.default_rng(0).integers(args.points_per_run // 2, 3 * args.points_per_run // 2, args.runs)
    folders = [root / f"run{i:04}" for i in range(args.runs)]
    wanted, points = {}, 0
    for seed, (folder, length) in enumerate(zip(folders, lengths.tolist(), strict=True)):
        log = regular(length, seed)
        write_log(folder / NAME, log, simple_value)
        wanted[folder.name] = last_steps(log)
        points += len(log.steps)
    sources = find_runs(root)
    through = read_ahead(sources)
    for seed, (source, length) in enumerate(zip(sources, lengths.tolist(), strict=True)):
        compare(source.raw_runs(through), regular(length, seed), source.path)
    contestants: dict[str, Callable[[], float | None]] = {
        "fitdoctor": lambda: read_many_with_fitdoctor(root),
        "data server": lambda: read_with_data_server(root, wanted),
        "fitdoctor again": lambda: read_many_with_fitdoctor(root),
        "data server --checksum": lambda: read_with_data_server(root, wanted, "--checksum"),
        "fitdoctor, run by run": lambda: read_with_fitdoctor(*folders),
    }
    timing = timed_in_rounds(contestants, args.rounds, (), 0)
    print(f"\n{args.runs} runs of {points / args.runs:.0f} points each, in one directory, {args.rounds} rounds")
    return report(timing, points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000, help="points in one file")
    parser.add_argument("--runs", type=int, default=2_000, help="runs in one directory; 0 leaves this out")
    parser.add_argument("--points-per-run", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slow-rounds", type=int, default=2, help="rounds in which EventAccumulator takes part")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    peers = {name: importlib.metadata.version(name) for name in ("tensorboard", "tensorboard-data-server", "numpy")}
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {peers}")
    results: dict[str, Any] = {
        "peers": peers,
        "cores": os.cpu_count(),
        "arguments": {k: str(v) for k, v in vars(args).items()},
    }
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        args.warm = root / "warm"
        write_log(args.warm / NAME, regular(1_000), simple_value)
        for name, log, layout in (
            ("regular", regular(args.points), simple_value),
            ("irregular", irregular(args.points), simple_value),
            ("regular, TensorFlow 2 layout", regular(args.points), tensor_value),
            ("irregular, TensorFlow 2 layout", irregular(args.points), tensor_value),
        ):
            folder = root / name.replace(", ", "-").replace(" ", "-")
            results[name] = compare_one_file(name, log, layout, args, folder)
            (folder / NAME).unlink()
        if args.runs:
            results["many runs"] = compare_many_runs(args, root / "many")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
