"""Mixing over a batch: mixup and cutmix. One draw decides for the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np


def mixup(
    key: jax.Array, images: jax.Array, targets: jax.Array, *, prob: float, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """With probability `prob`, mixes every image and target with those of another row, with one
    lam for the batch from Beta(alpha, alpha) (Zhang et al. 2017, arXiv:1710.09412).

    Args:
        key: a PRNG key.
        images: float32 [B, H, W, C], normalized or not.
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
    """With probability `prob`, pastes one rectangle of every image from another row, and mixes
    their targets by area (Yun et al. 2019, arXiv:1905.04899; the rectangle is drawn as in
    torchvision). Arguments and results as `mixup`'s.
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
    batch_size, height, width, _ = images.shape
    draw_key, permutation_key, mixup_key, cutmix_key, box_key = jax.random.split(key, 5)
    draw = jax.random.uniform(draw_key)
    is_mixup = draw < mixup_prob
    is_cutmix = ~is_mixup & (draw < mixup_prob + cutmix_prob)

    weight = jnp.ones((height, width))
    if mixup_prob:
        weight = jnp.where(is_mixup, _symmetric_beta(mixup_key, mixup_alpha), weight)
    if cutmix_prob:
        radius = 0.5 * jnp.sqrt(1 - _symmetric_beta(cutmix_key, cutmix_alpha))
        rows, columns = (
            _interval_mask(uniform, length, radius)
            for uniform, length in zip(
                jax.random.uniform(box_key, (2,)), (height, width), strict=True
            )
        )
        weight = jnp.where(is_cutmix, 1.0 - rows[:, None] * columns, weight)
    lam = weight.mean()

    permutation = jax.random.permutation(permutation_key, batch_size)
    weight = weight[..., None].astype(images.dtype)
    return (
        images * weight + images[permutation] * (1 - weight),
        targets * lam + targets[permutation] * (1 - lam),
    )


def _symmetric_beta(key: jax.Array, alpha: float) -> jax.Array:
    """Returns a draw from Beta(alpha, alpha)."""
    if alpha == 1:  # the uniform distribution; the general draw is a loop of many small operations
        return jax.random.uniform(key)
    return jax.random.beta(key, alpha, alpha)


def _interval_mask(uniform: jax.Array, length: int, radius: jax.Array) -> jax.Array:
    """Returns 1 for indices within `radius`, a fraction of the length, of a random index, else 0:
    float32 [length].
    """
    center, half = jnp.floor(uniform * length), jnp.floor(radius * length)
    index = np.arange(length)
    return ((index >= center - half) & (index < center + half)).astype(jnp.float32)
