"""Photometric forms: what changes values where they are. `torchvision.transforms.v2.functional`
on one image.

Images are float32 and stay unrounded, where torchvision's uint8 images are cut off after every
operation; intermediate images that torchvision rounds (grey, smoothed, histogram bins) are rounded
here too, or a strong factor would magnify the difference.
"""

from collections.abc import Sequence

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

from jaxcifar.augment.geometry import planar


@planar
def adjust_brightness(image: jax.Array, brightness_factor: float) -> jax.Array:
    """Blends an image [H, W, 3] in [0, 1] with black; 1 leaves it, 0 is black, 2 is twice as
    bright.
    """
    # not dm-pix's, which adds an offset
    return blend(image, 0.0, brightness_factor)


@planar
def adjust_contrast(image: jax.Array, contrast_factor: float) -> jax.Array:
    """Blends an image [H, W, 3] in [0, 1] with its mean grey; 1 leaves it, 0 is that grey."""
    # not dm-pix's, which takes a mean for each channel
    return blend(image, grey(image).mean(), contrast_factor)


@planar
def adjust_saturation(image: jax.Array, saturation_factor: float) -> jax.Array:
    """Blends an image [H, W, 3] in [0, 1] with its grey version; 1 leaves it, 0 is grey."""
    # not dm-pix's, which scales the saturation of HSV
    return blend(image, grey(image), saturation_factor)


@planar
def adjust_hue(image: jax.Array, hue_factor: float) -> jax.Array:
    """Turns the hue of an image [H, W, 3] in [0, 1]; -0.5 and 0.5 are the opposite colours."""
    return shift_hue(image, hue_factor)


@planar
def adjust_sharpness(image: jax.Array, sharpness_factor: float) -> jax.Array:
    """Blends an image [H, W, 3] in [0, 1] with a smoothed one; 1 leaves it, 0 is smooth, 2 is
    sharpened. The outermost pixels stay as they are.
    """
    return blend(image, smooth(image), sharpness_factor)


@planar
def posterize(image: jax.Array, bits: int) -> jax.Array:
    """Keeps the first `bits` bits, 0 to 8, of the 8-bit values of an image [H, W, 3] in [0, 1]."""
    return keep_bits(image, bits)


def solarize(image: jax.Array, threshold: float) -> jax.Array:
    """Inverts the values of an image [H, W, 3] in [0, 1] that are `threshold` or more."""
    # k / 255 and the threshold may be the same number in exact arithmetic only
    return pix.solarize(image, threshold - 1e-6)


@planar
def autocontrast(image: jax.Array) -> jax.Array:
    """Stretches each channel of an image [H, W, 3] to span [0, 1]; a constant one stays."""
    return stretch(image)


@planar
def equalize(image: jax.Array) -> jax.Array:
    """Spreads the values of each channel of an image [H, W, 3] in [0, 1] evenly, by the histogram
    of their 8-bit values; a channel of nearly constant value stays.
    """
    return flatten_histogram(image)


def invert(image: jax.Array) -> jax.Array:
    """Returns the negative of an image [H, W, 3] in [0, 1]."""
    return 1 - image


@planar
def gaussian_blur(
    image: jax.Array, kernel_size: int | Sequence[int], sigma: float | Sequence[float] | None = None
) -> jax.Array:
    """Blurs an image [H, W, 3] in [0, 1] with a Gaussian; borders are reflected.

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


# The same on planes [3, H, W], for those who choose among several: see `policies`.


def blend(planes: jax.Array, other: jax.Array | float, factor: float) -> jax.Array:
    """Returns factor * planes + (1 - factor) * other, clipped to [0, 1]; exactly the planes where
    the factor is 1.
    """
    return jnp.clip(planes * factor + other * (1 - factor), 0, 1)


def grey(planes: jax.Array) -> jax.Array:
    """Returns the 8-bit luma of planes [3, H, W], as [H, W]: ITU-R 601's weights, cut off."""
    # not dm-pix's: a matrix product, which a GPU may compute in TF32, and not cut off
    red, green, blue = _levels(planes)
    return jnp.floor(blue * 0.114 + (green * 0.587 + red * 0.2989)) / 255


def smooth(planes: jax.Array) -> jax.Array:
    """Returns planes [3, H, W] under a 3 × 3 kernel of 1s with a 5 in the middle, as 8-bit values.
    The outermost pixels stay as they are.
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


def shift_hue(planes: jax.Array, turn: float) -> jax.Array:
    """Returns planes [3, H, W] with their HSV hue moved by `turn` full turns."""
    hue, saturation, value = pix.rgb_to_hsv(planes, channel_axis=0)
    # not dm-pix's way back, whose `%` calls fmod for every value: it takes three times as long
    sector = 6 * (hue + turn) + np.array([5, 3, 1], np.float32)[:, None, None]
    sector = sector - 6 * jnp.floor(sector / 6)
    return value * (1 - saturation * jnp.clip(jnp.minimum(sector, 4 - sector), 0, 1))


def keep_bits(planes: jax.Array, bits: int) -> jax.Array:
    """Returns the first bits of the planes' 8-bit values; the planes themselves for all 8."""
    dropped = 8 - jnp.asarray(bits, jnp.int32)
    levels = _levels(planes).astype(jnp.int32)
    return jnp.where(dropped > 0, (levels >> dropped << dropped) / 255, planes)


def stretch(planes: jax.Array) -> jax.Array:
    """Returns each of the planes [3, H, W] stretched to span [0, 1]; a constant one stays."""
    low, high = (limit(planes, axis=(1, 2), keepdims=True) for limit in (jnp.min, jnp.max))
    constant = low == high
    return jnp.where(constant, planes, (planes - low) / jnp.where(constant, 1, high - low))


def flatten_histogram(planes: jax.Array) -> jax.Array:
    """Returns each of the planes [3, H, W] with its 8-bit histogram equalised, as PIL does it."""
    levels = _levels(planes).astype(jnp.int32).reshape(3, -1)
    # On a CPU, counting by scatter-add takes a tenth of sorting or of one-hot products. Dividing
    # floats halves the rest; it is exact, because half a unit keeps whole quotients off the edge.
    counts = jax.vmap(
        lambda plane: jnp.zeros(256, planes.dtype).at[plane].add(1, mode="promise_in_bounds")
    )(levels)
    below = jnp.cumsum(counts, axis=1) - counts
    below_highest = jnp.where(counts > 0, below, 0).max(1, keepdims=True)
    step = jnp.floor((below_highest + 0.5) / 255)
    table = jnp.floor((below + jnp.floor(step / 2) + 0.5) / jnp.maximum(step, 1))
    table = jnp.minimum(table, 255) / 255
    spread = jnp.take_along_axis(table, levels, axis=1, mode="promise_in_bounds")
    return jnp.where(step[..., None] > 0, spread.reshape(planes.shape), planes)


def _levels(planes: jax.Array) -> jax.Array:
    return jnp.round(planes * 255)
