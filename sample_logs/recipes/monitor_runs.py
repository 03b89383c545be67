"""Runs watched by `fitdoctor.attach`, one for each situation that its hooks have to cope with.

The log is the event file that the monitor wrote. Its clock is the real one, so step times differ whenever it is made.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fitdoctor
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recipes.shared import Data, Knobs, Loss, Sample, Truth, digits, friedman, measure, mlp, times

Watched = fitdoctor.Monitor | None


@dataclass
class WatchedLoop:
    """A plain loop with a monitor.

    Attributes:
        model, data, optimizer: what is trained, on what, by what.
        epochs, batch: length of the run and of its steps.
        criterion: the loss module.
        parts: batches that are accumulated for a step.
        scheduler: stepped after each optimizer step.
        clip: clip the gradient norm; 0 for not.
        scaler: a GradScaler; the forward pass then runs in autocast of float16.
        call: what the loop calls, where it is not the model itself (compiled, wrapped).
        damage: changes the inputs of a step.
        options: more arguments of `attach`.
        every: steps between records.
    """

    model: nn.Module
    data: Data
    optimizer: Any
    epochs: int
    batch: int = 45
    criterion: nn.Module = field(default_factory=nn.CrossEntropyLoss)
    parts: int = 1
    scheduler: Callable[[torch.optim.Optimizer, int], Any] | None = None
    clip: float = 0.0
    scaler: Any = None
    call: nn.Module | None = None
    damage: Callable[[int, Tensor], Tensor] = lambda step, x: x
    options: dict[str, Any] = field(default_factory=dict)
    every: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        self._call = self.call or self.model
        optimizers = self.optimizer.values() if isinstance(self.optimizer, dict) else [self.optimizer]
        self._optimizers = list(optimizers)
        self._steps = self.epochs * (len(self.data.train[0]) // self.batch) // self.parts
        self._schedules = [self.scheduler(o, self._steps) for o in self._optimizers] if self.scheduler else []
        self._done = 0

    def run(self, folder: Path | None) -> Truth:
        """Train, watched when there is a folder; returns the truth about the run."""
        truth = Truth(self._measured(self.data.train)[0])
        monitor = None if folder is None else self._attach(folder)
        try:
            for order in self._orders():
                self._epoch(order)
                self._evaluate(truth, monitor)
        except fitdoctor.TrainingSick:
            self._evaluate(truth, None)
        truth.train = self._measured(self.data.train)[0]
        if monitor is not None:
            monitor.close()
        if folder is not None:
            collect(folder)
        return truth

    def _attach(self, folder: Path) -> fitdoctor.Monitor:
        options = {"record_every": self.every, "scaler": self.scaler, **self.options}
        if self._schedules:
            options["scheduler"] = self._schedules[0]
        return fitdoctor.attach(self._call, self.optimizer, self.criterion, logdir=folder, **options)

    def _orders(self) -> Iterable[Tensor]:
        g = torch.Generator().manual_seed(self.seed)
        return [torch.randperm(len(self.data.train[0]), generator=g) for _ in range(self.epochs)]

    def _epoch(self, order: Tensor) -> None:
        x, y = self.data.train
        for i in range(len(x) // self.batch):
            index = order[i * self.batch : (i + 1) * self.batch]
            self._part(self.damage(self._done, x[index]), y[index], last=i % self.parts == self.parts - 1)

    def _part(self, x: Tensor, y: Tensor, *, last: bool) -> None:
        optimizer = self._optimizers[0]
        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(lambda: self._gradient(x, y))
        else:
            self._gradient(x, y, clear=self._done % self.parts == 0)
            if last:
                self._step()
        self._done += 1

    def _gradient(self, x: Tensor, y: Tensor, *, clear: bool = True) -> Tensor:
        if clear:
            for optimizer in self._optimizers:
                optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16, enabled=self.scaler is not None):
            loss = self.criterion(self._call(x), y)
        whole = loss / self.parts
        (whole if self.scaler is None else self.scaler.scale(whole)).backward()
        return loss

    def _step(self) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(self._optimizers[0])
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        if self.scaler is None:
            for optimizer in self._optimizers:
                optimizer.step()
        else:
            scale = self.scaler.get_scale()
            self.scaler.step(self._optimizers[0])
            self.scaler.update()
            if self.scaler.get_scale() < scale:
                return
        for schedule in self._schedules:
            schedule.step()

    def _measured(self, pair: tuple[Tensor, Tensor]) -> tuple[float, float]:
        loss: Loss = (lambda out, y: F.mse_loss(out, y)) if pair[1].is_floating_point() else F.cross_entropy
        return measure(self._call, pair, loss)

    def _evaluate(self, truth: Truth, monitor: Watched) -> None:
        val_loss, val_score = self._measured(self.data.val)
        oracle_loss, oracle_score = self._measured(self.data.oracle)
        truth.val.append(val_loss)
        truth.oracle.append(oracle_loss)
        truth.score.append(oracle_score)
        if monitor is not None:
            more = {} if self.data.val[1].is_floating_point() else {"val_accuracy": val_score}
            monitor.log(val_loss=val_loss, **more)


def collect(folder: Path) -> None:
    """Give event files names that do not hold the name of the machine; they stay in the monitor's folder."""
    inner = folder / "fitdoctor"
    for i, path in enumerate(sorted(inner.iterdir(), key=lambda p: p.stat().st_mtime_ns)):
        path.rename(inner / f"events.out.tfevents.{1_760_000_000 + 3600 * i}.trainer.1.0")


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """The rate falls to 0 over the run."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def net(width: int = 64) -> nn.Sequential:
    """A small MLP for the digits."""
    return mlp([64, width, width, 10], dropout=0.1)  # type: ignore[return-value]


def adamw(model: nn.Module, knobs: Knobs, rate: float = 3e-3, **more: Any) -> torch.optim.Optimizer:
    """AdamW on what can be trained, at a rate that suits the digits."""
    return torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], rate * knobs.rate, weight_decay=0.1, **more
    )


# --- the situations -------------------------------------------------------------------------------------


def plain(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(60)
    model = net()
    return WatchedLoop(model, digits(), adamw(model, knobs), times(knobs, 25), scheduler=cosine).run(folder)


def accumulation(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(61)
    model = net()
    return WatchedLoop(
        model, digits(), adamw(model, knobs), times(knobs, 30), batch=15, parts=4, scheduler=cosine, every=10
    ).run(folder)


def overflow(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(62)
    model = net()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=100)
    return WatchedLoop(model, digits(), adamw(model, knobs), times(knobs, 25), scheduler=cosine, scaler=scaler).run(
        folder
    )


def clipping(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(63)
    model = net()
    return WatchedLoop(model, digits(), adamw(model, knobs), times(knobs, 25), scheduler=cosine, clip=1.0).run(folder)


def compiled(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(64)
    model = net()
    torch._dynamo.reset()
    call = torch.compile(model, backend="eager")
    return WatchedLoop(model, digits(), adamw(model, knobs), times(knobs, 25), scheduler=cosine, call=call).run(folder)


def lbfgs(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(65)
    data = friedman(800, 250)
    data = Data(*((x, y.unsqueeze(1)) for x, y in (data.train, data.val, data.oracle)))
    model = mlp([10, 12, 1], nn.Tanh)
    for p in model.parameters():
        p.data.mul_(0.5)
    optimizer = torch.optim.LBFGS(model.parameters(), 0.3 * knobs.rate, max_iter=4, history_size=10)
    return WatchedLoop(model, data, optimizer, times(knobs, 60), batch=800, criterion=nn.MSELoss(), every=2).run(folder)


def fused(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(66)
    model = net()
    optimizer = adamw(model, knobs, fused=True)
    return WatchedLoop(model, digits(), optimizer, times(knobs, 25), scheduler=cosine).run(folder)


class _Residual(nn.Module):
    """Writes over its own output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.fc, self.act = nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.fc(self.norm(x)))
        out += x
        return out


