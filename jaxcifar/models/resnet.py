"""ResNets with torchvision's geometry, names and initialisation, and the study's stem and head."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcifar.models import layers

STEMS = ("cifar", "imagenet")
HEADS = ("linear", "mlp")


class ResNet(nnx.Module):
    """Deep residual network (He et al., arXiv:1512.03385), as torchvision's `ResNet`: in a block
    that halves the resolution the 3×3 convolution has the stride ("v1.5").

    Attributes bear torchvision's names, so that paths to parameters are the keys of its state
    dict. `stem` 'imagenet' is torchvision's (7×7 with stride 2, max-pool); 'cifar' is what the
    study puts in its place (3×3, no pool). `head` 'linear' is one layer; 'mlp' is, for every size
    in `head_hidden`, BatchNorm, ReLU (from the second on), Dropout and a linear layer, and then
    the same once more to the logits. A stem or a head that takes torchvision's place starts as
    PyTorch's layers do.
    """

    def __init__(
        self,
        *,
        block: type["BasicBlock"] | type["Bottleneck"],
        depths: tuple[int, int, int, int],
        num_classes: int,
        rngs: nnx.Rngs,
        width: int = 64,
        stem: str = "cifar",
        head: str = "linear",
        head_hidden: tuple[int, ...] = (512, 256),
        head_dropout: tuple[float, ...] = (0.5, 0.3, 0.2),
        dtype: jnp.dtype = jnp.float32,
    ):
        if stem not in STEMS or head not in HEADS:
            raise ValueError(f"stem is one of {STEMS}, head one of {HEADS}, not {stem!r}, {head!r}")
        if stem == "cifar":
            self.conv1 = layers.conv(3, width, size=3, bias=False, rngs=rngs, dtype=dtype)
        else:
            self.conv1 = _conv(3, width, 7, 2, rngs, dtype)
        self.bn1 = layers.BatchNorm(width, dtype=dtype)
        self.stem = stem
        features = width
        for number, depth in enumerate(depths):
            blocks = nnx.List()
            for index in range(depth):
                stride = 2 if number and not index else 1
                blocks.append(block(features, width * 2**number, stride, rngs, dtype))
                features = width * 2**number * block.expansion
            setattr(self, f"layer{number + 1}", blocks)
        if head == "linear":
            self.fc = layers.linear(features, num_classes, rngs=rngs, dtype=dtype)
        else:
            sizes = (*head_hidden, num_classes)
            self.fc = _mlp(features, sizes, head_dropout, rngs, dtype)

    def __call__(self, images: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits float32 [B, num_classes] for normalised images [B, H, W, 3]."""
        x = self.activations(images)[-1].mean(axis=(1, 2))
        for layer in self.fc if isinstance(self.fc, nnx.List) else [self.fc]:
            x = layer(x, rngs=rngs) if isinstance(layer, nnx.Dropout) else layer(x)
        return layers.at_least_float32(x)

    def activations(self, images: jax.Array) -> list[jax.Array]:
        """Returns what the stem and each of the four stages put out, [B, h, w, channels] each."""
        x = nnx.relu(self.bn1(self.conv1(images)))
        if self.stem == "imagenet":
            x = nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        found = [x]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)
            found.append(x)
        return found


class BasicBlock(nnx.Module):
    """Two 3×3 convolutions beside a shortcut: ResNet-18 and -34."""

    expansion = 1

    def __init__(
        self, in_features: int, features: int, stride: int, rngs: nnx.Rngs, dtype: jnp.dtype
    ):
        self.conv1 = _conv(in_features, features, 3, stride, rngs, dtype)
        self.bn1 = layers.BatchNorm(features, dtype=dtype)
        self.conv2 = _conv(features, features, 3, 1, rngs, dtype)
        self.bn2 = layers.BatchNorm(features, dtype=dtype)
        self.downsample = _downsample(in_features, features, stride, rngs, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        for layer in self.downsample:
            x = layer(x)
        return nnx.relu(x + y)


class Bottleneck(nnx.Module):
    """A 3×3 convolution between two 1×1, the last with 4 times the channels: ResNet-50."""

    expansion = 4

    def __init__(
        self, in_features: int, features: int, stride: int, rngs: nnx.Rngs, dtype: jnp.dtype
    ):
        self.conv1 = _conv(in_features, features, 1, 1, rngs, dtype)
        self.bn1 = layers.BatchNorm(features, dtype=dtype)
        self.conv2 = _conv(features, features, 3, stride, rngs, dtype)
        self.bn2 = layers.BatchNorm(features, dtype=dtype)
        self.conv3 = _conv(features, 4 * features, 1, 1, rngs, dtype)
        self.bn3 = layers.BatchNorm(4 * features, dtype=dtype)
        self.downsample = _downsample(in_features, 4 * features, stride, rngs, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = nnx.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        for layer in self.downsample:
            x = layer(x)
        return nnx.relu(x + y)


def _conv(
    in_features: int, features: int, size: int, stride: int, rngs: nnx.Rngs, dtype: jnp.dtype
) -> nnx.Conv:
    return layers.conv(
        in_features,
        features,
        size=size,
        stride=stride,
        bias=False,
        kernel_init=layers.kaiming_normal_fan_out,
        rngs=rngs,
        dtype=dtype,
    )


def _downsample(
    in_features: int, features: int, stride: int, rngs: nnx.Rngs, dtype: jnp.dtype
) -> nnx.List:
    """Returns the layers of a shortcut: none where it can be the identity."""
    if stride == 1 and in_features == features:
        return nnx.List()
    conv = _conv(in_features, features, 1, stride, rngs, dtype)
    return nnx.List([conv, layers.BatchNorm(features, dtype=dtype)])


def _mlp(
    features: int,
    sizes: tuple[int, ...],
    dropout: tuple[float, ...],
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
) -> nnx.List:
    found = nnx.List()
    for index, (size, rate) in enumerate(zip(sizes, dropout, strict=True)):
        found.append(layers.BatchNorm(features, dtype=dtype))
        if index:
            found.append(nnx.relu)
        found.append(nnx.Dropout(rate))
        found.append(layers.linear(features, size, rngs=rngs, dtype=dtype))
        features = size
    return found
