"""Metrics as sums: added up over batches on the device, divided once on the host."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

Sums = dict[str, jax.Array]


def batch_sums(losses: jax.Array, logits: jax.Array, targets: jax.Array, weights=1.0) -> Sums:
    """Returns the sums over a batch of the loss, the correct predictions and the images.

    A prediction scores the target's weight for that class, so with mixing it is fractional.

    Args:
        losses: float32 [B].
        logits: float32 [B, C].
        targets: float32 [B, C], class probabilities.
        weights: [B] or a scalar: 0 for rows that do not count.
    """
    weights = jnp.broadcast_to(jnp.float32(weights), losses.shape)
    predicted = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1])
    return {
        "loss": (losses * weights).sum(),
        "correct": ((predicted * targets).sum(-1) * weights).sum(),
        "count": weights.sum(),
    }


def add(total: dict[str, float], sums: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Returns host float64 totals with sums, of one or several batches, added."""
    return {
        name: total.get(name, 0.0) + float(np.asarray(value).sum(dtype=np.float64))
        for name, value in sums.items()
    }


def loss_and_accuracy(total: dict[str, float]) -> tuple[float, float]:
    """Returns (mean loss, accuracy in percent) from totals; NaN if no image was counted."""
    count = total["count"] or math.nan
    return total["loss"] / count, 100 * total["correct"] / count
