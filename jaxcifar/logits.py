"""The pass over images that every score comes from: uint8 images in, logits out, on the host."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcifar import batches, parallel
from jaxcifar.models import functional


def make_logits(
    graphdefs: functional.GraphDefs, config: ConfigDict, mesh: Mesh
) -> Callable[..., np.ndarray]:
    """Returns fn(params, stats, images, *, tta=False, on_batch=None) -> logits float32 [N, C].

    `images` are uint8 [N, H, W, 3], on the host or on every device; batches have
    `eval.batch_size` images. With `tta`, logits are means over an image and its mirror image. After
    every batch `on_batch(done, total)` is called with counts of images.
    """

    @functools.partial(
        jax.jit, static_argnames="tta", compiler_options=parallel.compiler_options(mesh)
    )
    def batch_logits(params, stats, images, *, tta):
        (images,) = parallel.split_batch(mesh, images)
        images = batches.normalize(images, config)
        logits = functional.apply_eval(graphdefs, params, stats, images)
        if tta:
            mirrored = images[:, :, ::-1]
            logits = (logits + functional.apply_eval(graphdefs, params, stats, mirrored)) / 2
        return logits

    def logits(params, stats, images, *, tta=False, on_batch=None) -> np.ndarray:
        total = len(images)
        size = min(config.eval.batch_size, total)
        parts = []
        for start in range(0, total, size):
            batch = images[start : start + size]
            missing = size - len(batch)
            if missing:  # one shape only: the last image again
                xp = jnp if isinstance(batch, jax.Array) else np
                batch = xp.concatenate([batch, xp.repeat(batch[-1:], missing, axis=0)])
            parts.append(batch_logits(params, stats, batch, tta=tta))
            if len(parts) > 1:  # while the device works on this batch
                parts[-2] = np.asarray(parts[-2])
            if on_batch:
                on_batch(min(start + size, total), total)
        return np.concatenate([np.asarray(part) for part in parts])[:total]

    return logits
