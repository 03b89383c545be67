"""`fitdoctor run`: scripts run as under python, and are watched as with `fitdoctor.attach`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fitdoctor.report import Report, from_json

ROOT = Path(__file__).parents[2]

PLAIN = """
import argparse, hashlib, sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.drop, self.fc2 = nn.Linear(20, 32), nn.Dropout(0.1), nn.Linear(32, 5)

    def forward(self, x):
        return F.log_softmax(self.fc2(self.drop(F.relu(self.fc1(x)))), 1)

def main(train, evaluate):
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(640, 20)
    y = (x @ torch.randn(20, 5)).argmax(1)
    seen, unseen = TensorDataset(x[:480], y[:480]), TensorDataset(x[480:], y[480:])
    loader = DataLoader(seen, batch_size=32, shuffle=True)
    again, held_out = DataLoader(seen, batch_size=160), DataLoader(unseen, batch_size=60)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
    for epoch in range(args.epochs):
        train(model, loader, optimizer)
        print(epoch, evaluate(model, again), evaluate(model, held_out))
        scheduler.step()
    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    print(hashlib.sha256(weights).hexdigest(), torch.rand(1).item(), sys.argv, __name__, __file__, sys.path[0])

def train(model, loader, optimizer):
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = F.nll_loss(model(x), y)
        loss.backward()
        optimizer.step()

def evaluate(model, loader):
    model.eval()
    total = right = count = 0
    with torch.no_grad():
        for x, y in loader:
            out = model(x)
            total += F.nll_loss(out, y, reduction="sum").item()
            right += (out.argmax(1) == y).sum().item()
            count += len(y)
    return total / count, right / count

if __name__ == "__main__":
    main(train, evaluate)
"""


def python(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a folder, with the package of this repository."""
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"} | environment
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=settings, capture_output=True, text=True, encoding="utf-8", timeout=240, check=False
    )


def watched(folder: Path, script: str, *arguments: str, options: str = "-q") -> tuple[Any, list[Report]]:
    """A script below `fitdoctor run`, and the reports."""
    (folder / "script.py").write_text(script, "utf-8")
    done = python(
        folder, "-m", "fitdoctor", "run", "-o", "report.json", "--record-every", 5, *options.split(), "script.py",
        *arguments,
    )  # fmt: skip
    report = folder / "report.json"
    return done, from_json(report.read_text("utf-8")) if report.exists() else []


def test_a_script_runs_as_under_python_and_its_training_is_bit_identical(tmp_path: Path) -> None:
    done, reports = watched(tmp_path, PLAIN, "--epochs", "12")
    plain = python(tmp_path, "script.py", "--epochs", "12")
    assert (done.returncode, len(reports)) == (0, 1), done.stderr
    (report,) = reports
    assert done.stdout == plain.stdout  # weights, random numbers, losses, sys.argv, __name__, __file__, sys.path[0]
    assert "attached to Net (837 parameters), trained by SGD (lr 0.2); loss: nll_loss" in done.stderr
    assert report.steps is not None
    assert (report.steps.last, report.verdict) == (180, "healthy"), done.stderr
    assert "36 evaluated batches: they were of training data" in done.stderr


# --- in this process: what is attached to, and what is found ---------------------------------------------------------


class Here:
    """Runs scripts below `fitdoctor run` in this process.

    Attributes:
        folder: where.
        told: what went to stderr at the last run.
        reports: its reports.
    """

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capfd = folder, capfd
        self.told, self.printed = "", ""
        self.reports: list[Report] = []

    def __call__(self, script: str, *options: str) -> int:
        from fitdoctor.cli import main

        (self.folder / "script.py").write_text(script, "utf-8")
        output = self.folder / "report.json"
        output.unlink(missing_ok=True)
        command = ["run", "-o", str(output), "-q", "--record-every", "4", *options, "script.py"]
        status = 0
        try:
            main(args=command, standalone_mode=False)
        except SystemExit as left:
            status = int(left.code or 0)
        self.printed, self.told = self._capfd.readouterr()
        self.reports = from_json(output.read_text("utf-8")) if output.exists() else []
        return status


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    return Here(tmp_path, capfd)


