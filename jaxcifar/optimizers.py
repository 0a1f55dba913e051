"""PyTorch's optimizers as optax transformations."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def create(config: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer. Its hyperparameters `lr` and `momentum` (for Adam: beta1) are in its
    state, `state.hyperparams`, where every step sets them anew.

    sgd is `torch.optim.SGD`: the decay is added to the gradient, the momentum buffer is a running
    sum without dampening, the learning rate multiplies the buffer. adam is `torch.optim.Adam`
    (Kingma & Ba 2015), its decay added to the gradient too; adamw is `torch.optim.AdamW`
    (Loshchilov & Hutter 2019), which shrinks the parameters by lr · weight_decay instead. Gradients
    are clipped first of all, as `torch.nn.utils.clip_grad_norm_` does before the optimizer's step.
    """
    given = config.optimizer
    clip = _clip_by_global_norm(given.clip_norm) if given.clip_norm else optax.identity()
    mask = None if given.decay_norms_and_biases else partial(jax.tree.map, _is_weight)
    decay = optax.add_decayed_weights(given.weight_decay, mask)

    def sgd(lr: float, momentum: float) -> optax.GradientTransformation:
        plain = not given.momentum and config.schedule.name not in ("onecycle", "cyclic")
        buffer = optax.identity() if plain else optax.trace(momentum, nesterov=given.nesterov)
        return optax.chain(clip, decay, buffer, optax.scale_by_learning_rate(lr))

    def adam(lr: float, momentum: float) -> optax.GradientTransformation:
        scale = _scale_by_adam(momentum, given.b2, given.eps)
        return optax.chain(clip, decay, scale, optax.scale_by_learning_rate(lr))

    def adamw(lr: float, momentum: float) -> optax.GradientTransformation:
        scale = _scale_by_adam(momentum, given.b2, given.eps)
        shrink = _shrink(lr, given.weight_decay, given.decay_norms_and_biases)
        return optax.chain(clip, scale, optax.scale_by_learning_rate(lr), shrink)

    optimizer = {"sgd": sgd, "adam": adam, "adamw": adamw}[given.name]
    return optax.inject_hyperparams(optimizer)(lr=given.lr, momentum=momentum(config))


def momentum(config: ConfigDict) -> float:
    """Returns the config's momentum, which is beta1 for Adam."""
    return config.optimizer.momentum if config.optimizer.name == "sgd" else config.optimizer.b1


def _is_weight(param: jax.Array) -> bool:
    """Returns whether a parameter is neither of a norm nor a bias."""
    return param.ndim > 1


def _shrink(lr: float, weight_decay: float, all_parameters: bool) -> optax.GradientTransformation:
    """Multiplies the parameters by 1 - lr · weight_decay, then adds the updates, and rounds in
    between as PyTorch does.

    In float32 that product is close enough to 1 for its rounding to change the decay by percents,
    so optax's sum of both would part from PyTorch's parameters by 1e-5 of their size in 200 steps.
    Written so that neither a fused multiply-add nor the sum outside changes what is rounded:
    `lost` and the differences from `param` are exact.
    """
    lost = 1 - (1 - lr * weight_decay)

    def shrink(update: jax.Array, param: jax.Array) -> jax.Array:
        return update if not decayed(param) else (param - param * lost + update) - param

    def decayed(param: jax.Array) -> bool:
        return weight_decay > 0 and (all_parameters or _is_weight(param))

    return optax.stateless(lambda updates, params: jax.tree.map(shrink, updates, params))


def _clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """`torch.nn.utils.clip_grad_norm_`; optax's own leaves out the 1e-6."""

    def clip(grads: optax.Updates, params: optax.Params | None) -> optax.Updates:
        factor = jnp.minimum(1.0, max_norm / (optax.tree.norm(grads) + 1e-6))
        return jax.tree.map(lambda grad: grad * factor, grads)

    return optax.stateless(clip)


def _scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam's direction m̂ / (√v̂ + eps). optax's own takes 1 - b2^t in float32, which cancels: over
    200 steps that moves the parameters by up to 6e-6 of their size.
    """

    def init(params: optax.Params) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.int32(0), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(
        grads: optax.Updates, state: optax.ScaleByAdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: m + (1 - b1) * (g - m), state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
        left1 = -jnp.expm1(count * jnp.log(b1))  # 1 - b1^t
        left2 = -jnp.expm1(count * math.log(b2)) if b2 else 1.0
        direction = jax.tree.map(lambda m, v: m / left1 / (jnp.sqrt(v / left2) + eps), mu, nu)
        return direction, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)
