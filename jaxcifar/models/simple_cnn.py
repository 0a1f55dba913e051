"""SimpleCNN, the study's first network. Its config keys are declared in models/__init__.py."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcifar.models import layers


class SimpleCNN(nnx.Module):
    """Three 3×3 convolutions, each with ReLU and 2×2 max-pooling, then two linear layers with
    dropout between them. The convolutions have `width`, 2 * `width` and 4 * `width` channels, the
    first linear layer 16 * `width` units.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int,
        width: int,
        dropout: float,
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
    ):
        self.conv1 = layers.conv(3, width, size=3, rngs=rngs, dtype=dtype)
        self.conv2 = layers.conv(width, 2 * width, size=3, rngs=rngs, dtype=dtype)
        self.conv3 = layers.conv(2 * width, 4 * width, size=3, rngs=rngs, dtype=dtype)
        features = (image_size // 8) ** 2 * 4 * width
        self.fc1 = layers.linear(features, 16 * width, rngs=rngs, dtype=dtype)
        self.dropout = nnx.Dropout(dropout)
        self.fc2 = layers.linear(16 * width, num_classes, rngs=rngs, dtype=dtype)

    def __call__(self, images: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits float32 [B, num_classes] for normalized images [B, H, W, 3]."""
        x = images
        for conv in (self.conv1, self.conv2, self.conv3):
            x = nnx.relu(layers.max_pool_2x2(conv(x)))  # ReLU commutes with the maximum
        x = nnx.relu(self.fc1(x.reshape(x.shape[0], -1)))
        return layers.at_least_float32(self.fc2(self.dropout(x, rngs=rngs)))
