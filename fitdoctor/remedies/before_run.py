"""Advice on faults that show before the first step: in the program, and in its data."""

from __future__ import annotations

from fitdoctor.finding import Change, Remedy


def make_it_run() -> Remedy:
    """Run one batch by hand."""
    return Remedy(
        title="run one batch by hand and read the error where it is raised",
        why="nothing else can be judged before one forward and backward pass works",
        code={
            "pytorch": (
                "x, y = next(iter(loader))\n"
                "print(x.shape, x.dtype, x.device, y.shape, y.dtype, y.min(), y.max())\n"
                "criterion(model(x), y).backward()"
            )
        },
        confirm="the pass ends with a finite loss and gradients",
    )


def match_shapes() -> Remedy:
    """Give output and target the same shape."""
    return Remedy(
        title="give the model's output the shape of the target",
        why="broadcasting compares every output with every target; the model then learns their mean",
        change=Change("loss_shapes", "set", "equal"),
        code={"pytorch": "loss = criterion(model(x).squeeze(-1), y)      # both [n]"},
        confirm="output and target have equal shapes; the loss falls below the variance of the target",
    )


def raw_scores() -> Remedy:
    """Leave out the last activation where the loss brings its own."""
    return Remedy(
        title="leave out the last activation: this loss applies its own, or takes log-probabilities",
        why="a squashed score squashed again cannot become sure, and its gradient fades",
        change=Change("loss_input", "set", "logits"),
        code={
            "pytorch": (
                "criterion = nn.CrossEntropyLoss()        # takes raw scores; nn.NLLLoss takes log_softmax\n"
                "criterion = nn.BCEWithLogitsLoss()       # takes raw scores; nn.BCELoss takes sigmoid"
            )
        },
        confirm="the loss of one batch can be driven to near zero",
    )


def fit_output_to_targets() -> Remedy:
    """Let the last layer reach the targets."""
    return Remedy(
        title="let the last layer reach every target: no activation at the end, or targets scaled into its range",
        why="targets outside the range of the last activation can never be met",
        change=Change("output_activation", "set", "none"),
        code={"pytorch": "y = (y - y_train.mean()) / y_train.std()      # and no activation after the last layer"},
        confirm="the loss of one batch can be driven to near zero",
    )


def average_loss() -> Remedy:
    """Average the loss over the batch."""
    return Remedy(
        title="average the loss over the batch: reduction='mean'",
        why="a sum makes the step grow with the batch, so that no learning rate carries over",
        change=Change("loss_reduction", "set", "mean"),
        code={"pytorch": "criterion = nn.CrossEntropyLoss(reduction='mean')"},
        unless="the learning rate was tuned for the sum, and the batch size stays",
        confirm="the initial loss of C classes is about ln C",
    )


def calm_last_layer() -> Remedy:
    """Start with small scores."""
    return Remedy(
        title="start with small outputs: shrink the last layer, and set its bias to the log of the class shares",
        why="an untrained model should be unsure; unlearning large scores wastes the first epochs (Karpathy 2019)",
        change=Change("output_gain", "multiply", 0.1),
        code={
            "pytorch": (
                "with torch.no_grad():\n"
                "    head.weight.mul_(0.1)\n"
                "    head.bias.copy_(torch.log(class_counts / class_counts.sum()))"
            )
        },
        unless="the model is pretrained or resumed",
        confirm="the initial loss is the entropy of the classes",
    )


def own_all_parameters() -> Remedy:
    """Make the optimizer after the model is complete."""
    return Remedy(
        title="make the optimizer last, over the parameters of the model that is trained",
        why="layers added, replaced or copied after the optimizer was made are not in it and stay as they are",
        change=Change("optimizer_parameters", "set", "trainable"),
        code={
            "pytorch": (
                "model = build().to(device)                 # complete, on its device, wrapped\n"
                "optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)"
            )
        },
        unless="these parts are meant to stay: then say so with requires_grad_(False)",
        confirm="one step changes every trainable tensor",
        kind="bug",
    )


