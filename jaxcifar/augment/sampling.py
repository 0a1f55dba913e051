"""Conversion of uniform draws in [0, 1) to indices and values, shared by `transforms` and
`policies`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def uniform_to_index(uniform: jax.Array, count: int | jax.Array) -> jax.Array:
    """Turns uniform draws into indices from 0 to count - 1, int32."""
    return jnp.floor(uniform * count).astype(jnp.int32)


def uniform_to_range(uniform: jax.Array, low: float, high: float) -> jax.Array:
    """Turns uniform draws into draws from [low, high)."""
    return low + uniform * (high - low)


def as_range(value: float | Sequence[float], neutral: float) -> tuple[float, ...]:
    """Returns the range for a value: itself if a sequence, else (neutral - value, neutral +
    value), clipped at 0 for factors, whose neutral value is 1.
    """
    if isinstance(value, Sequence):
        return tuple(value)
    return (max(0.0, neutral - value) if neutral else -value, neutral + value)
