"""A tag taken apart: its words, the split and the cadence that they tell; and what a tag can mean."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fitdoctor.readers.tags import words as vocabulary
from fitdoctor.readers.tags.words import collapsed, segments_of, words_of
from fitdoctor.run import Per
from fitdoctor.signals import Quantity, Signal


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a tag means.

    Attributes:
        signal: the signal.
        per: cadence, where the name tells it.
        scale: factor from the logged to the signal's unit.
        detours: how far the name is from the plainest one; of two tags of one signal the smaller wins.
        split_named: whether the name itself names the split.
        by_user: whether the user said so; then nothing is second-guessed.
    """

    signal: Signal
    per: Per = ""
    scale: float = 1.0
    detours: int = 0
    split_named: bool = True
    by_user: bool = False


Reading = Mapped | str
"""A mapping, or the reason why there is none."""


_REPLICA = re.compile(
    r"(?:dataloader|dataloaderidx|loader|fold|rank|worker|client|gpu|cuda|device|node|seed|replica|process|proc)\d*"
)


@dataclass(frozen=True, slots=True)
class Name:
    """A tag taken apart.

    Attributes:
        tag: as logged.
        segments: parts between slashes.
        words: all words, phrases collapsed.
        split: split that the name tells, or "".
        per: cadence that the name tells, or "".
        replica: which of several like things (``fold1``, ``dataloader_1``), or "".
    """

    tag: str
    segments: tuple[str, ...]
    words: tuple[str, ...]
    split: str = ""
    per: Per = ""
    replica: str = ""
    present: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, tag: str) -> Name:
        segments = tuple(segments_of(tag))
        parts = [collapsed(words_of(s)) for s in segments]
        words, replica = _without_replica([w for part in parts for w in part])
        step = any(w in ("step", "batch", "iter", "iteration", "minibatch") for w in words)
        epoch = "epoch" in words
        per: Per = "epoch" if epoch and not step else "step" if step and not epoch else ""
        return cls(tag, segments, words, _split_of(parts), per, replica, frozenset(words))

    def has(self, *wanted: str) -> bool:
        return not self.present.isdisjoint(wanted)

    def rest(self, *groups: frozenset[str]) -> list[str]:
        """The words that are neither split, cadence or noise nor in the given groups."""
        drop = frozenset().union(*groups)
        return [w for w in self.words if w not in vocabulary.SPLIT_OF and w not in vocabulary.NOISE and w not in drop]

    def signal(self, quantity: Quantity, layer: str = "") -> Signal:
        joined = "/".join(x for x in (self.replica, layer) if x)
        return Signal(quantity, self.split or "train", joined)


def _split_of(parts: list[tuple[str, ...]]) -> str:
    """The split: of the last part that names one, the last strong word, else a weak one (``eval``)."""
    weak = ""
    for part in reversed(parts):
        for word in reversed(part):
            if word in vocabulary.SPLIT_OF:
                if word not in vocabulary.WEAK_SPLITS:
                    return vocabulary.SPLIT_OF[word]
                weak = weak or vocabulary.SPLIT_OF[word]
    return weak


def _without_replica(words: list[str]) -> tuple[tuple[str, ...], str]:
    """``dataloader_idx_1`` out of the words; the first data loader is the run's own."""
    for i, word in enumerate(words):
        if not _REPLICA.fullmatch(word):
            continue
        end = i + 1
        number = re.sub(r"\D", "", word)
        stem = re.sub(r"\d", "", word)
        if not number and end < len(words) and words[end] in ("idx", "index", "id"):
            end += 1
        if not number and end < len(words) and words[end].isdigit():
            number, end = words[end], end + 1
        if number:
            own = stem.startswith(("dataloader", "loader")) and int(number) == 0
            return tuple(words[:i] + words[end:]), "" if own else f"{stem}{number}"
    return tuple(words), ""
