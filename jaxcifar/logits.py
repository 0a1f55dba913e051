"""The pass over images that every score comes from: uint8 images in, logits out, on the host."""

import concurrent.futures
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcifar import batches, parallel
from jaxcifar.ahead import AheadOfTime
from jaxcifar.models import functional


class Logits:
    """The logits of a network with any parameters, in batches of `eval.batch_size` images."""

    def __init__(self, graphdefs: functional.GraphDefs, config: ConfigDict, mesh: Mesh):
        """Compiles nothing yet."""

        def batch_logits(params, stats, images, *, tta):
            (images,) = parallel.split_batch(mesh, images)
            images = batches.normalize(images, config)
            logits = functional.apply_eval(graphdefs, params, stats, images)
            if tta:
                mirrored = images[:, :, ::-1]
                logits = (logits + functional.apply_eval(graphdefs, params, stats, mirrored)) / 2
            return logits

        self._batch_size = config.eval.batch_size
        options = parallel.compiler_options(mesh)
        self._batch_logits = AheadOfTime(
            batch_logits, static_argnames="tta", compiler_options=options
        )

    def start(
        self,
        executor: concurrent.futures.Executor,
        params: functional.Arrays,
        stats: functional.Arrays,
        images: np.ndarray,
    ) -> None:
        """Has what a call without `tta` needs compiled by an executor, for such parameters and
        images.
        """
        shape = min(self._batch_size, len(images)), *images.shape[1:]
        batch = jax.ShapeDtypeStruct(shape, images.dtype)
        self._batch_logits.start(executor, params, stats, batch, tta=False)

    def __call__(
        self,
        params: functional.Arrays,
        stats: functional.Arrays,
        images: np.ndarray,
        *,
        tta: bool = False,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Returns the logits, float32 [N, num_classes].

        Args:
            params: the network's parameters.
            stats: its other state.
            images: uint8 [N, H, W, 3], on the host or on every device.
            tta: whether logits are means over an image and its mirror image.
            on_batch: called with (done, total) counts of images after every batch.
        """
        total = len(images)
        size = min(self._batch_size, total)
        parts = []
        for start in range(0, total, size):
            batch = images[start : start + size]
            missing = size - len(batch)
            if missing:  # one shape only: the last image again
                xp = jnp if isinstance(batch, jax.Array) else np
                batch = xp.concatenate([batch, xp.repeat(batch[-1:], missing, axis=0)])
            parts.append(self._batch_logits(params, stats, batch, tta=tta))
            if len(parts) > 1:  # while the device works on this batch
                parts[-2] = np.asarray(parts[-2])
            if on_batch:
                on_batch(min(start + size, total), total)
        return np.concatenate([np.asarray(part) for part in parts])[:total]
