"""PyTorch's learning-rate schedules as plain functions: from a step to a value.

They run on the host in float64; in float32 a cosine near its end is off by as much as its value.
Each is the closed form of the class of `torch.optim.lr_scheduler` that it names, with that class's
parameter names and defaults: its value at `step` is what the optimizer has after `step` calls of
`scheduler.step()`. Arguments out of range raise ConfigError, which is a ValueError.

A config chooses a schedule by the name that it is registered with, and sets its parameters as
`schedule.<parameter>`. The run itself provides two: `lr`, which is optimizer.lr, and
`total_steps`, the number of schedule intervals in the run.
"""

import bisect
import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from jaxcifar import spec
from jaxcifar.registry import Entry, Registry
from jaxcifar.spec import (
    ConfigError,
    NonNegativeFloat,
    NonNegativeInt,
    OpenFraction,
    PositiveFloat,
    PositiveInt,
)

ScheduleFn = Callable[[int], float]

Milestones = Annotated[tuple[NonNegativeInt, ...], spec.nonempty]
DivFactor = Annotated[float, spec.more_than(1)]
CyclicMode = Literal["triangular", "triangular2", "exp_range"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleEntry(Entry):
    """A registered schedule: a function of `lr` and its own parameters that returns fn(step) -> lr.

    `momentum` is its momentum schedule (for Adam: of beta1), whose parameters become keys, too.
    `run_defaults` names required parameters that a config may leave unset, and what the run
    provides for them: "lr" or "total_steps". A schedule that `follows_metric` is a function
    (state, metric, ...) -> state, called after every epoch.
    """

    momentum: Callable[..., ScheduleFn] | None = None
    run_defaults: dict[str, str] = dataclasses.field(default_factory=dict)
    follows_metric: bool = False

    def __post_init__(self):
        if self.momentum:
            parameters = spec.parameters(self.momentum, unchecked=PROVIDED_BY_RUN)
            for name, parameter in parameters.items():
                if name not in PROVIDED_BY_RUN:
                    self.parameters.setdefault(name, parameter)
        for name, source in self.run_defaults.items():
            parameter = self.parameters[name]
            meaning = f"{parameter.meaning} (default: {PROVIDED_BY_RUN[source]})"
            self.parameters[name] = spec.Parameter(parameter.annotation, None, meaning)


PROVIDED_BY_RUN = {
    "lr": "optimizer.lr",
    "total_steps": "to the end of the run",
    "state": "",  # of a schedule that follows a metric
    "metric": "",
}
_TAKEN = ("name", "extend", "interval", "warmup", "start_factor")
_TAKEN += ("steps_per_epoch", "cycle_momentum")
SCHEDULES = Registry("schedule", reserved=PROVIDED_BY_RUN, taken=_TAKEN, entry_type=ScheduleEntry)
schedule = SCHEDULES.register


@schedule("constant")
def constant_lr(lr: float) -> ScheduleFn:
    """Returns the schedule that is always `lr`."""
    return lambda step: lr


@schedule("step")
def step_lr(lr: PositiveFloat, *, step_size: PositiveInt, gamma: PositiveFloat = 0.1) -> ScheduleFn:
    """Returns lr · gamma^⌊step / step_size⌋ (StepLR).

    Args:
        step_size: intervals between decays.
        gamma: decay factor.
    """
    return lambda step: lr * gamma ** (step // step_size)


@schedule("multistep")
def multistep_lr(
    lr: PositiveFloat, *, milestones: Milestones, gamma: PositiveFloat = 0.1
) -> ScheduleFn:
    """Returns lr · gamma^(number of milestones ≤ step) (MultiStepLR); repeated ones count again.

    Args:
        milestones: intervals at which to decay.
        gamma: decay factor.
    """
    milestones = sorted(milestones)
    return lambda step: lr * gamma ** bisect.bisect_right(milestones, step)


@schedule("exponential")
def exponential_lr(lr: PositiveFloat, *, gamma: PositiveFloat) -> ScheduleFn:
    """Returns lr · gamma^step (ExponentialLR).

    Args:
        gamma: factor per interval.
    """
    return lambda step: lr * gamma**step


@schedule("cosine", run_defaults={"T_max": "total_steps"})
def cosine_annealing_lr(
    lr: PositiveFloat, *, T_max: PositiveInt, eta_min: NonNegativeFloat = 0.0
) -> ScheduleFn:
    """Returns eta_min + (lr - eta_min) · (1 + cos(π · step / T_max)) / 2 (CosineAnnealingLR).

    After T_max it rises again, as PyTorch's recursion does; a period is 2 · T_max.

    Args:
        T_max: intervals until eta_min is reached.
        eta_min: lowest learning rate.
    """
    return lambda step: _cosine(lr, eta_min, step / T_max)


@schedule("cosine_warm_restarts")
def cosine_annealing_warm_restarts(
    lr: PositiveFloat, *, T_0: PositiveInt, T_mult: PositiveInt = 1, eta_min: NonNegativeFloat = 0.0
) -> ScheduleFn:
    """Returns SGDR's schedule (CosineAnnealingWarmRestarts; Loshchilov & Hutter 2017): a cosine
    from lr to eta_min over T_0 intervals, restarted whenever it ends, each T_mult times longer.

    Args:
        T_0: intervals until the first restart.
        T_mult: growth factor of the cycle length.
        eta_min: lowest learning rate.
    """

    def value(step: int) -> float:
        length = T_0
        if T_mult == 1:
            step %= T_0
        while step >= length:
            step -= length
            length *= T_mult
        return _cosine(lr, eta_min, step / length)

    return value


@spec.checked
def one_cycle_momentum(
    *,
    total_steps: PositiveInt,
    pct_start: OpenFraction = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    base_momentum: OpenFraction = 0.85,
    max_momentum: OpenFraction = 0.95,
    three_phase: bool = False,
) -> ScheduleFn:
    """Returns the momentum (for Adam: beta1) that OneCycleLR sets: from max_momentum down to
    base_momentum while the learning rate rises, and back while it falls. The other arguments are
    `one_cycle_lr`'s.

    Args:
        base_momentum: lowest momentum.
        max_momentum: highest momentum.
    """
    _check_order(base_momentum=base_momentum, max_momentum=max_momentum)
    values = (max_momentum, base_momentum, max_momentum)
    return _one_cycle(values, total_steps, pct_start, anneal_strategy, three_phase)


@schedule("onecycle", momentum=one_cycle_momentum)
def one_cycle_lr(
    *,
    max_lr: PositiveFloat,
    total_steps: PositiveInt,
    pct_start: OpenFraction = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    div_factor: DivFactor = 25.0,
    final_div_factor: DivFactor = 1e4,
    three_phase: bool = False,
) -> ScheduleFn:
    """Returns the 1cycle learning rate (OneCycleLR; Smith & Topin 2018).

    It rises from max_lr / div_factor to max_lr until step pct_start · total_steps - 1 and falls
    until total_steps - 1 to its initial value / final_div_factor; with three_phase it falls back to
    its initial value as fast as it rose, then to that end. At total_steps, the last step that
    PyTorch allows, the last phase is extrapolated.

    Args:
        max_lr: highest learning rate.
        total_steps: length of the cycle.
        pct_start: fraction of the cycle in which the learning rate rises.
        anneal_strategy: interpolation of the phases.
        div_factor: the cycle starts at max_lr / div_factor.
        final_div_factor: the cycle ends at its initial value / final_div_factor.
        three_phase: descend symmetrically, then anneal.

    Raises:
        ConfigError: an argument is out of range, or makes a phase of no length, where PyTorch
            divides by zero; from the schedule: the step is not in 0 ... total_steps.
    """
    initial = max_lr / div_factor
    values = (initial, max_lr, initial / final_div_factor)
    return _one_cycle(values, total_steps, pct_start, anneal_strategy, three_phase)


@spec.checked
def cyclic_momentum(
    *,
    base_momentum: OpenFraction = 0.8,
    max_momentum: OpenFraction = 0.9,
    step_size_up: PositiveInt = 2000,
    step_size_down: PositiveInt | None = None,
    mode: CyclicMode = "triangular",
    gamma: PositiveFloat = 1.0,
) -> ScheduleFn:
    """Returns the momentum (for Adam: beta1) that CyclicLR sets: max_momentum where the learning
    rate is lowest, base_momentum at its peak. The other arguments are `cyclic_lr`'s.

    Args:
        base_momentum: lowest momentum.
        max_momentum: highest momentum.
    """
    _check_order(base_momentum=base_momentum, max_momentum=max_momentum)
    amplitude = _cycle_amplitude(step_size_up, step_size_down, mode, gamma)
    return lambda step: max_momentum - (max_momentum - base_momentum) * amplitude(step)


@schedule("cyclic", momentum=cyclic_momentum, run_defaults={"base_lr": "lr"})
def cyclic_lr(
    *,
    base_lr: PositiveFloat,
    max_lr: PositiveFloat,
    step_size_up: PositiveInt = 2000,
    step_size_down: PositiveInt | None = None,
    mode: CyclicMode = "triangular",
    gamma: PositiveFloat = 1.0,
) -> ScheduleFn:
    """Returns the cyclical learning rate (CyclicLR; Smith 2017).

    It rises linearly from base_lr to max_lr and falls back. In mode 'triangular2' the amplitude is
    halved after every cycle, in 'exp_range' it is multiplied by gamma^step.

    Args:
        base_lr: lowest learning rate.
        max_lr: highest learning rate.
        step_size_up: length of the rise in intervals.
        step_size_down: length of the fall in intervals (None: step_size_up).
        mode: how the amplitude changes.
        gamma: in mode 'exp_range', factor per interval.
    """
    _check_order(base_lr=base_lr, max_lr=max_lr)
    amplitude = _cycle_amplitude(step_size_up, step_size_down, mode, gamma)
    return lambda step: base_lr + (max_lr - base_lr) * amplitude(step)


@spec.checked
def warm_up(
    schedule_fn: ScheduleFn,
    *,
    warmup: NonNegativeInt,
    start_factor: Annotated[float, spec.between(0, 1, "right")] = 1 / 3,
) -> ScheduleFn:
    """Returns `schedule_fn` after `warmup` intervals that rise linearly from start_factor times its
    first value to that value (LinearLR, then the schedule, in a SequentialLR with the milestone
    `warmup`).
    """

    def value(step: int) -> float:
        if step >= warmup:
            return schedule_fn(step - warmup)
        return schedule_fn(0) * (start_factor + (1 - start_factor) * step / warmup)

    return value


def plateau_start(lr: float) -> dict[str, Any]:
    """Returns the state of `reduce_lr_on_plateau` before the first epoch; JSON can hold it."""
    return {"lr": lr, "best": None, "num_bad_epochs": 0, "cooldown_counter": 0}


@schedule("plateau", follows_metric=True)
def reduce_lr_on_plateau(
    state: dict[str, Any],
    metric: float,
    *,
    mode: Literal["min", "max"] = "min",
    factor: OpenFraction = 0.1,
    patience: NonNegativeInt = 10,
    threshold: NonNegativeFloat = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: NonNegativeInt = 0,
    min_lr: NonNegativeFloat = 0.0,
    eps: NonNegativeFloat = 1e-8,
) -> dict[str, Any]:
    """Returns the state after an epoch with that metric; its `lr` is the next epoch's
    (ReduceLROnPlateau).

    An epoch is good if the metric is better than the best by more than the threshold. After
    more than `patience` bad epochs the learning rate is multiplied by `factor`.

    Args:
        state: what this returned after the epoch before, or `plateau_start`'s.
        metric: val_loss in mode 'min', val_acc in mode 'max'.
        mode: decay when val_loss no longer falls ('min') or val_acc no longer rises ('max').
        factor: decay factor.
        patience: epochs without improvement before a decay.
        threshold: the smallest improvement that counts.
        threshold_mode: whether threshold is relative to the best value or absolute.
        cooldown: epochs after a decay during which bad epochs are not counted.
        min_lr: lowest learning rate.
        eps: decays of at most this size are skipped.
    """
    lr, best, num_bad_epochs, cooldown_counter = (
        state[name] for name in ("lr", "best", "num_bad_epochs", "cooldown_counter")
    )
    sign = 1 if mode == "max" else -1
    if best is None:
        is_better = True
    elif threshold_mode == "rel":
        is_better = sign * metric > sign * best * (1 + sign * threshold)
    else:
        is_better = sign * metric > sign * best + threshold
    best, num_bad_epochs = (metric, 0) if is_better else (best, num_bad_epochs + 1)
    if cooldown_counter:
        cooldown_counter, num_bad_epochs = cooldown_counter - 1, 0
    if num_bad_epochs > patience:
        new_lr = max(lr * factor, min_lr)
        lr = new_lr if lr - new_lr > eps else lr
        cooldown_counter, num_bad_epochs = cooldown, 0
    return dict(lr=lr, best=best, num_bad_epochs=num_bad_epochs, cooldown_counter=cooldown_counter)


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


def _one_cycle(
    values: tuple[float, float, float],
    total_steps: int,
    pct_start: float,
    anneal_strategy: str,
    three_phase: bool,
) -> ScheduleFn:
    """Returns the path from the first of the values to the second and on to the third."""
    first, second, third = values
    rise = pct_start * total_steps
    phases = [(0.0, rise - 1, first, second)]
    if three_phase:
        phases.append((rise - 1, 2 * rise - 2, second, first))
    phases.append((phases[-1][1], total_steps - 1, phases[-1][3], third))
    if any(begin == end for begin, end, _, _ in phases):
        raise ConfigError(
            f"pct_start={pct_start!r} is not valid with total_steps={total_steps}: it makes a "
            "phase of no length"
        )

    def value(step: int) -> float:
        if not 0 <= step <= total_steps:
            raise ConfigError(f"step={step!r} is not valid: the cycle has {total_steps=} steps")
        begin, end, a, b = next((phase for phase in phases if step <= phase[1]), phases[-1])
        fraction = (step - begin) / (end - begin)
        return _cosine(a, b, fraction) if anneal_strategy == "cos" else a + (b - a) * fraction

    return value


def _cycle_amplitude(
    step_size_up: int, step_size_down: int | None, mode: str, gamma: float
) -> ScheduleFn:
    """Returns the distance from the cycle's base at a step, as a fraction of its first peak."""
    step_size_down = step_size_down or step_size_up
    length = step_size_up + step_size_down
    scale = {
        "triangular": lambda cycle, step: 1.0,
        "triangular2": lambda cycle, step: 0.5**cycle,
        "exp_range": lambda cycle, step: gamma**step,
    }[mode]

    def amplitude(step: int) -> float:
        cycle, within = divmod(step, length)
        is_rising = within <= step_size_up
        fraction = within / step_size_up if is_rising else (length - within) / step_size_down
        return fraction * scale(cycle, step)

    return amplitude


def _check_order(**ends: float) -> None:
    (low_name, low), (high_name, high) = ends.items()
    if low > high:
        raise ConfigError(spec.invalid(low_name, low, f"at most {high_name}={high!r}"))
