"""Photometric transforms, which change values and move no pixels:
`torchvision.transforms.v2.functional` on one image.

Images are float32 [H, W, 3] in [0, 1] and are not rounded, whereas torchvision truncates uint8
images after every operation. Intermediate images that torchvision rounds (grayscale, smoothed,
histogram bins) are rounded here too: a large factor would magnify the difference. Scalar arguments
may be traced; plain Python values are validated (ConfigError).
"""

from collections.abc import Sequence
from typing import Annotated

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

from jaxcifar.augment.geometry import planar
from jaxcifar.augment.registry import HueShift, UnitFloat, transform
from jaxcifar.spec import NonNegativeFloat, PositiveFloat, PositiveInt, between, described

OddInt = Annotated[PositiveInt, described("an odd integer", lambda value: value % 2 == 1)]
KernelSize = OddInt | Annotated[tuple[OddInt, OddInt], described("two (x, y)")]
Sigma = PositiveFloat | Annotated[tuple[PositiveFloat, PositiveFloat], described("two (x, y)")]


@transform("adjust_brightness", examples=("adjust_brightness(1.6)",))
@planar
def adjust_brightness(image: jax.Array, brightness_factor: NonNegativeFloat) -> jax.Array:
    """Blends an image [H, W, 3] in [0, 1] with black: factor 1 changes nothing, 0 gives black, 2
    doubles the brightness.
    """
    # not dm-pix's, which adds an offset
    return blend(image, 0.0, brightness_factor)


@transform("adjust_contrast", examples=("adjust_contrast(1.8)",))
@planar
def adjust_contrast(image: jax.Array, contrast_factor: NonNegativeFloat) -> jax.Array:
    """Blends an image [H, W, 3] in [0, 1] with its mean gray: factor 1 changes nothing, 0 gives
    that gray.
    """
    # not dm-pix's, which takes a mean for each channel
    return blend(image, to_grayscale(image).mean(), contrast_factor)


@transform("adjust_saturation", examples=("adjust_saturation(2.5)",))
@planar
def adjust_saturation(image: jax.Array, saturation_factor: NonNegativeFloat) -> jax.Array:
    """Blends an image [H, W, 3] in [0, 1] with its grayscale version: factor 1 changes nothing, 0
    gives grayscale.
    """
    # not dm-pix's, which scales the saturation of HSV
    return blend(image, to_grayscale(image), saturation_factor)


@transform("adjust_hue", examples=("adjust_hue(0.25)",))
@planar
def adjust_hue(image: jax.Array, hue_factor: HueShift) -> jax.Array:
    """Shifts the hue of an image [H, W, 3] in [0, 1]; -0.5 and 0.5 give complementary colors."""
    return shift_hue(image, hue_factor)


@transform("adjust_sharpness", examples=("adjust_sharpness(4)",))
@planar
def adjust_sharpness(image: jax.Array, sharpness_factor: NonNegativeFloat) -> jax.Array:
    """Blends an image [H, W, 3] in [0, 1] with a smoothed one: factor 1 changes nothing, 0 smooths,
    2 sharpens. Border pixels are unchanged.
    """
    return blend(image, smooth(image), sharpness_factor)


@transform("posterize", examples=("posterize(2)",))
@planar
def posterize(image: jax.Array, bits: Annotated[int, between(0, 8)]) -> jax.Array:
    """Keeps the `bits` highest bits of the 8-bit values of an image [H, W, 3] in [0, 1]."""
    return posterize_planes(image, bits)


@transform("solarize", examples=("solarize(0.5)",))
def solarize(image: jax.Array, threshold: UnitFloat) -> jax.Array:
    """Inverts the values of an image in [0, 1], of any layout, that are `threshold` or more."""
    # k / 255 and the threshold may be equal only in exact arithmetic
    return pix.solarize(image, threshold - 1e-6)


@transform
@planar
def autocontrast(image: jax.Array) -> jax.Array:
    """Stretches each channel of an image [H, W, 3] to span [0, 1]; constant ones are unchanged."""
    return autocontrast_planes(image)


@transform
@planar
def equalize(image: jax.Array) -> jax.Array:
    """Equalizes the 8-bit histogram of each channel of an image [H, W, 3] in [0, 1]; a nearly
    constant channel is unchanged.
    """
    return equalize_planes(image)


@transform
def invert(image: jax.Array) -> jax.Array:
    """Returns the negative of an image [H, W, 3] in [0, 1]."""
    return 1 - image


