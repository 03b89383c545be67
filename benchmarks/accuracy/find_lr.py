"""Is the learning rate that `find_lr` suggests a good one?

    python benchmarks/accuracy/find_lr.py                      # the table of docs/preflight.md
    python benchmarks/accuracy/find_lr.py --tasks calibration  # other tasks, on which the reading was chosen
    python benchmarks/accuracy/find_lr.py --tasks held-out     # tasks that were run once, after everything was chosen
    python benchmarks/accuracy/find_lr.py --only digits-mlp

Each task is trained at the suggestion and at 1/30, 1/10, 1/3, 3, 10 and 30 times it, and at the suggestion of
torch-lr-finder (``pip install torch-lr-finder matplotlib``), with three seeds, all with the same warm-up and cosine
decay.
The loss of a rate is that of the whole training set in eval mode at the end, the mean over the seeds. A rate is
in the low-regret band when its loss is above the lowest one by no more than 2 % of what the best training gains, or one
standard deviation over seeds, whichever is more.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fitdoctor import CannotJudge, find_lr
from fitdoctor.preflight.learning_rate.schedule import propose
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

FACTORS = (1 / 30, 1 / 10, 1 / 3, 1.0, 3.0, 10.0, 30.0)
Net = Callable[[], nn.Module]


@dataclass(frozen=True)
class Task:
    """A training with everything but its learning rate."""

    name: str
    data: Callable[[], tuple[Tensor, Tensor]]
    net: Net
    criterion: nn.Module
    optimizer: Callable[[nn.Module, float], torch.optim.Optimizer]
    steps: int
    batch: int = 32
    accumulate: int = 1


# --- data and nets ----------------------------------------------------------------------------------------


def digits(image: bool = False) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float32)
    x = (x - x.mean()) / x.std()
    return (x.reshape(-1, 1, 8, 8) if image else x), torch.tensor(y)


def unit(y: np.ndarray[Any, Any]) -> Tensor:
    """A target with mean 0 and deviation 1, as a column."""
    return torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)[:, None]


def tabular(name: str) -> tuple[Tensor, Tensor]:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    if np.issubdtype(y.dtype, np.integer):
        return torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    return torch.tensor(x, dtype=torch.float32), unit(y)


def made(name: str, **options: Any) -> tuple[Tensor, Tensor]:
    from sklearn import datasets

    x, y = getattr(datasets, f"make_{name}")(random_state=0, **options)
    x = (x - x.mean(0)) / x.std(0)
    if name == "friedman1":
        return torch.tensor(x, dtype=torch.float32), unit(y)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32 if y.ndim > 1 else torch.long)


def spirals(n: int = 900) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    r = torch.rand(n, generator=g)
    angle = 4 * r + 2.1 * y + 0.15 * torch.randn(n, generator=g)
    return torch.stack([r * angle.cos(), r * angle.sin()], 1) * 2, y


def characters(length: int = 24) -> tuple[Tensor, Tensor]:
    """Pieces of Python's own licence text: predict the next character."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        import this
    text = "".join(this.d.get(c, c) for c in this.s) + argparse.__doc__ + itertools.__doc__ + math.__doc__
    ids = torch.tensor([sorted(set(text)).index(c) for c in text])
    windows = ids.unfold(0, length + 1, 3)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def reversal(n: int = 1200, length: int = 8) -> tuple[Tensor, Tensor]:
    x = torch.randint(0, 10, (n, length), generator=torch.Generator().manual_seed(0))
    return x, x.flip(1)


def parity(n: int = 1000, length: int = 6) -> tuple[Tensor, Tensor]:
    x = torch.randint(0, 2, (n, length), generator=torch.Generator().manual_seed(0))
    return x, x.sum(1) % 2


def sine_pieces(n: int = 800, length: int = 24) -> tuple[Tensor, Tensor]:
    """Noisy sines of random pitch and phase: predict the next value at every place."""
    g = torch.Generator().manual_seed(0)
    pitch, phase = 0.2 + 0.6 * torch.rand(n, 1, generator=g), 6.28 * torch.rand(n, 1, generator=g)
    wave = (torch.arange(length + 1) * pitch + phase).sin() + 0.1 * torch.randn(n, length + 1, generator=g)
    return wave[:, :-1, None], wave[:, 1:, None]


def majority(n: int = 1200, length: int = 9) -> tuple[Tensor, Tensor]:
    """Which of three tokens is the most frequent."""
    x = torch.randint(0, 3, (n, length), generator=torch.Generator().manual_seed(0))
    return x, nn.functional.one_hot(x, 3).sum(1).argmax(1)


def same_images() -> tuple[Tensor, Tensor]:
    x, _ = digits(image=True)
    return x, x


