"""`fitdoctor mcp DIR...`: answer an assistant's questions about the runs below some folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fitdoctor.cli.options import Given, reading_options

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(short_help="Answer an assistant's questions about runs (Model Context Protocol).")
@click.argument("folders", nargs=-1, required=True, type=_FOLDER, metavar="DIR...")
@reading_options
def mcp(folders: tuple[Path, ...], pattern: str | None, **given: Any) -> None:
    """Serve the Model Context Protocol over stdin and stdout, for an assistant to start.

    Only what lies below DIR is read: no link out of it is followed, and no other path is opened.
    """
    from fitdoctor.errors import ConfigError
    from fitdoctor.many import ReportStore
    from fitdoctor.mcp_server import folders as allowed
    from fitdoctor.mcp_server.shelf import Shelf

    try:
        from fitdoctor.mcp_server.server import make_server
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise ConfigError(
            "mcp: expected the package mcp, version 2 or newer, got none that can be imported; "
            "pip install 'fitdoctor[mcp]'"
        ) from error
    store = ReportStore.default()
    if store is not None:
        store.prune()
    shelf = Shelf(allowed.folders(folders), Given(**given).settings(), store, pattern or "*")
    make_server(shelf).run("stdio")
