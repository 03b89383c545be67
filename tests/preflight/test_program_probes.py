"""Probes of model, loss and optimizer: for each a defective program, a sound one, and one that is odd but sound."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.preflight.programs import Program, images, loader, mlp, vectors
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def values(n: int = 300, shape: str = "column") -> Any:
    """Loaders of a regression on ten features."""
    x, _ = vectors(n + 100)
    y = x[:, :3].sum(1) + 0.1 * x[:, 3]
    y = y[:, None] if shape == "column" else y
    return loader(x[:n], y[:n]), loader(x[n:], y[n:], 50, shuffle=False)


def regression(net: nn.Module, criterion: Any = None, shape: str = "column", **more: Any) -> Program:
    train, val = values(shape=shape)
    return Program(net, criterion or nn.MSELoss(), train_loader=train, val_loader=val, **more)


# --- PRE001 ---------------------------------------------------------------------------------------------


def test_a_program_that_raises_or_gives_nan_fails() -> None:
    Program(mlp(12, 8, 3)).finds("program-fails", "raises RuntimeError", severity="error")
    Program(mlp(10, 8, 2)).finds("program-fails", "raises IndexError")
    Program(mlp(), nn.CrossEntropyLoss(reduction="none")).finds("program-fails", "shape (32,)")
    Program(mlp(), lambda o, y: F.cross_entropy(o * math.nan, y)).finds("program-fails", "nan")
    Program(mlp(), lambda o, y: F.cross_entropy(o.detach(), y)).finds("program-fails", "no graph")


def test_programs_that_run_do_not_fail() -> None:
    Program(mlp()).sound("program-fails")
    regression(mlp(10, 8, 1)).sound("program-fails")


def test_a_model_that_returns_its_loss_and_a_batch_of_another_form_are_sound() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            scores = self.net(x)
            return {"loss": F.cross_entropy(scores, labels), "logits": scores}

    x, y = vectors(120)
    batches = [{"x": a, "labels": b} for a, b in zip(x.split(30), y.split(30), strict=True)]
    program = Program(Whole(), None, train_loader=batches)
    report = program.check(options={"one-batch-not-learned": {"steps": 60}})
    assert {o.rule for o in report.outcomes if o.status == "crashed"} == set()
    assert report.verdict == "healthy"
    odd = [{"a": a, "b": b} for a, b in zip(x.split(30), y.split(30), strict=True)]
    Program(mlp(), None, train_loader=odd, more={"loss_of": lambda m, b: F.cross_entropy(m(b["a"]), b["b"])}).sound(
        "program-fails"
    )


def test_a_program_that_fails_is_the_one_root() -> None:
    report = Program(mlp(12, 8, 3)).check()
    assert [d.root.rule for d in report.diagnoses if d.root.severity != "note"] == ["program-fails"]
    assert report.verdict == "sick"
    assert {o.rule: o.why for o in report.outcomes if o.status == "crashed"} == {}


def test_the_message_of_torch_is_the_message() -> None:
    Program(mlp(10, 8, 2)).finds("program-fails", "Target 2 is out of bounds")


def test_a_step_that_raises_fails_too() -> None:
    class Refusing(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            raise RuntimeError("no step today")

    net = mlp()
    Program(net, optimizer=Refusing(net.parameters(), 0.1)).finds("program-fails", "no step today")


class Detector(nn.Module):
    """Takes a list of images and a list of what is on them, and returns its losses by name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        if len(images) != len(targets):
            raise ValueError("as many targets as images are needed")
        h = torch.stack([self.body(x[None]).relu().mean((0, 2, 3)) for x in images])
        scores, y = self.head(h), torch.stack([t["label"] for t in targets])
        return {"class": F.cross_entropy(scores, y), "size": 0.01 * h.square().mean()}


