"""The training loss."""

import jax
import optax


def cross_entropy(logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Returns each row's cross-entropy, float32 [B], as `torch.nn.functional.cross_entropy` with
    reduction 'none'.

    Args:
        logits: float32 [B, C].
        targets: float32 [B, C], class probabilities (one-hot, or mixed).
        label_smoothing: the share of every target that is spread evenly over all C classes.
    """
    if label_smoothing:
        targets = (1 - label_smoothing) * targets + label_smoothing / logits.shape[-1]
    return optax.softmax_cross_entropy(logits, targets)
