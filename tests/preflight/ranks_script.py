"""One of two processes of a training: finds the learning rate, checks the program, and prints what it was told."""

from __future__ import annotations

import json
import sys

import torch
import torch.distributed as dist
from fitdoctor import CannotJudge, find_lr, preflight
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torch.utils.data.distributed import DistributedSampler

PROBES = ("program-fails", "parameters-not-trained", "defective-data", "learning-rate-out-of-range")
FAST = {"learning-rate-out-of-range": {"steps": 60, "seeds": 1}}


class Broken(Dataset[tuple[Tensor, Tensor]]):
    """Raises in the middle of an epoch."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if i > 40:
            raise OSError("one process cannot read its file")
        return torch.randn(10), torch.tensor(i % 3)


def main() -> None:
    rank, store = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    x = torch.randn(400, 10)
    y = (x @ torch.randn(10, 3)).argmax(1)
    net = DistributedDataParallel(nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3)))
    before = [p.detach().clone() for p in net.parameters()]
    data = TensorDataset(x, y)
    loader = DataLoader(data, 16, sampler=DistributedSampler(data, 2, rank))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    loss = nn.CrossEntropyLoss()
    found = find_lr(net, loss, optimizer, loader, steps=120, seeds=1, trials=30)
    own, own_y = x[rank::4].clone(), y[rank::4]
    if rank == 1:
        own[7, 3] = float("nan")
    part = DataLoader(TensorDataset(own, own_y), 10, shuffle=True)
    report = preflight(net, loss, optimizer, part, select=PROBES, options=FAST, budget=500)
    failure = ""
    try:
        broken = DataLoader(Broken(), 8) if rank else loader
        find_lr(net, loss, optimizer, broken, steps=60, seeds=1, trials=0)
    except (CannotJudge, OSError) as error:
        failure = str(error)
    told = [None, None]
    dist.all_gather_object(told, failure)
    same = all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    print(  # noqa: T201
        json.dumps(
            {
                "suggestion": found.suggestion,
                "unchanged": same,
                "outcomes": {o.rule: [o.status, next((f.message for f in o.findings), "")] for o in report.outcomes},
                "failure": " / ".join(map(str, told)),
            }
        )
    )
    dist.barrier()  # a process that leaves while the other still listens aborts it
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