def test_losses_by_name_are_summed_and_lists_of_examples_are_parted_by_example() -> None:
    g = torch.Generator().manual_seed(0)
    images = [torch.randn(1, 6 + i % 3, 8, generator=g) for i in range(48)]
    marks = [{"label": torch.tensor(i % 3), "boxes": torch.rand(i % 4, 4, generator=g)} for i in range(48)]
    batches = [(images[i : i + 8], marks[i : i + 8]) for i in range(0, 48, 8)]
    program = Program(Detector(), None, train_loader=batches)
    names = ("program-fails", "parameters-not-trained", "unused-parameters", "examples-mixed", "batch-too-large")
    assert {o.rule: o.status for o in program.check(*names).outcomes if o.status == "crashed"} == {}
    program.sound("program-fails")
    Program(mlp(), lambda o, y: {"a": F.cross_entropy(o, y), "b": o.square().mean()}).sound("program-fails")
    Program(mlp(), lambda o, y: {"logits": o}).finds("program-fails", "expected a loss, got dict with logits")


def test_what_the_program_raises_on_part_of_a_batch_is_no_bug_of_a_probe() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor) -> Tensor:
            if len(x) != 32:
                raise ValueError("batches of 32 only")
            return self.net(x)

    x, y = vectors(320)
    Program(Whole(), train_loader=loader(x, y)).skips("examples-mixed", "the program raises ValueError on part")


# --- PRE002 ---------------------------------------------------------------------------------------------


def scaled(net: nn.Sequential, factor: float) -> nn.Sequential:
    with torch.no_grad():
        net[-1].weight.mul_(factor)
    return net


def test_large_scores_and_sums_start_too_high() -> None:
    Program(scaled(mlp(), 60)).finds("wrong-initial-loss", "times that of constant outputs", severity="warning")
    net = mlp()
    program = Program(net, nn.CrossEntropyLoss(reduction="sum"), torch.optim.SGD(net.parameters(), 0.01))
    program.finds("wrong-initial-loss", "summed, not averaged: 32 times", severity="warning")


def test_a_batch_that_breaks_the_loss_of_large_scores_is_their_effect() -> None:
    net = mlp(10, 32, 32, 32, 3)
    for module in net[::2]:
        scaled(nn.Sequential(module), 6)
    program = Program(net, optimizer=torch.optim.SGD(net.parameters(), 1.0))
    report = program.check("wrong-initial-loss", "one-batch-not-learned")
    assert {f.rule for f in report.findings if f.severity == "warning"} >= {"one-batch-not-learned"}
    assert [d.root.rule for d in report.diagnoses if d.root.severity != "note"] == ["wrong-initial-loss"]


def test_a_modest_spread_of_the_scores_of_few_classes_is_only_noted() -> None:
    message = Program(scaled(mlp(), 14)).finds("wrong-initial-loss", "times that of constant", severity="note")
    ratio = float(message.partition(", ")[2].partition(" times")[0])
    assert ratio > 3, "not above the ratio that is a warning of larger scores"
    Program(scaled(mlp(), 22)).finds("wrong-initial-loss", "times that of constant", severity="warning")


def test_usual_initial_losses_are_sound() -> None:
    Program(mlp()).sound("wrong-initial-loss")
    regression(mlp(10, 8, 1)).sound("wrong-initial-loss")
    x, y = vectors()
    Program(mlp(10, 8, 1), nn.BCEWithLogitsLoss(), train_loader=loader(x, (y > 0).float()[:, None])).sound(
        "wrong-initial-loss"
    )


def test_a_bias_at_the_class_shares_weights_and_smoothing_are_sound() -> None:
    x, y = vectors()
    y = torch.where(torch.rand(len(y), generator=torch.Generator().manual_seed(0)) < 0.9, 0, y)
    net = mlp()
    with torch.no_grad():
        net[-1].bias.copy_((torch.bincount(y) / len(y)).log())
    Program(net, train_loader=loader(x, y)).sound("wrong-initial-loss")
    odd = nn.CrossEntropyLoss(weight=torch.tensor([0.1, 5.0, 5.0]), label_smoothing=0.2)
    Program(mlp(), odd, train_loader=loader(x, y)).sound("wrong-initial-loss")


def test_a_trained_model_is_only_noted() -> None:
    program = Program(mlp())
    for _ in range(30):
        for x, y in program.train_loader:
            program.optimizer.zero_grad()
            program.criterion(program.model(x), y).backward()
            program.optimizer.step()
    program.finds("wrong-initial-loss", "below that of the best constant", severity="note")


