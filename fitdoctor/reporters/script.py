"""The script of the page: ES modules for the tab, and the same joined into one for a file."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let)\b)", re.MULTILINE)


def static(name: str) -> str:
    """A file of the page as it stands in the package.

    Raises:
        FileNotFoundError: if there is none of this name.
    """
    if not re.fullmatch(r"[a-z]+\.(js|css)", name):
        raise FileNotFoundError(name)
    return files("fitdoctor.reporters").joinpath("static", name).read_text("utf-8")


@cache
def joined(entry: str) -> str:
    """A module and all that it imports as one module, each after those that it needs.

    The modules share one scope then, so their top-level names must differ; a file that is opened from a disk may
    not import another.
    """
    done: dict[str, str] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in done or name in above:
            return
        text = static(name)
        for needed in _IMPORT.findall(text):
            add(needed, (*above, name))
        done[name] = f"// --- {name}\n" + _EXPORT.sub("", _IMPORT.sub("", text))

    add(entry, ())
    return "".join(done.values())
