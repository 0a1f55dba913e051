"""Validation during training: sums on the device, every image once, whatever the batch size."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcifar import batches, losses, metrics, parallel
from jaxcifar.models import functional


def make_evaluate(
    graphdefs: functional.GraphDefs, config: ConfigDict, mesh: Mesh
) -> Callable[..., tuple[float, float]]:
    """Returns fn(params, stats, images, labels, on_batch=None) -> (mean loss, accuracy in percent).

    `images` are uint8 [N, H, W, 3] and `labels` int32 [N], both on every device. After every batch
    `on_batch(done, total)` is called with counts of images.
    """

    def evaluate_batch(params, stats, images, labels, start, size):
        # The last batch reaches past the end: its padding rows repeat the last image with weight 0.
        rows = start + jnp.arange(size)
        weights = rows < len(labels)
        images, labels, weights = parallel.split_batch(
            mesh, images[rows], labels[rows], weights
        )  # an index past the end reads the last row
        images = batches.normalize(images, config)
        logits = functional.apply_eval(graphdefs, params, stats, images)
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        return metrics.batch_sums(losses.cross_entropy(logits, targets), logits, targets, weights)

    @functools.partial(
        jax.jit, static_argnames="size", compiler_options=parallel.compiler_options(mesh)
    )
    def evaluate_batches(params, stats, images, labels, starts, *, size):
        if len(starts) == 1:  # no loop: XLA on the CPU runs convolutions inside one very slowly
            return evaluate_batch(params, stats, images, labels, starts[0], size)
        sums = jax.lax.map(
            lambda start: evaluate_batch(params, stats, images, labels, start, size), starts
        )
        return jax.tree.map(lambda x: x.sum(0), sums)

    def evaluate(params, stats, images, labels, on_batch=None) -> tuple[float, float]:
        size = min(config.eval.batch_size, len(labels))
        starts = np.arange(0, len(labels), size, dtype=np.int32)
        # On a GPU all batches in one call: each costs the host as long as the device
        on_cpu = mesh.devices.flat[0].platform == "cpu"
        sums = []
        for part in np.split(starts, len(starts)) if on_cpu else [starts]:
            sums.append(evaluate_batches(params, stats, images, labels, part, size=size))
            if on_batch:
                on_batch(min(int(part[-1]) + size, len(labels)), len(labels))
        return metrics.loss_and_accuracy(functools.reduce(metrics.add, sums, {}))

    return evaluate
