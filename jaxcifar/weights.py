"""Conversion between torchvision's state dicts and the parameters of models here.

The mapping is derived: modules have torchvision's names, so only the last path component changes,
and a kernel's rank fixes its axes. For files see `state_dict_files`, for downloads `hub`.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from jaxcifar import models
from jaxcifar.models import functional, resnet
from jaxcifar.spec import ConfigError

_TORCH_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_TORCH_AXES = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}  # vector; linear; convolution HWIO -> OIHW


def to_torchvision(model: nnx.Module) -> dict[str, np.ndarray]:
    """Returns a ResNet's state dict under torchvision's names, without num_batches_tracked
    (`load_state_dict(strict=True)` does not require them in a plain dict).

    Raises:
        ConfigError: the model is not one of torchvision's networks.
    """
    return {
        torch_name(name): to_torch_layout(leaf) for name, leaf in sorted(_leaves(model).items())
    }


def from_torchvision(
    model: nnx.Module, state_dict: Mapping[str, np.ndarray], *, skip: Iterable[str] = ()
) -> None:
    """Sets a ResNet's parameters and statistics, in place, from a state dict with torchvision's
    names. Every tensor is accounted for; num_batches_tracked is accepted but not required.

    Args:
        model: the network; an abstract one (`nnx.eval_shape`) gets its arrays here.
        state_dict: arrays by name, in PyTorch's layouts.
        skip: tensors, or modules ('conv1', 'fc'), that are left unchanged in the model, whatever
            the state dict has for them.

    Raises:
        ConfigError: the model is not one of torchvision's networks; or tensors are missing,
            unexpected or of the wrong shape, or a name in `skip` is neither in the model nor in
            the state dict; the message lists them all.
    """
    skip = tuple(skip)
    expected = shapes(model)
    unknown = [s for s in skip if not any(belongs_to(n, [s]) for n in (*expected, *state_dict))]
    if unknown:
        raise ConfigError(
            f"skip={skip!r} is not valid: neither the network nor the state dict has "
            f"{', '.join(unknown)}"
        )
    problems = mismatch(
        {name: shape for name, shape in expected.items() if not belongs_to(name, skip)},
        {name: np.shape(value) for name, value in state_dict.items() if not belongs_to(name, skip)},
    )
    if problems:
        raise ConfigError(f"the state dict does not match this network:\n  {describe(problems)}")
    arrays = {
        name: from_torch_layout(np.asarray(state_dict[torch_name(name)], leaf.dtype))
        for name, leaf in _leaves(model).items()
        if not belongs_to(torch_name(name), skip)
    }
    nnx.update(model, functional.insert(arrays, nnx.to_pure_dict(nnx.state(model))))


def shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shapes, in PyTorch's layouts, of a ResNet's tensors by torchvision's names.

    Raises:
        ConfigError: the model is not one of torchvision's networks.
    """
    return {
        torch_name(name): tuple(leaf.shape[axis] for axis in _TORCH_AXES[len(leaf.shape)])
        for name, leaf in _leaves(model).items()
    }


def torch_name(path: str) -> str:
    """Returns torchvision's name of the parameter or statistic with this path of ours, such as
    layer1.0.bn1.running_var for layer1.0.bn1.var.
    """
    module, _, leaf = path.rpartition(".")
    return f"{module}.{_TORCH_NAMES[leaf]}"


def to_torch_layout(array: np.ndarray) -> np.ndarray:
    """Returns a parameter or statistic in PyTorch's layout: [out, in] of a linear layer, [out, in,
    H, W] of a convolution; a vector as it is.
    """
    return np.ascontiguousarray(np.transpose(array, _TORCH_AXES[array.ndim]))


def from_torch_layout(array: np.ndarray) -> np.ndarray:
    """Returns a parameter or statistic of PyTorch's in our layout: the inverse of
    `to_torch_layout`.
    """
    return np.transpose(array, np.argsort(_TORCH_AXES[array.ndim]))


