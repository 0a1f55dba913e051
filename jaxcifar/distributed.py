"""Several processes, on one machine or many, that train one run together.

Each holds all of the data and computes its share of every batch. Process 0 alone has the work
directory (see `followers`); what it has read and decided reaches the others through here. All of
these functions must be called by all processes, in the same order, by the main thread. Where there
is one process nothing is exchanged, and JAX is not imported.
"""

import collections
import contextlib
import functools
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from ml_collections import ConfigDict

from jaxcifar import errors
from jaxcifar.spec import ConfigError, first_line

Tree = TypeVar("Tree")

# JAX ends all processes this long after the last sign of life of one whose machine has gone.
HEARTBEAT_TIMEOUT_SECONDS = 20
INITIALIZATION_TIMEOUT_SECONDS = 300

_is_started = False


def initialize(settings: ConfigDict) -> None:
    """Connects this process with the others; nothing if that has been done.

    Args:
        settings: the config's `parallel`.

    Raises:
        ConfigError: JAX finds no cluster, the other processes cannot be reached, or JAX has
            already started without them.
    """
    global _is_started
    import jax  # lazy: a command that trains in one process should not wait for it yet

    if not jax.distributed.is_initialized():
        is_manual = bool(settings.coordinator)
        if is_manual:
            _check_coordinator(settings)
        # JAX would take SIGTERM for itself, and a run stops at it.
        jax.config.update("jax_enable_preemption_service", False)
        try:
            jax.distributed.initialize(
                settings.coordinator or None,
                settings.num_processes or None,
                settings.process_id if is_manual else None,
                cluster_detection_method="deactivate" if is_manual else None,
                initialization_timeout=INITIALIZATION_TIMEOUT_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise ConfigError(_describe(error, settings)) from error
    _is_started = True


def num_processes() -> int:
    """Returns how many processes train together."""
    if not _is_started:
        return 1
    import jax

    return jax.process_count()


def is_main() -> bool:
    """Returns whether this is process 0, which has the work directory."""
    return process_id() == 0


def process_id() -> int:
    """Returns this process's number, from 0."""
    if not _is_started:
        return 0
    import jax

    return jax.process_index()


def gather(values: Sequence[int]) -> np.ndarray:
    """Returns integers of every process, int32 [processes, len(values)]."""
    row = np.asarray(values, np.int32)[None]
    if num_processes() == 1:
        return row
    import jax

    sharding, replicate = _exchange()
    shape = num_processes(), row.shape[1]
    return np.asarray(replicate(jax.make_array_from_process_local_data(sharding, row, shape)))


def share_json(value: Any) -> Any:
    """Returns process 0's value in every process: what JSON can hold."""
    if num_processes() == 1:
        return value
    return json.loads(_broadcast(json.dumps(value).encode() if is_main() else b""))


def share(tree: Tree) -> Tree:
    """Returns process 0's arrays in every process, bit for bit; all have trees alike in structure,
    shapes, dtypes and shardings.
    """
    if num_processes() == 1:
        return tree
    import jax

    from jaxcifar import parallel

    leaves, structure = jax.tree.flatten(tree)
    arrays = [np.ascontiguousarray(leaf) for leaf in leaves]
    data = _broadcast(b"".join(array.tobytes() for array in arrays) if is_main() else b"")
    shared, start = [], 0
    for leaf, array in zip(leaves, arrays, strict=True):
        new = np.frombuffer(data, array.dtype, array.size, start).reshape(leaf.shape)
        shared.append(parallel.put(new, leaf.sharding))
        start += array.nbytes
    return jax.tree.unflatten(structure, shared)


def check_same(value: str, message: str) -> None:
    """Checks that a value is the same in all processes.

    Raises:
        ConfigError: it is not; the message says what that means. Raised in every process.
    """
    expected = share_json(value)
    with together():
        if value != expected:
            raise ConfigError(message)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Wraps what may fail in some processes only, so that all of them end: a ConfigError of one is
    raised in every process. What is wrapped must not exchange anything itself.
    """
    if num_processes() == 1:
        yield
        return
    own = None
    try:
        with errors.machine():
            yield
    except ConfigError as error:
        own = error
    failed = np.flatnonzero(gather([own is not None])[:, 0])
    if not failed.size:
        return
    source = int(failed[0])
    message = _broadcast(str(own).encode() if source == process_id() else b"", source).decode()
    error = own or ConfigError(f"process {source} cannot go on: {message}")
    error.is_shared = True
    raise error


def wait_for_all() -> None:
    """Returns when all processes have called it."""
    gather([0])


def exit_code(code: int, error: BaseException | None = None) -> int:
    """Returns the exit code of a process that has failed. Unless the others fail alike the process
    ends here, since JAX would have it wait for them, which wait for it.
    """
    if num_processes() > 1 and not getattr(error, "is_shared", False):
        for stream in (sys.stdout, sys.stderr):
            if stream:
                stream.flush()
        os._exit(code)
    return code


@functools.cache
def _exchange() -> tuple[Any, Callable]:
    """Returns the sharding of arrays with a row for each process, and what gives all rows to all.

    Raises:
        ConfigError: the processes differ in their number of devices.
    """
    import jax

    devices = jax.devices()
    counts = collections.Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        numbers = ", ".join(f"{counts[index]} in process {index}" for index in sorted(counts))
        raise ConfigError(
            f"every process must have as many devices as the others, but there are {numbers}"
        )
    devices = np.array(sorted(devices, key=lambda device: (device.process_index, device.id)))
    mesh = jax.sharding.Mesh(devices.reshape(len(counts), -1), ("process", "device"))
    rows, everywhere = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in (("process",), ())
    )
    return rows, jax.jit(lambda x: x, out_shardings=everywhere)


def _broadcast(data: bytes, source: int = 0) -> bytes:
    """Returns the bytes of the process `source` in every process."""
    from jax.experimental import multihost_utils

    size = int(gather([len(data)])[source, 0])
    is_source = process_id() == source
    buffer = np.frombuffer(data, np.uint8) if is_source else np.zeros(size, np.uint8)
    return multihost_utils.broadcast_one_to_all(buffer, is_source=is_source).tobytes()


def _check_coordinator(settings: ConfigDict) -> None:
    """Checks that process 0 can listen, and waits until the others can connect to it: where they
    cannot, JAX would abort, after minutes of silence.

    Raises:
        ConfigError: the port is in use, or nothing listens there for five minutes.
    """
    host, _, port = settings.coordinator.rpartition(":")
    where = f"config.parallel.coordinator={settings.coordinator!r}"
    if settings.process_id == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise ConfigError(
                f"{where}: process 0 cannot listen on port {port} ({error.strerror}); choose "
                "another, in all processes"
            ) from error
        return
    deadline, is_first = time.monotonic() + INITIALIZATION_TIMEOUT_SECONDS, True
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            reason = error.strerror or first_line(error)
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"{where}: process 0 cannot be reached there ({reason}); correct the address, "
                    "or start process 0"
                ) from error
        if is_first:
            print(f"waiting for process 0 at {settings.coordinator} ({reason})")
        is_first = False
        time.sleep(0.5)


def _describe(error: Exception, settings: ConfigDict) -> str:
    reason = " ".join(str(error).split())  # JAX's about Kubernetes have several lines
    if "should be defined" in reason or "must be defined" in reason:
        return (
            "config.parallel.distributed=True, but JAX finds no SLURM, Open MPI or Kubernetes job "
            "here (the last needs the extra k8s): start the processes with one of them, or set "
            "parallel.coordinator (host:port of process 0), parallel.num_processes and "
            "parallel.process_id in each"
        )
    if "before any JAX calls" in reason:
        return (
            "config.parallel.distributed=True has to come before anything else that uses JAX: "
            "JAX has already started in this process"
        )
    where = f" at parallel.coordinator={settings.coordinator!r}" if settings.coordinator else ""
    return f"the processes do not find each other{where} ({reason}); start all of them again"
