"""Training: a run, from its config and work directory to its score on the test set."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxcifar import (
    corruption_benchmark,
    data,
    distributed,
    environment,
    errors,
    followers,
    metrics,
    parallel,
    scoring,
    seeds,
    step_metrics,
)
from jaxcifar.profiling import StepProfile
from jaxcifar.program import CallResult, Program
from jaxcifar.progress import DivergedError, Progress, SaveSchedule, check_finite
from jaxcifar.run import Run
from jaxcifar.run_schedule import RunSchedule
from jaxcifar.signals import Stopped, StopRequest, stop_signals
from jaxcifar.spec import ConfigError
from jaxcifar.step import TrainState
from jaxcifar.tracking import Tracker

__all__ = ["DivergedError", "train_and_evaluate", "train_run"]


def train_and_evaluate(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Trains as the config says, scores the best epoch's model on the test set, and returns the
    contents of the work directory's `summary.json`.

    If the work directory holds an unfinished run of this config, it is resumed; for a finished one
    the summary is returned. On SIGINT, SIGTERM or SIGHUP the state is saved, then KeyboardInterrupt
    or SystemExit(128 + the signal's number) is raised.

    Raises:
        ConfigError: the config or the data is not valid; the work directory holds another run, is
            in use, damaged, full or gone.
        DivergedError: the loss or the parameters became infinite or NaN.
    """
    with followers.claim(config, workdir) as run:
        return run.finished_summary() or train_run(run)


def train_run(
    run: Run, profile: StepProfile | None = None, shared: seeds.Shared | None = None
) -> dict[str, Any]:
    """Trains and scores a run that is not finished, or the runs of its seeds; see
    `train_and_evaluate`.

    Args:
        run: the claimed run.
        profile: told of every device call, to trace some (see `profiling`).
        shared: images and programs of an earlier run of the same config, used again if given.
    """
    profile, shared = profile or StepProfile(None), shared or seeds.Shared()
    train_one = functools.partial(_train_one, profile=profile, shared=shared)
    if run.config.num_seeds > 1:
        return seeds.train_seeds(run, train_one)
    return train_one(run)


def _train_one(run: Run, *, profile: StepProfile, shared: seeds.Shared) -> dict[str, Any]:
    with errors.machine(), stop_signals() as stop:
        try:
            training = _Training(run, stop, profile, shared)
            with contextlib.closing(training.program):
                return training.summary()
        except Stopped:
            distributed.wait_for_all()  # process 0 may still have been saving
            raise stop.exit_exception() from None


