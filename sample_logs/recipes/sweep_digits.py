"""A small real sweep: a digits MLP at nine learning rates, two batch sizes and two seeds, one run cut short.

    python sample_logs/recipes/sweep_digits.py

writes ``sample_logs/sweep_digits/``: a folder of TensorBoard event files per run, with its hyperparameters as torch's
`add_hparams` writes them and nothing of them in its name, and `truth.toml`: what the trained models lose on digits that
neither training nor log ever saw. The test of `sweep` is scored by the latter.
"""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

SAMPLES = Path(__file__).parents[1]
sys.path.insert(0, str(SAMPLES))

from recipes.shared import digits, mlp  # noqa: E402
from recipes.sinks import BEGAN  # noqa: E402

RATES = tuple(float(f"{10 ** (k / 2):.3g}") for k in range(-6, 3))
BATCHES = (32, 128)
SEEDS = (0, 1)
EPOCHS = 20
CUT = 3
"""The run that is cut short, by its number; as a job that ran out of time."""


def train(folder: Path, rate: float, batch: int, seed: int, *, epochs: int = EPOCHS) -> float:
    """Train one model, log it, and return its loss on the oracle set."""
    from torch.utils.tensorboard import SummaryWriter

    torch.manual_seed(seed)
    data, model = digits(600, 300), mlp([64, 32, 10])
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    writer = SummaryWriter(str(folder), filename_suffix=".part1")
    x, y = data.train
    step = 0

    def log(tag: str, value: float) -> None:
        writer.add_scalar(tag, value, step, walltime=BEGAN + step)

    for epoch in range(epochs + 1):
        with torch.no_grad():
            out = model(data.val[0])
            log("val/loss", F.cross_entropy(out, data.val[1]).item())
            log("val/accuracy", (out.argmax(1) == data.val[1]).float().mean().item())
        if epoch == epochs:
            break
        losses = []
        for rows in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
        log("train/loss", sum(losses) / len(losses))
    hparams = {"lr": rate, "batch_size": batch, "seed": seed, "optimizer": "sgd", "momentum": 0.9}
    writer.add_hparams(hparams, {}, run_name=".")
    writer.close()
    for i, path in enumerate(sorted(folder.glob("events.out.tfevents.*"), key=lambda p: not p.name.endswith(".part1"))):
        path.rename(folder / f"events.out.tfevents.{int(BEGAN) + i}.trainer.1.{i}")
    with torch.no_grad():
        return F.cross_entropy(model(data.oracle[0]), data.oracle[1]).item()


def main() -> None:
    """Train the sweep."""
    torch.set_num_threads(1)
    target = SAMPLES / "sweep_digits"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    grid = [(rate, batch, seed) for seed in SEEDS for batch in BATCHES for rate in RATES]
    with (target / "truth.toml").open("w", newline="\n") as file:
        file.write("# Loss of the trained models on digits that neither training nor log ever saw.\n")
        for i, (rate, batch, seed) in enumerate(grid):
            loss = train(target / f"trial_{i:02d}", rate, batch, seed, epochs=EPOCHS // 3 if i == CUT else EPOCHS)
            shown = f"{loss:.5g}" if math.isfinite(loss) else "nan"
            file.write(f"trial_{i:02d} = {{ rate = {rate}, batch = {batch}, seed = {seed}, loss = {shown} }}\n")


if __name__ == "__main__":
    main()
