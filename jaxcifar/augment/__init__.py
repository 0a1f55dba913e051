"""Augmentation on the device: torchvision's transforms on one image, to be jitted and vmapped.

An image is float32 [H, W, 3] in [0, 1]. Deterministic transforms take (image, ...), random ones
(key, image, ...), and `parse` turns an augmentation string such as
`random_crop(32, padding=4) | random_flip | randaugment(2, 7)` into one function (key, image).
`jax.vmap` over keys and images draws independently for each image. `mixup` and `cutmix` take a
batch and its targets. `transform` registers more transforms, also from a config file.
"""

from jaxcifar.augment import color, geometry, policies, resize, transforms  # noqa: F401 - to register
from jaxcifar.augment.mix import cutmix, mixup
from jaxcifar.augment.parse import parse, parse_views
from jaxcifar.augment.registry import TRANSFORMS, transform

__all__ = ["TRANSFORMS", "cutmix", "mixup", "parse", "parse_views", "transform", *TRANSFORMS]

# Export every transform under its own name.
globals().update({name: entry.function for name, entry in TRANSFORMS.items()})