def rolled(n: int = 900) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import make_swiss_roll

    x, place = make_swiss_roll(n, noise=0.3, random_state=0)
    return torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32), unit(place)


def sorting(n: int = 1200, length: int = 7) -> tuple[Tensor, Tensor]:
    x = torch.randint(0, 12, (n, length), generator=torch.Generator().manual_seed(1))
    return x, x.sort(1).values


def waveforms(n: int = 900, length: int = 48) -> tuple[Tensor, Tensor]:
    """Sine, square and saw-tooth of random pitch and phase, in noise."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    turn = torch.arange(length) * (0.1 + 0.3 * torch.rand(n, 1, generator=g)) + 6.28 * torch.rand(n, 1, generator=g)
    shapes = torch.stack([turn.sin(), turn.sin().sign(), 2 * (turn / 6.2832 % 1) - 1])
    wave = shapes[y, torch.arange(n)] + 0.4 * torch.randn(n, length, generator=g)
    return wave[:, None], y


def second_friedman(n: int = 800) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import make_friedman2

    x, y = make_friedman2(n, noise=60.0, random_state=0)
    return torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32), unit(y)


def walks(n: int = 900, length: int = 20) -> tuple[Tensor, Tensor]:
    """A process that remembers two steps: its sum over the whole sequence, at the end."""
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(n, length, generator=g)
    x = torch.zeros(n, length)
    for t in range(2, length):
        x[:, t] = 1.2 * x[:, t - 1] - 0.5 * x[:, t - 2] + noise[:, t]
    return x[..., None] / x.std(), unit(x.abs().mean(1).numpy())


def mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU, norm: bool = False) -> Net:
    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if norm else []), activation()]
        return nn.Sequential(*layers[: -2 if norm else -1])

    return build


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1),
        nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 10),
    )  # fmt: skip


class Sequence(nn.Module):
    """Token ids to scores: per place for a transformer and a language model, of the last place otherwise."""

    def __init__(self, kind: str, tokens: int, width: int = 32, classes: int = 0) -> None:
        super().__init__()
        self.kind, self.last = kind, classes > 0
        self.table = nn.Embedding(tokens, width)
        if kind == "transformer":
            self.place = nn.Parameter(0.1 * torch.randn(64, width))
            layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
            self.body: nn.Module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        else:
            self.body = (nn.GRU if kind == "gru" else nn.LSTM)(width, width, batch_first=True)
        self.head = nn.Linear(width, classes or tokens)

    def forward(self, x: Tensor) -> Tensor:
        h = self.table(x)
        h = self.body(h + self.place[: x.shape[1]]) if self.kind == "transformer" else self.body(h)[0]
        if self.last:
            return self.head(h.mean(1) if self.kind == "transformer" else h[:, -1])
        return self.head(h).transpose(1, 2)


class Recurrent(nn.Module):
    """Sequences of numbers to a number: at every place, or from the last one."""

    def __init__(self, kind: type[nn.RNNBase], width: int, last: bool) -> None:
        super().__init__()
        self.body, self.head, self.last = kind(1, width, batch_first=True), nn.Linear(width, 1), last

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)[0]
        return self.head(h[:, -1] if self.last else h)


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ELU(), nn.Conv2d(8, 4, 3, stride=2, padding=1), nn.ELU(),
        nn.ConvTranspose2d(4, 8, 4, stride=2, padding=1), nn.ELU(), nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1),
    )  # fmt: skip


class Residual(nn.Module):
    """Three residual blocks of 1-d convolutions with batch norm."""

    def __init__(self, width: int = 16, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, width, 5, padding=2)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Conv1d(width, width, 3, padding=1)) for _ in range(3)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for block in self.blocks:
            h = h + block(h)
        return self.head(h.relu().mean(2))


def sgd(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr)


def momentum(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr, momentum=0.9)


def adam(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr)


def adamw(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr, weight_decay=0.01)


def rmsprop(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(net.parameters(), lr)


def nesterov(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=5e-4)


def two_groups(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    """The last layer at five times the rate of the others."""
    *body, head = net.children()
    rest = [p for m in body for p in m.parameters()]
    return torch.optim.SGD([{"params": rest}, {"params": head.parameters(), "lr": 5 * lr}], lr, momentum=0.9)


CE = nn.CrossEntropyLoss()
TASKS = {
    "benchmark": (
        Task("digits-momentum", digits, mlp(64, 96, 10, activation=nn.GELU), CE, momentum, 400, 64),
        Task("digits-cnn", lambda: digits(image=True), cnn, CE, adamw, 300),
        Task("cancer-logistic", lambda: tabular("breast_cancer"), mlp(30, 2), CE, sgd, 400),
        Task("diabetes-mlp", lambda: tabular("diabetes"), mlp(10, 48, 48, 1), nn.MSELoss(), adam, 300),
        Task("characters-gru", characters, lambda: Sequence("gru", 72), CE, adam, 300),
        Task("reversal-transformer", reversal, lambda: Sequence("transformer", 10), CE, adamw, 400, 64),
        Task("spirals-tanh", spirals, mlp(2, 32, 32, 32, 3, activation=nn.Tanh), CE, rmsprop, 600),
        Task("digits-accumulated", digits, mlp(64, 48, 10), CE, two_groups, 250, 16, accumulate=4),
    ),
    "calibration": (
        Task("digits-mlp", digits, mlp(64, 64, 64, 10), CE, momentum, 500),
        Task(
            "classes-momentum",
            lambda: made("classification", n_samples=1000, n_informative=8, n_classes=4),
            mlp(20, 48, 48, 4),
            CE,
            momentum,
            400,
        ),
        Task(
            "friedman-momentum",
            lambda: made("friedman1", n_samples=800, noise=1.0),
            mlp(10, 64, 64, 1),
            nn.MSELoss(),
            momentum,
            400,
        ),
        Task(
            "classes-mlp",
            lambda: made("classification", n_samples=1000, n_informative=8, n_classes=4),
            mlp(20, 64, 4),
            CE,
            sgd,
            400,
        ),
        Task(
            "friedman-mlp",
            lambda: made("friedman1", n_samples=800, noise=1.0),
            mlp(10, 64, 64, 1),
            nn.MSELoss(),
            adam,
            400,
        ),
        Task("wine-mlp", lambda: tabular("wine"), mlp(13, 32, 3), CE, adamw, 200),
        Task(
            "moons-batchnorm",
            lambda: made("moons", n_samples=800, noise=0.2),
            mlp(2, 32, 32, 2, norm=True),
            CE,
            momentum,
            400,
        ),
        Task("parity-lstm", parity, lambda: Sequence("lstm", 2, 24, classes=2), CE, adam, 500),
        Task(
            "labels-mlp",
            lambda: made("multilabel_classification", n_samples=800),
            mlp(20, 64, 5),
            nn.BCEWithLogitsLoss(),
            adam,
            300,
        ),
        Task("iris-sigmoid", lambda: tabular("iris"), mlp(4, 24, 3, activation=nn.Sigmoid), CE, momentum, 400, 16),
        Task(
            "circles-rmsprop",
            lambda: made("circles", n_samples=800, noise=0.1, factor=0.5),
            mlp(2, 48, 48, 2),
            CE,
            rmsprop,
            300,
        ),
        Task("sines-gru", sine_pieces, lambda: Recurrent(nn.GRU, 24, last=False), nn.MSELoss(), adam, 300),
        Task("majority-transformer", majority, lambda: Sequence("transformer", 3, classes=3), CE, adamw, 300),
    ),
    "held-out": (
        Task("digits-autoencoder", same_images, autoencoder, nn.MSELoss(), rmsprop, 300),
        Task("roll-deep-tanh", rolled, mlp(3, 32, 32, 32, 32, 32, 1, activation=nn.Tanh), nn.MSELoss(), momentum, 500),
        Task("sorting-transformer", sorting, lambda: Sequence("transformer", 12), CE, adamw, 400, 64),
        Task("waves-resnet", waveforms, Residual, CE, nesterov, 300),
        Task("friedman2-huber", second_friedman, mlp(4, 48, 48, 1, activation=nn.SiLU), nn.HuberLoss(), adam, 300),
        Task("walks-lstm", walks, lambda: Recurrent(nn.LSTM, 24, last=True), nn.MSELoss(), adam, 400),
    ),
}


# --- training and judging -----------------------------------------------------------------------------------


def program(task: Task, seed: int, lr: float = 1e-3) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    torch.manual_seed(seed)
    net = task.net()
    return net, task.optimizer(net, lr), DataLoader(TensorDataset(*task.data()), task.batch, shuffle=True)


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def final_loss(task: Task, lr: float, seed: int) -> float:
    """Train with warm-up and cosine decay; the loss of the training set at the end, the initial one if it is nan."""
    net, optimizer, loader = program(task, seed, lr)
    x, y = task.data()
    start = evaluated(task, net, x, y)
    plan = propose(lr, task.steps, type(optimizer).__name__)
    ratios = [g["lr"] / lr for g in optimizer.param_groups]
    batches = endless(loader)
    for step in range(task.steps):
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = plan.rate(step) * ratio
        optimizer.zero_grad()
        for _ in range(task.accumulate):
            inputs, target = next(batches)
            (task.criterion(net(inputs), target) / task.accumulate).backward()
        optimizer.step()
    end = evaluated(task, net, x, y)
    return min(end, 3 * start) if math.isfinite(end) else 3 * start


def evaluated(task: Task, net: nn.Module, x: Tensor, y: Tensor) -> float:
    net.eval()
    with torch.no_grad():
        loss = float(task.criterion(net(x), y))
    net.train()
    return loss


def lr_finder(task: Task) -> float:
    """What torch-lr-finder suggests for a ramp of the same length and range."""
    import matplotlib as mpl

    mpl.use("agg")
    import contextlib
    import io

    from torch_lr_finder import LRFinder

    net, optimizer, loader = program(task, 0, 1e-7)
    finder = LRFinder(net, optimizer, task.criterion, device="cpu")
    silent = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        warnings.simplefilter("ignore")
        finder.range_test(loader, end_lr=10, num_iter=200, accumulation_steps=task.accumulate)
        try:
            _, suggested = finder.plot(suggest_lr=True)
        except (ValueError, TypeError):  # it found no gradient
            return math.nan
    return float(suggested)


def judge(task: Task, seeds: int) -> dict[str, Any]:
    net, optimizer, loader = program(task, 0)
    began = time.process_time()
    found = find_lr(net, task.criterion, optimizer, loader, accumulate=task.accumulate)
    cost = time.process_time() - began
    other = lr_finder(task)
    rates = {f: found.suggestion * f for f in FACTORS}
    losses = {f: [final_loss(task, lr, s) for s in range(1, seeds + 1)] for f, lr in rates.items()}
    theirs = [final_loss(task, other, s) for s in range(1, seeds + 1)] if math.isfinite(other) else [math.inf]
    start = evaluated(task, program(task, 1)[0], *task.data())
    means = {f: float(np.mean(v)) for f, v in losses.items()}
    best = min([*means.values(), float(np.mean(theirs))])
    spread = float(np.mean([np.std(losses[f], ddof=1) for f in (1 / 3, 1.0)])) if seeds > 1 else 0.0
    delta = max(0.02 * (start - best), spread)
    return {
        "found": found, "other": other, "means": means, "theirs": float(np.mean(theirs)), "best": best, "start": start,
        "delta": delta, "cost": cost,
    }  # fmt: skip


def regret(told: dict[str, Any], loss: float) -> float:
    """Loss above the best, as a share of what the best training gains."""
    return (loss - told["best"]) / (told["start"] - told["best"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", choices=sorted(TASKS), default="benchmark")
    parser.add_argument("--only", default="")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| task | optimizer | suggestion (interval) | edge | regret at 1/30 | 1/10 | 1/3 | **1** | 3 | 10 | 30 "
          "| in band | best in interval | torch-lr-finder | its regret | in band |")  # fmt: skip
    print("|---" * 16 + "|")
    ours = theirs = held = 0
    regrets: list[tuple[float, float]] = []
    tasks = [t for t in TASKS[given.tasks] if given.only in t.name]
    for task in tasks:
        try:
            told = judge(task, given.seeds)
        except CannotJudge as why:
            print(f"| {task.name} | cannot judge: {why} |" + " |" * 14, flush=True)
            continue
        found = told["found"]
        good, other = (v <= told["best"] + told["delta"] for v in (told["means"][1.0], told["theirs"]))
        best = found.suggestion * min(told["means"], key=lambda f: told["means"][f])
        inside = found.low <= best <= found.high
        ours, theirs, held = ours + good, theirs + other, held + inside
        regrets.append((regret(told, told["means"][1.0]), regret(told, told["theirs"])))
        cells = " | ".join(f"{100 * regret(told, told['means'][f]):.1f} %" for f in FACTORS)
        edge = "-" if found.edge is None else f"{found.edge:.2g}"
        print(
            f"| {task.name} | {found.optimizer} | {found.suggestion:.2g} ({found.low:.2g} to {found.high:.2g}) "
            f"| {edge} | {cells} | {'yes' if good else 'no'} "
            f"| {'yes' if inside else 'no'} | {told['other']:.2g} | {100 * regret(told, told['theirs']):.1f} % "
            f"| {'yes' if other else 'no'} |",
            flush=True,
        )
    print(f"\nin the band: fitdoctor {ours} of {len(tasks)}, torch-lr-finder {theirs} of {len(tasks)}")
    print(f"the interval holds the best of the rates that were trained: {held} of {len(tasks)}")
    print("mean regret: fitdoctor {:.1%}, torch-lr-finder {:.1%}".format(*np.mean(regrets, axis=0)))


if __name__ == "__main__":
    main()
