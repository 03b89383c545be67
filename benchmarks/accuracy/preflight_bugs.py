"""Does `preflight` name common beginners' faults, and leave sound programs alone that look odd?

    python benchmarks/accuracy/preflight_bugs.py
    python benchmarks/accuracy/preflight_bugs.py --only softmax

Each program is made wrong in one way, or is sound in an unusual way. A fault counts as named when the first diagnosis
that is more than a note has the expected root; as in the report when it stands below another root, or is a note. A
sound program counts as left alone when nothing is more than a note. These programs were looked at while the probes
were written: the score says how well the probes fit them, not how they do on others.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from fitdoctor import preflight
from fitdoctor.report import Report
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

Given = dict[str, Any]
FAULTS: dict[str, tuple[frozenset[str], str, Callable[[], Given]]] = {}
SOUND: dict[str, Callable[[], Given]] = {}


def fault(*roots: str, says: str = "") -> Callable[[Callable[[], Given]], Callable[[], Given]]:
    """Register a program whose fault is named by one of the roots, with these words in its message."""

    def add(make: Callable[[], Given]) -> Callable[[], Given]:
        FAULTS[make.__name__.replace("_", "-")] = (frozenset(roots), says, make)
        return make

    return add


def sound(make: Callable[[], Given]) -> Callable[[], Given]:
    """Register a program that is sound."""
    SOUND[make.__name__.replace("_", "-")] = make
    return make


# --- data, nets and programs ---------------------------------------------------------------------------------


def digits(raw: bool = False, image: bool = False) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    values = torch.tensor(x, dtype=torch.float32)[order]
    values = (values * 16 if raw else (values - values.mean()) / values.std()).round(decimals=3)
    return (values.reshape(-1, 1, 8, 8) if image else values), torch.tensor(y)[order]


def table(n: int = 800, d: int = 12) -> tuple[Tensor, Tensor]:
    """Normal features and a smooth target with noise, mean 0 and deviation about 1."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g)
    y = (x[:, 0] + (2 * x[:, 1]).sin() + x[:, 2] * x[:, 3] + 0.2 * torch.randn(n, generator=g)) / 1.7
    return x, y[:, None]


def binary(n: int = 800) -> tuple[Tensor, Tensor]:
    x, y = table(n)
    return x, (y > 0).float()


def tokens(n: int = 600, length: int = 12, size: int = 20) -> tuple[Tensor, Tensor]:
    """Ids that follow each other by a fixed rule, now and then broken: predict the next."""
    g = torch.Generator().manual_seed(0)
    rule = torch.randperm(size, generator=g)
    ids = torch.randint(1, size, (n, length + 1), generator=g)
    for t in range(length):
        follow = torch.rand(n, generator=g) < 0.8
        ids[follow, t + 1] = rule[ids[follow, t]].clamp(min=1)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU, end: tuple[nn.Module, ...] = ()) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1], *end)


def cnn(norm: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), norm or nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


class Language(nn.Module):
    """A recurrent language model."""

    def __init__(self, size: int = 20, tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(size, 24)
        self.body = nn.GRU(24, 24, batch_first=True)
        self.head = nn.Linear(24, size)
        if tied:
            nn.init.normal_(self.table.weight, std=0.2)
            self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.table(x))[0]).transpose(1, 2)


def program(
    data: tuple[Tensor, Tensor], model: nn.Module, criterion: Any = None, *, lr: float = 1e-3,
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam, batch: int = 32, held: float = 0.3,
    shuffle: bool = True, **more: Any,
) -> Given:  # fmt: skip
    x, y = data
    cut = int(len(x) * (1 - held))
    return {
        "model": model,
        "criterion": criterion or nn.CrossEntropyLoss(),
        "optimizer": optimizer(model.parameters(), lr),
        "train_loader": DataLoader(TensorDataset(x[:cut], y[:cut]), batch, shuffle=shuffle),
        "val_loader": DataLoader(TensorDataset(x[cut:], y[cut:]), 128),
        **more,
    }


