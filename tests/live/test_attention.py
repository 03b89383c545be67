"""The sharpness of attention, against the formula, for every way in which a model may compute it."""

from __future__ import annotations

import math
from typing import Any

import fitdoctor
import pytest
import torch
from fitdoctor.live.attention import INPUTS, QUERIES
from fitdoctor.run import Run
from fitdoctor.signals import ATTENTION_ENTROPY, ATTENTION_LOGIT_ABSMAX, ATTENTION_SHARP_FRACTION, Quantity
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

LENGTH, HEADS, WIDTH = 7, 2, 16


class Attending(nn.Module):
    """One attention over seven tokens, fused or written out."""

    def __init__(self, *, fused: bool = True, drop: float = 0.0, causal: bool = False, gain: float = 1.0) -> None:
        super().__init__()
        self.fused, self.drop, self.causal, self.gain = fused, drop, causal, gain
        self.embed, self.qkv = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.attention = nn.ModuleDict({"out": nn.Linear(WIDTH, WIDTH)})
        self.head = nn.Linear(WIDTH, 3)
        self.logits = torch.zeros(0)
        self.pad: Tensor | None = None

    def mask(self, n: int) -> Tensor:
        mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
        mask = (mask.tril() if self.causal else mask).expand(n, 1, LENGTH, LENGTH)
        return mask if self.pad is None else mask & self.pad[:n, None, None, :]

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        tokens = x.view(n, 1, 8) * torch.linspace(-1, 1, LENGTH).view(1, LENGTH, 1)
        parts = self.qkv(self.embed(tokens)).chunk(3, -1)
        q, k, v = (t.view(n, LENGTH, HEADS, -1).transpose(1, 2) for t in parts)
        q = q * self.gain
        self.logits = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).detach()
        if self.fused:
            given = {"is_causal": self.causal} if self.pad is None else {"attn_mask": self.mask(n)}
            y = functional.scaled_dot_product_attention(q, k, v, dropout_p=self.drop, **given)
        else:
            scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~self.mask(n), -math.inf)
            y = functional.dropout(scores.softmax(-1), self.drop) @ v
        out: Tensor = self.head(self.attention["out"](y.transpose(1, 2).flatten(2))[:, -1])
        return out

    def entropy(self) -> float:
        """Normalised, of all queries that see two keys or more."""
        mask = self.mask(len(self.logits))
        p = self.logits.masked_fill(~mask, -math.inf).softmax(-1)
        seen = mask.sum(-1).expand(p.shape[:-1]).float()
        each = torch.where(seen > 1, torch.special.entr(p).sum(-1) / seen.log(), 0.0)
        return float((each.sum(-1) / (seen > 1).sum(-1)).mean())


def watched(model: nn.Module, steps: int = 3, **attached: Any) -> Run:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    criterion = nn.CrossEntropyLoss()
    with fitdoctor.attach(model, optimizer, criterion, record_every=1, **attached) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            criterion(model(torch.randn(INPUTS, 8)), torch.randint(0, 3, (INPUTS,))).backward()
            optimizer.step()
    return monitor.run


def values(run: Run, quantity: Quantity = ATTENTION_ENTROPY, layer: str = "attention") -> Any:
    series = run.get(quantity, layer=layer)
    assert series is not None
    return series.values


@pytest.mark.parametrize("causal", [False, True], ids=["all keys", "causal"])
@pytest.mark.parametrize("drop", [0.0, 0.2], ids=["", "dropout"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "written out"])
def test_the_entropy_is_that_of_the_formula(fused: bool, drop: float, causal: bool) -> None:
    assert LENGTH <= QUERIES
    model = Attending(fused=fused, drop=drop, causal=causal)
    run = watched(model)
    assert len(values(run)) == 3
    assert values(run)[-1] == pytest.approx(model.entropy(), abs=1e-5)
    if fused and not drop:
        seen = model.logits.masked_fill(~model.mask(INPUTS), 0.0).abs().amax()
        assert values(run, ATTENTION_LOGIT_ABSMAX)[-1] == pytest.approx(float(seen), rel=1e-5)


