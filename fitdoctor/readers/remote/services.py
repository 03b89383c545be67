"""What serves a URL, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fitdoctor.errors import ReadError
from fitdoctor.readers.tags.words import word_set
from fitdoctor.readers.urls import protocol, shown

_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "az": "adlfs",
    "abfs": "adlfs", "abfss": "adlfs", "http": "aiohttp", "https": "aiohttp", "sftp": "paramiko", "ssh": "paramiko",
    "oci": "ocifs", "oss": "ossfs", "smb": "smbprotocol",
}  # fmt: skip
"""The package that fsspec wants for a protocol."""
_LOG_IN = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for a public bucket FSSPEC_S3_ANON=true",
    "gs": "run `gcloud auth application-default login`, or for a public bucket set FSSPEC_GS_TOKEN=anon",
    "hf": "run `hf auth login`, or set HF_TOKEN",
}
_LOG_IN |= {"s3a": _LOG_IN["s3"], "gcs": _LOG_IN["gs"]}

# Names, because the packages that define these classes are not ours to import.
_NO_CREDENTIALS = word_set(
    """
    NoCredentialsError PartialCredentialsError CredentialRetrievalError TokenRetrievalError SSOTokenLoadError
    UnauthorizedSSOTokenError ProfileNotFound DefaultCredentialsError RefreshError LocalTokenNotFoundError
    """
)
_NOTHING_THERE = word_set(
    "FileNotFoundError NotADirectoryError RepositoryNotFoundError RevisionNotFoundError EntryNotFoundError"
)
_NOT_REACHED = word_set(
    """
    ConnectionError ConnectTimeout ReadTimeout EndpointConnectionError HTTPClientError ClientConnectorError
    ClientConnectionError ServerDisconnectedError gaierror TimeoutError FSTimeoutError SSLError OfflineModeIsEnabled
    """
)


def connected(url: str) -> tuple[Any, str]:
    """The file system that serves a URL, and the path of the URL in it.

    Raises:
        ReadError: if a package is missing, the protocol is unknown, or the service refuses.
    """
    package = _PACKAGES.get(protocol(url), "")
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        wanted = f" {package}" if package else ""
        raise ReadError(
            f"{shown(url)}: logs at a URL are read through fsspec, which is not installed; "
            f"pip install 'fitdoctor[remote]'{wanted}"
        ) from None
    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        what = f"pip install {package}" if package else str(error)
        raise ReadError(f"{shown(url)}: {protocol(url)}:// needs a package that is not installed; {what}") from error
    except ValueError as error:
        if "rotocol not known" in str(error):
            raise ReadError(
                f"{shown(url)}: expected a path, or a URL such as s3://, gs://, hf://, az://, https:// or sftp://; "
                f"got the protocol {protocol(url)!r}, which fsspec does not know"
            ) from error
        raise ReadError(why(url, error)) from error
    except Exception as error:
        raise ReadError(why(url, error)) from error
    return fs, str(path)


def why(url: str, error: BaseException) -> str:
    """What went wrong at a URL, and what to do: the services all say it in ways of their own."""
    names = {cls.__name__ for one in _chain(error) for cls in type(one).__mro__}
    status = {code for one in _chain(error) if (code := getattr(one, "status", None)) is not None}
    said = " ".join(str(error).split()).replace(url, shown(url))
    said = re.sub(r"(https?://[^\s'\"?]+)\?[^\s'\"]*", r"\1", said)
    said = f"{type(error).__name__}: {said[:300]}" if said else type(error).__name__
    log_in = _LOG_IN.get(protocol(url.rpartition("::")[2]), "log in as its own tools want it")
    if names & _NO_CREDENTIALS or "nonymous caller" in said:
        text = f"no credentials to read it with; {log_in}"
    elif "PermissionError" in names or status & {401, 403}:
        text = f"access was denied; check that you may list and read it, or {log_in}"
    elif names & _NOTHING_THERE or 404 in status:
        text = "expected logs, but there is no such bucket, folder or file; check the spelling"
    elif names & _NOT_REACHED:
        text = "the service was not reached; check the network and the address"
    else:
        text = "could not be read"
    return f"{shown(url)}: {text} ({said})"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it."""
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
