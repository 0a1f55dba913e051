"""Random transforms, (key, image, ...) -> image: torchvision's classes as functions, and cutout.

One key per image: over a batch, `jax.vmap` over keys draws independently for each image. Each
transform draws all its uniform numbers at once, because on a CPU each generator call costs more
than the numbers. Invalid arguments raise ConfigError.
"""

import itertools
from typing import Annotated, Literal

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

from jaxcifar.augment import color, geometry
from jaxcifar.augment.registry import (
    MEAN,
    Color,
    FactorSpread,
    HueSpread,
    Interpolation,
    PositiveRange,
    Range,
    Size,
    Spread,
    UnitFloat,
    UnitRange,
    as_pair,
    transform,
)
from jaxcifar.augment.sampling import as_range, uniform_to_index, uniform_to_range
from jaxcifar.data import CIFAR_MEAN, CIFAR_STD
from jaxcifar.spec import (
    ConfigError,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Probability,
    described,
)

Padding = (
    NonNegativeInt
    | Annotated[
        tuple[NonNegativeInt, NonNegativeInt]
        | tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, NonNegativeInt],
        described("a tuple of 2 or 4 (left, top, right, bottom)"),
    ]
)
PaddingMode = Literal["constant", "edge", "reflect", "symmetric"]
TwoRanges = Annotated[
    tuple[float, float, float, float],
    described("two (low, high, low, high)", lambda ends: ends[0] <= ends[1] and ends[2] <= ends[3]),
]
RandomFill = Annotated[Literal["random"], described("'random'")]


@transform("random_crop", examples=("random_crop(32, padding=4)",))
def random_crop(
    key: jax.Array,
    image: jax.Array,
    size: Size | None = None,
    padding: Padding = 0,
    padding_mode: PaddingMode = "constant",
) -> jax.Array:
    """Pads an image [H, W, 3], then cuts out a window at random.

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        size: of the window, or (height, width); None: the image's own.
        padding: pixels on every side; or (left and right, top and bottom); or (left, top, right,
            bottom).
        padding_mode: "constant" (black), "edge", "reflect" or "symmetric".

    Raises:
        ConfigError: the window is larger than the padded image.
    """
    sides = (padding,) * 4 if isinstance(padding, int) else padding
    left, top, right, bottom = sides * 2 if len(sides) == 2 else sides
    height, width = as_pair(size or image.shape[:2])
    if height > image.shape[0] + top + bottom or width > image.shape[1] + left + right:
        raise ConfigError(
            f"augment: random_crop's size={size} is larger than the padded image, "
            f"{image.shape[0] + top + bottom} × {image.shape[1] + left + right}"
        )
    padded = jnp.pad(image, ((top, bottom), (left, right), (0, 0)), mode=padding_mode)
    return pix.random_crop(key, padded, (height, width, 3))


@transform
def random_flip(key: jax.Array, image: jax.Array, p: Probability = 0.5) -> jax.Array:
    """Flips an image [H, W, 3] left to right with probability p (RandomHorizontalFlip)."""
    return jnp.where(jax.random.uniform(key) < p, geometry.hflip(image), image)


@transform("color_jitter", examples=("color_jitter(0.4, 0.4, 0.4, 0.2)",))
def color_jitter(
    key: jax.Array,
    image: jax.Array,
    brightness: FactorSpread = 0.0,
    contrast: FactorSpread = 0.0,
    saturation: FactorSpread = 0.0,
    hue: HueSpread = 0.0,
) -> jax.Array:
    """Adjusts brightness, contrast, saturation and hue of an image [H, W, 3] in [0, 1], in random
    order (ColorJitter).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        brightness: the factor's range (low, high), or b for (max(0, 1 - b), 1 + b).
        contrast: same as brightness.
        saturation: same as brightness.
        hue: the range of the shift (low, high) within -0.5 to 0.5, or h for (-h, h).
    """
    ranges = [*(as_range(value, 1.0) for value in (brightness, contrast, saturation))]
    ranges.append(as_range(hue, 0.0))
    draws = jax.random.uniform(key, (5,))
    factors = jnp.stack(
        [uniform_to_range(draw, *ends) for draw, ends in zip(draws, ranges, strict=False)]
    )
    order = jnp.asarray(_ORDERS)[uniform_to_index(draws[4], len(_ORDERS))]
    return _jitter(image, factors, order)


_ORDERS = np.array([*itertools.permutations(range(4))])


