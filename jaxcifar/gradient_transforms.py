"""Gradient transformations that round like PyTorch's; the optimizers are made of them.

optax's are used where they agree; each docstring says how these differ from optax's.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import optax


def add_decayed_weights(
    weight_decay: float, decay_norms_and_biases: bool
) -> optax.GradientTransformation:
    """Adds weight_decay · parameter to the gradient of every parameter, or only of those of rank 2
    and more.
    """
    mask = None if decay_norms_and_biases else partial(jax.tree.map, _is_weight)
    return optax.add_decayed_weights(weight_decay, mask)


def add_decoupled_weight_decay(
    lr: float, weight_decay: float, decay_norms_and_biases: bool
) -> optax.GradientTransformation:
    """Multiplies the parameters by 1 - lr · weight_decay, then adds the updates, and rounds in
    between as PyTorch does.

    In float32, 1 - lr · weight_decay is so close to 1 that rounding it changes the decay by
    percents; optax's sum drifts from PyTorch's parameters by 1e-5 of their size in 200 steps.
    Neither a fused multiply-add nor the sum outside changes what is rounded here: `decay` and the
    differences from `param` are exact.
    """
    decay = 1 - (1 - lr * weight_decay)  # what PyTorch decays by, after rounding

    def update_param(update: jax.Array, param: jax.Array) -> jax.Array:
        if not weight_decay or not (decay_norms_and_biases or _is_weight(param)):
            return update
        return (param - param * decay + update) - param

    return optax.stateless(lambda updates, params: jax.tree.map(update_param, updates, params))


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Clips like `torch.nn.utils.clip_grad_norm_`, including its 1e-6, which optax leaves out."""

    def clip(grads: optax.Updates, params: optax.Params | None) -> optax.Updates:
        factor = jnp.minimum(1.0, max_norm / (optax.tree.norm(grads) + 1e-6))
        return jax.tree.map(lambda grad: grad * factor, grads)

    return optax.stateless(clip)


def scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam's direction m̂ / (√v̂ + eps). optax computes 1 - b2^t in float32, where it cancels:
    over 200 steps that moves the parameters by up to 6e-6 of their size.
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
        bias_correction1 = -jnp.expm1(count * jnp.log(b1))  # 1 - b1^t
        bias_correction2 = -jnp.expm1(count * math.log(b2)) if b2 else 1.0
        direction = jax.tree.map(
            lambda m, v: m / bias_correction1 / (jnp.sqrt(v / bias_correction2) + eps), mu, nu
        )
        return direction, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _is_weight(param: jax.Array) -> bool:
    """Returns whether a parameter belongs to neither a norm nor a bias."""
    return param.ndim > 1
