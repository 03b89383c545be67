"""Two processes with DDP or FSDP2: attach on all of them, rank 0 writes, and norms are of the whole model.

python examples/distributed.py [ddp | fsdp2]
"""

import sys
import tempfile

import fitdoctor
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def train(rank: int, kind: str, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))
    if kind == "ddp":
        model = nn.parallel.DistributedDataParallel(model)
    else:
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    criterion = nn.CrossEntropyLoss()
    random = torch.Generator().manual_seed(rank)  # each rank has data of its own
    monitor = fitdoctor.attach(model, optimizer, criterion, logdir=f"runs/{kind}", record_every=10)
    for _ in range(250):
        x = torch.randn(32, 20, generator=random)
        optimizer.zero_grad()
        criterion(model(x), x[:, :5].argmax(1)).backward()
        optimizer.step()
    if rank:
        monitor.close()  # sends the rest
    dist.barrier()
    if not rank:
        monitor.close()
        norm = monitor.last("weight_norm")
        print(f"{kind}: {monitor.step} steps, loss {monitor.last('loss'):.3f}, norm of all weights {norm:.4f}")
        if kind == "ddp":
            print("the ranks' weights differ by", monitor.last("rank_disagreement"))
    dist.destroy_process_group()


if __name__ == "__main__":
    for kind in sys.argv[1:] or ["ddp", "fsdp2"]:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(train, (kind, f"{folder}/store"), nprocs=2)