# --- faults ------------------------------------------------------------------------------------------------


@fault("wrong-loss-input")
def softmax_before_cross_entropy() -> Given:
    return program(digits(), mlp(64, 48, 10, end=(nn.Softmax(1),)))


@fault("wrong-loss-input")
def sigmoid_before_bce_with_logits() -> Given:
    return program(binary(), mlp(12, 32, 1, end=(nn.Sigmoid(),)), nn.BCEWithLogitsLoss())


@fault("wrong-loss-input")
def raw_scores_in_nll_loss() -> Given:
    return program(digits(), mlp(64, 48, 10), nn.NLLLoss())


@fault("wrong-loss-input")
def relu_after_the_last_layer() -> Given:
    return program(table(), mlp(12, 32, 1, end=(nn.ReLU(),)), nn.MSELoss())


@fault("wrong-loss-input")
def relu_scores_in_cross_entropy() -> Given:
    return program(digits(), mlp(64, 48, 10, end=(nn.ReLU(),)))


@fault("wrong-loss-input")
def column_against_row_in_mse() -> Given:
    x, y = table()
    return program((x, y[:, 0]), mlp(12, 32, 1), nn.MSELoss())


@fault("wrong-loss-input")
def own_mse_that_broadcasts() -> Given:
    x, y = table()
    return program((x, y[:, 0]), mlp(12, 32, 1), lambda out, target: ((out - target) ** 2).mean())


@fault("wrong-loss-input")
def one_output_in_cross_entropy() -> Given:
    x, y = binary()
    return program((x, torch.zeros(len(y), dtype=torch.long)), mlp(12, 32, 1))


@fault("wrong-loss-input")
def labels_minus_one_and_one_in_bce() -> Given:
    x, y = binary()
    return program((x, 2 * y - 1), mlp(12, 32, 1), nn.BCEWithLogitsLoss())


@fault("wrong-loss-input", says="padding")
def padding_counts_as_a_class() -> Given:
    x, y = tokens()
    lengths = torch.randint(3, 12, (len(x), 1), generator=torch.Generator().manual_seed(1))
    pad = torch.arange(12) >= lengths
    return program((x.masked_fill(pad, 0), y.masked_fill(pad, 0)), Language(), lr=3e-3)


@fault("wrong-initial-loss")
def loss_summed_over_the_batch() -> Given:
    return program(digits(), mlp(64, 48, 10), nn.CrossEntropyLoss(reduction="sum"), optimizer=torch.optim.SGD, lr=0.1)


@fault("wrong-initial-loss", says="targets")
def targets_in_the_thousands() -> Given:
    x, y = table()
    return program((x, 5000 + 1000 * y), mlp(12, 32, 1), nn.MSELoss())


@fault("wrong-initial-loss")
def last_layer_drawn_too_large() -> Given:
    net = mlp(64, 48, 10)
    nn.init.normal_(net[-1].weight, std=3.0)
    return program(digits(), net)


@fault("program-fails")
def labels_from_one() -> Given:
    x, y = digits()
    return program((x, y + 1), mlp(64, 48, 10))


@fault("program-fails")
def one_hot_integers_in_cross_entropy() -> Given:
    x, y = digits()
    return program((x, F.one_hot(y, 10)), mlp(64, 48, 10))


@fault("program-fails")
def ids_beyond_the_embedding() -> Given:
    return program(tokens(), Language(15))


@fault("program-fails")
def inputs_of_float64() -> Given:
    x, y = digits()
    return program((x.double(), y), mlp(64, 48, 10))


@fault("program-fails")
def float_labels_in_cross_entropy() -> Given:
    x, y = digits()
    return program((x, y.float()), mlp(64, 48, 10))


@fault("program-fails")
def features_that_do_not_fit() -> Given:
    return program(digits(image=True), nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(512, 10)))


@fault("program-fails", "parameters-not-trained")
def loss_without_a_graph() -> Given:
    return program(digits(), mlp(64, 48, 10), lambda out, y: F.cross_entropy(out.detach(), y))