LOOP = """
import torch
from torch import nn

def build(lr):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 5))
    return model, torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9), nn.CrossEntropyLoss()

def train(model, optimizer, criterion, steps=160):
    x = torch.randn(960, 20)
    y = x[:, :5].argmax(1)
    for i in range(steps):
        rows = torch.randint(0, 960, (32,))
        loss = criterion(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        if CLEARS:
            optimizer.zero_grad()

if __name__ == "__main__":
    train(*build(LR))
"""


@pytest.mark.parametrize(
    ("lr", "clears", "sick"),
    [(0.05, True, ()), (500.0, True, ("lr-too-high",)), (0.05, False, ("missing-zero-grad",))],
    ids=["healthy", "learning rate", "zero_grad forgotten"],
)
def test_it_finds_what_attach_finds_in_the_same_loop(
    here: Here, lr: float, clears: bool, sick: tuple[str, ...]
) -> None:
    import fitdoctor

    script = LOOP.replace("CLEARS", str(clears)).replace("LR", str(lr))
    assert here(script, "--logdir", "watched") == 0
    space: dict[str, Any] = {"__name__": "loop"}
    exec(compile(script, "loop.py", "exec"), space)
    model, optimizer, criterion = space["build"](lr)
    with fitdoctor.attach(model, optimizer, criterion, logdir="attached", record_every=4) as monitor:
        space["train"](model, optimizer, criterion)
    by_hand = monitor.close()
    (report,) = here.reports
    found = [(f.rule, f.severity, f.onset) for f in report.findings]
    assert found == [(f.rule, f.severity, f.onset) for f in by_hand.findings]
    assert report.verdict == by_hand.verdict
    assert set(sick) <= {rule for rule, _, _ in found}
    assert bool(sick) == (report.verdict != "healthy")
    run, other = (next(iter(fitdoctor.open_runs(name))) for name in ("watched", "attached"))
    assert {str(s.signal) for s in run.series} == {str(s.signal) for s in other.series}
    for quantity in ("loss", "grad_norm", "accuracy", "backward_calls", "train_mode"):
        signals = [s for s in other.series if s.signal.quantity.name == quantity and s.signal.layer == ""]
        assert signals, quantity
        for series in signals:
            mine = run.get(series.signal.quantity, series.signal.split)
            assert mine is not None
            np.testing.assert_array_equal(mine.values, series.values)
            assert mine.steps.tolist() == series.steps.tolist()


GAN = """
import torch
from torch import nn
torch.manual_seed(0)
maker = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
critic = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
criterion = nn.BCEWithLogitsLoss()
optimizerC = torch.optim.Adam(critic.parameters(), 2e-3)
optimizerM = torch.optim.Adam(maker.parameters(), 2e-3)
for i in range(40):
    critic.zero_grad()
    real, fake = torch.randn(32, 2) + 2, maker(torch.randn(32, 4))
    criterion(critic(real), torch.ones(32, 1)).backward()
    criterion(critic(fake.detach()), torch.zeros(32, 1)).backward()
    optimizerC.step()
    maker.zero_grad()
    criterion(critic(fake), torch.ones(32, 1)).backward()
    optimizerM.step()
"""


def test_several_models_with_an_optimizer_each_are_one_run(here: Here) -> None:
    import fitdoctor

    assert here(GAN, "--logdir", "gan") == 0
    assert "Sequential 'maker' (114 parameters) and Sequential 'critic' (65 parameters)" in here.told
    assert "loss: binary_cross_entropy_with_logits" in here.told
    (run,) = fitdoctor.open_runs("gan")
    assert run.steps.last == 40
    grad_norm = fitdoctor.Quantity("grad_norm", "", "")
    for name in ("critic", "maker"):
        series = run.get(grad_norm, layer=name)
        assert series is not None
        assert len(series.values) >= 10
    loss = run.get(fitdoctor.Quantity("loss", "", ""))
    assert loss is not None
    assert len(loss.values) == 40  # also of the first step, which made clear what is trained


