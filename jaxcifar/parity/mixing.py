"""Rows of mixup and cutmix: the results of the same draw, and the distributions of the draws."""

from collections.abc import Callable

import jax
import numpy as np
import torch

from jaxcifar import augment
from jaxcifar.parity.given import jit
from jaxcifar.parity.random_transforms import OURS, THEIRS
from jaxcifar.parity.rows import ABSOLUTE, DISTRIBUTION, K_S_LIMIT, row
from jaxcifar.parity.torch_networks import channels_first, channels_last
from jaxcifar.torchvision_compat import import_torchvision

GROUP = "Mixing"

v2 = import_torchvision().transforms.v2

HEIGHT, WIDTH = 12, 16
ROUNDING = "float32 rounding"
SAMPLES = f"samples, of {OURS:,} and {THEIRS:,} draws: the generators differ"


def draws(mix: Callable, size: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns many mixes of one batch: images [draws, size, H, W, 1] whose values are the number of
    their row, and targets [draws, size, size], first one-hot.
    """
    images, targets = _batch(size)
    keys = jax.random.split(jax.random.key(0), OURS)
    mixes = jit(jax.vmap(lambda key: mix(key, images, targets, prob=1.0, alpha=alpha)))(keys)
    return tuple(map(np.asarray, mixes))


def _batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.broadcast_to(
        np.arange(size, dtype=np.float32)[:, None, None, None], (size, HEIGHT, WIDTH, 1)
    )
    return images, np.eye(size, dtype=np.float32)


def lams(targets: np.ndarray) -> np.ndarray:
    """Returns the share of every row's own target, for many mixes; rows may be mixed with
    themselves, but hardly ever all of them.
    """
    return np.diagonal(targets, axis1=1, axis2=2).min(1)


def box(images: np.ndarray) -> tuple[int, int, int, int]:
    """Returns (left, top, right, bottom) of what cutmix has pasted into a batch [B, H, W, 1]."""
    changed = (images[..., 0] != np.arange(len(images))[:, None, None]).any(0)
    if not changed.any():
        return 0, 0, 0, 0
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


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
    left, top, right, bottom = box(images)
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
    lam = [theirs.make_params([])["lam"] for _ in range(THEIRS)]
    return lams(draws(augment.mixup, 8, 0.4)[1]), np.array(lam)


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
    boxes = np.array([theirs.make_params(batch)["box"] for _ in range(THEIRS)])
    boxes[(boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])] = 0  # empty
    ours = np.array([box(images) for images in draws(augment.cutmix, 8, 1.0)[0]])
    names = ("left", "top", "right", "bottom")
    return dict(zip(names, ours.T, strict=True)), dict(zip(names, boxes.T, strict=True))
