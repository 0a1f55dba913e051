"""The training loss."""

import jax
import optax


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns each row's cross-entropy, float32 [B], as `torch.nn.functional.cross_entropy` with
    reduction 'none'.

    Args:
        logits: float32 [B, C].
        targets: float32 [B, C], class probabilities (one-hot, or mixed).
    """
    return optax.softmax_cross_entropy(logits, targets)
