"""One of two processes of a training: finds the learning rate, prints it and whether the weights are as before."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from fitdoctor import find_lr
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


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
    found = find_lr(net, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), 0.1), loader, seeds=1)
    same = all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    print(repr(found.suggestion), same)  # noqa: T201
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
