"""PyTorch's learning-rate schedules: plain functions from the interval's number to a value.

They run on the host in float64; in float32 a cosine near its end would be off by as much as its
value. Each is the closed form of the class of
`torch.optim.lr_scheduler` that it names, with that class's parameter names and defaults: its value
at `step` is what the optimizer has after `step` calls of `scheduler.step()`. Arguments out of
range raise ConfigError, which is a ValueError; what is valid is in `config.SCHEMA`.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Any

from jaxcifar import config as config_lib
from jaxcifar.config import ConfigError, check_arguments

Schedule = Callable[[int], float]


def constant_lr(lr: float) -> Schedule:
    """Returns the schedule that is always `lr`."""
    return lambda step: lr


def step_lr(lr: float, *, step_size: int, gamma: float = 0.1) -> Schedule:
    """Returns lr · gamma^⌊step / step_size⌋ (StepLR)."""
    check_arguments("optimizer", lr=lr)
    check_arguments("schedule", step_size=step_size, gamma=gamma)
    return lambda step: lr * gamma ** (step // step_size)


def multistep_lr(lr: float, *, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """Returns lr · gamma^(number of milestones ≤ step) (MultiStepLR); repeated ones count again."""
    milestones = tuple(sorted(milestones))
    check_arguments("optimizer", lr=lr)
    check_arguments("schedule", milestones=milestones, gamma=gamma)
    return lambda step: lr * gamma ** bisect.bisect_right(milestones, step)


def exponential_lr(lr: float, *, gamma: float) -> Schedule:
    """Returns lr · gamma^step (ExponentialLR)."""
    check_arguments("optimizer", lr=lr)
    check_arguments("schedule", gamma=gamma)
    return lambda step: lr * gamma**step


def cosine_annealing_lr(lr: float, *, T_max: int, eta_min: float = 0.0) -> Schedule:
    """Returns eta_min + (lr - eta_min) · (1 + cos(π · step / T_max)) / 2 (CosineAnnealingLR).

    After T_max it rises again, as PyTorch's recursion does; a period is 2 · T_max.
    """
    check_arguments("optimizer", lr=lr)
    check_arguments("schedule", T_max=T_max, eta_min=eta_min)
    return lambda step: _cosine(lr, eta_min, step / T_max)


def cosine_annealing_warm_restarts(
    lr: float, *, T_0: int, T_mult: int = 1, eta_min: float = 0.0
) -> Schedule:
    """Returns SGDR's schedule (CosineAnnealingWarmRestarts; Loshchilov & Hutter 2017): a cosine
    from lr to eta_min over T_0 intervals, begun again whenever it ends, each T_mult times longer.
    """
    check_arguments("optimizer", lr=lr)
    check_arguments("schedule", T_0=T_0, T_mult=T_mult, eta_min=eta_min)

    def schedule(step: int) -> float:
        length = T_0
        if T_mult == 1:
            step %= T_0
        while step >= length:
            step -= length
            length *= T_mult
        return _cosine(lr, eta_min, step / length)

    return schedule


def one_cycle_lr(
    *,
    max_lr: float,
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """Returns the 1cycle learning rate (OneCycleLR; Smith & Topin 2018).

    It rises from max_lr / div_factor to max_lr until step pct_start · total_steps - 1 and falls
    until total_steps - 1 to its start / final_div_factor; with three_phase it falls back to its
    start as fast as it rose, then to that end. Between, cosine or linear interpolation. At
    total_steps, the last step that PyTorch allows, the last phase's formula is past its end.

    Raises:
        ConfigError: an argument is out of range, or makes a phase of no length, where PyTorch
            divides by zero; from the schedule: the step is not in 0 ... total_steps.
    """
    check_arguments("schedule", max_lr=max_lr, div_factor=div_factor)
    check_arguments("schedule", final_div_factor=final_div_factor)
    start = max_lr / div_factor
    shape = (total_steps, pct_start, anneal_strategy, three_phase)
    return _one_cycle((start, max_lr, start / final_div_factor), *shape)


def one_cycle_momentum(
    *,
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
    three_phase: bool = False,
) -> Schedule:
    """Returns the momentum (for Adam: beta1) that OneCycleLR sets: from max_momentum down to
    base_momentum while the learning rate rises, and back while it falls. See `one_cycle_lr`.
    """
    _check_momentum(base_momentum, max_momentum)
    shape = (total_steps, pct_start, anneal_strategy, three_phase)
    return _one_cycle((max_momentum, base_momentum, max_momentum), *shape)


def cyclic_lr(
    *,
    base_lr: float,
    max_lr: float,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> Schedule:
    """Returns the cyclical learning rate (CyclicLR; Smith 2017).

    It rises linearly from base_lr to max_lr in step_size_up steps and falls back in
    step_size_down (None: as many). In mode 'triangular2' the c-th cycle is 2^(c-1) times less
    high, in 'exp_range' the height is multiplied by gamma^step.
    """
    check_arguments("schedule", base_lr=base_lr, max_lr=max_lr)
    if base_lr > max_lr:
        raise ConfigError(f"base_lr={base_lr!r} is not valid: it must not exceed max_lr={max_lr!r}")
    height = _cycle_height(step_size_up, step_size_down, mode, gamma)
    return lambda step: base_lr + (max_lr - base_lr) * height(step)


def cyclic_momentum(
    *,
    base_momentum: float = 0.8,
    max_momentum: float = 0.9,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> Schedule:
    """Returns the momentum (for Adam: beta1) that CyclicLR sets: max_momentum where the learning
    rate is lowest, base_momentum at its peak. See `cyclic_lr`.
    """
    _check_momentum(base_momentum, max_momentum)
    height = _cycle_height(step_size_up, step_size_down, mode, gamma)
    return lambda step: max_momentum - (max_momentum - base_momentum) * height(step)


def warm_up(schedule: Schedule, *, warmup: int, start_factor: float = 1 / 3) -> Schedule:
    """Returns `schedule` with `warmup` intervals in front of it that rise linearly from
    start_factor times its first value to that value (LinearLR, then `schedule`, in a SequentialLR
    with the milestone `warmup`).
    """
    check_arguments("schedule", warmup=warmup, start_factor=start_factor)

    def warmed(step: int) -> float:
        if step >= warmup:
            return schedule(step - warmup)
        return schedule(0) * (start_factor + (1 - start_factor) * step / warmup)

    return warmed


def plateau_start(lr: float) -> dict[str, Any]:
    """Returns what `reduce_lr_on_plateau` knows before the first epoch; JSON can hold it."""
    return {"lr": lr, "best": None, "num_bad_epochs": 0, "cooldown_counter": 0}


def reduce_lr_on_plateau(
    state: dict[str, Any],
    metric: float,
    *,
    mode: str = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
) -> dict[str, Any]:
    """Returns the state after an epoch with that metric; its `lr` is the next epoch's
    (ReduceLROnPlateau).

    An epoch is good if the metric is better than the best by more than the threshold. After
    more than `patience` bad epochs the learning rate is multiplied by `factor`, but not below
    min_lr, and not if it would change by eps or less; then `cooldown` epochs count as neither.
    """
    check_arguments("schedule", factor=factor, patience=patience, threshold=threshold)
    check_arguments("schedule", threshold_mode=threshold_mode, cooldown=cooldown)
    check_arguments("schedule", min_lr=min_lr, eps=eps)
    _check_mode(mode, config_lib.PLATEAU_MODES)
    lr, best, bad, cooling = (
        state[name] for name in ("lr", "best", "num_bad_epochs", "cooldown_counter")
    )
    sign = 1 if mode == "max" else -1
    if best is None:
        better = True
    elif threshold_mode == "rel":
        better = sign * metric > sign * best * (1 + sign * threshold)
    else:
        better = sign * metric > sign * best + threshold
    best, bad = (metric, 0) if better else (best, bad + 1)
    if cooling:
        cooling, bad = cooling - 1, 0
    if bad > patience:
        lowered = max(lr * factor, min_lr)
        lr = lowered if lr - lowered > eps else lr
        cooling, bad = cooldown, 0
    return {"lr": lr, "best": best, "num_bad_epochs": bad, "cooldown_counter": cooling}


def _cosine(high: float, low: float, part: float) -> float:
    return low + (high - low) * (1 + math.cos(math.pi * part)) / 2


def _one_cycle(
    values: tuple[float, float, float],
    total_steps: int,
    pct_start: float,
    anneal_strategy: str,
    three_phase: bool,
) -> Schedule:
    """Returns the path from the first of the values to the second and on to the third."""
    if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1:
        raise ConfigError(
            f"total_steps={total_steps!r} is not valid: it must be a whole number, 1 or more"
        )
    check_arguments(
        "schedule",
        pct_start=pct_start,
        anneal_strategy=anneal_strategy,
        three_phase=three_phase,
    )
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

    def schedule(step: int) -> float:
        if not 0 <= step <= total_steps:
            raise ConfigError(
                f"step={step!r} is not valid: the cycle has total_steps={total_steps} steps"
            )
        begin, end, a, b = next((phase for phase in phases if step <= phase[1]), phases[-1])
        part = (step - begin) / (end - begin)
        return _cosine(a, b, part) if anneal_strategy == "cos" else a + (b - a) * part

    return schedule


def _cycle_height(
    step_size_up: int, step_size_down: int | None, mode: str, gamma: float
) -> Schedule:
    """Returns how far a cycle is from its base at a step, as a share of its full height."""
    step_size_down = step_size_up if step_size_down is None else step_size_down
    check_arguments("schedule", step_size_up=step_size_up, step_size_down=step_size_down)
    check_arguments("schedule", gamma=gamma)
    _check_mode(mode, config_lib.CYCLIC_MODES)
    length = step_size_up + step_size_down
    scale = {
        "triangular": lambda cycle, step: 1.0,
        "triangular2": lambda cycle, step: 0.5**cycle,
        "exp_range": lambda cycle, step: gamma**step,
    }[mode]

    def height(step: int) -> float:
        cycle, within = divmod(step, length)
        rising = within <= step_size_up
        part = within / step_size_up if rising else (length - within) / step_size_down
        return part * scale(cycle, step)

    return height


def _check_mode(mode: str, valid: Sequence[str]) -> None:
    if mode not in valid:
        names = ", ".join(map(repr, valid))
        raise ConfigError(f"mode={mode!r} is not valid: it must be one of {names}")


def _check_momentum(base_momentum: float, max_momentum: float) -> None:
    check_arguments("schedule", base_momentum=base_momentum, max_momentum=max_momentum)
    if base_momentum > max_momentum:
        raise ConfigError(
            f"base_momentum={base_momentum!r} is not valid: it must not exceed "
            f"max_momentum={max_momentum!r}"
        )
