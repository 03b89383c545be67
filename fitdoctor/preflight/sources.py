"""Where batches come from: the user's loader, read through iterators of our own and left as it was.

A loader that starts anew at every ``iter()`` is simply read; its samplers, generators and datasets are put back by
the `State`. A dataset that draws from a one-shot iterator (a stream, a generator) is lent a `_Lent` in its place, which
keeps what was read; afterwards the stream begins with those items again. A loader that is itself an iterator is copied
where Python can copy it, and otherwise not touched at all.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from fitdoctor.preflight.batches import Batch, joined, tensors
from fitdoctor.rule import CannotJudge


class _Lent:
    """Stands for an iterator while probes read: what is taken from it is kept, to be given back."""

    def __init__(self, stream: Iterator[Any]) -> None:
        self._stream = stream
        self._taken: list[Any] = []
        self._at = 0

    def __iter__(self) -> _Lent:
        self._at = 0  # whoever asks for an iterator again reads from the beginning
        return self

    def __next__(self) -> Any:
        if self._at == len(self._taken):
            self._taken.append(next(self._stream))
        self._at += 1
        return self._taken[self._at - 1]

    def returned(self) -> Iterator[Any]:
        """The stream as it was: first what had been read, then the rest."""
        return chain(self._taken, self._stream) if self._taken else self._stream


class Source:
    """The examples of one split.

    Args:
        loader: what the training loop iterates over.
        split: "train", "val" or "test".
        with_criterion: whether a criterion compares output and target.
        takes: how many positional arguments a model takes that returns its loss.

    Attributes:
        why_unreadable: why nothing can be read from it, "" where it can.
    """

    def __init__(self, loader: Any, split: str, *, with_criterion: bool, takes: float = 1) -> None:
        self.loader = loader
        self.split = split
        self.why_unreadable = ""
        self.parted = partial(Batch.of, with_criterion=with_criterion, takes=takes)
        self._batches: list[Batch] = []
        self._sample: Batch | None = None
        self._lent: list[tuple[dict[str, Any], str, _Lent]] = []
        self._readable: Any = loader
        if isinstance(loader, Iterator):
            try:
                self._readable = copy.deepcopy(loader)
            except Exception:
                self.why_unreadable = (
                    f"{split}_loader is an iterator that can be read only once and not be copied; pass the loader "
                    "that makes it"
                )
        self.dataset: Any = getattr(loader, "dataset", None)
        if isinstance(self.dataset, IterableDataset):
            self._lend(self.dataset)

    # --- one-shot streams -----------------------------------------------------------------------------

    def _lend(self, dataset: Any) -> None:
        """Put a `_Lent` in place of every iterator that the dataset holds."""
        if isinstance(dataset, Iterator):  # its position is its own state; a copy is read instead
            try:
                twin = copy.deepcopy(dataset)
            except Exception:
                self.why_unreadable = (
                    f"the dataset of {self.split}_loader is an iterator that can be read only once and not be copied; "
                    "give it an __iter__ that starts anew"
                )
            else:
                self._readable = self._twin(twin)
            return
        held: dict[str, Any] = getattr(dataset, "__dict__", {})
        for name, value in list(held.items()):
            if isinstance(value, Iterator) and not hasattr(value, "seek"):
                lent = _Lent(value)
                held[name] = lent
                self._lent.append((held, name, lent))

    def give_back(self) -> None:
        """Put the streams back, with what was read of them at their beginning."""
        for held, name, lent in self._lent:
            held[name] = lent.returned()
        self._lent.clear()

    # --- reading --------------------------------------------------------------------------------------

    @property
    def indexed(self) -> bool:
        """Whether examples can be read by their index."""
        return isinstance(self.loader, DataLoader) and hasattr(self.dataset, "__getitem__") and self.size is not None

    @property
    def size(self) -> int | None:
        """How many examples there are; None when nobody knows."""
        if self.dataset is not None and not isinstance(self.dataset, IterableDataset):
            try:
                return len(self.dataset)
            except TypeError:
                return None
        if isinstance(self.loader, list | tuple):
            return sum(len(self.parted(raw)) for raw in self.loader)
        return None

    @property
    def batch_size(self) -> int | None:
        """Examples per batch as the loader says, or as its first batch shows."""
        size = getattr(self.loader, "batch_size", None)
        return size if isinstance(size, int) else (len(self._batches[0]) if self._batches else None)

    @property
    def shuffles(self) -> bool | None:
        """Whether the loader draws a new order in every epoch; None when it does not say."""
        sampler = getattr(self.loader, "sampler", None)
        return isinstance(sampler, RandomSampler) if isinstance(sampler, RandomSampler | SequentialSampler) else None

    @cached_property
    def varies(self) -> bool | None:
        """Whether an example differs from reading to reading, as under augmentation; None when that cannot be seen."""
        if not self.indexed or self.why_unreadable:
            return None
        index = _spread(self.size or 0, 8)
        try:
            one, two = ([tensors(self.dataset[i]) for i in index] for _ in range(2))
        except Exception:
            return None  # what does not read is the business of others
        pairs = [(a, b) for left, right in zip(one, two, strict=True) for a, b in zip(left, right, strict=False)]
        return any(a.shape != b.shape or not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)

    def fresh(self) -> Iterator[Any]:
        """A new iterator over raw batches, in this process: the user's own iterators and workers are left alone."""
        if self.why_unreadable:
            raise CannotJudge(self.why_unreadable)
        loader = self._readable
        if type(loader) is DataLoader and loader.num_workers:
            loader = self._twin(loader.dataset)
        return iter(copy.deepcopy(loader) if isinstance(loader, Iterator) else loader)

    def _twin(self, dataset: Any) -> Any:
        """A loader like the user's, without workers."""
        loader = self.loader
        common = {"num_workers": 0, "collate_fn": loader.collate_fn, "generator": loader.generator}
        if isinstance(dataset, IterableDataset) or loader.batch_sampler is None:
            order = {} if isinstance(dataset, IterableDataset) else {"sampler": loader.sampler}
            return DataLoader(dataset, batch_size=loader.batch_size, drop_last=loader.drop_last, **order, **common)
        return DataLoader(dataset, batch_sampler=loader.batch_sampler, **common)

    def batches(self, examples: int) -> list[Batch]:
        """Whole batches from the beginning of an epoch, enough for that many examples where there are so many.

        Raises:
            CannotJudge: if the loader cannot be read without using it up, or is empty.
        """
        have = sum(len(b) for b in self._batches)
        if have < examples or not self._batches:
            found: list[Batch] = []
            count = 0
            for raw in self.fresh():
                found.append(self.parted(raw).mapped(lambda t: t.detach().clone()))
                count += max(1, len(found[-1]))
                if count >= examples:
                    break
            if not found:
                raise CannotJudge(f"{self.split}_loader yields no batch")
            self._batches = found
        kept, count = [], 0
        for batch in self._batches:
            kept.append(batch)
            count += max(1, len(batch))
            if count >= examples:
                break
        return kept

    def sample(self, examples: int) -> Batch:
        """Examples from all over the split as one batch, evenly spread over the indices where there are any.

        Raises:
            CannotJudge: if they cannot be read, or differ in shape.
        """
        if self._sample is None or len(self._sample) < min(examples, self.size or examples):
            self._sample = self._read_by_index(examples) if self.indexed else None
            self._sample = self._sample or joined(self.batches(examples))
            if self._sample is None:
                raise CannotJudge(f"the examples of {self.split}_loader differ in shape from batch to batch")
        n = len(self._sample)
        return self._sample if n <= examples else self._sample.rows(_spread(n, examples))

    def _read_by_index(self, examples: int) -> Batch | None:
        if self.why_unreadable:
            raise CannotJudge(self.why_unreadable)
        size = self.size or 0
        collate = self.loader.collate_fn
        index = _spread(size, min(examples, size))
        if self.loader.batch_sampler is None or not index:
            return None
        try:
            raw = collate([self.dataset[i] for i in index])
        except (RuntimeError, ValueError, TypeError, KeyError):
            return None  # lengths differ, or the dataset is asked for batches of indices
        batch = self.parted(raw).mapped(lambda t: t.detach().clone())
        return batch if len(batch) == len(index) else None

    def epoch_order(self, most: int) -> list[int] | None:
        """The indices of a fresh epoch's first examples, in order; None where the sampler does not tell them."""
        if not isinstance(self.loader, DataLoader) or isinstance(self.dataset, IterableDataset):
            return None
        sampler: Any = self.loader.batch_sampler if self.loader.batch_sampler is not None else self.loader.sampler
        order: list[int] = []
        for item in islice(iter(sampler), most):
            order.extend(item) if isinstance(item, list | tuple) else order.append(item)
            if len(order) >= most:
                break
        return order[:most] if all(isinstance(i, int) for i in order) else None


def _spread(size: int, count: int) -> list[int]:
    """`count` indices below `size`, evenly spread but not in step with any period of the data."""
    if count >= size:
        return list(range(size))
    draw = torch.Generator().manual_seed(0)
    return sorted(torch.randperm(size, generator=draw)[:count].tolist())


def size_of(dataset: Dataset[Any] | None) -> int | None:
    """Length of a dataset that has one."""
    try:
        return len(dataset)  # type: ignore[arg-type]
    except TypeError:
        return None
