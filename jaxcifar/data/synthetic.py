"""synthetic100: a hundred classes of synthetic images, so that everything runs without a download.

A class is a shape (5) × a color (5) × a texture (4). Everything else varies within a class: the
shape's position, size and rotation, the texture's phase and scale, the exact hue, the background,
the brightness, and noise. No single pixel reveals the class; a small network classifies most
images correctly, not all.
"""

import functools
import hashlib
import math
import pathlib
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from jaxcifar import cache
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.progress_bar import ProgressBar

SHAPES = ("disc", "square", "triangle", "ring", "cross")
COLORS = ("red", "yellow", "green", "blue", "purple")
TEXTURES = ("plain", "striped", "checked", "dotted")
CLASS_NAMES = tuple(f"{t} {c} {s}" for s in SHAPES for c in COLORS for t in TEXTURES)

# The noise: 256 quantiles of the normal distribution, so that a byte draws one. Drawing random bits
# is most of the work.
_NORMAL = np.array(
    [statistics.NormalDist(0, 0.06).inv_cdf((i + 0.5) / 256) for i in range(256)], np.float32
)
_HUES = np.array([0.0, 0.15, 0.36, 0.6, 0.8], np.float32)  # of COLORS, as fractions of a turn
# Images generated per device call: the same for every dataset size, so that generation is compiled
# once, which takes longer than generating several thousand images.
_CHUNK = 1000


def load(size: int = 0, image_size: int = 32) -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images, generated once, then cached.

    The same size gives the same arrays on one kind of processor. Classes alternate, so counts
    differ by at most one.

    Args:
        size: number of training images; there are size // 5 test images (at least 1). 0: 50,000
            and 10,000.
        image_size: height and width of an image in pixels.
    """
    num_train = size or 50_000
    num_images = num_train + max(1, num_train // 5)
    source_digest = hashlib.blake2b(pathlib.Path(__file__).read_bytes(), digest_size=8).hexdigest()
    stem = f"synthetic100-{image_size}-{num_images}"
    images = cache.load_or_make(
        cache.directory() / f"{stem}-{source_digest}.npy",
        lambda: _generate(num_images, image_size),
        stale=f"{stem}-*.npy",
    )
    labels = np.arange(num_images, dtype=np.int32) % len(CLASS_NAMES)
    dataset = Dataset(images, labels, CLASS_NAMES)
    return dataset.take(slice(num_train)), dataset.take(slice(num_train, None))


def _generate(num_images: int, size: int) -> np.ndarray:
    print(f"Generating {num_images:,} images; later runs read them from the cache.")
    images = np.empty((num_images, size, size, 3), np.uint8)
    cpu = jax.local_devices(backend="cpu")[0]
    with jax.default_device(cpu), ProgressBar("Generating", num_images) as bar:
        for low in range(0, num_images, _CHUNK):
            rows = np.arange(low, low + _CHUNK)
            chunk = np.asarray(_generate_chunk(rows, rows % len(CLASS_NAMES), size))
            images[low : low + _CHUNK] = chunk[: num_images - low]
            bar.update(min(low + _CHUNK, num_images))
    return images


@functools.partial(jax.jit, static_argnums=2)
def _generate_chunk(rows: jax.Array, labels: jax.Array, size: int) -> jax.Array:
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(100)))(rows)
    generate = jax.vmap(functools.partial(_generate_image, size=size))
    return jnp.round(generate(keys, labels) * 255).astype(jnp.uint8)


def _generate_image(key: jax.Array, label: jax.Array, size: int) -> jax.Array:
    """Returns one image, float32 [size, size, 3] in [0, 1], of class `label`."""
    shape, color = label // 20, label // 4 % 5
    texture = label % 4
    draws_key, noise_key = jax.random.split(key)
    draws = iter(jax.random.uniform(draws_key, (25,)))  # at once: much less to compile

    def uniform(low: float, high: float, shape: tuple[int, ...] = ()) -> jax.Array:
        values = jnp.array([next(draws) for _ in range(math.prod(shape))]).reshape(shape)
        return low + (high - low) * values

    axis = (jnp.arange(size) + 0.5) / size * 2 - 1
    y, x = jnp.meshgrid(axis, axis, indexing="ij")

    # The shape, in its own coordinates: its center at 0, its half-width 1.
    center, radius, angle = uniform(-0.35, 0.35, (2,)), uniform(0.4, 0.75), uniform(-0.5, 0.5)
    u, v = (x - center[0]) / radius, (y - center[1]) / radius
    u, v = jnp.cos(angle) * u + jnp.sin(angle) * v, jnp.cos(angle) * v - jnp.sin(angle) * u
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
    mask = jnp.clip(0.5 - distance * radius * size / 2, 0, 1)  # an edge one pixel wide

    # The texture, with its own phase and scale, darkens the shape's color.
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
    hue = jnp.asarray(_HUES)[color] + uniform(-0.05, 0.05)
    base_color = _hsv_to_rgb(hue, uniform(0.55, 1.0), uniform(0.65, 1.0))
    foreground = base_color * (1 - pattern[..., None] * uniform(0.45, 0.85))

    # The background: a gradient between two random colors, with a blob of a third.
    end_colors = uniform(0.0, 0.9, (2, 3))
    gradient = jnp.clip(0.5 + uniform(-0.5, 0.5) * x + uniform(-0.5, 0.5) * y, 0, 1)[..., None]
    background = end_colors[0] * gradient + end_colors[1] * (1 - gradient)
    blob_center, blob_color = uniform(-1.0, 1.0, (2,)), uniform(0.0, 1.0, (3,))
    blob = jnp.exp(-8 * ((x - blob_center[0]) ** 2 + (y - blob_center[1]) ** 2))[..., None]
    background = background * (1 - blob) + blob_color * blob

    image = background * (1 - mask[..., None]) + foreground * mask[..., None]
    brightness = uniform(0.7, 1.1)
    words = jax.random.bits(noise_key, (-(-image.size // 4),))
    noise = jnp.asarray(_NORMAL)[jax.lax.bitcast_convert_type(words, jnp.uint8)]
    noise = noise.reshape(-1)[: image.size].reshape(image.shape)
    return jnp.clip(image * brightness + noise, 0, 1)


def _hsv_to_rgb(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    """Returns float32 [3] in [0, 1] for scalars: hue in turns (any real), the others in [0, 1]."""
    sectors = (jnp.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    return value * (1 - saturation * jnp.clip(jnp.minimum(sectors, 4 - sectors), 0, 1))
