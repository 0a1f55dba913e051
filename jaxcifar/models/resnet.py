"""ResNets with torchvision's architecture, names and initialization, and the study's stem and head.

Their config keys are declared in models/__init__.py.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcifar.models import layers


class ResNet(nnx.Module):
    """Deep residual network (He et al., arXiv:1512.03385), as torchvision's `ResNet`: in a block
    that halves the resolution the stride is on the 3×3 convolution ("v1.5").

    Attributes have torchvision's names: a parameter's path is its key in torchvision's state dict
    but for the last component. `stem` 'imagenet' is torchvision's (7×7 with stride 2, max-pool);
    'cifar' is the study's replacement (3×3, no pool). `head` 'linear' is one layer; 'mlp' is, for
    every size in `head_hidden`, BatchNorm, ReLU (from the second on), Dropout and a linear layer,
    and then the same once more to the logits. A stem or a head that replaces torchvision's has
    PyTorch's default initialization.
    """

    def __init__(
        self,
        *,
        block: type["BasicBlock"] | type["Bottleneck"],
        depths: tuple[int, int, int, int],
        num_classes: int,
        width: int,
        stem: str,
        head: str,
        head_hidden: tuple[int, ...],
        head_dropout: tuple[float, ...],
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
    ):
        if stem == "cifar":
            self.conv1 = layers.conv(3, width, size=3, bias=False, rngs=rngs, dtype=dtype)
        else:
            self.conv1 = layers.kaiming_conv(3, width, 7, 2, rngs=rngs, dtype=dtype)
        self.bn1 = layers.BatchNorm(width, dtype=dtype)
        self.stem = stem
        features = width
        for stage, depth in enumerate(depths):
            blocks = nnx.List()
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(features, width * 2**stage, stride, rngs, dtype))
                features = width * 2**stage * block.expansion
            setattr(self, f"layer{stage + 1}", blocks)
        if head == "linear":
            self.fc = layers.linear(features, num_classes, rngs=rngs, dtype=dtype)
        else:
            sizes = (*head_hidden, num_classes)
            self.fc = _mlp(features, sizes, head_dropout, rngs, dtype)

    def __call__(self, images: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits float32 [B, num_classes] for normalized images [B, H, W, 3]."""
        x = layers.global_average_pool(self.activations(images)[-1])
        for layer in self.fc if isinstance(self.fc, nnx.List) else [self.fc]:
            x = layer(x, rngs=rngs) if isinstance(layer, nnx.Dropout) else layer(x)
        return layers.at_least_float32(x)

    def activations(self, images: jax.Array) -> list[jax.Array]:
        """Returns the outputs of the stem and of each of the four stages, [B, h, w, channels]."""
        x = self.bn1(self.conv1(images), relu=True)
        if self.stem == "imagenet":
            x = nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        activations = [x]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)
            activations.append(x)
        return activations


class BasicBlock(nnx.Module):
    """Two 3×3 convolutions with a shortcut: ResNet-18 and -34."""

    expansion = 1

    def __init__(
        self, in_features: int, features: int, stride: int, rngs: nnx.Rngs, dtype: jnp.dtype
    ):
        self.conv1 = layers.kaiming_conv(in_features, features, 3, stride, rngs=rngs, dtype=dtype)
        self.bn1 = layers.BatchNorm(features, dtype=dtype)
        self.conv2 = layers.kaiming_conv(features, features, 3, 1, rngs=rngs, dtype=dtype)
        self.bn2 = layers.BatchNorm(features, dtype=dtype)
        self.downsample = _downsample(in_features, features, stride, rngs, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.bn1(self.conv1(x), relu=True)
        y = self.bn2(self.conv2(y))
        for layer in self.downsample:
            x = layer(x)
        return nnx.relu(x + y)


class Bottleneck(nnx.Module):
    """A 3×3 convolution between two 1×1, the last with 4 times the channels, with a shortcut:
    ResNet-50.
    """

    expansion = 4

    def __init__(
        self, in_features: int, features: int, stride: int, rngs: nnx.Rngs, dtype: jnp.dtype
    ):
        self.conv1 = layers.kaiming_conv(in_features, features, 1, 1, rngs=rngs, dtype=dtype)
        self.bn1 = layers.BatchNorm(features, dtype=dtype)
        self.conv2 = layers.kaiming_conv(features, features, 3, stride, rngs=rngs, dtype=dtype)
        self.bn2 = layers.BatchNorm(features, dtype=dtype)
        self.conv3 = layers.kaiming_conv(features, 4 * features, 1, 1, rngs=rngs, dtype=dtype)
        self.bn3 = layers.BatchNorm(4 * features, dtype=dtype)
        self.downsample = _downsample(in_features, 4 * features, stride, rngs, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.bn1(self.conv1(x), relu=True)
        y = self.bn2(self.conv2(y), relu=True)
        y = self.bn3(self.conv3(y))
        for layer in self.downsample:
            x = layer(x)
        return nnx.relu(x + y)


def _downsample(
    in_features: int, features: int, stride: int, rngs: nnx.Rngs, dtype: jnp.dtype
) -> nnx.List:
    """Returns the layers of a shortcut: none if it can be the identity."""
    if stride == 1 and in_features == features:
        return nnx.List()
    conv = layers.kaiming_conv(in_features, features, 1, stride, rngs=rngs, dtype=dtype)
    return nnx.List([conv, layers.BatchNorm(features, dtype=dtype)])


def _mlp(
    features: int,
    sizes: tuple[int, ...],
    dropout: tuple[float, ...],
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
) -> nnx.List:
    mlp = nnx.List()
    for index, (size, rate) in enumerate(zip(sizes, dropout, strict=True)):
        mlp.append(layers.BatchNorm(features, dtype=dtype))
        if index:
            mlp.append(nnx.relu)
        mlp.append(nnx.Dropout(rate))
        mlp.append(layers.linear(features, size, rngs=rngs, dtype=dtype))
        features = size
    return mlp


RESNETS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
