"""Cutting out a window and resizing it, as torchvision does for photos of many sizes."""

import math

import jax
import jax.numpy as jnp

from jaxcifar.augment.geometry import planar
from jaxcifar.augment.registry import PositiveRange, Size, UnitRange, as_pair, transform
from jaxcifar.augment.sampling import uniform_to_index, uniform_to_range
from jaxcifar.spec import PositiveInt

_ATTEMPTS = 10  # to draw a window inside the image


@transform("resized_crop", examples=("resized_crop(4, 8, 16, 20, 32)",))
@planar
def resized_crop(
    image: jax.Array, top: int, left: int, height: PositiveInt, width: PositiveInt, size: Size
) -> jax.Array:
    """Returns a window of an image [H, W, 3], resized with an antialiased bilinear filter.

    Args:
        image: float32 [H, W, 3] in [0, 1].
        top: first row of the window, which is inside the image.
        left: its first column.
        height: its number of rows.
        width: its number of columns.
        size: of the result, or (height, width).
    """
    _, num_rows, num_columns = image.shape
    out_height, out_width = as_pair(size)
    rows = _resampling(out_height, num_rows, top, height)
    columns = _resampling(out_width, num_columns, left, width)
    return jnp.einsum("yh,chw,xw->cyx", rows, image, columns, precision="highest")


@transform("random_resized_crop", examples=("random_resized_crop(32, scale=(0.3, 1.0))",))
def random_resized_crop(
    key: jax.Array,
    image: jax.Array,
    size: Size | None = None,
    scale: UnitRange = (0.08, 1.0),
    ratio: PositiveRange = (3 / 4, 4 / 3),
) -> jax.Array:
    """Cuts out a window of random area and aspect ratio, and resizes it (RandomResizedCrop).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        size: of the result, or (height, width); None: the image's own.
        scale: range of the window's area, as a fraction of the image's.
        ratio: range of its aspect ratio, width by height, drawn from its logarithm.
    """
    rows, columns, _ = image.shape
    area, log_ratio, down, across = jax.random.uniform(key, (4, _ATTEMPTS))
    area = rows * columns * uniform_to_range(area, *scale)
    drawn_ratio = jnp.exp(uniform_to_range(log_ratio, *map(math.log, ratio)))
    heights = jnp.round(jnp.sqrt(area / drawn_ratio))
    widths = jnp.round(jnp.sqrt(area * drawn_ratio))
    is_inside = (heights >= 1) & (heights <= rows) & (widths >= 1) & (widths <= columns)
    # If no window fits: the largest one in the center with an aspect ratio in the range
    whole = columns / rows
    height = rows if whole >= ratio[0] else round(columns / ratio[0])
    width = columns if whole <= ratio[1] else round(rows * ratio[1])
    first, fits = jnp.argmax(is_inside), is_inside.any()
    height, width = jnp.where(fits, heights[first], height), jnp.where(fits, widths[first], width)
    top = uniform_to_index(down[first], rows - height + 1)
    left = uniform_to_index(across[first], columns - width + 1)
    top = jnp.where(fits, top, (rows - height) // 2)
    left = jnp.where(fits, left, (columns - width) // 2)
    return resized_crop(image, top, left, height, width, size or (rows, columns))


def _resampling(
    count: int, length: int, start: int | jax.Array, extent: int | jax.Array
) -> jax.Array:
    """Returns the matrix [count, length] that resizes the window [start, start + extent) of a line
    to `count` values: a triangle filter over as many pixels as become one, at least one, cut off at
    the window's ends.
    """
    scale = extent / jnp.float32(count)
    centers = (jnp.arange(count) + 0.5) * scale
    pixels = jnp.arange(length) - start
    distance = jnp.abs(pixels + 0.5 - centers[:, None]) / jnp.maximum(scale, 1)
    weights = jnp.where((pixels >= 0) & (pixels < extent), jnp.maximum(1 - distance, 0), 0)
    return weights / weights.sum(1, keepdims=True)
