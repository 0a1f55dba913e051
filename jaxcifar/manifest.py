"""Manifests: size and digest of files, so that damaged or unfinished ones are recognized.

A manifest is written after the files that it covers, by rename: files without one are unfinished.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal

Condition = Literal["intact", "unfinished", "damaged"]


def write(path: pathlib.Path) -> None:
    """Writes the manifest of a file, or of all files in a directory, once they are on the disk.

    Raises:
        OSError: a file cannot be read or the manifest cannot be written.
    """
    names = [""]
    if path.is_dir():
        below = sorted(path.rglob("*"))
        names = [str(file.relative_to(path)) for file in below if file.is_file()]
        for directory in (entry for entry in below if entry.is_dir()):
            sync_directory(directory)
    write_json(path_for(path), _describe(path, names, sync=True))


def check(path: pathlib.Path) -> Condition:
    """Returns whether a file, or the files in a directory, are as the manifest says. Files that it
    does not list do not matter.

    Raises:
        OSError: the disk cannot be read, which says nothing about the files.
    """
    try:
        expected = json.loads(path_for(path).read_bytes())
        return "intact" if _describe(path, expected) == expected else "damaged"
    except FileNotFoundError:
        return "damaged" if path_for(path).exists() else "unfinished"
    except (NotADirectoryError, IsADirectoryError, ValueError, TypeError, RecursionError):
        return "damaged"


def path_for(path: pathlib.Path) -> pathlib.Path:
    """Returns the path of the manifest of a file (beside it) or a directory (inside)."""
    return path / "manifest.json" if path.is_dir() else path.with_name(f"{path.name}.manifest.json")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path to write a file to, which replaces `path` when the context is left without an
    error: a reader, or a crash, finds either the old or the new content.

    Raises:
        OSError: it cannot be written; the old content is still there.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a text file as `replacing` does, with the same errors."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file,
    ):
        file.write(text)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically.

    Raises:
        OSError: it cannot be written; the old content is still there.
    """
    write_atomically(path, json.dumps(value, indent=1) + "\n")


def sync_directory(path: pathlib.Path) -> None:
    """Waits until the names in a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _describe(
    path: pathlib.Path, names: Iterable[str], *, sync: bool = False
) -> dict[str, dict[str, int | str]]:
    """Returns the sizes and digests of files by relative path; "" stands for the path itself."""
    return {name: _describe_file(path / name if name else path, sync) for name in names}


def _describe_file(file: pathlib.Path, sync: bool) -> dict[str, int | str]:
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
        if sync:
            os.fsync(stream.fileno())
        return {"size": stream.tell(), "blake2b": digest.hexdigest()}
