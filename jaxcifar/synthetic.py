"""synthetic100: a hundred classes of drawn images, so that everything runs without a download.

A class is a shape (5) × a colour (5) × a texture (4). Around it everything varies: the shape's
place, size and turn, the texture's phase and scale, the exact hue, the background, the light, and
noise. No single pixel tells the class; a small network gets most of it, not all.
"""

import functools
import hashlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxcifar import cache

SHAPES = ("disc", "square", "triangle", "ring", "cross")
COLOURS = ("red", "yellow", "green", "blue", "purple")
TEXTURES = ("plain", "striped", "checked", "dotted")
CLASS_NAMES = tuple(f"{t} {c} {s}" for s in SHAPES for c in COLOURS for t in TEXTURES)

_SIZE = 32
_HUES = np.array([0.0, 0.15, 0.36, 0.6, 0.8], np.float32)  # of COLOURS, in turns
_CHUNK = 5000  # images drawn by one device call: 60 MB in float32


def synthetic100(size: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Returns the data set, drawn once and then kept in the cache.

    The same size gives the same arrays on one kind of processor.

    Args:
        size: number of training images; there are size // 5 test images. 0: 50,000 and 10,000.

    Returns:
        ((images, labels), (images, labels)) of train and test: uint8 [N, 32, 32, 3], int32 [N],
        the classes in turn, so in equal shares as near as the size allows.
    """
    num_train = size or 50_000
    num_test = max(1, num_train // 5)
    count = num_train + num_test
    drawing = hashlib.blake2b(pathlib.Path(__file__).read_bytes(), digest_size=8).hexdigest()
    images = cache.load_or_make(
        cache.directory() / f"synthetic100-{count}-{drawing}.npy",
        lambda: _draw_rows(count),
        stale=f"synthetic100-{count}-*.npy",
    )
    labels = np.arange(count, dtype=np.int32) % len(CLASS_NAMES)
    return (images[:num_train], labels[:num_train]), (images[num_train:], labels[num_train:])


def _draw_rows(count: int) -> np.ndarray:
    images = np.empty((count, _SIZE, _SIZE, 3), np.uint8)
    chunk = min(count, _CHUNK)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        for low in range(0, count, chunk):
            rows = np.arange(low, low + chunk)
            drawn = np.asarray(_draw_chunk(rows, rows % len(CLASS_NAMES)))
            images[low : low + chunk] = drawn[: count - low]
    return images


@jax.jit
def _draw_chunk(rows: jax.Array, labels: jax.Array) -> jax.Array:
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(100)))(rows)
    return jnp.round(jax.vmap(_draw)(keys, labels) * 255).astype(jnp.uint8)


def _draw(key: jax.Array, label: jax.Array) -> jax.Array:
    """Draws one image, float32 [32, 32, 3] in [0, 1], of class `label`."""
    shape, colour = label // 20, label // 4 % 5
    texture = label % 4
    keys = iter(jax.random.split(key, 16))

    def uniform(low: float, high: float, size: tuple[int, ...] = ()) -> jax.Array:
        return jax.random.uniform(next(keys), size, minval=low, maxval=high)

    axis = (jnp.arange(_SIZE) + 0.5) / _SIZE * 2 - 1
    y, x = jnp.meshgrid(axis, axis, indexing="ij")

    # The shape, in its own coordinates: its centre at 0, its half-width 1.
    centre, radius, turn = uniform(-0.35, 0.35, (2,)), uniform(0.4, 0.75), uniform(-0.5, 0.5)
    u, v = (x - centre[0]) / radius, (y - centre[1]) / radius
    u, v = jnp.cos(turn) * u + jnp.sin(turn) * v, jnp.cos(turn) * v - jnp.sin(turn) * u
    r = jnp.hypot(u, v)
    box = jnp.maximum(abs(u), abs(v))
    distance = jnp.stack(
        [
            r - 0.95,
            box - 0.85,
            jnp.maximum(1.73 * abs(u) + v, -v * 1.6) - 0.9,
            abs(r - 0.72) - 0.25,
            jnp.maximum(jnp.minimum(abs(u), abs(v)) - 0.3, box - 0.95),
        ]
    )[shape]
    mask = jnp.clip(0.5 - distance * radius * _SIZE / 2, 0, 1)  # one pixel of soft edge

    # The texture, at a phase and scale of its own, darkens the shape's colour.
    frequency, phase = uniform(4.0, 6.0) * jnp.pi / 2, uniform(0.0, 6.28, (2,))
    waves = jnp.sin(frequency * u / 0.8 + phase[0]), jnp.sin(frequency * v / 0.8 + phase[1])
    pattern = jnp.stack(
        [
            jnp.zeros_like(u),
            waves[0] > 0,
            waves[0] * waves[1] > 0,
            (waves[0] > 0.2) & (waves[1] > 0.2),
        ]
    )[texture]
    hue = jnp.asarray(_HUES)[colour] + uniform(-0.05, 0.05)
    bright = _hsv_to_rgb(hue, uniform(0.55, 1.0), uniform(0.65, 1.0))
    ink = bright * (1 - pattern[..., None] * uniform(0.45, 0.85))

    # A background that is a gradient between two random colours, a stranger's blob on it.
    ends = uniform(0.0, 0.9, (2, 3))
    slope = jnp.clip(0.5 + uniform(-0.5, 0.5) * x + uniform(-0.5, 0.5) * y, 0, 1)[..., None]
    background = ends[0] * slope + ends[1] * (1 - slope)
    blob_at, blob_colour = uniform(-1.0, 1.0, (2,)), uniform(0.0, 1.0, (3,))
    blob = jnp.exp(-8 * ((x - blob_at[0]) ** 2 + (y - blob_at[1]) ** 2))[..., None]
    background = background * (1 - blob) + blob_colour * blob

    image = background * (1 - mask[..., None]) + ink * mask[..., None]
    light = uniform(0.7, 1.1)
    noise = jax.random.normal(next(keys), image.shape) * 0.06
    return jnp.clip(image * light + noise, 0, 1)


def _hsv_to_rgb(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    """Returns float32 [3] in [0, 1] for scalars: hue in turns (any real), the others in [0, 1]."""
    sectors = (jnp.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    return value * (1 - saturation * jnp.clip(jnp.minimum(sectors, 4 - sectors), 0, 1))
