"""Probes of the data: for each a defective split, a sound one, and one that is odd but sound."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from fitdoctor.errors import ConfigError
from fitdoctor.preflight import memory
from fitdoctor.preflight.bench import Bench
from tests.preflight.programs import Program, images, loader, mlp, vectors
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset


def split(x: Tensor, y: Tensor, held: int = 100, net: nn.Module | None = None, **more: Any) -> Program:
    """A program whose last examples are the validation split."""
    train = loader(x[:-held], y[:-held], **more)
    return Program(net or mlp(), train_loader=train, val_loader=loader(x[-held:], y[-held:], 50, shuffle=False))


# --- PRE012 ---------------------------------------------------------------------------------------------


def test_sorted_examples_are_found() -> None:
    x, y = vectors()
    order = y.argsort()
    Program(mlp(), train_loader=loader(x[order], y[order], shuffle=False)).finds(
        "unshuffled-data", "sorted by class", severity="error"
    )


def test_batches_of_one_class_are_why_inputs_are_not_needed() -> None:
    x, y = vectors()
    order = y.argsort()
    report = Program(mlp(), train_loader=loader(x[order], y[order], shuffle=False)).check()
    roots = [d.root.rule for d in report.diagnoses if d.root.severity != "note"]
    assert roots == ["unshuffled-data"]


def test_one_class_as_far_as_one_reads_is_found() -> None:
    x, y = torch.randn(5_000, 10), (torch.arange(5_000) >= 2_500).long()
    Program(mlp(), train_loader=loader(x, y, shuffle=False)).finds("unshuffled-data", "all have class 0")


def test_shuffled_examples_are_sound() -> None:
    Program(mlp()).sound("unshuffled-data")
    x, y = vectors()
    own = torch.Generator().manual_seed(4)  # goes on from epoch to epoch
    Program(mlp(), train_loader=loader(x, y, generator=own)).sound("unshuffled-data")


def test_series_in_their_order_and_few_classes_in_a_row_are_only_noted_or_sound() -> None:
    x, y = vectors()
    message = Program(mlp(), train_loader=loader(x, y, shuffle=False)).finds("unshuffled-data", severity="note")
    assert "same order" in message
    series = x.cumsum(0)
    program = Program(mlp(10, 8, 1), nn.MSELoss(), train_loader=loader(series, series[:, :1], shuffle=False))
    program.finds("unshuffled-data", "same order", severity="note")
    imbalanced = torch.where(torch.rand(400, generator=torch.Generator().manual_seed(1)) < 0.97, 0, y)
    Program(mlp(), train_loader=loader(x, imbalanced)).sound("unshuffled-data")


# --- PRE013 ---------------------------------------------------------------------------------------------


def test_raw_pixels_and_mixed_scales_are_found() -> None:
    x, y = vectors()
    split(128 + 60 * x, y).finds("unnormalised-inputs", "root mean square of 13", severity="warning")
    uneven = x * torch.logspace(-2, 1, 10)
    split(uneven, y).finds("unnormalised-inputs", "-fold", severity="warning")
    split(5 + 0.5 * x, y).finds("unnormalised-inputs", "standard deviations away from zero")
    pixels, label = images()
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    split(((pixels + 2) * 60).round(), label, net=net).finds("unnormalised-inputs", severity="warning")


def test_standardised_and_unit_interval_inputs_are_sound() -> None:
    x, y = vectors()
    split(x, y).sound("unnormalised-inputs")
    split(torch.sigmoid(2 * x), y).sound("unnormalised-inputs")


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - 128) / 60)


def test_models_that_normalise_ids_and_sparse_inputs_are_no_faults() -> None:
    x, y = vectors()
    split(128 + 60 * x, y, net=Scaled()).sound("unnormalised-inputs")
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(10), nn.Linear(10, 3))
    split(128 + 60 * x, y, net=net).sound("unnormalised-inputs")
    net = nn.Sequential(nn.Embedding(1000, 8), nn.Flatten(), nn.Linear(80, 3))
    split((x * 100).long() % 1000, y, net=net).sound("unnormalised-inputs")
    words = (torch.rand(400, 10, generator=torch.Generator().manual_seed(0)) < 0.03).float() * 20
    split(words, y).sound("unnormalised-inputs")


# --- PRE014 ---------------------------------------------------------------------------------------------


def test_nan_and_equal_inputs_are_found() -> None:
    x, y = vectors()
    bad = x.clone()
    bad[17, 3] = float("nan")
    program = split(bad, y, batch=8)
    program.finds("defective-data", "1 of 300 train examples have nan", severity="error")
    assert program.check().diagnoses[0].root.rule == "defective-data"
    split(torch.ones_like(x), y).finds("defective-data", "inputs are alike", severity="error")
    targets = x[:, :1].clone()
    targets[-3:] = float("inf")
    program = split(x, targets, net=mlp(10, 8, 1))
    program.criterion = nn.MSELoss()
    program.finds("defective-data", "val examples have nan or inf in their targets")


def test_clean_inputs_and_borders_are_sound() -> None:
    split(*vectors()).sound("defective-data")
    x, y = vectors()
    x[:, 0] = 0  # one constant feature, as the border of an image
    split(x, y).sound("defective-data")
    ids = torch.randint(0, 5, (400, 10))
    split(ids, y, net=nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(40, 3))).sound("defective-data")


# --- PRE015, PRE016 -------------------------------------------------------------------------------------


def test_rare_and_missing_classes_are_found() -> None:
    x, y = vectors(600)
    rare = torch.where((y == 2) & (torch.arange(600) % 20 > 0), 0, y)
    split(x, rare).finds("class-imbalance", "times the smallest", severity="note")
    missing = y.clone()
    missing[:500][missing[:500] == 2] = 0
    split(x, missing).finds("class-imbalance", "missing among 500 training examples", severity="warning")


def test_usual_classes_and_regressions_are_no_faults() -> None:
    split(*vectors()).sound("class-imbalance")
    x, _ = vectors()
    program = split(x, x[:, :1], net=mlp(10, 8, 1))
    program.criterion = nn.MSELoss()
    program.skips("class-imbalance", "no classes")


def test_a_class_that_validation_lacks_is_sound() -> None:
    x, y = vectors(600)
    y[500:][y[500:] == 2] = 0
    split(x, y).sound("class-imbalance")


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def test_a_last_batch_of_one_stops_batch_norm() -> None:
    x, y = vectors(397)
    split(x, y, net=normed(), batch=8).finds("ragged-last-batch", "batch norm refuses", severity="error")
    split(x, y, batch=8).finds("ragged-last-batch", "1 of 8 examples", severity="note")


def test_even_and_dropped_batches_are_sound() -> None:
    x, y = vectors(400)
    split(x, y, net=normed(), batch=30).sound("ragged-last-batch")
    split(x[:397], y[:397], net=normed(), batch=8, drop_last=True).sound("ragged-last-batch")
    split(x[:370], y[:370], batch=100).sound("ragged-last-batch")  # 70 of 100


# --- PRE017 ---------------------------------------------------------------------------------------------


class Augmented(Dataset[Any]):
    def __init__(self, how: str) -> None:
        self.how = how
        self.x, self.y = vectors(120)
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        noise = {"own": self.rng.normal, "torch": torch.randn, "python": random.random, "none": int}[self.how]
        return self.x[i] + (noise(1) if self.how == "torch" else noise()), self.y[i]


def same_seed(worker: int) -> None:
    torch.manual_seed(0)


def with_workers(how: str, **more: Any) -> Program:
    return Program(mlp(), train_loader=DataLoader(Augmented(how), 20, shuffle=True, num_workers=2, **more))


def test_workers_with_the_same_generator_are_found() -> None:
    with_workers("own").finds("duplicated-worker-randomness", "same random numbers", severity="error")
    with_workers("torch", worker_init_fn=same_seed).finds("duplicated-worker-randomness")


def test_seeded_workers_and_no_randomness_are_sound() -> None:
    with_workers("torch").sound("duplicated-worker-randomness")
    with_workers("none").sound("duplicated-worker-randomness")
    Program(mlp(), train_loader=DataLoader(Augmented("own"), 20)).skips("duplicated-worker-randomness", "no workers")


# --- PRE018, PRE019, PRE020 -----------------------------------------------------------------------------


def test_a_tiny_validation_set_is_found() -> None:
    x, y = vectors(400)
    split(x, y, held=12).finds("small-validation-set", "12 validation examples", severity="warning")
    split(x, y, held=60).finds("small-validation-set", severity="note")


def test_a_large_validation_set_is_sound_whatever_its_share() -> None:
    x, y = vectors(2_200)
    split(x, y, held=200).sound("small-validation-set")  # 9 %
    split(x, y, held=2_000).sound("small-validation-set")  # 91 %
    program = split(x, x[:, :1], net=mlp(10, 8, 1), held=10)
    program.criterion = nn.MSELoss()
    program.skips("small-validation-set", "no classes")


def test_shared_examples_are_found() -> None:
    x, y = vectors(500)
    x[-50:] = x[:50]
    split(x, y).finds("train-val-overlap", "identical to training examples", severity="error")
    x, y = vectors(500)
    x[-50:] = x[:50] + 1e-3 * torch.randn(50, 10)
    split(x, y).finds("train-val-overlap", "nearly identical", severity="warning")


def test_separate_examples_are_sound() -> None:
    split(*vectors(500)).sound("train-val-overlap")


def test_examples_in_half_precision_are_compared_like_others() -> None:
    x, y = vectors(500)
    split(x.bfloat16(), y).sound("train-val-overlap")
    x[-50:] = x[:50]
    split(x.bfloat16(), y).finds("train-val-overlap", "identical to training examples", severity="error")


def test_inputs_of_few_values_repeat_by_nature() -> None:
    x, y = vectors(500)
    split((x > 0.8).float(), y).sound("train-val-overlap")
    coarse = torch.randint(0, 2, (500, 10), generator=torch.Generator().manual_seed(0)).float()
    split(coarse[:, :10] * (torch.arange(10) < 4), y).sound("train-val-overlap")


def ids(program: Program, **kinds: Any) -> Program:
    program.more.update(kinds)
    return program


def test_common_groups_and_overlapping_times_are_found() -> None:
    data = vectors(400)
    groups = {"train": [i % 50 for i in range(300)], "val": [i % 50 for i in range(100)]}
    ids(split(*data), groups=groups).finds("group-leakage", "100% of the val examples", severity="error")
    times = {"train": list(range(0, 600, 2)), "val": list(range(1, 201, 2))}
    ids(split(*data), times=times).finds("group-leakage", "before the end of the training data", severity="warning")


def test_separate_groups_and_later_times_are_sound() -> None:
    data = vectors(400)
    groups = {"train": [f"p{i % 50}" for i in range(300)], "val": [f"q{i % 10}" for i in range(100)]}
    times = {"train": list(range(300)), "val": list(range(300, 400))}
    ids(split(*data), groups=groups, times=times).sound("group-leakage")
    split(*data).skips("group-leakage", "no groups")


def test_ids_of_another_length_are_refused() -> None:
    outcome = ids(split(*vectors(400)), groups={"train": [1, 2], "val": [3]}).check("group-leakage").outcomes[0]
    assert "expected one id per example (300), got 2" in outcome.why
    assert issubclass(ConfigError, Exception)


# --- PRE021, PRE022, PRE023, PRE024 ---------------------------------------------------------------------


def test_another_preprocessing_of_validation_is_found() -> None:
    x, y = vectors(600)
    other = x.clone()
    other[-200:] = other[-200:] * 0.3 + 0.5
    split(other, y, held=200).finds("train-val-shift", "tells training from validation", severity="warning")
    x, y = images(600)
    other = x.clone()
    other[-200:] = other[-200:] * 2  # the spread alone
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    split(other, y, held=200, net=net).finds("train-val-shift")


@pytest.mark.parametrize("seed", range(5))
def test_a_random_split_is_sound(seed: int) -> None:
    split(*vectors(500, seed), held=150).sound("train-val-shift")


def test_another_share_of_classes_is_no_shift_of_note_and_wide_inputs_are_sound() -> None:
    torch.manual_seed(3)
    x = torch.randn(300, 1_000)
    split(x, (x[:, 0] > 0).long(), net=mlp(1000, 3)).sound("train-val-shift")
    tokens = torch.randint(0, 9, (300, 4))
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(16, 3))
    split(tokens, tokens[:, 0] % 3, net=net).skips("train-val-shift", "ids")


def test_labels_without_relation_to_the_inputs_are_found() -> None:
    x, y = vectors(900)
    y = y[torch.randperm(900, generator=torch.Generator().manual_seed(0))]
    program = split(x, y, held=300, net=mlp(10, 256, 3))
    program.finds("nothing-to-learn", "no plain model beats", severity="note")
    program.finds("labels-not-learned", "no better than shuffled", options={"labels-not-learned": {"examples": 100}})


def test_labels_that_belong_are_sound() -> None:
    x, y = vectors(900)
    program = split(x, y, held=300)
    program.sound("nothing-to-learn")
    program.sound("labels-not-learned")
    assert program.check("nothing-to-learn").facts["baseline_linear"] > 0.7


def test_imbalance_and_regressions_are_learned_too() -> None:
    x, _y = vectors(900)
    imbalanced = (x[:, 0] > 1.2).long()
    program = split(x, imbalanced, held=300)
    program.sound("nothing-to-learn")
    program = split(x, x[:, :1] + 0.5 * x[:, 1:2], held=300, net=mlp(10, 32, 1))
    program.criterion = nn.MSELoss()
    program.sound("nothing-to-learn")
    program.sound("labels-not-learned")


def test_shuffled_labels_that_still_predict_have_been_seen() -> None:
    x, y = vectors(900)

    class Knowing(nn.Module):
        """The label is in the input, and the model reads it from there."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(5.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale.clamp(min=4) * nn.functional.one_hot(x[:, -1].long(), 3).float()

    marked = torch.cat([x, y[:, None].float()], 1)
    split(marked, y, held=300, net=Knowing()).finds("labels-not-learned", "below chance", severity="note")


