"""Report -> HTML: one file with everything in it, for one run or for many.

The file asks for nothing: a content security policy lets only the script and the style in it run, by their hashes,
so that text of a log that looked like a script could not. The data of each run lie in a script element of type
application/json: the row of the list as it is, the rest packed (gzip in base64).
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from html import escape
from typing import Any

from fitdoctor.report import Report
from fitdoctor.reporters import wording
from fitdoctor.reporters.script import joined, static
from fitdoctor.reporters.sheet import handle, row, sheet


def stream(reports: Iterable[Report]) -> Iterator[str]:
    """The page in pieces, one per report.

    Args:
        reports: what to show; with their layer maps (`diagnose(run, layers=True)`) heat maps are drawn too.
    """
    style, script = static("style.css"), joined("page.js")
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:"
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<title>fitdoctor</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n"
        '<main id="fitdoctor"></main>\n'
    )
    told: list[str] = []
    for report in reports:
        data = {**row(report), "packed": _packed(sheet(report))}
        yield f'<script type="application/json" class="run-data">{_inert(data)}</script>\n'
        told.append(_in_words(report))
    # Without a script there is still the verdict; last, for it is known last.
    yield (
        "<noscript><p>The charts and remedies of this report need JavaScript; nothing is loaded from elsewhere.</p>"
        f"<ul>{''.join(told)}</ul></noscript>\n"
        f'<script type="module">{script}</script>\n</body>\n</html>\n'
    )


def render(reports: Iterable[Report]) -> str:
    """The whole page."""
    return "".join(stream(reports))


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _packed(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    return b64encode(gzip.compress(text, mtime=0)).decode()  # mtime=0: the same report is the same file


def _inert(data: Any) -> str:
    """JSON that cannot end the script element it stands in, or begin a comment there."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _in_words(report: Report) -> str:
    verdict, reason = wording.headline(report)
    root = f" ({report.diagnoses[0].root.rule})" if report.verdict == "sick" and report.diagnoses else ""
    return f"<li>{escape(handle(report.run))} {escape(verdict)}{escape(root)}: {escape(reason)}</li>"
