"""Rows of deterministic transforms: the same uint8 images and the same arguments on both sides.

Ours get the images as float32 in [0, 1] and return floats; torchvision computes floats, too, and
makes integers of them. So each of its results stands for a range of levels, which has to hold ours.
"""

import math
from collections.abc import Callable

import jax
import numpy as np

from jaxcifar import augment
from jaxcifar.parity.given import jit, pictures, unit_floats
from jaxcifar.parity.rows import ABSOLUTE, LEVELS, PIXELS, row
from jaxcifar.parity.torch_networks import channels_first, channels_last
from jaxcifar.torchvision_compat import import_torchvision

GROUP = "Transforms"

functional = import_torchvision().transforms.v2.functional
BILINEAR = import_torchvision().transforms.v2.InterpolationMode.BILINEAR

# Which levels become the integers that torchvision returns: lowest, highest
RANGES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "integer": lambda result: (result, result),  # no others arise
    "truncated": lambda result: (result, result + 1),
    "rounded": lambda result: (result - 0.5, result + 0.5),
    "scaled by 256": lambda result: (result * 255 / 255.999, (result + 1) * 255 / 255.999),
}
NEAREST = "nearest"  # instead of one of them: pixels are moved, and are equal or not

TIES = {
    "tolerance": 0.01,
    "reason": "between two pixels, the last bit of a coordinate decides which is nearest",
    "measure": PIXELS,
}
ROUNDING = {"tolerance": 0.01, "reason": "float32 rounding", "measure": LEVELS}


