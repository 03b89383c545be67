"""Which files below a path are training logs, and which reader reads them.

Every file is offered to the readers from the most to the least specific; the first that recognises it
has it. Files are told apart by name where that is safe (event files) and by their first 4 KiB otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from fitdoctor.errors import ReadError
from fitdoctor.readers.raw import RawRun
from fitdoctor.readers.tags.words import word_set

HEAD = 4096
"""Bytes of a file that a reader sees before it decides."""
ENOUGH_REFUSALS = 64
"""So many files of one suffix in one folder that are no logs make it a data set: the rest is not opened,
unless its name is that of a log."""
_NAMED_LIKE_A_LOG = re.compile(
    r"metric|loss|log|history|result|train|progress|scalar|eval|summary|output", re.IGNORECASE
)


class Reader(Protocol):
    """What each reader module offers."""

    SOURCE: str

    def recognise(self, path: Path, head: bytes) -> bool:
        """Whether this file is one that `read` understands."""
        ...

    def home(self, path: Path) -> Path:
        """The key that groups the files of one `read` call."""
        ...

    def read(self, home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
        """The runs in these files."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A reader module and the files it may be offered.

    Attributes:
        module: name below `fitdoctor.readers`.
        suffixes: suffixes of names worth offering; empty means any text-like file.
        closed: whether nobody else may read below a folder that this reader has claimed.
        magic: how its files begin, whatever they are called; empty where they begin in no certain way.
    """

    module: str
    suffixes: frozenset[str] = frozenset()
    closed: bool = False
    magic: bytes = b""


_JSON_OR_TEXT = frozenset({".json", ".jsonl", ".log", ".txt", ""})
"""What a file of JSON may be called by whoever saved it."""

KINDS = (
    Kind("wandb_offline", word_set(".wandb"), closed=True, magic=b":W&B"),
    Kind("swanlab_offline", word_set(".swanlab"), closed=True, magic=b":SWL"),
    Kind("mlflow_store", word_set(".yaml .db .sqlite .sqlite3"), closed=True, magic=b"SQLite format 3\0"),
    Kind("trackio_store", word_set(".db .sqlite .sqlite3"), magic=b"SQLite format 3\0"),
    Kind("dvclive", word_set(".tsv .json"), closed=True),
    Kind("clearml_offline", _JSON_OR_TEXT | {".zip"}, closed=True),
    Kind("hf_trainer", _JSON_OR_TEXT),
    Kind("keras_history", _JSON_OR_TEXT),
    Kind("csv_table"),
    Kind("jsonl"),
    Kind("text_log"),
)
"""All readers but TensorBoard's, whose files are known by name; the more specific first."""

_NOT_LOGS = word_set(
    """
    .pt .pth .ckpt .safetensors .bin .npz .onnx .h5 .hdf5 .keras .pb .tflite .msgpack .gguf .parquet
    .arrow .lmdb .png .jpg .jpeg .gif .bmp .svg .webp .tif .tiff .mp4 .avi .mov .wav .mp3 .flac .gz
    .bz2 .xz .zst .tar .7z .rar .whl .so .o .a .dll .exe .pyc .py .pyi .ipynb .c .cc .cpp .cu .h
    .hpp .rs .go .java .js .ts .css .html .htm .md .rst .tex .pdf .ps .doc .docx .ppt .pptx .xls
    .xlsx .sh .bat .cfg .ini .toml .lock .idx .model .vocab .bpe .spm .db-wal .db-shm .sqlite-wal
    .mat .nii .dcm .ttf .woff .map
    """
)
_ONLY_SOME = word_set(".yaml .yml .db .sqlite .sqlite3 .wandb .swanlab .npy .pkl .zip")
"""Suffixes that only the readers naming them are offered."""
_NOT_LOG_NAMES = word_set(
    """
    requirements.txt package.json package-lock.json tsconfig.json vocab.json vocab.txt merges.txt
    tokenizer.json tokenizer_config.json special_tokens_map.json generation_config.json config.json
    preprocessor_config.json license license.txt readme readme.txt notice makefile dockerfile
    conda-environment.yaml wandb-metadata.json
    """
)
_SKIPPED_FOLDERS = word_set(
    """
    __pycache__ node_modules site-packages dist-packages venv env virtualenv __MACOSX lost+found
    """
)
_HIDDEN_STORES = frozenset({".guild", ".wandb", ".clearml"})
_IN_A_RUN = ("wandb_offline", "swanlab_offline")
"""Loggers that write one file of their own into the folder of a run, beside what only they can read."""
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Found:
    """Files that one `read` call of one reader takes.

    Attributes:
        module: the reader.
        home: what the reader groups them by: a folder, or the file itself.
        files: the files, in natural order.
    """

    module: str
    home: Path
    files: tuple[Path, ...]

    @property
    def place(self) -> Path:
        """The folder it belongs to."""
        (first, *rest) = self.files
        is_file = not rest and self.home.name == first.name and self.home == first  # names first: paths compare slowly
        return self.home.parent if is_file else self.home


