"""The optimizer's learning rate and momentum at every step of a run.

`schedules` has the formulas; here they meet the run: its length, its warm-up, and the memory of a
schedule that follows a metric.
"""

import inspect
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxcifar import optimizers, schedules
from jaxcifar.schedules import SCHEDULES, ScheduleFn
from jaxcifar.spec import ConfigError


class RunSchedule:
    """The learning rate and momentum of a config's run; counts schedule intervals, which are
    epochs or steps as `schedule.interval` says.
    """

    def __init__(self, config: ConfigDict, steps_per_epoch: int):
        """Creates the schedule of a run with so many training steps in an epoch.

        Raises:
            ConfigError: the schedule cannot span this run.
        """
        self.config, self.steps_per_epoch = config, steps_per_epoch
        # What a schedule that follows a metric remembers of it; JSON can hold it.
        self.memory: dict[str, Any] = {}
        self._entry = SCHEDULES[config.schedule.name]
        self._cycles_momentum = (
            self._entry.momentum is not None and config.schedule.cycle_momentum is not False
        )
        self._build()

    def restore(self, memory: dict[str, Any]) -> None:
        """Goes on with the `memory` of a schedule of the same run."""
        self.memory = memory
        self._build()

    def interval(self, epoch: int, step: int) -> int:
        """Returns the number of schedule intervals in so many epochs, or steps, of the run."""
        return epoch if self.config.schedule.interval == "epoch" else step

    def values(self, epoch: int, step: int) -> dict[str, float]:
        """Returns `lr`, and `momentum` if the optimizer has it, after so many epochs and steps of
        the run.
        """
        interval = self.interval(epoch, step)
        return {name: value(interval) for name, value in self._functions.items()}

    def lr(self, epoch: int, step: int) -> float:
        """Returns the learning rate after so many epochs and steps of the run."""
        return self.values(epoch, step)["lr"]

    def epoch_values(self, epoch: int) -> dict[str, np.ndarray]:
        """Returns the values at the steps of the epoch after `epoch` others, float32
        [steps_per_epoch] each.
        """
        first_step = epoch * self.steps_per_epoch
        rows = [self.values(epoch, first_step + i) for i in range(self.steps_per_epoch)]
        return {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]}

    def end_epoch(self, epoch: int, step: int, val_loss: float, val_acc: float) -> None:
        """Has a schedule that follows a metric decide, as PyTorch does, after every epoch that
        comes after the warm-up: by val_acc in mode 'max', else by val_loss.
        """
        if not self._entry.follows_metric:
            return
        self.memory = self.memory or schedules.plateau_start(self.config.optimizer.lr)
        if self.interval(epoch, step) > self.config.schedule.warmup:
            metric = val_acc if self.config.schedule.mode == "max" else val_loss
            arguments = self._entry.arguments(self.config.schedule)
            self.memory = self._entry.function(self.memory, metric, **arguments)
        self._build()

    def warnings(self) -> list[str]:
        """Returns a line for each setting of the config that this run does not use as it might
        seem.
        """
        lines = []
        name, optimizer = self.config.schedule.name, self.config.optimizer
        unused = [f"schedule.{key}" for key in self._unused_keys()]
        entry = optimizers.OPTIMIZERS[optimizer.name]
        if optimizer.get("nesterov") and "nesterov" not in entry.parameters:
            unused.append("optimizer.nesterov")
        if unused:
            lines.append(f"not used by {optimizer.name} with {name!r}: {', '.join(unused)}")
        start = self._functions["lr"](self.config.schedule.warmup)
        if "lr" not in self._provided() and not np.isclose(start, optimizer.lr):
            lines.append(
                f"{name!r} starts at learning rate {start:.3g}, "
                f"not at optimizer.lr={optimizer.lr:g}"
            )
        if self._cycles_momentum and entry.momentum:
            lines.append(
                f"{name!r} also cycles the momentum, in place of optimizer.{entry.momentum}"
            )
        return lines

    def describe_extension(self, old_num_epochs: int, epoch: int, step: int) -> str:
        """Returns how the learning rate changes where a run of `old_num_epochs` epochs goes on as
        this config's after so many epochs and steps; "" if it does not.
        """
        old = self.config.copy_and_resolve_references()
        old.num_epochs = old_num_epochs
        old_schedule = RunSchedule(old, self.steps_per_epoch)
        old_schedule.restore(self.memory)
        before = old_schedule.lr(epoch, step)
        after = self.lr(epoch, step)
        if before == after:
            return ""
        return (
            f"the schedule now spans {self.config.num_epochs} epochs instead of {old_num_epochs}: "
            f"at the next step the learning rate goes from {before:.3g} to {after:.3g}"
        )

    def _build(self) -> None:
        """Makes the functions from intervals to values."""
        settings = self.config.schedule
        warm_up = {"warmup": settings.warmup}
        if self._entry.follows_metric:
            lr = schedules.constant_lr(self.memory.get("lr", self.config.optimizer.lr))
        else:
            lr = self._call(self._entry.function)
        start_factor = (
            {} if settings.start_factor is None else {"start_factor": settings.start_factor}
        )
        self._functions = {"lr": schedules.warm_up(lr, **warm_up, **start_factor)}
        momentum = optimizers.momentum(self.config)
        if momentum is not None:
            cycle = (
                self._call(self._entry.momentum)
                if self._cycles_momentum
                else schedules.constant_lr(momentum)
            )
            self._functions["momentum"] = schedules.warm_up(cycle, **warm_up, start_factor=1.0)

    def _call(self, function) -> ScheduleFn:
        """Calls a function with those of its arguments that the config sets or the run provides."""
        arguments = self._entry.arguments(self.config.schedule)
        provided = {"lr": self.config.optimizer.lr}
        if "total_steps" in self._provided():
            provided["total_steps"] = self._total_steps()
        for name, source in self._entry.run_defaults.items():
            arguments.setdefault(name, provided.get(source))
        names = inspect.signature(function).parameters
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
        return (names | defaults) & {"lr", "total_steps"}

    def _total_steps(self) -> int:
        """Returns the number of intervals that a schedule over the whole run has.

        Raises:
            ConfigError: it would have none, or fewer than the run.
        """
        settings = self.config.schedule
        per_epoch = 1 if settings.interval == "epoch" else self.steps_per_epoch
        counted = settings.steps_per_epoch or per_epoch
        if counted < per_epoch:
            raise ConfigError(
                f"config.schedule.steps_per_epoch={counted} is not valid: an epoch of this run has "
                f"{per_epoch} steps; unset it to use those"
            )
        num_intervals = self.config.num_epochs * per_epoch
        if num_intervals <= settings.warmup:
            raise ConfigError(
                f"config.schedule.warmup={settings.warmup} is not valid: it must be less than the "
                f"run's {num_intervals} intervals, to leave some for the schedule "
                f"{settings.name!r}"
            )
        return self.config.num_epochs * counted - settings.warmup

    def _unused_keys(self) -> list[str]:
        settings = self.config.schedule
        used = {"name", "interval", "warmup"} | set(self._entry.parameters)
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
