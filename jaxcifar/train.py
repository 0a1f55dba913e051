"""Training: a run, from claiming its work directory to its score on the test set."""

import contextlib
import importlib.metadata
import pathlib
import platform
import signal
import statistics
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxcifar import __version__, data, metrics, parallel
from jaxcifar.checkpoint import Checkpoints
from jaxcifar.program import Call, Program
from jaxcifar.progress import DivergedError, Progress, check_finite
from jaxcifar.run import Run
from jaxcifar.run_schedule import RunSchedule
from jaxcifar.signals import stop_signals
from jaxcifar.spec import ConfigError
from jaxcifar.step import TrainState
from jaxcifar.tracking import Tracker

__all__ = ["DivergedError", "train", "train_and_evaluate"]


def train_and_evaluate(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Trains as the config says, scores the best epoch's model on the test set, and returns the
    contents of the work directory's `summary.json`.

    If the work directory holds an unfinished run of this config it is resumed; of a finished one
    the summary is returned. On SIGINT or SIGTERM the state is saved, then KeyboardInterrupt or
    SystemExit(143) is raised.

    Raises:
        ConfigError: the config or the data is not valid, or the work directory holds another run.
        DivergedError: the loss became infinite or NaN.
    """
    run = Run.claim(config, workdir)
    return run.finished_summary() or train(run)


def train(run: Run) -> dict[str, Any]:
    """Trains a run that is not finished, and returns its summary; see `train_and_evaluate`."""
    config = run.config
    mesh = parallel.setup(config)
    splits = data.load(config)
    program = Program(config, mesh, splits)
    schedule = RunSchedule(config, program.steps_per_epoch)
    checkpoints = Checkpoints(run.directory / "checkpoints", config.checkpoint.keep)
    fingerprint = splits.train.fingerprint()
    state, progress = program.init(), Progress(fingerprint, config.num_epochs)
    restored = checkpoints.restore_last(state)
    if restored:
        state, progress = restored
        _check_images(run, progress, fingerprint)
        schedule.restore(progress.schedule_memory)

    num_steps = config.num_epochs * program.steps_per_epoch
    tracker = Tracker(run, epochs_done=progress.epoch, num_steps=num_steps)
    with contextlib.closing(checkpoints), tracker:
        _introduce(run, tracker, program, splits, state)
        for line in run.warnings + schedule.warnings():
            tracker.info(line)
        if restored:
            _introduce_resumed(tracker, schedule, progress)
            progress.num_epochs = config.num_epochs
        run.remove_summary()

        with stop_signals() as stop:
            state = _train_epochs(
                config, program, schedule, state, progress, checkpoints, tracker, stop
            )
        if stop:
            _leave(run, checkpoints, tracker, stop[0])
        if progress.epoch < config.num_epochs:
            tracker.info(
                f"stopped early: no better val_acc for {progress.epoch - progress.best_epoch} "
                "epochs (a larger early_stopping.patience would continue)"
            )

        best_model, _ = checkpoints.restore_best(state.model)
        test_loss, test_acc = program.evaluate(best_model, "test", tracker.evaluating("testing"))
        summary = _summarize(run, program, progress, state, test_loss, test_acc)
        run.write_summary(summary)
        tracker.log_summary(summary)
    return summary


def _train_epochs(
    config: ConfigDict,
    program: Program,
    schedule: RunSchedule,
    state: TrainState,
    progress: Progress,
    checkpoints: Checkpoints,
    tracker: Tracker,
    stop: list[signal.Signals],
) -> TrainState:
    """Trains, validates and saves, epoch by epoch, until the run is finished or told to stop;
    updates `progress`.
    """
    while not stop and not progress.is_finished(config):
        started = time.perf_counter()
        images_before = progress.sums.get("count", 0)
        state = _train_epoch(program, schedule, state, progress, tracker, stop)
        train_seconds = time.perf_counter() - started
        step = progress.epoch * program.steps_per_epoch + progress.step_in_epoch
        if progress.step_in_epoch < program.steps_per_epoch:  # told to stop
            progress.seconds += train_seconds
            checkpoints.save_last(step, state, progress)
            break

        epoch = progress.epoch + 1
        val_loss, val_acc = program.evaluate(state.model, "val", tracker.evaluating("validating"))
        check_finite(val_loss, "validation", epoch, step, schedule.lr(epoch - 1, step - 1))
        schedule.end_epoch(epoch, step, val_loss, val_acc)
        train_loss, train_acc = metrics.mean(progress.sums)
        record = {
            "epoch": epoch,
            "step": step,
            "train_loss": train_loss,
            "train_acc": train_acc,
            "val_loss": val_loss,
            "val_acc": val_acc,
            "lr": schedule.lr(epoch, step),
            "seconds": progress.seconds + time.perf_counter() - started,
            "images_per_second": (progress.sums["count"] - images_before) / train_seconds,
        }
        is_best = progress.end_epoch(val_acc, schedule.memory)
        if is_best:  # before `last`, whose progress refers to it
            checkpoints.save_best(step, state.model, progress)
        is_due = epoch % config.checkpoint.every_epochs == 0
        if is_due or stop or progress.is_finished(config):
            checkpoints.save_last(step, state, progress)
        tracker.log_epoch(record)
        if tracker.wants_histograms(epoch):
            tracker.log_histograms(epoch, program.gradients(state))
    return state


def _check_images(run: Run, progress: Progress, fingerprint: str) -> None:
    if progress.data_fingerprint != fingerprint:
        raise ConfigError(
            f"the training images are not those of the run in {str(run.directory)!r}; choose "
            "another work directory",
            command_hint="--fresh moves it aside and starts over",
        )


def _introduce(
    run: Run, tracker: Tracker, program: Program, splits: data.Splits, state: TrainState
) -> None:
    tracker.info(
        f"{run.config.model.name}, {_num_params(state):,} parameters, on "
        f"{parallel.describe(program.mesh)}; images: {len(splits.train):,} train, "
        f"{len(splits.val):,} validation, {len(splits.test):,} test; work directory {run.directory}"
    )


def _introduce_resumed(tracker: Tracker, schedule: RunSchedule, progress: Progress) -> None:
    step = progress.epoch * schedule.steps_per_epoch + progress.step_in_epoch
    tracker.info(f"resuming in epoch {progress.epoch + 1} after {progress.step_in_epoch} steps")
    if change := schedule.describe_extension(progress.num_epochs, progress.epoch, step):
        tracker.info(change)


def _train_epoch(
    program: Program,
    schedule: RunSchedule,
    state: TrainState,
    progress: Progress,
    tracker: Tracker,
    stop: list[signal.Signals],
) -> TrainState:
    """Makes the steps that the epoch has left, or those until a signal; updates `progress`."""
    values = schedule.epoch_values(progress.epoch)
    first_step = progress.epoch * program.steps_per_epoch
    started, images_before = time.perf_counter(), progress.sums.get("count", 0)

    def read(call: Call) -> None:
        progress.sums = metrics.add(progress.sums, call.sums)
        progress.step_in_epoch = call.step_in_epoch
        loss, accuracy = metrics.mean(progress.sums)
        epoch, step = progress.epoch + 1, first_step + call.step_in_epoch
        check_finite(loss, "training", epoch, step, values["lr"][call.step_in_epoch - 1])
        images_per_second = (progress.sums["count"] - images_before) / (
            time.perf_counter() - started
        )
        tracker.update(epoch, step, loss, accuracy, images_per_second)

    last_call = None
    for call in program.train_epoch(state, progress.epoch, values, progress.step_in_epoch):
        if program.num_calls == 1:
            tracker.info(program.describe_memory())
            jax.block_until_ready(call.sums)
            seconds = time.perf_counter() - started
            tracker.info(f"compiled and made the first step in {seconds:.1f} s")
        if last_call:  # read it while the device works on this one
            read(last_call)
        last_call = call
        if stop:
            break
    read(last_call)
    return last_call.state


def _leave(run: Run, checkpoints: Checkpoints, tracker: Tracker, received: signal.Signals) -> None:
    """Waits for the checkpoints and raises what ends the process."""
    checkpoints.close()
    tracker.info(f"stopped; saved in {run.directory}; starting the run again goes on from here")
    raise KeyboardInterrupt if received == signal.SIGINT else SystemExit(128 + received)


def _summarize(
    run: Run,
    program: Program,
    progress: Progress,
    state: TrainState,
    test_loss: float,
    test_acc: float,
) -> dict[str, Any]:
    records = run.records()
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
    versions = {"jaxcifar": __version__, "python": platform.python_version()}
    return {
        "best_epoch": progress.best_epoch,
        "best_val_acc": progress.best_val_acc,
        "test_acc": test_acc,
        "test_loss": test_loss,
        "num_params": _num_params(state),
        "images_per_second": statistics.median(r["images_per_second"] for r in records),
        "wall_seconds": sum(r["seconds"] for r in records),
        "versions": versions | {name: importlib.metadata.version(name) for name in packages},
        "device": parallel.describe(program.mesh),
    }


def _num_params(state: TrainState) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))
