"""The terms of the training loss."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Returns each row's cross-entropy in nats, float32 [B], as
    `torch.nn.functional.cross_entropy` with reduction 'none'.

    Args:
        logits: float32 [B, C].
        targets: float32 [B, C], class probabilities (one-hot, or mixed).
        label_smoothing: the share of every target that is spread evenly over all C classes.
    """
    if label_smoothing:
        targets = (1 - label_smoothing) * targets + label_smoothing / logits.shape[-1]
    return optax.softmax_cross_entropy(logits, targets)


def jensen_shannon(logits: Sequence[jax.Array]) -> jax.Array:
    """Returns each row's Jensen-Shannon divergence between the predictions for several views of an
    image, in nats, float32 [B]: AugMix's consistency (Hendrycks et al. 2019, arXiv:1912.02781).

    Args:
        logits: of each view, float32 [B, C], in the order of the images.
    """
    log_probabilities = jax.nn.log_softmax(jnp.stack(logits))
    probabilities = jnp.exp(log_probabilities)
    log_mean = jnp.log(jnp.maximum(probabilities.mean(0), 1e-7))  # as AugMix's own code
    return (probabilities * (log_probabilities - log_mean)).sum(-1).mean(0)
