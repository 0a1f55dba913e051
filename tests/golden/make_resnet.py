"""Writes resnet.npz: the outputs of torchvision's ResNets for weights that NumPy draws.

python tests/golden/make_resnet.py        needs torch and torchvision

The weights are drawn in the order of their sorted names, so the file holds outputs only. They
are computed in float64, so a comparison shows only the rounding of the network compared. Every case
has logits in evaluation mode, for each stage the norm, the largest value and a slice, and the
running statistics after 5 batches in training mode. The tests build the same networks with `build`,
at any width, to compare live.
"""

import pathlib
import sys

import numpy as np

PATH = pathlib.Path(__file__).with_name("resnet.npz")
MLP_HIDDEN = (48, 24)
NUM_CLASSES = 10
# (name, stem, head): every stem and head with every network, all four pairs with ResNet-18
CASES = tuple(
    (f"resnet{depth}", *rest)
    for depth, *rest in (
        (18, "cifar", "linear"),
        (18, "cifar", "mlp"),
        (18, "imagenet", "linear"),
        (18, "imagenet", "mlp"),
        (34, "cifar", "linear"),
        (34, "imagenet", "mlp"),
        (50, "cifar", "mlp"),
        (50, "imagenet", "linear"),
    )
)


def draw_weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Returns a float32 state dict of the named shapes; statistics differ from fresh ones, and
    activations keep about their size from layer to layer.
    """
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, shape in sorted(shapes.items()):
        if len(shape) > 1:  # a kernel, [out, in, ...]; a residual branch adds less than it gets
            bound = (3.0 / np.prod(shape[1:])) ** 0.5
            values = rng.uniform(-bound, bound, shape)
        elif name.endswith(("running_var", "weight")):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.uniform(-0.3, 0.3, shape)
        drawn[name] = values.astype(np.float32)
    return drawn


def images(stem: str, batch: int = 0, size: int = 2) -> np.ndarray:
    """Returns images [size, 3, H, H], float32; larger for 'imagenet', so that pixels are left in
    its last stage.
    """
    side = 64 if stem == "imagenet" else 32
    rng = np.random.default_rng([1, batch])
    return rng.uniform(-2, 2, (size, 3, side, side)).astype(np.float32)


def slice_of(activation: np.ndarray) -> np.ndarray:
    """Returns the part of a stage's output [B, C, H, W] that the file keeps."""
    channels, height = activation.shape[1:3]
    return activation[:, :: max(1, channels // 16), :: max(1, height // 4), :: max(1, height // 4)]


def build(torchvision, name: str, stem: str, head: str, *, width: int = 64, dropout: float = 0.0):
    """Returns torchvision's network with the study's stem or head; torchvision's `_make_layer`
    builds the stages at any width.
    """
    from torch import nn

    module = torchvision.models.resnet
    block, depths = {
        "resnet18": (module.BasicBlock, [2, 2, 2, 2]),
        "resnet34": (module.BasicBlock, [3, 4, 6, 3]),
        "resnet50": (module.Bottleneck, [3, 4, 6, 3]),
    }[name]
    net = module.ResNet(block, depths, num_classes=NUM_CLASSES)
    if width != 64:
        net.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        net.bn1 = nn.BatchNorm2d(width)
        net.inplanes = width
        for index, depth in enumerate(depths):
            layer = net._make_layer(block, width * 2**index, depth, stride=2 if index else 1)
            setattr(net, f"layer{index + 1}", layer)
        net.fc = nn.Linear(8 * width * block.expansion, NUM_CLASSES)
    if stem == "cifar":
        net.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
    if head == "mlp":
        layers, features = [], net.fc.in_features
        for size in (*MLP_HIDDEN, NUM_CLASSES):
            layers += [nn.BatchNorm1d(features), nn.ReLU(), nn.Dropout(dropout)]
            layers.append(nn.Linear(features, size))
            features = size
        del layers[1]
        net.fc = nn.Sequential(*layers)
    return net


def set_weights(net, weights: dict[str, np.ndarray]) -> None:
    """Loads a drawn state dict into a network, strictly."""
    import torch

    tensors = {name: torch.tensor(values) for name, values in weights.items()}
    net.load_state_dict(tensors, strict=True)


def shapes_of(net) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a network's tensors by name, without its counters."""
    return {n: tuple(t.shape) for n, t in net.state_dict().items() if t.ndim or "num_" not in n}


def activations(net, x) -> list:
    """Returns the outputs of the stem and of each of the four stages, [B, C, H, W]."""
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    outputs = [x]
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
        outputs.append(x)
    return outputs


def statistics(state: dict[str, np.ndarray]) -> np.ndarray:
    """Returns a row for every running statistic in a state dict, sorted by name: 8 of its values,
    its norm, its largest value.
    """
    tensors = [np.asarray(state[name], np.float64) for name in sorted(state) if "running" in name]
    return np.array(
        [[*v[:: len(v) // 8][:8], np.linalg.norm(v), abs(v).max()] for v in tensors], np.float64
    )


def main() -> None:
    """Writes the file."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    import torch
    from torch_reference import torchvision

    torch.set_grad_enabled(False)
    arrays = {}
    for case in CASES:
        net = build(torchvision(), *case)
        weights = draw_weights(shapes_of(net))
        set_weights(net, weights)
        net.double().eval()
        x = torch.from_numpy(images(case[1])).double()
        key = "-".join(case)
        arrays[f"{key}-drawn"] = np.array([w.sum(dtype=np.float64) for w in weights.values()]).sum()
        arrays[f"{key}-logits"] = net(x).numpy()
        for index, stage in enumerate(activations(net, x)):
            stage = stage.numpy()
            arrays[f"{key}-stage{index}"] = slice_of(stage).astype(np.float32)
            arrays[f"{key}-size{index}"] = np.array([np.linalg.norm(stage), abs(stage).max()])
        net.train()
        for batch in range(1, 6):
            net(torch.from_numpy(images(case[1], batch, size=8)).double())
        state = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
        arrays[f"{key}-statistics"] = statistics(state)
    np.savez_compressed(PATH, **arrays)
    print(f"{PATH.name}: {PATH.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
