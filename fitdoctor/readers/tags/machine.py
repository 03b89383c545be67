"""Tags of clocks, of the machine and of the optimizer's settings."""

from __future__ import annotations

import re

from fitdoctor.readers.tags import words as vocabulary
from fitdoctor.readers.tags.name import Mapped, Name, Reading
from fitdoctor.readers.tags.words import collapsed, words_of
from fitdoctor.signals import EPOCH, LOSS_SCALE, LR, MOMENTUM, QUANTITIES, SKIPPED_STEPS, WEIGHT_DECAY, Signal

# --- families, the more telling first -----------------------------------------------------------------


def clock(name: Name, statistic: str) -> Reading | None:
    extra = [w for w in name.words if w not in vocabulary.CLOCKS | vocabulary.NOISE and w not in vocabulary.SPLIT_OF]
    if extra or not name.has(*vocabulary.CLOCKS):
        return None
    if name.has("epoch", "epochs") and not name.has("time", "num", "total", "runtime", "duration", "elapsed"):
        return Mapped(Signal(EPOCH))
    if name.has("time", "runtime", "elapsed", "duration"):
        return None
    return "it counts steps or samples; a clock, not a measurement"


_COUNTED = (
    "it|iter|iteration|img|image|im|sample|samp|tok|token|example|seq|sequence|step|batch|word|frame|update|sentence|"
    "item|row|graph|node"
)
_PER = r"[ _]?(?:/|_per_|_p_| per |\.per\.|-per-|_/_)[ _]?"
_PER_SECOND = re.compile(
    rf"(?:^|[^a-z])(?:{_COUNTED})(?:e?s)?{_PER}(?:s|sec|secs|second|seconds)(?:$|[^a-z])"
    r"|(?:^|[^a-z])(?:it|iter|img|tok|step|sample)s?_?ps(?:$|[^a-z])",
    re.I,
)
_RATE_AT_END = re.compile(r"(?:tokens|samples|examples|images|steps)\w*_per_sec(?:ond)?s?$", re.I)
_SECONDS_PER = re.compile(
    rf"(?:^|[^a-z])(?P<unit>s|sec|secs|second|seconds|ms|time){_PER}"
    r"(?:it|iter|iteration|step|batch|train_step|update)s?(?:$|[^a-z])",
    re.I,
)
_BYTES = {"kb": 2.0**10, "kib": 2.0**10, "mb": 2.0**20, "mib": 2.0**20, "gb": 2.0**30, "gib": 2.0**30}


def machine(name: Name, statistic: str) -> Reading | None:
    """Times, rates and memory."""
    if name.words[0] == "time" and len(name.segments) == 2 and len(name.words) == 2 and name.per:
        # Composer's clocks time/epoch and time/batch count
        return Mapped(Signal(EPOCH)) if name.per == "epoch" else "a time or a counter, its name does not tell"
    told = _PER_SECOND.search(name.tag) is not None or _RATE_AT_END.search(name.tag) is not None
    if told or name.has("throughput", "wps", "ups", "sps", "fps", "tps"):
        if not told and name.has("total", "cumulative", "elapsed") and not name.has("fps", "sps"):
            return "a count since the start"
        if name.split in ("val", "test"):
            return "speed of an evaluation, not of training"
        return Mapped(Signal(QUANTITIES["throughput"]), detours=int(name.split == "train"))
    if name.has("mfu", "hfu", "tflops", "flops", "flop", "flos"):
        return "a count or share of floating point operations"
    if (per := _SECONDS_PER.search(name.tag)) and name.split != "val":
        return Mapped(Signal(QUANTITIES["step_time"]), scale=1e-3 if per["unit"].lower() == "ms" else 1.0)
    if name.has("mem", "memory", "vram", "ram", "rss"):
        if name.has("num", "count", "retries", "ooms"):
            return "a count, not bytes of memory"
        if name.has("percent", "pct", "utilization", "util", "usage_percent", "fraction", "size", "bank", "replay"):
            return "a share or a setting, not bytes of memory"
        scale = next((_BYTES[w] for w in name.words if w in _BYTES), 1.0)
        return Mapped(Signal(QUANTITIES["memory"]), scale=scale, detours=len(name.rest()))
    if name.has("time", "runtime", "elapsed", "duration", "seconds", "eta", "wall", "timers", "timing"):
        return _time(name)
    return None