def test_large_targets_are_named_and_a_bias_at_their_mean_is_sound() -> None:
    x, _ = vectors(400)
    y = 3_000 + 500 * x[:, :1]
    net = mlp(10, 8, 1)
    Program(net, nn.MSELoss(), train_loader=loader(x, y)).finds(
        "wrong-initial-loss", "targets have a root mean square of", severity="warning"
    )
    ages = Program(net, nn.MSELoss(), train_loader=loader(x, 40 + 12 * x[:, :1]))
    ages.finds("wrong-initial-loss", "targets", severity="note")
    with torch.no_grad():
        net[-1].bias.fill_(40.0)
    assert "targets have" not in str(ages.outcome("wrong-initial-loss").findings)
    Program(mlp(10, 8, 1), nn.MSELoss(), train_loader=loader(x, 2 + x[:, :1])).sound("wrong-initial-loss")


def test_a_loss_with_other_terms_is_not_taken_for_the_call_inside_it() -> None:
    Program(mlp(), lambda o, y: F.cross_entropy(o, y) + 5 + o.square().mean()).skips("wrong-initial-loss", "one call")
    Program(mlp(), lambda o, y: F.cross_entropy(o, y, reduction="sum") / len(y)).sound("wrong-initial-loss")


# --- PRE003 ---------------------------------------------------------------------------------------------


def test_wrong_inputs_of_class_losses_are_told_apart() -> None:
    Program(mlp(end=(nn.Softmax(1),))).finds("wrong-loss-input", "softmax before", severity="error")
    Program(mlp(), nn.NLLLoss()).finds("wrong-loss-input", "given raw scores", severity="error")
    Program(mlp(end=(nn.Softmax(1),)), nn.NLLLoss()).finds("wrong-loss-input", "given probabilities")
    Program(mlp(end=(nn.ReLU(),))).finds("wrong-loss-input", "relu before the cross-entropy", severity="warning")
    x, y = vectors()
    one = loader(x, torch.zeros_like(y))
    Program(mlp(10, 8, 1), train_loader=one).finds("wrong-loss-input", "a single class")


def test_wrong_inputs_of_binary_losses_are_told_apart() -> None:
    x, y = vectors()
    binary = loader(x, (y > 0).float()[:, None])
    Program(mlp(10, 8, 1, end=(nn.Sigmoid(),)), nn.BCEWithLogitsLoss(), train_loader=binary).finds(
        "wrong-loss-input", "sigmoid before a binary loss", severity="error"
    )
    Program(mlp(10, 8, 1), nn.BCEWithLogitsLoss(), train_loader=loader(x, y.float()[:, None])).finds(
        "wrong-loss-input", "run from 0 to 2"
    )


def test_shapes_and_ranges_of_regressions_are_checked() -> None:
    def squares(out: Tensor, y: Tensor) -> Tensor:
        return ((out - y) ** 2).mean()

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of the shapes itself
        regression(mlp(10, 8, 1), shape="row").finds("wrong-loss-input", "are broadcast", severity="error")
    regression(mlp(10, 8, 1), squares, shape="row").finds("wrong-loss-input", "are broadcast")
    regression(mlp(10, 8, 1, end=(nn.Sigmoid(),))).finds("wrong-loss-input", "outside the range", "sigmoid")


def test_right_inputs_are_sound() -> None:
    Program(mlp()).sound("wrong-loss-input")
    Program(mlp(end=(nn.LogSoftmax(1),)), nn.NLLLoss()).sound("wrong-loss-input")
    regression(mlp(10, 8, 1)).sound("wrong-loss-input")


def test_odd_but_sound_inputs_are_sound() -> None:
    x, y = vectors()
    binary = loader(x, (y > 0).float()[:, None])
    Program(mlp(10, 8, 1, end=(nn.Sigmoid(),)), nn.BCELoss(), train_loader=binary).sound("wrong-loss-input")
    train = loader(x, torch.sigmoid(x[:, :1]))
    Program(mlp(10, 8, 1, end=(nn.Sigmoid(),)), nn.MSELoss(), train_loader=train).sound("wrong-loss-input")
    soft = loader(x, F.one_hot(y, 3).float())  # targets that are probabilities
    Program(mlp(), train_loader=soft).sound("wrong-loss-input")
    message = Program(mlp(end=(nn.LogSoftmax(1),))).finds("wrong-loss-input", "log_softmax before", severity="note")
    assert "harmless" in message


