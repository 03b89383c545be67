"""The manual of the rules: terminal page, JSON and Markdown, all made from the rules themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from fitdoctor.preflight.probe import Probe
from fitdoctor.reporters.page import Page, Piece
from fitdoctor.rule import Rule, sections, wanted

Entry = Rule | Probe

_OPTION = re.compile(r"^`{0,2}(\w+)`{0,2}:\s*(.*)$")


def needs(rule: Entry) -> list[str]:
    """What must be logged, or given to a probe, one entry per need; members of a choice are joined by "or"."""
    return list(rule.needs) if isinstance(rule, Probe) else [wanted(need) for need in rule.needs]


def option_texts(rule: Entry) -> dict[str, str]:
    """What the manual says of each option, "" where it says nothing."""
    texts: dict[str, str] = dict.fromkeys(rule.options, "")
    current = ""
    for line in sections(rule.manual).get("Options", "").splitlines():
        match = _OPTION.match(line)
        if match and match[1] in texts:
            current, texts[match[1]] = match[1], match[2].strip()
        elif current and line.strip():
            texts[current] += " " + line.strip()
    return texts


def as_json(rules: Sequence[Entry]) -> str:
    """The rules as a JSON list."""
    return json.dumps([_plain(rule) for rule in rules], indent=2)


def as_markdown(rules: Sequence[Entry]) -> str:
    """The rules as one Markdown page; `docs/rules.md` is this page of all rules."""
    if len(rules) == 1:
        return "\n".join(_markdown_page(rules[0], level=1)).rstrip() + "\n"
    lines = ["# The rules", "", "Made by `fitdoctor rule --format markdown`; edit the rules instead.", ""]
    for family, members in groupby(sorted(rules, key=lambda r: (r.family, r.code)), key=lambda r: r.family):
        lines += [f"## {_title(family)}", "", "| code | rule | what it finds |", "|---|---|---|"]
        listed = list(members)
        lines += [f"| {r.code} | [{r.name}](#{r.code.lower()}-{r.name}) | {r.summary} |" for r in listed]
        lines.append("")
        for rule in listed:
            lines += _markdown_page(rule, level=3)
    return "\n".join(lines).rstrip() + "\n"


def show_list(rules: Sequence[Entry], page: Page) -> None:
    """Write one entry per rule, by family: code, name, first line of the manual, what it needs."""
    longest = max((len(r.name) for r in rules), default=0)
    for family, members in groupby(sorted(rules, key=lambda r: (r.family, r.code)), key=lambda r: r.family):
        page.write((_title(family), "bold"))
        for rule in members:
            state = "" if rule.status == "stable" else f" [{rule.status}]"
            margin: tuple[Piece, ...] = (f"  {rule.code}  ", (f"{rule.name:<{longest}}  ", "cyan"))
            page.write(rule.summary, (state, "yellow"), first=margin)
            page.write((f"needs {', '.join(needs(rule)) or 'nothing'}", "dim"), first=" " * (longest + 12))
        page.gap()
    page.write(f"{len(rules)} rules. ", ("`fitdoctor rule NAME` explains one.", "dim"))


def show_page(rule: Entry, page: Page) -> None:
    """Write the manual page of one rule."""
    page.write((rule.name, "bold cyan"), f"  {rule.code}, {_title(rule.family).lower()}", (_life(rule), "dim"))
    page.gap()
    parts = dict(sections(rule.manual))
    _paragraphs(page, parts.pop("", rule.summary), "")
    page.gap()
    page.write(("Needs", "bold"))
    page.write("; ".join(needs(rule)) or "nothing", first="  ")
    if isinstance(rule, Probe):
        page.write(str(rule.cost), first=(("  costs  ", "dim"),))
    if rule.explains:
        page.write(", ".join(rule.explains), first=(("  accounts for  ", "dim"),))
    for title, text in parts.items():
        page.gap()
        page.write((title, "bold"))
        if title == "Options":
            _show_options(rule, page)
        else:
            _paragraphs(page, text, "  ")


def _show_options(rule: Entry, page: Page) -> None:
    for name, text in option_texts(rule).items():
        page.write((name, "cyan"), (f" = {rule.options[name]!r}  ", "dim"), text, first="  ", rest="      ")
    if rule.options:
        page.write((f"set them in [tool.fitdoctor.rules.{rule.name}]", "dim"), first="  ")


def _paragraphs(page: Page, text: str, indent: str) -> None:
    """Write text, its paragraphs wrapped anew; list items stay items."""
    for i, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if i:
            page.gap()
        for item in re.split(r"\n(?=\s*(?:[-*]|\d+\.)\s)", paragraph):
            page.write(" ".join(item.split()), first=indent)


def _title(family: str) -> str:
    return family.replace("_", " ").capitalize()


def _life(rule: Entry) -> str:
    parts = [f"since {rule.since}", rule.status if rule.status != "stable" else ""]
    parts.append("" if rule.live else "judges finished runs only")
    return "  (" + ", ".join(p for p in parts if p) + ")"


def _plain(rule: Entry) -> dict[str, Any]:
    texts = option_texts(rule)
    return {
        "code": rule.code,
        "name": rule.name,
        "family": rule.family,
        "summary": rule.summary,
        "needs": needs(rule),
        "explains": list(rule.explains),
        **({"cost": str(rule.cost)} if isinstance(rule, Probe) else {}),
        "since": rule.since,
        "status": rule.status,
        "live": rule.live,
        "vital": rule.vital,
        "options": {key: {"default": value, "doc": texts[key]} for key, value in rule.options.items()},
        "manual": rule.manual,
    }


def _markdown_page(rule: Entry, level: int) -> list[str]:
    head, sub = "#" * level, "**"
    parts = dict(sections(rule.manual))
    lines = [f"{head} {rule.code} {rule.name}", "", _reflowed(parts.pop("", rule.summary)), ""]
    life = rule.since if rule.status == "stable" else f"{rule.since}, {rule.status}"
    lines.append(f"Needs {'; '.join(needs(rule)) or 'nothing'}. Since {life}.")
    if isinstance(rule, Probe):
        lines[-1] += f" Costs {rule.cost}."
    if rule.explains:
        lines[-1] += " Accounts for " + ", ".join(rule.explains) + "."
    lines.append("")
    for title, text in parts.items():
        lines += [f"{sub}{title}{sub}", ""]
        if title == "Options":
            texts = option_texts(rule)
            lines += ["| option | default | meaning |", "|---|---|---|"]
            lines += [
                f"| `{key}` | `{value!r}` | {texts[key].replace('|', chr(92) + '|')} |"
                for key, value in rule.options.items()
            ]
            lines.append("")
        else:
            lines += [_reflowed(text), ""]
    return lines


def _reflowed(text: str) -> str:
    """Paragraphs with one line each, so that a change of indentation in a docstring changes no document."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    items = ["\n".join(" ".join(i.split()) for i in re.split(r"\n(?=\s*(?:[-*]|\d+\.)\s)", p)) for p in paragraphs]
    return "\n\n".join(items)