def test_a_batch_beyond_the_memory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(mlp(10, 512, 512, 3))
    program.sound("batch-too-large")
    largest = program.check("batch-too-large").facts["largest_batch"]
    assert isinstance(largest, int)
    assert largest > 10_000
    monkeypatch.setattr(memory, "_free", lambda device: 3.0e6)
    program.finds("batch-too-large", "32 examples needs about", severity="error")
    net = mlp(10, 512, 512, 3)
    frugal = Program(net, optimizer=torch.optim.SGD(net.parameters(), 0.1))  # no state, so it fits
    frugal.sound("batch-too-large")


def test_memory_grows_in_proportion_to_the_batch() -> None:
    program = Program(mlp(10, 64, 64, 3), train_loader=loader(*vectors(), 200))
    bench = Bench(program.model, program.criterion, program.optimizer, {"train": program.train_loader})
    sizes = [memory._kept(bench, bench.batch(n)) for n in (10, 20, 40, 160)]
    # Linear: each doubling adds twice as much as the one before.
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.05)
    assert sizes[3] == pytest.approx(sizes[0] + 15 * (sizes[1] - sizes[0]), rel=0.05)


def test_streams_are_judged_as_far_as_they_can_be() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield from zip(*vectors(300), strict=True)

    program = Program(mlp(), train_loader=DataLoader(Stream(), 25))
    program.sound("defective-data")
    program.skips("ragged-last-batch", "unknown")
    program.finds("unshuffled-data", "same order", severity="note")
    assert program.check().verdict == "healthy"