@dataclass(slots=True)
class Survey:
    """What a walk saw.

    Attributes:
        found: the logs.
        files: number of files seen.
        folders: number of folders seen.
        suffixes: how many files there were by suffix, for the message when nothing was a log.
        refused: the first files that were looked into and are no log.
        unreadable: folders and files that could not be opened, with the reason.
    """

    found: list[Found] = field(default_factory=list)
    files: int = 0
    folders: int = 0
    suffixes: dict[str, int] = field(default_factory=dict)
    refused: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


@cache
def reader(module: str) -> Reader:
    """A reader by module name, imported when first asked for."""
    return cast(Reader, import_module(f"fitdoctor.readers.{module}"))


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts run2 before run10."""
    return [(0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(_DIGITS.split(text))]


class Tree(Protocol):
    """Files that are listed elsewhere than on the local disk."""

    @property
    def single(self) -> bool:
        """Whether the root is a file."""
        ...

    def folders(self, seen: Survey) -> Iterator[tuple[Path, list[str]]]:
        """Each folder below the root with the names of its files, in natural order."""
        ...

    def head(self, path: Path) -> bytes:
        """The first bytes of a file; it then is on the local disk, as far as readers look before they recognise it."""
        ...


def survey(root: Path, *, links: bool = True, tree: Tree | None = None) -> Survey:
    """Walk everything below a path.

    Args:
        root: a folder or a file.
        links: follow symbolic links that lead out of the root; without, no file elsewhere is ever opened.
        tree: lists the files and brings their first bytes; None for the local disk.

    Raises:
        ReadError: if the path does not exist or cannot be opened.
    """
    seen = Survey()
    claims: dict[tuple[str, Path], list[Path]] = {}
    head = read_head if tree is None else tree.head
    if tree.single if tree is not None else not root.is_dir():
        if tree is None and not root.exists():
            raise ReadError(f"{root}: expected a log file or a folder with logs, but there is no such path")
        seen.files = 1
        if (kind := _claim(root, root.name, seen, head, offered_by_user=True)) is not None:
            claims.setdefault((kind, reader(kind).home(root)), []).append(root)
    else:
        for folder, files in _folders(root, seen, links) if tree is None else tree.folders(seen):
            _claim_all(folder, files, seen, claims, head)
    seen.found = [Found(module, home, tuple(files)) for (module, home), files in _open_claims(claims)]
    return seen


def _folders(root: Path, seen: Survey, links: bool) -> Iterator[tuple[Path, list[str]]]:
    """Each folder below the root with the names of its files, in natural order, links followed once."""
    real_root = os.path.realpath(root)
    visited: set[tuple[int, int]] = set()
    todo = [os.fspath(root)]
    while todo:
        folder = todo.pop()
        names: list[str] = []
        below: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink() and not (links and _worth_following(entry, real_root, visited)):
                        continue
                    if entry.is_dir():
                        if worth_entering(entry.name):
                            below.append(entry.name)
                    else:
                        names.append(entry.name)
        except OSError as error:
            if folder == os.fspath(root):
                raise ReadError(f"{root}: cannot list this folder: {error.strerror or error}") from error
            seen.unreadable.append((Path(folder), error.strerror or str(error)))
            continue
        seen.folders += 1
        seen.files += len(names)
        names.sort(key=natural)
        below.sort(key=natural, reverse=True)
        todo.extend(os.path.join(folder, name) for name in below)
        yield Path(folder), names


def worth_entering(name: str) -> bool:
    """Whether a folder of this name may hold logs."""
    if name.startswith("."):
        return name in _HIDDEN_STORES
    return name not in _SKIPPED_FOLDERS


def _worth_following(entry: os.DirEntry[str], real_root: str, visited: set[tuple[int, int]]) -> bool:
    """A link is followed once, and only out of the root: what lies inside is walked anyway."""
    try:
        target = os.path.realpath(entry.path)
        status = entry.stat()
    except OSError:
        return False
    if target == real_root or target.startswith(real_root + os.sep) or real_root.startswith(target + os.sep):
        return False
    key = (status.st_dev, status.st_ino)
    if key in visited:
        return False
    visited.add(key)
    return True


def could_be_log(name: str) -> bool:
    """Whether a file of this name, which is no event file, is worth looking into."""
    suffix = os.path.splitext(name)[1].lower()
    return not (suffix in _NOT_LOGS or name.startswith(".") or name.lower() in _NOT_LOG_NAMES or "tfevents" in name)


def only_some(name: str) -> bool:
    """Whether a file of this name is offered only to readers that name its suffix."""
    return os.path.splitext(name)[1].lower() in _ONLY_SOME


def _claim_all(
    folder: Path, names: Iterable[str], seen: Survey, claims: dict[tuple[str, Path], list[Path]],
    head: Callable[[Path], bytes],
) -> None:  # fmt: skip
    refusals: dict[str, int] = {}
    for name in names:
        if "tfevents" in name:
            claims.setdefault(("tensorboard", folder), []).append(folder / name)
            continue
        suffix = os.path.splitext(name)[1].lower()
        seen.suffixes[suffix] = seen.suffixes.get(suffix, 0) + 1
        if not could_be_log(name):
            continue
        if refusals.get(suffix, 0) >= ENOUGH_REFUSALS and not _NAMED_LIKE_A_LOG.search(name):
            continue
        path = folder / name
        if (kind := _claim(path, name, seen, head)) is not None:
            refusals[suffix] = -ENOUGH_REFUSALS
            claims.setdefault((kind, reader(kind).home(path)), []).append(path)
        else:
            refusals[suffix] = refusals.get(suffix, 0) + 1
            if len(seen.refused) < 3:
                seen.refused.append(path)


def _claim(
    path: Path, name: str, seen: Survey, first_bytes: Callable[[Path], bytes], offered_by_user: bool = False
) -> str | None:
    """The reader that recognises a file, or None."""
    if "tfevents" in name:
        return "tensorboard"
    suffix = os.path.splitext(name)[1].lower()
    try:
        head = first_bytes(path)
    except OSError as error:
        seen.unreadable.append((path, error.strerror or str(error)))
        return None
    if not head:
        return None
    for kind in KINDS:
        fits = suffix in kind.suffixes if kind.suffixes else suffix not in _ONLY_SOME
        if not (fits or offered_by_user or (kind.magic and head.startswith(kind.magic))):
            continue
        try:
            if reader(kind.module).recognise(path, head):
                return kind.module
        except Exception as error:  # one odd file must not hide all others
            seen.unreadable.append((path, f"{type(error).__name__}: {error}"))
            return None
    if offered_by_user and reader("tensorboard").recognise(path, head):
        return "tensorboard"
    return None


def read_head(path: Path) -> bytes:
    """The first 4 KiB of a file; nothing of what is no plain file (a pipe would block for ever)."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        return os.read(handle, HEAD)
    finally:
        os.close(handle)


def _open_claims(claims: dict[tuple[str, Path], list[Path]]) -> Iterator[tuple[tuple[str, Path], list[Path]]]:
    """The claims that stand: inside a store's folder only the store's own reader reads."""
    closed = {kind.module for kind in KINDS if kind.closed}
    stores = {home for (module, home), files in claims.items() if module in closed and home not in files}
    stores |= {home.parent for module, home in claims if module in _IN_A_RUN and "run-" in home.parent.name}
    for key, files in claims.items():
        module, home = key
        if stores and module not in closed and any(p in stores for p in (home, *home.parents)):
            continue
        yield key, files
