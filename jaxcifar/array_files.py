"""Named arrays in a directory, through Orbax: checkpoints and ported weights."""

import os
import pathlib
import re
from collections.abc import Mapping

import jax
import numpy as np
import orbax.checkpoint as ocp


def write(directory: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name to a new directory.

    Raises:
        OSError: it cannot be written.
    """
    process = jax.process_index()
    # By default Orbax has all processes of a run write together, and wait for each other.
    alone = ocp.options.MultiprocessingOptions(process, active_processes={process})
    try:
        with ocp.Checkpointer(
            ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
            multiprocessing_options=alone,
        ) as checkpointer:
            checkpointer.save(directory.absolute(), dict(arrays))
    except ValueError as error:  # how TensorStore reports errors of the file system
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if not code:
            raise
        number = int(code[1])
        raise OSError(number, os.strerror(number), str(directory)) from error


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
