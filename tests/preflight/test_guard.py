"""Probes leave no trace: the same hash before and after each of them, for many kinds of programs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from fitdoctor import find_lr, preflight
from fitdoctor.errors import ConfigError, StateNotRestored
from fitdoctor.preflight import judge
from fitdoctor.preflight.guard import State
from fitdoctor.preflight.probe import Cost, probe
from tests.preflight.programs import PROBES, Program, images, loader, loaders, mlp, state_hash, vectors
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset


class Noisy(Dataset[Any]):
    """Augments with generators of its own, and counts."""

    def __init__(self) -> None:
        self.x, self.y = vectors(200)
        self.rng = np.random.default_rng(0)
        self.python = random.Random(0)
        self.calls = 0

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return self.x[i] + 0.01 * self.rng.normal() + 0.01 * self.python.random(), self.y[i]


class Counting(nn.Module):
    """Keeps state that no state_dict shows."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()
        self.seen = 0
        self.history: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.history.append(float(x.detach().mean()))
        return self.net(x)


class Stream(IterableDataset[Any]):
    """Starts anew at every iter()."""

    def __iter__(self) -> Iterator[Any]:
        yield from zip(*vectors(200), strict=True)


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, 2)
    )


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, 8)
        self.rnn = nn.GRU(8, 12, batch_first=True, dropout=0.0)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.table(x))[0][:, -1])


def adam_with_scheduler() -> Program:
    net = mlp()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=100)
    program = Program(net, optimizer=optimizer, more={"scheduler": scheduler})
    for x, y in program.train_loader:  # in the middle of a training: state and gradients are there
        optimizer.zero_grad()
        program.criterion(net(x), y).backward()
        optimizer.step()
        scheduler.step()
    return program


def momentum_and_batch_norm() -> Program:
    net = convolutional().train()
    x, y = images()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, nesterov=True)
    return Program(net, optimizer=optimizer, train_loader=loader(x[:150], y[:150]), val_loader=loader(x[150:], y[150:]))


def ids_and_groups() -> Program:
    net = Recurrent().eval()
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 11, (200, 6), generator=g)
    groups = [
        {"params": net.table.parameters(), "lr": 1e-2},
        {"params": [*net.rnn.parameters(), *net.head.parameters()]},
    ]
    data = TensorDataset(x, x[:, 0] % 3)
    shuffler = torch.Generator().manual_seed(3)
    return Program(
        net,
        optimizer=torch.optim.RMSprop(groups, 1e-3, centered=True),
        train_loader=DataLoader(
            data, sampler=RandomSampler(data, generator=shuffler), batch_size=20, generator=shuffler
        ),
        val_loader=DataLoader(data, batch_size=50),
    )


def regression_with_lbfgs_like_state() -> Program:
    x, _ = vectors(200)
    net = mlp(10, 16, 1, activation=nn.Tanh)
    return Program(
        net, nn.MSELoss(), torch.optim.Adagrad(net.parameters(), 0.01), loader(x, x[:, :1]), loader(x[:50], x[:50, :1])
    )


def dataset_with_generators() -> Program:
    return Program(mlp(), train_loader=DataLoader(Noisy(), 25, shuffle=True), val_loader=loaders()[1])


def hidden_python_state() -> Program:
    return Program(Counting(), optimizer=None)


def stream() -> Program:
    return Program(mlp(), train_loader=DataLoader(Stream(), 20), val_loader=loaders()[1])


def list_of_batches() -> Program:
    x, y = vectors(160)
    return Program(mlp(), train_loader=list(zip(x.split(20), y.split(20), strict=True)))


def frozen_and_tied() -> Program:
    net = mlp(10, 16, 16, 3)
    net[2].weight = nn.Parameter(net[2].weight.detach().clone())
    net[0].weight.requires_grad_(False)
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 1.0]), label_smoothing=0.1)
    parameters = [p for p in net.parameters() if p.requires_grad]
    scaler = torch.amp.GradScaler("cpu")
    return Program(net, criterion, torch.optim.SGD(parameters, 0.05), more={"scaler": scaler})


