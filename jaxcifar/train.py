"""Training: the loop around the step, with all that a run reads, writes and says."""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import pathlib
import platform
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcifar import (
    __version__,
    data,
    evaluate,
    hyperparameters,
    metrics,
    models,
    optimizers,
    parallel,
)
from jaxcifar import config as config_lib
from jaxcifar import step as step_lib
from jaxcifar import workdir as workdir_lib
from jaxcifar.checkpoint import Checkpoints
from jaxcifar.config import ConfigError
from jaxcifar.rng import Stream, stream
from jaxcifar.step import TrainState
from jaxcifar.tracking import Tracker


class DivergedError(RuntimeError):
    """The loss is no longer a finite number."""


@dataclasses.dataclass
class Progress:
    """Where a run stands, beside its TrainState; saved with it as JSON."""

    data: str  # the training images' fingerprint
    epoch: int = 0  # epochs done
    index: int = 0  # steps done of the epoch after them
    totals: dict[str, float] = dataclasses.field(default_factory=dict)  # metrics' sums over these
    seconds: float = 0.0  # spent on these
    best_epoch: int = 0
    best_val_acc: float = -1.0
    num_epochs: int = 0  # that the run was to make
    plateau: dict[str, Any] = dataclasses.field(default_factory=dict)  # schedule 'plateau' alone