def register_layers() -> Remedy:
    """Let the model know its layers."""
    return Remedy(
        title="keep layers in nn.ModuleList, nn.ModuleDict or as attributes, and make the optimizer after that",
        why="a plain list hides them: parameters(), state_dict() and to(device) pass them by, so they never train",
        change=Change("registered_layers", "enable"),
        code={"pytorch": "self.hidden = nn.ModuleList([nn.Linear(64, 64) for _ in range(3)])    # not a plain list"},
        confirm="every layer is among model.named_parameters()",
    )


def ignore_padding() -> Remedy:
    """Leave padding out of the loss."""
    return Remedy(
        title="leave padded positions out of the loss",
        why="padding is easy to predict: it lowers the loss, takes most of the gradient, and hides how the rest does",
        change=Change("ignored_padding", "enable"),
        code={"pytorch": "criterion = nn.CrossEntropyLoss(ignore_index=0)   # the id of padding"},
        unless="the end of a sequence is meant to be predicted: then keep the first of these positions",
        confirm="the loss is the mean over real positions only",
    )


def standardise_targets() -> Remedy:
    """Standardise the targets of a regression."""
    return Remedy(
        title="standardise the targets with the mean and standard deviation of the training split",
        why="outputs begin near zero with a spread near one; the way to large targets takes most of the training",
        change=Change("target_normalisation", "enable"),
        code={
            "pytorch": (
                "mean, std = y_train.mean(0), y_train.std(0)     # of the training split only\n"
                "y = (y - mean) / std                            # predictions: output * std + mean"
            )
        },
        unless="the last layer begins at the mean and scale of the targets",
        confirm="the loss before the first step is about the variance of the targets",
    )


def remove_leaking_features() -> Remedy:
    """Take the target out of the inputs."""
    return Remedy(
        title="take the features that are made of the target out of the inputs",
        why="what is not known at prediction time must not be an input: the model would learn to copy it",
        change=Change("leaking_features", "disable"),
        code={
            "pytorch": "x = x[:, [i for i in range(x.shape[1]) if i not in (12, 13)]]    # the features that were found"
        },
        unless="the feature is known before the target is, and decides it",
        confirm="no single feature tells the target exactly",
    )


def turn_class_weights() -> Remedy:
    """Let rare classes weigh more."""
    return Remedy(
        title="turn the class weights round: rare classes weigh more, in the order of the class ids",
        why="weights that grow with the counts make rare classes count even less than they do by themselves",
        change=Change("class_weights", "enable"),
        code={"pytorch": "criterion = nn.CrossEntropyLoss(weight=class_counts.sum() / class_counts)"},
        unless="frequent classes are meant to count more",
        confirm="the rarest class has the largest weight",
    )


def less_weight_decay() -> Remedy:
    """Turn weight decay down."""
    return Remedy(
        title="turn weight decay down to about 0.01",
        why="without it the same steps learn the same examples",
        change=Change("weight_decay", "set", 0.01),
        code={"pytorch": "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)"},
        confirm="one batch can be memorised with weight decay on",
        kind="bug",
    )


def use_or_freeze() -> Remedy:
    """Use the parameters in the forward pass, or drop them."""
    return Remedy(
        title="use these parameters in the forward pass, or remove or freeze them",
        why="they get no gradient: either the forward pass forgets them, or they are dead weight",
        change=Change("loss_graph", "set", "whole"),
        code={"pytorch": "print([n for n, p in model.named_parameters() if p.grad is None])    # after backward()"},
        unless="they belong to a branch that other batches take",
        confirm="every trainable tensor has a gradient after backward()",
    )


