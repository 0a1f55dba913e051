"""Layers that start and behave as PyTorch's do."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx


def conv(
    in_features: int, out_features: int, *, size: int, rngs: nnx.Rngs, dtype: jnp.dtype
) -> nnx.Conv:
    """Returns a size×size convolution with PyTorch's `Conv2d` initialisation, zero-padded to
    keep height and width.
    """
    return nnx.Conv(
        in_features,
        out_features,
        (size, size),
        padding=size // 2,
        kernel_init=_torch_kernel_init,
        bias_init=_torch_bias_init(size * size * in_features),
        dtype=dtype,
        rngs=rngs,
    )


def linear(in_features: int, out_features: int, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> nnx.Linear:
    """Returns a fully connected layer with PyTorch's `Linear` initialisation."""
    return nnx.Linear(
        in_features,
        out_features,
        kernel_init=_torch_kernel_init,
        bias_init=_torch_bias_init(in_features),
        dtype=dtype,
        rngs=rngs,
    )


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Returns the 2×2 max-pool with stride 2 of [B, H, W, C], H and W even.

    Written as a reshape: on a CPU the backward pass of XLA's windowed maximum is several times
    slower. Where values of a window tie, this splits the gradient that PyTorch gives to the
    first; behind a ReLU that makes no difference, since what ties there is 0 and passes none.
    """
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


# PyTorch draws weights and biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)): `reset_parameters` of
# torch.nn.Linear and _ConvNd.
_torch_kernel_init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _torch_bias_init(fan_in: int) -> Callable[..., jax.Array]:
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
