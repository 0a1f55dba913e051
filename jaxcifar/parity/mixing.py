"""Rows of mixup and cutmix: the results of the same draw, and the distributions of the draws."""

from collections.abc import Callable

import jax
import numpy as np
import torch

from jaxcifar import augment
from jaxcifar.parity.given import jit
from jaxcifar.parity.random_transforms import rectangle
from jaxcifar.parity.rows import ABSOLUTE, DISTRIBUTION, K_S_LIMIT, row
from jaxcifar.parity.torch_networks import channels_first, channels_last
from jaxcifar.torchvision_compat import import_torchvision

GROUP = "Mixing"

v2 = import_torchvision().transforms.v2

HEIGHT, WIDTH = 12, 16
ROUNDING = "float32 rounding"
NUM_DRAWS = 10_000  # by each side
SAMPLES = f"samples, of {NUM_DRAWS:,} draws each: the generators differ"


def draws(
    mix: Callable, size: int, alpha: float, height: int = HEIGHT, width: int = WIDTH
) -> tuple[np.ndarray, np.ndarray]:
    """Returns many mixes of one batch: images [draws, size, height, width, 1] whose values are the
    number of their row, and targets [draws, size, size], which were one-hot.
    """
    images, targets = _batch(size, height, width)
    keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
    mixes = jit(jax.vmap(lambda key: mix(key, images, targets, prob=1.0, alpha=alpha)))(keys)
    return tuple(map(np.asarray, mixes))


def _batch(size: int, height: int = HEIGHT, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(size, dtype=np.float32)[:, None, None, None]
    return np.broadcast_to(rows, (size, height, width, 1)), np.eye(size, dtype=np.float32)


def lams(targets: np.ndarray) -> np.ndarray:
    """Returns the share of every row's own target, for many mixes; rows may be mixed with
    themselves, but hardly ever all of them.
    """
    return np.diagonal(targets, axis1=1, axis2=2).min(1)


def boxes(images: np.ndarray) -> np.ndarray:
    """Returns (left, top, right, bottom) of what cutmix has pasted into batches [..., B, H, W, 1];
    zeros if that is nothing.
    """
    changed = (images[..., 0] != np.arange(images.shape[-4])[:, None, None]).any(-3)
    left, top, height, width = (
        rectangle(np.where(changed[..., None], 0, 1))[side]
        for side in ("left", "top", "height", "width")
    )
    return np.stack([left, top, left + width, top + height], -1)


def with_partners_before(mix: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first mix in which every row's partner is the row before it, as torchvision's
    always is, and both have a part.
    """
    images, targets = draws(mix, 4, 1.0)
    shares = targets[:, np.arange(4), np.arange(4) - 1]
    first = np.flatnonzero(((shares > 0.2) & (shares < 0.8)).all(1))[0]
    return images[first], targets[first]


def _mixed_by(transform: torch.nn.Module) -> tuple[np.ndarray, np.ndarray]:
    images, _ = _batch(4)
    images, targets = transform(channels_first(images), torch.arange(4))
    return channels_last(images), targets.numpy()


@row(
    "mixup given the same draw: images and targets",
    group=GROUP,
    against="torchvision.transforms.v2.MixUp",
    tolerance=1e-6,
    reason=ROUNDING,
    measure=ABSOLUTE,
    dtype="float32",
)
def mixup() -> tuple:
    images, targets = with_partners_before(augment.mixup)

    class Given(v2.MixUp):
        def make_params(self, flat_inputs):
            return {"lam": float(targets[0, 0])}

    names = ("images", "targets")
    theirs = _mixed_by(Given(num_classes=4))
    return dict(zip(names, (images, targets), strict=True)), dict(zip(names, theirs, strict=True))


@row(
    "cutmix given the same rectangle: images and targets",
    group=GROUP,
    against="torchvision.transforms.v2.CutMix",
    tolerance=1e-6,
    reason=ROUNDING,
    measure=ABSOLUTE,
    dtype="float32",
)
def cutmix() -> tuple:
    images, targets = with_partners_before(augment.cutmix)
    left, top, right, bottom = boxes(images).tolist()
    share = 1 - (right - left) * (bottom - top) / (HEIGHT * WIDTH)

    class Given(v2.CutMix):
        def make_params(self, flat_inputs):
            return {"box": (left, top, right, bottom), "lam_adjusted": share}

    names = ("images", "targets")
    theirs = _mixed_by(Given(num_classes=4))
    return dict(zip(names, (images, targets), strict=True)), dict(zip(names, theirs, strict=True))


@row(
    "mixup's lam, for alpha 0.4",
    group=GROUP,
    against="torchvision.transforms.v2.MixUp",
    tolerance=K_S_LIMIT,
    reason=SAMPLES,
    measure=DISTRIBUTION,
    dtype="float32",
)
def mixup_lam() -> tuple:
    torch.manual_seed(0)
    theirs = v2.MixUp(alpha=0.4, num_classes=8)
    lam = [theirs.make_params([])["lam"] for _ in range(NUM_DRAWS)]
    return lams(draws(augment.mixup, 8, 0.4, 1, 1)[1]), np.array(lam)


@row(
    "cutmix's rectangle, for alpha 1",
    group=GROUP,
    against="torchvision.transforms.v2.CutMix",
    tolerance=K_S_LIMIT,
    reason=SAMPLES,
    measure=DISTRIBUTION,
    dtype="float32",
)
def cutmix_box() -> tuple:
    torch.manual_seed(0)
    theirs, batch = v2.CutMix(num_classes=8), [torch.zeros(8, 1, HEIGHT, WIDTH)]
    expected = np.array([theirs.make_params(batch)["box"] for _ in range(NUM_DRAWS)])
    expected[(expected[:, 2] <= expected[:, 0]) | (expected[:, 3] <= expected[:, 1])] = 0  # empty
    names = ("left", "top", "right", "bottom")
    return tuple(
        dict(zip(names, side.T, strict=True))
        for side in (boxes(draws(augment.cutmix, 8, 1.0)[0]), expected)
    )
