"""A sparse embedding has an optimizer of its own beside the dense one's; both work on one loss.

python examples/sparse_embedding.py
"""

import fitdoctor
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Embedding(1000, 16, sparse=True), nn.Flatten(), nn.Linear(64, 5))
dense = torch.optim.AdamW(model[2].parameters(), lr=1e-2)
sparse = torch.optim.SparseAdam(list(model[0].parameters()), lr=1e-2)
criterion = nn.CrossEntropyLoss()
classes = torch.randint(0, 5, (1000,))

with fitdoctor.attach(
    model, {"": dense, "sparse": sparse}, criterion, logdir="runs/sparse_embedding", record_every=10
) as monitor:
    for _ in range(400):
        tokens = torch.randint(0, 1000, (128, 4))
        dense.zero_grad()
        sparse.zero_grad()
        criterion(model(tokens), classes[tokens[:, 0]]).backward()
        dense.step()
        sparse.step()

print("gradient norm of the embedding:", monitor.last("grad_norm", "sparse.0.weight"))
print(
    "update to weight ratio:", monitor.last("update_ratio", "sparse.0.weight"), "of", model[0].weight.numel(), "entries"
)
