"""The filters that several corruptions share, on planes float32 [..., H, W].

A filter along an axis of length n is a matrix [n, n], so that blurs and zooms are two matrix
products. Their strengths may be traced; only the largest radius is fixed.
"""

import jax
import jax.numpy as jnp
import numpy as np


def separable(planes: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Returns planes [..., H, W] multiplied along H by `rows` [H, H] and along W by `columns`
    [W, W].
    """
    return jnp.einsum("...hw,ih,jw->...ij", planes, rows, columns, precision="highest")


def gaussian(
    planes: jax.Array,
    sigma: float,
    max_radius: int,
    *,
    truncate: float = 4.0,
    mode: str = "edge",
) -> jax.Array:
    """Returns planes [..., H, W] smoothed by a Gaussian of `sigma` pixels, as
    `skimage.filters.gaussian`: its radius is int(truncate · sigma + 0.5).

    Args:
        planes: float32 [..., H, W].
        sigma: the standard deviation; 0 changes nothing.
        max_radius: the largest radius that `sigma` may need.
        truncate: the radius in standard deviations.
        mode: how `numpy.pad` continues the planes. Its "symmetric" is SciPy's "reflect".
    """
    offsets = np.arange(-max_radius, max_radius + 1)
    inside = abs(offsets) <= jnp.floor(truncate * sigma + 0.5)
    weights = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma, 1e-6)) ** 2) * inside
    weights = weights / weights.sum()
    height, width = planes.shape[-2:]
    return separable(
        planes, _filter_matrix(height, weights, mode), _filter_matrix(width, weights, mode)
    )


def _filter_matrix(size: int, weights: jax.Array, mode: str) -> jax.Array:
    """Returns the matrix [size, size] that filters a line with an odd number of weights."""
    radius = len(weights) // 2
    padded = np.pad(np.eye(size, dtype=np.float32), ((radius, radius), (0, 0)), mode)
    shifted = np.stack([padded[k : k + size] for k in range(len(weights))])
    return jnp.einsum("k,kij->ij", weights, shifted, precision="highest")


def zoom_matrix(size: int, factor: float) -> jax.Array:
    """Returns the matrix [size, size] that zooms a line into its center by a factor of at least 1:
    the window of ceil(size / factor) pixels is resized as by `scipy.ndimage.zoom` of order 1, whose
    corner pixels stay corner pixels, and the excess cut off.
    """
    window = jnp.ceil(size / factor - 1e-4)  # not one more because of rounding
    resized = jnp.round(window * factor)
    start = jnp.floor((size - window) / 2)
    position = np.arange(size) + jnp.floor((resized - size) / 2)
    source = start + position * (window - 1) / (resized - 1)
    return jnp.maximum(0, 1 - abs(source[:, None] - np.arange(size)))


def correlate(planes: jax.Array, kernel: jax.Array, mode: str = "reflect") -> jax.Array:
    """Returns the correlation of planes [..., H, W] with a kernel [k, k], k odd, as
    `cv2.filter2D`; the default `mode` of `numpy.pad` is OpenCV's BORDER_REFLECT_101.
    """
    size = len(kernel)
    margins = [(0, 0)] * (planes.ndim - 2) + [(size // 2, size // 2)] * 2
    padded = jnp.pad(planes, margins, mode)
    height, width = planes.shape[-2:]
    return sum(
        kernel[row, column] * padded[..., row : row + height, column : column + width]
        for row in range(size)
        for column in range(size)
    )


def motion(planes: jax.Array, radius: float, sigma: float, degrees: jax.Array) -> jax.Array:
    """Returns planes [..., H, W] in [0, 1] blurred along a line that starts at each pixel, as
    ImageMagick's motion blur of 8-bit images.

    Tap i has the weight exp(-i² / 2σ²) and is the whole pixel nearest to i pixels along the angle;
    there are 2 · ceil(radius) + 1. Edge pixels are repeated.

    Args:
        planes: float32 [..., H, W].
        radius: the largest distance, halved.
        sigma: the standard deviation in pixels.
        degrees: the angle, from the x axis toward the y axis, which points down.
    """
    height, width = planes.shape[-2:]
    flat = planes.reshape(-1, height * width)
    angle = degrees * (np.pi / 180)

    def nearest(tap: jax.Array, direction: jax.Array, size: int) -> jax.Array:
        return jnp.clip(
            np.arange(size) + jnp.ceil(tap * direction - 0.5).astype(jnp.int32), 0, size - 1
        )

    def add(tap: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total, total_weight = sums
        weight = jnp.exp(-0.5 * (tap / sigma) ** 2)
        rows, columns = nearest(tap, jnp.sin(angle), height), nearest(tap, jnp.cos(angle), width)
        index = (rows[:, None] * width + columns).ravel()
        moved = flat.at[:, index].get(mode="promise_in_bounds")
        return total + weight * moved, total_weight + weight

    num_taps = (2 * jnp.ceil(radius) + 1).astype(jnp.int32)
    total, total_weight = jax.lax.fori_loop(0, num_taps, add, (jnp.zeros_like(flat), 0.0))
    return jnp.round(total / total_weight * 255).reshape(planes.shape) / 255
