"""Spatter's water: what OpenCV's functions make of a layer of liquid, on one plane [H, W].

The edges of the drops are found, and the distances to them embossed, so that drops catch light.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxcifar.corruptions import filters

FARTHEST = 20  # larger distances count as this
_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)
_MEAN = np.full((3, 3), 1 / 9, np.float32)
# Lengths of the steps from which OpenCV composes distances (DIST_L2 with a 5 × 5 mask), by how far
# they go in the one direction and the other.
_STEP_LENGTHS = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}


def highlights(liquid: jax.Array) -> jax.Array:
    """Returns how much light each pixel of a layer of liquid float32 [H, W] reflects; the largest
    value is 1. Without liquid, all are 0.
    """
    levels = jnp.floor(jnp.clip(liquid, 0, 1) * 255)
    distance = distances(canny(levels, low=50, high=150))
    mean = jnp.floor(filters.correlate(distance, _MEAN) + 1e-4)
    # barriers: XLA would fuse, and so compute each filter's input once for each of its taps
    equalized = jax.lax.optimization_barrier(equalize(jax.lax.optimization_barrier(mean)))
    embossed = jnp.clip(filters.correlate(equalized, _EMBOSS), 0, 255)
    embossed = jax.lax.optimization_barrier(embossed)
    light = levels * jnp.round(filters.correlate(embossed, _MEAN))
    return light / jnp.maximum(light.max(), 1)


def canny(levels: jax.Array, low: float, high: float) -> jax.Array:
    """Returns the edges, bool [H, W], in levels [H, W] from 0 to 255, as `cv2.Canny`: Sobel filters
    of size 3, and the sum of both directions' absolute values as the gradient.
    """
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    x = filters.correlate(levels, sobel, mode="edge").astype(jnp.int32)
    y = filters.correlate(levels, sobel.T, mode="edge").astype(jnp.int32)
    gradient = abs(x) + abs(y)
    neighbor = _neighbors(gradient, 0)
    # OpenCV's fixed-point tangents of 22.5 and 67.5 degrees
    tangent = abs(x) * 13573
    is_horizontal = abs(y) << 15 < tangent
    is_vertical = abs(y) << 15 > tangent + (abs(x) << 16)
    is_falling = (x ^ y) >= 0  # the gradient points down to the right, or up to the left
    peaks = jnp.select(
        [is_horizontal, is_vertical, is_falling],
        [
            (gradient > neighbor(0, -1)) & (gradient >= neighbor(0, 1)),
            (gradient > neighbor(-1, 0)) & (gradient >= neighbor(1, 0)),
            (gradient > neighbor(-1, -1)) & (gradient > neighbor(1, 1)),
        ],
        (gradient > neighbor(-1, 1)) & (gradient > neighbor(1, -1)),
    )
    candidates = peaks & (gradient > low)

    def grow(edges: jax.Array) -> jax.Array:
        neighbor = _neighbors(edges, False)
        near = [neighbor(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        return candidates & functools.reduce(jnp.logical_or, near)

    return _until_stable(grow, candidates & (gradient > high))


def distances(marked: jax.Array) -> jax.Array:
    """Returns each pixel's distance to the nearest that is marked in a mask [H, W], float32, as
    `cv2.distanceTransform` with DIST_L2 and a 5 × 5 mask; at most FARTHEST.
    """
    steps = {
        (down * y, right * x): length
        for (a, b), length in _STEP_LENGTHS.items()
        for y, x in ((a, b), (b, a))
        for down in (-1, 1)
        for right in (-1, 1)
    }

    def relax(distance: jax.Array) -> jax.Array:
        neighbor = _neighbors(distance, FARTHEST)
        farther = [neighbor(*step) + length for step, length in steps.items()]
        return functools.reduce(jnp.minimum, farther, distance)

    return _until_stable(relax, jnp.where(marked, 0.0, FARTHEST))


def equalize(levels: jax.Array) -> jax.Array:
    """Returns levels [H, W] from 0 to FARTHEST with their histogram equalized, from 0 to 255, as
    `cv2.equalizeHist`; a constant plane is unchanged.
    """
    thresholds = np.arange(FARTHEST + 1)[:, None, None]
    counts = (levels <= thresholds).sum((1, 2), keepdims=True)
    at_most = jnp.where(levels == thresholds, counts, 0).sum(0)  # pixels with at most this level
    lowest = at_most.min()
    scale = 255 / jnp.maximum(levels.size - lowest, 1)
    return jnp.where(lowest == levels.size, levels, jnp.round((at_most - lowest) * scale))


def _neighbors(plane: jax.Array, outside: float) -> Callable[[int, int], jax.Array]:
    """Returns fn(down, right) -> the plane [H, W] moved so that each pixel shows the one so far
    away, by up to 2; those beyond the border have the value `outside`.
    """
    height, width = plane.shape
    padded = jnp.pad(plane, 2, constant_values=outside)
    return lambda down, right: padded[2 + down :, 2 + right :][:height, :width]


def _until_stable(step: Callable[[jax.Array], jax.Array], start: jax.Array) -> jax.Array:
    """Returns the first plane in start, step(start), ... that `step` does not change."""

    def advance(plane_and_changes: tuple[jax.Array, bool]) -> tuple[jax.Array, jax.Array]:
        plane, _ = plane_and_changes
        new = step(plane)
        return new, (new != plane).any()

    plane, _ = jax.lax.while_loop(lambda carry: carry[1], advance, (start, True))
    return plane