SWEEP = """
import weakref
import torch
from torch import nn
x = torch.randn(256, 6)
y = x[:, :3].argmax(1)
gone = []
for lr in (1e-1, 1e3):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)
    for i in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        scheduler.step()
        if i == 0 and gone:
            import gc
            gc.collect()
            assert gone[-1]() is None, "the optimizer before is kept alive while the next one trains"
    gone = [weakref.ref(optimizer)]
"""


def test_a_loop_over_hyperparameters_is_a_run_each_and_keeps_no_model_alive(here: Here) -> None:
    import fitdoctor

    assert here(SWEEP, "--logdir", "sweep", "--name", "lr") == 0, here.told
    assert [r.run for r in here.reports] == ["lr", "lr-2"]
    assert here.reports[1].diagnoses[0].root.rule == "lr-too-high"
    assert "lr-too-high" not in {f.rule for f in here.reports[0].findings}
    assert len(list(fitdoctor.open_runs("sweep"))) == 2


FORMULA = """
import torch
torch.manual_seed(0)
weight = torch.randn(10, 1, requires_grad=True)
bias = torch.zeros(1, requires_grad=True)
optimizer = torch.optim.SGD([weight, bias], 0.1)
x = torch.randn(256, 10)
y = x[:, :1] * 2 + 1
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
losses = []
for i in range(30):
    for part in range(2):
        rows = torch.randint(0, 256, (32,))
        loss = ((x[rows] @ weight + bias - y[rows]) ** 2).mean()
        losses.append(loss.item())
        scaler.scale(loss / 2).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
print([(a + b) / 2 for a, b in zip(losses[::2], losses[1::2])])
"""


def test_a_formula_on_bare_tensors_is_watched_and_its_loss_is_undivided(here: Here) -> None:
    import fitdoctor

    assert here(FORMULA, "--logdir", "formula") == 0
    assert "loss: what goes into backward (no single loss function of torch made it)" in here.told
    assert "not seen: activations: the parameters are used without a module" in here.told
    (run,) = fitdoctor.open_runs("formula")
    loss = run.get(fitdoctor.Quantity("loss", "", ""))
    assert loss is not None
    assert loss.values.tolist() == pytest.approx(eval(here.printed), rel=1e-5)
    weight = run.get(fitdoctor.Quantity("loss_weight", "", ""))
    assert weight is not None
    assert set(weight.values[1:].tolist()) == {0.5}


MODULE_CRITERION = """
import torch
from torch import nn

class Focal(nn.Module):
    def forward(self, logits, target):
        each = nn.functional.cross_entropy(logits, target, reduction="none")
        return ((1 - torch.exp(-each)) ** 2 * each).mean()

torch.manual_seed(0)
x = torch.randn(320, 8)
y = x[:, :3].argmax(1)
model, criterion = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)), Focal()
optimizer = torch.optim.AdamW(model.parameters(), 1e-2)

def one_pass(phase):
    model.train(phase == "train")
    losses = []
    with torch.set_grad_enabled(phase == "train"):
        for rows in range(0, 256, 32) if phase == "train" else [256, 288]:
            loss = criterion(model(x[rows : rows + 32]), y[rows : rows + 32])
            losses.append(loss.item())
            if phase == "train":
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return sum(losses) / len(losses)

print([[one_pass(phase) for phase in ("train", "val")][1] for epoch in range(8)])
"""


def test_a_criterion_of_the_programs_own_gives_train_and_validation_loss(here: Here) -> None:
    import fitdoctor

    assert here(MODULE_CRITERION, "--logdir", "focal") == 0
    assert "loss: Focal" in here.told
    (run,) = fitdoctor.open_runs("focal")
    loss = fitdoctor.Quantity("loss", "", "")
    train, val = run.get(loss), run.get(loss, "val")
    assert train is not None
    assert len(train.values) == 64
    assert val is not None
    assert val.steps.tolist() == [8 * (i + 1) for i in range(8)]
    assert val.values.tolist() == pytest.approx(eval(here.printed), rel=1e-5)