class _Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 48), nn.Linear(48, 10)
        self.blocks = nn.ModuleList(_Residual(48) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = checkpoint(block, h, use_reentrant=False)
        out: Tensor = self.last(h)
        return out


def checkpointed(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(67)
    model = _Checkpointed()
    return WatchedLoop(model, digits(), adamw(model, knobs), times(knobs, 20), scheduler=cosine).run(folder)


class _Tied(nn.Module):
    """Eight levels of grey as tokens; the output layer is the transpose of the first one, one layer is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.frozen, self.decode = nn.Linear(64, 40), nn.Linear(40, 40), nn.Linear(64, 40, bias=False)
        self.decode.weight = self.encode.weight
        self.out = nn.Linear(40, 10)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.frozen(F.relu(self.encode(x)))) + F.relu(self.decode(x))
        out: Tensor = self.out(h)
        return out


def tied(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(68)
    model = _Tied()
    return WatchedLoop(model, digits(), adamw(model, knobs), times(knobs, 25), scheduler=cosine).run(folder)


class _Sparse(nn.Module):
    """Each pixel's grey, in 17 levels, is a token with a sparse embedding of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64 * 17, 6, sparse=True)
        self.out = nn.Linear(64 * 6, 10)

    def forward(self, x: Tensor) -> Tensor:
        grey = ((x.clamp(-2, 2) + 2) * 4).round().long()
        out: Tensor = self.out(self.embed(grey + 17 * torch.arange(64)).flatten(1))
        return out


def sparse(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(69)
    model = _Sparse()
    optimizers = {
        "": torch.optim.AdamW(model.out.parameters(), 3e-3 * knobs.rate, weight_decay=0.1),
        "sparse": torch.optim.SparseAdam(list(model.embed.parameters()), 3e-3 * knobs.rate),
    }
    return WatchedLoop(model, digits(), optimizers, times(knobs, 25), scheduler=cosine).run(folder)


def probes(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(70)
    data = digits()
    model = mlp([64, 96, 96, 10], dropout=0.5)
    options = {
        "probe_train": (data.train[0][:150], data.train[1][:150]),
        "probe_val": data.val,
        "probe_every": 20,
    }
    return WatchedLoop(model, data, adamw(model, knobs), times(knobs, 30), scheduler=cosine, options=options).run(
        folder
    )


def first_nonfinite(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(71)
    model = net()

    def damage(step: int, x: Tensor) -> Tensor:
        return x.clone().index_fill_(0, torch.tensor([3]), float("nan")) if step == 230 and not knobs.fixed else x

    return WatchedLoop(
        model, digits(), adamw(model, knobs), times(knobs, 15), scheduler=cosine, damage=damage, every=10
    ).run(folder)


def other_units(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(73)
    model = net()

    def damage(step: int, x: Tensor) -> Tensor:
        return 255 * x if step % 23 == 12 and not knobs.fixed else x

    optimizer = torch.optim.SGD(model.parameters(), 0.05 * knobs.rate, momentum=0.9)
    return WatchedLoop(model, digits(), optimizer, times(knobs, 15), scheduler=cosine, damage=damage, every=5).run(
        folder
    )


def stop_on(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(72)
    model = net()
    rate = (0.05 if knobs.fixed else 50.0) * knobs.rate
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    options = {"stop_on": ["nonfinite-loss"], "judge_every": 10}
    return WatchedLoop(model, digits(), optimizer, times(knobs, 15), options=options, every=5).run(folder)


class _Resumed(WatchedLoop):
    """Stops in the middle and goes on with everything restored, in the same folder."""

    def run(self, folder: Path | None) -> Truth:
        truth = Truth(self._measured(self.data.train)[0])
        orders = list(self._orders())
        for half in (orders[: len(orders) // 2], orders[len(orders) // 2 :]):
            monitor = None if folder is None else self._attach(folder)
            for order in half:
                self._epoch(order)
                self._evaluate(truth, monitor)
            if monitor is not None:
                monitor.close()
        truth.train = self._measured(self.data.train)[0]
        if folder is not None:
            collect(folder)
        return truth


def resumed(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(73)
    model = net()
    return _Resumed(model, digits(), adamw(model, knobs), times(knobs, 26), scheduler=cosine).run(folder)


def gan(folder: Path | None, knobs: Knobs) -> Truth:
    """Generator and critic in turn; the truth is the distance of the generated cloud from the real one."""
    torch.manual_seed(74)
    nets = {"generator": mlp([4, 32, 32, 2]), "critic": mlp([2, 64, 64, 1], lambda: nn.LeakyReLU(0.2))}
    optimizers = {k: torch.optim.Adam(n.parameters(), 1e-3 * knobs.rate, betas=(0.5, 0.9)) for k, n in nets.items()}
    truth = Truth(_distance(nets["generator"]))
    monitor = None if folder is None else fitdoctor.attach(nets, optimizers, logdir=folder, record_every=50)
    for step in range(times(knobs, 500)):
        real, fake = _ring(128), nets["generator"](torch.randn(128, 4))
        optimizers["critic"].zero_grad()
        critic_loss = F.softplus(-nets["critic"](real)).mean() + F.softplus(nets["critic"](fake.detach())).mean()
        critic_loss.backward()
        optimizers["critic"].step()
        optimizers["generator"].zero_grad()
        loss = F.softplus(-nets["critic"](fake)).mean()
        loss.backward()
        optimizers["generator"].step()
        if step % 50 == 49:
            truth.oracle.append(_distance(nets["generator"]))
            truth.val.append(truth.oracle[-1])
            truth.score.append(-truth.oracle[-1])
        if monitor is not None:
            monitor.log(loss=loss.detach(), critic_loss=critic_loss.detach())
    truth.train = truth.oracle[-1]
    if monitor is not None and folder is not None:
        monitor.close()
        collect(folder)
    return truth


def _ring(n: int) -> Tensor:
    return F.normalize(torch.randn(n, 2)) * 2 + 0.1 * torch.randn(n, 2)


@torch.no_grad()
def _distance(generator: nn.Module) -> float:
    """Energy distance of generated points and real ones; draws its own numbers."""
    with torch.random.fork_rng([]):
        torch.manual_seed(9)
        a, b = _ring(500), generator(torch.randn(500, 4))
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


# --- several processes ------------------------------------------------------------------------------------


def ddp(folder: Path | None, knobs: Knobs) -> Truth:
    return _two_processes("ddp", folder, knobs)


def fsdp2(folder: Path | None, knobs: Knobs) -> Truth:
    return _two_processes("fsdp2", folder, knobs)


def _two_processes(kind: str, folder: Path | None, knobs: Knobs) -> Truth:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as scratch:
        torch.multiprocessing.spawn(_rank, (kind, folder, knobs, scratch), nprocs=2)
        found = torch.load(f"{scratch}/truth")
    if folder is not None:
        collect(folder)
    return Truth(**found)


def _rank(rank: int, kind: str, folder: Path | None, knobs: Knobs, scratch: str) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{scratch}/store", 2), rank=rank, world_size=2)
    torch.manual_seed(75)
    model: nn.Module = net()
    if kind == "ddp":
        model = nn.parallel.DistributedDataParallel(model)
    else:
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    data = digits()
    x, y = data.train
    own = Data((x[rank::2], y[rank::2]), data.val, data.oracle)
    optimizer = adamw(model, knobs)
    loop = WatchedLoop(model, own, optimizer, times(knobs, 25), batch=22, scheduler=cosine)
    monitor = None if folder is None else loop._attach(folder)
    truth = Truth(loop._measured(data.train)[0])
    for order in loop._orders():
        loop._epoch(order)
        loop._evaluate(truth, monitor)
    truth.train = loop._measured(data.train)[0]
    if rank and monitor is not None:
        monitor.close()
    dist.barrier()
    if not rank:
        if monitor is not None:
            monitor.close()
        torch.save({k: getattr(truth, k) for k in ("start", "train", "oracle", "score", "val")}, f"{scratch}/truth")
    dist.barrier()
    dist.destroy_process_group()


ALARMS = ("lr-too-high", "lr-too-low", "undertrained", "no-learning", "loss-divergence", "loss-spikes", "overfitting")


def _healthy(name: str, train: Callable[[Path | None, Knobs], Truth], how: str, why: str, **more: Any) -> Sample:
    return Sample(
        name=f"monitor_{name}", format="fitdoctor-monitor", how=how, why=why, verdict="healthy", train=train,
        **{"must_not": ALARMS, **more},
    )  # fmt: skip


SAMPLES = (
    _healthy(
        "plain", plain, "MLP with dropout on digits, AdamW, cosine to zero; the loop of the README",
        "no other rate or length gains anything on held-out data",
    ),
    _healthy(
        "accumulation", accumulation, "the same with four batches of 15 accumulated for each step",
        "the loss is divided by four before backward, as it has to be",
    ),
    _healthy(
        "overflow", overflow, "the same in float16 autocast with a GradScaler that begins at 2^20",
        "the first steps overflow and are skipped, as they are whenever a scaler looks for its scale",
    ),
    _healthy(
        "clipping", clipping, "the same with gradients clipped to norm 1",
        "clipping that is often active costs Adam nothing",
    ),
    _healthy(
        "compiled", compiled, "the same through torch.compile (backend eager)",
        "outputs of inner layers are not in the log",
    ),
    _healthy(
        "lbfgs", lbfgs, "small MLP on the Friedman problem, full batch, LBFGS with closures",
        "four evaluations a step, of which each counts as part of one step",
    ),
    _healthy(
        "fused", fused, "the same with the fused AdamW", "the optimizer writes gradients and weights in one go",
    ),
    _healthy(
        "checkpointed", checkpointed, "residual blocks that write in place, each under activation checkpointing",
        "layers run twice per step; the second time is part of backward",
    ),
    _healthy(
        "tied", tied, "one layer tied to the first, one frozen on purpose",
        "a frozen layer that is not in the optimizer is no fault",
    ),
    _healthy(
        "sparse", sparse, "sparse embedding of pixels with SparseAdam, the rest with AdamW",
        "rows of rare tokens have no gradient at most steps",
    ),
    _healthy("ddp", ddp, "the same in two processes with DistributedDataParallel", "rank 0 writes", check="none"),
    _healthy(
        "fsdp2", fsdp2, "the same in two processes with fully_shard", "norms are added up over the ranks", check="none"
    ),
    _healthy(
        "probes", probes, "MLP with dropout 0.5; fixed batches of train and val evaluated every 20 steps",
        "the loss of the batches lies above the val loss only because of dropout",
    ),
    _healthy("resumed", resumed, "the same, stopped in the middle and resumed from a checkpoint", "all is restored"),
    Sample(
        name="monitor_gan",
        format="fitdoctor-monitor",
        how="GAN on a ring in the plane: generator and critic with an Adam each",
        why="the losses of a game need not fall; the generated points come close to the real ones",
        verdict="cannot judge",
        train=gan,
        must_not=ALARMS,
        check="none",
    ),
    Sample(
        name="monitor_first_nonfinite",
        format="fitdoctor-monitor",
        how="one input of the batch of step 231 is nan; training goes on",
        why="everything is nan from there on; without that input training ends well",
        verdict="sick",
        train=first_nonfinite,
        must=("nonfinite-loss",),
        must_not=("lr-too-high", "overfitting"),
        root=("nonfinite-loss",),
        check="fixed",
    ),
    Sample(
        name="monitor_other_units",
        format="fitdoctor-monitor",
        how="every 23rd batch holds pixels of 0 to 255, all others pixels of 0 to 1",
        why="the same training without those batches learns",
        verdict="sick",
        train=other_units,
        must=("outlying-batches",),
        must_not=("overfitting", "repeated-batch-order"),
        root=("outlying-batches",),
        check="fixed",
    ),
    Sample(
        name="monitor_stop_on",
        format="fitdoctor-monitor",
        how="SGD with a rate a thousand times too high; the monitor was told to stop at a loss that is not finite",
        why="lower rates train well",
        verdict="sick",
        train=stop_on,
        must=("nonfinite-loss", "lr-too-high"),
        root=("lr-too-high",),
        check="lower rate",
    ),
)  # fmt: skip
