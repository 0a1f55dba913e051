"""The workers of a sweep on this machine: threads that each run one trial after another."""

import functools
import pathlib
import threading
from collections.abc import Callable, Sequence

import optuna
from ml_collections import ConfigDict
from optuna.trial import FrozenTrial, TrialState

from jaxcifar import config as config_lib
from jaxcifar.spec import ConfigError
from jaxcifar.sweep import devices, spaces, training
from jaxcifar.sweep import study as study_lib
from jaxcifar.sweep.owner import Owner
from jaxcifar.sweep.spaces import Space
from jaxcifar.sweep.training import Result

IDLE_SECONDS = 1.0
MAX_FAILURES = 3  # in a row, after which the cause is not the trial
MAX_INVALID = 50  # in a row


class _FailedTrial(Exception):
    """A trial is recorded as failed; the sweep goes on."""


class _InterruptedTrial(Exception):
    """A trial is to be repeated."""


class Workers:
    """Threads that run trials until the study has enough of them."""

    def __init__(
        self,
        study: optuna.Study,
        config: ConfigDict,
        searched: dict[str, Space],
        flags: Sequence[str],
        directory: pathlib.Path,
        num_trials: int,
        report: Callable[[str], None] = print,
    ):
        """Starts nothing yet.

        Args:
            study: from `open_study`.
            config: the config.
            searched: the spaces by key.
            flags: the training command's flags that make the config.
            directory: the sweep's directory, in which trials have their work directories.
            num_trials: how many finished trials the study should have.
            report: shows a line.
        """
        self._study, self._config, self._spaces = study, config, searched
        self._flags, self._directory, self._num_trials = list(flags), directory, num_trials
        self._report = report
        self._owner = Owner(directory / "processes")
        self._asking = threading.Lock()  # held while it is decided whether a trial starts
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._num_failures = self._num_invalid = 0
        self._has_crashed = False
        self.error: Exception | None = None  # why the workers stopped early
        self.has_news = threading.Event()  # a trial has ended

    def start(self, count: int) -> None:
        """Starts that many workers."""
        for index in range(count):
            variables = devices.environment(index, count)
            thread = threading.Thread(target=self._work, args=(variables,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Has the running trials saved, and queued for the next start."""
        self._stopping.set()

    def is_alive(self) -> bool:
        """Returns whether any worker is still at work."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        """Waits until all workers have ended."""
        for thread in self._threads:
            thread.join()

    def release(self) -> None:
        """Tells other processes on this machine that these workers have ended."""
        self._owner.release(is_done=not (self._has_crashed or self.is_alive()))

    def _work(self, variables: dict[str, str]) -> None:
        try:
            with study_lib.storage_errors():
                while not self._stopping.is_set() and self._start_trial(variables) is not None:
                    pass
        except Exception as error:
            self._has_crashed = True  # its trial may be recorded as running
            self.error = self.error or error
            self._stopping.set()

    def _start_trial(self, variables: dict[str, str]) -> bool | None:
        """Runs a trial if one is due; returns whether it has, None if the study has enough."""
        self._asking.acquire()
        asking = _Release(self._asking)
        try:
            study_lib.recover(self._study, self._owner.is_dead)
            trials = study_lib.latest(self._study)
            statuses = [study_lib.status(trial) for trial in trials]
            num_running = statuses.count("running")
            num_waiting = statuses.count("waiting") + statuses.count("interrupted")
            num_missing = self._num_trials - study_lib.num_finished(self._study)
            if num_missing <= 0 and not num_waiting:
                return None
            if "waiting" not in statuses and num_missing - num_running - num_waiting <= 0:
                asking.release()  # what is running may still fail or die
                self._stopping.wait(IDLE_SECONDS)
                return False
            objective = functools.partial(self._objective, asking, variables)
            try:
                self._study.optimize(objective, n_trials=1, catch=(_FailedTrial,))
            except _InterruptedTrial as interrupted:
                (number,) = interrupted.args
                study_lib.repeat(self._study, self._frozen(number))
        finally:
            asking.release()
        self.has_news.set()
        return True

    def _objective(
        self, asking: "_Release", variables: dict[str, str], trial: optuna.Trial
    ) -> float:
        """Trains; returns the best validation accuracy in percent."""
        try:
            trial.set_user_attr(study_lib.OWNER, self._owner.name)
            values = {key: space.suggest(trial) for key, space in self._spaces.items()}
        finally:
            asking.release()
        frozen = self._frozen(trial.number)
        number = study_lib.origin(frozen)
        if study_lib.is_repeated(self._study, frozen):
            self._settle(trial, study_lib.REPEATED, f"it repeats trial {number}")
            raise _FailedTrial
        shown = ", ".join(f"{key}={spaces.to_text(value)}" for key, value in values.items())
        verb = "resumed" if study_lib.attempts(frozen) > 1 else "started"
        try:
            config = spaces.with_values(self._config, values)
            config_lib.validate(config)
        except ConfigError as error:
            self._report(f"trial {number}: not valid ({error}): {shown}")
            self._count_invalid(error)
            self._settle(trial, study_lib.INVALID, str(error))
            raise optuna.TrialPruned from None
        self._report(f"trial {number} {verb}: {shown}")
        flags = [f"--config.{key}={spaces.to_text(value)}" for key, value in values.items()]
        result = training.train(
            # A trial is judged by its validation accuracy: scoring corruptions would be wasted
            [*self._flags, *flags, "--config.eval.ood_dir="],
            self._directory / f"trial-{number}",
            variables,
            functools.partial(self._on_epoch, trial, number, config.num_epochs),
            self._stopping.is_set,
        )
        return self._end(trial, frozen, result)

    def _on_epoch(
        self, trial: optuna.Trial, number: int, num_epochs: int, epoch: int, accuracy: float
    ) -> bool:
        """Reports an epoch; returns whether the trial is to be pruned. The config itself is not,
        so that there is something to compare with.
        """
        trial.report(accuracy, epoch)
        return number != 0 and epoch < num_epochs and trial.should_prune()

    def _end(self, trial: optuna.Trial, frozen: FrozenTrial, result: Result) -> float:
        """Records how a trial ended; returns its value, or raises what Optuna is to record."""
        number, name = study_lib.origin(frozen), f"trial {study_lib.origin(frozen)}"
        if result.status == "complete":
            best = study_lib.best(self._study)
            if best is None or best.value < result.value:
                note = "the best so far"
            else:
                note = f"best so far {best.value:.2f}%, trial {study_lib.origin(best)}"
            self._report(f"{name}: validation accuracy {result.value:.2f}% ({note})")
            self._num_failures = self._num_invalid = 0
            return result.value
        if result.status in ("pruned", "diverged"):
            epochs = self._frozen(trial.number).intermediate_values
            if result.status == "diverged":
                self._settle(trial, study_lib.DIVERGED, result.message)
                self._report(f"{name}: {result.message}")
            else:
                step = max(epochs, default=0)
                at = f", validation accuracy {epochs[step]:.2f}%" if epochs else ""
                self._report(f"{name}: pruned after epoch {step}{at}")
            self._num_failures = self._num_invalid = 0
            raise optuna.TrialPruned
        kills = frozen.user_attrs.get(study_lib.KILLS, 0) + (result.status == "killed")
        if result.status == "killed" and kills < study_lib.MAX_ATTEMPTS:
            trial.set_user_attr(study_lib.KILLS, kills)
            self._report(f"{name}: {result.message}; it will be resumed")
            raise _InterruptedTrial(trial.number)
        if result.status == "stopped":
            self._report(f"{name}: stopped; the same command resumes it")
            raise _InterruptedTrial(trial.number)
        self._settle(trial, study_lib.FAILED, result.message)
        self._report(f"{name} failed: {result.message}")
        self._num_failures += 1
        log = self._directory / f"trial-{number}" / "output.log"
        if number == 0:
            self._give_up(f"the config itself does not train: {result.message} (see {log})")
        elif self._num_failures >= MAX_FAILURES:
            self._give_up(
                f"{self._num_failures} trials in a row failed, the last with: {result.message} "
                f"(see {log})"
            )
        raise _FailedTrial

    def _settle(self, trial: optuna.Trial, status: str, message: str) -> None:
        trial.set_user_attr(study_lib.MESSAGE, message)
        trial.set_user_attr(study_lib.STATUS, status)

    def _count_invalid(self, error: ConfigError) -> None:
        self._num_invalid += 1
        if self._num_invalid >= MAX_INVALID:
            self._give_up(
                f"{MAX_INVALID} trials in a row were not valid, the last because {error}; choose "
                "spaces whose values go together"
            )

    def _give_up(self, message: str) -> None:
        self.error = self.error or ConfigError(message)
        self._stopping.set()

    def _frozen(self, number: int) -> FrozenTrial:
        """Returns a trial as the storage has it."""
        trials = self._study.get_trials(deepcopy=False, states=tuple(TrialState))
        return next(trial for trial in trials if trial.number == number)


class _Release:
    """Releases a lock once, by whoever comes first."""

    def __init__(self, lock: threading.Lock):
        self._lock, self._is_held = lock, True

    def release(self) -> None:
        """Releases the lock, unless that has been done."""
        if self._is_held:
            self._is_held = False
            self._lock.release()
