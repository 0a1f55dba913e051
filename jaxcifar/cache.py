"""What is kept between runs: decoded arrays and compiled programs, in the user's cache."""

import os
import pathlib
from collections.abc import Callable

import numpy as np


def directory() -> pathlib.Path:
    """Returns the cache's place: $JAXCIFAR_CACHE, else jaxcifar/ in the user's cache directory."""
    own = os.environ.get("JAXCIFAR_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(own or pathlib.Path(user) / "jaxcifar").expanduser()


def load_or_make(path: pathlib.Path, make: Callable[[], np.ndarray], stale: str = "") -> np.ndarray:
    """Returns the array in the file `path` if it can be read, else `make()`, which is then kept.

    Args:
        path: a .npy file; it appears whole or not at all, whoever else writes it.
        make: computes the array.
        stale: a glob of files beside `path` that a new one replaces.
    """
    try:
        return np.load(path)
    except (OSError, ValueError, EOFError):
        array = make()
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(stale) if stale else ():
            old.unlink(missing_ok=True)
        with open(part, "wb") as file:
            np.save(file, array)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        print(f"The decoded images could not be cached ({error}); the next start decodes again.")
    return array
