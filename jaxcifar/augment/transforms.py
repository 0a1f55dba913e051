"""Random transforms: fn(key, image, ...) -> image, as torchvision's classes of these names.

One key makes one image's draw: over a batch, `jax.vmap` gives every image its own. Each transform
draws all its uniform numbers at once, because on a CPU the generator's calls cost more than its
numbers.
"""

import itertools
from collections.abc import Sequence

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

from jaxcifar.augment import color, geometry
from jaxcifar.augment.geometry import Fill
from jaxcifar.augment.parse import checked
from jaxcifar.config import CIFAR_MEAN, CIFAR_STD, ConfigError

Range = float | tuple[float, float]


@checked
def random_crop(
    key: jax.Array,
    image: jax.Array,
    size: int | tuple[int, int],
    padding: int | tuple[int, ...] = 0,
    padding_mode: str = "constant",
) -> jax.Array:
    """Pads an image [H, W, 3], then cuts out a window at random.

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        size: the window's, or (height, width).
        padding: pixels on every side; or (left and right, top and bottom); or (left, top, right,
            bottom).
        padding_mode: "constant" (black), "edge", "reflect" or "symmetric".

    Raises:
        ConfigError: the window is larger than the padded image.
    """
    sides = (padding,) * 4 if isinstance(padding, int) else padding
    left, top, right, bottom = sides * 2 if len(sides) == 2 else sides
    height, width = (size, size) if isinstance(size, int) else size
    if height > image.shape[0] + top + bottom or width > image.shape[1] + left + right:
        raise ConfigError(
            f"augment: random_crop's size={size} is larger than the padded image, "
            f"{image.shape[0] + top + bottom} × {image.shape[1] + left + right}"
        )
    padded = jnp.pad(image, ((top, bottom), (left, right), (0, 0)), mode=padding_mode)
    return pix.random_crop(key, padded, (height, width, 3))


@checked
def random_flip(key: jax.Array, image: jax.Array, p: float = 0.5) -> jax.Array:
    """Mirrors an image [H, W, 3] left to right with probability p (RandomHorizontalFlip)."""
    return jnp.where(jax.random.uniform(key) < p, geometry.hflip(image), image)


@checked
def color_jitter(
    key: jax.Array,
    image: jax.Array,
    brightness: Range = 0.0,
    contrast: Range = 0.0,
    saturation: Range = 0.0,
    hue: Range = 0.0,
) -> jax.Array:
    """Adjusts brightness, contrast, saturation and hue of an image [H, W, 3] in [0, 1], in random
    order (ColorJitter).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        brightness: the factor's range (low, high), or b for (max(0, 1 - b), 1 + b).
        contrast: likewise.
        saturation: likewise.
        hue: the range of the turn (low, high) within -0.5 to 0.5, or h for (-h, h).
    """
    ranges = [*(_around(value, 1.0) for value in (brightness, contrast, saturation))]
    ranges.append(_around(hue, 0.0))
    draws = jax.random.uniform(key, (5,))
    factors = jnp.stack([_between(draw, *ends) for draw, ends in zip(draws, ranges, strict=False)])
    order = jnp.asarray(_ORDERS)[_whole(draws[4], len(_ORDERS))]
    return _jitter(image, factors, order)


_ORDERS = np.array([*itertools.permutations(range(4))])


@geometry.planar
def _jitter(planes: jax.Array, factors: jax.Array, order: jax.Array) -> jax.Array:
    def adjust(planes: jax.Array, which: jax.Array) -> tuple[jax.Array, None]:
        grey = color.grey(planes)
        other = jnp.where(which == 0, 0.0, jnp.where(which == 1, grey.mean(), grey))
        blended = color.blend(planes, other, factors[which])
        return jnp.where(which == 3, color.shift_hue(planes, factors[3]), blended), None

    return jax.lax.scan(adjust, planes, order)[0]  # a loop for the reason that policies have one


@checked
def random_rotation(
    key: jax.Array,
    image: jax.Array,
    degrees: Range,
    interpolation: str = "nearest",
    fill: Fill = 0.0,
) -> jax.Array:
    """Rotates an image [H, W, 3] by a random angle (RandomRotation).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        degrees: the range (low, high), counter-clockwise, or d for (-d, d).
        interpolation: "nearest" or "bilinear".
        fill: what is shown outside of the image: one value or three, in [0, 1].
    """
    angle = _between(jax.random.uniform(key), *_around(degrees, 0.0))
    return geometry.rotate(image, angle, interpolation, fill)


