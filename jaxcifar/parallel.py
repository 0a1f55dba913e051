"""Devices: how many there are, the mesh over them, and how arrays lie on it.

There is one mesh with one axis, `data`: batches are split over it, everything else is on every
device. On a CPU the devices are virtual. Splitting a batch over several of them is faster than
one device with the same cores (the pieces fit the cache), and makes the path of many GPUs the one
that everybody runs.
"""

import contextlib
import math
import os

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from jaxcifar import cache
from jaxcifar.config import ConfigError

MAX_CPU_DEVICES = 4


def setup(config: ConfigDict) -> Mesh:
    """Returns the mesh over all devices, creating virtual CPU devices if JAX has not started yet.

    In a process where JAX is already initialised (a notebook) the devices that exist are used.
    The number of virtual devices follows from the config alone, not from the machine's cores, so
    that a command computes the same bits on any number of cores. Compiled programs are kept in the
    user's cache, so that a second start compiles nothing.
    """
    with contextlib.suppress(RuntimeError):  # JAX is initialised
        jax.config.update("jax_num_cpu_devices", num_cpu_devices(config))
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache.directory() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def num_cpu_devices(config: ConfigDict) -> int:
    """Returns how many virtual devices a run on a CPU has: `parallel.cpu_devices`, or the largest
    divisor of the batch size up to `MAX_CPU_DEVICES`.
    """
    if config.parallel.cpu_devices:
        return config.parallel.cpu_devices
    return max(n for n in range(1, MAX_CPU_DEVICES + 1) if config.batch_size % n == 0)


def check_fits(mesh: Mesh, num_bytes: int) -> None:
    """Checks that every device has room for `num_bytes` of data, with as much again to work in.

    Raises:
        ConfigError: it has not; the message gives the numbers.
    """
    device = mesh.devices.flat[0]
    if device.platform == "cpu":  # virtual devices share the machine's memory
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // mesh.size
    else:
        stats = device.memory_stats() or {}
        free = stats.get("bytes_limit", math.inf) - stats.get("bytes_in_use", 0)
    if 2 * num_bytes > free:
        raise ConfigError(
            f"the images take {num_bytes / 1e9:.2f} GB on each of {mesh.size} devices, and as much "
            f"again is needed to train, but a device has {free / 1e9:.2f} GB free; use fewer images"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh, *arrays: jax.Array, axis: int = 0) -> tuple[jax.Array, ...]:
    """Constrains arrays to be split over the devices by an axis, inside jit.

    The axis need not be a multiple of the number of devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
    return tuple(jax.lax.with_sharding_constraint(array, sharding) for array in arrays)
