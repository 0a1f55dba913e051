"""Corrupting arrays of images: `corrupt`, and `generate`, which goes through the benchmark."""

import concurrent.futures
import functools
import os
import zlib
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxcifar import spec
from jaxcifar.corruptions import blur, digital, noise, weather
from jaxcifar.corruptions.registry import CORRUPTIONS, NUM_SEVERITIES
from jaxcifar.rng import Stream, stream
from jaxcifar.spec import ConfigError

# The benchmark's names in its order, which is that of these modules and within them
_BENCHMARK = [
    entry
    for module in (noise, blur, weather, digital)
    for entry in CORRUPTIONS.values()
    if entry.function.__module__ == module.__name__
]
STANDARD = tuple(entry.name for entry in _BENCHMARK if entry.is_standard)
EXTRA = tuple(entry.name for entry in _BENCHMARK if not entry.is_standard)

MIN_SIZE = 16  # pixels a side
_BATCH_PIXELS = 2**18  # 256 images of CIFAR's size: programs are compiled for one batch size


def corrupt(
    key: jax.Array, images: np.ndarray, name: str, severity: int, *, first_row: int = 0
) -> np.ndarray:
    """Returns images with a corruption, on the device in batches of a fixed size.

    Image i draws from fold_in(key, first_row + i), so parts of an array, corrupted one by one with
    their `first_row`, are what the whole would be.

    Args:
        key: a JAX key.
        images: uint8 [N, H, W, 3], at least 16 pixels a side.
        name: the corruption, one of `CORRUPTIONS`.
        severity: 1 to 5; what that means is the benchmark's for 32 pixels, at every size.
        first_row: the number of the first image.

    Returns:
        uint8 [N, H, W, 3], truncated as in the benchmark.

    Raises:
        ConfigError: an argument is not valid, or the corruption needs what is not installed.
    """
    entry = CORRUPTIONS[name]
    if severity not in range(1, NUM_SEVERITIES + 1):
        valid = f"an integer from 1 to {NUM_SEVERITIES}"
        raise ConfigError(spec.invalid("severity", severity, valid))
    shape = np.shape(images)
    if getattr(images, "dtype", None) != np.uint8 or len(shape) != 4 or shape[-1] != 3:
        kind = getattr(images, "dtype", type(images).__name__)
        raise ConfigError(f"corrupt needs uint8 images [N, H, W, 3], not {kind} {list(shape)}")
    if min(shape[1:3]) < MIN_SIZE:
        raise ConfigError(
            f"corrupt needs images of at least {MIN_SIZE} pixels a side, not {list(shape)}"
        )
    constants = entry.constants_at(int(severity))
    if not len(images):
        return np.zeros(shape, np.uint8)
    if entry.on_host:
        return _map_on_host(functools.partial(entry.function, **constants), np.asarray(images))
    size = max(1, _BATCH_PIXELS // (shape[1] * shape[2]))
    parts = []
    for start in range(0, len(images), size):
        batch = np.asarray(images[start : start + size])
        batch = np.pad(batch, [(0, size - len(batch)), (0, 0), (0, 0), (0, 0)])
        parts.append(
            _corrupt_batch(
                key, first_row + start, batch, constants, entry.function, entry.is_random
            )
        )
        if len(parts) > 1:  # while the device works on this batch
            parts[-2] = np.asarray(parts[-2])
    return np.concatenate([np.asarray(part) for part in parts])[: len(images)]


def available() -> list[str]:
    """Returns the names of the benchmark's corruptions that can be generated, the 15 standard ones
    before the extra ones: all 19, or without frost where its photographs are not installed.
    """
    return [name for name in STANDARD + EXTRA if CORRUPTIONS[name].is_available()]


def generate(
    images: np.ndarray, seed: int, names: Iterable[str] | None = None
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yields every corruption at every severity: its name, severity and images uint8 [N, H, W, 3].

    Each draws from a key of its own, so which others are generated does not matter.

    Args:
        images: uint8 [N, H, W, 3]; see `corrupt`.
        seed: the run's.
        names: which corruptions; None for all `available` ones.

    Raises:
        ConfigError: see `corrupt`.
    """
    key = stream(seed, Stream.CORRUPT)
    for name in available() if names is None else names:
        # a number that depends on the name only
        name_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
        for severity in range(1, NUM_SEVERITIES + 1):
            severity_key = jax.random.fold_in(name_key, severity)
            yield name, severity, corrupt(severity_key, images, name, severity)


@functools.partial(jax.jit, static_argnames=("function", "is_random"))
def _corrupt_batch(
    key: jax.Array,
    first_row: int,
    images: jax.Array,
    constants: dict[str, float],
    function: Callable[..., jax.Array],
    is_random: bool,
) -> jax.Array:
    """Returns a batch uint8 [N, H, W, 3] with a corruption."""

    def corrupt_one(row: jax.Array, image: jax.Array) -> jax.Array:
        planes = jnp.moveaxis(image, -1, 0) / jnp.float32(255)
        keys = (jax.random.fold_in(key, row),) if is_random else ()
        result = function(*keys, planes, **constants)
        # truncated, but k / 255 · 255 is k again
        levels = jnp.floor(jnp.clip(result, 0, 1) * 255 + 1e-3)
        return jnp.moveaxis(levels, 0, -1).astype(jnp.uint8)

    return jax.vmap(corrupt_one)(first_row + jnp.arange(len(images)), images)


def _map_on_host(function: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """Returns function(image) of every image, with a thread for each core."""
    num_threads = os.cpu_count()

    def map_part(part: np.ndarray) -> list[np.ndarray]:
        return [function(image) for image in part]

    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        # not image by image, whose dispatch would take half the time
        parts = pool.map(map_part, np.array_split(images, num_threads))
        return np.stack([image for part in parts for image in part])