_TIME_WORDS = frozenset(
    {"time", "seconds", "ms", "sec", "s", "perf", "timing", "timings", "duration", "elapsed", "performance"}
)


def _time(name: Name) -> Reading | None:
    scale = 1e-3 if name.has("ms", "msec", "millis", "milliseconds") else 1.0
    if name.split in ("val", "test") or name.has("total", "eta", "remaining", "cumulative", "accumulated", "wall"):
        return "a time that is not the time of a training step"
    if name.has("data", "dataloader", "dataloading", "loading", "load", "fetch", "loader", "input", "wait"):
        return Mapped(Signal(QUANTITIES["data_time"]), scale=scale)
    rest = [w for w in name.rest() if w not in _TIME_WORDS]
    if not rest and name.has("step", "iter", "iteration", "batch") and not name.has("epoch"):
        return Mapped(Signal(QUANTITIES["step_time"]), scale=scale)
    if not rest and name.words == ("time",):  # detectron2 and mmengine: seconds of one iteration
        return Mapped(Signal(QUANTITIES["step_time"]), scale=scale, detours=3)
    return "a time that is not the time of a training step"


_SETTING = frozenset(
    {
        "min",
        "max",
        "base",
        "initial",
        "init",
        "factor",
        "scale",
        "mult",
        "multiplier",
        "decay",
        "ratio",
        "lambda",
        "warmup",
        "schedule",
        "final",
        "target",
        "peak",
        "gamma",
        "patience",
        "reductions",
        "plateau",
    }
)


def optimizer(name: Name, statistic: str) -> Reading | None:
    """Learning rate, momentum, weight decay, loss scale."""
    if name.has("momentum", "beta1") and not name.has("loss", "ema", "teacher", "bn", "encoder"):
        return Mapped(Signal(MOMENTUM, layer=_group(name, {"momentum", "beta1"})), detours=len(name.rest()))
    if name.has("weightdecay", "wd"):
        return Mapped(Signal(WEIGHT_DECAY, layer=_group(name, {"weightdecay", "wd"})))
    if any(_RATE.fullmatch(w) for w in name.words):
        if not _SETTING.isdisjoint(name.present):
            return "a setting of the learning rate, not the rate in use"
        if name.has("norm", "loss", "update", "grad") and not _RATE.fullmatch(name.words[-1]):
            return None
        layer = _group(name, {"lr", "lrs"})
        return Mapped(Signal(LR, layer=layer), detours=len(name.rest(frozenset({"lr", "lrs"}))))
    scaler = name.has("scaler") or name.words[-2:] in (("amp", "scale"), ("grad", "scale"))
    if ("loss" in name.present and name.words[-1] in ("scale", "scaler", "scaling")) or scaler:
        return Mapped(Signal(LOSS_SCALE))
    if name.has("skipped", "overflow", "overflows") and name.has(
        "steps", "step", "iters", "iterations", "updates", "batches"
    ):
        return Mapped(Signal(SKIPPED_STEPS))
    return None


def _group(name: Name, own: set[str]) -> str:
    """Parameter group of an optimizer's setting: ``pg1``, ``backbone``, ``group_0``, or ""."""
    drop = vocabulary.OPTIMIZERS | own | {"lr", "lrs", "params", "param", "hyperparameters", "scheduler"}
    words = name.words
    if by_monitor := _MONITOR.match(name.tag):
        words = collapsed(words_of(name.tag[by_monitor.end() :]))
    keep = [w for w in words if w not in vocabulary.SPLIT_OF and w not in vocabulary.NOISE and w not in drop]
    return "_".join(w.removeprefix("lr") or w for w in keep if w not in vocabulary.LOSS_WORDS)


_MONITOR = re.compile(r"lr-[A-Za-z]\w*")
"""Lightning and Composer name the rate after the optimizer's class: ``lr-AdamW/pg1``."""
_RATE = re.compile(r"lr\d*|lrs")
