"""The networks, by name, and the split of a network into structure and arrays."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from jaxcifar.models import resnet, simple_cnn

RESNETS: dict[str, Callable[..., nnx.Module]] = {
    name: functools.partial(resnet.ResNet, block=block, depths=depths)
    for name, block, depths in (
        ("resnet18", resnet.BasicBlock, (2, 2, 2, 2)),
        ("resnet34", resnet.BasicBlock, (3, 4, 6, 3)),
        ("resnet50", resnet.Bottleneck, (3, 4, 6, 3)),
    )
}
NAMES = ("simple_cnn", *RESNETS)


def create(
    name: str,
    *,
    num_classes: int,
    rngs: nnx.Rngs,
    width: int | None = None,
    stem: str = "cifar",
    head: str = "linear",
    head_hidden: tuple[int, ...] = (512, 256),
    head_dropout: tuple[float, ...] = (0.5, 0.3, 0.2),
    dropout: float = 0.5,
    dtype: jnp.dtype = jnp.float32,
) -> nnx.Module:
    """Returns a freshly initialised network, in training mode.

    The network maps normalised images, float32 [B, H, W, 3], to logits, float32
    [B, num_classes]; simple_cnn's images are 32×32. In training mode a call draws its dropout
    from the `rngs` it is given; `model.eval()` turns dropout off and makes BatchNorm use its
    running statistics.

    Args:
        name: one of `NAMES`.
        num_classes: number of logits.
        rngs: the source of the initial parameters.
        width: channels of the first stage (None: the network's own).
        stem: the ResNets' beginning, 'cifar' or 'imagenet'; see `resnet.ResNet`.
        head: the ResNets' end, 'linear' or 'mlp'.
        head_hidden: sizes of the mlp head's hidden layers.
        head_dropout: its dropout rates, one before each of its linear layers.
        dropout: dropout rate before simple_cnn's last layer.
        dtype: what the layers compute in; parameters are float32.

    Raises:
        ValueError: there is no network, stem or head of that name.
    """
    sizes = {"width": width} if width else {}
    if name == "simple_cnn":
        return simple_cnn.SimpleCNN(
            num_classes=num_classes, rngs=rngs, dropout=dropout, dtype=dtype, **sizes
        )
    if name not in RESNETS:
        raise ValueError(f"there is no model {name!r}; there are {', '.join(NAMES)}")
    return RESNETS[name](
        num_classes=num_classes,
        rngs=rngs,
        stem=stem,
        head=head,
        head_hidden=head_hidden,
        head_dropout=head_dropout,
        dtype=dtype,
        **sizes,
    )


def from_config(config: ConfigDict, *, num_classes: int, rngs: nnx.Rngs) -> nnx.Module:
    """Returns the network that the config names, freshly initialised; see `create`."""
    given = config.model
    return create(
        given.name,
        num_classes=num_classes,
        rngs=rngs,
        width=given.width or None,
        stem=given.stem,
        head=given.head,
        head_hidden=given.head_hidden,
        head_dropout=given.head_dropout,
        dropout=given.dropout,
        dtype=jnp.dtype(config.dtype),
    )


class Network(NamedTuple):
    """A network's structure without its numbers, in both modes; hashable."""

    train: nnx.GraphDef
    eval: nnx.GraphDef


Arrays = dict[str, Any]  # nested, from names (in a list: numbers) to arrays


def flatten(tree: Arrays) -> dict[str, Any]:
    """Returns a tree's leaves by path, such as 'layer1.0.conv1.kernel'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves}


def insert(leaves: Mapping[str, Any], tree: Arrays) -> Arrays:
    """Returns the tree with those leaves replaced that `leaves` has by path; see `flatten`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(leaves[_name(path)]) if _name(path) in leaves else leaf,
        tree,
    )


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


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
