"""What an assistant may ask about the runs below some folders, over the Model Context Protocol (``fitdoctor mcp``).

    server.py    the tools and resources, as the `mcp` package offers them
    answers.py   each question and its answer, as text of bounded length
    shelf.py     the runs below the folders: found, judged, kept
    folders.py   which files may be read

`mcp` is imported by `server.py` alone. Nothing here writes to stdout, which belongs to the protocol.
"""
