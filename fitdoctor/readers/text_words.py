"""What the words of a log line say: which number is the epoch, which the step, and what the others measure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from fitdoctor.readers.columns import is_epoch, is_step
from fitdoctor.readers.tags.words import word_set

SLOT = "\0"
"""Stands for a number in the shape of a line."""
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
    r"(?:^|[\W_\d])(?:\w*loss(?:es)?|acc|accuracy|ppl|perplexity|logloss|auc|auroc|f1(?!\d)|bleu|rouge\w*|m?ap\d*|m?iou|dice|rmse|mse|mae"
    r"|wer|cer|psnr|ssim|reward|return|nll|elbo|bpc|bpb|precision|recall|top[-_]?[15]|acc[@_]?[15]|err|error|score|r2|kl"
    r"|perplexities|learn|test|train|val)(?=$|[\W_\d])",
    re.IGNORECASE,
)
_STRICT = re.compile(
    r"(?:^|[\W_\d])(?:\w*loss(?:es)?|acc|accuracy|ppl|perplexity|auc|auroc|f1(?!\d)|bleu|m?ap\d*|m?iou|rmse|mse|mae|wer|cer|psnr|reward"
    r"|nll|elbo|bpc|bpb|acc[@_]?[15]|top[-_]?[15])(?=$|[\W_\d])",
    re.IGNORECASE,
)
_LEVELS = word_set("INFO DEBUG WARNING WARN ERROR CRITICAL NOTICE root __main__ main")
_FILLERS = word_set("is was are of at the and with to a an so far after for now in on got has reached by")
_CLOCK_FILLERS = _FILLERS | word_set("global current end begin start finished starting done completed")
_REMARKS = word_set("improved decreased increased best saving saved saves restoring restored improve early")
_PLURALS = word_set("epochs steps iterations iters batches num_epochs max_epochs total_steps max_steps num_steps")
_UNIT_WORDS = word_set(
    "s sec secs second seconds ms us min mins minutes h hours it/s s/it steps/s step/s samples/s tok/s gb mb mib gib kb"
)
_NO_SPLIT = re.compile(
    r"(?:^|[\W_])(?:lr|learning|rate|time|eta|speed|mem|memory|norm|gnorm|mfu|momentum|wd|tokens?)(?=$|[\W_])"
)
_BREAKERS = frozenset(",;|•·→-–—/*#&\\<>!?\"'`~$^")
_LONGEST_KEY = 5
_LONGEST_NAME = 200


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


@lru_cache(maxsize=4096)
def is_metric(tag: str) -> bool:
    """Whether a name is surely that of a training metric; a looser test decides what may belong to a split."""
    return len(tag) <= _LONGEST_NAME and _STRICT.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", tag)) is not None


@lru_cache(maxsize=4096)
def split_of(tag: str) -> str:
    """The split that a name speaks of: "train", "val", "test", or "".

    Example:
        >>> split_of("Test Average loss"), split_of("val_loss"), split_of("lr")
        ('test', 'val', '')
    """
    found = _SPLIT_PARTS.search(tag[:_LONGEST_NAME].lower())
    return "" if found is None else SPLITS[found[1]]


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
            if token == SLOT:
                at = self._number(at)
                continue
            if token in ":=":
                if not self._leads_to_number(at + 1):
                    self._heading()
            elif token in "]})" and token != ")":
                self._heading()
            elif token == "(" and self.tokens[at + 2 : at + 3] == ["="]:
                self._heading()  # Namespace(batch_size=32, ...)
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
        return at < len(self.tokens) and self.tokens[at] == SLOT

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
        if len(after) == 2 and after[1] == SLOT and after[0].lower() in ("/", "of"):
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
        if last.lower() in _PLURALS:  # "epochs=10", "trained for 300 steps": how many, not which one
            role = None
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
        tag = " ".join(words)[:_LONGEST_NAME]
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
