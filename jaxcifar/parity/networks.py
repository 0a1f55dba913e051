"""Rows of whole networks: the same weights and images, one pass in each mode, and its gradients."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from flax import nnx

from jaxcifar import losses, models, weights
from jaxcifar.models import functional
from jaxcifar.parity import torch_networks
from jaxcifar.parity.given import draw_weights, jit
from jaxcifar.parity.rows import ABSOLUTE, EXACT, row

GROUP = "Networks"

MLP_HIDDEN, NO_DROPOUT = (48, 24), (0.0,) * 3


class Case(NamedTuple):
    """A network, and the images that it is given."""

    name: str
    stem: str = "imagenet"
    head: str = "linear"
    width: int = 64
    num_classes: int = 10
    dtype: str = "float64"

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `models.create`, without dropout."""
        if self.name == "simple_cnn":
            return {"width": self.width, "dropout": 0.0}
        mlp = {"head_hidden": MLP_HIDDEN, "head_dropout": NO_DROPOUT} if self.head == "mlp" else {}
        return {"width": self.width, "stem": self.stem, "head": self.head, **mlp}


class Outcome(NamedTuple):
    """What a network makes of images: of every part arrays by name, in PyTorch's layouts."""

    in_evaluation: dict[str, np.ndarray]
    in_training: dict[str, np.ndarray]  # the logits, and the statistics after the pass
    gradients: dict[str, np.ndarray]  # of the mean cross-entropy, by parameter


def ours(case: Case) -> nnx.Module:
    """Returns our network, without arrays."""
    return nnx.eval_shape(
        lambda: models.create(
            case.name,
            num_classes=case.num_classes,
            rngs=nnx.Rngs(0),
            dtype=case.dtype,
            **case.arguments,
        )
    )


def theirs(case: Case) -> torch.nn.Module:
    """Returns PyTorch's network."""
    if case.name == "simple_cnn":
        return torch_networks.SimpleCNN(case.num_classes, case.width, dropout=0.0)
    return torch_networks.resnet(
        case.name,
        num_classes=case.num_classes,
        stem=case.stem,
        head=case.head,
        width=case.width,
        hidden=MLP_HIDDEN,
        dropout=NO_DROPOUT,
    )


def to_torch(model: nnx.Module) -> dict[str, np.ndarray]:
    """Returns the state dict of a network, or of its gradients, for PyTorch's.

    SimpleCNN's first linear layer reads the image as [H, W, C], PyTorch's as [C, H, W]: its inputs
    are put in that order.
    """
    if not hasattr(model, "fc1"):
        return weights.to_torchvision(model)
    state = {
        weights.torch_name(name): weights.to_torch_layout(np.asarray(leaf))
        for name, leaf in functional.flatten(nnx.to_pure_dict(nnx.state(model))).items()
    }
    units = len(state["fc1.weight"])
    inputs = state["fc1.weight"].reshape(units, 4, 4, -1)
    state["fc1.weight"] = np.moveaxis(inputs, -1, 1).reshape(units, -1)
    return state


def with_weights(case: Case) -> tuple[nnx.Module, torch.nn.Module]:
    """Returns our network and PyTorch's with the same drawn weights, in the case's dtype."""
    model = ours(case)
    with torch.device("meta"):  # else PyTorch would draw weights first
        net = theirs(case)
    leaves = functional.flatten(nnx.to_pure_dict(nnx.state(model)))
    drawn = draw_weights(torch_networks.shapes(net))
    arrays = {
        name: weights.from_torch_layout(drawn[weights.torch_name(name)].astype(case.dtype))
        for name in leaves
    }
    nnx.update(model, functional.insert(arrays, nnx.to_pure_dict(nnx.state(model))))
    return model, torch_networks.load(net, to_torch(model))


@functools.cache
def outcomes(case: Case) -> tuple[Outcome, Outcome]:
    """Returns what our network and PyTorch's make of the same images with the same weights."""
    model, net = with_weights(case)
    rng = np.random.default_rng(1)
    images = rng.uniform(-2, 2, (4, 32, 32, 3)).astype(case.dtype)
    labels = np.arange(4)
    return _our_outcome(model, images, labels), _their_outcome(net, images, labels)


def _our_outcome(model: nnx.Module, images: np.ndarray, labels: np.ndarray) -> Outcome:
    graphdefs, params, stats = functional.split(model)

    def loss_fn(params, stats, images):
        logits, new = functional.apply_train(graphdefs, params, stats, images, jax.random.key(0))
        targets = jax.nn.one_hot(labels, logits.shape[1])
        eval_logits = functional.apply_eval(graphdefs, params, stats, images)
        return losses.cross_entropy(logits, targets).mean(), (logits, new, eval_logits)

    num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    step = jit(jax.grad(loss_fn, has_aux=True), runs_briefly=num_params < 1e6)
    gradients, (logits, stats, eval_logits) = step(params, stats, images)
    state = to_torch(nnx.merge(graphdefs.train, gradients, stats))
    is_statistic = {name: "running" in name for name in state}
    return Outcome(
        {"logits": np.asarray(eval_logits)},
        {"logits": np.asarray(logits)} | {k: v for k, v in state.items() if is_statistic[k]},
        {k: v for k, v in state.items() if not is_statistic[k]},
    )


