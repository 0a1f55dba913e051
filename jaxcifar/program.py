"""The compiled functions of a config: init, train an epoch, evaluate, gradients by parameter.

A `Program` holds the data on the devices and everything that XLA compiles, and nothing of a run:
no files, no progress, no reports. Training loops over it, and so does the benchmark.
"""

import concurrent.futures
import copy
import functools
import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcifar import batches, logits, metrics, models, optimizers, parallel, pretrained, validation
from jaxcifar import step as step_lib
from jaxcifar.ahead import AheadOfTime
from jaxcifar.data import Splits
from jaxcifar.models import functional
from jaxcifar.rng import Stream, stream
from jaxcifar.step import TrainState


class CallResult(NamedTuple):
    """What a device call of an epoch returns."""

    state: TrainState
    step_in_epoch: int  # steps of the epoch done after it
    sums: metrics.Sums  # of its steps, each [steps], still on the device


class Program:
    """The compiled functions of a config on its data."""

    def __init__(self, config: ConfigDict, mesh: Mesh, splits: Splits):
        """Puts the data on every device of the mesh. Nothing is compiled before its first use.

        Raises:
            ConfigError: the data does not fit on the devices.
        """
        parallel.check_fits(mesh, sum(part.images.nbytes for part in splits))
        self.config, self.mesh = config, mesh
        self.class_names = splits.train.class_names
        self.num_classes = len(self.class_names)
        self.steps_per_epoch = math.ceil(len(splits.train) / config.batch_size)
        self._replicated = parallel.replicated(mesh)
        self._put(splits)
        self.optimizer = optimizers.create(config)
        abstract_model = nnx.eval_shape(lambda: self._create(jax.random.key(0)))
        self.graphdefs, _, _ = functional.split(abstract_model)
        self._train_call = AheadOfTime(
            step_lib.make_train_call(
                self.graphdefs, self.optimizer, config, self.num_classes, mesh
            ),
            static_argnames=("steps", "batch_size"),
            donate_argnames="state",
            compiler_options=parallel.compiler_options(mesh),
            out_shardings=self._replicated,
        )
        self._snapshot = jax.jit(step_lib.snapshot, out_shardings=self._replicated)
        self._init_call = jax.jit(
            self._init,
            out_shardings=self._replicated,
            compiler_options=parallel.compiler_options(mesh, run_once=True),
        )
        self._executor = concurrent.futures.ThreadPoolExecutor(1)
        self._logits = logits.Logits(self.graphdefs, config, mesh.local_mesh)
        self._evaluate = validation.Evaluation(self.graphdefs, config, mesh)

    def with_seed(self, seed: int, splits: Splits) -> "Program":
        """Returns the program of the same config but for its seed, on its own split of the same
        images. What is compiled is shared; this program's own splits are deleted.
        """
        other = copy.copy(self)
        other.config = copy.deepcopy(self.config)
        other.config.seed = seed
        for array in jax.tree.leaves(self._data):
            array.delete()
        other._put(splits)
        other._executor = concurrent.futures.ThreadPoolExecutor(1)
        return other

    def init(self) -> TrainState:
        """Returns the state before the first step, with pretrained weights where the config names
        some, on every device.

        Raises:
            ConfigError: `model.pretrained` cannot be loaded, or belongs to another network.
        """
        arrays = pretrained.load(self.config, self.class_names)
        return self._init_call(self._stream(Stream.INIT), arrays)

    def abstract_state(self) -> TrainState:
        """Returns the shapes, dtypes and shardings of a state (`jax.ShapeDtypeStruct`s)."""
        state = jax.eval_shape(self._init, self._stream(Stream.INIT), {})
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._replicated), state
        )

    def compile_ahead(
        self, hyperparameters: dict[str, np.ndarray], *, first_only: bool = False
    ) -> None:
        """Starts to compile what a run needs in the background, in the order of need: an epoch's
        calls, validation, logits of the test images. After `close` nothing more is.

        Args:
            hyperparameters: as for `train_epoch`, of any epoch.
            first_only: only the epoch's first call, which should not wait for the others.
        """
        state = self.abstract_state()
        images, labels = self._data["train"]
        order = jax.ShapeDtypeStruct(labels.shape, np.int32, sharding=self._replicated)
        inputs = (state, images, labels, order, hyperparameters, self._stream(Stream.STEP), 0)
        calls = plan_calls(len(labels), self.config.batch_size, self._steps_per_call)
        for _, steps, batch_size in calls:
            self._train_call.start(self._executor, *inputs, steps=steps, batch_size=batch_size)
            if first_only:
                return
        images, labels = self._data["val"]
        self._evaluate.start(self._executor, **state.model, images=images, labels=labels)
        if self._replicated.is_fully_addressable:  # else process 0 compiles that when it scores
            self._logits.start(self._executor, **state.model, images=self._data["test"][0])

    def close(self) -> None:
        """Ends compiling ahead: what has not begun is left out."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def train_epoch(
        self,
        state: TrainState,
        epoch: int,
        hyperparameters: dict[str, np.ndarray],
        first_step: int = 0,
    ) -> Iterator[CallResult]:
        """Trains to the end of an epoch, and yields after each device call is dispatched.

        States are donated: each is invalid after the next call.

        Args:
            state: the current state.
            epoch: index of the epoch, from 0.
            hyperparameters: the optimizer's, float32 [steps_per_epoch] by name.
            first_step: number of the epoch's steps already done.
        """
        images, labels = self._data["train"]
        order = self.epoch_order(epoch)
        step_key = self._stream(Stream.STEP)
        calls = plan_calls(len(labels), self.config.batch_size, self._steps_per_call, first_step)
        for index, steps, batch_size in calls:
            inputs = (state, images, labels, order, hyperparameters, step_key, index)
            state, sums = self._train_call(*inputs, steps=steps, batch_size=batch_size)
            yield CallResult(state, index + steps, sums)

    def snapshot(self, state: TrainState) -> tuple[TrainState, bool]:
        """Returns a copy of a state that the next device call does not donate, and whether its
        parameters and statistics are finite.
        """
        copy, is_finite = self._snapshot(state)
        return copy, bool(is_finite)

    def epoch_order(self, epoch: int) -> jax.Array:
        """Returns the order of the training images in an epoch (from 0), int32 [N]."""
        return self._shuffle(jax.random.fold_in(self._stream(Stream.SHUFFLE), epoch))

    def evaluate(
        self,
        model: dict[str, functional.Arrays],
        split: Literal["train", "val", "test"],
        on_batch: Callable[[int, int], None] | None = None,
    ) -> tuple[float, float]:
        """Returns (mean loss, accuracy in percent) of a `TrainState.model` on a split.

        After every batch `on_batch(done, total)` is called with counts of images.
        """
        images, labels = self._data[split]
        return self._evaluate(**model, images=images, labels=labels, on_batch=on_batch)

    def logits(
        self,
        model: dict[str, functional.Arrays],
        images: np.ndarray,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Returns a `TrainState.model`'s logits for uint8 images [N, H, W, 3], float32 [N,
        num_classes]; `on_batch` as in `evaluate`. Only this process's devices compute them.
        """
        model = parallel.to_local(self.mesh, model)
        return self._logits(**model, images=images, on_batch=on_batch)

    def histogram_arrays(self, state: TrainState) -> dict[str, np.ndarray]:
        """Returns every parameter, as `parameters/<name>`, and the gradient of the loss by it, as
        `gradients/<name>`, for the first batch_size training images, not augmented. Arrays that are
        not finite have no histogram and are left out.
        """
        images, labels = self._data["train"]
        gradients = self._gradients(state, images, labels, self._stream(Stream.STEP))
        trees = {"gradients": gradients, "parameters": state.params}
        return {
            f"{kind}/{name}": np.asarray(leaf)
            for kind, tree in trees.items()
            for name, leaf in functional.flatten(tree).items()
            if np.isfinite(leaf).all()
        }

    def is_batch_finite(self, epoch: int, step_in_epoch: int) -> bool:
        """Returns whether the images of a step, augmented, normalized and mixed, are finite; to
        find out why its loss is not.

        Args:
            epoch: index of the epoch, from 0.
            step_in_epoch: index of the step in it, from 0.
        """
        images, labels = self._data["train"]
        size = self.config.batch_size
        rows = self.epoch_order(epoch)[step_in_epoch * size : (step_in_epoch + 1) * size]
        step = epoch * self.steps_per_epoch + step_in_epoch
        key = jax.random.fold_in(self._stream(Stream.STEP), step)
        prepare = batches.make_prepare_batches(self.config, self.num_classes, self.mesh)
        prepare = jax.jit(prepare, out_shardings=self._replicated)
        prepared, _ = prepare(images[rows][None], labels[rows][None], key[None])
        return bool(np.isfinite(prepared).all())

    def train_programs(self) -> list[jax.stages.Compiled]:
        """Returns the training programs that have been compiled."""
        return self._train_call.programs()

    def describe_memory(self) -> str:
        """Returns what the largest compiled training program needs of each device's memory."""
        analyses = [program.memory_analysis() for program in self.train_programs()]
        analysis = max(analyses, key=lambda a: a.temp_size_in_bytes)
        data_bytes = self._data["train"][0].nbytes
        data, state, temporary = (
            size / 1e6
            for size in (
                data_bytes,
                analysis.argument_size_in_bytes - data_bytes,
                analysis.temp_size_in_bytes,
            )
        )
        return (
            f"memory on each device: {data:,.0f} MB training images, {state:,.0f} MB state, "
            f"{temporary:,.0f} MB for a step"
        )

    @property
    def _steps_per_call(self) -> int:
        full_steps = len(self._data["train"][1]) // self.config.batch_size
        platform = self.mesh.devices.flat[0].platform
        return self.config.steps_per_call or choose_steps_per_call(full_steps, platform)

    def _put(self, splits: Splits) -> None:
        self._data = {
            name: parallel.put((part.images, part.labels), self._replicated)
            for name, part in splits._asdict().items()
        }

    def _init(self, key: jax.Array, pretrained_arrays: dict[str, jax.Array]) -> TrainState:
        _, *arrays = functional.split(self._create(key))
        params, stats = (functional.insert(pretrained_arrays, tree) for tree in arrays)
        return step_lib.init_state(params, stats, self.optimizer, self.config)

    def _create(self, key: jax.Array) -> nnx.Module:
        return models.from_config(self.config, num_classes=self.num_classes, rngs=nnx.Rngs(key))

    def _stream(self, which: Stream) -> jax.Array:
        return stream(self.config.seed, which)

    @functools.cached_property
    def _shuffle(self) -> Callable[[jax.Array], jax.Array]:
        num_images = len(self._data["train"][1])
        return jax.jit(
            lambda key: jax.random.permutation(key, num_images), out_shardings=self._replicated
        )

    @functools.cached_property
    def _gradients(self) -> Callable:
        loss_fn = step_lib.make_loss(self.graphdefs, self.config)
        size = self.config.batch_size

        @functools.partial(jax.jit, out_shardings=self._replicated)
        def gradients(state: TrainState, images: jax.Array, labels: jax.Array, key: jax.Array):
            images = batches.normalize(images[:size], self.config)
            targets = jax.nn.one_hot(labels[:size], self.num_classes)
            grad_fn = jax.grad(loss_fn, has_aux=True)
            return grad_fn(state.params, state.stats, images, targets, key)[0]

        return gradients


def choose_steps_per_call(full_steps: int, platform: str) -> int:
    """Returns how many of an epoch's full steps one device call makes.

    On a CPU 1: see `step`. Elsewhere up to 64, to hide the host's overhead; a divisor of at least
    16 if there is one, to compile one length only.
    """
    if platform == "cpu":
        return 1
    divisors = [n for n in range(16, 65) if full_steps % n == 0]
    return max(divisors, default=64)


def plan_calls(
    num_images: int, batch_size: int, steps_per_call: int, first_step: int = 0
) -> Iterator[tuple[int, int, int]]:
    """Yields an epoch's device calls as (index of the first step, steps, batch size), from the
    step `first_step` on. The images left over at the end make a last, smaller batch.
    """
    num_full, rest = divmod(num_images, batch_size)
    index = first_step
    while index < num_full:
        steps = min(steps_per_call, num_full - index)
        yield index, steps, batch_size
        index += steps
    if rest and index == num_full:
        yield index, 1, rest