KINDS: dict[str, Callable[[], Program]] = {
    f.__name__: f
    for f in (
        adam_with_scheduler, momentum_and_batch_norm, ids_and_groups, regression_with_lbfgs_like_state,
        dataset_with_generators, hidden_python_state, stream, list_of_batches, frozen_and_tied,
    )
}  # fmt: skip
FAST = {
    "one-batch-not-learned": {"steps": 8}, "input-ignored": {"steps": 8}, "labels-not-learned": {"steps": 8},
    "learning-rate-out-of-range": {"steps": 30, "seeds": 1}, "evaluation-differs": {"passes": 4},
}  # fmt: skip


def hash_of(program: Program) -> str:
    extras = [program.model.seen, program.model.history] if isinstance(program.model, Counting) else []
    data = program.train_loader.dataset if isinstance(program.train_loader, DataLoader) else program.train_loader
    if isinstance(data, Noisy):
        extras += [data.calls, data.rng.bit_generator.state, data.python.getstate()]
    return state_hash(
        program.model, program.criterion, program.optimizer, *program.more.values(), program.train_loader,
        program.val_loader, program.optimizer.param_groups, *extras,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_probe_leaves_the_program_as_it_was(kind: str) -> None:
    program = KINDS[kind]()
    before = hash_of(program)
    for name in PROBES:
        (outcome,) = program.check(name, options=FAST).outcomes
        assert outcome.status != "crashed", outcome.why
        assert hash_of(program) == before, name


@pytest.mark.parametrize("kind", ["adam_with_scheduler", "dataset_with_generators", "ids_and_groups"])
def test_find_lr_leaves_the_program_as_it_was(kind: str) -> None:
    program = KINDS[kind]()
    before = hash_of(program)
    find_lr(program.model, program.criterion, program.optimizer, program.train_loader, steps=120, seeds=1)
    assert hash_of(program) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_a_probe_leaves_no_trace_either(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = adam_with_scheduler()
    before = hash_of(program)

    @probe("PRE998", "breaks", cost=Cost(), since="0.2.0")
    def breaks(bench: Any) -> Iterator[Any]:
        bench.fit(bench.batches(64), 2)
        bench.model.eval()
        np.random.rand(3)  # noqa: NPY002
        bench.optimizer.param_groups[0]["lr"] = 7.0
        bench.scheduler.step()
        raise error("broken on purpose")
        yield

    @probe("PRE999", "looks", cost=Cost(), since="0.2.0")
    def looks(bench: Any) -> list[Any]:
        return []

    monkeypatch.setattr(judge.catalogue, "probes", lambda: (breaks, looks))
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            program.check()
    else:
        first, second = program.check().outcomes
        assert first.status == "crashed"
        assert "broken on purpose" in first.why
        assert second.status == "clean"
    assert hash_of(program) == before


def test_what_cannot_be_put_back_is_told() -> None:
    class Ticking(nn.Module):
        total = 0

        def forward(self, x: Tensor) -> Tensor:
            self.shared.resize_(0)
            return x

        def __init__(self) -> None:
            super().__init__()
            self.shared = np.zeros(3)

    module = Ticking()
    state = State({"model": module}, {})
    module.shared.resize(0, refcheck=False)
    assert any("shared" in place for place in state.changes())


def test_a_state_names_what_changed() -> None:
    net = mlp()
    state = State({"model": net}, {})
    assert state.changes() == []
    with torch.no_grad():
        net[0].weight[0, 0] += 1
    net[2].eval()
    torch.rand(1)
    changed = state.changes()
    assert any("weight" in c for c in changed)
    assert any("random numbers of torch" in c for c in changed)
    state.restore()
    assert state.changes() == []


def test_replaced_tensors_and_new_attributes_are_put_back() -> None:
    net = mlp()
    weight, address = net[0].weight, net[0].weight.data_ptr()
    optimizer = torch.optim.Adam(net.parameters())
    groups = optimizer.param_groups[0]
    state = State({"model": net, "optimizer": optimizer}, {})
    net[0].weight = nn.Parameter(torch.zeros(2, 2))
    net[2].weight.data = torch.zeros(3, 32)
    net[2].bias.requires_grad_(False)
    net.extra = 3
    net(torch.zeros(1, 2)) if False else None
    optimizer.param_groups[0] = {"params": [], "lr": 5}
    optimizer.state[weight] = {"step": torch.tensor(4.0)}
    state.restore()
    assert state.changes() == []
    assert net[0].weight is weight
    assert weight.data_ptr() == address
    assert not hasattr(net, "extra")
    assert optimizer.param_groups[0] is groups
    assert not optimizer.state
    assert net[2].bias.requires_grad


# --- loaders that are hard to put back -------------------------------------------------------------------


class OneShot(IterableDataset[Any]):
    """Draws from a generator that cannot begin again."""

    def __init__(self, n: int = 200) -> None:
        self.source = iter(zip(*vectors(n), strict=True))

    def __iter__(self) -> Iterator[Any]:
        yield from self.source


def test_what_was_read_of_a_one_shot_stream_is_given_back() -> None:
    data = OneShot()
    program = Program(mlp(), train_loader=DataLoader(data, 20), val_loader=loaders()[1])
    program.check("program-fails", "defective-data", "learning-rate-out-of-range", options=FAST)
    x, _ = vectors(200)
    after = torch.cat([batch for batch, _ in DataLoader(data, 20)])
    assert torch.equal(after, x)


def test_a_loader_that_is_an_iterator_is_copied_or_not_touched() -> None:
    x, y = vectors(100)
    batches = iter(list(zip(x.split(20), y.split(20), strict=True)))  # Python can copy it
    program = Program(mlp(), train_loader=batches, val_loader=loaders()[1])
    program.sound("program-fails")
    assert sum(len(b) for b, _ in batches) == 100
    generator = (pair for pair in zip(x.split(20), y.split(20), strict=True))
    report = Program(mlp(), train_loader=generator, val_loader=loaders()[1]).check("program-fails", "defective-data")
    assert report.verdict == "cannot judge"
    assert all("read only once" in o.why for o in report.outcomes)
    assert sum(len(b) for b, _ in generator) == 100


def test_a_dataset_that_is_its_own_iterator_is_copied() -> None:
    class Own(IterableDataset[Any]):
        def __init__(self) -> None:
            self.x, self.y = vectors(60)
            self.at = 0

        def __iter__(self) -> Own:
            return self

        def __next__(self) -> Any:
            if self.at == len(self.x):
                raise StopIteration
            self.at += 1
            return self.x[self.at - 1], self.y[self.at - 1]

    data = Own()
    Program(mlp(), train_loader=DataLoader(data, 20), val_loader=loaders()[1]).sound("program-fails")
    assert data.at == 0


def test_the_users_iterator_goes_on_where_it_was() -> None:
    program = Program(mlp())
    torch.manual_seed(5)
    plain = [x.sum().item() for x, _ in program.train_loader]
    torch.manual_seed(5)
    batches = iter(program.train_loader)
    first = next(batches)[0].sum().item()
    program.check("program-fails", "unshuffled-data", "defective-data")
    assert [first, *(x.sum().item() for x, _ in batches)] == plain


def test_a_model_that_changes_its_input_does_not_change_the_data() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.mul_(2))

    x, y = vectors(100)
    batches = list(zip(x.split(20), y.split(20), strict=True))
    before = x.clone()
    Program(InPlace(), train_loader=batches).check("program-fails", "wrong-initial-loss", "one-batch-not-learned",
                                                   options=FAST)  # fmt: skip
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"model": 3}, "expected model to be a torch Module, got int"),
        ({"optimizer": "adam"}, "expected optimizer to be a torch Optimizer, got str"),
        ({"criterion": 3}, "expected criterion to be callable or None, got int"),
        ({"train_loader": 3}, "expected train_loader to yield batches, got int"),
        ({"loss_of": 3}, "expected loss_of to be a function, got int"),
    ],
)
def test_arguments_are_checked(wrong: dict[str, Any], part: str) -> None:
    program = Program(mlp())
    given = {"model": program.model, "criterion": program.criterion, "optimizer": program.optimizer,
             "train_loader": program.train_loader, **wrong}  # fmt: skip
    with pytest.raises(ConfigError, match=part):
        preflight(**given)


def test_state_not_restored_is_one_of_our_errors() -> None:
    assert issubclass(StateNotRestored, Exception)
