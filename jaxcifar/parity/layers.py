"""Rows of single layers and functions: outputs, gradients, statistics."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

from jaxcifar import batches, losses, weights
from jaxcifar import config as config_lib
from jaxcifar.models import layers
from jaxcifar.parity.given import draw_weights, jit, pictures
from jaxcifar.parity.rows import ABSOLUTE, DISTRIBUTION, EXACT, FLOAT64, K_S_LIMIT, row
from jaxcifar.parity.torch_networks import channels_first, channels_last, shapes
from jaxcifar.torchvision_compat import import_torchvision

GROUP = "Layers"


def compare(ours: Callable, theirs: Callable, inputs: Mapping[str, np.ndarray]) -> tuple:
    """Returns what both functions make of the same inputs, in our layouts: the output, the
    gradients of a random weighting of the output by every input, and their other results.

    Both are called with the inputs by name and return an output and a dictionary of other results.
    """
    tensors = {name: _tensor(name, array).requires_grad_() for name, array in inputs.items()}
    output, others = theirs(**tensors)
    weighting = torch.from_numpy(np.random.default_rng(1).normal(size=tuple(output.shape)))
    output.backward(weighting.to(output.dtype))
    expected = {"output": _array("output", output)}
    expected |= {f"gradient by {name}": _array(name, t.grad) for name, t in tensors.items()}

    @jit
    def run(inputs, weighting):
        output, pullback, others = jax.vjp(lambda x: ours(**x), inputs, has_aux=True)
        gradients = pullback(weighting.astype(output.dtype))[0]
        gradients = {f"gradient by {name}": value for name, value in gradients.items()}
        return {"output": output, **gradients, **others}

    actual = run(dict(inputs), _array("weighting", weighting))
    return actual, expected | {name: _array(name, tensor) for name, tensor in others.items()}


def _tensor(name: str, array: np.ndarray) -> torch.Tensor:
    if name == "kernel":
        return torch.tensor(weights.to_torch_layout(array))
    return channels_first(array) if array.ndim == 4 else torch.tensor(array)


def _array(name: str, tensor: torch.Tensor) -> np.ndarray:
    if name == "kernel":
        return weights.from_torch_layout(tensor.detach().numpy())
    return channels_last(tensor) if tensor.ndim == 4 else tensor.detach().numpy()


def compare_modules(
    make: Callable[[], nnx.Module], module: nn.Module, shape: tuple[int, ...], **options
) -> tuple:
    """Returns `compare` of our module and PyTorch's, in training mode or not as PyTorch's is, with
    the same drawn parameters and statistics; with the statistics after the call.

    Args:
        make: returns our module.
        module: PyTorch's.
        shape: of the input, which is drawn with a mean of 0.7.
        **options: of our module's call.
    """
    model = nnx.eval_shape(make)
    model.train() if module.training else model.eval()
    graphdef, *parts = nnx.split(model, nnx.Param, ...)
    params, stats = ({name: _their_name(name) for name in nnx.to_pure_dict(x)} for x in parts)
    drawn = {k: v.astype(np.float64) for k, v in draw_weights(shapes(module)).items()}
    fixed = {name: drawn[their_name] for name, their_name in stats.items()}

    def ours(input, **values):
        layer = nnx.merge(graphdef, values, jax.tree.map(jnp.asarray, fixed), copy=True)
        output = layer(input, **options)
        after = nnx.to_pure_dict(nnx.split(layer, nnx.Param, ...)[2])
        return output, {f"new {name}": after[name] for name in stats}

    def theirs(input, **values):
        tensors = {params[name]: tensor for name, tensor in values.items()}
        tensors |= {stats[name]: torch.tensor(array) for name, array in fixed.items()}
        output = torch.func.functional_call(module, tensors, (input,))
        output = torch.relu(output) if options.get("relu") else output
        return output, {f"new {name}": tensors[their_name] for name, their_name in stats.items()}

    inputs = {name: weights.from_torch_layout(drawn[params[name]]) for name in params}
    inputs["input"] = np.random.default_rng(0).normal(0.7, 1, shape)
    return compare(ours, theirs, inputs)


def _their_name(name: str) -> str:
    return weights.torch_name(name).removeprefix(".")


# --- layers with parameters -----------------------------------------------------------------------

_FLOAT64 = jnp.dtype("float64")


def _conv(size: int, stride: int, *, bias: bool, height: int = 9, width: int = 12) -> tuple:
    few = f", of {height}×{width} pixels" if height < size + stride else ""
    return (
        f"convolution {size}×{size}, stride {stride}, {'with' if bias else 'without'} bias{few}",
        lambda: layers.conv(
            5, 6, size=size, stride=stride, bias=bias, rngs=nnx.Rngs(0), dtype=_FLOAT64
        ),
        nn.Conv2d(5, 6, size, stride, size // 2, bias=bias),
        (4, height, width, 5),
    )


def _batch_norm(what: str, module: nn.Module, shape: tuple[int, ...], **options) -> tuple:
    mode = "training" if module.training else "evaluation"
    name = f"BatchNorm in {mode}, {what}"
    return name, lambda: layers.BatchNorm(6, dtype=_FLOAT64), module, shape, options


# what, ours, theirs, the input's shape, options of our call
_MODULES = [
    _conv(3, 1, bias=True),
    _conv(3, 2, bias=False),
    _conv(7, 2, bias=False),
    _conv(1, 2, bias=False),
    _conv(3, 2, bias=False, height=3, width=4),
    (
        "linear",
        lambda: layers.linear(7, 5, rngs=nnx.Rngs(0), dtype=_FLOAT64),
        nn.Linear(7, 5),
        (4, 7),
    ),
    _batch_norm("images", nn.BatchNorm2d(6), (4, 5, 8, 6)),
    _batch_norm("images, followed by ReLU", nn.BatchNorm2d(6), (4, 5, 8, 6), relu=True),
    _batch_norm("vectors", nn.BatchNorm1d(6), (9, 6)),
    _batch_norm("images", nn.BatchNorm2d(6).eval(), (4, 5, 8, 6)),
    _batch_norm("vectors", nn.BatchNorm1d(6).eval(), (9, 6)),
]


def _declare(
    what: str, make: Callable, module: nn.Module, shape: tuple[int, ...], options: Mapping = {}
) -> None:
    compared = "output and gradients"
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.training:
        compared = "output, gradients and running statistics (the unbiased variance)"
    row(
        f"{what}: {compared}",
        group=GROUP,
        against=f"torch.nn.{type(module).__name__}",
        tolerance=1e-12,
        reason=FLOAT64,
    )(lambda: compare_modules(make, module.double(), shape, **options))


for _case in _MODULES:
    _declare(*_case)


@row(
    "BatchNorm's running statistics after 20 batches",
    group=GROUP,
    against="torch.nn.BatchNorm2d",
    tolerance=1e-12,
    reason=FLOAT64,
)
def running_statistics() -> tuple:
    rng = np.random.default_rng(0)
    ours = layers.BatchNorm(6, dtype=_FLOAT64)
    theirs = nn.BatchNorm2d(6).double()
    graphdef, state = nnx.split(ours)

    @jit
    def update(state, batch):
        layer = nnx.merge(graphdef, state, copy=True)
        layer(batch)
        return nnx.state(layer)

    for _ in range(20):
        batch = rng.normal(rng.uniform(-2, 2), rng.uniform(0.1, 3), (2, 3, 4, 6))
        state = update(state, batch)
        theirs(channels_first(batch))
    return (
        {name: nnx.to_pure_dict(state)[name] for name in ("mean", "var")},
        {"mean": theirs.running_mean.numpy(), "var": theirs.running_var.numpy()},
    )


# --- functions ------------------------------------------------------------------------------------


def _compare_functions(ours: Callable, theirs: Callable, **inputs: np.ndarray) -> tuple:
    return compare(lambda **x: (ours(**x), {}), lambda **x: (theirs(**x), {}), inputs)


def _whole_numbers(*shape: int) -> np.ndarray:
    """Returns floats with many ties, and zeros."""
    return np.random.default_rng(0).integers(-2, 3, shape).astype(np.float64)


@row(
    "max-pool 2×2: output and gradients, also of ties",
    group=GROUP,
    against="torch.nn.functional.max_pool2d",
    tolerance=0,
    reason=EXACT,
)
def max_pool() -> tuple:
    return _compare_functions(
        lambda input: layers.max_pool_2x2(input),
        lambda input: torch.nn.functional.max_pool2d(input, 2),
        input=_whole_numbers(4, 6, 8, 5),
    )


@row(
    "max-pool 3×3, stride 2 (torchvision's stem): output and gradients, also of ties",
    group=GROUP,
    against="torch.nn.MaxPool2d",
    tolerance=1e-15,
    reason="overlapping windows add up to four gradients, in another order",
)
def stem_pool() -> tuple:
    return _compare_functions(
        lambda input: nnx.max_pool(input, (3, 3), (2, 2), padding=((1, 1), (1, 1))),
        nn.MaxPool2d(3, 2, 1),
        input=_whole_numbers(4, 7, 8, 5),
    )


@row(
    "ReLU and the spatial mean: output and gradients, also at 0",
    group=GROUP,
    against="torch.nn.ReLU, torch.nn.AdaptiveAvgPool2d",
    tolerance=1e-15,
    reason=FLOAT64,
)
def relu_and_mean() -> tuple:
    return _compare_functions(
        lambda input: nnx.relu(input).mean(axis=(1, 2)),
        nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        input=_whole_numbers(4, 3, 5, 6),
    )


def _loss_row(what: str, smoothing: float, *, soft: bool) -> None:
    @row(
        f"cross-entropy, {what}: loss of every row and gradients",
        group=GROUP,
        against="torch.nn.functional.cross_entropy",
        tolerance=1e-14,
        reason=FLOAT64,
    )
    def cross_entropy():
        rng = np.random.default_rng(0)
        labels = rng.integers(10, size=32)
        hard = np.eye(10)[labels]
        targets = 0.3 * hard + 0.7 * hard[::-1] if soft else hard
        theirs = torch.tensor(targets if soft else labels)
        return _compare_functions(
            lambda logits: losses.cross_entropy(logits, targets, smoothing),
            lambda logits: torch.nn.functional.cross_entropy(
                logits, theirs, label_smoothing=smoothing, reduction="none"
            ),
            logits=rng.normal(0, 3, (32, 10)),
        )


_loss_row("labels", 0.0, soft=False)
_loss_row("labels, smoothed by 0.1", 0.1, soft=False)
_loss_row("mixed targets", 0.0, soft=True)
_loss_row("mixed targets, smoothed by 0.1", 0.1, soft=True)


@row(
    "dropout of 0.3: what is left of ones",
    group=GROUP,
    against="torch.nn.Dropout",
    tolerance=K_S_LIMIT,
    reason="samples: the generators differ",
    measure=DISTRIBUTION,
)
def dropout() -> tuple:
    ones = np.ones((1000, 1000))
    torch.manual_seed(0)
    ours = nnx.Dropout(0.3)(ones, rngs=nnx.Rngs(dropout=0))
    theirs = nn.Dropout(0.3)(torch.from_numpy(ones)).numpy()
    return tuple(
        {"values": np.round(kept, 12), "means of 1000": kept.mean(1)}
        for kept in (np.asarray(ours), theirs)
    )


@row(
    "normalization of uint8 images with CIFAR-100's mean and standard deviation",
    group=GROUP,
    against="torchvision.transforms.v2.Normalize",
    tolerance=5e-7,
    reason="float32 rounding of values up to 2",
    measure=ABSOLUTE,
    dtype="float32",
)
def normalization() -> tuple:
    v2, config = import_torchvision().transforms.v2, config_lib.default()
    images = pictures()
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    theirs = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    return jit(lambda x: batches.normalize(x, config))(images), channels_last(
        theirs(channels_first(images))
    )
