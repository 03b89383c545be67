"""Advice on initialisation, activations and the scale of outputs."""

from __future__ import annotations

from fitdoctor.finding import Change, Remedy


def rescale_initialisation(factor: float | None = None) -> Remedy:
    """Initialise so that every layer keeps the scale of its input.

    Args:
        factor: what the weights of each layer would have to be multiplied with, where it was measured.
    """
    measured = f" (here each layer's weights are off by a factor of about {1 / factor:.2g})" if factor else ""
    return Remedy(
        title="initialise so that each layer keeps the scale of its input: He for ReLU, Xavier for tanh",
        why=f"a constant factor per layer is raised to the power of the depth{measured}; one is the only safe factor",
        change=Change("initialisation", "set", "kaiming"),
        code={
            "pytorch": (
                "for m in model.modules():\n"
                "    if isinstance(m, (nn.Linear, nn.Conv2d)):\n"
                "        nn.init.kaiming_normal_(m.weight, nonlinearity='relu')   # xavier_normal_ for tanh\n"
                "        if m.bias is not None:\n"
                "            nn.init.zeros_(m.bias)"
            ),
        },
        unless="the weights are pretrained: then look for what rescales them, such as a cast or a wrong checkpoint",
        confirm="activation_rms and activation_grad_rms of the first record lie within one decade over all layers",
        kind="initialisation",
    )


def normalise_layers() -> Remedy:
    """Put a normalisation between the layers."""
    return Remedy(
        title="put a normalisation between the layers, and a skip connection around each block",
        why="each layer then starts from unit scale, whatever the weights before it do",
        change=Change("normalisation", "set", "layer"),
        code={
            "pytorch": (
                "class Block(nn.Module):\n"
                "    def __init__(self, width):\n"
                "        super().__init__()\n"
                "        self.norm, self.inner = nn.LayerNorm(width), nn.Linear(width, width)\n"
                "    def forward(self, x):\n"
                "        return x + self.inner(torch.relu(self.norm(x)))"
            ),
        },
        unless="batches hold fewer than about 8 samples: then layer or group norm, not batch norm",
        confirm="activation_rms of the first record lies within one decade over all layers",
        kind="initialisation",
    )


def normalise_inputs(scale: float | None = None) -> Remedy:
    """Give the first layer inputs of zero mean and unit variance.

    Args:
        scale: their root mean square, where it was measured.
    """
    measured = f" (their root mean square is {scale:.2g})" if scale else ""
    return Remedy(
        title=f"standardise the inputs with mean and standard deviation of the training set{measured}",
        why="outputs, gradients and the curvature of the first layer all grow with the scale of the inputs",
        change=Change("input_normalisation", "enable"),
        code={
            "pytorch": (
                "mean, std = x_train.mean(0), x_train.std(0)\n"
                "x_train = (x_train - mean) / (std + 1e-6)     # and the same numbers for validation and test"
            ),
        },
        confirm="activation_saturated_fraction of the first layer falls below a quarter in the first record",
        kind="data",
    )


def keep_units_alive(*, late: bool = False) -> Remedy:
    """An activation whose slope is never zero.

    Args:
        late: the units died while training: they do not come back by themselves.
    """
    return Remedy(
        title="use an activation that is never flat: LeakyReLU, GELU or SiLU",
        why="a unit that is zero on every input has no gradient"
        + ("; it stays dead, so train from a checkpoint before" if late else "; nothing that follows can wake it"),
        change=Change("activation", "set", "leaky_relu"),
        code={"pytorch": "nn.LeakyReLU(0.01)      # or nn.GELU(), nn.SiLU(), in place of nn.ReLU()"},
        unless="the net is sparse on purpose and learns well",
        confirm="activation_dead_fraction stays below a quarter in every layer",
        kind="initialisation",
    )


def avoid_saturation() -> Remedy:
    """A hidden activation without flat ends."""
    return Remedy(
        title="use ReLU or GELU in hidden layers, keep sigmoid and tanh for gates and outputs",
        why="in their flat parts sigmoid and tanh pass on less than 5 % of the gradient",
        change=Change("activation", "set", "gelu"),
        code={"pytorch": "nn.GELU()               # in place of nn.Sigmoid() or nn.Tanh() between layers"},
        unless="the bounds are wanted: then normalise before the activation, or initialise with a smaller gain",
        confirm="activation_saturated_fraction stays below a quarter",
        kind="initialisation",
    )


def break_symmetry() -> Remedy:
    """Random initial weights."""
    return Remedy(
        title="draw the initial weights at random; zeros only for biases, and for the last layer of a branch",
        why="units that start equal get equal gradients and stay equal: the layer works as if it had one unit",
        change=Change("initialisation", "set", "default"),
        code={
            "pytorch": (
                "for m in model.modules():\n"
                "    if hasattr(m, 'reset_parameters'):\n"
                "        m.reset_parameters()      # as torch draws them; leave out what sets them to a constant"
            ),
        },
        confirm="weight_rows_alike of that parameter is 0 in the first record",
        kind="bug",
    )


