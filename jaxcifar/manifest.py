"""Manifests: size and digest of files, so that damaged or unfinished ones are recognized.

A manifest is written after the files that it covers, by rename: files without one are unfinished.
"""

import hashlib
import json
import os
import pathlib
from typing import Any, Literal

Condition = Literal["intact", "unfinished", "damaged"]


def write(path: pathlib.Path) -> None:
    """Writes the manifest of a file, or of all files in a directory, once they are on the disk.

    Raises:
        OSError: a file cannot be read or the manifest cannot be written.
    """
    write_json(path_for(path), _describe(path, sync=True))


def check(path: pathlib.Path) -> Condition:
    """Returns whether a file, or every file in a directory, is as its manifest says."""
    try:
        expected = json.loads(path_for(path).read_bytes())
    except FileNotFoundError:
        return "unfinished"
    except (OSError, ValueError, RecursionError):
        return "damaged"
    try:
        return "intact" if _describe(path) == expected else "damaged"
    except OSError:
        return "damaged"


def path_for(path: pathlib.Path) -> pathlib.Path:
    """Returns the path of the manifest of a file (beside it) or a directory (inside)."""
    return path / "manifest.json" if path.is_dir() else path.with_name(f"{path.name}.manifest.json")


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a file so that a reader, or a crash, finds either the old or the new content.

    Raises:
        OSError: it cannot be written; the old content is still there.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically.

    Raises:
        OSError: it cannot be written; the old content is still there.
    """
    write_atomically(path, json.dumps(value, indent=1) + "\n")


def _describe(path: pathlib.Path, *, sync: bool = False) -> dict[str, dict[str, int | str]]:
    """Returns the size and digest of a file, or of every file in a directory, by relative path."""
    files = {"": path}
    if path.is_dir():
        files = {str(f.relative_to(path)): f for f in sorted(path.rglob("*")) if f.is_file()}
        files.pop("manifest.json", None)
    return {name: _describe_file(file, sync) for name, file in files.items()}


def _describe_file(file: pathlib.Path, sync: bool) -> dict[str, int | str]:
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
        if sync:
            os.fsync(stream.fileno())
        return {"size": stream.tell(), "blake2b": digest.hexdigest()}
