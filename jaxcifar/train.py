"""Training: a run, from its config and work directory to its score on the test set."""

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
from jaxcifar.program import CallResult, Program
from jaxcifar.progress import DivergedError, Progress, check_finite
from jaxcifar.run import Run
from jaxcifar.run_schedule import RunSchedule
from jaxcifar.signals import StopRequest, stop_signals
from jaxcifar.spec import ConfigError
from jaxcifar.step import TrainState
from jaxcifar.tracking import Tracker

__all__ = ["DivergedError", "train_and_evaluate", "train_run"]


def train_and_evaluate(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Trains as the config says, scores the best epoch's model on the test set, and returns the
    contents of the work directory's `summary.json`.

    If the work directory holds an unfinished run of this config, it is resumed; for a finished one
    the summary is returned. On SIGINT or SIGTERM the state is saved, then KeyboardInterrupt or
    SystemExit(143) is raised.

    Raises:
        ConfigError: the config or the data is not valid, or the work directory holds another run.
        DivergedError: the loss became infinite or NaN.
    """
    run = Run.claim(config, workdir)
    return run.finished_summary() or train_run(run)


def train_run(run: Run) -> dict[str, Any]:
    """Starts or resumes a run that is not finished, scores its best epoch on the test set, writes
    the summary and returns it; see `train_and_evaluate`.
    """
    config = run.config
    mesh = parallel.setup(config)
    splits = data.load(config)
    program = Program(config, mesh, splits)
    schedule = RunSchedule(config, program.steps_per_epoch)
    fingerprint = splits.train.fingerprint()
    checkpoints = Checkpoints(run.directory / "checkpoints", config.checkpoint.keep)
    with contextlib.closing(checkpoints):
        restored = checkpoints.restore_last(program.abstract_state())
        if restored:
            state, progress = restored
            _check_same_images(run, progress, fingerprint)
            schedule.restore(progress.schedule_state)
        else:
            state, progress = program.init(), Progress(fingerprint, config.num_epochs)
        run.drop_records_after(progress.epoch)

        with Tracker(run, num_steps=config.num_epochs * program.steps_per_epoch) as tracker:
            _log_start(run, tracker, program, schedule, splits, state)
            if restored:
                _log_resume(tracker, schedule, progress)
            progress.num_epochs = config.num_epochs  # which may have grown
            run.remove_summary()  # of a finished run that has grown

            state, stop = _train_epochs(
                run, program, schedule, state, progress, checkpoints, tracker
            )
            if stop:
                checkpoints.close()
                tracker.info(f"stopped; state saved in {run.directory}; run it again to resume")
                raise _exit_exception(stop.signal)

            best_model, _ = checkpoints.restore_best(state.model)
            test_loss, test_acc = program.evaluate(
                best_model, "test", tracker.evaluation_callback("testing")
            )
            summary = _summarize(run, program, progress, state, test_loss, test_acc)
            run.write_summary(summary)
            tracker.log_summary(summary)
    return summary


def _train_epochs(
    run: Run,
    program: Program,
    schedule: RunSchedule,
    state: TrainState,
    progress: Progress,
    checkpoints: Checkpoints,
    tracker: Tracker,
) -> tuple[TrainState, StopRequest]:
    """Trains, validates and saves, epoch by epoch, until the run is finished or told to stop;
    updates `progress`.
    """
    with stop_signals() as stop:
        while not stop and not progress.is_finished(run.config):
            started = time.perf_counter()
            images_before = progress.num_images  # not 0 in an epoch that was resumed
            state = _train_epoch(program, schedule, state, progress, tracker, stop)
            train_seconds = time.perf_counter() - started
            step = progress.step(program.steps_per_epoch)
            if progress.step_in_epoch < program.steps_per_epoch:  # told to stop
                progress.seconds += train_seconds
                checkpoints.save_last(step, state, progress)
                break

            epoch = progress.epoch + 1
            val_loss, val_acc = program.evaluate(
                state.model, "val", tracker.evaluation_callback("validating")
            )
            check_finite(val_loss, "validation", epoch, step, schedule.lr(epoch - 1, step - 1))
            schedule.end_epoch(epoch, step, val_loss, val_acc)
            train_loss, train_acc = metrics.loss_and_accuracy(progress.sums)
            record = {
                "epoch": epoch,
                "step": step,
                "train_loss": train_loss,
                "train_acc": train_acc,
                "val_loss": val_loss,
                "val_acc": val_acc,
                "lr": schedule.lr(epoch, step),
                "seconds": progress.seconds + time.perf_counter() - started,
                "images_per_second": (progress.num_images - images_before) / train_seconds,
            }
            is_best = progress.end_epoch(val_acc, schedule.state)
            if is_best:  # save before `last`, which refers to it
                checkpoints.save_best(step, state.model, progress)
            is_due = epoch % run.config.checkpoint.every_epochs == 0
            if is_due or stop or progress.is_finished(run.config):
                checkpoints.save_last(step, state, progress)
            tracker.log_epoch(record)
            if tracker.wants_histograms(epoch):
                tracker.log_histograms(epoch, program.gradients(state))
    if not stop and progress.epoch < run.config.num_epochs:
        tracker.info(
            f"stopped early: val_acc has not improved for {progress.epoch - progress.best_epoch} "
            "epochs (raise early_stopping.patience to continue)"
        )
    return state, stop


def _train_epoch(
    program: Program,
    schedule: RunSchedule,
    state: TrainState,
    progress: Progress,
    tracker: Tracker,
    stop: StopRequest,
) -> TrainState:
    """Runs the rest of the epoch, or until a signal; updates `progress`."""
    hyperparameters = schedule.epoch_values(progress.epoch)
    started, images_before = time.perf_counter(), progress.num_images
    is_first_call = not program.is_compiled

    def record(call: CallResult) -> None:
        progress.sums = metrics.add(progress.sums, call.sums)
        progress.step_in_epoch = call.step_in_epoch
        loss, accuracy = metrics.loss_and_accuracy(progress.sums)
        epoch, step = progress.epoch + 1, progress.step(program.steps_per_epoch)
        lr = hyperparameters["lr"][call.step_in_epoch - 1]
        check_finite(loss, "training", epoch, step, lr)
        seconds = time.perf_counter() - started
        speed = (progress.num_images - images_before) / seconds
        tracker.update(epoch, step, loss, accuracy, speed)

    last_call = None
    for call in program.train_epoch(state, progress.epoch, hyperparameters, progress.step_in_epoch):
        if is_first_call:
            is_first_call = False
            tracker.info(program.describe_memory())
            jax.block_until_ready(call.sums)
            seconds = time.perf_counter() - started
            tracker.info(f"compiled and ran the first step in {seconds:.1f} s")
        if last_call:  # read its metrics while the device works on this call
            record(last_call)
        last_call = call
        if stop:
            break
    record(last_call)
    return last_call.state


def _check_same_images(run: Run, progress: Progress, fingerprint: str) -> None:
    if progress.data_fingerprint != fingerprint:
        raise ConfigError(
            f"the training images differ from those of the run in {str(run.directory)!r}; choose "
            "another work directory",
            command_hint="--fresh moves it aside and starts over",
        )


def _log_start(
    run: Run,
    tracker: Tracker,
    program: Program,
    schedule: RunSchedule,
    splits: data.Splits,
    state: TrainState,
) -> None:
    tracker.info(
        f"{run.config.model.name}, {_num_params(state):,} parameters, on "
        f"{parallel.describe(program.mesh)}; images: {len(splits.train):,} train, "
        f"{len(splits.val):,} validation, {len(splits.test):,} test; work directory {run.directory}"
    )
    for line in schedule.warnings():
        tracker.info(line)


def _log_resume(tracker: Tracker, schedule: RunSchedule, progress: Progress) -> None:
    step = progress.step(schedule.steps_per_epoch)
    tracker.info(f"resuming in epoch {progress.epoch + 1} after {progress.step_in_epoch} steps")
    if change := schedule.describe_extension(progress.num_epochs, progress.epoch, step):
        tracker.info(change)


def _exit_exception(received: signal.Signals) -> BaseException:
    """Returns what ends a process as the signal would have."""
    return KeyboardInterrupt() if received == signal.SIGINT else SystemExit(128 + received)


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
