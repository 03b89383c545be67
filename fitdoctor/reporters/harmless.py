"""Text of a log made harmless: nothing in it can steer a terminal, a parser or a reader's eye.

A run name or a tag may hold anything a file system or a logger lets through: escape sequences that
recolour or rewrite the screen, newlines that fake another finding, characters that reverse the
reading order, or halves of surrogate pairs (file names that are not UTF-8).
"""

from __future__ import annotations

import re

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, erase
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC, DCS, SOS, PM, APC: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]"  # the two-character sequences
    r"|\x9b[0-?]*[ -/]*[@-~]",  # CSI as one C1 character
    re.DOTALL,
)

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # C0 without tab and newlines, DEL, C1
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"  # zero width, reading order
)

_RUNNER_COMMAND = re.compile(r"^(\s*)::", re.MULTILINE)

_UNENCODABLE = re.compile("[\ud800-\udfff\ufffe\uffff]")  # half pairs, and what XML forbids

ASCII_FOR = str.maketrans(
    {
        "×": "x", "÷": "/", "±": "+/-", "≥": ">=", "≤": "<=", "≈": "~", "≠": "!=", "→": "->", "←": "<-",
        "–": "-", "—": "-", "−": "-", "…": "...", "·": "-", "•": "*", "µ": "u", "μ": "u", "σ": "sigma",
        "∞": "inf", "√": "sqrt", "Δ": "d", "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "²": "^2",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ",
    }
)  # fmt: skip
"""What to write where the output cannot hold the character."""


def several_lines(text: str) -> str:
    """The text without escape sequences and invisible characters; tabs and newlines are kept.

    Example:
        >>> several_lines("a\\x1b[31mred\\x1b[0m\\r\\nb\\x00")
        'ared\\nb'
    """
    text = _ESCAPE_SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    text = _UNENCODABLE.sub("\ufffd", _INVISIBLE.sub("", text))
    # In the log of a GitHub job both are commands to the runner: one at the start of a line, one anywhere.
    return _RUNNER_COMMAND.sub(r"\1: :", text).replace("##[", "## [")


def one_line(text: str, most: int = 0) -> str:
    """The text as one line: white space becomes single spaces; cut in the middle if longer than `most`.

    Example:
        >>> one_line("run\\n::error::fake")
        'run : :error::fake'
        >>> one_line("a-very-long-name", 9)
        'a-ve…name'
    """
    line = " ".join(several_lines(text).split())
    if most and len(line) > most:
        head = most // 2
        line = line[:head] + "…" + line[len(line) - (most - head - 1) :]
    return line


def spelled(text: str, encoding: str) -> str:
    """The text as an output of that encoding can hold it: common spellings first, then "?".

    Example:
        >>> spelled("3.1× above → 0.5…", "ascii")
        '3.1x above -> 0.5...'
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII_FOR).encode(encoding, "replace").decode(encoding)
    return text