class Tagger(nn.Module):
    """One class per position."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(12, 8), nn.Linear(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x)).transpose(1, 2)


def test_padding_that_counts_is_found_and_ignored_padding_is_sound() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(1, 12, (160, 9), generator=g)
    y = (x + 1) % 12
    y[y == 0] = 1
    pad = torch.arange(9) >= torch.randint(3, 10, (160, 1), generator=g)
    short, short_y = x.masked_fill(pad, 0), y.masked_fill(pad, 0)
    message = Program(Tagger(), train_loader=loader(short, short_y)).finds("wrong-loss-input", "are padding")
    assert "class 0" in message
    Program(Tagger(), nn.CrossEntropyLoss(ignore_index=0), train_loader=loader(short, short_y)).sound(
        "wrong-loss-input"
    )
    Program(Tagger(), train_loader=loader(short, y.masked_fill(pad, -100))).sound("wrong-loss-input")
    Program(Tagger(), train_loader=loader(x, y)).sound("wrong-loss-input")
    quiet = y.masked_fill(pad, 3)  # a class that often comes last, on inputs that go on
    Program(Tagger(), train_loader=loader(x, quiet)).sound("wrong-loss-input")


# --- PRE004 ---------------------------------------------------------------------------------------------


def test_an_optimizer_of_other_parameters_is_found() -> None:
    net, twin = mlp(), mlp()
    Program(net, optimizer=torch.optim.SGD(twin.parameters(), 0.1)).finds(
        "parameters-not-trained", "holds no parameter of this model", severity="error"
    )
    Program(net, optimizer=torch.optim.SGD(net[0].parameters(), 0.1)).finds(
        "parameters-not-trained", "2 of 4 tensors", severity="warning"
    )
    Program(net, optimizer=torch.optim.SGD(net.parameters(), 0.0)).finds("parameters-not-trained", "rate is 0")
    half = mlp().to(torch.bfloat16)
    x, y = vectors()
    program = Program(half, lambda o, t: F.cross_entropy(o.float(), t), torch.optim.SGD(half.parameters(), 1e-9),
                      train_loader=loader(x.to(torch.bfloat16), y))  # fmt: skip
    program.finds("parameters-not-trained", "do not move in three steps")


def test_an_optimizer_of_all_parameters_is_sound() -> None:
    Program(mlp()).sound("parameters-not-trained")


def test_frozen_and_tied_parameters_and_a_warm_up_from_zero_are_sound() -> None:
    net = mlp(10, 16, 16, 3)
    net[4].weight.requires_grad_(False)
    Program(net, optimizer=torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)).sound(
        "parameters-not-trained"
    )
    tied = mlp(10, 10, 10, 3)
    tied[2].weight = tied[0].weight
    Program(tied).sound("parameters-not-trained")
    biased = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    Program(biased, optimizer=torch.optim.SGD(biased.parameters(), 0.05)).sound("parameters-not-trained")
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1.0, i / 10))
    Program(net, optimizer=optimizer, more={"scheduler": scheduler}).skips("parameters-not-trained", "rate is 0")


class Aside(nn.Module):
    """Keeps layers in a list of its own."""

    def __init__(self, trained: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.aside, self.head, self.trained = [mlp(10, 16, 16)], nn.Linear(16, 3), trained

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.trained):
            h = self.aside[0](x)
        return self.head(h)


def test_layers_that_the_model_does_not_know_are_found() -> None:
    message = Program(Aside()).finds("parameters-not-trained", "not registered in the model", severity="error")
    assert message.startswith("4 tensors")


def test_a_teacher_kept_aside_and_layers_that_the_optimizer_knows_are_sound() -> None:
    Program(Aside(trained=False)).sound("parameters-not-trained")
    net = Aside()
    both = [*net.parameters(), *net.aside[0].parameters()]
    Program(net, optimizer=torch.optim.Adam(both, 1e-3)).sound("parameters-not-trained")


# --- PRE005 and PRE006 ----------------------------------------------------------------------------------


class Cut(nn.Module):
    """Forgets its input on the way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.first, self.last = nn.Linear(10, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x * 0 if self.how == "masked" else x).relu()
        return self.last(h.mean(0, keepdim=True).expand_as(h) if self.how == "averaged" else h)


