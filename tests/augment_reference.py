"""Shared by the augmentation tests: torchvision's results, from golden/make_augment.py."""

import functools
import json
import pathlib

import jax
import numpy as np

from jaxcifar import augment

GEOMETRIC = (
    "hflip",
    "crop",
    "rotate",
    "affine",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "erase",
    "resized_crop",
)
# The largest difference from torchvision on uint8 images, in 255ths: torchvision truncates every
# result to an integer (1), and before that rounds what it blends with or computes from.
TOLERANCE = {
    "adjust_brightness": 2,
    "adjust_contrast": 2,
    "adjust_saturation": 2,
    "adjust_sharpness": 2,
    "adjust_hue": 2.5,
    "posterize": 1,
    "solarize": 1,
    "invert": 1,
    "equalize": 1.5,
    "autocontrast": 1.5,
    "gaussian_blur": 1,
}

# Of each statistical test. Keys fix the draws, so it matters only if JAX's generator changes: then
# correct distributions should still pass, and wrong ones fail at these sample sizes.
SIGNIFICANCE = 1e-6


@functools.cache
def golden() -> dict:
    with np.load(pathlib.Path(__file__).parent / "golden" / "augment.npz") as file:
        return dict(file)


def tables() -> dict:
    """Returns torchvision's tables of the policies."""
    return json.loads(str(golden()["tables"]))


def cases(name: str) -> list[tuple[str, tuple, np.ndarray]]:
    """Returns an operation's cases: (image set, arguments, torchvision's uint8 [N, H, W, 3])."""
    return [
        (which, _as_tuple(arguments), golden()[f"out{index}"])
        for index, (operation, which, arguments) in enumerate(json.loads(str(golden()["cases"])))
        if operation == name
    ]


def images(which: str) -> np.ndarray:
    """Returns a set of images, float32 [N, H, W, 3] in [0, 1]."""
    return golden()[which] / np.float32(255)


def run(name: str) -> list[np.ndarray]:
    """Returns our results for an operation's cases, in 255ths, from one compiled function."""
    operation = getattr(augment, name)

    @jax.jit
    def all_cases(sets):
        return [
            jax.vmap(lambda image, arguments=arguments: operation(image, *arguments))(sets[which])
            for which, arguments, _ in cases(name)
        ]

    results = all_cases({which: images(which) for which in ("square", "oblong")})
    return [255 * np.asarray(result) for result in results]


def same_pixels(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the fraction of equal pixels, in the image where it is smallest."""
    return (np.abs(ours - theirs) < 0.5).all(-1).mean((1, 2)).min()


def _as_tuple(value):
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