@transform("gaussian_blur", examples=("gaussian_blur(5, 1.5)",))
@planar
def gaussian_blur(
    image: jax.Array, kernel_size: KernelSize, sigma: Sigma | None = None
) -> jax.Array:
    """Blurs an image [H, W, 3] in [0, 1] with a Gaussian kernel; borders are reflected.

    Args:
        image: float32 [H, W, 3].
        kernel_size: an odd number of pixels, or those along x and y.
        sigma: standard deviation in pixels, or those along x and y; None is
            0.15 * kernel_size + 0.35.
    """
    # dm-pix's pads with black and has one sigma and size for both axes
    sizes = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    if sigma is None:
        sigma = [0.15 * size + 0.35 for size in sizes]
    sigmas = sigma if isinstance(sigma, Sequence) else (sigma, sigma)
    for axis, size, deviation in ((2, sizes[0], sigmas[0]), (1, sizes[1], sigmas[1])):
        offsets = np.arange(size) - size // 2
        kernel = jax.nn.softmax(-0.5 * (offsets / deviation) ** 2)
        margins = [(0, 0)] * 3
        margins[axis] = (size // 2, size // 2)
        padded = jnp.pad(image, margins, mode="reflect")
        length = image.shape[axis]
        image = sum(
            weight * jax.lax.slice_in_dim(padded, k, k + length, axis=axis)
            for k, weight in enumerate(kernel)
        )
    return image


# On planes [3, H, W], for the functions above and for `transforms` and `policies`, which choose
# among them by traced numbers.


def blend(planes: jax.Array, other: jax.Array | float, factor: float) -> jax.Array:
    """Returns factor * planes + (1 - factor) * other, clipped to [0, 1]; exactly the planes if the
    factor is 1.
    """
    return jnp.clip(planes * factor + other * (1 - factor), 0, 1)


def to_grayscale(planes: jax.Array) -> jax.Array:
    """Returns the 8-bit luma [H, W] of planes [3, H, W]: ITU-R 601's weights, truncated."""
    # not dm-pix's: a matrix product, which a GPU may compute in TF32, and not truncated
    red, green, blue = _levels(planes)
    return jnp.floor(blue * 0.114 + (green * 0.587 + red * 0.2989)) / 255


def smooth(planes: jax.Array) -> jax.Array:
    """Returns planes [3, H, W] convolved with a 3 × 3 kernel of ones with a 5 in the middle, as
    8-bit values. Border pixels are unchanged.
    """
    _, height, width = planes.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)
    inner = (rows > 0) & (rows < height - 1) & (columns > 0) & (columns < width - 1)
    total = planes
    for axis in (1, 2):
        margins = [(0, 0)] * 3
        margins[axis] = (1, 1)
        padded = jnp.pad(total, margins)
        total = sum(
            jax.lax.slice_in_dim(padded, k, k + total.shape[axis], axis=axis) for k in range(3)
        )
    return jnp.where(inner, _levels((total + 4 * planes) / 13) / 255, planes)


def shift_hue(planes: jax.Array, shift: float) -> jax.Array:
    """Returns planes [3, H, W] with their HSV hue shifted; a shift of 1 is a full turn."""
    hue, saturation, value = pix.rgb_to_hsv(planes, channel_axis=0)
    return hsv_to_rgb(hue + shift, saturation, value)


def hsv_to_rgb(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    """Returns the planes [3, H, W] of planes [H, W] of HSV; any hue, of which 1 is a full turn."""
    # not dm-pix's, whose `%` calls fmod for every value: it takes three times as long
    sector = 6 * hue + np.array([5, 3, 1], np.float32)[:, None, None]
    sector = sector - 6 * jnp.floor(sector / 6)
    return value * (1 - saturation * jnp.clip(jnp.minimum(sector, 4 - sector), 0, 1))


def posterize_planes(planes: jax.Array, bits: int) -> jax.Array:
    """Returns the `bits` highest bits of the planes' 8-bit values; the planes themselves for 8."""
    num_dropped = 8 - jnp.asarray(bits, jnp.int32)
    levels = _levels(planes).astype(jnp.int32)
    return jnp.where(num_dropped > 0, (levels >> num_dropped << num_dropped) / 255, planes)


def autocontrast_planes(planes: jax.Array) -> jax.Array:
    """Returns each of the planes [3, H, W] stretched to span [0, 1]; constant ones unchanged."""
    low, high = (limit(planes, axis=(1, 2), keepdims=True) for limit in (jnp.min, jnp.max))
    is_constant = low == high
    return jnp.where(is_constant, planes, (planes - low) / jnp.where(is_constant, 1, high - low))


def equalize_planes(planes: jax.Array) -> jax.Array:
    """Returns each of the planes [3, H, W] with its 8-bit histogram equalized, as in PIL."""
    levels = _levels(planes).astype(jnp.int32).reshape(3, -1)
    # On a CPU, counting by scatter-add takes a tenth of the time of sorting or one-hot products.
    # Float instead of integer division halves the remaining time; +0.5 keeps the floors exact.
    histogram = jax.vmap(
        lambda plane: jnp.zeros(256, planes.dtype).at[plane].add(1, mode="promise_in_bounds")
    )(levels)
    below = jnp.cumsum(histogram, axis=1) - histogram
    below_highest = jnp.where(histogram > 0, below, 0).max(1, keepdims=True)
    step = jnp.floor((below_highest + 0.5) / 255)
    lookup = jnp.floor((below + jnp.floor(step / 2) + 0.5) / jnp.maximum(step, 1))
    lookup = jnp.minimum(lookup, 255) / 255
    equalized = jnp.take_along_axis(lookup, levels, axis=1, mode="promise_in_bounds")
    return jnp.where(step[..., None] > 0, equalized.reshape(planes.shape), planes)


def _levels(planes: jax.Array) -> jax.Array:
    return jnp.round(planes * 255)