def add_nonlinearity() -> Remedy:
    """An activation between two linear maps."""
    return Remedy(
        title="put an activation between the two layers, or make them one",
        why="two linear maps in a row are one linear map: more parameters, but not one more function",
        change=Change("activation", "set", "relu"),
        code={"pytorch": "x = self.second(torch.relu(self.first(x)))"},
        unless="it is meant: a low-rank factor, a separable convolution, a linear model",
        confirm="the training loss falls below that of the best linear model",
        kind="bug",
    )


def shrink_last_layer(factor: float | None = None) -> Remedy:
    """Begin with small outputs.

    Args:
        factor: what the last layer's weights would have to be multiplied with.
    """
    by = f"{factor:.2g}" if factor else "0.1"
    return Remedy(
        title=f"begin with small outputs: multiply the last layer's initial weights by {by}",
        why="an untrained model should be unsure; large outputs are surely wrong, and unlearning them comes first",
        change=Change("output_gain", "multiply", float(by)),
        code={
            "pytorch": (
                "with torch.no_grad():\n"
                f"    model.head.weight.mul_({by})               # your last layer\n"
                "    model.head.bias.zero_()                   # or the log of each class's share"
            ),
        },
        unless="the weights are pretrained",
        confirm="the first loss is ln(number of classes)",
        kind="initialisation",
    )


def average_the_loss() -> Remedy:
    """The mean over the batch, not the sum."""
    return Remedy(
        title="average the loss over the batch (reduction='mean')",
        why="a sum grows with the batch, and the learning rate in effect with it",
        change=Change("loss_reduction", "set", "mean"),
        code={"pytorch": "criterion = nn.CrossEntropyLoss(reduction='mean')   # and retune the learning rate"},
        unless="the learning rate was chosen for the sum",
        confirm="the first loss is ln(number of classes), whatever the batch size",
        kind="bug",
    )


def check_inputs_reach_the_output() -> Remedy:
    """See whether another input gives another output."""
    return Remedy(
        title="check that the inputs differ and reach the last layer",
        why="a model whose layers give the same output for every input can only learn the average answer",
        code={
            "pytorch": (
                "x, y = next(iter(loader))\n"
                "print(x.std(0).mean())                       # 0: every input is the same\n"
                "print(model(x).std(0) / model(x).abs().mean())"
            ),
        },
        confirm="activation_input_spread of the last hidden layer lies above 0.1",
        kind="bug",
    )


def hold_logits() -> Remedy:
    """Penalise the normaliser of the softmax."""
    return Remedy(
        title="hold the logits: a z-loss of 1e-4, or weight decay on the last layer",
        why="cross-entropy leaves the scale of its logits free; rounding errors and step sizes grow with it",
        change=Change("z_loss", "set", 1e-4),
        code={
            "pytorch": (
                "logits = model(x)\n"
                "loss = criterion(logits, y) + 1e-4 * torch.logsumexp(logits, dim=-1).square().mean()"
            )
        },
        unless="the training accuracy is 1: then growing logits are what separable data gives",
        confirm="logit_absmax levels off within a quarter of the run",
        kind="regularisation",
    )


def normalise_queries() -> Remedy:
    """Normalise queries and keys."""
    return Remedy(
        title="normalise the queries and keys of each head (QK-norm)",
        why="their products are then bounded: no growth of the weights can turn the softmax into a choice of one",
        change=Change("qk_norm", "enable"),
        code={
            "pytorch": (
                "norm_q, norm_k = nn.RMSNorm(64), nn.RMSNorm(64)      # in __init__, of the size of a head\n"
                "q, k, v = torch.randn(3, 2, 4, 16, 64).unbind()      # yours: [batch, heads, tokens, 64]\n"
                "y = F.scaled_dot_product_attention(norm_q(q), norm_k(k), v)"
            ),
        },
        unless="the weights are pretrained without it",
        confirm="attention_entropy stays above 0.1, and the loss falls further",
        kind="initialisation",
    )


def rescale_queries() -> Remedy:
    """Begin with even attention."""
    return Remedy(
        title="begin with even attention: smaller initial weights of queries and keys, and products over sqrt(size)",
        why="products of unit size leave the softmax a slope; those of size 10 have chosen before anything was learned",
        change=Change("initialisation", "set", "xavier"),
        code={
            "pytorch": (
                "for name, p in model.named_parameters():\n"
                "    if p.ndim == 2 and any(part in name for part in ('q_proj', 'k_proj', 'in_proj', 'qkv')):\n"
                "        nn.init.xavier_uniform_(p)"
            ),
        },
        unless="the weights are pretrained",
        confirm="attention_entropy of the first record lies above 0.5, attention_logit_absmax below 10",
        kind="initialisation",
    )


def bound_attention_weights() -> Remedy:
    """Reparametrise the weights of queries and keys by their spectral norm."""
    return Remedy(
        title="divide the weights of queries and keys by their spectral norm, times one learned number",
        why="the largest product of a query with a key grows with these norms (Zhai et al. 2023, sigmaReparam)",
        change=Change("sigma_reparametrisation", "enable"),
        code={
            "pytorch": (
                "from torch.nn.utils.parametrizations import spectral_norm\n"
                "q_proj = spectral_norm(nn.Linear(64, 64))     # its output times nn.Parameter(torch.ones(()))"
            ),
        },
        unless="queries and keys are normalised already",
        confirm="attention_logit_absmax levels off",
        kind="initialisation",
    )