def train_and_evaluate(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Trains as the config says, scores the best epoch's model on the test set, and returns the
    contents of the work directory's `summary.json`.

    A run that the work directory holds unfinished is resumed; of a finished one the summary is
    returned. On SIGINT or SIGTERM the state is saved, then KeyboardInterrupt or SystemExit(143)
    is raised.

    Raises:
        ConfigError: the config or the data is not valid, or the work directory holds another run.
        DivergedError: the loss became infinite or NaN.
    """
    config_lib.validate(config)
    directory = pathlib.Path(workdir)
    workdir_lib.claim(config, directory)
    if summary := workdir_lib.finished_summary(config, directory):
        return summary

    # Data, once onto every device
    mesh = parallel.setup(config)
    splits = data.load(config)
    parallel.check_fits(mesh, sum(part.images.nbytes for part in splits))
    train, val, test = (
        jax.device_put((part.images, part.labels), parallel.replicated(mesh)) for part in splits
    )
    steps_per_epoch = math.ceil(len(splits.train) / config.batch_size)

    # The model, its state, and where the run stands
    optimizer = optimizers.create(config)
    num_classes = len(splits.train.class_names)
    network, state = step_lib.init_state(config, optimizer, num_classes, mesh)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    fingerprint = splits.train.fingerprint()
    progress = Progress(data=fingerprint, num_epochs=config.num_epochs)
    schedule = hyperparameters.create(config, steps_per_epoch)
    checkpoints = Checkpoints(directory / "checkpoints", config.checkpoint.keep)
    restored = checkpoints.restore_last(state)
    if restored:
        state, progress = restored[0], Progress(**restored[1])
        if progress.data != fingerprint:
            raise ConfigError(
                f"the training images are not those of the run in {str(directory)!r}; "
                "choose another --workdir, or --fresh to start over"
            )
    evaluate_fn = evaluate.make_evaluate(network, config, mesh)
    tracker = Tracker(
        directory,
        config,
        epochs_done=progress.epoch,
        steps=config.num_epochs * steps_per_epoch,
    )
    with contextlib.closing(checkpoints), tracker:
        tracker.say(
            f"{config.model.name}, {num_params:,} parameters, on {_device()}; images: "
            f"{len(splits.train):,} train, {len(splits.val):,} validation, "
            f"{len(splits.test):,} test; work directory {directory}"
        )
        for note in hyperparameters.notes(config, schedule):
            tracker.say(note)
        if restored:
            step = progress.epoch * steps_per_epoch + progress.index
            number = hyperparameters.interval(config, progress.epoch, step)
            tracker.say(f"resuming in epoch {progress.epoch + 1} after {progress.index} steps")
            if said := hyperparameters.extension(
                config, steps_per_epoch, progress.num_epochs, number
            ):
                tracker.say(said)
            progress.num_epochs = config.num_epochs

        # The loop
        train_epoch = make_train_epoch(
            network, optimizer, config, num_classes, mesh, train, tracker
        )
        gradients = step_lib.make_gradients(network, config, num_classes)
        (directory / "summary.json").unlink(missing_ok=True)  # it speaks of a finished run
        with _stop_signals() as stop:
            while not stop and not workdir_lib.is_finished(
                config, progress.epoch, progress.best_epoch
            ):
                started = time.perf_counter()
                images_before = progress.totals.get("count", 0)
                schedule = hyperparameters.create(config, steps_per_epoch, progress.plateau)
                table = hyperparameters.tabulate(config, schedule, progress.epoch, steps_per_epoch)
                state = train_epoch(state, progress, table, stop)
                step = progress.epoch * steps_per_epoch + progress.index
                train_seconds = time.perf_counter() - started
                if progress.index < steps_per_epoch:  # told to stop
                    progress.seconds += train_seconds
                    checkpoints.save_last(step, state, dataclasses.asdict(progress))
                    break

                train_loss, train_acc = metrics.mean(progress.totals)
                val_loss, val_acc = evaluate_fn(**state.model, images=val[0], labels=val[1])
                _check_finite(val_loss, "validation", progress.epoch + 1, step, table["lr"][-1])
                number = hyperparameters.interval(config, progress.epoch + 1, step)
                plateau = hyperparameters.after_epoch(
                    config, progress.plateau, number, val_loss, val_acc
                )
                schedule = hyperparameters.create(config, steps_per_epoch, plateau)
                images = progress.totals["count"] - images_before
                record = {
                    "epoch": progress.epoch + 1,
                    "step": step,
                    "train_loss": train_loss,
                    "train_acc": train_acc,
                    "val_loss": val_loss,
                    "val_acc": val_acc,
                    "lr": schedule["lr"](number),
                    "seconds": progress.seconds + time.perf_counter() - started,
                    "images_per_second": images / train_seconds,
                }
                better = val_acc > progress.best_val_acc
                progress = Progress(
                    data=progress.data,
                    epoch=progress.epoch + 1,
                    best_epoch=progress.epoch + 1 if better else progress.best_epoch,
                    best_val_acc=val_acc if better else progress.best_val_acc,
                    num_epochs=config.num_epochs,
                    plateau=plateau,
                )
                if better:
                    checkpoints.save_best(step, state.model, dataclasses.asdict(progress))
                due = progress.epoch % config.checkpoint.every_epochs == 0
                last = workdir_lib.is_finished(config, progress.epoch, progress.best_epoch)
                if due or stop or last:
                    checkpoints.save_last(step, state, dataclasses.asdict(progress))
                tracker.log_epoch(record)
                every = config.wandb.histogram_every
                if every and progress.epoch % every == 0 and tracker.wants_histograms:
                    tracker.log_histograms(progress.epoch, gradients(state, *train))
        if stop:
            checkpoints.close()
            tracker.say(f"stopped; saved in {directory}; the same command goes on from here")
            raise KeyboardInterrupt if stop[0] == signal.SIGINT else SystemExit(128 + stop[0])

        if progress.epoch < config.num_epochs:
            tracker.say(
                f"stopped early: no better val_acc for {progress.epoch - progress.best_epoch} "
                "epochs (a larger --config.early_stopping.patience goes on from here)"
            )

        # The best epoch's model, on the test set
        best, _ = checkpoints.restore_best(state.model)
        test_loss, test_acc = evaluate_fn(**best, images=test[0], labels=test[1])
        records = workdir_lib.records(directory)
        summary = {
            "best_epoch": progress.best_epoch,
            "best_val_acc": progress.best_val_acc,
            "test_acc": test_acc,
            "test_loss": test_loss,
            "num_params": num_params,
            "images_per_second": statistics.median(r["images_per_second"] for r in records),
            "wall_seconds": sum(r["seconds"] for r in records),
            "versions": _versions(),
            "device": _device(),
        }
        (directory / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        tracker.log_summary(summary)
    return summary


def make_train_epoch(
    network: models.Network,
    optimizer: optax.GradientTransformation,
    config: ConfigDict,
    num_classes: int,
    mesh: Mesh,
    train: tuple[jax.Array, jax.Array],
    tracker: Tracker,
) -> Callable[..., TrainState]:
    """Returns fn(state, progress, table, stop) -> state, which trains to the end of the epoch.

    It begins after `progress.index` steps, adds to `progress` what it makes, and returns early,
    between two device calls, when `stop` becomes true. `table`: the optimizer's hyperparameters
    by name, float32 [steps in the epoch] each.
    """
    images, labels = train
    train_call = step_lib.make_train_call(network, optimizer, config, num_classes, mesh)
    shuffle = jax.jit(
        lambda key: jax.random.permutation(key, len(labels)),
        out_shardings=parallel.replicated(mesh),
    )
    shuffle_key, step_key = (stream(config.seed, s) for s in (Stream.SHUFFLE, Stream.STEP))
    full_steps = len(labels) // config.batch_size
    steps_per_call = config.steps_per_call or choose_steps_per_call(
        full_steps, jax.default_backend()
    )

    programs: dict[tuple[int, int], jax.stages.Compiled] = {}  # by steps and batch size
    is_first = True

    def train_epoch(
        state: TrainState, progress: Progress, table: dict[str, np.ndarray], stop: list
    ) -> TrainState:
        nonlocal is_first
        order = shuffle(jax.random.fold_in(shuffle_key, progress.epoch))
        started, images_before = time.perf_counter(), progress.totals.get("count", 0)
        first_step = progress.epoch * len(table["lr"])
        pending = None

        def read(sums: metrics.Sums, index: int) -> None:
            progress.totals = metrics.add(progress.totals, sums)
            loss, accuracy = metrics.mean(progress.totals)
            step = first_step + index
            _check_finite(loss, "training", progress.epoch + 1, step, table["lr"][index - 1])
            made = progress.totals["count"] - images_before
            speed = made / (time.perf_counter() - started)
            tracker.update(progress.epoch + 1, step, loss, accuracy, speed)

        for index, steps, size in plan(
            len(labels), config.batch_size, steps_per_call, progress.index
        ):
            inputs = (state, images, labels, order, table, step_key, index)
            if (steps, size) not in programs:
                lowered = train_call.lower(*inputs, steps=steps, batch_size=size)
                programs[steps, size] = lowered.compile()
            state, sums = programs[steps, size](*inputs)
            if pending:  # read the call before, while the device works on this one
                read(pending, index)
            pending = sums
            if is_first:
                is_first = False
                tracker.say(_memory(programs[steps, size], images.nbytes))
                jax.block_until_ready(sums)
                seconds = time.perf_counter() - started
                tracker.say(f"compiled and made the first step in {seconds:.1f} s")
            progress.index = index + steps
            if stop:
                break
        read(pending, progress.index)
        return state

    return train_epoch


def choose_steps_per_call(full_steps: int, platform: str) -> int:
    """Returns how many of an epoch's full steps one device call makes.

    On a CPU 1: XLA runs convolutions inside a loop very slowly there. Elsewhere up to 64, so that
    the host is out of the way; a divisor, where there is one above 15, to compile one length only.
    """
    if platform == "cpu":
        return 1
    divisors = [n for n in range(16, 65) if full_steps % n == 0]
    return max(divisors, default=64)


def plan(
    num_images: int, batch_size: int, steps_per_call: int, index: int = 0
) -> Iterator[tuple[int, int, int]]:
    """Yields an epoch's device calls as (index of the first step, steps, batch size), beginning
    at step `index`. The images left over at the end make a last, smaller batch.
    """
    full, rest = divmod(num_images, batch_size)
    while index < full:
        steps = min(steps_per_call, full - index)
        yield index, steps, batch_size
        index += steps
    if rest and index == full:
        yield index, 1, rest


def _memory(program: jax.stages.Compiled, data_bytes: int) -> str:
    """Returns what a training program needs of each device's memory, in words."""
    found = program.memory_analysis()
    data, inputs, temporary = (
        size / 1e6 for size in (data_bytes, found.argument_size_in_bytes, found.temp_size_in_bytes)
    )
    return (
        f"memory on each device: {data:,.0f} MB training images, {inputs - data:,.0f} MB state, "
        f"{temporary:,.0f} MB for a step"
    )


def _check_finite(loss: float, which: str, epoch: int, step: int, lr: float) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"training diverged: the {which} loss is {loss} in epoch {epoch}, step {step}, at "
            f"learning rate {lr:.3g}; try a smaller --config.optimizer.lr, or a warm-up"
        )


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Yields a list that SIGINT and SIGTERM append their number to, so that the loop can save and
    leave. A second one acts at once.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may handle signals
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def catch(number: int, frame: Any) -> None:
        caught.append(number)
        restore()

    for number in previous:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        restore()


def _device() -> str:
    return f"{jax.device_count()} × {jax.devices()[0].device_kind}"


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"jaxcifar": __version__, "python": platform.python_version()} | found
