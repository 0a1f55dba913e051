"""The training step: its state, and the compiled functions that take and return it."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcifar import batches, losses, metrics, models, parallel, weights
from jaxcifar.rng import Stream, Use, stream


class TrainState(NamedTuple):
    """Everything on the device that training changes."""

    step: jax.Array  # int32 scalar: the steps made
    params: models.Arrays
    stats: models.Arrays
    opt_state: optax.OptState
    ema: models.Arrays | None = None  # the parameters' moving average, if ema.decay is set

    @property
    def model(self) -> dict[str, models.Arrays]:
        """The part that is the trained model: what is evaluated, kept as the best and scored."""
        return {"params": self.ema or self.params, "stats": self.stats}


def init_state(
    config: ConfigDict, optimizer: optax.GradientTransformation, num_classes: int, mesh: Mesh
) -> tuple[models.Network, TrainState]:
    """Returns the network and the state before the first step, on every device of the mesh.

    Raises:
        ConfigError: `model.pretrained` cannot be loaded, or is another network's.
    """

    def create(key: jax.Array) -> nnx.Module:
        return models.from_config(config, num_classes=num_classes, rngs=nnx.Rngs(key))

    def init(key: jax.Array, ported: dict[str, jax.Array]) -> TrainState:
        _, *fresh = models.split(create(key))
        params, stats = (models.insert(ported, tree) for tree in fresh)
        ema = jax.tree.map(jnp.copy, params) if config.ema.decay else None
        return TrainState(jnp.int32(0), params, stats, optimizer.init(params), ema)

    key = stream(config.seed, Stream.INIT)
    network, _, _ = models.split(nnx.eval_shape(lambda: create(key)))
    ported = weights.pretrained(config, num_classes)
    return network, jax.jit(init, out_shardings=parallel.replicated(mesh))(key, ported)


def make_train_call(
    network: models.Network,
    optimizer: optax.GradientTransformation,
    config: ConfigDict,
    num_classes: int,
    mesh: Mesh,
) -> Callable[..., tuple[TrainState, metrics.Sums]]:
    """Returns the compiled function that makes one or several training steps.

    fn(state, images, labels, order, table, key, index, *, steps, batch_size) -> state, sums

    It starts at the epoch's step `index`: images uint8 [N, H, W, 3] and labels int32 [N] are the
    whole training set, order int32 [N] the epoch's permutation of it, table the optimizer's
    hyperparameters in the epoch (float32 [S] by name), key the run's stream for steps. Batches do
    not depend on `steps`. The state's buffers are donated.
    """
    prepare = batches.make_prepare(config, num_classes, mesh)
    loss_fn = make_loss(network, config)

    def train_step(state: TrainState, batch: tuple) -> tuple[TrainState, metrics.Sums]:
        images, targets, values, key = batch
        (_, (stats, sums)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.stats, images, targets, jax.random.fold_in(key, Use.DROPOUT)
        )
        state.opt_state.hyperparams.update(values)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if config.ema.decay:  # the first step's parameters start it, as torch's AveragedModel
            weight = jnp.where(state.step == 0, 1.0, 1 - config.ema.decay)
            ema = jax.tree.map(lambda mean, new: mean + weight * (new - mean), ema, params)
        return TrainState(state.step + 1, params, stats, opt_state, ema), sums

    @functools.partial(
        jax.jit,
        static_argnames=("steps", "batch_size"),
        donate_argnames="state",
        compiler_options=parallel.compiler_options(mesh),
        out_shardings=parallel.replicated(mesh),
    )
    def train_call(state, images, labels, order, table, key, index, *, steps, batch_size):
        start = index * config.batch_size
        rows = jax.lax.dynamic_slice_in_dim(order, start, steps * batch_size)
        rows = rows.reshape(steps, batch_size)
        values = {
            name: jax.lax.dynamic_slice_in_dim(column, index, steps)
            for name, column in table.items()
        }
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, state.step + jnp.arange(steps))
        chunk = (*prepare(images[rows], labels[rows], keys), values, keys)
        if steps == 1:  # no loop: XLA on the CPU runs convolutions inside one very slowly
            return train_step(state, jax.tree.map(lambda x: x[0], chunk))
        state, sums = jax.lax.scan(train_step, state, chunk)
        return state, jax.tree.map(lambda x: x.sum(0), sums)

    return train_call


def make_loss(network: models.Network, config: ConfigDict) -> Callable:
    """Returns fn(params, stats, images float32 [B, H, W, 3], targets float32 [B, C], key) ->
    (mean loss, (updated stats, metric sums)).
    """

    def loss_fn(params, stats, images, targets, key):
        logits, stats = models.apply_train(network, params, stats, images, key)
        each = losses.cross_entropy(logits, targets, config.loss.label_smoothing)
        return each.mean(), (stats, metrics.batch_sums(each, logits, targets))

    return loss_fn


def make_gradients(network: models.Network, config: ConfigDict, num_classes: int) -> Callable:
    """Returns fn(state, images, labels) -> the loss gradient at the state, as host arrays by
    parameter name, for the first batch_size rows of the training set, not augmented.
    """
    loss_fn = make_loss(network, config)
    size = config.batch_size

    @jax.jit
    def grad(state: TrainState, images: jax.Array, labels: jax.Array) -> models.Arrays:
        images = batches.normalise(images[:size], config)
        targets = jax.nn.one_hot(labels[:size], num_classes)
        key = stream(config.seed, Stream.STEP)
        return jax.grad(loss_fn, has_aux=True)(state.params, state.stats, images, targets, key)[0]

    def gradients(state: TrainState, images: jax.Array, labels: jax.Array) -> dict:
        leaves = models.flatten(grad(state, images, labels))
        return {name: np.asarray(leaf) for name, leaf in leaves.items()}

    return gradients