def test_batches_that_differ_in_shape_are_told() -> None:
    batches = [(torch.randn(8, n), torch.randint(0, 3, (8,))) for n in (10, 10, 12)]
    Program(mlp(), train_loader=batches).skips("defective-data", "differ in shape")


# --- class weights, copies, augmentation, PRE026 --------------------------------------------------------


def imbalanced() -> tuple[Tensor, Tensor, Tensor]:
    x, y = vectors(600)
    y = torch.where((y == 2) & (torch.arange(600) % 8 > 0), 0, y)
    return x, y, torch.bincount(y).float()


def test_class_weights_that_favour_frequent_classes_are_found() -> None:
    x, y, counts = imbalanced()
    program = split(x, y)
    program.criterion = nn.CrossEntropyLoss(weight=counts / counts.mean())
    program.finds("class-imbalance", "class weights rise with the class counts: class 2", severity="warning")
    few = split(x, (y == 2).float()[:, None], net=mlp(10, 8, 1))
    few.criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(0.1))
    few.finds("class-imbalance", "class weights rise", severity="warning")


def test_class_weights_that_help_rare_classes_and_mild_ones_are_sound() -> None:
    x, y, counts = imbalanced()
    for weight in (counts.mean() / counts, torch.tensor([1.0, 1.3, 1.0])):
        program = split(x, y)
        program.criterion = nn.CrossEntropyLoss(weight=weight)
        assert all(f.severity == "note" for f in program.outcome("class-imbalance").findings)
    few = split(x, (y == 2).float()[:, None], net=mlp(10, 8, 1))
    few.criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(9.0))
    assert all(f.severity == "note" for f in few.outcome("class-imbalance").findings)


