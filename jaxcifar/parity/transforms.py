"""Rows of deterministic transforms: the same uint8 images and the same arguments on both sides.

Ours get the images as float32 in [0, 1], and at the end become integers as torchvision's do, which
truncates, rounds, or scales by 256, depending on the function.
"""

import math
from collections.abc import Callable

import jax
import numpy as np

from jaxcifar import augment
from jaxcifar.parity.given import jit, pictures, unit_floats
from jaxcifar.parity.rows import ABSOLUTE, EXACT, OFF_BY_ONE, PIXELS, Measure, row
from jaxcifar.parity.torch_networks import channels_first, channels_last
from jaxcifar.torchvision_compat import import_torchvision

GROUP = "Transforms"

functional = import_torchvision().transforms.v2.functional
BILINEAR = import_torchvision().transforms.v2.InterpolationMode.BILINEAR

# 1e-3 of a level is float32 rounding
TRUNCATED: Callable = lambda levels: np.floor(levels + 1e-3)  # noqa: E731
SCALED: Callable = lambda levels: np.floor(levels * (256 - 1e-3) / 255)  # noqa: E731

# For each measure the tolerance, and why
TOLERANCES = {
    PIXELS: (0.01, "between two pixels, the last bit of a coordinate decides which is nearest"),
    OFF_BY_ONE: (0.01, "an exact integer may be rounded to either side of it before truncation"),
    ABSOLUTE: (0.0, EXACT),
}


