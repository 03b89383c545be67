"""`fitdoctor rule [CODE|NAME]`: which rules there are, and the manual page of one."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem


class RuleName(click.ParamType[Any]):
    """The code or the name of a rule, completed by the shell."""

    name = "code or name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names and codes that begin with what has been typed."""
        from fitdoctor import catalogue

        keys = [(key, r.summary) for r in catalogue.entries() for key in (r.name, r.code)]
        return [CompletionItem(key, help=text) for key, text in keys if key.lower().startswith(incomplete.lower())]


@click.command(short_help="List the rules, or explain one.")
@click.argument("name", required=False, type=RuleName(), metavar="[CODE|NAME]")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["terminal", "json", "markdown", "causes", "changes"]),
    default="terminal",
    show_default=True,
    help="What to write; causes draws which rule accounts for which, changes lists what a remedy may change.",
)
def rule(name: str | None, format_: str) -> None:
    """List the rules, or show the manual page of the one with that CODE or NAME."""
    from fitdoctor import catalogue, manual

    rules = [catalogue.find_entry(name)] if name else list(catalogue.entries())
    if format_ == "json":
        click.echo(manual.as_json(rules))
    elif format_ == "causes":
        from fitdoctor import causes

        click.echo(causes.page(catalogue.rules()), nl=False)
    elif format_ == "changes":
        from fitdoctor import knobs

        click.echo(knobs.page(), nl=False)
    elif format_ == "markdown":
        click.echo(manual.as_markdown(rules), nl=False)
    else:
        from rich.console import Console

        from fitdoctor.reporters.page import Page

        page = Page(Console())
        manual.show_page(rules[0], page) if name else manual.show_list(rules, page)
