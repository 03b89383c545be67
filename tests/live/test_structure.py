"""What the monitor tells of a model's layers: order, kind and connections; and of units with equal weights."""

from __future__ import annotations

import copy

import fitdoctor
import pytest
import torch
from fitdoctor.readers import open_runs
from fitdoctor.signals import (
    ACTIVATION_DEAD_FRACTION,
    ACTIVATION_RMS,
    ACTIVATION_SATURATED_FRACTION,
    ACTIVATION_ZERO_FRACTION,
    WEIGHT_ROWS_ALIKE,
)
from fitdoctor.views.depth import Layer, layers_of
from torch import Tensor, nn


class Odd(nn.Module):
    """Layers defined in another order than they run, shared and functional activations, in place and with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 3)
        self.relu = nn.ReLU(inplace=True)
        self.c, self.b, self.a = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(8, 16)
        self.d, self.e = nn.Linear(16, 16), nn.Linear(16, 16)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.a(x))
        x = self.relu(self.b(x))
        x = torch.tanh(self.c(x)).view(-1, 4, 4).flatten(1)
        y = self.d(x)
        z = nn.functional.dropout(torch.relu(self.e(y)), 0.5)
        return self.head(y + z * torch.sigmoid(z))


def watched(model: nn.Module, steps: int = 3, **attached: object) -> fitdoctor.Run:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    criterion = nn.CrossEntropyLoss()
    width = next(m.in_features for m in model.modules() if isinstance(m, nn.Linear) and m.in_features != 16)
    with fitdoctor.attach(model, optimizer, criterion, record_every=1, **attached) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            criterion(model(torch.randn(12, width)), torch.randint(0, 3, (12,))).backward()
            optimizer.step()
    return monitor.run


@pytest.fixture(scope="module")
def odd() -> fitdoctor.Run:
    model = Odd()
    model.a = nn.Linear(8, 16)
    return watched(_ordered(model))


def _ordered(model: Odd) -> Odd:
    """The input width is found from the first layer that is not 16 wide: put `a` before `head` and `unused`."""
    modules = dict(model._modules)
    model._modules.clear()
    model._modules.update({k: modules[k] for k in ("a", "head", "relu", "c", "b", "d", "e", "unused")})
    return model


def test_layers_stand_in_the_order_of_the_forward_pass(odd: fitdoctor.Run) -> None:
    layers = layers_of(odd)
    assert [layer.name for layer in layers] == ["a", "relu", "b", "c", "d", "e", "head"]
    assert layers[0] == Layer("a", "affine", 8, 16)


def test_connections(odd: fitdoctor.Run) -> None:
    found = {layer.name: layer for layer in layers_of(odd)}
    assert found["relu"].source == "a"  # although it works in place
    assert found["b"].source == "relu"
    assert found["c"].source == "relu"  # called a second time
    assert found["d"].source == ""  # a tanh stands between
    assert found["e"].source == ""  # d goes round it as well
    assert found["head"].source == ""  # of a sum


def test_activations_that_are_no_modules(odd: fitdoctor.Run) -> None:
    assert {layer.name: layer.after for layer in layers_of(odd) if layer.after} == {"c": "saturating"}
    assert list(odd.layers(ACTIVATION_SATURATED_FRACTION)) == ["c"]


def test_dead_units_of_a_relu_that_is_no_module() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 3)
            self.first.bias.data[:4] = -100.0

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.relu(self.first(x)))

    run = watched(Dead(), steps=90)
    assert run.layers(ACTIVATION_DEAD_FRACTION)["first"].values[-1] == 0.25
    assert 0.25 < run.layers(ACTIVATION_ZERO_FRACTION)["first"].values[-1] < 0.9


def test_the_fact_is_read_back_from_the_log(tmp_path: object) -> None:
    run = watched(_ordered(Odd()), logdir=tmp_path)
    (read,) = open_runs(tmp_path)  # type: ignore[arg-type]
    assert layers_of(read) == layers_of(run)
    assert read.facts["monitor"] == run.facts["monitor"]


def test_a_broken_fact_tells_nothing() -> None:
    run = watched(nn.Sequential(nn.Linear(8, 3)))
    for text in ("", "[", "[1]", '[["a"]]', "{}", '[["a","affine","x",1,"",""]]'):
        assert layers_of(run.with_facts(layers=text)) == ()


def test_a_convolution_and_its_groups() -> None:
    model = nn.Sequential(
        nn.Linear(18, 18), nn.Unflatten(1, (2, 3, 3)), nn.Conv2d(2, 4, 2), nn.Conv2d(4, 4, 1, groups=4),
        nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    layers = layers_of(watched(model))
    assert [(x.role, x.inputs, x.outputs) for x in layers if x.role == "affine"] == [
        ("affine", 18, 18),
        ("affine", 8, 4),
        ("affine", 0, 4),
        ("affine", 16, 3),
    ]
    assert [x.role for x in layers if x.role != "affine"] == ["other", "norm", "smooth"]


def test_rows_that_are_alike() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    for layer, weight in ((model[0], 0.1), (model[2], 0.1)):
        nn.init.constant_(layer.weight, weight)
        nn.init.zeros_(layer.bias)
    alike = watched(model, steps=20).layers(WEIGHT_ROWS_ALIKE)
    assert alike["0.weight"].steps.tolist() == [1, 4, 16]
    assert alike["0.weight"].values.tolist() == [1, 1, 1]
    assert alike["4.weight"].values.tolist() == [0, 0, 0]
    assert "0.bias" not in alike


def test_zeros_in_the_last_layer_are_soon_gone() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    nn.init.zeros_(model[2].weight)
    assert watched(model).layers(WEIGHT_ROWS_ALIKE)["2.weight"].values[0] == 0


def test_the_first_records_are_kept() -> None:
    run = watched(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), steps=560, judge_every=10**9)
    steps = run.layers(ACTIVATION_RMS)["0"].steps
    assert len(steps) == 512
    assert steps[0] == 1
    assert steps[-1] == 560


def test_a_copy_after_the_first_pass_holds_no_hooks() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    watched(model)
    assert all(not m._forward_hooks for m in copy.deepcopy(model).modules())
    assert all(not m._forward_hooks for m in model.modules())