class Listed(nn.Module):
    """Keeps its hidden layers in a plain list, where nobody finds their parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = [nn.Linear(64, 48), nn.Linear(48, 48)]
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = layer(x).relu()
        return self.head(x)


@fault("parameters-not-trained")
def layers_in_a_plain_list() -> Given:
    return program(digits(), Listed())


@fault("parameters-not-trained")
def head_replaced_after_the_optimizer() -> Given:
    given = program(digits(), mlp(64, 48, 10))
    given["model"][2] = nn.Linear(48, 10)
    return given


@fault("parameters-not-trained")
def optimizer_of_another_model() -> Given:
    return {**program(digits(), mlp(64, 48, 10)), "optimizer": torch.optim.Adam(mlp(64, 48, 10).parameters())}


@fault("parameters-not-trained")
def everything_frozen() -> Given:
    return program(digits(), mlp(64, 48, 10).requires_grad_(False))


@fault("parameters-not-trained")
def learning_rate_of_zero() -> Given:
    return program(digits(), mlp(64, 48, 10), optimizer=torch.optim.SGD, lr=0.0)


class Detached(nn.Module):
    """Cuts the graph between body and head."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self.head, self.how = mlp(64, 48, 48), nn.Linear(48, 10), how
        self.spare = nn.Linear(48, 48)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "no_grad":
            with torch.no_grad():
                h = self.body(x)
            return self.head(self.spare(h))
        return self.head(self.body(x).relu())


@fault("unused-parameters")
def body_in_no_grad() -> Given:
    return program(digits(), Detached("no_grad"))


@fault("unused-parameters")
def layer_that_forward_forgets() -> Given:
    return program(digits(), Detached("forgotten"))


@fault("poor-initialisation")
def all_weights_zero() -> Given:
    net = mlp(64, 48, 48, 10)
    for p in net.parameters():
        nn.init.zeros_(p)
    return program(digits(), net)


@fault("poor-initialisation")
def all_weights_alike() -> Given:
    net = mlp(64, 48, 48, 10)
    for p in net.parameters():
        nn.init.constant_(p, 0.02)
    return program(digits(), net)


@fault("poor-initialisation")
def deep_sigmoids() -> Given:
    return program(digits(), mlp(64, *[48] * 12, 10, activation=nn.Sigmoid))


@fault("poor-initialisation")
def normal_weights_of_deviation_one() -> Given:
    net = mlp(64, 64, 64, 64, 64, 10)
    for p in net.parameters():
        nn.init.normal_(p)
    return program(digits(), net)


@fault("unshuffled-data")
def sorted_by_label() -> Given:
    x, y = digits()
    given = program((x, y), mlp(64, 48, 10))
    order = y[:1257].argsort()
    given["train_loader"] = DataLoader(TensorDataset(x[order], y[order]), 32)
    return given


@fault("unnormalised-inputs")
def raw_pixels() -> Given:
    return program(digits(raw=True), mlp(64, 48, 10))


@fault("unnormalised-inputs")
def features_on_other_scales() -> Given:
    x, y = table()
    return program((x * torch.logspace(-2, 4, 12), y), mlp(12, 32, 1), nn.MSELoss())


@fault("train-val-overlap")
def validation_is_training() -> Given:
    given = program(digits(), mlp(64, 48, 10))
    given["val_loader"] = DataLoader(given["train_loader"].dataset, 128)
    return given


@fault("train-val-overlap")
def split_after_duplication() -> Given:
    x, y = (t[:600].repeat(2, *[1] * (t.ndim - 1)) for t in digits())
    order = torch.randperm(1200, generator=torch.Generator().manual_seed(3))
    return program((x[order], y[order]), mlp(64, 48, 10))


@fault("train-val-shift")
def validation_not_normalised() -> Given:
    given = program(digits(), mlp(64, 48, 10))
    x, y = digits(raw=True)
    given["val_loader"] = DataLoader(TensorDataset(x[1300:], y[1300:]), 128)
    return given


