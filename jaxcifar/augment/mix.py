"""Mixing over a batch: mixup and cutmix. One draw decides for the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np


def mixup(
    key: jax.Array, images: jax.Array, targets: jax.Array, *, prob: float, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """With probability `prob`, blends every image and target with those of another row, all with
    one weight from Beta(alpha, alpha) (Zhang et al. 2017, arXiv:1710.09412).

    Args:
        key: a PRNG key.
        images: float32 [B, H, W, C], normalised or not.
        targets: float32 [B, K], class probabilities.
        prob: probability that this batch is mixed, in [0, 1].
        alpha: above 0.

    Returns:
        images and targets of the same shapes.
    """
    return mix(
        key,
        images,
        targets,
        mixup_prob=prob,
        mixup_alpha=alpha,
        cutmix_prob=0.0,
        cutmix_alpha=1.0,
    )


def cutmix(
    key: jax.Array, images: jax.Array, targets: jax.Array, *, prob: float, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """With probability `prob`, pastes one rectangle of every image from another row, and weighs
    their targets by area (Yun et al. 2019, arXiv:1905.04899; the rectangle is drawn as torchvision
    draws it). Arguments and results as `mixup`'s.
    """
    return mix(
        key,
        images,
        targets,
        mixup_prob=0.0,
        mixup_alpha=1.0,
        cutmix_prob=prob,
        cutmix_alpha=alpha,
    )


def mix(
    key: jax.Array,
    images: jax.Array,
    targets: jax.Array,
    *,
    mixup_prob: float,
    mixup_alpha: float,
    cutmix_prob: float,
    cutmix_alpha: float,
) -> tuple[jax.Array, jax.Array]:
    """Applies mixup, cutmix or neither, by one draw; the probabilities sum to at most 1. Arguments
    and results as `mixup`'s.
    """
    images, targets = jnp.asarray(images), jnp.asarray(targets)
    size, height, width, _ = images.shape
    draw_key, order_key, mixup_key, cutmix_key, box_key = jax.random.split(key, 5)
    draw = jax.random.uniform(draw_key)
    is_mixup = draw < mixup_prob
    is_cutmix = ~is_mixup & (draw < mixup_prob + cutmix_prob)

    blend = jax.random.beta(mixup_key, mixup_alpha, mixup_alpha)
    kept = jax.random.beta(cutmix_key, cutmix_alpha, cutmix_alpha)
    box = [
        _span(draw, length, 0.5 * jnp.sqrt(1 - kept))
        for draw, length in zip(jax.random.uniform(box_key, (2,)), (height, width), strict=True)
    ]
    keeps = 1.0 - box[0][:, None] * box[1]
    weight = jnp.where(is_cutmix, keeps, jnp.where(is_mixup, blend, 1.0))  # [H, W]
    share = weight.mean()

    partner = jax.random.permutation(order_key, size)
    weight = weight[..., None].astype(images.dtype)
    return (
        images * weight + images[partner] * (1 - weight),
        targets * share + targets[partner] * (1 - share),
    )


def _span(draw: jax.Array, length: int, radius: jax.Array) -> jax.Array:
    """Returns 1 within `radius`, a share of the length, of a random place, else 0: [length]."""
    center, half = jnp.floor(draw * length), jnp.floor(radius * length)
    place = np.arange(length)
    return ((place >= center - half) & (place < center + half)).astype(jnp.float32)
