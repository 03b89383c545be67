"""Places of logs that are given as URLs; nothing here needs a package or a network."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote
from urllib.request import url2pathname

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WITH_PASSWORDS = frozenset(("http", "https", "ftp", "sftp", "ssh", "smb", "webdav"))


def is_url(place: str | Path) -> bool:
    """Whether a place is given as a URL, and not as a path.

    Example:
        >>> is_url("s3://bucket/logs"), is_url("logs/run1"), is_url("C:/logs")
        (True, False, False)
    """
    return isinstance(place, str) and _URL.match(place) is not None


def local_path(url: str) -> Path | None:
    """The path that a ``file://`` URL means; None for any other."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("file", "local"):
        return None
    plain = Path(rest)
    return plain if plain.exists() else Path(url2pathname(rest.removeprefix("localhost")))


def protocol(url: str) -> str:
    """What stands before ``://``."""
    found = _URL.match(url)
    return found[1].lower() if found else ""


def shown(url: str) -> str:
    """The URL as it may be shown and stored: no password, no signature, no "/" at the end; a path stays as it is.

    Example:
        >>> shown("https://me:secret@host/logs/metrics.csv?X-Amz-Signature=0123")
        'https://host/logs/metrics.csv'
        >>> shown("s3://bucket/logs/")
        's3://bucket/logs'
    """
    if not is_url(url):
        return url
    first, chained, rest = url.partition("::")
    if protocol(first) in _WITH_PASSWORDS:
        first = re.sub(r"://[^/@]*@", "://", re.split(r"[?#]", first)[0])
    scheme, mark, rest_of_it = first.partition("://")
    first = f"{scheme}{mark}{rest_of_it.rstrip('/')}"
    return f"{first}::{shown(rest)}" if chained else first


def below(url: str, inside: str) -> str:
    """The URL of something inside the folder that a URL names; a chained one grows in its first link.

    Example:
        >>> below("s3://bucket/logs", "run1"), below("zip://::s3://bucket/logs.zip", "run1")
        ('s3://bucket/logs/run1', 'zip://run1::s3://bucket/logs.zip')
    """
    if not inside:
        return url
    first, chained, rest = url.partition("::")
    return f"{first}{'' if first.endswith('/') else '/'}{inside}{chained}{rest}"


def place_of(url: str) -> tuple[str, ...]:
    """Names of folders under which the mirror of a URL is kept: the URL's own, made harmless."""
    scheme, _, rest = shown(url).partition("://")
    parts = [scheme.lower(), *(part for part in rest.split("/") if part)]
    # quote() leaves dots, and a name of dots only leads elsewhere.
    return tuple(re.sub(r"^\.+$", lambda m: "%2E" * len(m[0]), quote(part, safe=" @=+,()[]{}!#&'")) for part in parts)
