"""Writes resnet.npz: the outputs of torchvision's ResNets for weights that NumPy draws.

python tests/golden/make_resnet.py        needs torch and torchvision

The weights are drawn in the order of their sorted names, so the file holds outputs only. They
are computed in float64, so a comparison shows only the rounding of the network compared. Every case
has logits in evaluation mode, for each stage the norm, the largest value and a slice, and the
running statistics after 5 batches in training mode.
"""

import pathlib

import numpy as np

from jaxcifar.parity.given import draw_weights

PATH = pathlib.Path(__file__).with_name("resnet.npz")
# (name, stem, head): every network, stem and head, which know nothing of each other
CASES = (
    ("resnet18", "cifar", "mlp"),
    ("resnet18", "imagenet", "linear"),
    ("resnet34", "cifar", "linear"),
    ("resnet50", "imagenet", "linear"),
)


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
    import torch

    from jaxcifar.parity import networks, torch_networks

    torch.set_grad_enabled(False)
    arrays = {}
    for case in CASES:
        net = networks.theirs(networks.Case(*case))
        weights = draw_weights(torch_networks.shapes(net))
        torch_networks.load(net, weights).double().eval()
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