def test_a_batch_that_cannot_be_memorised_is_found() -> None:
    program = Program(Cut("masked"))
    program.finds("one-batch-not-learned", "cannot be memorised", severity="error")
    program.finds("input-ignored", "the same for every input", severity="error")
    Program(Cut("averaged")).finds("input-ignored", "the same for every input")


def test_a_usual_model_learns_a_batch_and_uses_its_input() -> None:
    program = Program(mlp())
    program.sound("one-batch-not-learned")
    program.sound("input-ignored")


@pytest.mark.parametrize("size", [40, 100])  # fewer and more than the probes look at
def test_what_a_loss_of_its_own_is_given_can_be_blanked_and_relabelled(size: int) -> None:
    x, y = vectors()
    train, val = loader(x[:300], y[:300], size), loader(x[300:], y[300:], 50, shuffle=False)
    more = {"loss_of": lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])}
    program = Program(mlp(), nn.CrossEntropyLoss(), train_loader=train, val_loader=val, more=more)
    program.sound("input-ignored")
    program.sound("labels-not-learned")


@pytest.mark.parametrize("size", [40, 100])
def test_an_autoencoder_uses_its_input_and_has_no_labels(size: int) -> None:
    x, _ = vectors()
    train, val = (DataLoader(TensorDataset(part), size, shuffle=True) for part in (x[:300], x[300:]))
    program = Program(mlp(10, 32, 10), nn.MSELoss(), train_loader=train, val_loader=val)
    program.sound("input-ignored")
    program.skips("labels-not-learned", "their own targets")
    program.more = {"loss_of": lambda model, batch: F.mse_loss(model(batch[0]), batch[0])}
    program.skips("input-ignored", "blanked together")


def test_inputs_that_explain_a_part_of_few_examples_are_not_said_to_be_ignored() -> None:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(400, 2, generator=draw)
    y = (x[:, 0] + 1.5 * torch.randn(400, generator=draw) > 0).long()
    program = Program(nn.Linear(2, 2), train_loader=loader(x, y, 16))
    program.optimizer = torch.optim.Adam(program.model.parameters(), 1e-2)
    program.skips("input-ignored", "examples are too few", options={"input-ignored": {"steps": 60}})
    nothing = Program(nn.Linear(2, 2), train_loader=loader(0 * x + 1e-6 * x, y, 64))
    nothing.finds("input-ignored", "with blank ones")


def test_dropout_smoothing_and_small_models_are_no_faults() -> None:
    net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Dropout(0.8), nn.Linear(64, 3))
    Program(net, nn.CrossEntropyLoss(label_smoothing=0.3)).sound("one-batch-not-learned")
    Program(net).sound("input-ignored")
    regression(nn.Linear(10, 1)).skips("one-batch-not-learned", "fewer parameters")
    x, y = vectors()
    random = torch.randint(0, 3, y.shape, generator=torch.Generator().manual_seed(0))
    small = Program(nn.Linear(2, 3), train_loader=loader(x[:, :2], random))
    outcome = small.outcome("one-batch-not-learned")
    assert all(f.severity == "note" for f in outcome.findings), outcome.findings[0].message


def test_an_optimizer_that_diverges_is_told_from_a_model_that_cannot_learn() -> None:
    net = mlp()
    program = Program(net, optimizer=torch.optim.SGD(net.parameters(), 1e4))
    program.finds("one-batch-not-learned", "diverges", severity="warning")
    slow = Program(net, optimizer=torch.optim.SGD(net.parameters(), 1e-6))
    slow.finds("one-batch-not-learned", "is slow", severity="note")


def test_weight_decay_that_undoes_what_is_learned_is_found() -> None:
    net = mlp()
    heavy = Program(net, optimizer=torch.optim.Adam(net.parameters(), 1e-2, weight_decay=3.0))
    heavy.finds("one-batch-not-learned", "with weight decay 3 Adam cannot learn", severity="warning")
    usual = Program(net, optimizer=torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=0.1))
    usual.sound("one-batch-not-learned")


def test_a_loss_whose_least_value_is_unknown_is_not_called_unlearnable() -> None:
    def floored(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y) + 0.4 + 0.01 * out.square().mean()

    program = Program(mlp(), floored)
    outcome = program.outcome("one-batch-not-learned")
    assert outcome.status in ("clean", "skipped")


