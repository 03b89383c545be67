"""Which problem is learned by which network and optimizer, and which of these thresholds may be calibrated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.accuracy.ward.recipe import Recipe

Kind = Literal["classes", "yes-no", "numbers", "tokens", "picture"]


@dataclass(frozen=True)
class Family:
    """One problem with one kind of network.

    Attributes:
        name: task and architecture.
        unseen: nobody looked at its runs while rules were written; results are reported on these.
        kind: of targets.
        base: the recipe that a practitioner would begin with; its rate is the middle of the grid.
        traits: "plain" (a stack without norm or skip), "relu", "sigmoidal" (tanh or sigmoid), "batchnorm", "recurrent",
            "attention".
    """

    name: str
    unseen: bool
    kind: Kind
    base: Recipe
    traits: frozenset[str]

    def grid(self) -> tuple[float, ...]:
        """Nine learning rates, from a three-hundredth of the base rate to three hundred times it."""
        return tuple(self.base.lr * f for f in (1 / 300, 1 / 100, 1 / 30, 1 / 10, 1 / 3, 1, 3, 10, 30, 100, 300)[1:-1])


def _family(kind: Kind, base: Recipe, traits: str, *, unseen: bool = True) -> Family:
    return Family(f"{base.task}-{base.arch}-{base.opt}", unseen, kind, base, frozenset(traits.split()))


FAMILIES: tuple[Family, ...] = (
    _family("classes", Recipe("digits", "mlp3", "adam", 1e-3, "constant", 25), "plain relu", unseen=False),
    _family("classes", Recipe("digits", "cnn-bn", "momentum", 2e-2, "cosine", 20), "batchnorm relu", unseen=False),
    _family("classes", Recipe("blobs", "mlp5", "sgd", 0.1, "constant", 40), "plain relu", unseen=False),
    _family("numbers", Recipe("friedman", "mlp3-tanh", "adam", 3e-3, "step", 40), "plain sigmoidal", unseen=False),
    _family("tokens", Recipe("text", "gru", "adamw", 5e-3, "linear", 8), "recurrent", unseen=False),
    _family("classes", Recipe("spirals", "mlp4", "adamw", 3e-3, "cosine", 40), "plain relu", unseen=False),
    _family("classes", Recipe("textures", "cnn", "momentum", 1e-2, "constant", 25), "plain relu", unseen=False),
    _family("yes-no", Recipe("cancer", "mlp3", "sgd", 0.1, "constant", 40, batch=16), "plain relu", unseen=False),
    _family("tokens", Recipe("tally", "rnn", "adam", 5e-3, "constant", 20), "recurrent", unseen=False),
    _family("tokens", Recipe("pairs", "former2", "adam", 5e-3, "linear", 18, warmup=0.1), "attention", unseen=False),
    _family("classes", Recipe("shapes", "cnn", "rmsprop", 1e-3, "constant", 22), "plain relu"),
    _family("classes", Recipe("waves", "conv1d-bn", "momentum", 2e-2, "cosine", 22), "batchnorm relu"),
    _family("classes", Recipe("clusters", "res6-gelu", "adamw", 1e-3, "cosine", 18, warmup=0.05), "skips"),
    _family("yes-no", Recipe("checkerboard", "mlp4-tanh", "nesterov", 0.1, "constant", 60), "plain sigmoidal"),
    _family("numbers", Recipe("arm", "mlp4", "rmsprop", 1e-3, "exponential", 40), "plain relu"),
    _family("picture", Recipe("pictures", "auto", "adam", 2e-3, "constant", 40), "plain relu"),
    _family("tokens", Recipe("recall", "lstm", "adam", 1e-2, "constant", 20), "recurrent"),
    _family("tokens", Recipe("sorting", "former2", "adamw", 2e-3, "cosine", 14, warmup=0.1), "attention"),
)