@pytest.mark.parametrize("drop", [0.0, 0.2], ids=["", "dropout"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "written out"])
def test_padding_is_no_key(fused: bool, drop: float) -> None:
    model = Attending(fused=fused, drop=drop)
    model.pad = torch.arange(LENGTH) < torch.tensor([[7], [5], [3], [2]])
    assert values(watched(model))[-1] == pytest.approx(model.entropy(), abs=1e-5)


@pytest.mark.parametrize("drop", [0.0, 0.2], ids=["", "dropout"])
def test_a_sharp_attention_is_sharp(drop: float) -> None:
    run = watched(Attending(gain=3000.0, drop=drop))
    assert values(run)[0] < 0.1
    assert values(run, ATTENTION_SHARP_FRACTION)[0] > 0.7
    even = watched(Attending(drop=drop))
    assert values(even, ATTENTION_SHARP_FRACTION)[0] == 0.0


def test_shares_that_underflow_are_no_mask() -> None:
    model = Attending(fused=False)

    class Sharpening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = model(x)
            model.gain = 1e6  # from the second step on all but one share are exactly 0
            return out

    found = values(watched(Sharpening()), layer="inner.attention")
    assert found[0] > 0.5
    assert found[-1] < 0.01


@pytest.mark.parametrize("weights", [False, True], ids=["fused", "with weights"])
def test_torch_s_own_module(weights: bool) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mha = nn.Linear(1, 16), nn.MultiheadAttention(16, 4, batch_first=True)
            self.head = nn.Linear(16, 3)
            self.shares = torch.zeros(0)

        def forward(self, x: Tensor) -> Tensor:
            h = self.embed(x.unsqueeze(-1))
            y = self.mha(h, h, h, need_weights=weights, average_attn_weights=False)
            self.shares = y[1].detach() if weights else self.shares
            out: Tensor = self.head(y[0].mean(1))
            return out

    model = Own()
    run = watched(model)
    found = values(run, layer="mha")
    assert len(found) == 3
    if weights:
        exact = torch.special.entr(model.shares).sum(-1).mean() / math.log(8)
        assert found[-1] == pytest.approx(float(exact), abs=1e-5)


def test_grouped_queries() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.kv, self.attn = nn.Linear(1, 16), nn.Linear(1, 16), nn.ModuleDict({"out": nn.Linear(16, 3)})
            self.shares = torch.zeros(0)

        def forward(self, x: Tensor) -> Tensor:
            q = self.q(x.unsqueeze(-1)).view(-1, 8, 4, 4).transpose(1, 2)
            k, v = self.kv(x.unsqueeze(-1)).view(-1, 8, 4, 4).transpose(1, 2).chunk(2, 1)
            self.shares = (q @ k.repeat_interleave(2, 1).transpose(-1, -2) / 2).softmax(-1).detach()
            y = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            out: Tensor = self.attn["out"](y.transpose(1, 2).flatten(2)).mean(1)
            return out

    model = Grouped()
    exact = values(watched(model), layer="attn")[-1]
    assert exact == pytest.approx(float(torch.special.entr(model.shares).sum(-1).mean() / math.log(8)), abs=1e-5)


def test_what_a_checkpoint_holds_is_not_read() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Attending()
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            out: Tensor = checkpoint(self.inner, x, use_reentrant=False)
            return out

    run = watched(Checkpointed())
    assert not run.layers(ATTENTION_ENTROPY)


def test_inside_compile_it_is_not_measured_and_nothing_breaks() -> None:
    model = Attending()
    run = watched(torch.compile(model, backend="eager"))
    assert not run.layers(ATTENTION_ENTROPY)
    assert len(run.series) > 5


def test_a_model_without_attention_has_none() -> None:
    class Gate(nn.Module):
        """A softmax that is no attention: shares of experts."""

        def __init__(self) -> None:
            super().__init__()
            self.gate, self.experts, self.head = nn.Linear(8, 4), nn.Linear(8, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.experts(x) * self.gate(x).softmax(-1).repeat(1, 4))
            return out

    for model in (nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), Gate()):
        assert not watched(model).layers(ATTENTION_ENTROPY)
    assert not watched(Attending(), tier="light").layers(ATTENTION_ENTROPY)


def test_values_that_are_not_finite_are_no_sharpness() -> None:
    run = watched(Attending(gain=math.nan), steps=1)
    assert not run.layers(ATTENTION_ENTROPY)
