"""The optimizer's learning rate and momentum at every step of a run: from the config to tables.

`schedules` has the formulas; here are the run's length, its warm-up, the plateau's memory, and
what a run says about them.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxcifar import optimizers, schedules
from jaxcifar.config import ConfigError
from jaxcifar.schedules import Schedule

_LR: dict[str, Callable[..., Schedule]] = {
    "constant": schedules.constant_lr,
    "step": schedules.step_lr,
    "multistep": schedules.multistep_lr,
    "exponential": schedules.exponential_lr,
    "cosine": schedules.cosine_annealing_lr,
    "cosine_warm_restarts": schedules.cosine_annealing_warm_restarts,
    "onecycle": schedules.one_cycle_lr,
    "cyclic": schedules.cyclic_lr,
    "plateau": schedules.constant_lr,  # of the learning rate that the plateau's state holds
}
_MOMENTUM = {"onecycle": schedules.one_cycle_momentum, "cyclic": schedules.cyclic_momentum}


def create(
    config: ConfigDict, steps_per_epoch: int, plateau: dict[str, Any] | None = None
) -> dict[str, Schedule]:
    """Returns the optimizer's hyperparameters, `lr` and `momentum`, as functions of the number of
    schedule intervals done.

    Args:
        config: a valid config.
        steps_per_epoch: training steps in an epoch.
        plateau: what `after_epoch` returned last.

    Raises:
        ConfigError: the schedule cannot span this run.
    """
    name, warmup, given = config.schedule.name, config.schedule.warmup, _given(config)
    intervals = 1 if config.schedule.interval == "epoch" else steps_per_epoch
    counted = given.get("steps_per_epoch", intervals)
    if name == "onecycle" and counted < intervals:
        raise ConfigError(
            f"config.schedule.steps_per_epoch={counted} is not valid: an epoch of this run has "
            f"{intervals} steps; unset it to take those"
        )
    left = config.num_epochs * intervals - warmup
    if left < 1 and (name == "onecycle" or (name == "cosine" and "T_max" not in given)):
        raise ConfigError(
            f"config.schedule.warmup={warmup} is not valid: it must be less than the run's "
            f"{left + warmup} intervals, to leave some for schedule.name={name!r}"
        )
    given = {"base_lr": config.optimizer.lr, "T_max": left} | given
    given["total_steps"] = config.num_epochs * counted - warmup
    given["lr"] = plateau["lr"] if plateau else config.optimizer.lr
    try:
        lr = _call(_LR[name], given)
        cycles = name in _MOMENTUM and given.get("cycle_momentum", True)
        momentum = (
            _call(_MOMENTUM[name], given)
            if cycles
            else schedules.constant_lr(optimizers.momentum(config))
        )
    except ConfigError as error:
        raise ConfigError(f"config.schedule.{error}") from None
    return {
        "lr": _call(schedules.warm_up, given | {"schedule": lr, "warmup": warmup}),
        "momentum": schedules.warm_up(momentum, warmup=warmup, start_factor=1.0),
    }


def tabulate(
    config: ConfigDict, schedule: dict[str, Schedule], epoch: int, steps: int
) -> dict[str, np.ndarray]:
    """Returns the values at the steps of the epoch after `epoch` others, float32 [steps] each."""
    numbers = [interval(config, epoch, epoch * steps + i) for i in range(steps)]
    return {
        name: np.array([value(n) for n in numbers], np.float32) for name, value in schedule.items()
    }


def interval(config: ConfigDict, epoch: int, step: int) -> int:
    """Returns how many schedule intervals are done after so many epochs and steps."""
    return epoch if config.schedule.interval == "epoch" else step


def after_epoch(
    config: ConfigDict, plateau: dict[str, Any], number: int, val_loss: float, val_acc: float
) -> dict[str, Any]:
    """Returns the plateau's state after an epoch, `number` intervals being done: PyTorch's, which
    is asked once an epoch and watches val_loss in mode 'min', val_acc in mode 'max'. It starts
    when the warm-up is over. With other schedules nothing is remembered: {}.
    """
    if config.schedule.name != "plateau":
        return {}
    plateau = plateau or schedules.plateau_start(config.optimizer.lr)
    if number <= config.schedule.warmup:
        return plateau
    metric = val_acc if config.schedule.mode == "max" else val_loss
    return _call(
        schedules.reduce_lr_on_plateau, _given(config) | {"state": plateau, "metric": metric}
    )


def notes(config: ConfigDict, schedule: dict[str, Schedule]) -> list[str]:
    """Returns a line for each thing that the config sets and this run does not use."""
    name, given, lines = config.schedule.name, _given(config), []
    used = {"start_factor"} if config.schedule.warmup else set()
    used |= {"steps_per_epoch"} if name == "onecycle" else set()
    functions = [_LR[name]]
    if name == "plateau":
        functions.append(schedules.reduce_lr_on_plateau)
    if cycles := name in _MOMENTUM:
        used.add("cycle_momentum")
        if cycles := given.get("cycle_momentum", True):
            functions.append(_MOMENTUM[name])
    used = used.union(*(inspect.signature(function).parameters for function in functions))
    unused = [f"schedule.{key}" for key in given if key not in used]
    if config.optimizer.nesterov and config.optimizer.name != "sgd":
        unused.append("optimizer.nesterov")
    if unused:
        lines.append(f"not used by {config.optimizer.name} with {name!r}: {', '.join(unused)}")
    start, lr = schedule["lr"](config.schedule.warmup), config.optimizer.lr
    if name in _MOMENTUM and not np.isclose(start, lr):
        lines.append(f"{name!r} starts at learning rate {start:.3g}, not at optimizer.lr={lr:g}")
    if cycles:
        key = "momentum" if config.optimizer.name == "sgd" else "b1"
        lines.append(f"{name!r} also cycles the momentum, in place of optimizer.{key}")
    return lines


def extension(config: ConfigDict, steps_per_epoch: int, old_epochs: int, number: int) -> str:
    """Returns what happens to the learning rate where a run of `old_epochs` epochs goes on as this
    config's, `number` intervals being done; "" if nothing does.
    """
    old = config.copy_and_resolve_references()
    old.num_epochs = old_epochs
    before, after = (create(c, steps_per_epoch)["lr"](number) for c in (old, config))
    if before == after:
        return ""
    return (
        f"the schedule now spans {config.num_epochs} epochs instead of {old_epochs}: "
        f"at the next step the learning rate goes from {before:.3g} to {after:.3g}"
    )


def _given(config: ConfigDict) -> dict[str, Any]:
    """Returns the schedule's settings that are set."""
    ours = ("name", "interval", "warmup")
    items = config.schedule.to_dict().items()
    return {key: value for key, value in items if value is not None and key not in ours}


def _call(function: Callable, given: dict[str, Any]) -> Any:
    names = inspect.signature(function).parameters
    return function(**{name: value for name, value in given.items() if name in names})
