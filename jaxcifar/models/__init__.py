"""The networks, by name, and the split of a network into structure and arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcifar.models import simple_cnn

_MODELS: dict[str, Callable[..., nnx.Module]] = {"simple_cnn": simple_cnn.SimpleCNN}


def create(
    name: str,
    *,
    num_classes: int,
    rngs: nnx.Rngs,
    width: int | None = None,
    dropout: float = 0.5,
    dtype: jnp.dtype = jnp.float32,
) -> nnx.Module:
    """Returns a freshly initialised network, in training mode.

    The network maps normalised images, float32 [B, 32, 32, 3], to logits, float32
    [B, num_classes]. In training mode a call draws its dropout from the `rngs` it is given;
    `model.eval()` turns dropout off.

    Args:
        name: 'simple_cnn'.
        num_classes: number of logits.
        rngs: the source of the initial parameters.
        width: channels of the first stage (None: the network's own).
        dropout: dropout rate before simple_cnn's last layer.
        dtype: what the layers compute in; parameters are float32.

    Raises:
        ValueError: there is no network of that name.
    """
    if name not in _MODELS:
        raise ValueError(f"there is no model {name!r}; there are {', '.join(_MODELS)}")
    sizes = {"width": width} if width else {}
    return _MODELS[name](num_classes=num_classes, rngs=rngs, dropout=dropout, dtype=dtype, **sizes)


class Network(NamedTuple):
    """A network's structure without its numbers, in both modes; hashable."""

    train: nnx.GraphDef
    eval: nnx.GraphDef


Arrays = dict[str, Any]  # nested, from names to arrays


def split(model: nnx.Module) -> tuple[Network, Arrays, Arrays]:
    """Takes a model apart: its structure, its parameters, and its other state (statistics)."""
    model.eval()
    eval_graph = nnx.graphdef(model)
    model.train()
    train_graph, params, stats = nnx.split(model, nnx.Param, ...)
    return Network(train_graph, eval_graph), nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def apply_train(
    network: Network, params: Arrays, stats: Arrays, images: jax.Array, key: jax.Array
) -> tuple[jax.Array, Arrays]:
    """Returns training-mode logits, with dropout drawn from `key`, and the updated statistics."""
    # copy: the module's variables must not be those that a gradient is being traced through
    model = nnx.merge(network.train, params, stats, copy=True)
    logits = model(images, rngs=nnx.Rngs(dropout=key))
    return logits, nnx.to_pure_dict(nnx.split(model, nnx.Param, ...)[2])


def apply_eval(network: Network, params: Arrays, stats: Arrays, images: jax.Array) -> jax.Array:
    """Returns evaluation-mode logits."""
    return nnx.merge(network.eval, params, stats)(images)