BOTH_SPLITS = """
import torch
from torch import nn
torch.manual_seed(0)
x = torch.randn(320, 8)
y = x[:, :3].argmax(1)

class Returns(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 3)

    def forward(self, x, y):
        logits = self.head(x)
        return logits, nn.functional.cross_entropy(logits, y)

@torch.no_grad()
def estimate():
    model.eval()
    out = {}
    for split in ["train", "val"]:
        rows = slice(0, 256) if split == "train" else slice(256, 320)
        out[split] = model(x=x[rows], y=y[rows])[1].item()
    model.train()
    return out

model = Returns()
optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
said = []
for i in range(21):
    if i % 5 == 0:
        said.append(estimate()["val"])
    rows = torch.randint(0, 256, (32,))
    loss = model(x=x[rows], y=y[rows])[1]
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(said)
"""


def test_passes_over_the_training_data_are_no_validation(here: Here) -> None:
    import fitdoctor

    assert here(BOTH_SPLITS, "--logdir", "both") == 0
    (run,) = fitdoctor.open_runs("both")
    val = run.get(fitdoctor.Quantity("loss", "", ""), "val")
    assert val is not None
    assert val.steps.tolist() == [0, 5, 10, 15, 20]
    assert val.values.tolist() == pytest.approx(eval(here.printed), rel=1e-6)
    assert run.facts["loss_function"] == "CrossEntropyLoss"


def test_a_program_with_a_monitor_of_its_own_is_left_to_it(here: Here) -> None:
    own = LOOP.replace("CLEARS", "True").replace(
        "train(*build(LR))",
        "from fitdoctor import attach\n    parts = build(0.05)\n    parts[0](torch.ones(1, 20))\n"
        "    with attach(*parts, record_every=5) as monitor:\n        train(*parts)\n    print(monitor.step)",
    )
    assert here(own) == 0
    assert here.printed.strip() == "160"
    assert here.reports == []
    assert "Sequential (837 parameters): watched by a monitor of the program's own, and left to it" in here.told
    assert "attached to" not in here.told


def test_a_program_that_never_steps_is_told(here: Here) -> None:
    never = LOOP.replace("optimizer.step()", "pass").replace("CLEARS", "True").replace("LR", "0.1")
    assert here(never) == 0
    assert "script: 0 steps of Sequential (837 parameters), trained by SGD" in here.told
    assert "no-parameter-updates" in {f.rule for f in here.reports[0].findings}


def test_stop_on_ends_the_program(here: Here) -> None:
    script = LOOP.replace("CLEARS", "True").replace("LR", "500.0") + "    print('trained to the end')\n"
    assert here(script, "--stop-on", "nonfinite-loss") == 1
    assert "fitdoctor: stopped: nonfinite-loss" in here.told
    assert "Traceback" not in here.told
    assert "to the end" not in here.printed
    assert here.reports[0].verdict == "sick"


def test_everything_is_taken_off_again(here: Here) -> None:
    import torch
    import torch.nn.functional as F
    from fitdoctor.live.monitor import Monitor
    from torch.nn.modules import module
    from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

    names = [(F, "cross_entropy"), (torch.autograd, "backward"), (torch.optim.Optimizer, "__init__"),
             (Monitor, "__init__"), (torch.utils.data.DataLoader, "__iter__")]  # fmt: skip
    before = [getattr(owner, name) for owner, name in names]
    script = LOOP.replace("CLEARS", "True").replace("LR", "0.1") + (
        "    assert len(torch.nn.modules.module._global_forward_pre_hooks) == 0, 'every module is slower'\n"
        "    print(torch.jit.script(scripted)(torch.randn(3, 4), torch.tensor([0, 1, 2])).ndim)\n"
    )
    script = script.replace(
        "def build", "def scripted(x, y):\n    return nn.functional.cross_entropy(x, y)\n\ndef build"
    )
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        assert here(script) == 0, here.told
    assert here.printed.strip() == "0"
    assert [getattr(owner, name) for owner, name in names] == before
    assert not _global_optimizer_pre_hooks
    assert not _global_optimizer_post_hooks
    assert not module._global_forward_pre_hooks
    assert not module._global_forward_hooks


