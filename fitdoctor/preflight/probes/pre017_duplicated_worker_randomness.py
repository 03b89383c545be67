"""PRE017 duplicated-worker-randomness."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import seed_workers
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench


@probe("PRE017", "duplicated-worker-randomness", cost=Cost(passes=2, examples=32), since="0.1.0")
def duplicated_worker_randomness(bench: Bench) -> Iterator[Finding]:
    """The workers of the training loader draw the same random numbers.

    Why it matters:
        Workers are copies of the dataset. A generator that the dataset holds, or a fixed seed in worker_init_fn, makes
        all of them augment alike, and again in every epoch: less variety than the code promises.

    How it is measured:
        Two real workers read one example several times, with the loader's own worker_init_fn. An example that varies
        within a worker but agrees between the workers, draw by draw, is duplicated. Up to four examples are tried.

    Options:
        None.

    When it is wrong:
        Randomness that only some examples have may not show. Loaders without workers are not affected.

    What to do:
        Draw from torch's global generator, which is seeded per worker, or seed in worker_init_fn.

    References:
        PyTorch documentation, "Randomness in multi-process data loading".
    """
    loader: Any = bench.train.loader
    if not getattr(loader, "num_workers", 0):
        raise CannotJudge("train_loader has no workers")
    if not bench.train.indexed:
        raise CannotJudge("the examples of train_loader cannot be read by index")
    for index in range(min(4, bench.train.size or 0)):
        one, two = _draws(loader, index)
        if one[0] != one[1] or two[0] != two[1]:  # the example is random
            if one == two:
                yield finding(
                    "two workers draw the same random numbers: the same augmentation of the same example",
                    ERROR,
                    HIGH,
                    seen(
                        "data_time",
                        f"example {index}, read {len(one)} times by each of two workers: equal draw by draw",
                        "different draws",
                    ),
                    remedies=[seed_workers()],
                )
            return


def _draws(loader: Any, index: int) -> tuple[list[bytes], list[bytes]]:
    """What two workers get for one example, three times each."""
    import torch
    from torch.utils.data import DataLoader

    from fitdoctor.preflight.batches import tensors
    from fitdoctor.preflight.guard import checksum

    reading = DataLoader(
        loader.dataset,
        batch_size=1,
        sampler=[index] * 6,
        num_workers=2,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator().manual_seed(0),
        timeout=60,
    )
    found = [b"".join(checksum(t) for t in tensors(raw)) for raw in reading]
    return found[0::2], found[1::2]
