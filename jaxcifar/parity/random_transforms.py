"""Rows of random transforms: the distributions of what they do to an image.

Neither side's generator is the other's, so samples are compared: chosen values of the results, one
by one. They depend on everything that is drawn, and on the order of what is applied.

Where torchvision says what it has drawn, our own deterministic transform, which has a row of its
own, applies it: then only the draws can differ, and there are many. Torchvision's automatic
augmentation has to be run, image by image.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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

NUM_DRAWN = 20_000, 10_000  # how often each side draws
NUM_RUN = 3000, 1000  # how often, where torchvision has to be run

PICTURE = pictures(16, 20)[3]
# Red is the column and green the row, in steps of ten levels: a pixel shows where it is from
RAMP = np.stack([*np.mgrid[0:16, 0:20][::-1] * 10 + 50, np.full((16, 20), 128)], -1)
RAMP = RAMP.astype(np.uint8)

Features = Callable[[Any], dict[str, Any]]


def pixels(images: Any) -> dict[str, Any]:
    """Returns single values of images [..., 16, 20, 3], from the middle to the corners."""
    places = ((8, 9, 0), (5, 11, 1), (11, 4, 2), (3, 3, 0), (13, 16, 1), (0, 8, 2), (15, 19, 1))
    return {f"pixel ({y}, {x}), channel {c}": images[..., y, x, c] for y, x, c in places}


def window(images: Any) -> dict[str, Any]:
    """Returns where a resized window of the ramp is from, and how large it is."""
    return {
        "left": images[..., 8, 4, 0],
        "top": images[..., 4, 8, 1],
        "width": images[..., 8, 12, 0] - images[..., 8, 4, 0],
        "height": images[..., 12, 8, 1] - images[..., 4, 8, 1],
    }


def rectangle(images: Any) -> dict[str, Any]:
    """Returns the rectangle of images [..., H, W, 3] whose pixels are black."""
    black = (images == 0).all(-1)
    rows, columns = black.any(-1), black.any(-2)
    return {
        "top": rows.argmax(-1),
        "left": columns.argmax(-1),
        "height": rows.sum(-1),
        "width": columns.sum(-1),
    }


def ours(
    name: str, arguments: tuple, image: np.ndarray, features: Features, count: int
) -> dict[str, np.ndarray]:
    """Returns features of many results of one of our random transforms on an image uint8."""
    keys, image = jax.random.split(jax.random.key(0), count), unit_floats(image)
    transform = getattr(augment, name)
    return jit(jax.vmap(lambda key: features(transform(key, image, *arguments))))(keys)


def drawn(
    transform: Any, apply: Callable, image: np.ndarray, features: Features
) -> dict[str, np.ndarray]:
    """Returns features of many results of torchvision's random transform on an image uint8.

    Args:
        transform: says by `make_params` what it has drawn.
        apply: (image, **drawn) -> image; ours.
        image: uint8 [H, W, 3].
        features: what is returned of a result.
    """
    torch.manual_seed(0)
    tensors = [channels_first(image)]
    draws = [transform.make_params(tensors) for _ in range(NUM_DRAWN[1])]
    names = [name for name, value in draws[0].items() if name != "v"]  # v: an erased color
    values = {name: np.array([np.asarray(draw[name]) for draw in draws]) for name in names}
    values = {n: v.astype(np.float32) if v.dtype.kind == "f" else v for n, v in values.items()}
    return jit(jax.vmap(lambda draw: features(apply(unit_floats(image), **draw))))(values)


def run(transform: Callable, image: np.ndarray, features: Features) -> dict[str, np.ndarray]:
    """Returns features of the results of torchvision's random transform, run on an image uint8."""
    torch.manual_seed(0)
    tensor = channels_first(image)
    results = np.stack([channels_last(transform(tensor)) for _ in range(NUM_RUN[1])])
    return features(unit_floats(results))


def declare(
    what: str,
    transform: Any,
    arguments: tuple,
    *,
    apply: Callable | None = None,
    image: np.ndarray = RAMP,
    features: Features = pixels,
    measure: Measure | None = None,
) -> None:
    """Declares the row of a random transform.

    Args:
        what: our transform's name, and what of it is compared.
        transform: torchvision's.
        arguments: ours.
        apply: see `drawn`; None: torchvision's is run.
        image: uint8 [H, W, 3].
        features: what is compared of a result.
        measure: how (default: of 8-bit values where torchvision's is run).
    """
    counts = NUM_DRAWN if apply else NUM_RUN
    class_name = type(transform).__name__
    against = f"torchvision.transforms.v2.{class_name}"

    @row(
        what,
        group=GROUP,
        against="the authors' Cutout" if class_name == "Cutout" else against,
        tolerance=K_S_LIMIT,
        reason=f"samples, of {counts[0]:,} and {counts[1]:,} draws: the generators differ",
        measure=measure or (DISTRIBUTION if apply else DISTRIBUTION_OF_LEVELS),
        dtype="float32",
    )
    def distribution() -> tuple:
        actual = ours(what.partition(":")[0], arguments, image, features, counts[0])
        if apply:
            return actual, drawn(transform, apply, image, features)
        return actual, run(transform, image, features)


