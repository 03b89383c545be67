"""Report -> text, one file per format.

Each format offers ``stream(reports, ...) -> Iterator[str]``, pieces of text that are ready as early
as the format allows, and ``render(reports, ...) -> str``, all of them joined. The terminal is the
exception: it draws on a `rich.console.Console`.

Whatever comes from a log (run names, tags, layer names) is hostile text until it has passed
`fitdoctor.reporters.harmless`.
"""

FORMATS = ("terminal", "json", "markdown", "html", "github", "sarif", "junit")
"""Names of the formats, as ``--format`` takes them."""
