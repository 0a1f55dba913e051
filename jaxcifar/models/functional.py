"""Networks as pure functions of arrays: split into structure and state, and applied.

NNX defines the modules; training keeps their arrays in plain nested dictionaries, under plain
`jax.jit`, which does not walk the object graph at every call as `nnx.jit` does.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

Arrays = dict[str, Any]  # nested, from names (in a list: indices) to arrays


class GraphDefs(NamedTuple):
    """A network's structure without its arrays, in both modes; hashable."""

    train: nnx.GraphDef
    eval: nnx.GraphDef


def split(model: nnx.Module) -> tuple[GraphDefs, Arrays, Arrays]:
    """Returns a model's structure, its parameters, and its other state (BatchNorm's statistics).
    Leaves the model in training mode.
    """
    model.eval()
    eval_graphdef = nnx.graphdef(model)
    model.train()
    train_graphdef, params, stats = nnx.split(model, nnx.Param, ...)
    graphdefs = GraphDefs(train_graphdef, eval_graphdef)
    return graphdefs, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def split_eval(model: nnx.Module) -> tuple[GraphDefs, Arrays, Arrays]:
    """Returns the same as `split` of a model in evaluation mode, for `apply_eval` only; leaves the
    model as it is.
    """
    graphdef, params, stats = nnx.split(model, nnx.Param, ...)
    return GraphDefs(graphdef, graphdef), nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def apply_train(
    graphdefs: GraphDefs, params: Arrays, stats: Arrays, images: jax.Array, key: jax.Array
) -> tuple[jax.Array, Arrays]:
    """Returns training-mode logits, with dropout drawn from `key`, and the updated statistics."""
    # copy: the module's variables must not be those that a gradient is being traced through
    model = nnx.merge(graphdefs.train, params, stats, copy=True)
    logits = model(images, rngs=nnx.Rngs(dropout=key))
    return logits, nnx.to_pure_dict(nnx.split(model, nnx.Param, ...)[2])


def apply_eval(graphdefs: GraphDefs, params: Arrays, stats: Arrays, images: jax.Array) -> jax.Array:
    """Returns evaluation-mode logits."""
    return nnx.merge(graphdefs.eval, params, stats)(images)


def flatten(tree: Arrays) -> dict[str, Any]:
    """Returns a tree's leaves by path, such as 'layer1.0.conv1.kernel'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_path_name(path): leaf for path, leaf in leaves}


def shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a model's parameters and statistics by path; the model may be abstract.
    A module's own generator is neither.
    """
    leaves = flatten(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))
    return {name: leaf.shape for name, leaf in leaves.items()}


def insert(leaves: Mapping[str, Any], tree: Arrays) -> Arrays:
    """Returns the tree with the leaves in `leaves`, by path as in `flatten`, replaced."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            jnp.asarray(leaves[name]) if (name := _path_name(path)) in leaves else leaf
        ),
        tree,
    )


def _path_name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
