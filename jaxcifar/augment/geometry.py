"""Geometric transforms, which move pixels: `torchvision.transforms.v2.functional` on one image.

Every warp is one inverse affine map and one gather, so a batch in which each image has its own
rotation, shear or translation costs as much as one in which all have the same. Images are float32
[H, W, 3] in [0, 1]. Scalar arguments may be traced; plain Python values are validated
(ConfigError).
"""

import functools
import math
from collections.abc import Callable, Sequence

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

from jaxcifar.augment.registry import Color, Interpolation, Point, transform
from jaxcifar.spec import ConfigError, NonNegativeInt, PositiveFloat, PositiveInt

Matrix = tuple  # (a, b, c, d, e, f): output pixel (x, y) shows input (ax + by + c, dx + ey + f)


def planar(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Turns a function of color planes [3, H, W] into one of an image [H, W, 3].

    Rows of W values fill the CPU's vector registers, pixels of three do not; between two such
    functions the compiler cancels the transposes.
    """

    @functools.wraps(function)
    def on_image(image: jax.Array, *args, **kwargs) -> jax.Array:
        return jnp.moveaxis(function(to_planes(image), *args, **kwargs), 0, -1)

    return on_image


def to_planes(image: jax.Array) -> jax.Array:
    """Returns the planes [3, H, W] of an image [H, W, 3].

    Raises:
        ConfigError: it is not a floating-point image of three channels.
    """
    image = jnp.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or not jnp.issubdtype(image.dtype, jnp.floating):
        raise ConfigError(
            f"augment: an image is float [H, W, 3] in [0, 1], not {image.dtype}"
            f"{list(image.shape)}; divide uint8 by 255, and take batches with jax.vmap"
        )
    return jnp.moveaxis(image, -1, 0)


@transform
def hflip(image: jax.Array) -> jax.Array:
    """Flips an image [H, W, 3] left to right."""
    return pix.flip_left_right(image)


@transform("crop", examples=("crop(-4, 6, 32, 32)",))
@planar
def crop(
    image: jax.Array, top: int, left: int, height: PositiveInt, width: PositiveInt
) -> jax.Array:
    """Returns the window float32 [height, width, 3] of an image whose corner is at (top, left).
    Pixels outside the image are black.
    """
    _, rows, columns = image.shape
    y, x = top + np.arange(height), left + np.arange(width)
    inside = ((y >= 0) & (y < rows))[:, None] & (x >= 0) & (x < columns)
    window = image[:, jnp.clip(y, 0, rows - 1)[:, None], jnp.clip(x, 0, columns - 1)]
    return jnp.where(inside, window, 0)


@transform("affine", examples=("affine(20, (4, 0), 0.8, (10, 0), fill=0.5)",))
@planar
def affine(
    image: jax.Array,
    angle: float,
    translate: tuple[float, float],
    scale: PositiveFloat,
    shear: tuple[float, float],
    interpolation: Interpolation = "nearest",
    fill: Color | None = None,
    center: Point | None = None,
) -> jax.Array:
    """Rotates, scales, shears and translates an image [H, W, 3], keeping its size.

    Args:
        image: float32 [H, W, 3] in [0, 1].
        angle: degrees, clockwise.
        translate: pixels to the right and down.
        scale: a factor above 0.
        shear: degrees along x and along y.
        interpolation: "nearest" or "bilinear".
        fill: the color outside the image, one value or three, in [0, 1]; None is black.
        center: (x, y) in pixels from the top left corner; None is the image's center.
    """
    return _affine_planes(image, angle, translate, scale, shear, interpolation, fill, center)


@transform("rotate", examples=("rotate(30)",))
@planar
def rotate(
    image: jax.Array,
    angle: float,
    interpolation: Interpolation = "nearest",
    fill: Color | None = None,
    center: Point | None = None,
) -> jax.Array:
    """Rotates an image [H, W, 3] by `angle` degrees counter-clockwise, keeping its size; the other
    arguments are those of `affine`.
    """
    return _affine_planes(image, -angle, (0, 0), 1.0, (0, 0), interpolation, fill, center)


@transform("shear_x", examples=("shear_x(0.3)",))
@planar
def shear_x(
    image: jax.Array,
    factor: float,
    interpolation: Interpolation = "nearest",
    fill: Color | None = None,
) -> jax.Array:
    """Shears an image [H, W, 3] along x about its top left corner: row y moves left by
    `factor * y` pixels. As in torchvision's RandAugment; `fill` as in `affine`.
    """
    return warp(image, shear_x_matrix(factor, image.shape[1]), interpolation, fill)


@transform("shear_y", examples=("shear_y(0.3)",))
@planar
def shear_y(
    image: jax.Array,
    factor: float,
    interpolation: Interpolation = "nearest",
    fill: Color | None = None,
) -> jax.Array:
    """Shears an image [H, W, 3] along y about its top left corner: column x moves up by
    `factor * x` pixels. As in torchvision's RandAugment; `fill` as in `affine`.
    """
    return warp(image, shear_y_matrix(factor, image.shape[2]), interpolation, fill)


@transform("translate_x", examples=("translate_x(8)",))
@planar
def translate_x(
    image: jax.Array,
    pixels: float,
    interpolation: Interpolation = "nearest",
    fill: Color | None = None,
) -> jax.Array:
    """Moves an image [H, W, 3] to the right; `fill` as in `affine`."""
    return warp(image, (1.0, 0.0, -pixels, 0.0, 1.0, 0.0), interpolation, fill)


@transform("translate_y", examples=("translate_y(8)",))
@planar
def translate_y(
    image: jax.Array,
    pixels: float,
    interpolation: Interpolation = "nearest",
    fill: Color | None = None,
) -> jax.Array:
    """Moves an image [H, W, 3] down; `fill` as in `affine`."""
    return warp(image, (1.0, 0.0, 0.0, 0.0, 1.0, -pixels), interpolation, fill)


@transform("erase", examples=("erase(8, 4, 10, 20, (0.5, 0.5, 0.4))",))
def erase(
    image: jax.Array,
    i: NonNegativeInt,
    j: NonNegativeInt,
    h: NonNegativeInt,
    w: NonNegativeInt,
    v: Color,
) -> jax.Array:
    """Returns an image [H, W, 3] with `v` in the rectangle of h rows and w columns whose top left
    corner is at row i, column j.

    Args:
        image: float32 [H, W, 3] in [0, 1].
        i: the first row; i, j, h, w may be traced integers, and then negative.
        j: the first column.
        h: rows.
        w: columns.
        v: one value or three, in [0, 1], or a patch [h, w, 3].
    """
    row, column = np.arange(image.shape[0]) - i, np.arange(image.shape[1]) - j
    inside = ((row >= 0) & (row < h))[:, None] & (column >= 0) & (column < w)
    v = jnp.asarray(v, image.dtype)
    v = v.reshape((1,) * (3 - v.ndim) + v.shape)
    patch = v[jnp.clip(row, 0, v.shape[0] - 1)][:, jnp.clip(column, 0, v.shape[1] - 1)]
    return jnp.where(inside[..., None], patch, image)


# On planes [3, H, W], for the functions above and for `policies`.


def _affine_planes(
    planes: jax.Array,
    angle: float,
    translate: Sequence[float],
    scale: float,
    shear: Sequence[float],
    interpolation: str,
    fill: float | Sequence[float] | None,
    center: Sequence[float] | None,
) -> jax.Array:
    _, height, width = planes.shape
    origin = (0.0, 0.0)
    if center is not None:
        origin = (center[0] - width * 0.5, center[1] - height * 0.5)
    matrix = inverse_affine(origin, angle, translate, scale, shear)
    return warp(planes, matrix, interpolation, fill)


def inverse_affine(
    center: Sequence[float],
    angle: float,
    translate: Sequence[float],
    scale: float,
    shear: Sequence[float],
) -> Matrix:
    """Returns the matrix from output to input of `affine`, about the image's center.

    Python numbers are computed in float64, as in torchvision; traced ones in float32.
    """
    rotation, shear_along_x, shear_along_y = (_radians(value) for value in (angle, *shear))
    tangent = _math("tan", shear_along_x)
    a = _math("cos", rotation - shear_along_y) / _math("cos", shear_along_y)
    b = -(a * tangent + _math("sin", rotation))
    c = _math("sin", rotation - shear_along_y) / _math("cos", shear_along_y)
    d = _math("cos", rotation) - c * tangent
    a, b, c, d = d / scale, -b / scale, -c / scale, a / scale
    x, y = center[0] + translate[0], center[1] + translate[1]
    return (a, b, center[0] - a * x - b * y, c, d, center[1] - c * x - d * y)


def shear_x_matrix(factor: float, height: int) -> Matrix:
    """Returns the matrix from output to input of `shear_x`, about the image's center."""
    return (1.0, factor, factor * (height * 0.5), 0.0, 1.0, 0.0)


def shear_y_matrix(factor: float, width: int) -> Matrix:
    """Returns the matrix from output to input of `shear_y`, about the image's center."""
    return (1.0, 0.0, 0.0, factor, 1.0, factor * (width * 0.5))


def warp(
    planes: jax.Array,
    matrix: Matrix,
    interpolation: str = "nearest",
    fill: float | Sequence[float] | None = None,
) -> jax.Array:
    """Returns planes [C, H, W] sampled through `matrix`, whose coordinates start at the center."""
    _, height, width = planes.shape
    x = _source(matrix[:3], width, height, width)
    y = _source(matrix[3:], height, height, width)
    color = None if fill is None else jnp.broadcast_to(jnp.asarray(fill), (3,))[:, None, None]
    if interpolation == "nearest":
        values, inside = _pixels(planes, jnp.round(y), jnp.round(x))
        return jnp.where(inside, values, 0.0 if color is None else color)
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = y - top, x - left
    mixed, coverage = jnp.zeros_like(planes), jnp.zeros_like(x)
    for row, column, weight in (
        (top, left, (1 - down) * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left, down * (1 - right)),
        (top + 1, left + 1, down * right),
    ):
        values, inside = _pixels(planes, row, column)
        weight = jnp.where(inside, weight, 0.0)
        mixed, coverage = mixed + weight * values, coverage + weight
    # torchvision weights border pixels by their coverage twice if there is a fill, else once.
    return mixed if color is None else (mixed - color) * coverage + color


def _pixels(planes: jax.Array, y: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the values [C, H, W] at integer coordinates [H, W], and which are in the image."""
    channels, height, width = planes.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    index = jnp.where(inside, y * width + x, 0).astype(jnp.int32)
    flat = planes.reshape(channels, height * width)
    return flat.at[:, index].get(mode="promise_in_bounds"), inside


def _source(row: tuple, size: int, height: int, width: int) -> jax.Array:
    """Returns one input coordinate, in pixels, of every output pixel: float32 [H, W].

    Half the pixels of a row can lie exactly between two neighbors, as under a shear by 0.2. Which
    one is nearest then depends on rounding, so this follows torchvision's arithmetic to the bit:
    coordinates in [-1, 1], as fma(y, b, x * a) + c. Products are split so that they are exact, and
    the same whether or not the compiler fuses a multiplication and an addition.
    """
    # barrier: XLA would otherwise multiply by 1 / half
    half = jax.lax.optimization_barrier(jnp.float32(size * 0.5))
    a, b, c = (jnp.asarray(value, jnp.float32) / half for value in row)
    x = np.arange(width, dtype=np.float32) - np.float32((width - 1) * 0.5)
    y = (np.arange(height, dtype=np.float32) - np.float32((height - 1) * 0.5))[:, None]
    (a_high, a_low), (b_high, b_low) = _split_float32(a), _split_float32(b)
    product = x * a_high + x * a_low
    term = y * b_high
    total = product + term
    rest = total - product
    error = (product - (total - rest)) + (term - rest)
    total = total + (error + y * b_low)
    return (total + c + 1) * (size * 0.5) - 0.5


def _split_float32(value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Splits a float32 into two of 12 significant bits each, which sum to it."""
    bits = jax.lax.bitcast_convert_type(value, jnp.int32)
    high = jax.lax.bitcast_convert_type(bits & np.int32(-4096), jnp.float32)
    return high, value - high


def _radians(degrees: float) -> float:
    return degrees * (math.pi / 180) if isinstance(degrees, jax.Array) else math.radians(degrees)


def _math(name: str, value: float) -> float:
    return getattr(jnp if isinstance(value, jax.Array) else math, name)(value)
