"""Rows of schedules: the learning rate and momentum after every step of whole runs.

Importing this does not import PyTorch: the tests use our side without it.
"""

import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcifar import schedules
from jaxcifar.parity.rows import FLOAT64, row

GROUP = "Schedules"

Case = tuple[str, float, dict[str, Any], int, int]

# class, learning rate, its arguments, steps, steps of warm-up
CASES = [
    ("StepLR", 0.1, {"step_size": 1}, 12, 0),
    ("StepLR", 0.01, {"step_size": 7, "gamma": 0.37}, 50, 0),
    ("StepLR", 0.01, {"step_size": 60, "gamma": 1.5}, 50, 0),
    ("StepLR", 0.1, {"step_size": 5, "gamma": 0.5}, 40, 7),
    ("MultiStepLR", 0.1, {"milestones": [30, 4, 4, 11, 200]}, 60, 0),
    ("MultiStepLR", 0.3, {"milestones": [1, 2, 59, 60], "gamma": 0.9}, 60, 0),
    ("MultiStepLR", 0.3, {"milestones": [0, 5], "gamma": 0.5}, 10, 0),
    ("MultiStepLR", 0.3, {"milestones": [5, 9], "gamma": 0.5}, 30, 4),
    ("ExponentialLR", 0.1, {"gamma": 0.95}, 300, 0),
    ("ExponentialLR", 0.1, {"gamma": 1.01}, 30, 3),
    ("CosineAnnealingLR", 0.1, {"T_max": 1}, 7, 0),
    ("CosineAnnealingLR", 0.005, {"T_max": 5}, 5, 0),
    ("CosineAnnealingLR", 0.1, {"T_max": 37, "eta_min": 0.003}, 200, 0),
    ("CosineAnnealingLR", 0.1, {"T_max": 1565}, 1565, 0),
    ("CosineAnnealingLR", 0.1, {"T_max": 20, "eta_min": 0.001}, 30, 10),
    ("CosineAnnealingWarmRestarts", 0.1, {"T_0": 1}, 5, 0),
    ("CosineAnnealingWarmRestarts", 0.1, {"T_0": 10, "T_mult": 2, "eta_min": 1e-4}, 200, 0),
    ("CosineAnnealingWarmRestarts", 0.1, {"T_0": 7, "T_mult": 1}, 50, 0),
    ("CosineAnnealingWarmRestarts", 0.1, {"T_0": 3, "T_mult": 3}, 121, 5),
    ("OneCycleLR", 5e-4, {"max_lr": 5e-3, "total_steps": 15650, "pct_start": 0.1,
                          "div_factor": 10.0}, 15650, 0),
    ("OneCycleLR", 0.1, {"max_lr": 0.1, "total_steps": 101}, 101, 0),
    ("OneCycleLR", 0.1, {"max_lr": 0.1, "total_steps": 1}, 1, 0),
    ("OneCycleLR", 0.1, {"max_lr": 0.1, "total_steps": 2, "pct_start": 0.9}, 2, 0),
    ("OneCycleLR", 0.1, {"max_lr": 1.0, "total_steps": 97, "pct_start": 0.301,
                         "anneal_strategy": "linear", "base_momentum": 0.7,
                         "max_momentum": 0.99}, 97, 0),
    ("OneCycleLR", 0.1, {"max_lr": 1.0, "total_steps": 97, "pct_start": 0.31, "three_phase": True,
                         "final_div_factor": 7.0}, 97, 0),
    ("OneCycleLR", 0.1, {"max_lr": 1.0, "total_steps": 64, "pct_start": 0.45, "three_phase": True,
                         "anneal_strategy": "linear"}, 64, 0),
    ("OneCycleLR", 0.1, {"max_lr": 1.0, "total_steps": 50, "pct_start": 0.7,
                         "three_phase": True}, 50, 0),
    ("OneCycleLR", 0.1, {"max_lr": 1.0, "total_steps": 9, "pct_start": 0.05}, 9, 0),
    ("OneCycleLR", 0.1, {"max_lr": 1.0, "total_steps": 60, "cycle_momentum": False}, 60, 0),
    ("OneCycleLR", 0.1, {"max_lr": 1.0, "total_steps": 60}, 68, 8),
    ("CyclicLR", 0.1, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 13}, 120, 0),
    ("CyclicLR", 0.1, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 1,
                       "step_size_down": 1}, 9, 0),
    ("CyclicLR", 0.1, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 7, "step_size_down": 3,
                       "mode": "triangular2"}, 100, 0),
    ("CyclicLR", 0.1, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 5, "step_size_down": 11,
                       "mode": "exp_range", "gamma": 0.99}, 100, 0),
    ("CyclicLR", 0.1, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 30, "base_momentum": 0.5,
                       "max_momentum": 0.97}, 100, 0),
    ("CyclicLR", 0.1, {"base_lr": 0.02, "max_lr": 0.1, "step_size_up": 6}, 40, 9),
]  # fmt: skip

PLATEAU_CASES = [
    {"patience": 2},
    {"patience": 0, "factor": 0.5},
    {"patience": 1, "cooldown": 3, "factor": 0.3},
    {"mode": "max", "patience": 1, "threshold": 0.05},
    {"mode": "max", "patience": 2, "threshold": 0.1, "threshold_mode": "abs"},
    {"patience": 1, "threshold": 0.02, "threshold_mode": "abs", "cooldown": 1},
    {"patience": 0, "factor": 0.5, "min_lr": 0.01},
    {"patience": 0, "factor": 0.9, "eps": 0.004},
]

