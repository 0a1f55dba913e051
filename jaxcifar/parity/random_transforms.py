"""Rows of random transforms: the distributions of their results on one image.

Neither side's generator is the other's, so samples of both are compared: chosen values of the
results, one by one. They depend on everything that is drawn, and on the order of what is applied.
"""

from collections.abc import Callable

import jax
import numpy as np
import torch

from jaxcifar import augment
from jaxcifar import config as config_lib
from jaxcifar.parity.given import jit, pictures, unit_floats
from jaxcifar.parity.rows import (
    ABSOLUTE,
    DISTRIBUTION,
    DISTRIBUTION_OF_LEVELS,
    K_S_LIMIT,
    Measure,
    row,
)
from jaxcifar.parity.torch_networks import channels_first, channels_last
from jaxcifar.torchvision_compat import import_torchvision

GROUP = "Random transforms"

v2 = import_torchvision().transforms.v2

OURS, THEIRS = 3000, 1000  # how often each side draws

PICTURE = pictures(16, 16)[3]
# Red is the column and green the row, in steps of ten levels: a result shows where pixels are from
RAMP = np.stack([*np.mgrid[0:16, 0:16][::-1] * 10 + 50, np.full((16, 16), 128)], -1).astype(
    np.uint8
)


def sampled(
    ours: Callable, theirs: Callable, image: np.ndarray, features: Callable
) -> tuple[dict, dict]:
    """Returns features of many results of each side.

    Args:
        ours: (key, image) -> image.
        theirs: uint8 tensor [3, H, W] -> tensor.
        image: uint8 [H, W, 3].
        features: images [N, H, W, 3] in [0, 1] -> arrays [N] by name.
    """
    keys = jax.random.split(jax.random.key(0), OURS)
    results = jit(jax.vmap(ours, (0, None)))(keys, unit_floats(image))
    torch.manual_seed(0)
    tensor = channels_first(image)
    expected = np.stack([channels_last(theirs(tensor)) for _ in range(THEIRS)])
    return features(np.asarray(results)), features(unit_floats(expected))


def pixels(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns single values, from the middle to the corners."""
    places = ((8, 7, 0), (5, 9, 1), (11, 4, 2), (3, 3, 0), (13, 12, 1), (0, 8, 2), (15, 0, 1))
    return {f"pixel ({y}, {x}), channel {c}": images[:, y, x, c] for y, x, c in places}


def rectangle(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the rectangle whose pixels are black in all channels."""
    black = (images == 0).all(-1)
    rows, columns = black.any(2), black.any(1)
    return {
        "top": rows.argmax(1),
        "left": columns.argmax(1),
        "height": rows.sum(1),
        "width": columns.sum(1),
    }


class Cutout:
    """The published code of cutout, in PyTorch (github.com/uoguelph-mlrg/Cutout), for one hole."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Returns the image [3, H, W] with a black square of 6 pixels."""
        height, width = image.shape[1:]
        y, x = torch.randint(height, ()).item(), torch.randint(width, ()).item()
        image = image.clone()
        image[:, max(y - 3, 0) : y + 3, max(x - 3, 0) : x + 3] = 0
        return image


def declare(
    what: str,
    theirs: Callable,
    ours: Callable,
    image: np.ndarray = RAMP,
    features: Callable = pixels,
    measure: Measure = DISTRIBUTION_OF_LEVELS,
) -> None:
    """Declares the row of a random transform; see `sampled`."""
    name = type(theirs).__name__
    row(
        what,
        group=GROUP,
        against="the authors' Cutout" if name == "Cutout" else f"torchvision.transforms.v2.{name}",
        tolerance=K_S_LIMIT,
        reason=f"samples, of {OURS:,} and {THEIRS:,} draws: the generators differ",
        measure=measure,
        dtype="float32",
    )(lambda: sampled(ours, theirs, image, features))


def _ours(name: str, *arguments, **named) -> Callable:
    return lambda key, image: getattr(augment, name)(key, image, *arguments, **named)


declare("random_crop", v2.RandomCrop(16, padding=4), _ours("random_crop", 16, 4))
declare(
    "random_resized_crop",
    v2.RandomResizedCrop(16, (0.2, 1.0), (0.6, 1.6)),
    _ours("random_resized_crop", 16, (0.2, 1.0), (0.6, 1.6)),
)
declare("random_flip", v2.RandomHorizontalFlip(0.3), _ours("random_flip", 0.3))
declare("random_rotation", v2.RandomRotation(30), _ours("random_rotation", 30))
_AFFINE = (15, (0.1, 0.25), (0.8, 1.1), (-5, 10, 2, 3))
declare("random_affine", v2.RandomAffine(*_AFFINE), _ours("random_affine", *_AFFINE))
_JITTER = (0.4, 0.5, (0.2, 1.5), 0.2)
declare("color_jitter", v2.ColorJitter(*_JITTER), _ours("color_jitter", *_JITTER), PICTURE)
declare(
    "random_erasing: the rectangle",
    v2.RandomErasing(0.7),
    _ours("random_erasing", 0.7, value=0.0),
    features=rectangle,
    measure=DISTRIBUTION,
)
declare(
    "cutout: the square",
    Cutout(),
    _ours("cutout", 6, 0.0),
    features=rectangle,
    measure=DISTRIBUTION,
)
declare("randaugment", v2.RandAugment(2, 9), _ours("randaugment", 2, 9), PICTURE)
declare("autoaugment", v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10), _ours("autoaugment"), PICTURE)
declare("trivial_augment", v2.TrivialAugmentWide(), _ours("trivial_augment"), PICTURE)
declare("augmix", v2.AugMix(), _ours("augmix"), PICTURE)


@row(
    "random_erasing's default color: 0 after normalization, given the same rectangles",
    group=GROUP,
    against="torchvision.transforms.v2.functional.normalize, erase",
    tolerance=5e-7,
    reason="float32 rounding of values up to 2",
    measure=ABSOLUTE,
    dtype="float32",
)
def erased_color() -> tuple:
    config, white = config_lib.default(), np.full((16, 16, 3), 255, np.uint8)
    keys = jax.random.split(jax.random.key(1), 20)
    erased = jit(jax.vmap(_ours("random_erasing", 1.0), (0, None)))(keys, unit_floats(white))
    rectangles = rectangle(np.where(np.asarray(erased) == 1, 1, 0))
    ours = (np.asarray(erased) - np.array(config.data.mean)) / np.array(config.data.std)
    normalized = v2.functional.normalize(
        channels_first(unit_floats(white)), config.data.mean, config.data.std
    )
    boxes = zip(*(rectangles[side] for side in ("top", "left", "height", "width")), strict=True)
    theirs = [
        channels_last(v2.functional.erase(normalized, *map(int, box), torch.zeros(3, 1, 1)))
        for box in boxes
    ]
    return ours, np.stack(theirs)
