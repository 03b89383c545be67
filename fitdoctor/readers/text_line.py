"""One line of a text log: the shape of its words, learnt once, and the numbers in it.

A training loop prints the same line again and again with other numbers. So a line is first reduced to its
shape (``Epoch [#/#], Step [#/#], Loss: #``); what each number means is worked out once per shape.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from fitdoctor.readers.columns import is_epoch, is_step

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|[\x00-\x08\x0b\x0c\x0e-\x1f]")
_BAR = re.compile(
    r"\[[=>.#\-* ]{5,}\]"  # Keras 2
    r"|\d{1,3}%\|[^|\[]*\|"  # tqdm
    r"|[━╸╺─█▉▊▋▌▍▎▏▁-▇#=*_~-]{4,}"  # Keras 3, rich, rules between lines
)
_DATE = re.compile(
    r"\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ,]+\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d+)?)?(?:Z\b|\s?[+-]\d{2}:?\d{2}\b)?"
)
_AWAY = re.compile(
    r"\b[IWEFD]\d{4}\s+\d{1,2}:\d{2}:\d{2}\.\d+\s+\d+\s+"  # glog and absl
    r"|\b\d{1,2}[/-]\d{1,2}(?:[/-]\d{2,4})?\s+\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d+)?\b"  # 07/01 12:00:00
    r"|\b(?:\d+ days?, )?\d{1,3}:\d{2}(?::\d{2})?(?:[.,]\d+)?(?:<[\d:?]+)?(?!\d)(?![-+.]?\d)"  # clock times, durations
    r"|[\w./\\-]+\.(?:py|cc|cpp|c|h|cu|rs|go)\b(?:[:(]\d+\)?|, line \d+)?"  # where it was printed
    r"|\b(?:pid|rank|gpu|device|cuda|node|worker)[ =:#]*\d+\b\)?"
    r"|\b0x[0-9a-f]+\b|\b[0-9a-f]{12,}\b|\b\d+(?:\.\d+){2,}\b"  # addresses, hashes, versions
    r"|\b\d+(?:\.\d+)?\s?(?:[mun]?s|it|iters?|batch(?:es)?|steps?|samples?|imgs?|images?|tok(?:ens)?|examples?)"
    r"/(?:steps?|it|iter|batch|samples?|epoch|s|sec)\b"  # 3ms/step, 16.6it/s
    r"|\b\d+(?:\.\d+)?(?-i:[hm])(?: ?\d+(?:\.\d+)?[ms])*\b(?:\s?\d+s\b)?",  # 1h 2m 3s
    re.IGNORECASE,
)
_WRAPPED = re.compile(r"\b(?:tensor|array|np\.float\d+|float\d+)\(\[?\s*([-+\w.]+?)\s*\]?(?:,[^()]*)?\)")
_OTHER_RANK = re.compile(r"\brank[ _=:#]*[1-9]\d*\b", re.IGNORECASE)
_UNITS = {"ms": 1e-3, "us": 1e-6, "µs": 1e-6, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_NUMBER = re.compile(
    r"(?<![\w.@])(?<!\w[-+])"
    r"(?P<number>[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])|\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    r"|(?<!of )(?<!or )(?<!no )(?<!any )[-+]?(?:nan|inf(?:inity)?)"
    r"(?![\w/]|[ -](?:iter|val|grad|loss|step|or|in|check|det|found)))"
    r"(?P<unit>\s?%|(?:ms|us|µs|[kKMGT](?:i?[Bb])?|s|x|z)(?![\w/]))?"
    r"(?![\w@])",
    re.IGNORECASE,
)
_SLOT = "\0"
_TOKEN = re.compile(
    r"\0"
    r"|[^\W\d][\w@%]*(?:(?:[-/.'+]|::)[\w@]+)*(?:\([A-Za-z]\w*\))?(?:'s\b)?"
    r"|->|→|[^\s\w]"
)

SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Words for the split of the data."""
_SPLIT_PARTS = re.compile(r"(?:^|[\W_])(train|training|trn|val|valid|validation|eval|evaluation|dev|test)(?=$|[\W_\d])")
_METRIC = re.compile(
    r"(?:^|[\W_\d])(?:\w*loss(?:es)?|acc|accuracy|ppl|perplexity|logloss|auc|auroc|f1|bleu|rouge\w*|m?ap\d*|m?iou|dice|rmse|mse|mae"
    r"|wer|cer|psnr|ssim|reward|return|nll|elbo|bpc|bpb|precision|recall|top[-_]?[15]|acc[@_]?[15]|err|error|score|r2|kl"
    r"|perplexities|learn|test|train|val)(?=$|[\W_\d])",
    re.IGNORECASE,
)
_STRICT = re.compile(
    r"(?:^|[\W_\d])(?:\w*loss(?:es)?|acc|accuracy|ppl|perplexity|auc|auroc|f1|bleu|m?ap\d*|m?iou|rmse|mse|mae|wer|cer|psnr|reward"
    r"|nll|elbo|bpc|bpb|acc[@_]?[15]|top[-_]?[15])(?=$|[\W_\d])",
    re.IGNORECASE,
)
_LEVELS = frozenset({"INFO", "DEBUG", "WARNING", "WARN", "ERROR", "CRITICAL", "NOTICE", "root", "__main__", "main"})
_FILLERS = frozenset(
    [
        "is",
        "was",
        "are",
        "of",
        "at",
        "the",
        "and",
        "with",
        "to",
        "a",
        "an",
        "so",
        "far",
        "after",
        "for",
        "now",
        "in",
        "on",
        "got",
        "has",
        "reached",
        "by",
    ]
)
_CLOCK_FILLERS = _FILLERS | frozenset(
    ["global", "current", "end", "begin", "start", "finished", "starting", "done", "completed"]
)
_REMARKS = frozenset(
    [
        "improved",
        "decreased",
        "increased",
        "best",
        "saving",
        "saved",
        "saves",
        "restoring",
        "restored",
        "improve",
        "early",
    ]
)
_UNIT_WORDS = frozenset(
    [
        "s",
        "sec",
        "secs",
        "second",
        "seconds",
        "ms",
        "us",
        "min",
        "mins",
        "minutes",
        "h",
        "hours",
        "it/s",
        "s/it",
        "steps/s",
        "step/s",
        "samples/s",
        "tok/s",
        "gb",
        "mb",
        "mib",
        "gib",
        "kb",
    ]
)
_NO_SPLIT = re.compile(
    r"(?:^|[\W_])(?:lr|learning|rate|time|eta|speed|mem|memory|norm|gnorm|mfu|momentum|wd|tokens?)(?=$|[\W_])"
)
_BREAKERS = frozenset(",;|•·→-–—/*#&\\<>!?\"'`~$^")
_LONGEST_KEY = 5


