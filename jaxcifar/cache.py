"""The user's cache: prepared image arrays, ported weights, compiled programs."""

import os
import pathlib
from collections.abc import Callable

import numpy as np


def directory() -> pathlib.Path:
    """Returns the cache directory: $JAXCIFAR_CACHE, else $XDG_CACHE_HOME/jaxcifar, else
    ~/.cache/jaxcifar.
    """
    own = os.environ.get("JAXCIFAR_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(own or pathlib.Path(user) / "jaxcifar").expanduser()


def load_or_make(path: pathlib.Path, make: Callable[[], np.ndarray], stale: str = "") -> np.ndarray:
    """Returns the array in the file `path` if it can be read, else `make()`, which is then saved.

    Args:
        path: a .npy file; written atomically, safe with concurrent writers.
        make: computes the array.
        stale: a glob of files in the same directory, which a new file replaces.
    """
    try:
        return np.load(path)
    except (OSError, ValueError, EOFError):
        array = make()
    temporary = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(stale) if stale else ():
            old.unlink(missing_ok=True)
        with open(temporary, "wb") as file:
            np.save(file, array)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        print(f"Could not cache the images ({error}); they will be prepared again next time.")
    return array
