"""The learning rate and momentum at every step of a run.

`schedules` has the formulas; here they are fitted to a run: its length, its warm-up, and the state
of a schedule that follows a metric.
"""

import inspect
import math
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxcifar import optimizers, schedules
from jaxcifar.progress import Progress
from jaxcifar.schedules import SCHEDULES, ScheduleFn
from jaxcifar.spec import ConfigError


class RunSchedule:
    """The learning rate and momentum of a config's run, indexed by schedule intervals, which are
    epochs or steps as `schedule.interval` says.
    """

    def __init__(self, config: ConfigDict, steps_per_epoch: int, planned_epochs: int | None = None):
        """Creates the schedule of a run.

        Args:
            config: the run's.
            steps_per_epoch: number of training steps in an epoch.
            planned_epochs: number of epochs that it spans, after which the value at the last of
                their intervals holds (None: all of the run).

        Raises:
            ConfigError: the schedule cannot span this run.
        """
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.planned_epochs = planned_epochs or config.num_epochs
        # The state of a schedule that follows a metric; JSON-serializable.
        self.state: dict[str, Any] = {}
        self._entry = SCHEDULES[config.schedule.name]
        self._cycles_momentum = (
            self._entry.momentum is not None and config.schedule.cycle_momentum is not False
        )
        self._build()
        self.lr(config.num_epochs, config.num_epochs * steps_per_epoch)  # raises before training

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the saved `state` of the same run's schedule."""
        self.state = state
        self._build()

    def interval(self, epoch: int, step: int) -> int:
        """Returns the schedule intervals done after `epoch` epochs, or `step` steps, of the run."""
        return epoch if self.config.schedule.interval == "epoch" else step

    def values(self, epoch: int, step: int) -> dict[str, float]:
        """Returns `lr`, and `momentum` if the optimizer has it, after `epoch` epochs and `step`
        steps of the run.

        Raises:
            ConfigError: they are too large for float32.
        """
        interval = self.interval(epoch, step)
        if self._is_held:
            planned = self.interval(self.planned_epochs, self.planned_epochs * self.steps_per_epoch)
            interval = min(interval, planned - 1)
        try:
            values = {name: value(interval) for name, value in self._functions.items()}
        except OverflowError:
            values = {"lr": math.inf}
        if max(map(abs, values.values())) > float(np.finfo(np.float32).max):
            raise ConfigError(
                f"config.schedule.name={self.config.schedule.name!r} reaches a learning rate of "
                f"{values['lr']:.3g} after {epoch} epochs: change its other settings"
            )
        return values

    def lr(self, epoch: int, step: int) -> float:
        """Returns the learning rate after `epoch` epochs and `step` steps of the run."""
        return self.values(epoch, step)["lr"]

    def epoch_values(self, epoch: int) -> dict[str, np.ndarray]:
        """Returns the values at the steps of the epoch `epoch` (from 0), float32 [steps_per_epoch]
        each.
        """
        first_step = epoch * self.steps_per_epoch
        rows = [self.values(epoch, first_step + i) for i in range(self.steps_per_epoch)]
        return {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]}

    def end_epoch(self, epoch: int, step: int, val_loss: float, val_acc: float) -> None:
        """Steps a schedule that follows a metric after an epoch, as PyTorch does, once the warm-up
        is over: by val_acc in mode 'max', else by val_loss.
        """
        if not self._entry.follows_metric:
            return
        self.state = self.state or schedules.plateau_start(self.config.optimizer.lr)
        if self.interval(epoch, step) > self.config.schedule.warmup:
            arguments = self._entry.arguments(self.config.schedule)
            metric = val_acc if arguments.get("mode") == "max" else val_loss
            self.state = self._entry.function(self.state, metric, **arguments)
        self._build()

    def warnings(self) -> list[str]:
        """Returns a line for each setting of the config that this run ignores or overrides."""
        lines = []
        name, optimizer = self.config.schedule.name, self.config.optimizer
        unused = [f"schedule.{key}" for key in self._unused_keys()]
        entry = optimizers.OPTIMIZERS[optimizer.name]
        if optimizer.get("nesterov") and "nesterov" not in entry.parameters:
            unused.append("optimizer.nesterov")
        if unused:
            lines.append(
                f"ignored with optimizer {optimizer.name!r} and schedule {name!r}: "
                + ", ".join(unused)
            )
        start = self._functions["lr"](self.config.schedule.warmup)
        uses_lr = self._entry.follows_metric or "lr" in self._provided()
        if not uses_lr and not np.isclose(start, optimizer.lr):
            lines.append(
                f"{name!r} starts at learning rate {start:.3g}, "
                f"not at optimizer.lr={optimizer.lr:g}"
            )
        if self._cycles_momentum and entry.momentum:
            lines.append(
                f"{name!r} also cycles the momentum, overriding optimizer.{entry.momentum}"
            )
        return lines

    def resume(self, progress: Progress, step: int) -> str:
        """Continues the schedule of a run that is restored after `step` steps, and returns what
        `describe_extension` does. The progress is told what the schedule spans now.
        """
        self.restore(progress.schedule_state)
        old = progress.config["num_epochs"], progress.planned_epochs
        progress.planned_epochs = self.planned_epochs
        return self.describe_extension(old[0], progress.epoch, step, old[1])

    def describe_extension(
        self, old_num_epochs: int, epoch: int, step: int, old_planned_epochs: int | None = None
    ) -> str:
        """Returns what becomes of the learning rate when a run of `old_num_epochs` epochs, of which
        its schedule spanned `old_planned_epochs` (None: all), is extended after `epoch` epochs and
        `step` steps; "" if it goes on as it was.
        """
        if self._is_held:
            last = self.lr(self.config.num_epochs, self.config.num_epochs * self.steps_per_epoch)
            return (
                f"the schedule spans the first {self.planned_epochs} epochs; after them the "
                f"learning rate stays at {last:.3g}"
            )
        old = self.config.copy_and_resolve_references()
        old.num_epochs = old_num_epochs
        old_schedule = RunSchedule(old, self.steps_per_epoch, old_planned_epochs)
        old_schedule.restore(self.state)
        before = old_schedule.lr(epoch, step)
        after = self.lr(epoch, step)
        if before == after:
            return ""
        return (
            f"the schedule now spans {self.config.num_epochs} epochs instead of "
            f"{old_schedule.planned_epochs}: "
            f"at the next step the learning rate changes from {before:.3g} to {after:.3g}"
        )

    @property
    def _is_held(self) -> bool:
        """Whether the run is longer than what the schedule spans. One that follows a metric goes
        on.
        """
        return self.planned_epochs < self.config.num_epochs and not self._entry.follows_metric

    def _build(self) -> None:
        """Builds the functions from intervals to values."""
        settings = self.config.schedule
        warm_up = {"warmup": settings.warmup}
        if self._entry.follows_metric:
            lr = schedules.constant_lr(self.state.get("lr", self.config.optimizer.lr))
        else:
            lr = self._build_function(self._entry.function)
        start_factor = (
            {} if settings.start_factor is None else {"start_factor": settings.start_factor}
        )
        self._functions = {"lr": schedules.warm_up(lr, **warm_up, **start_factor)}
        momentum = optimizers.initial_momentum(self.config)
        if momentum is not None:
            cycle = (
                self._build_function(self._entry.momentum)
                if self._cycles_momentum
                else schedules.constant_lr(momentum)
            )
            self._functions["momentum"] = schedules.warm_up(cycle, **warm_up, start_factor=1.0)

    def _build_function(self, function) -> ScheduleFn:
        """Calls a function with those of its arguments that the config sets or the run provides."""
        arguments = self._entry.arguments(self.config.schedule)
        provided = {"lr": self.config.optimizer.lr}
        for name, source in self._entry.run_defaults.items():
            if name not in arguments:
                arguments[name] = provided["lr"] if source == "lr" else self._num_intervals()
        names = inspect.signature(function).parameters
        if "total_steps" in names:
            provided["total_steps"] = self._total_steps()
        try:
            return function(**{k: v for k, v in (provided | arguments).items() if k in names})
        except ConfigError as error:
            raise ConfigError(f"config.schedule.{error}") from None

    def _provided(self) -> set[str]:
        """Returns what the schedule takes from the run: "lr", "total_steps" or both."""
        functions = [self._entry.function, self._entry.momentum]
        names = {name for f in functions if f for name in inspect.signature(f).parameters}
        settings = self.config.schedule
        defaults = {s for name, s in self._entry.run_defaults.items() if settings[name] is None}
        return (names & {"lr", "total_steps"}) | (defaults & {"lr"})

    def _num_intervals(self) -> int:
        """Returns the number of the run's intervals after the warm-up.

        Raises:
            ConfigError: there are none.
        """
        settings = self.config.schedule
        per_epoch = 1 if settings.interval == "epoch" else self.steps_per_epoch
        num_intervals = self.planned_epochs * per_epoch
        if num_intervals <= settings.warmup:
            raise ConfigError(
                f"config.schedule.warmup={settings.warmup} is not valid: it must be less than the "
                f"run's {num_intervals} intervals, to leave some for the schedule "
                f"{settings.name!r}"
            )
        return num_intervals - settings.warmup

    def _total_steps(self) -> int:
        """Returns the length of a schedule over the whole run, which `schedule.steps_per_epoch`
        may make longer than the run.

        Raises:
            ConfigError: it would have no intervals, or fewer than the run.
        """
        num_intervals, assumed = self._num_intervals(), self.config.schedule.steps_per_epoch
        if assumed is None:
            return num_intervals
        per_epoch = 1 if self.config.schedule.interval == "epoch" else self.steps_per_epoch
        if assumed < per_epoch:
            raise ConfigError(
                f"config.schedule.steps_per_epoch={assumed} is not valid: an epoch of this run has "
                f"{per_epoch} steps; unset it to use those"
            )
        return self.planned_epochs * assumed - self.config.schedule.warmup

    def _unused_keys(self) -> list[str]:
        settings = self.config.schedule
        used = {"name", "interval", "warmup", "extend"} | set(self._entry.parameters)
        if settings.warmup:
            used.add("start_factor")
        if "total_steps" in self._provided():
            used.add("steps_per_epoch")
        if self._entry.momentum:
            used.add("cycle_momentum")
            if not self._cycles_momentum:
                own = inspect.signature(self._entry.function).parameters
                used -= set(inspect.signature(self._entry.momentum).parameters) - set(own)
        return [key for key, value in settings.items() if value is not None and key not in used]