# --- PRE007 ---------------------------------------------------------------------------------------------


class Mixing(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(1, 8, batch_first=batch_first), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x[..., None])[0][:, -1])


class Pairs(nn.Module):
    """One score per pair of examples, on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(10, 16, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = F.normalize(self.net(x), dim=1)
        return h @ h.T


def test_a_recurrent_layer_over_the_batch_is_found() -> None:
    Program(Mixing(batch_first=False)).finds("examples-mixed", "changes the outputs of", severity="error")
    Program(mlp(end=(nn.Softmax(0),))).finds("examples-mixed", "of the 7 others")


def test_examples_of_usual_models_are_apart() -> None:
    Program(Mixing(batch_first=True)).sound("examples-mixed")
    Program(mlp()).sound("examples-mixed")


def test_batch_norm_and_contrastive_models_are_no_faults() -> None:
    Program(nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))).sound("examples-mixed")
    Program(Pairs(), lambda o, y: F.cross_entropy(o, torch.arange(len(o)))).skips("examples-mixed", "per example")


# --- PRE008 to PRE011 -----------------------------------------------------------------------------------


def deep(depth: int, *, gain: float = 0.0, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(depth):
        linear = nn.Linear(10 if i == 0 else 32, 32)
        if gain:
            nn.init.normal_(linear.weight, std=gain / linear.in_features**0.5)
            nn.init.zeros_(linear.bias)
        layers += [linear, *([nn.LayerNorm(32)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, 3))


def test_signals_that_fade_or_grow_with_depth_are_found() -> None:
    Program(deep(20)).finds("poor-initialisation", "-fold over", severity="warning")
    Program(deep(10, gain=4.0)).finds("poor-initialisation", "grow", severity="warning")


def biased(weight: float, bias: float) -> nn.Sequential:
    """Three hidden layers with weights of another size, and biases that were moved."""
    net = deep(3)
    with torch.no_grad():
        for module in net[:-1]:
            if isinstance(module, nn.Linear):
                module.weight.mul_(weight)
                module.bias.add_(bias)
    return net


def test_small_weights_are_why_units_are_dead_where_biases_decide() -> None:
    report = Program(biased(0.05, 0.0)).check("poor-initialisation", "dead-units")
    assert {f.rule for f in report.findings} == {"poor-initialisation", "dead-units"}
    assert [d.root.rule for d in report.diagnoses] == ["poor-initialisation"]


def test_biases_that_kill_units_are_no_matter_of_the_weights() -> None:
    report = Program(biased(1.0, -1.5)).check("poor-initialisation", "dead-units")
    assert [d.root.rule for d in report.diagnoses] == ["dead-units"]
    Program(biased(1.0, 0.0)).skips("poor-initialisation", "hidden layers with weights: 3")


def test_matched_initialisation_is_sound() -> None:
    Program(deep(20, gain=math.sqrt(2))).sound("poor-initialisation")
    Program(deep(5)).sound("poor-initialisation")


def alike(value: float) -> nn.Sequential:
    net = mlp(10, 16, 16, 3)
    for p in net.parameters():
        nn.init.constant_(p, value)
    return net


def test_units_that_begin_equal_and_stay_so_are_found() -> None:
    Program(alike(0.0)).finds("poor-initialisation", "have the same weights", severity="error")
    Program(alike(0.05)).finds("poor-initialisation", "the 16 units of 0 have the same weights")
    roots = [d.root.rule for d in Program(alike(0.0)).check("poor-initialisation", "dead-units", "unused-parameters",
                                                             "one-batch-not-learned").diagnoses]  # fmt: skip
    assert roots == ["poor-initialisation"]


def test_a_head_that_begins_at_zero_is_sound() -> None:
    net = mlp(10, 16, 16, 16, 16, 3)
    nn.init.zeros_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    outcome = Program(net).outcome("poor-initialisation")
    assert outcome.findings == ()


class Residual(nn.Module):
    """Branches begin at zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Linear(10, 32), nn.Linear(32, 3)
        self.blocks = nn.ModuleList([nn.Linear(32, 32) for _ in range(8)])
        for block in self.blocks:
            nn.init.zeros_(block.weight)
            nn.init.zeros_(block.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for block in self.blocks:
            h = h + block(h.relu())
        return self.head(h)


def test_normalised_and_zero_branches_are_sound() -> None:
    Program(deep(20, norm=True)).sound("poor-initialisation")
    Program(Residual()).skips("poor-initialisation", "hidden layers")  # zero branches differ after the first steps
    program = Program(Residual())
    program.sound("unused-parameters")
    program.sound("one-batch-not-learned")


def test_dead_and_saturated_units_are_found() -> None:
    net = mlp(10, 64, 3)
    with torch.no_grad():
        net[0].bias.fill_(-20)
    Program(net).finds("dead-units", "100% of the units of activation 1 (relu) are zero", severity="warning")
    hot = mlp(10, 64, 3, activation=nn.Tanh)
    with torch.no_grad():
        hot[0].weight.mul_(100)
    Program(hot).skips("dead-units", "no relu")  # the one activation before the loss may be meant as its output
    hot = mlp(10, 64, 64, 3, activation=nn.Tanh)
    with torch.no_grad():
        hot[0].weight.mul_(100)
    Program(hot).finds("dead-units", "saturated")


def test_usual_units_live() -> None:
    Program(mlp(10, 64, 64, 3)).sound("dead-units")
    Program(mlp(10, 64, 64, 3, activation=nn.Tanh)).sound("dead-units")


def test_sparse_units_and_gates_are_no_faults() -> None:
    net = mlp(10, 64, 3)
    with torch.no_grad():
        net[0].bias.fill_(-0.6)  # most outputs are zero, but every unit lives for some inputs
    Program(net).sound("dead-units")

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate, self.head = nn.Linear(10, 16), nn.Linear(10, 16), nn.Linear(16, 3)
            nn.init.constant_(self.gate.bias, 8.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.a(x) * torch.sigmoid(self.gate(x)))

    outcome = Program(Gated()).outcome("dead-units")
    assert not outcome.findings


class Forgetful(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.calls = how, 0
        self.net, self.extra = mlp(), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.how == "detached":
            return self.net(x) + self.extra(x).detach()
        if self.how == "experts":
            return self.net(x) if self.calls % 2 else self.extra(x)
        return self.net(x) + (self.extra(x) if self.how == "used" else 0)


def test_parameters_without_gradient_are_found() -> None:
    Program(Forgetful("forgotten")).finds("unused-parameters", "2 of 6 trainable tensors get no gradient")
    Program(Forgetful("detached")).finds("unused-parameters", "no gradient", severity="warning")


def test_used_parameters_are_sound() -> None:
    Program(Forgetful("used")).sound("unused-parameters")


def test_branches_that_only_some_batches_take_are_sound() -> None:
    Program(Forgetful("experts")).sound("unused-parameters")
    net = Forgetful("forgotten")
    net.extra.requires_grad_(False)
    Program(net).sound("unused-parameters")


class Dropping(nn.Module):
    def __init__(self, obeys: bool) -> None:
        super().__init__()
        self.obeys, self.net = obeys, mlp()

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.net(x), 0.5, training=self.training or not self.obeys)


def test_dropout_that_ignores_the_mode_and_batch_norm_over_two_are_found() -> None:
    Program(Dropping(obeys=False)).finds("evaluation-differs", "two evaluations of one batch", severity="warning")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
    with torch.no_grad():
        net[3].weight.mul_(10)
    x, y = vectors(128)
    Program(net, train_loader=loader(x, y, 2)).finds("evaluation-differs", "in train and", severity="warning")


def test_usual_modes_agree() -> None:
    Program(Dropping(obeys=True)).sound("evaluation-differs")
    x, y = images()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    Program(net, train_loader=loader(x, y)).sound("evaluation-differs")


def test_a_new_batch_norm_far_from_its_data_and_a_model_in_eval_mode_are_sound() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(10), nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3)).eval()
    x, y = vectors()
    Program(net, train_loader=loader(50 + 20 * x, y)).sound("evaluation-differs")