class Random(nn.Module):
    """Dropout that ignores eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(64, 48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](F.dropout(self.net[1](self.net[0](x)), 0.5))


@fault("evaluation-differs")
def dropout_in_eval_mode() -> Given:
    return program(digits(), Random())


class Reshaped(nn.Module):
    """Batch and features mixed up by a view, or by a recurrent layer over the batch."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.net, self.rnn, self.head = mlp(64, 48, 10), nn.LSTM(8, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "view":
            return self.net(x.T.reshape(len(x), 64))
        return self.head(self.rnn(x.reshape(len(x), 8, 8))[0][:, -1])


@fault("examples-mixed")
def transposed_before_the_view() -> Given:
    return program(digits(), Reshaped("view"))


@fault("examples-mixed")
def batch_first_forgotten() -> Given:
    return program(digits(), Reshaped("rnn"))


@fault("examples-mixed", "wrong-loss-input")
def softmax_over_the_batch() -> Given:
    return program(digits(), mlp(64, 48, 10, end=(nn.Softmax(0),)), lambda p, y: F.nll_loss(p.clamp_min(1e-9).log(), y))


@fault("learning-rate-out-of-range")
def adam_at_ten() -> Given:
    return program(digits(), mlp(64, 48, 10), lr=10.0)


@fault("learning-rate-out-of-range")
def sgd_at_a_hundred() -> Given:
    return program(table(), mlp(12, 32, 1), nn.MSELoss(), optimizer=torch.optim.SGD, lr=100.0)


@fault("learning-rate-out-of-range")
def adam_at_a_billionth() -> Given:
    return program(digits(), mlp(64, 48, 10), lr=1e-9)


@fault("one-batch-not-learned", says="weight decay")
def weight_decay_of_one() -> Given:
    net = mlp(64, 48, 10)
    return program(digits(), net) | {"optimizer": torch.optim.Adam(net.parameters(), 1e-3, weight_decay=1.0)}


@fault("class-imbalance", says="class weights rise")
def class_weights_upside_down() -> Given:
    x, y = digits()
    y = torch.where((y == 3) & (torch.arange(len(y)) % 8 > 0), 5, y)
    counts = torch.bincount(y).float()
    return program((x, y), mlp(64, 48, 10), nn.CrossEntropyLoss(weight=counts / counts.mean()))


@fault("class-imbalance", says="missing among")
def a_class_without_training_examples() -> Given:
    x, y = digits()
    given = program((x, y), mlp(64, 48, 10))
    keep = (y != 7) & (torch.arange(len(y)) < 1257)
    given["train_loader"] = DataLoader(TensorDataset(x[keep], y[keep]), 32, shuffle=True)
    return given


@fault("defective-data")
def nan_in_a_few_rows() -> Given:
    x, y = table()
    x[[5, 77, 300], [1, 4, 2]] = float("nan")
    return program((x, y), mlp(12, 32, 1), nn.MSELoss())


@fault("defective-data")
def the_same_example_each_time() -> Given:
    x, y = digits()
    return program((x[:1].expand_as(x).clone(), y), mlp(64, 48, 10))


@fault("labels-not-learned", "nothing-to-learn")
def labels_of_other_inputs() -> Given:
    x, y = digits()
    return program((x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(5))]), mlp(64, 128, 10))


@fault("label-in-inputs")
def label_column_left_in_the_table() -> Given:
    x, y = binary()
    return program((torch.cat([x, y], 1), y), mlp(13, 32, 1), nn.BCEWithLogitsLoss())


@fault("ragged-last-batch")
def last_batch_of_one_with_batch_norm() -> Given:
    net = nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))
    given = program(digits(), net)
    x, y = digits()
    given["train_loader"] = DataLoader(TensorDataset(x[:1217], y[:1217]), 32, shuffle=True)
    return given


class NumpyNoise(Dataset[Any]):
    """Augments with a generator of its own."""

    def __init__(self) -> None:
        import numpy as np

        self.x, self.y = digits()
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return 1200

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i] + 0.1 * torch.tensor(self.rng.normal(size=64), dtype=torch.float32), self.y[i]