def _their_outcome(net: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> Outcome:
    images = torch_networks.channels_first(images)
    with torch.no_grad():
        eval_logits = net.eval()(images)
    logits = net.train()(images)
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    statistics = {name: x.numpy() for name, x in net.named_buffers() if "running" in name}
    return Outcome(
        {"logits": eval_logits.numpy()},
        {"logits": logits.detach().numpy()} | statistics,
        {name: parameter.grad.numpy() for name, parameter in net.named_parameters()},
    )


# --- the rows -------------------------------------------------------------------------------------

# The CIFAR stem with a linear head is Part 2's, among the rows of training
CASES = {
    "SimpleCNN": Case("simple_cnn", width=32),
    "ResNet-18 (torchvision's own)": Case("resnet18", num_classes=1000),
    "ResNet-18 (CIFAR stem, mlp head, width 8)": Case("resnet18", "cifar", "mlp", width=8),
    "ResNet-34 (mlp head, width 8)": Case("resnet34", "imagenet", "mlp", width=8),
    "ResNet-50 (CIFAR stem, mlp head, width 4)": Case("resnet50", "cifar", "mlp", width=4),
}
_STUDYS_CNN = "the study's module of torch.nn layers"


def _declare(title: str, case: Case) -> None:
    against = _STUDYS_CNN if case.name == "simple_cnn" else f"torchvision.models.{case.name}"
    for part, what, tolerance, reason in (
        ("in_evaluation", "logits in evaluation mode", 1e-12, ""),
        ("in_training", "logits in training mode, running statistics after it", 1e-11, ""),
        ("gradients", "gradient by every parameter", 1e-9, ", there and back"),
    ):
        row(
            f"{title}: {what}",
            group=GROUP,
            against=against,
            tolerance=tolerance,
            reason=f"float64 rounding, layer after layer{reason}",
        )(lambda part=part: tuple(getattr(side, part) for side in outcomes(case)))


for _title, _case in CASES.items():
    _declare(_title, _case)


@row(
    "ResNet-18 (CIFAR stem, mlp head), float32 as in training: logits in evaluation mode",
    group=GROUP,
    against="torchvision.models.resnet18",
    tolerance=1e-5,
    reason="float32 rounding of both, layer after layer",
    dtype="float32",
)
def in_float32() -> tuple:
    model, net = with_weights(Case("resnet18", "cifar", "mlp", dtype="float32"))
    images = np.random.default_rng(1).uniform(-2, 2, (4, 32, 32, 3)).astype(np.float32)
    graphdefs, *arrays = functional.split(model)
    logits = jit(functools.partial(functional.apply_eval, graphdefs))(*arrays, images)
    with torch.no_grad():
        return logits, net.eval()(torch_networks.channels_first(images)).numpy()


@functools.cache
def full_width(name: str) -> tuple[nnx.Module, torch.nn.Module]:
    """Returns our network and PyTorch's of the usual width for 1000 classes, without arrays."""
    case = Case(name, width=32 if name == "simple_cnn" else 64, num_classes=1000)
    with torch.device("meta"):
        return ours(case), theirs(case)


def _declare_names(name: str) -> None:
    @row(
        f"{name}: names and shapes of all parameters and statistics",
        group=GROUP,
        against=f"torchvision.models.{name}().state_dict()",
        tolerance=0,
        reason=EXACT,
        measure=ABSOLUTE,
    )
    def names() -> tuple:
        model, net = full_width(name)
        return tuple(
            {key: np.array(shape) for key, shape in shapes.items()}
            for shapes in (weights.shapes(model), torch_networks.shapes(net))
        )


_RESNETS = ("resnet18", "resnet34", "resnet50")
for _name in _RESNETS:
    _declare_names(_name)


@row(
    "numbers of parameters of SimpleCNN, ResNet-18, -34 and -50",
    group=GROUP,
    against="sum(p.numel() for p in net.parameters())",
    tolerance=0,
    reason=EXACT,
    measure=ABSOLUTE,
)
def parameter_counts() -> tuple:
    networks = {name: full_width(name) for name in ("simple_cnn", *_RESNETS)}
    params = {name: functional.split(model)[1] for name, (model, _) in networks.items()}
    return (
        {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in params.items()},
        {name: sum(p.numel() for p in net.parameters()) for name, (_, net) in networks.items()},
    )