class Role(Enum):
    """What a number in a line is."""

    VALUE = "value"
    EPOCH = "epoch"
    STEP = "step"
    POSITION = "position"  # n of m, without a name: how far the epoch or the run has come
    LEADING = "leading"  # a bare counter at the start of the line


@dataclass(frozen=True, slots=True)
class Slot:
    """One number of a line that means something.

    Attributes:
        role: what it is.
        tag: its name as it stands in the line, with the split that the line names before it.
        index: which number of the line it is.
        total: which number of the line says of how many, or None.
    """

    role: Role
    tag: str
    index: int
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its decoration.

    Attributes:
        shape: its text with every number replaced.
        numbers: the numbers, float64.
        date: the first date in it, as text, or "".
        bar: whether it holds a progress bar.
    """

    shape: str
    numbers: tuple[float, ...]
    date: str
    bar: bool


def is_metric(tag: str) -> bool:
    """Whether a name is surely that of a training metric; a looser test decides what may belong to a split."""
    return _STRICT.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", tag)) is not None


def split_of(tag: str) -> str:
    """The split that a name speaks of: "train", "val", "test", or "".

    Example:
        >>> split_of("Test Average loss"), split_of("val_loss"), split_of("lr")
        ('test', 'val', '')
    """
    found = _SPLIT_PARTS.search(tag.lower())
    return "" if found is None else SPLITS[found[1]]


def quantity(cell: str) -> float | None:
    """The number in a cell of a table, with its unit; None when it is none. Of "3/10" the 3."""
    found = _NUMBER.fullmatch(cell.strip().partition("/")[0].strip().rstrip(":"))
    return None if found is None else _valued(found)


def _valued(match: re.Match[str]) -> float:
    value, unit = float(match["number"].replace(",", "")), (match["unit"] or "").strip()
    if unit == "%":
        return value / 100
    if unit[1:].lower() in ("b", "ib"):
        unit = unit[:1]
    return value * _UNITS.get(unit, 1.0)


def reduce(text: str) -> Line | None:
    """The shape and the numbers of a line; None when it holds no number.

    Example:
        >>> line = reduce("2024-01-01 10:00:00,123 INFO train.py:88 step=100 loss=1.2 (98%)")
        >>> line.shape, line.numbers, line.date
        ('INFO step=\\x00 loss=\\x00 (\\x00)', (100.0, 1.2, 0.98), '2024-01-01 10:00:00,123')
    """
    if _OTHER_RANK.search(text):
        return None  # every rank of a distributed run prints the same line; the first one is enough
    text = _ANSI.sub("", text)
    date = ""
    if (found := _DATE.search(text)) is not None:
        date = found[0]
        text = _DATE.sub(" ", text)
    if "(" in text:
        text = _WRAPPED.sub(r"\1", text)
    shorter = _BAR.sub(" | ", text)
    bar = shorter != text
    text = _AWAY.sub(" ", shorter)
    numbers: list[float] = []

    def slot(match: re.Match[str]) -> str:
        numbers.append(_valued(match))
        return _SLOT

    shape = _NUMBER.sub(slot, text)
    if not numbers:
        return None
    return Line(" ".join(shape.split()), tuple(numbers), date, bar)


def learn(shape: str) -> tuple[Slot, ...]:
    """What each number of a line of this shape means, those that mean nothing left out.

    Example:
        >>> [(s.role.value, s.tag, s.index, s.total) for s in learn("Epoch [\\0/\\0], val acc: \\0")]
        [('epoch', 'Epoch', 0, 1), ('value', 'val acc', 2, None)]
    """
    return _Learner(_TOKEN.findall(shape)).slots()


class _Learner:
    """Reads the tokens of one shape from left to right."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.words: list[str] = []
        self.pending: list[str] = []
        self.split = ""
        self.soft = ""
        self.found: list[Slot] = []
        self.count = 0

    def slots(self) -> tuple[Slot, ...]:
        at = 0
        while at < len(self.tokens):
            token = self.tokens[at]
            if token == _SLOT:
                at = self._number(at)
                continue
            if token in ":=":
                if not self._leads_to_number(at + 1):
                    self._heading()
            elif token in "]})" and token != ")":
                self._heading()
            elif token in _BREAKERS:
                if not (token in "\"'`" or (token == "-" and self._leads_to_number(at + 1) and self.words)):
                    self._heading()
            elif token[0].isalpha() or token[0] == "_":
                self._word(token)
            at += 1
        return self._unique()

    def _word(self, token: str) -> None:
        if token in _LEVELS or (not self.words and token.lower() in _UNIT_WORDS):
            return
        inner = re.fullmatch(r"(\w+)\((\w+)\)", token)
        if inner is not None and inner[2].lower() in SPLITS:  # mmengine: "Epoch(val) [1][10/20]"
            self.split = inner[2]
            token = inner[1]
        self.words.append(token)

    def _leads_to_number(self, at: int) -> bool:
        while at < len(self.tokens) and self.tokens[at] in "[({\"'`-+:=":
            at += 1
        return at < len(self.tokens) and self.tokens[at] == _SLOT

    def _heading(self) -> None:
        """The words so far name no number; they may name the split of what follows."""
        named = [word for word in self.words if word.lower() in SPLITS]
        if named and len(self.words) <= 3:
            self.split = named[0]
        self.words = []

    def _number(self, at: int) -> int:
        index = self.count
        self.count += 1
        total = None
        first = not self.found and not self.words and all(t in "[(:" for t in self.tokens[:at])
        after = self.tokens[at + 1 : at + 3]
        at += 1
        if len(after) == 2 and after[1] == _SLOT and after[0].lower() in ("/", "of"):
            total = self.count
            self.count += 1
            at += 2
        words = self.words
        self.words = []
        while words and words[0].lower() in _FILLERS:
            words = words[1:]
        while words and words[-1].lower() in _FILLERS:
            words = words[:-1]
        if not words and self.pending:
            self._value(self.pending, index, total)
            self.pending = []
        elif not words:
            if total is not None:
                self.found.append(Slot(Role.POSITION, self.split, index, total))
            elif first and at < len(self.tokens) and self.tokens[at] in "]:":
                self.found.append(Slot(Role.LEADING, "iteration", index))
        else:
            self._named(words, index, total)
        return at

    def _named(self, words: list[str], index: int, total: int | None) -> None:
        if total is not None and all(word.lower() in SPLITS for word in words):  # "Test: [10/98]"
            self.split = words[0]
            self.found.append(Slot(Role.POSITION, words[0], index, total))
            return
        last = words[-1]
        role = Role.EPOCH if is_epoch(last) else Role.STEP if is_step(last) else None
        if role is None:
            self._value(words, index, total)
            return
        before = words[:-1]
        while before and before[-1].lower() in _CLOCK_FILLERS:
            before = before[:-1]
        splits = [word for word in before if word.lower() in SPLITS]
        rest = [word for word in before if word.lower() not in SPLITS and word.lower() not in _CLOCK_FILLERS]
        if splits:
            self.split = splits[0]
        if not rest:
            self.found.append(Slot(role, last, index, total))
        elif is_metric(" ".join(before)):  # "validation loss at step 100: 2.5"
            self.found.append(Slot(role, last, index, total))
            self.pending = before

    def _value(self, words: list[str], index: int, total: int | None) -> None:
        if any(word.lower() in _REMARKS for word in words):
            return  # "val_loss improved from 0.51", "best acc 0.8": said beside the log, not measured at this step
        if len(words) > _LONGEST_KEY:
            words = words[-3:]
        tag = " ".join(words)
        if words[0].lower() in SPLITS:
            self.split = words[0]
        elif (
            self.split
            and _METRIC.search(tag)
            and not _SPLIT_PARTS.search(tag.lower())
            and not _NO_SPLIT.search(tag.lower())
        ):
            tag = f"{self.split} {tag}"
        elif (part := _SPLIT_PARTS.search(tag.lower())) is not None:
            self.soft = part[1]
        elif self.soft and any(slot.tag == tag for slot in self.found):
            tag = f"{self.soft} {tag}"
        self.found.append(Slot(Role.VALUE, tag, index, total))

    def _unique(self) -> tuple[Slot, ...]:
        """The slots, where a name comes twice only the first."""
        seen: set[tuple[Role, str]] = set()
        out = []
        for slot in self.found:
            key = (slot.role, slot.tag if slot.role is Role.VALUE else "")
            if key not in seen:
                seen.add(key)
                out.append(slot)
        return tuple(out)