@checked
def random_affine(
    key: jax.Array,
    image: jax.Array,
    degrees: Range,
    translate: tuple[float, float] | None = None,
    scale: tuple[float, float] | None = None,
    shear: float | tuple[float, ...] | None = None,
    interpolation: str = "nearest",
    fill: Fill = 0.0,
) -> jax.Array:
    """Rotates, translates, scales and shears an image [H, W, 3] at random (RandomAffine).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        degrees: the range (low, high), clockwise, or d for (-d, d).
        translate: the largest move as a fraction of width and height; whole pixels are drawn.
        scale: the factor's range (low, high).
        shear: degrees: s for (-s, s) along x; (low, high) along x; or (low, high, low, high) along
            x and y.
        interpolation: "nearest" or "bilinear".
        fill: what is shown outside of the image: one value or three, in [0, 1].
    """
    draws = jax.random.uniform(key, (6,))
    angle = _between(draws[0], *_around(degrees, 0.0))
    move = [
        jnp.round(_between(draw, -fraction * size, fraction * size))
        for draw, fraction, size in zip(
            draws[1:3], translate or (0.0, 0.0), image.shape[1::-1], strict=True
        )
    ]
    shears = _around(0.0 if shear is None else shear, 0.0)
    shears = (*shears, 0.0, 0.0) if len(shears) == 2 else shears
    return geometry.affine(
        image,
        angle,
        move,
        _between(draws[3], *(scale or (1.0, 1.0))),
        (_between(draws[4], *shears[:2]), _between(draws[5], *shears[2:])),
        interpolation,
        fill,
    )


@checked
def random_erasing(
    key: jax.Array,
    image: jax.Array,
    p: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    value: float | tuple[float, float, float] | str = CIFAR_MEAN,
) -> jax.Array:
    """With probability p, paints over a random rectangle of an image [H, W, 3] (RandomErasing;
    Zhong et al. 2017, arXiv:1708.04896).

    Up to 10 rectangles are drawn until one is lower and narrower than the image.

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        p: probability.
        scale: range of the rectangle's share of the image's area.
        ratio: range of its height over its width, whose logarithm is drawn uniformly.
        value: the colour in [0, 1], one value or three; by default the data's mean, which is
            torchvision's 0 after normalisation. "random": noise of CIFAR's mean and standard
            deviation, within [0, 1].
    """
    height, width, _ = image.shape
    uniform_key, noise_key = jax.random.split(key)
    draws = jax.random.uniform(uniform_key, (23,))
    area = _between(draws[:10], *scale) * (height * width)
    aspect = jnp.exp(_between(draws[10:20], *np.log(ratio)))
    h, w = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (h < height) & (w < width)
    h, w = (jnp.where(fits.any(), sides[fits.argmax()], 0) for sides in (h, w))
    i, j = _whole(draws[20], height - h + 1), _whole(draws[21], width - w + 1)
    h = jnp.where(draws[22] < p, h, 0)
    if value == "random":
        noise = jax.random.normal(noise_key, image.shape) * np.array(CIFAR_STD, np.float32)
        value = jnp.clip(noise + np.array(CIFAR_MEAN, np.float32), 0, 1)
    return geometry.erase(image, i, j, h, w, value)


@checked
def cutout(
    key: jax.Array,
    image: jax.Array,
    size: int,
    value: float | tuple[float, float, float] = CIFAR_MEAN,
) -> jax.Array:
    """Paints over a square of an image [H, W, 3], centred on any of its pixels and cut off at its
    border (DeVries & Taylor 2017, arXiv:1708.04552; there 16 pixels for CIFAR-10, 8 for CIFAR-100).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        size: pixels.
        value: the colour in [0, 1], one value or three; by default the data's mean.
    """
    draws = jax.random.uniform(key, (2,))
    i, j = (_whole(draw, n) - size // 2 for draw, n in zip(draws, image.shape[:2], strict=True))
    return geometry.erase(image, i, j, size, size, value)


def _whole(draw: jax.Array, count: int) -> jax.Array:
    """Turns a uniform draw from [0, 1) into one of the whole numbers 0 to count - 1."""
    return jnp.floor(draw * count).astype(jnp.int32)


def _between(draw: jax.Array, low: float, high: float) -> jax.Array:
    return low + draw * (high - low)


def _around(value: float | Sequence[float], center: float) -> tuple[float, ...]:
    """Returns a range, given as such or as its distance from a center; factors end at 0."""
    if isinstance(value, Sequence):
        return tuple(value)
    return (max(0.0, center - value) if center else -value, center + value)