@fault("duplicated-worker-randomness")
def workers_with_one_seed() -> Given:
    given = program(digits(), mlp(64, 48, 10))
    given["train_loader"] = DataLoader(NumpyNoise(), 32, shuffle=True, num_workers=2)
    return given


# --- odd, but sound ------------------------------------------------------------------------------------------


@sound
def plain_digits() -> Given:
    return program(digits(), mlp(64, 48, 10))


@sound
def smoothing_and_right_class_weights() -> Given:
    x, y = digits()
    y = torch.where((y == 3) & (torch.arange(len(y)) % 8 > 0), 5, y)
    counts = torch.bincount(y).float()
    return program((x, y), mlp(64, 48, 10), nn.CrossEntropyLoss(weight=counts.mean() / counts, label_smoothing=0.1))


@sound
def frozen_body_in_the_optimizer() -> Given:
    net = mlp(64, 256, 10)
    net[0].requires_grad_(False)
    return program(digits(), net)


@sound
def tied_language_model() -> Given:
    return program(tokens(), Language(tied=True), lr=3e-3)


@sound
def padding_ignored_by_index() -> Given:
    x, y = tokens()
    pad = torch.arange(12) >= torch.randint(3, 12, (len(x), 1), generator=torch.Generator().manual_seed(1))
    return program((x.masked_fill(pad, 0), y.masked_fill(pad, -100)), Language(), lr=3e-3)


class ZeroBranches(nn.Module):
    """Residual branches and a head that begin at zero, on purpose."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(64, 48)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 48)) for _ in range(4)
        )
        self.head = nn.Linear(48, 10)
        for layer in (*(b[3] for b in self.blocks), self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for block in self.blocks:
            h = h + block(h)
        return self.head(h)


@sound
def branches_and_head_begin_at_zero() -> Given:
    return program(digits(), ZeroBranches())


@sound
def rare_class_with_a_bias_at_its_share() -> Given:
    x, y = table(1500)
    rare = (y > 1.3).float()
    net = mlp(12, 32, 1)
    with torch.no_grad():
        net[-1].bias.fill_(float(torch.logit(rare.mean())))
    return program((x, rare), net, nn.BCEWithLogitsLoss())


@sound
def positive_weight_for_rare_positives() -> Given:
    x, y = table(1500)
    rare = (y > 1.0).float()
    return program((x, rare), mlp(12, 32, 1), nn.BCEWithLogitsLoss(pos_weight=(1 - rare.mean()) / rare.mean()))


class Pairs(nn.Module):
    """One score per pair of examples: a contrastive model."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(64, 64, 16)

    def forward(self, x: Tensor) -> Tensor:
        a = F.normalize(self.net(x), dim=1)
        b = F.normalize(self.net(x + 0.1 * torch.randn_like(x)), dim=1)
        return a @ b.T / 0.2


@sound
def contrastive_pairs() -> Given:
    return program(digits(), Pairs(), lambda s, y: F.cross_entropy(s, torch.arange(len(s))))


@sound
def autoencoder() -> Given:
    x, _ = digits()
    net = mlp(64, 64, 16, 64, 64)
    return program((x, x), net, nn.MSELoss())


