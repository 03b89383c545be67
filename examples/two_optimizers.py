"""A generator and a critic with an optimizer each; the first optimizer is the clock.

python examples/two_optimizers.py
"""

import fitdoctor
import torch
from torch import nn

torch.manual_seed(0)
nets = {
    "generator": nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2)),
    "critic": nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)),
}
generator_step = torch.optim.Adam(nets["generator"].parameters(), 1e-3, betas=(0.5, 0.9))
critic_step = torch.optim.Adam(nets["critic"].parameters(), 1e-3, betas=(0.5, 0.9))

with fitdoctor.attach(
    nets, {"generator": generator_step, "critic": critic_step}, logdir="runs/two_optimizers", record_every=10
) as monitor:
    for _ in range(200):
        real, fake = torch.randn(64, 2) + 2, nets["generator"](torch.randn(64, 4))
        critic_step.zero_grad()
        loss = (
            nn.functional.softplus(-nets["critic"](real)).mean()
            + nn.functional.softplus(nets["critic"](fake.detach())).mean()
        )
        loss.backward()
        critic_step.step()
        generator_step.zero_grad()
        loss = nn.functional.softplus(-nets["critic"](fake)).mean()
        loss.backward()
        generator_step.step()
        monitor.log(loss=loss.detach())

for quantity in ("grad_norm", "update_ratio", "lr"):
    for net in ("generator", "critic"):
        series = monitor.run.get(fitdoctor.Quantity(quantity, "", ""), layer=net)
        print(f"{quantity:13} {net:10}", "-" if series is None else f"{series.values[-1]:.4g}")
