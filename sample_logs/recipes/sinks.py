"""Where a training writes its log: one class per format, all with `log`, `restart` and `close`."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

BEGAN = 1_760_000_000.0
"""Wall time of the first logged value. A fixed clock keeps the logs the same whenever they are made."""

NAMES = MappingProxyType({})


class Sink(Protocol):
    """Takes what a training wants logged."""

    def log(self, step: int, **values: float) -> None:
        """Log values at a step; epoch-wise trainings pass the epoch as the step."""

    def restart(self) -> None:
        """Begin a new log file, as a restarted process would."""

    def close(self) -> None:
        """Finish the file."""


class Nowhere:
    """Logs nothing; for the trainings that only serve to check a label."""

    def log(self, step: int, **values: float) -> None:
        """Forget the values."""

    def restart(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Events:
    """TensorBoard event files by torch's SummaryWriter."""

    def __init__(self, folder: Path, **names: str) -> None:
        self.folder, self.names, self.parts, self.count = folder, names, 0, 0
        self.restart()

    def restart(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self.parts:
            self.writer.close()
        self.parts += 1
        self.writer = SummaryWriter(str(self.folder), filename_suffix=f".part{self.parts}")

    def log(self, step: int, **values: float) -> None:
        self.count += 1
        for key, value in values.items():
            self.writer.add_scalar(self.names.get(key, key), value, step, walltime=BEGAN + 0.05 * self.count)

    def close(self) -> None:
        """Close, and rename the files: their names hold the name of the machine."""
        self.writer.close()
        for path in self.folder.glob("events.out.tfevents.*"):
            part = int(path.name.rpartition(".part")[2])
            path.rename(self.folder / f"events.out.tfevents.{int(BEGAN) + 3600 * (part - 1)}.trainer.1.0")


class JsonLines:
    """One JSON object a line."""

    def __init__(self, folder: Path, clock: str = "step", **names: str) -> None:
        self.names, self.clock = names, clock
        self.file = (folder / "train_log.jsonl").open("w")

    def log(self, step: int, **values: float) -> None:
        row = {self.clock: step, **{self.names.get(k, k): float(f"{v:.6g}") for k, v in values.items()}}
        self.file.write(json.dumps(row) + "\n")

    def restart(self) -> None:
        """Go on in the same file, as an appending logger does."""

    def close(self) -> None:
        self.file.close()


class Printed:
    """What a script prints.

    Args:
        folder: where to put the file.
        line: a format string with the names of the values; ``{step}`` is the clock.
        other: format strings by a name that marks them: used instead when that value is logged.
    """

    def __init__(self, folder: Path, line: str, other: dict[str, str] | None = None, head: str = "") -> None:
        self.line, self.other = line, other or {}
        self.file = (folder / "train.log").open("w")
        if head:
            self.file.write(head + "\n")

    def log(self, step: int, **values: float) -> None:
        line = next((text for mark, text in self.other.items() if mark in values), self.line)
        self.file.write(line.format(step=step, **values) + "\n")

    def restart(self) -> None:
        self.file.write("Resuming from checkpoint\n")

    def close(self) -> None:
        self.file.close()


class Table:
    """A CSV file with one row per epoch."""

    def __init__(self, folder: Path, clock: str = "epoch") -> None:
        self.file = (folder / "history.csv").open("w")
        self.clock, self.columns = clock, ()

    def log(self, step: int, **values: float) -> None:
        if not self.columns:
            self.columns = tuple(values)
            self.file.write(",".join([self.clock, *self.columns]) + "\n")
        self.file.write(",".join([str(step), *(f"{values[c]:.6g}" for c in self.columns)]) + "\n")

    def restart(self) -> None:
        """Go on in the same file."""

    def close(self) -> None:
        self.file.close()


class WandbOffline:
    """A Weights & Biases run in offline mode. Only the ``.wandb`` file is kept."""

    def __init__(self, folder: Path, name: str, config: dict[str, object]) -> None:
        import wandb

        self.folder, self.scratch = folder, tempfile.mkdtemp()
        settings = wandb.Settings(
            mode="offline",
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            host="trainer",
            username="someone",
            run_id="samplerun",
            root_dir=self.scratch,
        )
        self.run = wandb.init(project="digits", name=name, config=config, settings=settings)

    def log(self, step: int, **values: float) -> None:
        self.run.log(values, step=step)

    def restart(self) -> None:
        """Go on in the same run."""

    def close(self) -> None:
        self.run.finish()
        for path in Path(self.scratch).rglob("*.wandb"):
            shutil.copy(path, self.folder / path.name)
        shutil.rmtree(self.scratch)