class Variational(nn.Module):
    """A variational autoencoder that returns output, mean and log-variance."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = mlp(64, 64, 16), mlp(8, 64, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_var = self.encode(x).chunk(2, 1)
        return self.decode(mean + (log_var / 2).exp() * torch.randn_like(mean)), mean, log_var


@sound
def variational_autoencoder() -> Given:
    def bound(out: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
        rebuilt, mean, log_var = out
        divergence = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(1).mean()
        return F.mse_loss(rebuilt, x, reduction="sum") / len(x) + divergence

    x, _ = digits()
    return program((x, x), Variational(), bound)


@sound
def soft_labels() -> Given:
    x, y = digits()
    mix = torch.rand(len(x), 1, generator=torch.Generator().manual_seed(0))
    hot = F.one_hot(y, 10).float()
    return program((mix * x + (1 - mix) * x.roll(1, 0), mix * hot + (1 - mix) * hot.roll(1, 0)), mlp(64, 48, 10))


@sound
def many_labels_per_example() -> Given:
    x, _ = table()
    return program((x, (x[:, :5] + 0.5 * x[:, 5:10] > 0.3).float()), mlp(12, 48, 5), nn.BCEWithLogitsLoss())


@sound
def series_in_its_order() -> Given:
    g = torch.Generator().manual_seed(0)
    wave = (torch.arange(1000) / 9).sin() + 0.2 * torch.randn(1000, generator=g)
    windows = wave.unfold(0, 17, 1)
    return program((windows[:, :-1], windows[:, -1:]), mlp(16, 32, 1), nn.MSELoss(), shuffle=False)


class Stream(IterableDataset[Any]):
    """Comes as it comes."""

    def __iter__(self) -> Iterator[Any]:
        yield from zip(*digits(), strict=True)


@sound
def a_stream() -> Given:
    return program(digits(), mlp(64, 48, 10)) | {"train_loader": DataLoader(Stream(), 32), "val_loader": None}


@sound
def tanh_for_targets_within_one() -> Given:
    x, y = table()
    return program((x, y.tanh() * 0.95), mlp(12, 32, 1, end=(nn.Tanh(),)), nn.MSELoss())


class Scaling(nn.Module):
    """Normalises its inputs itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(64, 48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - 78) / 96)


@sound
def a_model_that_normalises() -> Given:
    return program(digits(raw=True), Scaling())


@sound
def batch_norm_first() -> Given:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 1))
    x, y = table()
    return program((x * 40 + 100, y), net, nn.MSELoss())


@sound
def quantiles_by_an_own_loss() -> Given:
    levels = torch.tensor([0.1, 0.5, 0.9])

    def pinball(out: Tensor, y: Tensor) -> Tensor:
        gap = y - out
        return torch.maximum(levels * gap, (levels - 1) * gap).mean()

    return program(table(), mlp(12, 48, 3), pinball)


@sound
def several_targets_with_huber() -> Given:
    x, y = table()
    return program((x, torch.cat([y, x[:, :1].sin(), 0.3 * x[:, 1:2] ** 2], 1)), mlp(12, 48, 3), nn.HuberLoss())


@sound
def sampler_that_balances() -> Given:
    x, y = digits()
    y = torch.where((y == 3) & (torch.arange(len(y)) % 8 > 0), 5, y)
    given = program((x, y), mlp(64, 48, 10))
    share = 1 / torch.bincount(y).double()
    sampler = WeightedRandomSampler(share[y[:1200]].tolist(), 1200)
    given["train_loader"] = DataLoader(TensorDataset(x[:1200], y[:1200]), 32, sampler=sampler)
    return given


@sound
def fine_tuning_at_a_small_rate() -> Given:
    given = program(digits(), mlp(64, 48, 10))
    for _ in range(6):
        for x, y in given["train_loader"]:
            given["optimizer"].zero_grad()
            given["criterion"](given["model"](x), y).backward()
            given["optimizer"].step()
    return given | {"optimizer": torch.optim.AdamW(given["model"].parameters(), 2e-5)}


@sound
def group_norm_in_tiny_batches() -> Given:
    return program(digits(image=True), cnn(nn.GroupNorm(4, 16)), batch=4)


@sound
def convolutions_with_batch_norm() -> Given:
    return program(digits(image=True), cnn())


