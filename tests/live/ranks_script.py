"""Two processes train with DDP or FSDP2; run by test_ranks.py as ``python ranks_script.py KIND RANK STORE LOGDIR``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fitdoctor
import torch
import torch.distributed as dist
from fitdoctor.signals import ACTIVATION_MEAN, GRAD_NORM, LOSS, RANK_DISAGREEMENT, UPDATE_RATIO, WEIGHT_NORM
from torch import nn


def main(kind: str, rank: int, store: str, logdir: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    names = [n for n, _ in model.named_parameters()]
    if kind.startswith("fsdp"):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        fully_shard(model[0], mesh=mesh)  # type: ignore[index]
        fully_shard(model, mesh=mesh)
    else:
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()
    alone = kind == "ddp on rank 0 only"
    monitor = None if alone and rank else fitdoctor.attach(model, optimizer, criterion, logdir=logdir, record_every=2)
    random = torch.Generator().manual_seed(rank)
    norms, weights = [], []
    for step in range(8):
        x = torch.randn(16, 8, generator=random)
        optimizer.zero_grad()
        criterion(model(x), x[:, :4].argmax(1)).backward()
        weights.append(_norm([p.detach() for p in model.parameters()]))
        if "clip" in kind:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        norms.append(_norm([p.grad for p in model.parameters() if p.grad is not None]))
        optimizer.step()
        if "disagree" in kind and step == 3 and rank == 1:
            with torch.no_grad():
                next(iter(model.parameters())).mul_(1.5)
        dist.barrier()
    if rank == 1 and monitor is not None:
        monitor.close()
    dist.barrier()  # what rank 1 sent is there when rank 0 closes
    if monitor is not None:
        monitor.close()
    if rank == 0:
        assert monitor is not None
        run = monitor.run

        def values(quantity: fitdoctor.Quantity) -> dict[int, float]:
            series = run.get(quantity)
            return {} if series is None else dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))

        print(  # noqa: T201 - the test reads it
            json.dumps(
                {
                    "norms": norms, "weights": weights, "grad_norm": values(GRAD_NORM), "loss": values(LOSS),
                    "weight_norm": values(WEIGHT_NORM), "disagreement": values(RANK_DISAGREEMENT),
                    "update_ratio": values(UPDATE_RATIO), "layers": list(run.layers(GRAD_NORM)), "names": names,
                    "activations": list(run.layers(ACTIVATION_MEAN)),
                    "files": len(list(Path(logdir).rglob("events.*"))),
                }
            )
        )  # fmt: skip
    dist.barrier()
    dist.destroy_process_group()


def _norm(tensors: list[torch.Tensor]) -> float:
    whole = [t.full_tensor() if hasattr(t, "full_tensor") else t for t in tensors]
    return float(torch.sqrt(sum(t.double().square().sum() for t in whole)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