def compare(
    ours: Callable, theirs: Callable, *values: np.ndarray, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what both functions make of every picture with every value, in 255ths, [values,
    pictures, H, W, 3].

    Args:
        ours: (image, *values) -> image; the values are traced.
        theirs: (uint8 tensor [N, 3, H, W], *values) -> tensor; the values are numbers or lists.
        *values: the arguments, arrays [V, ...]; without any the functions are called once.
        kind: of torchvision's results: one of RANGES, or NEAREST.
    """
    images = pictures()
    over_images = jax.vmap(ours, (0, *[None] * len(values)))
    over_values = jax.vmap(over_images, (None, *[0] * len(values))) if values else over_images
    results = jit(over_values)(unit_floats(images), *values)
    calls = zip(*(array.tolist() for array in values), strict=True) if values else [()]
    expected = np.stack([channels_last(theirs(channels_first(images), *call)) for call in calls])
    levels = 255 * np.asarray(results, np.float64).reshape(expected.shape)
    return levels, nearest_levels(levels, expected, kind)


def nearest_levels(levels: np.ndarray, results: np.ndarray, kind: str) -> np.ndarray:
    """Returns what is nearest to our levels of those that became torchvision's results."""
    results = results.astype(np.float64)
    return results if kind == NEAREST else np.clip(levels, *RANGES[kind](results))


def declare(
    what: str,
    against: str,
    kind: str,
    ours: Callable,
    theirs: Callable,
    *values: np.ndarray,
) -> None:
    """Declares the row of a transform; see `compare`."""
    limits = TIES if kind == NEAREST else ROUNDING
    against = f"torchvision.transforms.v2.functional.{against}"
    row(what, group=GROUP, against=against, dtype="float32", **limits)(
        lambda: compare(ours, theirs, *values, kind=kind)
    )


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


declare("hflip", "horizontal_flip", "integer", augment.hflip, functional.horizontal_flip)
declare(
    "crop, also beyond the border",
    "crop",
    "integer",
    lambda image, top, left: augment.crop(image, top, left, 20, 28),
    lambda images, top, left: functional.crop(images, top, left, 20, 28),
    *_CORNERS.T,
)
declare(
    "erase",
    "erase",
    "integer",
    lambda image, i, j, h, w: augment.erase(image, i, j, h, w, _COLOR),
    _erased,
    *_BOXES.T,
)
declare(
    f"rotate by {len(_ANGLES)} angles",
    "rotate",
    NEAREST,
    augment.rotate,
    functional.rotate,
    _ANGLES,
)
declare(
    "rotate about a corner, filled with a color",
    "rotate",
    NEAREST,
    lambda image, angle: augment.rotate(image, angle, "nearest", _COLOR, (5, 9)),
    lambda images, angle: functional.rotate(images, angle, fill=_COLOR_LEVELS, center=[5, 9]),
    _ANGLES,
)
declare(
    "rotate, bilinear, filled with a color",
    "rotate",
    "rounded",
    lambda image, angle: augment.rotate(image, angle, "bilinear", _COLOR),
    lambda images, angle: functional.rotate(images, angle, BILINEAR, fill=_COLOR_LEVELS),
    _ANGLES,
)
declare(
    f"affine, {len(_AFFINE[0])} maps",
    "affine",
    NEAREST,
    augment.affine,
    functional.affine,
    *_AFFINE,
)
declare(
    "affine, bilinear",
    "affine",
    "rounded",
    lambda image, *values: augment.affine(image, *values, "bilinear"),
    lambda images, *values: functional.affine(images, *values, BILINEAR),
    *_AFFINE,
)
for _axis in "xy":
    declare(
        f"shear_{_axis} by {len(_FACTORS)} factors",
        "affine",
        NEAREST,
        getattr(augment, f"shear_{_axis}"),
        _sheared(_axis),
        _FACTORS,
    )
    declare(
        f"translate_{_axis}",
        "affine",
        NEAREST,
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
        "truncated",
        getattr(augment, _name),
        getattr(functional, _name),
        _BLENDS,
    )
declare(
    f"adjust_hue by {len(_TURNS)} shifts",
    "adjust_hue",
    "scaled by 256",
    augment.adjust_hue,
    functional.adjust_hue,
    _TURNS,
)
declare(
    "posterize to 0 to 8 bits",
    "posterize",
    "integer",
    augment.posterize,
    functional.posterize,
    np.arange(9, dtype=np.int32),
)
declare(
    "solarize at every fifth level",
    "solarize",
    "integer",
    lambda image, level: augment.solarize(image, level / 255),
    functional.solarize,
    np.arange(0, 256, 5, dtype=np.float32),
)
for _name in ("equalize", "invert"):
    declare(_name, _name, "integer", getattr(augment, _name), getattr(functional, _name))
declare(
    "autocontrast",
    "autocontrast",
    "truncated",
    augment.autocontrast,
    functional.autocontrast,
)
declare(
    f"gaussian_blur of 5 pixels, {len(_SIGMAS)} sigmas",
    "gaussian_blur",
    "rounded",
    lambda image, sigma: augment.gaussian_blur(image, 5, (sigma, sigma)),
    lambda images, sigma: functional.gaussian_blur(images, 5, sigma),
    _SIGMAS,
)
declare(
    "gaussian_blur of 3 by 7 pixels",
    "gaussian_blur",
    "rounded",
    lambda image: augment.gaussian_blur(image, (3, 7), (1.0, 3.0)),
    lambda images: functional.gaussian_blur(images, [3, 7], [1.0, 3.0]),
)


@row(
    "resized_crop, antialiased, of float32 images",
    group=GROUP,
    against="torchvision.transforms.v2.functional.resized_crop",
    tolerance=1e-5,
    reason="float32 rounding of coordinates up to 36; torchvision's uint8 path also rounds between "
    "rows and columns",
    measure=ABSOLUTE,
    dtype="float32",
)
def resized_crop() -> tuple:
    images, size = unit_floats(pictures()), (24, 20)
    windows = np.int32([[0, 0, 32, 36], [4, 8, 16, 20], [10, 3, 20, 30], [7, 20, 9, 5]])
    crop = jax.vmap(lambda image, window: augment.resized_crop(image, *window, size), (0, None))
    theirs = [
        functional.resized_crop(channels_first(images), *window, [*size], antialias=True)
        for window in windows.tolist()
    ]
    ours = jit(jax.vmap(crop, (None, 0)))(images, windows)
    return ours, np.stack([channels_last(images) for images in theirs])
