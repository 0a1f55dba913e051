"""Named arrays in a directory, through Orbax: checkpoints and ported weights."""

import pathlib
from collections.abc import Mapping

import jax
import numpy as np
import orbax.checkpoint as ocp


def write(directory: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name to a new directory.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(directory.absolute(), dict(arrays))
    except ValueError as error:  # how tensorstore reports a full disk
        raise OSError(f"{directory} cannot be written: {error}") from error


def read(directory: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays in a directory by name.

    What it raises for damaged files is undocumented: check them first (see `manifest`).
    """
    handler = ocp.PyTreeCheckpointHandler()
    saved = handler.metadata(directory.absolute()).tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
    return handler.restore(
        directory.absolute(), args=ocp.args.PyTreeRestore(saved, restore_args=as_numpy)
    )
