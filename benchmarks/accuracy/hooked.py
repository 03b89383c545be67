"""The development runs once more, watched by the monitor: the second arm of the evaluation.

Watching changes nothing (tests/live/test_same_training.py), so the labels that `devset.py` found by interventions hold
for these runs as they are.

    python benchmarks/accuracy/devset.py            # once: runs and labels
    python benchmarks/accuracy/hooked.py [--only TEXT]
    python benchmarks/accuracy/development.py --devset benchmarks/accuracy/cache/hooked
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from devset_plan import CONFIGURATIONS, FAULTS, ODD
from devset_tasks import Task
from devset_training import Recipe, loss_arguments, prepared, train
from torch import nn

CACHE = Path(__file__).parent / "cache"

RECORDS = 150
"""Records in a run, about: the budget would choose by the clock, and the same run twice would not be the same."""


def recipe_of(line: dict[str, str]) -> Recipe:
    """The recipe behind a line of labels.tsv: the plan's, with what the line says of rate and seed."""
    kind, name = line["run"].split("/")
    if kind == "fault":
        return replace(FAULTS[int(name[:2])][1], seed=int(name[:2]))
    if kind == "odd":
        return replace(ODD[int(name[:2])][1], seed=int(name[:2]))
    base = next(c for c in CONFIGURATIONS if name.startswith(f"{c.task}-{c.arch}-{c.opt}-{c.schedule}-lr"))
    rate = re.search(r"-lr([\d.e+-]+?)(?:-seed\d+)?$", name)
    seed = re.search(r"'seed': (\d+)", line["detail"])
    if rate is None:
        raise ValueError(f"{line['run']}: expected a name that ends with -lrRATE or -lrRATE-seedN")
    return replace(base, lr=float(rate[1]), seed=int(seed[1]) if seed else 0)


def train_watched(line: dict[str, str], out: Path) -> str:
    """Train the run of one line of labels.tsv with a monitor; its name."""
    import fitdoctor

    torch.set_num_threads(1)
    recipe, logdir = recipe_of(line), out / line["run"]
    if any(logdir.rglob("*tfevents*")):
        return line["run"]
    shutil.rmtree(logdir, ignore_errors=True)

    def watch(
        model: nn.Module, optimizer: torch.optim.Optimizer, module: nn.Module, task: Task, recipe: Recipe
    ) -> fitdoctor.Monitor:
        _, (x, y), (vx, vy) = prepared(recipe)
        every = max(1, recipe.epochs * max(len(x) // recipe.batch, 1) // RECORDS)

        def fixed(inputs: Any, targets: Any) -> Any:
            return lambda net: module(*loss_arguments(task, net(inputs[:256]), targets[:256], recipe))

        return fitdoctor.attach(
            model,
            optimizer,
            module,
            logdir=logdir,
            record_every=every,
            probe_every=4 * every,
            judge_every=10**9,
            probe_train=fixed(x, y),
            probe_val=fixed(vx, vy),
        )

    train(recipe, watch=watch)
    return line["run"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--devset", type=Path, default=CACHE / "devset")
    parser.add_argument("--out", type=Path, default=CACHE / "hooked")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", default="", help="only runs whose name holds this text")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.devset / "labels.tsv").open(newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    # An optimizer made anew in the middle is not the one that was attached to.
    lines = [r for r in lines if arguments.only in r["run"] and recipe_of(r).restart != "no-state"]
    began = time.time()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for i, name in enumerate(pool.map(partial(train_watched, out=arguments.out), lines)):
            print(f"{i + 1}/{len(lines)}  {time.time() - began:5.0f} s  {name}", flush=True)
    with (arguments.out / "labels.tsv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]), delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(lines)


if __name__ == "__main__":
    main()