@geometry.planar
def _jitter(planes: jax.Array, factors: jax.Array, order: jax.Array) -> jax.Array:
    """Returns planes [3, H, W] after the adjustments, by index in `order`, of color_jitter."""

    def adjust(planes: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        gray = color.to_grayscale(planes)
        other = jnp.where(index == 0, 0.0, jnp.where(index == 1, gray.mean(), gray))
        blended = color.blend(planes, other, factors[index])
        return jnp.where(index == 3, color.shift_hue(planes, factors[3]), blended), None

    return jax.lax.scan(adjust, planes, order)[0]  # scan, for the reason in policies._apply_ops


@transform("random_rotation", examples=("random_rotation(30)",))
def random_rotation(
    key: jax.Array,
    image: jax.Array,
    degrees: Spread,
    interpolation: Interpolation = "nearest",
    fill: Color = 0.0,
) -> jax.Array:
    """Rotates an image [H, W, 3] by a random angle (RandomRotation).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        degrees: the range (low, high), counter-clockwise, or d for (-d, d).
        interpolation: "nearest" or "bilinear".
        fill: the color outside the image, one value or three, in [0, 1].
    """
    angle = uniform_to_range(jax.random.uniform(key), *as_range(degrees, 0.0))
    return geometry.rotate(image, angle, interpolation, fill)


@transform("random_affine", examples=("random_affine(20, (0.1, 0.1), (0.8, 1.2), 15)",))
def random_affine(
    key: jax.Array,
    image: jax.Array,
    degrees: Spread,
    translate: tuple[UnitFloat, UnitFloat] | None = None,
    scale: PositiveRange | None = None,
    shear: NonNegativeFloat | Range | TwoRanges | None = None,
    interpolation: Interpolation = "nearest",
    fill: Color = 0.0,
) -> jax.Array:
    """Rotates, translates, scales and shears an image [H, W, 3] at random (RandomAffine).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        degrees: the range (low, high), clockwise, or d for (-d, d).
        translate: the largest shift as a fraction of width and height, rounded to pixels.
        scale: the factor's range (low, high).
        shear: degrees: s for (-s, s) along x; (low, high) along x; or (low, high, low, high) along
            x and y.
        interpolation: "nearest" or "bilinear".
        fill: the color outside the image, one value or three, in [0, 1].
    """
    draws = jax.random.uniform(key, (6,))
    angle = uniform_to_range(draws[0], *as_range(degrees, 0.0))
    shift = [
        jnp.round(uniform_to_range(draw, -fraction * size, fraction * size))
        for draw, fraction, size in zip(
            draws[1:3], translate or (0.0, 0.0), image.shape[1::-1], strict=True
        )
    ]
    shears = as_range(0.0 if shear is None else shear, 0.0)
    shears = (*shears, 0.0, 0.0) if len(shears) == 2 else shears
    return geometry.affine(
        image,
        angle,
        shift,
        uniform_to_range(draws[3], *(scale or (1.0, 1.0))),
        (uniform_to_range(draws[4], *shears[:2]), uniform_to_range(draws[5], *shears[2:])),
        interpolation,
        fill,
    )


@transform("random_erasing", examples=("random_erasing(1.0)",))
def random_erasing(
    key: jax.Array,
    image: jax.Array,
    p: Probability = 0.5,
    scale: UnitRange = (0.02, 0.33),
    ratio: PositiveRange = (0.3, 3.3),
    value: Color | RandomFill = MEAN,
) -> jax.Array:
    """With probability p, erases a random rectangle of an image [H, W, 3] (RandomErasing;
    Zhong et al. 2017, arXiv:1708.04896).

    Up to 10 rectangles are drawn until one is shorter and narrower than the image.

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        p: probability.
        scale: range of the rectangle's area as a fraction of the image's.
        ratio: range of its height over its width, whose logarithm is drawn uniformly.
        value: the color in [0, 1], one value or three; by default the data's mean, which matches
            torchvision's 0 after normalization. "random": noise of CIFAR's mean and standard
            deviation, clipped to [0, 1].
    """
    height, width, _ = image.shape
    uniform_key, noise_key = jax.random.split(key)
    draws = jax.random.uniform(uniform_key, (23,))
    area = uniform_to_range(draws[:10], *scale) * (height * width)
    aspect = jnp.exp(uniform_to_range(draws[10:20], *np.log(ratio)))
    h, w = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (h < height) & (w < width)
    h, w = (jnp.where(fits.any(), sides[fits.argmax()], 0) for sides in (h, w))
    i, j = uniform_to_index(draws[20], height - h + 1), uniform_to_index(draws[21], width - w + 1)
    h = jnp.where(draws[22] < p, h, 0)
    if isinstance(value, str):
        noise = jax.random.normal(noise_key, image.shape) * np.array(CIFAR_STD, np.float32)
        value = jnp.clip(noise + np.array(CIFAR_MEAN, np.float32), 0, 1)
    return geometry.erase(image, i, j, h, w, value)


@transform("cutout", examples=("cutout(12)",))
def cutout(
    key: jax.Array,
    image: jax.Array,
    size: PositiveInt,
    value: Color = MEAN,
) -> jax.Array:
    """Erases a square of an image [H, W, 3], centered on any of its pixels and clipped at its
    border (DeVries & Taylor 2017, arXiv:1708.04552; there 16 pixels for CIFAR-10, 8 for CIFAR-100).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        size: pixels.
        value: the color in [0, 1], one value or three; by default the data's mean.
    """
    draws = jax.random.uniform(key, (2,))
    i, j = (
        uniform_to_index(draw, n) - size // 2
        for draw, n in zip(draws, image.shape[:2], strict=True)
    )
    return geometry.erase(image, i, j, size, size, value)