# --- as processes: how a program ends --------------------------------------------------------------------------------

ENDINGS = {
    "exception": ("def f():\n    raise ValueError('bad')\nf()\n", 1),
    "status": ("import sys\nsys.exit(7)\n", 7),
    "message": ("import sys\nsys.exit('no data')\n", 1),
    "syntax": ("x = = 1\n", 1),
    "interrupt": (
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(9)\n",
        -signal.SIGINT,
    ),
    "fork": ("import os, sys\nif os.fork() == 0:\n    sys.exit(3)\nprint(os.wait()[1] >> 8)\n", 0),
}


@pytest.mark.parametrize("kind", ENDINGS)
def test_a_program_ends_as_under_python(kind: str, tmp_path: Path) -> None:
    text, status = ENDINGS[kind]
    (tmp_path / "script.py").write_text(text, "utf-8")
    plain = python(tmp_path, "script.py")
    done = python(tmp_path, "-m", "fitdoctor", "run", "script.py")
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout), done.stderr
    assert plain.returncode == status
    theirs = "".join(line for line in done.stderr.splitlines(True) if not line.startswith("fitdoctor: "))
    assert theirs == plain.stderr


def test_a_module_runs_as_with_python_m(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("", "utf-8")
    (package / "other.py").write_text("here = 'other'\n", "utf-8")
    (package / "__main__.py").write_text(
        "import sys\nfrom . import other\n"
        "print(sys.argv, __name__, __package__, __spec__.name, sys.path[0], other.here)\n",
        "utf-8",
    )
    plain = python(tmp_path, "-m", "package", "--lr", "3", "-m")
    done = python(tmp_path, "-m", "fitdoctor", "run", "-m", "package", "--lr", "3", "-m")
    assert done.stdout == plain.stdout != ""
    assert "the program never imported torch" in done.stderr


def test_what_is_no_program_is_a_usage_error(tmp_path: Path) -> None:
    missing = python(tmp_path, "-m", "fitdoctor", "run", "nowhere.py")
    assert (missing.returncode, "nowhere.py: no such file" in missing.stderr) == (2, True)


WORKERS = """
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, i):
        return torch.full((4,), float(i)), i % 2

def main():
    sums = []
    for context in (None, "fork", "spawn"):
        torch.manual_seed(0)
        loader = DataLoader(Squares(), batch_size=16, num_workers=2 if context else 0, multiprocessing_context=context)
        model = nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), 1e-4)
        for epoch in range(2):
            for x, y in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
        sums.append(sum(p.double().sum().item() for p in model.parameters()))
    print(len(set(sums)))

if __name__ == "__main__":
    main()
"""


def test_workers_of_data_loaders_run_forked_and_spawned(tmp_path: Path) -> None:
    done, reports = watched(tmp_path, WORKERS)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert [r.steps and r.steps.last for r in reports] == [8, 8, 8]
    assert done.stderr.count("attached to") == 3  # none in a worker
    assert "Traceback" not in done.stderr


RANKS = """
import torch
import torch.distributed as dist
from torch import nn

dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.parallel.DistributedDataParallel(nn.Linear(8, 4))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
torch.manual_seed(dist.get_rank())
for i in range(24):
    x = torch.randn(16, 8)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), x[:, :4].argmax(1)).backward()
    optimizer.step()
dist.destroy_process_group()
"""


def test_torchrun_starts_two_and_the_first_tells(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(RANKS, "utf-8")
    done = python(
        tmp_path, "-m", "torch.distributed.run", "--nproc-per-node", 2, "--rdzv-backend", "c10d",
        "--rdzv-endpoint", "localhost:0", "--local-addr", "localhost", "-m", "fitdoctor", "run", "-q", "--logdir",
        "log", "script.py", GLOO_SOCKET_IFNAME="lo",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("attached to Linear (36 parameters)") == 1
    assert done.stderr.count("24 steps of Linear") == 1
    assert len(list((tmp_path / "log").rglob("events.*"))) == 1
