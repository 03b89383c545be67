"""One line of a text log: the numbers in it, and the template of the words between them.

A training loop prints the same line again and again with other numbers. So what each number of a line means
is worked out once per template (``Epoch [#/#], Step [#/#], Loss: #``), and only looked up from then on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fitdoctor.readers.text_words import SLOT, Slot, learn

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
    r"|(?<![\w./\\-])[\w./\\-]{1,200}\.(?:py|cc|cpp|c|h|cu|rs|go)\b(?:[:(]\d+\)?|, line \d+)?"  # where it was printed
    r"|\b(?:pid|rank|gpu|device|cuda|node|worker)[ =:#]*\d+\b\)?"
    r"|\b(?:[0-9a-f]{2}:){4,}[0-9a-f]{2}\b"  # fingerprints
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
_DIGITS = re.compile(r"(?<![\w@.])(?<!\w[-+])(?:\d+\.?\d*(?:[eE][-+]?\d+)?|(?:[nN][aA][nN]|[iI][nN][fF])(?!\w))")
"""Numbers as a first, fast look finds them; what they are is told by `_NUMBER`, once per template."""
_MOST_TEMPLATES = 20_000


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its decoration.

    Attributes:
        slots: what its numbers mean.
        numbers: the numbers, float64.
        date: the first date in it, as text, or "".
        shape: its text with every number replaced.
    """

    slots: tuple[Slot, ...]
    numbers: tuple[float, ...]
    date: str
    shape: str


@dataclass(frozen=True, slots=True)
class _Pick:
    """How a number of a template is made from what the fast look finds."""

    index: int
    factor: float
    percent: bool


@dataclass(frozen=True, slots=True)
class _Template:
    """What a fast look at a line says of it."""

    slots: tuple[Slot, ...]
    picks: tuple[_Pick, ...]
    shape: str
    dated: bool


def quantity(cell: str) -> float | None:
    """The number in a cell of a table, with its unit; None when it is none. Of "3/10" the 3."""
    found = _NUMBER.fullmatch(cell.strip().partition("/")[0].strip().rstrip(":"))
    if found is None:
        return None
    value, (factor, percent) = float(found["number"].replace(",", "")), _scale(found["unit"])
    return value / 100 if percent else value * factor


def _scale(unit: str | None) -> tuple[float, bool]:
    """What a unit multiplies a number with, and whether it is a percent sign."""
    unit = (unit or "").strip()
    if unit[1:].lower() in ("b", "ib"):
        unit = unit[:1]
    return _UNITS.get(unit, 1.0), unit == "%"


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _unwrapped(match: re.Match[str]) -> str:
    start, end = match.start(), match.end()
    return " " * (match.start(1) - start) + match[1] + " " * (end - match.end(1))


class LineReader:
    """Reads the lines of one log and learns their templates."""

    def __init__(self) -> None:
        self._templates: dict[str, _Template | None] = {}
        self._learnt: dict[str, tuple[Slot, ...]] = {}

    def read(self, text: str) -> Line | None:
        """The numbers of a line and what they mean; None when it holds no number.

        Example:
            >>> line = LineReader().read("2024-01-01 10:00:00,123 INFO train.py:88 step=100 loss=1.2 (98%)")
            >>> line.shape, line.numbers, line.date
            ('INFO step=\\x00 loss=\\x00 (\\x00)', (100.0, 1.2, 0.98), '2024-01-01 10:00:00,123')
        """
        if "\x1b" in text:
            text = _ANSI.sub("", text)
        if "ank" in text and _OTHER_RANK.search(text):
            return None  # every rank of a distributed run prints the same line; the first one is enough
        digits = _DIGITS.findall(text)
        key = " ".join(_DIGITS.sub(SLOT, text).split())
        template = self._templates.get(key)
        if template is None:
            return self._learn(text, key)
        numbers = tuple(
            float(digits[p.index]) / 100 if p.percent else float(digits[p.index]) * p.factor for p in template.picks
        )
        if not numbers:
            return None
        date = ""
        if template.dated and (found := _DATE.search(text)) is not None:
            date = found[0]
        return Line(template.slots, numbers, date, template.shape)

    def _learn(self, text: str, key: str) -> Line | None:
        """Read a line with care, and remember how where the fast look can do the same."""
        places = {(m.start(), m.end()): i for i, m in enumerate(_DIGITS.finditer(text))}
        clean = text.replace(SLOT, " ")
        date = ""
        if (found := _DATE.search(clean)) is not None:
            date = found[0]
            clean = _DATE.sub(_blank, clean)
        if "(" in clean:
            clean = _WRAPPED.sub(_unwrapped, clean)
        clean = _AWAY.sub(_blank, _BAR.sub(lambda m: "|" + " " * (len(m[0]) - 1), clean))
        numbers: list[float] = []
        picks: list[_Pick] = []
        for match in _NUMBER.finditer(clean):
            sign = match["number"][0] if match["number"][0] in "+-" else ""
            value, (factor, percent) = float(match["number"].replace(",", "")), _scale(match["unit"])
            numbers.append(value / 100 if percent else value * factor)
            place = places.get((match.start("number") + len(sign), match.end("number")))
            if place is not None and not (percent and sign == "-"):
                picks.append(_Pick(place, -factor if sign == "-" else factor, percent))
        shape = " ".join(_NUMBER.sub(SLOT, clean).split())
        slots = self._learnt.get(shape)
        if slots is None:
            slots = self._learnt[shape] = learn(shape) if numbers else ()
        if len(picks) == len(numbers) and len(self._templates) < _MOST_TEMPLATES:
            self._templates[key] = _Template(slots, tuple(picks), shape, bool(date))
        return Line(slots, tuple(numbers), date, shape) if numbers else None
