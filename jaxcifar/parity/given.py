"""What comparisons share, without PyTorch: images and weights that both sides are given, and how
our side is compiled.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np

from jaxcifar import config as config_lib
from jaxcifar import parallel


def draw_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Returns a float32 state dict of the named shapes, in PyTorch's layouts and the order of the
    sorted names; statistics differ from fresh ones, and activations keep about their size from
    layer to layer.
    """
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, shape in sorted(shapes.items()):
        if len(shape) > 1:  # a kernel, [out, in, ...]; a residual branch adds less than it gets
            bound = (3.0 / np.prod(shape[1:])) ** 0.5
            values = rng.uniform(-bound, bound, shape)
        elif name.endswith(("running_var", "weight")):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.uniform(-0.3, 0.3, shape)
        drawn[name] = values.astype(np.float32)
    return drawn


def pictures(height: int = 32, width: int = 36, seed: int = 0) -> np.ndarray:
    """Returns images uint8 [5, height, width, 3]: two of noise; two with what photographs have,
    smooth colors, an object with an edge, a texture and a little noise; one with few levels.
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (5, height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[0:height, 0:width] / height
    for image in images[2:4]:
        phases, turns = rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.5, 4, (2, 3))
        colors = 0.5 + 0.35 * np.sin(x[..., None] * turns[0] + y[..., None] * turns[1] + phases)
        disc = np.hypot(x - rng.uniform(0.3, 0.8), y - rng.uniform(0.3, 0.7)) < 0.25
        stripes = 0.15 * np.sin(40 * (x + y * rng.uniform(-1, 1)))
        colors[disc] = rng.uniform(0, 1, 3)
        colors += (disc * stripes)[..., None] + 0.03 * rng.normal(size=colors.shape)
        image[...] = np.round(255 * np.clip(colors, 0, 1))
    images[4] = 0
    images[4, ..., 0] = 77  # one level
    images[4, :, width // 2 :, 1] = 200  # two levels
    images[4, ..., 2] = rng.choice([3, 90, 91, 255], (height, width), p=[0.9, 0.05, 0.04, 0.01])
    return images


def unit_floats(images: np.ndarray) -> np.ndarray:
    """Returns uint8 images as float32 in [0, 1]."""
    return images / np.float32(255)


def jit(function: Callable, *, runs_briefly: bool = False) -> Callable:
    """Returns the function compiled as a program that runs once: quickly, to the same bits. One
    that `runs_briefly` is hardly optimized at all.
    """
    options = compiler_options()
    if runs_briefly and options:  # on a CPU
        options = dict.fromkeys(options, 0)
    return jax.jit(function, compiler_options=options)


@functools.cache
def compiler_options() -> dict[str, str | int | bool]:
    """Returns XLA's options for a program that runs once; starts JAX, with its cache of programs.

    Raises:
        ConfigError: JAX cannot start.
    """
    mesh = parallel.setup(config_lib.default())
    return parallel.compiler_options(mesh, run_once=True)
