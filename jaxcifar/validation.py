"""Validation during training: sums on the device, every image once, whatever the batch size."""

import concurrent.futures
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcifar import batches, losses, metrics, parallel
from jaxcifar.ahead import AheadOfTime
from jaxcifar.models import functional


class Evaluation:
    """The mean loss and accuracy of a network with any parameters, on images on the devices."""

    def __init__(self, graphdefs: functional.GraphDefs, config: ConfigDict, mesh: Mesh):
        """Compiles nothing yet."""
        self._batch_size = config.eval.batch_size
        # On a GPU all batches in one call: each costs the host as long as the device
        self._is_one_call = mesh.devices.flat[0].platform != "cpu"
        self._evaluate_batches = AheadOfTime(
            _make_evaluate_batches(graphdefs, config, mesh),
            static_argnames="size",
            compiler_options=parallel.compiler_options(mesh),
        )

    def start(
        self,
        executor: concurrent.futures.Executor,
        params: functional.Arrays,
        stats: functional.Arrays,
        images: jax.Array,
        labels: jax.Array,
    ) -> None:
        """Has what a call needs compiled by an executor, for such parameters and images."""
        size, calls = self._plan(len(labels))
        inputs = (params, stats, images, labels, calls[0])
        self._evaluate_batches.start(executor, *inputs, size=size)

    def __call__(
        self,
        params: functional.Arrays,
        stats: functional.Arrays,
        images: jax.Array,
        labels: jax.Array,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> tuple[float, float]:
        """Returns (mean loss, accuracy in percent).

        Args:
            params: the network's parameters, on every device.
            stats: its other state, likewise.
            images: uint8 [N, H, W, 3], likewise.
            labels: int32 [N], likewise.
            on_batch: called with (done, total) counts of images after every batch.
        """
        size, calls = self._plan(len(labels))
        sums = []
        for starts in calls:
            inputs = (params, stats, images, labels, starts)
            sums.append(self._evaluate_batches(*inputs, size=size))
            if on_batch:
                on_batch(min(int(starts[-1]) + size, len(labels)), len(labels))
        return metrics.loss_and_accuracy(functools.reduce(metrics.add, sums, {}))

    def _plan(self, num_images: int) -> tuple[int, list[np.ndarray]]:
        """Returns the batch size, and for each device call the first rows of its batches."""
        size = min(self._batch_size, num_images)
        starts = np.arange(0, num_images, size, dtype=np.int32)
        return size, [starts] if self._is_one_call else np.split(starts, len(starts))


def _make_evaluate_batches(
    graphdefs: functional.GraphDefs, config: ConfigDict, mesh: Mesh
) -> Callable[..., metrics.Sums]:
    """Returns fn(params, stats, images, labels, starts, *, size) -> the sums over the batches of
    `size` images from the rows `starts` on, int32 [batches]; to be jitted.
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

    def evaluate_batches(params, stats, images, labels, starts, *, size):
        if len(starts) == 1:  # no loop: XLA on the CPU runs convolutions inside one very slowly
            return evaluate_batch(params, stats, images, labels, starts[0], size)
        sums = jax.lax.map(
            lambda start: evaluate_batch(params, stats, images, labels, start, size), starts
        )
        return jax.tree.map(lambda x: x.sum(0), sums)

    return evaluate_batches
