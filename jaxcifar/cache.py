"""The user's cache: prepared image arrays, ported weights, compiled programs."""

import os
import pathlib
from collections.abc import Callable

import numpy as np

from jaxcifar import manifest
from jaxcifar.spec import ConfigError


def directory() -> pathlib.Path:
    """Returns the cache directory: $JAXCIFAR_CACHE, else $XDG_CACHE_HOME/jaxcifar, else
    ~/.cache/jaxcifar.

    Raises:
        ConfigError: there is no home directory, or $JAXCIFAR_CACHE is not a directory.
    """
    own = os.environ.get("JAXCIFAR_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        path = pathlib.Path(own or pathlib.Path(user) / "jaxcifar").expanduser()
    except RuntimeError as error:  # there is no such home
        raise ConfigError(
            f"there is no home directory for the cache, {own or user!r}: set JAXCIFAR_CACHE to a "
            "directory"
        ) from error
    if own and path.exists() and not path.is_dir():
        raise ConfigError(f"JAXCIFAR_CACHE={own!r} is not a directory")
    return path


def load_or_make(path: pathlib.Path, make: Callable[[], np.ndarray], stale: str = "") -> np.ndarray:
    """Returns the array in the file `path` if its manifest vouches for it, else `make()`, which is
    then saved.

    Args:
        path: a .npy file; written atomically, safe with concurrent writers.
        make: computes the array.
        stale: a glob of files in the same directory, which a new file replaces.
    """
    if manifest.check(path) == "intact":
        return np.load(path)
    array = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(stale) if stale else ():
            manifest.path_for(old).unlink(missing_ok=True)
            old.unlink(missing_ok=True)
        with manifest.replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, array)
        manifest.write(path)
    except OSError as error:
        print(f"{path} could not be saved ({error}); it will be made again next time")
    return array