# --- PRE025 ---------------------------------------------------------------------------------------------


def at_rate(lr: float) -> Program:
    net = mlp()
    return Program(net, optimizer=torch.optim.SGD(net.parameters(), lr, momentum=0.9))


def test_a_rate_beyond_the_edge_is_found() -> None:
    at_rate(100.0).finds(
        "learning-rate-out-of-range", "times the rate at which the loss breaks away", severity="warning"
    )
    at_rate(1e-7).finds("learning-rate-out-of-range", "times below", severity="note")


def test_usual_rates_are_sound() -> None:
    at_rate(0.05).sound("learning-rate-out-of-range")
    Program(mlp()).sound("learning-rate-out-of-range")


def test_a_warm_up_to_a_high_peak_is_no_fault() -> None:
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), 0.2, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=50)
    Program(net, optimizer=optimizer, more={"scheduler": scheduler}).sound("learning-rate-out-of-range")


def test_rates_cannot_be_judged_where_nothing_is_learned() -> None:
    x, y = vectors()
    Program(Cut("masked"), train_loader=loader(x, torch.randint(0, 3, y.shape))).skips("learning-rate-out-of-range")


def test_an_optimizer_that_needs_a_closure_is_judged() -> None:
    net = mlp()
    program = Program(net, optimizer=torch.optim.LBFGS(net.parameters(), max_iter=4))
    program.sound("parameters-not-trained")
    program.sound("one-batch-not-learned")
    program.skips("learning-rate-out-of-range", "its own step length")