def test_examples_copied_before_the_split_are_found() -> None:
    x, y = (t.repeat(2, *[1] * (t.ndim - 1)) for t in vectors(250))
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    split(x[order], y[order]).finds("train-val-overlap", "identical to training examples", severity="warning")


class Shaken(Dataset[Any]):
    """Augments when it is read."""

    def __init__(self, x: Tensor, y: Tensor, noise: float) -> None:
        self.x, self.y, self.noise = x, y, noise

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i] + self.noise * torch.randn(self.x.shape[1:]), self.y[i]


def shaken(held_scale: float = 1.0, held_noise: float = 0.0) -> Program:
    x, y = vectors(600)
    train = DataLoader(Shaken(x[:400], y[:400], 0.6), 32, shuffle=True)
    val = DataLoader(Shaken(held_scale * x[400:], y[400:], held_noise), 50)
    return Program(mlp(), train_loader=train, val_loader=val)


def test_augmented_training_examples_are_no_shift_and_another_scale_is() -> None:
    shaken().sound("train-val-shift")
    shaken(held_scale=30.0).finds("train-val-shift", "augmented training inputs", severity="warning")


def test_augmented_validation_examples_are_noted() -> None:
    shaken(held_noise=0.6).finds("evaluation-differs", "differ from reading to reading", severity="note")
    shaken().sound("evaluation-differs")


