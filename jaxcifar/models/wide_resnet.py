"""Wide residual networks for 32×32 images. Their config keys are declared in models/__init__.py."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcifar.models import layers


class WideResNet(nnx.Module):
    """Wide residual network (Zagoruyko & Komodakis 2016, arXiv:1605.07146), pre-activation.

    A 3×3 convolution, three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times
    `widen_factor` channels, each group but the first halving the resolution, then BatchNorm, ReLU,
    the spatial mean and one linear layer.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        depth: int,
        widen_factor: int,
        block_dropout: float,
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
    ):
        self.conv1 = layers.kaiming_conv(3, 16, 3, 1, rngs=rngs, dtype=dtype)
        self.blocks = nnx.List()
        in_features = 16
        for group in range(3):
            features = 16 * widen_factor * 2**group
            for index in range((depth - 4) // 6):
                stride = 2 if group > 0 and index == 0 else 1
                self.blocks.append(
                    WideBlock(in_features, features, stride, block_dropout, rngs, dtype)
                )
                in_features = features
        self.bn = layers.BatchNorm(in_features, dtype=dtype)
        self.fc = layers.linear(in_features, num_classes, rngs=rngs, dtype=dtype)

    def __call__(self, images: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits float32 [B, num_classes] for normalized images [B, H, W, 3]."""
        x = self.conv1(images)
        for block in self.blocks:
            x = block(x, rngs=rngs)
        x = layers.global_average_pool(self.bn(x, relu=True))
        return layers.at_least_float32(self.fc(x))


class WideBlock(nnx.Module):
    """BatchNorm, ReLU, 3×3 convolution, twice, with dropout before the second convolution, and a
    shortcut. If the shapes differ, the shortcut is a 1×1 convolution of the activated input.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        stride: int,
        dropout: float,
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
    ):
        self.bn1 = layers.BatchNorm(in_features, dtype=dtype)
        self.conv1 = layers.kaiming_conv(in_features, features, 3, stride, rngs=rngs, dtype=dtype)
        self.bn2 = layers.BatchNorm(features, dtype=dtype)
        self.dropout = nnx.Dropout(dropout)
        self.conv2 = layers.kaiming_conv(features, features, 3, 1, rngs=rngs, dtype=dtype)
        self.shortcut = (
            None
            if stride == 1 and in_features == features
            else layers.kaiming_conv(in_features, features, 1, stride, rngs=rngs, dtype=dtype)
        )

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.bn1(x, relu=True)
        if self.shortcut is not None:
            x = self.shortcut(y)
        y = self.bn2(self.conv1(y), relu=True)
        y = self.conv2(self.dropout(y, rngs=rngs))
        return x + y