def test_a_scripted_model_is_left_as_it_was() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and in use
        net = torch.jit.script(mlp()).eval()
    program = Program(net)
    program.sound("parameters-not-trained")
    assert not net.training


def test_one_label_per_pixel_is_judged() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, 8, 8, generator=g)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    report = Program(net, train_loader=loader(x[:30], y[:30], 8), val_loader=loader(x[30:], y[30:], 8)).check(
        *("wrong-initial-loss", "wrong-loss-input", "class-imbalance", "examples-mixed", "defective-data")
    )
    assert {o.rule: o.why for o in report.outcomes if o.status == "crashed"} == {}
    assert not [f.message for f in report.findings if f.severity != "note"]


def test_whole_reports_name_one_root() -> None:
    x, y = vectors(500)
    net = mlp(10, 64, 64, 3, activation=nn.Tanh)
    train, val = loader(300 + 100 * x[:400], y[:400]), loader(300 + 100 * x[400:], y[400:])
    report = Program(net, optimizer=torch.optim.SGD(net.parameters(), 0.1), train_loader=train, val_loader=val).check()
    harmful = [d for d in report.diagnoses if d.root.severity != "note"]
    assert [d.root.rule for d in harmful] == ["unnormalised-inputs"]
    assert harmful[0].explains
    assert report.facts["classes"] == 3


def test_a_rate_far_beyond_the_edge_is_found_where_no_ramp_can_be_read() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(300, 10, generator=g)
    y = x[:, :1] + 3 * torch.randn(300, 1, generator=g)  # noise hides the fall
    net = mlp(10, 8, 1)
    program = Program(net, nn.MSELoss(), torch.optim.SGD(net.parameters(), 50.0), loader(x, y, 16))
    message = program.finds(
        "learning-rate-out-of-range", "the learning rate 50", severity="warning",
        options={"learning-rate-out-of-range": {"steps": 60}},
    )  # fmt: skip
    assert "breaks away" in message


class Sampling(nn.Module):
    """Draws a code, in eval mode as well."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.1 * torch.randn_like(x))


def test_sampling_is_only_noted_and_attention_that_drops_in_eval_mode_is_found() -> None:
    Program(Sampling()).finds("evaluation-differs", "two evaluations", severity="note")

    class Attending(nn.Module):
        def __init__(self, obeys: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.inside, self.head, self.obeys = nn.Linear(1, 8), nn.Linear(8, 3), obeys

        def forward(self, x: Tensor) -> Tensor:
            h = self.inside(x[..., None])[:, None]
            drop = 0.5 if self.training or not self.obeys else 0.0
            return self.head(F.scaled_dot_product_attention(h, h, h, dropout_p=drop)[:, 0].mean(1))

    Program(Attending(obeys=False)).finds("evaluation-differs", "two evaluations", severity="warning")
    Program(Attending(obeys=True)).sound("evaluation-differs")
