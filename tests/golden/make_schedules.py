"""Writes schedules.npz: PyTorch's learning rate and momentum at every step of full runs.

python tests/golden/make_schedules.py

`cases` holds each case as JSON: the schedule's class, its arguments, the steps and the
warm-up; `values_<i>` is the i-th case's float32 [steps + 1, 2]: the learning rate and the
momentum that the optimizer has after 0, 1, ... `steps` calls of `scheduler.step()`.
"""

import json
import pathlib
import warnings

import numpy as np
import torch

CASES = [
    # class, learning rate, its arguments, steps, warm-up
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


def values(name: str, lr: float, arguments: dict, steps: int, warmup: int) -> np.ndarray:
    """Returns PyTorch's learning rate and momentum after 0 ... `steps` steps, [steps + 1, 2]."""
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


def plateau(arguments: dict, lr: float, metrics: list[float]) -> list[float]:
    """Returns ReduceLROnPlateau's learning rate after each of the metrics."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **arguments)
    lrs = []
    for metric in metrics:
        scheduler.step(metric)
        lrs.append(optimizer.param_groups[0]["lr"])
    return lrs


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


def main() -> None:
    """Writes the file next to this one."""
    arrays = {f"values_{i}": values(*case).astype(np.float32) for i, case in enumerate(CASES)}
    metrics = np.random.default_rng(0).uniform(0.5, 2.0, 60) * np.linspace(1.5, 0.8, 60)
    metrics[20:24] = -0.3  # PyTorch's relative threshold reverses below zero
    lrs = [plateau(case, 0.1, metrics.tolist()) for case in PLATEAU_CASES]
    np.savez_compressed(
        pathlib.Path(__file__).with_name("schedules.npz"),
        cases=[json.dumps(case) for case in CASES],
        plateau_cases=[json.dumps(case) for case in PLATEAU_CASES],
        plateau_metrics=metrics,
        plateau_values=np.array(lrs),
        **arrays,
    )


if __name__ == "__main__":
    main()