def batch_first() -> Remedy:
    """Keep examples apart."""
    return Remedy(
        title="keep the examples of a batch apart: check view, reshape, softmax and batch_first dimensions",
        why="an operation over the batch dimension lets examples see each other's inputs",
        code={
            "pytorch": (
                "x = x.flatten(1)                            # not x.view(-1)\n"
                "p = scores.softmax(dim=-1)                  # not dim=0\n"
                "rnn = torch.nn.LSTM(32, 64, batch_first=True)   # for inputs of [batch, time, features]"
            )
        },
        unless="the model compares examples on purpose",
        confirm="the output of one example does not change with its neighbours",
    )


def normalise_data() -> Remedy:
    """Standardise the inputs with statistics of the training split."""
    return Remedy(
        title="standardise the inputs with the mean and standard deviation of the training split",
        why="initialisation and learning rates are made for inputs near zero with a spread near one",
        change=Change("input_normalisation", "enable"),
        code={
            "pytorch": (
                "mean, std = x_train.mean(0), x_train.std(0).clamp_min(1e-6)    # of the training split only\n"
                "x = (x - mean) / std                        # images: x.float() / 255 first"
            )
        },
        unless="the model normalises its inputs itself",
        confirm="the first layer sees values near zero with a spread near one, and the loss falls faster",
    )


def clean_data() -> Remedy:
    """Find and remove what is not finite."""
    return Remedy(
        title="find the examples with nan or inf, and impute or remove them",
        why="one of them makes the loss, then every weight, nan",
        change=Change("nonfinite_examples", "disable"),
        code={"pytorch": "bad = [i for i, (x, y) in enumerate(dataset) if not torch.isfinite(x).all()]"},
        confirm="no example holds a nan or inf",
    )


def restore_inputs() -> Remedy:
    """See where the inputs lose their differences."""
    return Remedy(
        title="look at some inputs, from the file to the model: somewhere they lose their differences",
        why="inputs that are all alike carry nothing that could be learned",
        code={"pytorch": "x, y = next(iter(loader)); print(x.flatten(1).float().std(0).max())     # 0: all alike"},
        confirm="the inputs of a batch differ",
    )


def weigh_classes() -> Remedy:
    """Report balanced metrics, and weigh rare classes."""
    return Remedy(
        title="report recall per class or balanced accuracy, and weigh rare classes if they matter",
        why="accuracy hides rare classes: the share of the largest class is reached without learning",
        change=Change("class_weights", "enable"),
        code={"pytorch": "criterion = nn.CrossEntropyLoss(weight=class_counts.sum() / class_counts)"},
        unless="rare errors cost no more than frequent ones",
        confirm="recall of the rarest classes rises",
    )


def drop_last_batch() -> Remedy:
    """Leave out the short batch at the end of an epoch."""
    return Remedy(
        title="leave out the short last batch of the training epochs",
        why="a batch of a few examples takes a noisy step as long as the others, and batch norm cannot do with one",
        change=Change("drop_last", "enable"),
        code={"pytorch": "loader = DataLoader(dataset, batch_size=64, shuffle=True, drop_last=True)"},
        unless="it is the validation loader",
        confirm="every training batch has the same size",
    )


def seed_workers() -> Remedy:
    """Give every worker random numbers of its own."""
    return Remedy(
        title="draw random numbers in the dataset from torch, or seed its generator in worker_init_fn",
        why="workers are copies: a generator held by the dataset gives each of them the same numbers, in every epoch",
        change=Change("worker_seeds", "enable"),
        code={
            "pytorch": (
                "def seed_worker(worker_id):\n"
                "    info = torch.utils.data.get_worker_info()\n"
                "    info.dataset.rng = np.random.default_rng(info.seed)\n"
                "loader = DataLoader(dataset, num_workers=4, worker_init_fn=seed_worker)"
            )
        },
        confirm="two workers give different versions of the same example",
    )


