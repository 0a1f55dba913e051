"""The training step: its state, and the pure functions that make one or several steps. They are
jitted in `program`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcifar import batches, losses, metrics
from jaxcifar.models import functional
from jaxcifar.rng import Use


class TrainState(NamedTuple):
    """Everything on the device that training changes."""

    step: jax.Array  # int32 scalar: the number of steps done
    params: functional.Arrays
    stats: functional.Arrays
    opt_state: optax.OptState
    ema: functional.Arrays | None = None  # the parameters' moving average, if ema.decay is set

    @property
    def model(self) -> dict[str, functional.Arrays]:
        """The part that is the trained model: what is evaluated, kept as the best and scored."""
        return {"params": self.ema or self.params, "stats": self.stats}

    @property
    def num_params(self) -> int:
        """The number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))


def init_state(
    params: functional.Arrays,
    stats: functional.Arrays,
    optimizer: optax.GradientTransformation,
    config: ConfigDict,
) -> TrainState:
    """Returns the state before the first step."""
    ema = jax.tree.map(jnp.copy, params) if config.ema.decay else None
    return TrainState(jnp.int32(0), params, stats, optimizer.init(params), ema)


def make_train_call(
    graphdefs: functional.GraphDefs,
    optimizer: optax.GradientTransformation,
    config: ConfigDict,
    num_classes: int,
    mesh: Mesh,
) -> Callable[..., tuple[TrainState, metrics.Sums]]:
    """Returns fn(state, images, labels, order, hyperparameters, key, index, *, steps, batch_size)
    -> state, metrics of the steps, each [steps]: what one device call does, to be jitted.

    It makes `steps` training steps, beginning at the epoch's step `index`: images uint8
    [N, H, W, 3] and labels int32 [N] are the whole training set, order int32 [N] the epoch's
    permutation of it, hyperparameters the optimizer's in this epoch (float32 [steps_per_epoch] by
    name), key the step stream's. Batches do not depend on `steps`.
    """
    prepare = batches.make_prepare_batches(config, num_classes, mesh)
    train_step = make_train_step(graphdefs, optimizer, config)

    def train_call(state, images, labels, order, hyperparameters, key, index, *, steps, batch_size):
        rows = jax.lax.dynamic_slice_in_dim(order, index * config.batch_size, steps * batch_size)
        rows = rows.reshape(steps, batch_size)
        values = {
            name: jax.lax.dynamic_slice_in_dim(column, index, steps)
            for name, column in hyperparameters.items()
        }
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, state.step + jnp.arange(steps))
        chunk = (*prepare(images[rows], labels[rows], keys), values, keys)
        if steps == 1:  # no loop: XLA on the CPU runs convolutions inside one very slowly
            state, sums = train_step(state, jax.tree.map(lambda x: x[0], chunk))
            return state, jax.tree.map(lambda x: x[None], sums)
        return jax.lax.scan(train_step, state, chunk)

    return train_call


def make_train_step(
    graphdefs: functional.GraphDefs, optimizer: optax.GradientTransformation, config: ConfigDict
) -> Callable[[TrainState, tuple], tuple[TrainState, metrics.Sums]]:
    """Returns fn(state, (images, targets, hyperparameters, key)) -> state, metric sums: one step,
    on a prepared batch.

    The sums have a "grad_norm" where the step computes one: with optimizer.clip_norm or
    optimizer.skip_nonfinite. With the latter, a step with a loss or a gradient that is not finite
    changes nothing but the step's number, and counts only in "skipped_steps".
    """
    skips = config.optimizer.skip_nonfinite > 0
    loss_fn = make_loss(graphdefs, config)

    def train_step(state: TrainState, batch: tuple) -> tuple[TrainState, metrics.Sums]:
        images, targets, hyperparameters, key = batch
        (loss, (stats, sums)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.stats, images, targets, jax.random.fold_in(key, Use.DROPOUT)
        )
        opt_state = state.opt_state
        opt_state = opt_state._replace(hyperparams=opt_state.hyperparams | hyperparameters)
        updates, opt_state = optimizer.update(grads, opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if config.ema.decay:  # starts from the first step's parameters, like AveragedModel
            weight = jnp.where(state.step == 0, 1.0, 1 - config.ema.decay)
            ema = jax.tree.map(lambda mean, new: mean + weight * (new - mean), ema, params)
        new = TrainState(state.step + 1, params, stats, opt_state, ema)
        if skips or config.optimizer.clip_norm:
            grad_norm = optax.tree.norm(grads)
        if skips:
            is_finite = jnp.isfinite(grad_norm) & jnp.isfinite(loss)
            kept = state._replace(step=new.step), jax.tree.map(jnp.zeros_like, sums)
            new, sums = jax.tree.map(lambda *x: jnp.where(is_finite, *x), (new, sums), kept)
            sums["skipped_steps"] = 1.0 - is_finite
        if skips or config.optimizer.clip_norm:
            sums["grad_norm"] = grad_norm
        return new, sums

    return train_step


def snapshot(state: TrainState) -> tuple[TrainState, jax.Array]:
    """Returns a copy of a state, which outlives the next step's donation, and whether its
    parameters and statistics are finite; to be jitted.
    """
    leaves = [x for x in jax.tree.leaves(state.model) if jnp.issubdtype(x.dtype, jnp.floating)]
    is_finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
    return jax.tree.map(jnp.copy, state), is_finite


def make_loss(graphdefs: functional.GraphDefs, config: ConfigDict) -> Callable:
    """Returns fn(params, stats, images float32 [B, H, W, 3], targets float32 [B, C], key) ->
    (mean loss, (updated stats, metric sums)). The images may be several views of B, one view after
    another: the first is classified, and loss.consistency draws the predictions together.
    """

    def loss_fn(params, stats, images, targets, key):
        logits, stats = functional.apply_train(graphdefs, params, stats, images, key)
        views = jnp.split(logits, len(logits) // len(targets))
        logits = views[0]
        per_example_loss = losses.cross_entropy(logits, targets, config.loss.label_smoothing)
        if len(views) > 1:
            per_example_loss += config.loss.consistency * losses.jensen_shannon(views)
        sums = metrics.batch_sums(per_example_loss, logits, targets)
        return per_example_loss.mean(), (stats, sums)

    return loss_fn