# --- what torchvision says that it has drawn ------------------------------------------------------

_ADJUSTMENTS = (
    augment.adjust_brightness,
    augment.adjust_contrast,
    augment.adjust_saturation,
    augment.adjust_hue,
)


def jittered(image: jax.Array, fn_idx: jax.Array, **factors: jax.Array) -> jax.Array:
    """Returns an image after ColorJitter's four adjustments, in the order of `fn_idx`."""
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    for place in range(4):
        branches = [
            lambda image, adjust=adjust, factor=factors[name]: adjust(image, factor)
            for adjust, name in zip(_ADJUSTMENTS, names, strict=True)
        ]
        image = jax.lax.switch(fn_idx[place], branches, image)
    return image


declare(
    "random_crop",
    v2.RandomCrop((16, 20), padding=[4, 2]),
    ((16, 20), (4, 2)),
    apply=lambda image, top, left, **_: augment.crop(image, top - 2, left - 4, 16, 20),
)
declare(
    "random_resized_crop",
    v2.RandomResizedCrop((16, 20), (0.2, 1.0), (0.6, 1.6)),
    ((16, 20), (0.2, 1.0), (0.6, 1.6)),
    apply=lambda image, **values: augment.resized_crop(image, **values, size=(16, 20)),
    features=window,
)
declare(
    "random_rotation",
    v2.RandomRotation(30),
    (30,),
    apply=lambda image, angle: augment.rotate(image, angle),
)
_AFFINE = (15, (0.1, 0.25), (0.8, 1.1), (-5, 10, 2, 3))
declare(
    "random_affine",
    v2.RandomAffine(*_AFFINE),
    _AFFINE,
    apply=lambda image, **values: augment.affine(image, **values),
)
_JITTER = (0.8, 0.8, (0.2, 1.8), 0.3)
declare("color_jitter", v2.ColorJitter(*_JITTER), _JITTER, apply=jittered, image=PICTURE)
declare(
    "random_erasing: the rectangle",
    v2.RandomErasing(1.0),
    (1.0, (0.02, 0.33), (0.3, 3.3), 0.0),
    apply=lambda image, i, j, h, w: augment.erase(image, i, j, h, w, 0.0),
    features=rectangle,
)


# --- what has to be run ---------------------------------------------------------------------------


class Cutout:
    """The published code of cutout, in PyTorch (github.com/uoguelph-mlrg/Cutout), for one hole."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Returns the image [3, H, W] with a black square of 6 pixels."""
        height, width = image.shape[1:]
        y, x = torch.randint(height, ()).item(), torch.randint(width, ()).item()
        image = image.clone()
        image[:, max(y - 3, 0) : y + 3, max(x - 3, 0) : x + 3] = 0
        return image


declare("random_flip", v2.RandomHorizontalFlip(0.3), (0.3,))
declare(
    "random_erasing: how often",
    v2.RandomErasing(0.3),
    (0.3, (0.02, 0.33), (0.3, 3.3), 0.0),
    features=lambda images: {"whether": (images == 0).any((-1, -2, -3))},
    measure=DISTRIBUTION,
)
declare("cutout: the square", Cutout(), (6, 0.0), features=rectangle, measure=DISTRIBUTION)
declare("randaugment", v2.RandAugment(2, 9), (2, 9), image=PICTURE)
declare("autoaugment", v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10), (), image=PICTURE)
declare("trivial_augment", v2.TrivialAugmentWide(), (), image=PICTURE)
declare("augmix", v2.AugMix(), (), image=PICTURE)


@row(
    "random_erasing: its default color is 0 after normalization, given the same rectangles",
    group=GROUP,
    against="torchvision.transforms.v2.functional.normalize, erase",
    tolerance=5e-7,
    reason="float32 rounding of values up to 2",
    measure=ABSOLUTE,
    dtype="float32",
)
def erased_color() -> tuple:
    config, white = config_lib.default(), np.ones((16, 16, 3), np.float32)
    keys = jax.random.split(jax.random.key(1), 20)
    erase = jax.vmap(lambda key: augment.random_erasing(key, jnp.asarray(white), 1.0))
    erased = np.asarray(jit(erase)(keys))
    rectangles = rectangle(np.where(erased == 1, 1, 0))
    normalized = v2.functional.normalize(channels_first(white), config.data.mean, config.data.std)
    theirs = [
        channels_last(v2.functional.erase(normalized, *map(int, box), torch.zeros(3, 1, 1)))
        for box in zip(*rectangles.values(), strict=True)
    ]
    return (erased - np.array(config.data.mean)) / np.array(config.data.std), np.stack(theirs)
