"""Augmentation on the device: torchvision's transforms on one image, to be jitted and vmapped.

An image is float32 [H, W, 3] in [0, 1]. The deterministic forms take (image, ...), the random ones
(key, image, ...), and `parse` makes a random form of a line such as
`random_crop(32, padding=4) | random_flip | randaugment(2, 7)`. `jax.vmap` over keys and images
draws anew for every image. Mixing takes a batch and its targets.
"""

import importlib
from typing import Any

from jaxcifar.augment.parse import TRANSFORMS, parse

_HOMES = ("geometry", "color", "transforms", "policies", "mix")

__all__ = ["cutmix", "mixup", "parse", *TRANSFORMS]


def __getattr__(name: str) -> Any:
    # Found at first use, because parse alone is needed, and without JAX, to check a config.
    if name in __all__:
        for home in _HOMES:
            module = importlib.import_module(f"jaxcifar.augment.{home}")
            if name in vars(module):
                globals()[name] = vars(module)[name]
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
