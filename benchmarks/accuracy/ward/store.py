"""Runs on disk, by what made them: a run that is there is not trained again, and an interrupted batch goes on."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
import torch
from benchmarks.accuracy.devset_logs import Habit, write
from benchmarks.accuracy.ward.recipe import Recipe
from benchmarks.accuracy.ward.training import Outcome, Program, train

CACHE = Path(__file__).parents[1] / "cache" / "ward"
RECORDS = 150
"""Records of the monitor in a run, about: its own budget goes by the clock, and the same run twice would differ."""


@dataclass(frozen=True)
class Store:
    """The folder of all runs: ``outcomes/KEY.json.gz``, ``hooks/KEY``, ``logs/KEY``."""

    root: Path = CACHE

    def outcome(self, recipe: Recipe) -> Outcome:
        """What is known of a run that was trained."""
        with gzip.open(self.root / "outcomes" / f"{recipe.key()}.json.gz", "rt") as file:
            return Outcome(**json.load(file)["outcome"])

    def hooks(self, recipe: Recipe) -> Path:
        """The folder that the monitor wrote."""
        return self.root / "hooks" / recipe.key()

    def logs(self, recipe: Recipe) -> Path:
        """The folder of the log that the script itself might have written, made when first asked for."""
        folder = self.root / "logs" / recipe.key()
        if not folder.exists():
            outcome = self.outcome(recipe)
            partial = folder.with_name(f"{folder.name}.{os.getpid()}")
            write(outcome, partial, Habit.draw(recipe.key(), per_step=recipe.fixed_order))
            partial.rename(folder)
        return folder

    def has(self, recipe: Recipe, *, watched: bool) -> bool:
        """Whether a run is there."""
        return (self.root / "outcomes" / f"{recipe.key()}.json.gz").exists() and (
            not watched or self.hooks(recipe).exists()
        )

    def recorded_now(self, recipe: Recipe) -> bool:
        """Whether the monitor that watched a run is today's."""
        with gzip.open(self.root / "outcomes" / f"{recipe.key()}.json.gz", "rt") as file:
            return bool(json.load(file).get("monitor", "") == monitor_hash())

    def make(self, recipe: Recipe, *, watched: bool) -> None:
        """Train a run and keep it."""
        torch.set_num_threads(1)
        partial = self.hooks(recipe).with_name(f"{recipe.key()}.{os.getpid()}")
        outcome = train(recipe, (lambda program: watch(program, partial)) if watched else lambda _: _Nobody())
        if watched:
            shutil.rmtree(self.hooks(recipe), ignore_errors=True)
            partial.rename(self.hooks(recipe))
        path = self.root / "outcomes" / f"{recipe.key()}.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        with gzip.open(new, "wt", compresslevel=3) as file:
            by = monitor_hash() if watched else ""
            json.dump({"recipe": recipe.differences(), "monitor": by, "outcome": asdict(outcome)}, file)
        new.rename(path)

    def fill(self, wanted: Iterable[tuple[Recipe, bool]], *, jobs: int, what: str, again: bool = False) -> None:
        """Train all runs that are not there yet.

        Args:
            wanted: recipes, each with whether the monitor watches.
            jobs: processes.
            what: what the progress bar calls them.
            again: train runs that an older monitor watched once more.
        """
        todo: dict[str, tuple[Recipe, bool]] = {}
        for recipe, watched in wanted:
            before = todo.get(recipe.key(), (recipe, False))[1]
            old = again and watched and self.has(recipe, watched=True) and not self.recorded_now(recipe)
            if old or not self.has(recipe, watched=watched):
                todo[recipe.key()] = (recipe, watched or before)
        (self.root / "hooks").mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(jobs) as pool, click.progressbar(length=len(todo), label=what) as bar:
            for done in as_completed([pool.submit(self.make, r, watched=w) for r, w in todo.values()]):
                done.result()
                bar.update(1)


@cache
def monitor_hash() -> str:
    """Twelve hex digits of the code that watches a run."""
    import fitdoctor.live

    return digest(Path(fitdoctor.live.__file__).parent.rglob("*.py"))


def digest(files: Iterable[Path]) -> str:
    """Twelve hex digits of the contents of files, in the order of their names."""
    seen = hashlib.sha256()
    for path in sorted(files):
        seen.update(path.name.encode() + path.read_bytes())
    return seen.hexdigest()[:12]


class _Nobody:
    """No monitor."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def watch(program: Program, logdir: Path) -> AbstractContextManager[Any]:
    """Attach fitdoctor's monitor as a person would, with fixed probe batches of both splits."""
    import fitdoctor

    every = max(1, program.recipe.epochs * program.schedule.per_epoch // RECORDS)

    def fixed(data: tuple[torch.Tensor, torch.Tensor]) -> Any:
        x, y = data[0][:256], data[1][:256]
        return lambda net: program.loss_of(net(x), y)

    return fitdoctor.attach(
        program.model,
        program.optimizer,
        program.criterion,
        logdir=logdir,
        scheduler=program.schedule.scheduler,
        record_every=every,
        probe_every=4 * every,
        judge_every=10**9,
        probe_train=fixed(program.train),
        probe_val=fixed(program.val),
    )


def finite(value: float) -> bool:
    """Whether a measured value is a number."""
    return value is not None and math.isfinite(value)
