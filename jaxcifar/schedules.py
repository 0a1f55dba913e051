"""PyTorch's learning-rate schedules: plain functions from the interval's number to a value.

They run on the host in float64 and are tabulated once an epoch; in float32 a cosine near its end
would be off by as much as its value.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

Schedule = Callable[[int], float]


def constant_lr(lr: float) -> Schedule:
    """Returns the schedule that is always `lr`."""
    return lambda step: lr


def step_lr(lr: float, *, step_size: int, gamma: float = 0.1) -> Schedule:
    """Returns lr · gamma^⌊step / step_size⌋ (`torch.optim.lr_scheduler.StepLR`)."""
    return lambda step: lr * gamma ** (step // step_size)


def create(config: ConfigDict) -> Schedule:
    """Returns the learning rate that the config asks for, as a function of its intervals."""
    lr, given = config.optimizer.lr, config.schedule
    if given.name == "step":
        gamma = {} if given.gamma is None else {"gamma": given.gamma}
        return step_lr(lr, step_size=given.step_size, **gamma)
    return constant_lr(lr)
