"""The run's independent random streams, derived from its seed with fold_in.

Within a stream, the epoch, or the step and then the row, is folded in. So a
batch does not depend on how the run got there, and nothing random needs saving.
"""

import enum

import jax


class Stream(enum.IntEnum):
    """What a stream of randomness is for; the numbers are part of a run's identity."""

    INIT = 0  # the initial parameters
    SPLIT = 1  # train / validation
    LIMIT = 2  # data.limit's draw
    SHUFFLE = 3  # an epoch's order; fold in the epoch
    STEP = 4  # a step's; fold in the step, then its Use
    CORRUPT = 5  # corrupted test images; fold in the corruption, the severity and the row
    TEST_SPLIT = 6  # test images, where a dataset has only training images


class Use(enum.IntEnum):
    """What a step's randomness is for; folded into the step's key."""

    DROPOUT = 0
    AUGMENT = 1  # fold in the row
    MIX = 2


def stream(seed: int, which: Stream) -> jax.Array:
    """Returns the key of one stream of the run with this seed."""
    return jax.random.fold_in(jax.random.key(seed), which)