def belongs_to(name: str, modules: Iterable[str]) -> bool:
    """Returns whether a name is one of the modules or tensors, or inside one of the modules."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def recognize(
    state_dict: Mapping[str, np.ndarray], path: str | os.PathLike
) -> tuple[dict[str, Any], nnx.Module]:
    """Returns which of our ResNets a state dict matches: the arguments of `models.create` except
    `rngs`, and the network, abstract.

    Args:
        state_dict: arrays by torchvision's names, in PyTorch's layouts.
        path: where it is from, for messages.

    Raises:
        ConfigError: it matches none of them.
    """
    stem_shape = np.shape(state_dict.get("conv1.weight", ()))
    if len(stem_shape) != 4:
        raise ConfigError(
            f"{str(path)!r} is not a ResNet: no convolution 'conv1.weight' among its "
            f"{len(state_dict)} tensors ({', '.join(few(sorted(state_dict)))})"
        )
    arguments = {
        "width": stem_shape[0],
        "stem": "imagenet" if stem_shape[-1] == 7 else "cifar",
        **_head_arguments(state_dict),
    }
    actual = {name: np.shape(value) for name, value in state_dict.items()}
    problems = {}
    for name in resnet.RESNETS:
        description = {"name": name, **arguments}
        model = nnx.eval_shape(lambda d=description: models.create(**d, rngs=nnx.Rngs(0)))
        problems[name] = mismatch(shapes(model), actual)
        if not problems[name]:
            return description, model
    nearest = min(problems, key=lambda name: sum(map(len, problems[name].values())))
    raise ConfigError(
        f"{str(path)!r} matches none of {', '.join(resnet.RESNETS)}; compared with {nearest}:\n  "
        + describe(problems[nearest], few)
    )


def _head_arguments(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the arguments of `models.create` that describe the head: one linear layer, 'fc', or
    several, 'fc.<index>'.
    """
    sizes = {}  # (inputs, outputs) of the linear layers, by index
    for name, value in state_dict.items():
        match = re.fullmatch(r"fc(?:\.(\d+))?\.weight", name)
        if match and np.ndim(value) == 2:
            sizes[int(match[1] or -1)] = np.shape(value)[::-1]
    outputs = [sizes[index][1] for index in sorted(sizes)]
    arguments = {
        "head": "mlp" if len(outputs) > 1 else "linear",
        "num_classes": outputs[-1] if outputs else 1000,
    }
    if len(outputs) > 1:
        arguments["head_hidden"] = outputs[:-1]
        arguments["head_dropout"] = [0.0] * len(outputs)  # unknown; no parameter depends on it
    return arguments


def mismatch(
    expected: Mapping[str, tuple[int, ...]], actual: Mapping[str, tuple[int, ...]]
) -> dict[str, list[str]]:
    """Returns how the actual shapes differ from those expected, by kind of problem."""
    counters = {n for n in actual if n.endswith(".num_batches_tracked")}
    counters = {n for n in counters if f"{n.rpartition('.')[0]}.running_mean" in expected}
    problems = {
        "missing": sorted(set(expected) - set(actual)),
        "unexpected": sorted(set(actual) - set(expected) - counters),
        "of the wrong shape": [
            f"{name} {actual[name]} instead of {expected[name]}"
            for name in sorted(set(expected) & set(actual))
            if actual[name] != expected[name]
        ],
    }
    return {kind: names for kind, names in problems.items() if names}


def describe(
    problems: Mapping[str, list[str]],
    shorten: Callable[[list[str]], list[str]] = list,
    separator: str = "\n  ",
) -> str:
    """Returns what `mismatch` has found in words, each kind of problem with its names."""
    return separator.join(
        f"{len(names)} {kind}: {', '.join(shorten(names))}" for kind, names in problems.items()
    )


def few(names: list[str]) -> list[str]:
    """Returns three of the names, and "…" for the others."""
    return [*names[:3], "…"] if len(names) > 3 else names


def _leaves(model: nnx.Module) -> dict[str, Any]:
    """Returns a ResNet's parameters and statistics by path, as they are: abstract ones too."""
    if not isinstance(model, resnet.ResNet):
        raise ConfigError(
            f"{type(model).__name__} has no torchvision counterpart; only ResNets can be converted"
        )
    return functional.flatten(nnx.to_pure_dict(nnx.state(model)))
