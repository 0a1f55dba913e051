"""The study's networks in PyTorch, and the way of arrays into them.

Importing this imports PyTorch, and neither JAX nor torchvision.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jaxcifar.torchvision_compat import import_torchvision


class SimpleCNN(nn.Module):
    """The study's first network; the counterpart of `jaxcifar.models.simple_cnn`."""

    def __init__(self, num_classes: int, width: int = 32, dropout: float = 0.5):
        """Creates the layers, with PyTorch's default initialization."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.fc1 = nn.Linear(64 * width, 16 * width)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(16 * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = functional.max_pool2d(functional.relu(conv(x)), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        return self.fc2(self.dropout(x))


def resnet(
    name: str,
    *,
    num_classes: int,
    stem: str = "imagenet",
    head: str = "linear",
    width: int = 64,
    hidden: Sequence[int] = (512, 256),
    dropout: Sequence[float] = (0.5, 0.3, 0.2),
) -> nn.Module:
    """Returns torchvision's ResNet of this name, with the study's stem or head.

    Its stages are torchvision's at any width: its `_make_layer` builds them. The arguments are
    those of `jaxcifar.models.create`, `hidden` and `dropout` those of the mlp head.
    """
    net = getattr(import_torchvision().models, name)(num_classes=num_classes)
    stages = (net.layer1, net.layer2, net.layer3, net.layer4)
    features = net.fc.in_features * width // 64
    if width != 64:
        net.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        net.bn1 = nn.BatchNorm2d(width)
        net.inplanes = width
        for index, stage in enumerate(stages):
            planes, stride = width * 2**index, 2 if index else 1
            layer = net._make_layer(type(stage[0]), planes, len(stage), stride=stride)
            setattr(net, f"layer{index + 1}", layer)
        net.fc = nn.Linear(features, num_classes)
    if stem == "cifar":
        net.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
    if head == "mlp":
        layers = []
        for size, rate in zip((*hidden, num_classes), dropout, strict=True):
            layers += [nn.BatchNorm1d(features), nn.ReLU(), nn.Dropout(rate)]
            layers.append(nn.Linear(features, size))
            features = size
        del layers[1]
        net.fc = nn.Sequential(*layers)
    return net


def load(net: nn.Module, state: Mapping[str, np.ndarray]) -> nn.Module:
    """Gives a network, on any device or on none ("meta"), the arrays of a state dict, strictly, on
    the CPU and in their dtype; returns the network.
    """
    tensors = {name: torch.tensor(values) for name, values in state.items()}
    net.load_state_dict(tensors, strict=True, assign=True)
    return net


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a network's parameters and statistics by name, without counters."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def channels_first(images: np.ndarray) -> torch.Tensor:
    """Returns images [..., H, W, C] as a tensor [..., C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3)))


def channels_last(images: torch.Tensor) -> np.ndarray:
    """Returns a tensor [..., C, H, W] as images [..., H, W, C]."""
    return np.moveaxis(images.detach().numpy(), -3, -1)
