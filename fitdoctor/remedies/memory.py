"""Advice on memory that grows or runs out, and on steps that wait."""

from __future__ import annotations

from dataclasses import replace

from fitdoctor.finding import Change, Remedy
from fitdoctor.remedies.setup import use_bfloat16


def drop_graphs() -> Remedy:
    """Keep numbers of losses, not tensors with their graph."""
    return Remedy(
        title="keep loss.item(), not the loss itself, and do not add tensors with a graph to totals",
        why="a loss that is kept, or summed as a tensor, keeps the autograd graph of its step alive",
        change=Change("retained_loss", "set", "number"),
        code={
            "pytorch": "total += loss.item()              # not: total += loss\nlosses.append(loss.detach())",
            "lightning": 'self.log("train_loss", loss)     # detaches by itself',
        },
        unless="the graph is needed again, as in truncated back-propagation through time: then cut it with detach()",
        confirm="graphs_alive stays at 0 or 1, and memory stays flat after the first steps",
        kind="memory",
    )


def evaluate_without_graph() -> Remedy:
    """Evaluate under no_grad."""
    return Remedy(
        title="evaluate under torch.no_grad() or torch.inference_mode()",
        why="with gradients on, every forward pass builds a graph that nobody uses: memory, and a third of the time",
        change=Change("eval_no_grad", "enable"),
        code={
            "pytorch": (
                "model.eval()\n"
                "with torch.no_grad():\n"
                "    total = sum(criterion(model(x), y).item() for x, y in val_loader)\n"
                "model.train()"
            ),
            "lightning": "Trainer(inference_mode=True)     # the default",
        },
        unless="the evaluation needs gradients with respect to its inputs",
        confirm="eval_grad_forwards is no longer there, and an evaluation takes less memory",
        kind="memory",
    )


def keep_less_on_host() -> Remedy:
    """Find what the host keeps from step to step."""
    return Remedy(
        title="find what the host keeps from step to step: lists of outputs, metrics, cached samples",
        why="memory that grows with the number of steps ends in a killed process",
        code={
            "pytorch": (
                "import tracemalloc\n"
                "tracemalloc.start(8); before = tracemalloc.take_snapshot()\n"
                "...                                                # some hundred steps\n"
                "for entry in tracemalloc.take_snapshot().compare_to(before, 'lineno')[:10]: print(entry)"
            ),
        },
        confirm="host memory stays flat over the second half of an epoch",
        kind="memory",
    )


def share_worker_data() -> Remedy:
    """Hold a dataset's index in arrays that forked workers can share."""
    return Remedy(
        title="hold the dataset's index in numpy or torch arrays instead of Python lists and dicts",
        why="reading a Python object changes its reference count, so each forked worker copies the pages it lies on",
        code={
            "pytorch": "self.paths = np.array(paths, dtype=np.bytes_)     # one buffer; decode in __getitem__",
        },
        unless="there are no loader workers",
        confirm="the memory of the workers no longer grows over the first epochs",
        kind="memory",
    )


def smaller_batch_accumulated(batch_size: int | None = None) -> Remedy:
    """A smaller batch, accumulated to the same effective size."""
    known = isinstance(batch_size, int) and not isinstance(batch_size, bool) and batch_size >= 2
    half = batch_size // 2 if known and batch_size else None
    title = f"halve the batch to {half} and accumulate 2 batches per step" if half else "halve the batch and accumulate"
    return Remedy(
        title=title,
        why="activations take most of the memory and grow with the batch; accumulation keeps its effective size",
        change=Change("micro_batch_size", "set", half) if half else Change("micro_batch_size", "multiply", 0.5),
        code={
            "pytorch": (
                "(criterion(model(x), y) / 2).backward()\n"
                "if (i + 1) % 2 == 0:\n"
                "    optimizer.step(); optimizer.zero_grad()"
            ),
            "lightning": "Trainer(accumulate_grad_batches=2)",
            "transformers": "TrainingArguments(..., gradient_accumulation_steps=2)",
        },
        unless="the model uses batch norm and the batch would fall below about 16: it sees the small batch",
        confirm="the step that failed passes, with the same effective batch size",
        kind="memory",
    )


def halve_precision() -> Remedy:
    """bf16 autocast."""
    return replace(
        use_bfloat16(),
        title="run forward passes in bfloat16 autocast",
        why="activations take half the memory; weights and optimizer stay in float32, and no loss scale is needed",
        confirm="peak memory falls, and the loss follows the same curve",
        kind="memory",
    )


def checkpoint_activations() -> Remedy:
    """Recompute activations in backward."""
    return Remedy(
        title="checkpoint activations: keep those of each block's input and recompute the rest",
        why="memory falls to about the square root of the depth, for a third more computation",
        change=Change("activation_checkpointing", "enable"),
        code={
            "pytorch": (
                "from torch.utils.checkpoint import checkpoint\n"
                "for block in self.blocks:\n"
                "    x = checkpoint(block, x, use_reentrant=False)"
            ),
            "transformers": "TrainingArguments(..., gradient_checkpointing=True)",
        },
        confirm="peak memory falls, and the loss is the same at every step",
        kind="memory",
    )


def load_on_host() -> Remedy:
    """Load checkpoints to the host first."""
    return Remedy(
        title="load the checkpoint to the host, then into the model",
        why="torch.load puts tensors back on the device they were saved from, beside those of the model",
        change=Change("checkpoint_device", "set", "cpu"),
        code={
            "pytorch": (
                'state = torch.load("checkpoint.pt", map_location="cpu")\n'
                'model.load_state_dict(state["model"])\n'
                "del state"
            ),
        },
        confirm="memory after loading is that of the model alone",
        kind="memory",
    )


def lighter_optimizer() -> Remedy:
    """An optimizer with less state."""
    return Remedy(
        title="shard the optimizer's state over the devices, or use one that keeps less",
        why="Adam keeps two numbers per parameter, made at its first step: twice the memory of the weights",
        change=Change("optimizer_sharding", "enable"),
        code={"pytorch": "from torch.distributed.fsdp import fully_shard\nfully_shard(model)"},
        unless="one device is all there is: then Adafactor or an 8-bit Adam keeps less",
        confirm="the first optimizer step passes",
        kind="memory",
    )


def expandable_segments() -> Remedy:
    """Let the allocator grow its segments."""
    return Remedy(
        title="set PYTORCH_ALLOC_CONF=expandable_segments:True",
        why="much of the memory is reserved in pieces too small for the request; segments that grow do not fragment",
        change=Change("expandable_segments", "enable"),
        code={"pytorch": 'os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"     # before importing torch'},
        confirm="reserved and allocated memory lie close together at the step that failed",
        kind="memory",
    )


def feed_faster() -> Remedy:
    """More loader workers and pinned memory."""
    return Remedy(
        title="give the loader more workers and pinned memory, and keep the workers alive",
        why="the step waits while a batch is read, decoded and copied; workers do that ahead of it",
        change=Change("loader_workers", "set", 4),
        code={
            "pytorch": (
                "loader = DataLoader(dataset, batch_size=64, num_workers=4, pin_memory=True,\n"
                "                    persistent_workers=True, prefetch_factor=4)\n"
                "x = x.to(device, non_blocking=True)"
            ),
            "transformers": "TrainingArguments(..., dataloader_num_workers=4)",
        },
        unless="the machine has no spare cores, or the time goes into logging between steps",
        confirm="data_time falls below a tenth of step_time",
        kind="data",
    )