LR = {
    "StepLR": schedules.step_lr,
    "MultiStepLR": schedules.multistep_lr,
    "ExponentialLR": schedules.exponential_lr,
    "CosineAnnealingLR": schedules.cosine_annealing_lr,
    "CosineAnnealingWarmRestarts": schedules.cosine_annealing_warm_restarts,
    "OneCycleLR": schedules.one_cycle_lr,
    "CyclicLR": schedules.cyclic_lr,
}
MOMENTUM = {"OneCycleLR": schedules.one_cycle_momentum, "CyclicLR": schedules.cyclic_momentum}


def our_values(
    name: str, lr: float, arguments: dict[str, Any], steps: int, warmup: int
) -> np.ndarray:
    """Returns our learning rate and momentum after 0 ... `steps` steps, [steps + 1, 2]."""
    arguments = dict(arguments)
    cycles = arguments.pop("cycle_momentum", True) and name in MOMENTUM
    bounds = {k: arguments.pop(k) for k in ("base_momentum", "max_momentum") if k in arguments}
    levels = ("max_lr", "base_lr", "div_factor", "final_div_factor")
    timing = {k: v for k, v in arguments.items() if k not in levels}
    momentum = MOMENTUM[name](**bounds, **timing) if cycles else schedules.constant_lr(0.9)
    rate = LR[name](**arguments) if name in MOMENTUM else LR[name](lr, **arguments)
    rate = schedules.warm_up(rate, warmup=warmup)
    momentum = schedules.warm_up(momentum, warmup=warmup, start_factor=1.0)
    return np.array([(rate(step), momentum(step)) for step in range(steps + 1)])


def their_values(
    name: str, lr: float, arguments: dict[str, Any], steps: int, warmup: int
) -> np.ndarray:
    """Returns PyTorch's learning rate and momentum after 0 ... `steps` steps, [steps + 1, 2]."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **arguments)
    if warmup:
        linear = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=warmup)
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [linear, scheduler], [warmup])
    group, rows = optimizer.param_groups[0], []
    with warnings.catch_warnings(action="ignore"):  # optimizer.step() is not called first
        for step in range(steps + 1):
            if step:
                scheduler.step()
            rows.append((group["lr"], group["momentum"]))
    return np.array(rows)


def our_plateau(arguments: dict[str, Any], lr: float, metrics: Sequence[float]) -> list[float]:
    """Returns our learning rate after each of the metrics."""
    state, lrs = schedules.plateau_start(lr), []
    for metric in metrics:
        state = json.loads(json.dumps(state))  # as a checkpoint keeps it
        state = schedules.reduce_lr_on_plateau(state, metric, **arguments)
        lrs.append(state["lr"])
    return lrs


def their_plateau(arguments: dict[str, Any], lr: float, metrics: Sequence[float]) -> list[float]:
    """Returns ReduceLROnPlateau's learning rate after each of the metrics."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **arguments)
    lrs = []
    for metric in metrics:
        scheduler.step(metric)
        lrs.append(optimizer.param_groups[0]["lr"])
    return lrs


def plateau_metrics() -> list[float]:
    """Returns the metrics of 60 epochs, some below zero, where a relative threshold reverses."""
    metrics = np.random.default_rng(0).uniform(0.5, 2.0, 60) * np.linspace(1.5, 0.8, 60)
    metrics[20:24] = -0.3
    return metrics.tolist()


def _compare(cases: Sequence[Case]) -> tuple:
    return tuple(
        {
            f"{column} of {case[0]}, run {index + 1}": values(*case)[:, place]
            for index, case in enumerate(cases)
            for place, column in enumerate(("learning rate", "momentum"))
        }
        for values in (our_values, their_values)
    )


def _declare(title: str, against: str, cases: Sequence[Case]) -> None:
    steps, plural = sum(case[3] for case in cases), "s" * (len(cases) > 1)
    row(
        f"{title} at each of {steps:,} steps of {len(cases)} run{plural}",
        group=GROUP,
        against=f"torch.optim.lr_scheduler.{against}",
        tolerance=1e-12,
        reason=f"{FLOAT64}, which PyTorch's recursions add up",
    )(lambda: _compare(cases))


for _name in LR:
    _cases = [case for case in CASES if case[0] == _name and not case[4]]
    _cycled = " and momentum" if _name in MOMENTUM else ""
    _declare(f"{_name}: learning rate{_cycled}", _name, _cases)
_declare(
    "all of these after a linear warm-up: learning rate and momentum",
    "SequentialLR",
    [case for case in CASES if case[4]],
)


@row(
    f"ReduceLROnPlateau: learning rate after every epoch of {len(PLATEAU_CASES)} runs of 60 epochs",
    group=GROUP,
    against="torch.optim.lr_scheduler.ReduceLROnPlateau",
    tolerance=0,
    reason="the same float64 operations",
)
def plateau() -> tuple:
    metrics = plateau_metrics()
    return tuple(
        np.array([lrs(case, 0.1, metrics) for case in PLATEAU_CASES])
        for lrs in (our_plateau, their_plateau)
    )
