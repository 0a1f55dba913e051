"""Blurs: an image out of focus, behind glass, or taken while something moved.

Hendrycks & Dietterich 2019, arXiv:1903.12261; planes are float32 [3, H, W] in [0, 1], and constants
are in pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcifar.corruptions import filters
from jaxcifar.corruptions.registry import corruption


@corruption(
    is_standard=True,
    constants={"radius": (0.3, 0.4, 0.5, 1.0, 1.5), "softness": (0.4, 0.5, 0.6, 0.2, 0.1)},
)
def defocus_blur(planes: jax.Array, radius: float, softness: float) -> jax.Array:
    """Averages over a disk, whose edge a 3 × 3 Gaussian of sigma `softness` softens."""
    offsets = np.arange(-2, 3)  # enough for a radius below 2 and the softening
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(jnp.float32)
    edge = jnp.exp(-0.5 * (np.arange(-1, 2) / softness) ** 2)
    edge = edge / edge.sum()
    kernel = filters.correlate(disk / disk.sum(), edge[:, None] * edge, mode="constant")
    return filters.correlate(planes, kernel)


@corruption(
    is_standard=True,
    constants={"sigma": (0.05, 0.25, 0.4, 0.25, 0.4), "iterations": (1, 1, 1, 2, 2)},
)
def glass_blur(key: jax.Array, planes: jax.Array, sigma: float, iterations: int) -> jax.Array:
    """Moves pixels at random by at most one, between two Gaussian blurs.

    The reference means to swap a pixel with a neighbor up to `delta` away, which is 1 at every
    severity. It excludes the upper end of the range, so the neighbor is above, to the left, both,
    or the pixel itself; both sides of its swap are views of one array, so the neighbor is copied
    over the pixel; and since it goes from the bottom right to the top left, the neighbor still has
    its old value. So a pass is one choice among four shifted images. It leaves out the first two
    rows and columns.
    """
    height, width = planes.shape[1:]
    blurred = jnp.floor(filters.gaussian(planes, sigma, 2) * 255 + 1e-3) / 255
    movable = (np.arange(height) >= 2)[:, None] & (np.arange(width) >= 2)

    def move(index: int, planes: jax.Array) -> jax.Array:
        chosen = jax.random.bernoulli(jax.random.fold_in(key, index), shape=(2, height, width))
        up, left = chosen & movable
        here, beside = (
            jnp.where(up, jnp.roll(planes, (1, shift), (1, 2)), jnp.roll(planes, shift, 2))
            for shift in (0, 1)
        )
        return jnp.where(left, beside, here)

    return filters.gaussian(jax.lax.fori_loop(0, iterations, move, blurred), sigma, 2)


@corruption(
    is_standard=True,
    constants={"radius": (6.0, 6.0, 6.0, 8.0, 9.0), "sigma": (1.0, 1.5, 2.0, 2.0, 2.5)},
)
def motion_blur(key: jax.Array, planes: jax.Array, radius: float, sigma: float) -> jax.Array:
    """Blurs along a line at a random angle within 45 degrees of the x axis."""
    degrees = jax.random.uniform(key, minval=-45, maxval=45)
    return filters.motion(planes, radius, sigma, degrees)


@corruption(is_standard=True, constants={"num_zooms": (7, 12, 16, 21, 26)})
def zoom_blur(planes: jax.Array, num_zooms: int) -> jax.Array:
    """Averages an image and its center zoomed by 1, 1.01, 1.02, and so on.

    The reference counts with `numpy.arange(1, 1.06, 0.01)`, which rounding makes 7 numbers, each a
    little more than it should be.
    """
    height, width = planes.shape[1:]

    def add(index: int, total: jax.Array) -> jax.Array:
        factor = 1 + 0.01 * index + 1e-6  # 26 pixels times 1.25 round to 33, not to 32
        rows, columns = filters.zoom_matrix(height, factor), filters.zoom_matrix(width, factor)
        return total + filters.separable(planes, rows, columns)

    return jax.lax.fori_loop(0, num_zooms, add, planes) / (num_zooms + 1)


@corruption(constants={"sigma": (0.4, 0.6, 0.7, 0.8, 1.0)})
def gaussian_blur(planes: jax.Array, sigma: float) -> jax.Array:
    """Smooths with a Gaussian."""
    return filters.gaussian(planes, sigma, 4)
