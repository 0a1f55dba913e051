"""Noise: each value changes on its own.

Hendrycks & Dietterich 2019, arXiv:1903.12261; planes are float32 [3, H, W] in [0, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import poisson

from jaxcifar.corruptions.registry import corruption

_MAX_COUNT = 1024  # a power of two that no count reaches


@corruption(is_standard=True, constants={"sigma": (0.04, 0.06, 0.08, 0.09, 0.10)})
def gaussian_noise(key: jax.Array, planes: jax.Array, sigma: float) -> jax.Array:
    """Adds Gaussian noise."""
    return planes + sigma * jax.random.normal(key, planes.shape)


@corruption(is_standard=True, constants={"photons": (500.0, 250.0, 100.0, 75.0, 50.0)})
def shot_noise(key: jax.Array, planes: jax.Array, photons: float) -> jax.Array:
    """Draws each 8-bit value as a count of photons, Poisson distributed; white is `photons` of them
    on average.
    """
    # Not jax.random.poisson, whose rejections take thirty times as long: there are only 256 rates,
    # and so a table in which a binary search finds the count.
    rates = np.arange(256)[:, None] / 255 * photons
    at_most = jnp.cumsum(poisson.pmf(np.arange(_MAX_COUNT), rates), axis=1)
    at_most = (at_most / at_most[:, -1:]).ravel()  # exactly 1 at the end
    uniform = jax.random.uniform(key, planes.shape)
    first = jnp.round(planes * 255).astype(jnp.int32) * _MAX_COUNT
    count, step = jnp.zeros_like(first), _MAX_COUNT // 2
    while step:
        is_more = uniform >= at_most.at[first + count + step - 1].get(mode="promise_in_bounds")
        count, step = count + step * is_more, step // 2
    return count / photons


@corruption(is_standard=True, constants={"amount": (0.01, 0.02, 0.03, 0.05, 0.07)})
def impulse_noise(key: jax.Array, planes: jax.Array, amount: float) -> jax.Array:
    """Sets a share of the values to 0 or 1, each half the time: `skimage.util.random_noise`'s salt
    and pepper.
    """
    uniform = jax.random.uniform(key, planes.shape)
    # of the values below `amount`, those in the lower half are pepper
    return jnp.where(uniform < amount, uniform >= amount / 2, planes)


@corruption(constants={"sigma": (0.06, 0.10, 0.12, 0.16, 0.20)})
def speckle_noise(key: jax.Array, planes: jax.Array, sigma: float) -> jax.Array:
    """Adds Gaussian noise in proportion to the values."""
    return planes + planes * sigma * jax.random.normal(key, planes.shape)
