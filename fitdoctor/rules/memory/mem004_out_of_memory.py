"""MEM004 out-of-memory."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.remedies.memory import (
    checkpoint_activations,
    drop_graphs,
    evaluate_without_graph,
    expandable_segments,
    halve_precision,
    keep_less_on_host,
    lighter_optimizer,
    load_on_host,
    share_worker_data,
    smaller_batch_accumulated,
)
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import EVAL_GRAD_FORWARDS, GRAPHS_ALIVE, MEMORY, Signal


@rule("MEM004", "out-of-memory", needs=[], since="0.1.0")
def out_of_memory(run: Run, *, fragmented: float = 0.3, kept: int = 10) -> Iterator[Finding]:
    """The training ended because memory ran out.

    Why it matters:
        Nothing after it was trained. What to do depends on what filled the memory, and a smaller batch is the
        answer to only some of it.

    How it is measured:
        From the exception that left the monitor's ``with`` block, its traceback and its message, and from what was
        measured before it. In this order: a checkpoint was being loaded; a step had been done and graphs of
        more than `kept` earlier losses are alive (a leak); more than `fragmented` of the reserved memory was
        free but in pieces; an evaluation ran, with or without graphs; the first step of the optimizer made its
        state; memory of the host; else the activations of a batch are too large, at once or for the longest batch.

    Options:
        fragmented: share of PyTorch's reserved memory that was not allocated.
        kept: graphs of earlier losses that are alive.

    When it is wrong:
        Another program on the same device took the memory; the message tells how much was free.

    What to do:
        What the finding names first. A smaller batch with accumulation keeps the effective batch size.

    References:
        PyTorch documentation: frequently asked questions, CUDA memory management, torch.load (map_location).
        Chen et al. 2016 on checkpointing: memory of the square root of the depth.
    """
    where = run.facts.get("out_of_memory")
    if not isinstance(where, str) or where not in ("device", "host"):
        if run.source == "fitdoctor-monitor" or "tier" in run.facts:
            return  # the monitor would have seen it
        raise CannotJudge("how the training ended was not seen; hooks used as a context manager see it")
    step = run.facts.get("out_of_memory_step", 0)
    at = step if isinstance(step, int) and not isinstance(step, bool) else 0
    cause, remedies = _cause(run, where, fragmented, kept)
    series = run.get(GRAPHS_ALIVE) if "graphs" in cause else run.get(MEMORY)
    whole = run.steps or Span(at, at)
    last = max(whole.first, min(at, whole.last))
    yield Finding(
        message=f"memory of the {where} ran out after step {at}: {cause}{_asked(run)}"[:100],
        severity=Severity.ERROR,
        confidence=Confidence.HIGH if remedies[0].title != "halve the batch and accumulate" else Confidence.MEDIUM,
        span=Span(last, whole.last),
        evidence=() if series is None else (Evidence.of(series, f"{series.values[-1]:.4g} {_unit(series.signal)}"),),
        remedies=remedies,
        could_be=("another program on the same device",) if where == "device" else (),
    )


def _cause(run: Run, where: str, fragmented: float, kept: int) -> tuple[str, tuple[Remedy, ...]]:
    """What filled the memory, as the end of a sentence, and what to do first."""
    place, first = run.facts.get("out_of_memory_place"), run.facts.get("out_of_memory_first") is True
    alive = run.get(GRAPHS_ALIVE)
    batch = run.facts.get("batch_size")
    smaller = smaller_batch_accumulated(batch if isinstance(batch, int) else None)
    if place == "loading":
        return "a checkpoint was being loaded", (load_on_host(),)
    if alive is not None and alive.values[-1] > kept:
        return f"the graphs of {alive.values[-1]:.4g} earlier losses are kept", (drop_graphs(), smaller)
    if _in_pieces(run) > fragmented:
        return f"{_in_pieces(run):.0%} of the reserved memory is free but in pieces", (expandable_segments(), smaller)
    if place == "evaluation":
        graphs = run.get(EVAL_GRAD_FORWARDS) is not None
        return "during an evaluation", (evaluate_without_graph(), *(() if graphs else (smaller,)))
    if place == "optimizer" and first:
        return "the optimizer makes its state at its first step", (lighter_optimizer(), halve_precision(), smaller)
    if place == "data" or (where == "host" and place == "unknown"):
        return "while data was prepared", (keep_less_on_host(), share_worker_data())
    when = "at the first batch" if first else "on a later batch than the first, longer or on top of more"
    return f"in {place or 'a step'}, {when}", (smaller, halve_precision(), checkpoint_activations())


def _in_pieces(run: Run) -> float:
    """Share of the memory that PyTorch reserved which was not allocated; 0 where it is not known."""
    free, used = (run.facts.get(f"out_of_memory_{key}") for key in ("reserved_free", "allocated"))
    if not isinstance(free, (int, float)) or not isinstance(used, (int, float)) or free < 0 or used < 0:
        return 0.0
    return free / (free + used) if free + used > 0 else 0.0


def _asked(run: Run) -> str:
    asked = run.facts.get("out_of_memory_requested")
    if not isinstance(asked, (int, float)) or isinstance(asked, bool) or not 0 < asked < 2**62:
        return ""
    return f" ({asked / 2**20:.4g} MiB asked for)"


def _unit(signal: Signal) -> str:
    return signal.quantity.unit