class Segments(nn.Module):
    """One class per pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@sound
def segmentation_with_dice() -> Given:
    x, _ = digits(image=True)
    mask = (x[:, 0] > 0.3).long()

    def loss(out: Tensor, y: Tensor) -> Tensor:
        p = out.softmax(1)[:, 1]
        dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
        return F.cross_entropy(out, y) + dice

    return program((x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2)), mask), Segments(), loss)


@sound
def log_softmax_and_nll() -> Given:
    return program(digits(), mlp(64, 48, 10, end=(nn.LogSoftmax(1),)), nn.NLLLoss())


@sound
def a_sum_that_is_divided() -> Given:
    return program(digits(), mlp(64, 48, 10), lambda o, y: F.cross_entropy(o, y, reduction="sum") / len(y))


@sound
def warm_up_from_zero() -> Given:
    given = program(digits(), mlp(64, 48, 10))
    scheduler = torch.optim.lr_scheduler.LambdaLR(given["optimizer"], lambda step: min(1.0, step / 100))
    return given | {"scheduler": scheduler}


@sound
def full_batch_with_lbfgs() -> Given:
    given = program(table(300), mlp(12, 16, 1, activation=nn.Tanh), nn.MSELoss(), batch=1000)
    return given | {"optimizer": torch.optim.LBFGS(given["model"].parameters(), 1.0)}


@sound
def two_inputs() -> Given:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(24, 32, 1)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.net(torch.cat([a, b], 1))

    x, y = table()
    given = program((x, y), Two(), nn.MSELoss())
    given["train_loader"] = DataLoader(TensorDataset(x[:560], x[:560].flip(1), y[:560]), 32, shuffle=True)
    given["val_loader"] = DataLoader(TensorDataset(x[560:], x[560:].flip(1), y[560:]), 128)
    return given


@sound
def words_counted() -> Given:
    g = torch.Generator().manual_seed(0)
    rates = 0.02 + 0.3 * torch.rand(4, 200, generator=g) ** 6
    y = torch.arange(1000) % 4
    x = torch.poisson(rates[y], generator=g)
    return program((x, y), mlp(200, 48, 4))


@sound
def poisson_counts() -> Given:
    x, y = table()
    counts = torch.poisson((0.7 * y).exp(), generator=torch.Generator().manual_seed(1))
    return program((x, counts), mlp(12, 32, 1), nn.PoissonNLLLoss())


# --- the score -----------------------------------------------------------------------------------------------


def told(make: Callable[[], Given]) -> Report:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        given = make()
        return preflight(**given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    torch.set_num_threads(1)
    named = reported = alone = faults = odd = 0
    print("| program | expected | first diagnosis | |\n|---|---|---|---|")
    for name, (roots, says, make) in FAULTS.items():
        if given.only not in name:
            continue
        began = time.process_time()
        report = told(make)
        first = next((d.root for d in report.diagnoses if d.root.severity != "note"), None)
        first = first or next((d.root for d in report.diagnoses if d.root.rule in roots), None)
        found = {f.rule for o in report.outcomes for f in o.findings}
        hit = first is not None and first.rule in roots and says in first.message
        told_of = any(f.rule in roots and says in f.message for o in report.outcomes for f in o.findings)
        named, reported, faults = named + hit, reported + (told_of and not hit), faults + 1
        state = "named" if hit else "in the report" if told_of else "missed"
        what = "nothing" if first is None else f"{first.severity} {first.rule}: {first.message}"
        print(f"| {name} | {', '.join(sorted(roots))} | {what} | {state} |", flush=True)
        crashed = [f"{o.rule}: {o.why}" for o in report.outcomes if o.status == "crashed"]
        if crashed or given.only:
            print(f"{crashed} {time.process_time() - began:.1f} s; found: {sorted(found)}")
    for name, make in SOUND.items():
        if given.only not in name:
            continue
        report = told(make)
        loud = [f for o in report.outcomes for f in o.findings if f.severity != "note"]
        crashed = [f"{o.rule}: {o.why}" for o in report.outcomes if o.status == "crashed"]
        alone, odd = alone + (not loud and not crashed), odd + 1
        what = "; ".join([*(f"{f.severity} {f.rule}: {f.message}" for f in loud), *crashed]) or "nothing"
        print(f"| {name} | nothing | {what} | {'left alone' if not loud else 'FALSE ALARM'} |", flush=True)
    print(f"\nfaults: {named} of {faults} named, {reported} more in the report; sound: {alone} of {odd} left alone")


if __name__ == "__main__":
    main()
