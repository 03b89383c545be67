"""Tags to signals, against tables of names that frameworks and public scripts really log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fitdoctor.errors import ConfigError
from fitdoctor.readers.tags import Mapped, facts_from_params, interpret, parse_overrides, parse_tag, resolve
from fitdoctor.readers.tags.words import words_of
from fitdoctor.signals import EPOCH, QUANTITIES, SPLIT_QUANTITIES
from hypothesis import given
from hypothesis import strategies as st

HERE = Path(__file__).parent
NAMED_BY_LAYER = ("score", "error", "loss_part")


def table(name: str) -> Iterator[tuple[str, str]]:
    for line in (HERE / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            tag, _, meaning = line.rpartition(" | ")
            yield tag, meaning


def told(tag: str) -> str:
    """What `parse_tag` makes of a tag, in the notation of the tables."""
    found = parse_tag(tag)
    if found is None:
        return "-"
    quantity = found.signal.quantity
    text = f"{found.signal.split} {quantity.name}" if quantity in SPLIT_QUANTITIES else quantity.name
    if found.signal.layer:
        text += f" of {found.signal.layer}"
    return text + (f" per {found.per}" if found.per and quantity != EPOCH else "")


def agrees(got: str, want: str) -> bool:
    """Whether both are equal; the table may leave open how a metric or a part is named."""
    base, _, per = want.partition(" per ")
    if " of " not in base and base.split()[-1] in NAMED_BY_LAYER:
        found, _, found_per = got.partition(" per ")
        return found.split(" of ")[0] == base and " of " in found and found_per == per
    return got == want


def test_tables_are_large_and_free_of_repeats() -> None:
    known, held_out = [list(table(n)) for n in ("tags_known.txt", "tags_held_out.txt")]
    assert len(known) >= 400
    assert len(held_out) >= 140
    for rows in (known, held_out):
        assert len({tag for tag, _ in rows}) == len(rows)
    assert not {tag for tag, _ in known} & {tag for tag, _ in held_out}


@pytest.mark.parametrize(("tag", "want"), list(table("tags_known.txt")))
def test_known_tag(tag: str, want: str) -> None:
    got = told(tag)
    assert agrees(got, want), f"{tag}: {got} ({interpret(tag)})"


def test_held_out_tags() -> None:
    rows = list(table("tags_held_out.txt"))
    wrong = {tag: (told(tag), want) for tag, want in rows if not agrees(told(tag), want)}
    assert len(wrong) <= 12, wrong


def test_a_wrong_row_fails() -> None:
    assert not agrees(told("val_loss"), "train loss")
    assert not agrees(told("val_loss"), "-")
    assert not agrees(told("val_f1"), "val accuracy")


@pytest.mark.parametrize(
    ("tag", "statistic", "want"),
    [
        ("grads/layer1.weight", "norm", "grad_norm of layer1.weight"),
        ("gradients/conv1/bias", "absmax", "grad_absmax of conv1/bias"),
        ("layer1.weight.grad", "spread", "grad_spread of layer1.weight"),
        ("layer1.weight_grad", "zero_fraction", "grad_zero_fraction of layer1.weight"),
        ("layer1.weight", "std", "weight_std of layer1.weight"),
        ("weights/fc2", "median", "weight_median of fc2"),
        ("dense/kernel_0", "absmax", "weight_absmax of dense/kernel_0"),
        ("activations/relu1", "zero_fraction", "activation_zero_fraction of relu1"),
        ("attention.output.dense.weight", "mean", "weight_mean of attention.output.dense.weight"),
        ("bn1.running_mean", "mean", None),
        ("grads/layer1.weight", "mean", None),
        ("logits", "mean", None),
    ],
)
def test_histogram(tag: str, statistic: str, want: str | None) -> None:
    found = parse_tag(tag, statistic)
    assert (None if found is None else str(found.signal)) == want


def test_units_in_the_name() -> None:
    assert parse_tag("step_time_ms").scale == 1e-3  # type: ignore[union-attr]
    assert parse_tag("memory_gb").scale == 2.0**30  # type: ignore[union-attr]
    assert parse_tag("accuracy_percent").scale == 0.01  # type: ignore[union-attr]


def test_reasons_are_told() -> None:
    assert "best" in str(interpret("best_val_loss"))
    assert "counts steps" in str(interpret("global_step"))
    assert "evaluation" in str(interpret("eval_samples_per_second"))
    assert interpret("") == "its name has no letters"


def test_words() -> None:
    assert words_of("valAcc@1") == ("val", "acc1")
    assert words_of("mAP50-95(B)") == ("map50", "95", "b")
    assert words_of("SmoothL1Loss") == ("smooth", "l1", "loss")
    assert words_of("trainloss") == ("train", "loss")
    assert words_of("gloss") == ("g", "loss")


@given(
    st.text(max_size=60), st.sampled_from(["", "norm", "absmax", "mean", "std", "median", "spread", "zero_fraction"])
)
def test_any_name_is_read_or_refused_with_a_reason(tag: str, statistic: str) -> None:
    found = interpret(tag, statistic)
    assert isinstance(found, Mapped) or len(found) > 10
    assert found == interpret(tag, statistic)


@given(
    st.lists(
        st.sampled_from(
            [
                "train",
                "val",
                "loss",
                "acc",
                "top1",
                "lr",
                "grad",
                "norm",
                "best",
                "Step",
                "epoch",
                "@",
                "/",
                "_",
                ".",
                "-",
                "(",
                ")",
                "5",
                "1",
                "e",
                "f1",
                "mAP",
                "weight",
            ]
        ),
        max_size=8,
    ).map("".join)
)
def test_any_mixture_of_known_words_is_read_or_refused(tag: str) -> None:
    found = interpret(tag)
    if isinstance(found, Mapped):
        assert found.signal.quantity in QUANTITIES.values()
        assert found.signal.split in ("train", "val", "test")
        assert found.scale > 0


# --- overrides ----------------------------------------------------------------------------------------


def test_override_wins_over_the_name() -> None:
    overrides = parse_overrides({"my_metric": "loss:val", "aux/*": "ignore", "train/[x]": "lr::head"})
    found = resolve("my_metric", "", overrides)
    assert isinstance(found, Mapped)
    assert str(found.signal) == "val loss"
    assert found.by_user
    assert resolve("aux/loss", "", overrides) == "left out on request"
    literal = resolve("train/[x]", "", overrides)
    assert isinstance(literal, Mapped)
    assert str(literal.signal) == "lr of head"
    assert isinstance(resolve("val_loss", "", overrides), Mapped)


def test_an_exact_tag_wins_over_a_glob() -> None:
    overrides = parse_overrides({"train/*": "ignore", "train/loss": "loss"})
    assert isinstance(resolve("train/loss", "", overrides), Mapped)


def test_wrong_overrides_name_what_exists() -> None:
    with pytest.raises(ConfigError, match=r"tag 'x': 'los' is not a quantity; did you mean 'loss'\? known are loss,"):
        parse_overrides({"x": "los"})
    with pytest.raises(ConfigError, match=r"tag 'x': 'valid' is not a split; expected one of train, val, test in"):
        parse_overrides({"x": "loss:valid"})


# --- facts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "facts"),
    [
        ({"per_device_train_batch_size": 8, "per_device_eval_batch_size": 64}, {"batch_size": 8}),
        ({"max_grad_norm": "1.0"}, {"clip_norm": 1.0}),
        ({"gradient_clip_val": 0.5, "gradient_clip_algorithm": "norm"}, {"clip_norm": 0.5}),
        ({"config/optimizer/lr": 0.1}, {"learning_rate": 0.1}),
        ({"lr": 0.1, "min_lr": 1e-5, "lr_decay": 0.9, "lr_scheduler": "cosine"}, {"learning_rate": 0.1}),
        ({"lr0": 0.01, "lrf": 0.01}, {"learning_rate": 0.01}),
        ({"optimizer.weight_decay": 0.0}, {"weight_decay": 0.0}),
        ({"optimizer": "AdamW"}, {"optimizer": "AdamW"}),
        ({"optimizer": {"name": "sgd"}}, {}),
        (
            {"num_train_epochs": 3, "warmup_epochs": 1, "save_every_epochs": 1},
            {"warmup_epochs": 1, "planned_epochs": 3},
        ),
        ({"max_steps": 1000, "warmup_steps": 100, "eval_steps": 50}, {"warmup_steps": 100, "planned_steps": 1000}),
        ({"max_steps": -1}, {}),
        ({"num_classes": 10, "label_smoothing": 0.1}, {"label_smoothing": 0.1, "classes": 10}),
        ({"gradient_accumulation_steps": 4}, {"gradient_accumulation_steps": 4}),
        ({"batch_size": True, "lr": "auto", "epochs": None}, {}),
        ({"lr": "1e-3"}, {"learning_rate": 0.001}),
        ({"warmup_ratio": 0.1}, {"warmup_fraction": 0.1}),
        ({"seed": 1, "dropout": 0.1, "hidden_size": 128}, {}),
    ],
)
def test_facts(params: dict[str, object], facts: dict[str, object]) -> None:
    assert facts_from_params(params) == facts


@given(
    st.dictionaries(
        st.text(max_size=30), st.one_of(st.none(), st.text(), st.floats(), st.integers(), st.lists(st.integers()))
    )
)
def test_any_params_are_read_without_error(params: dict[str, object]) -> None:
    assert all(isinstance(v, (int, float, str)) for v in facts_from_params(params).values())