def split_by_group() -> Remedy:
    """Split so that nothing of one group is on both sides."""
    return Remedy(
        title="split by group (patient, user, document, source), or by time, before anything else",
        why="examples of one group resemble each other: validation then measures memory",
        change=Change("split", "set", "group"),
        code={
            "pytorch": (
                "from sklearn.model_selection import GroupShuffleSplit\n"
                "train, val = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(x, y, groups))"
            )
        },
        confirm="no group, and no moment before the end of training data, is in the validation split",
    )


def remove_duplicates() -> Remedy:
    """Take the common examples out of the validation split."""
    return Remedy(
        title="take the examples that train and validation share out of the validation split",
        why="the model has seen them: they measure memory, and flatter the result",
        change=Change("shared_examples", "disable"),
        code={
            "pytorch": (
                "seen = {x.numpy().tobytes() for x, y in train_set}\n"
                "val_set = [(x, y) for x, y in val_set if x.numpy().tobytes() not in seen]"
            )
        },
        confirm="no example of the validation split is in the training split",
    )


def same_preprocessing() -> Remedy:
    """Prepare both splits alike."""
    return Remedy(
        title="prepare both splits with the same code and the statistics of the training split, then compare again",
        why="different normalisation, resizing or sources make a gap that no regularisation closes",
        change=Change("preprocessing", "set", "same"),
        code={
            "pytorch": "for loader in (train_loader, val_loader): x, _ = next(iter(loader)); print(x.mean(), x.std())"
        },
        unless="the validation split is meant to be different, or training images are augmented",
        confirm="a classifier cannot tell the splits apart",
    )


def consistent_evaluation() -> Remedy:
    """Make eval mode mean what training meant."""
    return Remedy(
        title="pass training=self.training to functional dropout, and check batch norm's statistics",
        why="an evaluation that is random, or normalises differently, measures another model than the one trained",
        code={
            "pytorch": (
                "x = F.dropout(x, 0.5, training=self.training)      # or nn.Dropout in __init__\n"
                "norm = nn.GroupNorm(8, 64)                         # instead of batch norm over few examples"
            )
        },
        unless="the dropout is meant, as for Monte-Carlo estimates",
        confirm="two evaluations of one batch agree, and its loss is that of training without dropout",
    )


def smaller_batches(accumulate: int | None = None) -> Remedy:
    """Smaller batches with accumulation."""
    n = accumulate or 4
    return Remedy(
        title=f"use batches {n} times smaller and accumulate {n} of them per step",
        why="the step stays the same while the memory for activations shrinks",
        change=Change("gradient_accumulation_steps", "set", n),
        code={
            "pytorch": (
                "for i, (x, y) in enumerate(loader):\n"
                f"    (criterion(model(x), y) / {n}).backward()\n"
                f"    if (i + 1) % {n} == 0:\n"
                "        optimizer.step(); optimizer.zero_grad()"
            ),
            "lightning": f"Trainer(accumulate_grad_batches={n})",
            "transformers": f"TrainingArguments(..., gradient_accumulation_steps={n})",
        },
        unless="the model has batch norm, which sees the smaller batch",
        confirm="peak memory stays below nine tenths of the device",
    )


def set_learning_rate(rate: float | None = None) -> Remedy:
    """Train at a rate inside the range that was measured."""
    value = f"{rate:.2g}" if rate else "suggestion"
    return Remedy(
        title=f"train at a learning rate of about {value}"
        if rate
        else "train at the rate that fitdoctor.find_lr finds",
        why="short trainings from these weights show where the loss falls and where it breaks away",
        change=Change("learning_rate", "set", float(value)) if rate else None,
        code={
            "pytorch": f"for group in optimizer.param_groups:  # before making a scheduler\n    group['lr'] = {value}",
            "lightning": f"torch.optim.AdamW(self.parameters(), lr={value})  # in configure_optimizers",
            "transformers": f"TrainingArguments(..., learning_rate={value})",
        },
        unless="a warm-up reaches the rate slowly, or a small rate is meant for fine-tuning",
        confirm="the loss falls faster from the first epoch on, without jumps",
    )
