"""A page of text on a terminal: wrapped lines with hanging indents, harmless and encodable."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from fitdoctor.reporters.chart import ASCII, UNICODE, Glyphs
from fitdoctor.reporters.harmless import spelled

WIDEST = 100
"""Longest line of prose; longer ones are hard to follow."""

NARROWEST = 20
"""Shortest line of prose."""

_NEEDED = "⣿▁█×▲│└─✓✗·"

Piece = str | tuple[str, str]


class Page:
    """Writes pieces of styled text to a console.

    Nothing is ever parsed as rich markup: pieces are text, styles are given beside them.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = max(30, min(console.width, WIDEST))
        try:
            _NEEDED.encode(console.encoding)
            self.plain = False
        except (UnicodeEncodeError, LookupError):
            self.plain = True

    @property
    def glyphs(self) -> Glyphs:
        """What charts are drawn with on this console."""
        return ASCII if self.plain else UNICODE

    def text(self, *pieces: Piece) -> Text:
        """Pieces of text, each a string or a (string, style) pair, spelled as the console can show them."""
        text = Text()
        for piece in pieces:
            words, style = (piece, "") if isinstance(piece, str) else piece
            text.append(spelled(words, self.console.encoding), style)
        return text

    def write(self, *pieces: Piece, first: str | Sequence[Piece] = "", rest: str | None = None) -> None:
        """Write a paragraph, wrapped.

        Args:
            pieces: what to write.
            first: what stands before the first line: a margin, a label.
            rest: what stands before the others; as many blanks as `first` is long when left out.
        """
        before = self.text(first) if isinstance(first, str) else self.text(*first)
        text = self.text(*pieces)
        rest = " " * len(before) if rest is None else rest
        if self.width - len(before) < NARROWEST:  # no room for a column: the label runs on into the text
            text, rest = before + text, rest[:4]
            before = Text()
        lines = text.wrap(self.console, self.width - max(len(before), len(rest)))
        for i, line in enumerate(lines or [Text()]):
            line.rstrip()
            self._print((before if i == 0 else Text(rest)) + line)

    def verbatim(self, *pieces: Piece) -> None:
        """Write one line as it is, however long: code is for pasting."""
        self._print(self.text(*pieces))

    def gap(self) -> None:
        """An empty line."""
        self._print(Text())

    def _print(self, text: Text) -> None:
        text.rstrip()
        if text.plain.lstrip().startswith("::"):
            # A wrapped line of hostile text: in the log of a GitHub job it would be a workflow command.
            text = Text("\\") + text
        self.console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)