def test_a_copy_of_the_target_among_the_inputs_is_found() -> None:
    x, y = vectors(500)
    code = torch.tensor([3.0, -1.0, 7.0])[y]
    split(torch.cat([x, code[:, None]], 1), y, net=mlp(11, 3)).finds(
        "label-in-inputs", "input feature 10 alone tells the class", severity="warning"
    )
    value = x[:, :3].sum(1, keepdim=True)
    program = split(torch.cat([x, 2 - 5 * value], 1), value, net=mlp(11, 8, 1))
    program.criterion = nn.MSELoss()
    program.finds("label-in-inputs", "input feature 10 alone tells the target")


def test_features_that_only_help_are_sound() -> None:
    split(*vectors(500)).sound("label-in-inputs")
    x, y = vectors(500)
    hint = torch.where(torch.rand(500, generator=torch.Generator().manual_seed(0)) < 0.98, y, 0).float()
    split(torch.cat([x, hint[:, None]], 1), y, net=mlp(11, 3)).sound("label-in-inputs")
    program = split(x, x[:, :1] + 0.01 * x[:, 1:2], net=mlp(10, 8, 1))
    program.criterion = nn.MSELoss()
    program.sound("label-in-inputs")


def test_an_autoencoder_and_images_are_not_asked_for_copies() -> None:
    x, _ = vectors(500)
    program = split(x, x, net=mlp(10, 8, 10))
    program.criterion = nn.MSELoss()
    program.skips("label-in-inputs", "several targets per example")
    torch.manual_seed(0)
    wide = torch.randn(60, 5_000)
    split(wide, (wide[:, 0] > 0).long(), held=10, net=mlp(5_000, 3)).skips("label-in-inputs", "no table")


def test_a_loss_that_ignores_the_target_says_nothing_about_labels() -> None:
    x, y = vectors(500)
    program = split(x, y, net=mlp(10, 16, 10))
    program.criterion = lambda out, target: nn.functional.cross_entropy(out @ out.T, torch.arange(len(out)))
    program.skips("labels-not-learned", "does not depend on the target")
