"""Devices: how many there are, the mesh over them, and how arrays are laid out on it.

There is one mesh with one axis, `data`: batches are sharded over it, everything else is replicated.
On a CPU the devices are virtual, and one is enough: XLA uses all cores for each.
"""

import contextlib
import ctypes
import math
import os
import re
import subprocess
import sys
import warnings
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from jaxcifar import cache, memory
from jaxcifar.spec import ConfigError, first_line

# By default XLA also uses YNNPACK for convolutions, which makes the kernel gradients of a ResNet-18
# take two to three times as long. Small matrix products and reductions are faster there.
# LLVM's default level 3 takes half as long again to compile a ResNet-18's step as level 2, for one
# that is not faster.
CPU_COMPILER_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    ),
    "xla_backend_optimization_level": 2,
}

# By default XLA combines the gradients' all-reduces up to 30 MB: into one, after the backward pass.
# Smaller ones run beside it.
# Not here: CONVOLUTION in xla_gpu_enable_command_buffer. With it a step takes 10% less on an H100,
# but a second start, which reads the program from the compilation cache, fails: cuDNN cannot load
# its kernels while a graph is captured (jax 0.11.2, status 5003).
GPU_COMPILER_OPTIONS: dict[str, str | int | bool] = {
    "xla_gpu_all_reduce_combine_threshold_bytes": 6_000_000
}

# With several processes XLA would have each tune a part of a program's kernels and wait for the
# others' parts, which do not come where one has found the program in its cache, or is alone in
# compiling it.
_SEPARATE_COMPILATION = {"xla_gpu_shard_autotuning": False}

# For programs that run once: LLVM's default level takes 15 s to compile the random draws of a few
# parameters, level 1 2 s, with the same bits.
CPU_RUN_ONCE_OPTIONS = {"xla_backend_optimization_level": 1}


def setup(config: ConfigDict) -> Mesh:
    """Returns the mesh over all devices, creating virtual CPU devices if JAX has not started yet.

    In a process where JAX is already initialized (a notebook) the devices that exist are used, or
    the first `parallel.cpu_devices` of them. Compiled programs are kept in the user's cache, so
    that a second start compiles nothing.

    Raises:
        ConfigError: JAX cannot start, or XLA_FLAGS has an unknown flag.
    """
    _keep_freed_memory()
    with contextlib.suppress(RuntimeError):  # JAX is initialized
        jax.config.update("jax_num_cpu_devices", config.parallel.cpu_devices or 1)
        _check_xla_flags()
    with contextlib.suppress(RuntimeError):
        # Asynchronously queued steps need up to twice the memory and are no faster.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.config.jax_compilation_cache_dir is None:
        programs = cache.directory() / "xla"
        with contextlib.suppress(OSError):  # without a cache every start compiles
            programs.mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", str(programs))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    try:
        devices = jax.devices()
    except RuntimeError as error:
        raise ConfigError(
            f"JAX cannot start ({first_line(error)}); correct JAX_PLATFORMS or the driver"
        ) from error
    if devices[0].platform == "cpu" and config.parallel.cpu_devices and jax.process_count() == 1:
        devices = devices[: config.parallel.cpu_devices]
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def describe(mesh: Mesh) -> str:
    """Returns the number and kind of the mesh's devices, and that of processes if several."""
    num_processes = len({device.process_index for device in mesh.devices.flat})
    among = f" in {num_processes} processes" if num_processes > 1 else ""
    return f"{mesh.size} × {mesh.devices.flat[0].device_kind}{among}"


def compiler_options(mesh: Mesh, *, run_once: bool = False) -> dict[str, str | int | bool]:
    """Returns XLA's compiler options for the mesh's devices, for a program that runs often or once.

    The options are experimental: where XLA does not know them, they are left out, with a warning.
    """
    platform = mesh.devices.flat[0].platform
    if platform == "cpu":
        return _supported(CPU_RUN_ONCE_OPTIONS if run_once else CPU_COMPILER_OPTIONS)
    options = {} if platform != "gpu" or run_once else GPU_COMPILER_OPTIONS
    if platform == "gpu" and jax.process_count() > 1:
        options = options | _SEPARATE_COMPILATION
    return _supported(options) if options else {}


def check_fits(mesh: Mesh, num_bytes: int) -> None:
    """Checks that every device has room for `num_bytes` of data, plus as much again for training.

    Raises:
        ConfigError: a device has less memory available.
    """
    device = mesh.devices.flat[0]
    if device.platform == "cpu":  # virtual devices share the machine's memory
        free = memory.available_bytes() // mesh.size
    else:
        stats = device.memory_stats() or {}
        free = stats.get("bytes_limit", math.inf) - stats.get("bytes_in_use", 0)
    if 2 * num_bytes > free:
        raise ConfigError(
            f"the images take {num_bytes / 1e9:.2f} GB on each of {mesh.size} devices, training "
            f"needs as much again, and {free / 1e9:.2f} GB is available; use fewer images, or a "
            "smaller config.data.image_size"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array of which every device holds a copy."""
    return NamedSharding(mesh, PartitionSpec())


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Returns a tree of host arrays as arrays with a sharding. All processes with devices in that
    must pass the same; unlike in `jax.device_put` that is not checked, and nothing is exchanged.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]), tree
    )


def to_local(mesh: Mesh, tree: Any) -> Any:
    """Returns a tree of replicated arrays on this process's devices of a mesh only."""
    if replicated(mesh).is_fully_addressable:
        return tree
    return jax.device_put(jax.tree.map(np.asarray, tree), replicated(mesh.local_mesh))


def split_batch(mesh: Mesh, *arrays: jax.Array, axis: int = 0) -> tuple[jax.Array, ...]:
    """Constrains arrays to be split over the devices by an axis, inside jit.

    The axis need not be a multiple of the number of devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
    return tuple(jax.lax.with_sharding_constraint(array, sharding) for array in arrays)


def _check_xla_flags() -> None:
    """Checks XLA_FLAGS in another process: XLA ends the one that has an unknown flag."""
    if not os.environ.get("XLA_FLAGS"):
        return
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    if unknown := re.search("Unknown flags? in XLA_FLAGS: (.*)", done.stderr):
        raise ConfigError(f"XLA_FLAGS has unknown flags: {unknown[1]}")


def _supported(options: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        warnings.warn(
            f"an XLA option is not supported, training may be slow: {error}", stacklevel=2
        )
        return {}
    return options


def _keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next allocation instead of returning it to the
    system.

    XLA reallocates each step's memory: several hundred megabytes, whose page faults take
    10% of a ResNet-18 step. Only what the main thread frees is kept, which is why `setup` has the
    main thread run the steps; one heap for all threads (M_ARENA_MAX) would mix in the compiler's
    memory, and steps would be slower in a process that compiled. Without glibc nothing changes.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for option, value in (
            (-4, 0),  # M_MMAP_MAX: no allocation by mmap, which free() always gives back
            (-1, -1),  # M_TRIM_THRESHOLD: the heap never shrinks
        ):
            mallopt(option, value)