class _Training:
    """A run while it trains: the state that its methods share."""

    def __init__(self, run: Run, stop: StopRequest, profile: StepProfile, shared: seeds.Shared):
        """Loads the data; compiles nothing yet."""
        self.run, self.stop, self.config, self.profile = run, stop, run.config, profile
        self.has_started = False
        mesh = parallel.setup(run.config)
        self.environment = {**environment.describe(), "device": parallel.describe(mesh)}
        with distributed.together():
            read = shared.images or data.read(run.config)
            self.splits = data.split(run.config, read)
            notes = data.splits.notes(self.splits, read, run.config.batch_size)
            self.data_notes = [] if shared.images else notes
            shared.images = read
            self.benchmark = corruption_benchmark.open_benchmark(run.config, self.splits.test)
        followers.check_same_data(self.splits)
        stop.check()
        with distributed.together():
            self.program = shared.program = (
                shared.program.with_seed(run.config.seed, self.splits)
                if shared.program
                else Program(run.config, mesh, self.splits)
            )
        self.progress = run.progress or Progress(
            run.config.to_dict(),
            list(self.splits.train.class_names),
            self.splits.train.fingerprint(),
        )
        planned = self.progress.planned_epochs if run.config.schedule.extend == "hold" else None
        self.schedule = RunSchedule(run.config, self.program.steps_per_epoch, planned)
        self.checkpoints = followers.open_checkpoints(run)
        self.save_schedule = SaveSchedule(run.config, self._step)
        self.tracker = Tracker(run, self.progress, self.program.steps_per_epoch)

    def summary(self) -> dict[str, Any]:
        """Trains to the end, scores the best epoch, and returns the summary."""
        notes = self.data_notes + self.schedule.warnings()
        if not self.progress.is_finished(self.config):
            self.program.compile_ahead(self.schedule.epoch_values(0), first_only=True)
        with distributed.together():
            if self.run.progress:
                state = self._resume(notes)
            else:
                state = self.program.init()
                self.run.write_copies(self.progress)
            self.run.remove_summary()  # of a finished run that has grown
        state = distributed.share(state)  # only process 0 reads and writes checkpoints
        self.stop.check()
        with self.tracker, contextlib.closing(self.profile):
            self.tracker.log_start(state.num_params, self.environment["device"], self.splits, notes)
            with self.checkpoints:
                state = self._train(state)
                evaluation = self._score()
            if evaluation is None:
                self.tracker.info(
                    f"stopped; state saved in {self.run.directory}; run it again to resume"
                )
                self.stop.check()
            summary = self._finish(state, evaluation) if self.run.is_main else None
        return distributed.share_json(summary)

    def _resume(self, notes: list[str]) -> TrainState:
        """Returns the restored state; adds to the notes what to say about it."""
        progress = self.progress
        if progress.data_fingerprint != self.splits.train.fingerprint():
            raise ConfigError(
                f"the training images differ from those of the run in {str(self.run.directory)!r}; "
                "choose another work directory",
                command_hint="--fresh moves it aside and starts over",
            )
        template = self.program.abstract_state()
        state = self.checkpoints.restore_last(self.run.last, template, progress)
        notes.append(
            f"all {progress.epoch} epochs are done: scoring the best"
            if progress.is_finished(self.config)
            else f"resuming in epoch {progress.epoch + 1} after {progress.step_in_epoch} steps"
        )
        notes += filter(None, [self.schedule.resume(progress, self._step)])
        progress.config = self.config.to_dict()
        return state

    def _finish(self, state: TrainState, evaluation: dict[str, Any]) -> dict[str, Any]:
        """Writes and reports the scores; returns the summary."""
        summary = self.progress.summary() | scoring.headline(evaluation)
        summary |= {"num_params": state.num_params, **self.environment}
        self.run.write_summary(summary, evaluation)
        corruption_benchmark.forget_predictions(self.run.directory)

        from jaxcifar.report import finish  # lazy: a run should not wait for it at its start

        self.tracker.info(finish.write_for_run(self.run, self.splits.train, self.program.mesh))
        self.tracker.log_results(summary, evaluation)
        return summary

    # --- the loop ---------------------------------------------------------------------------------

    def _train(self, state: TrainState) -> TrainState:
        """Trains, validates and saves, epoch by epoch, until finished or told to stop."""
        while not self.progress.is_finished(self.config):
            state = self._train_epoch(state)
            started = time.perf_counter()
            validation = self._validate(state)
            if not validation:  # told to stop; a restart continues here
                self._save(state)
                return state
            record = self._end_epoch(*validation, time.perf_counter() - started)
            # Logged before the checkpoint that covers it, so that no log lacks an epoch after a
            # restart from that.
            self.tracker.log_epoch(record)
            if self.stop.agree(self.tracker.wants_histograms(self.progress.epoch)):
                arrays = self.program.histogram_arrays(state)
                self.tracker.log_histograms(self.progress.epoch, arrays)
            self._save_epoch(state)
        if self.progress.epoch < self.config.num_epochs:
            self.tracker.info(
                "stopped early: val_acc has not improved for "
                f"{self.progress.epoch - self.progress.best_epoch} epochs (raise "
                "early_stopping.patience to continue)"
            )
        return state

    def _train_epoch(self, state: TrainState) -> TrainState:
        """Runs the rest of the epoch, or until told to stop; updates the progress."""
        progress = self.progress
        hyperparameters = self.schedule.epoch_values(progress.epoch)
        started, images_before = time.perf_counter(), progress.num_images
        seconds_before = progress.train_seconds  # not 0 in an epoch that was resumed

        def read_metrics(call: CallResult) -> None:
            step_metrics.add_call(progress, call, hyperparameters["lr"], self.program)
            seconds = time.perf_counter() - started
            progress.train_seconds = seconds_before + seconds
            loss, accuracy = metrics.loss_and_accuracy(progress.sums)
            speed = (progress.num_images - images_before) / seconds
            self.tracker.update(progress.epoch + 1, self._step, loss, accuracy, speed)

        unread = None
        for call in self.program.train_epoch(
            state, progress.epoch, hyperparameters, progress.step_in_epoch
        ):
            if not self.has_started:
                self.has_started = True
                self.tracker.info(self.program.describe_memory())
                jax.block_until_ready(call.sums)
                seconds = time.perf_counter() - started
                self.tracker.info(f"compiled and ran the first step in {seconds:.1f} s")
                self.program.compile_ahead(hyperparameters)
            if unread:  # read while the device works on this call
                read_metrics(unread)
            steps_before = unread.step_in_epoch if unread else progress.step_in_epoch
            state, unread = call.state, call
            if note := self.profile.count(call.step_in_epoch - steps_before, call.sums):
                self.tracker.info(note)
            step = progress.epoch * self.program.steps_per_epoch + call.step_in_epoch
            is_last_call = call.step_in_epoch == self.program.steps_per_epoch
            is_due = self.stop.agree(self.save_schedule.is_due(step))
            if self.stop:
                break
            if is_due and not is_last_call:
                read_metrics(unread)
                unread = None
                self._save(state)
        if unread:
            read_metrics(unread)
        return state

    def _end_epoch(self, val_loss: float, val_acc: float, val_seconds: float) -> dict[str, float]:
        """Ends the epoch in the schedule and the progress; returns its record."""
        progress, epoch, step = self.progress, self.progress.epoch + 1, self._step
        if not progress.num_images:
            raise DivergedError(f"training diverged: every step of epoch {epoch} was skipped")
        train_loss, train_acc = metrics.loss_and_accuracy(progress.sums)
        lr = self.schedule.lr(epoch - 1, step - 1)
        check_finite(val_loss, "the validation loss is", epoch, step, lr)
        self.schedule.end_epoch(epoch, step, val_loss, val_acc)
        record = {
            "epoch": epoch,
            "step": step,
            "train_loss": train_loss,
            "train_acc": train_acc,
            "val_loss": val_loss,
            "val_acc": val_acc,
            "lr": self.schedule.lr(epoch, step),
            "seconds": progress.train_seconds + val_seconds,
            "images_per_second": progress.num_images / progress.train_seconds,
        }
        if self.config.optimizer.skip_nonfinite:
            record["skipped_steps"] = int(progress.sums["skipped_steps"])
        progress.end_epoch(record, self.schedule.state)
        return record

    # --- saving and scoring -----------------------------------------------------------------------

    def _save_epoch(self, state: TrainState) -> None:
        """Keeps or saves what the end of an epoch requires."""
        progress = self.progress
        is_due = (
            self.stop.agree(self.save_schedule.is_due(self._step, progress.epoch))
            or self.stop
            or progress.is_finished(self.config)
        )
        is_best = progress.best_epoch == progress.epoch
        if is_due or is_best:
            self._save(state, is_best=is_best, is_due=bool(is_due))

    def _save(self, state: TrainState, *, is_best: bool = False, is_due: bool = True) -> None:
        """Keeps a copy of the state as the best, saves it in the background, or both.

        Raises:
            DivergedError: the parameters are not finite.
        """
        copy, is_finite = self.program.snapshot(state)
        if not is_finite:
            lr = self.schedule.lr(self.progress.epoch, self._step)
            epoch = self.progress.epoch + (self.progress.step_in_epoch > 0)
            check_finite(np.nan, "the parameters or statistics are", epoch, self._step, lr)
        if is_best:
            self.checkpoints.keep_best(self._step, copy.model)
        if is_due:
            self.checkpoints.save(self._step, copy, self.progress)
            self.save_schedule.saved(self._step)

    def _score(self) -> dict[str, Any] | None:
        """Returns all scores of the best epoch's model, {} where process 0 has them; None if told
        to stop.
        """
        if self.stop:
            return None
        try:
            return self._score_best() if self.run.is_main else self.stop.follow() or {}
        except Stopped:
            return None

    def _score_best(self) -> dict[str, Any]:
        self.checkpoints.wait()  # a save that failed is reported now, not after scoring for hours
        best = self.checkpoints.best_model(self.program.abstract_state(), self.progress)
        compute = functools.partial(self.program.logits, best)
        version = (best, self.config.data.mean, self.config.data.std)
        places = (self.benchmark, self.run.directory)
        evaluation = scoring.evaluate(compute, version, self.splits, *places, self._on_batch)
        self.stop.agree(False)  # nothing more for the other processes to follow
        return {"checkpoint": "best", "tta": False} | evaluation

    def _validate(self, state: TrainState) -> tuple[float, float] | None:
        """Returns (mean loss, accuracy in percent) on the validation set; None if told to stop."""
        try:
            self.stop.check()
            return self.program.evaluate(state.model, "val", self._on_batch("validating"))
        except Stopped:
            return None

    def _on_batch(self, description: str) -> Callable[[int, int], None]:
        """Returns fn(done, total) that shows progress, and raises Stopped if told to stop."""
        show = self.tracker.evaluation_callback(description)

        def on_batch(done: int, total: int) -> None:
            show(done, total)
            self.stop.check()

        return on_batch

    @property
    def _step(self) -> int:
        return self.progress.step(self.program.steps_per_epoch)