def compare(
    ours: Callable, theirs: Callable, *values: np.ndarray, rounded: Callable = np.round
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what both functions make of every picture with every value, in 255ths, [values,
    pictures, H, W, 3].

    Args:
        ours: (image, *values) -> image; the values are traced.
        theirs: (uint8 tensor [N, 3, H, W], *values) -> tensor; the values are numbers or lists.
        *values: the arguments, arrays [V, ...]; without any the functions are called once.
        rounded: how our levels become integers.
    """
    images = pictures()
    over_images = jax.vmap(ours, (0, *[None] * len(values)))
    over_values = jax.vmap(over_images, (None, *[0] * len(values))) if values else over_images
    results = jit(over_values)(unit_floats(images), *values)
    calls = zip(*(array.tolist() for array in values), strict=True) if values else [()]
    expected = np.stack(
        [channels_last(theirs(channels_first(images), *call)) for call in calls]
    ).astype(np.float64)
    levels = rounded(255 * np.asarray(results, np.float64))
    return levels.reshape(expected.shape[0], -1, *levels.shape[-3:]), expected


def declare(
    what: str,
    against: str,
    measure: Measure,
    ours: Callable,
    theirs: Callable,
    *values: np.ndarray,
    rounded: Callable = np.round,
) -> None:
    """Declares the row of a transform; see `compare`."""
    tolerance, reason = TOLERANCES[measure]
    row(
        what,
        group=GROUP,
        against=f"torchvision.transforms.v2.functional.{against}",
        tolerance=tolerance,
        reason=reason,
        measure=measure,
        dtype="float32",
    )(lambda: compare(ours, theirs, *values, rounded=rounded))


# --- geometry -------------------------------------------------------------------------------------

_rng = np.random.default_rng(1)
_ANGLES = np.float32([0, 7, -7, 30, 45, 90, 180, 270, 123.4, *_rng.uniform(-180, 180, 20)])
_FACTORS = np.float32([0, 0.02, 0.04, 0.1, 0.2, -0.2, 0.3, -0.33, 0.99, *_rng.uniform(-1, 1, 20)])
_PIXELS = np.int32([0, 1, -3, 14, -31, 32, 40])
_CORNERS = np.int32([[0, 0], [-3, 4], [5, -6], [14, 25], [30, 30]])
_BOXES = np.int32([[3, 4, 10, 5], [0, 0, 32, 36], [31, 35, 1, 1], [7, 2, 20, 30]])
_AFFINE = (  # angle, translation, scale, shear
    np.float32(_rng.uniform(-180, 180, 30)),
    np.float32(_rng.uniform(-9, 9, (30, 2))),
    np.float32(_rng.uniform(0.3, 2, 30)),
    np.float32(_rng.uniform(-40, 40, (30, 2))),
)
_COLOR = (0.2, 0.4, 0.8)
_COLOR_LEVELS = [51.0, 102.0, 204.0]


def _sheared(axis: str) -> Callable:
    def shear(images, factor):
        degrees = math.degrees(math.atan(factor))
        angles = [degrees, 0.0] if axis == "x" else [0.0, degrees]
        return functional.affine(images, 0.0, [0, 0], 1.0, angles, center=[0, 0])

    return shear


def _translated(axis: str) -> Callable:
    def translate(images, pixels):
        move = [pixels, 0] if axis == "x" else [0, pixels]
        return functional.affine(images, 0.0, move, 1.0, [0.0, 0.0])

    return translate


def _erased(images, i, j, h, w):
    color = channels_first(np.uint8(_COLOR_LEVELS)[None, None])
    return functional.erase(images, i, j, h, w, color)


declare("hflip", "horizontal_flip", ABSOLUTE, augment.hflip, functional.horizontal_flip)
declare(
    "crop, also beyond the border",
    "crop",
    ABSOLUTE,
    lambda image, top, left: augment.crop(image, top, left, 20, 28),
    lambda images, top, left: functional.crop(images, top, left, 20, 28),
    *_CORNERS.T,
)
declare(
    "erase",
    "erase",
    ABSOLUTE,
    lambda image, i, j, h, w: augment.erase(image, i, j, h, w, _COLOR),
    _erased,
    *_BOXES.T,
)
declare(
    f"rotate by {len(_ANGLES)} angles",
    "rotate",
    PIXELS,
    augment.rotate,
    functional.rotate,
    _ANGLES,
)
declare(
    "rotate about a corner, filled with a color",
    "rotate",
    PIXELS,
    lambda image, angle: augment.rotate(image, angle, "nearest", _COLOR, (5, 9)),
    lambda images, angle: functional.rotate(images, angle, fill=_COLOR_LEVELS, center=[5, 9]),
    _ANGLES,
)
declare(
    "rotate, bilinear, filled with a color",
    "rotate",
    OFF_BY_ONE,
    lambda image, angle: augment.rotate(image, angle, "bilinear", _COLOR),
    lambda images, angle: functional.rotate(images, angle, BILINEAR, fill=_COLOR_LEVELS),
    _ANGLES,
)
declare(
    f"affine, {len(_AFFINE[0])} maps", "affine", PIXELS, augment.affine, functional.affine, *_AFFINE
)
declare(
    "affine, bilinear",
    "affine",
    OFF_BY_ONE,
    lambda image, *values: augment.affine(image, *values, "bilinear"),
    lambda images, *values: functional.affine(images, *values, BILINEAR),
    *_AFFINE,
)
for _axis in "xy":
    declare(
        f"shear_{_axis} by {len(_FACTORS)} factors",
        "affine",
        PIXELS,
        getattr(augment, f"shear_{_axis}"),
        _sheared(_axis),
        _FACTORS,
    )
    declare(
        f"translate_{_axis}",
        "affine",
        PIXELS,
        getattr(augment, f"translate_{_axis}"),
        _translated(_axis),
        _PIXELS,
    )

# --- color ----------------------------------------------------------------------------------------

_BLENDS = np.float32([0, 0.3, 0.9, 1, 1.1, 2, 5, *_rng.uniform(0, 4, 13)])
_TURNS = np.float32([-0.5, -0.3, -0.1, 0, 0.05, 0.25, 0.5, *_rng.uniform(-0.5, 0.5, 13)])
_SIGMAS = np.float32([0.4, 1.1, 2.0, 3.7])

for _name in ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_sharpness"):
    declare(
        f"{_name} by {len(_BLENDS)} factors",
        _name,
        OFF_BY_ONE,
        getattr(augment, _name),
        getattr(functional, _name),
        _BLENDS,
        rounded=TRUNCATED,
    )
declare(
    f"adjust_hue by {len(_TURNS)} shifts",
    "adjust_hue",
    OFF_BY_ONE,
    augment.adjust_hue,
    functional.adjust_hue,
    _TURNS,
    rounded=SCALED,
)
declare(
    "posterize to 0 to 8 bits",
    "posterize",
    ABSOLUTE,
    augment.posterize,
    functional.posterize,
    np.arange(9, dtype=np.int32),
)
declare(
    "solarize at every fifth level",
    "solarize",
    ABSOLUTE,
    lambda image, level: augment.solarize(image, level / 255),
    functional.solarize,
    np.arange(0, 256, 5, dtype=np.float32),
)
for _name in ("equalize", "invert"):
    declare(_name, _name, ABSOLUTE, getattr(augment, _name), getattr(functional, _name))
declare(
    "autocontrast",
    "autocontrast",
    OFF_BY_ONE,
    augment.autocontrast,
    functional.autocontrast,
    rounded=TRUNCATED,
)
declare(
    f"gaussian_blur of 5 pixels, {len(_SIGMAS)} sigmas",
    "gaussian_blur",
    OFF_BY_ONE,
    lambda image, sigma: augment.gaussian_blur(image, 5, (sigma, sigma)),
    lambda images, sigma: functional.gaussian_blur(images, 5, sigma),
    _SIGMAS,
)
declare(
    "gaussian_blur of 3 by 7 pixels",
    "gaussian_blur",
    OFF_BY_ONE,
    lambda image: augment.gaussian_blur(image, (3, 7), (1.0, 3.0)),
    lambda images: functional.gaussian_blur(images, [3, 7], [1.0, 3.0]),
)
