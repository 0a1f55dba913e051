"""Rows of initial parameters: the same distributions, layer by layer.

Neither side's generator is the other's, so samples are compared: a network of ours, freshly drawn,
and one of PyTorch's.
"""

import functools

import jax
import numpy as np
import torch
from flax import nnx

from jaxcifar import models, weights
from jaxcifar.models import layers
from jaxcifar.parity import networks, torch_networks
from jaxcifar.parity.given import jit
from jaxcifar.parity.rows import (
    ABSOLUTE,
    DISTRIBUTION,
    EXACT,
    K_S_LIMIT,
    RELATIVE,
    STANDARD_ERRORS,
    row,
)
from jaxcifar.torchvision_compat import import_torchvision

GROUP = "Initialization"

State = dict[str, np.ndarray]


@functools.cache
def simple_cnn() -> tuple[State, State]:
    """Returns the state dicts of a SimpleCNN of ours and of one of PyTorch's."""
    torch.manual_seed(0)
    return _our_state("simple_cnn"), _their_state(torch_networks.SimpleCNN(100))


@functools.cache
def resnet18() -> tuple[State, State]:
    """Returns the state dicts of a ResNet-18 of ours and of torchvision's, both with the stem and
    head of the study's Part 3.
    """
    ours = _our_state("resnet18", stem="cifar", head="mlp")
    torch.manual_seed(0)
    net = torch_networks.resnet("resnet18", num_classes=100, stem="cifar", head="mlp")
    return ours, _their_state(net)


@functools.cache
def stem() -> tuple[State, State]:
    """Returns the kernel of torchvision's own stem."""
    make = lambda: layers.kaiming_conv(3, 64, 7, 2, rngs=nnx.Rngs(0), dtype=np.float32)  # noqa: E731
    torch.manual_seed(0)
    theirs = import_torchvision().models.resnet18().conv1.weight.detach().numpy()
    return {"conv1": weights.to_torch_layout(make().kernel[...])}, {"conv1": theirs}


def _our_state(name: str, **arguments) -> State:
    def make(key):
        return models.create(name, num_classes=100, rngs=nnx.Rngs(key), **arguments)

    draw = jit(lambda key: nnx.to_pure_dict(nnx.state(make(key))))
    model = nnx.eval_shape(make, jax.random.key(0))
    nnx.update(model, draw(jax.random.key(0)))
    return networks.to_torch(model)


def _their_state(net: torch.nn.Module) -> State:
    state = net.state_dict()
    return {name: state[name].numpy() for name in torch_networks.shapes(net)}


def _drawn_tensors(both: tuple[State, State]) -> tuple[State, State]:
    """Returns at most 100,000 values of every tensor that PyTorch draws."""
    names = [name for name, values in both[1].items() if values.std() > 0]
    return tuple({name: side[name].ravel()[:100_000] for name in names} for side in both)


def _declare(title: str, against: str, draw) -> None:
    declare = functools.partial(
        row, group=GROUP, against=against, dtype="float32", reason="samples: the generators differ"
    )
    declare(f"{title}: mean and mean square, by tensor", tolerance=6, measure=STANDARD_ERRORS)(
        lambda: _drawn_tensors(draw())
    )
    declare(f"{title}: distribution, by tensor", tolerance=K_S_LIMIT, measure=DISTRIBUTION)(
        lambda: _drawn_tensors(draw())
    )


_declare("SimpleCNN", "torch.nn.Conv2d, torch.nn.Linear", simple_cnn)
_declare(
    "ResNet-18, CIFAR stem, mlp head",
    "torchvision.models.resnet18, torch.nn.Conv2d, torch.nn.Linear",
    resnet18,
)
_declare("torchvision's 7×7 stem", "torchvision.models.resnet18", stem)


@row(
    "the bound of uniform weights, 1/√fan_in, by layer",
    group=GROUP,
    against="torch.nn.Conv2d, torch.nn.Linear",
    tolerance=0.02,
    reason="samples: the largest of 864 values or more is within 2% of the bound",
    measure=RELATIVE,
    dtype="float32",
)
def bounds() -> tuple:
    cases = {"SimpleCNN": simple_cnn(), "ResNet-18": resnet18()}
    uniform = {"SimpleCNN": "", "ResNet-18": ("conv1.", "fc.")}
    return tuple(
        {
            f"{title} {name}": abs(values).max()
            for title, both in cases.items()
            for name, values in both[side].items()
            if name.startswith(uniform[title]) and values.ndim > 1
        }
        for side in (0, 1)
    )


@row(
    "ResNet-18, CIFAR stem, mlp head: BatchNorm's parameters and statistics",
    group=GROUP,
    against="torch.nn.BatchNorm2d, torch.nn.BatchNorm1d",
    tolerance=0,
    reason=EXACT,
    measure=ABSOLUTE,
    dtype="float32",
)
def constants() -> tuple:
    names = [name for name, values in resnet18()[1].items() if values.std() == 0]
    return tuple({name: side[name] for name in names} for side in resnet18())
