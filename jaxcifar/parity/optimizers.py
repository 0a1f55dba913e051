"""Rows of optimizers: the parameters after 200 steps on the same gradients.

Importing this does not import PyTorch: the tests use our side without it.
"""

import functools
from typing import Any

import jax
import numpy as np

from jaxcifar import config as config_lib
from jaxcifar import optimizers
from jaxcifar.parity.given import jit
from jaxcifar.parity.rows import row
from jaxcifar.run_schedule import RunSchedule

GROUP = "Optimizers"

Params = dict[str, np.ndarray]
# class, its arguments, the norm that gradients are clipped to (0: none), whether OneCycleLR runs
Case = tuple[str, dict[str, Any], float, bool]

STEPS = 200
SHAPES = {"kernel": (3, 3, 4, 6), "bias": (6,), "scale": (8,), "matrix": (30, 20)}
ONE_CYCLE = {"max_lr": 5e-3, "total_steps": STEPS, "pct_start": 0.1, "div_factor": 10.0}
CASES: list[Case] = [
    ("SGD", {"lr": 0.01}, 0.0, False),
    ("SGD", {"lr": 0.01, "momentum": 0.9}, 0.0, False),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}, 0.0, False),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}, 0.0, False),
    ("SGD", {"lr": 0.01, "weight_decay": 1e-2}, 0.0, False),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}, 1.0, False),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}, 0.0, True),
    ("Adam", {"lr": 1e-3}, 0.0, False),
    ("Adam", {"lr": 1e-3, "betas": [0.8, 0.95], "eps": 1e-3, "weight_decay": 1e-2}, 0.0, False),
    ("AdamW", {"lr": 1e-3, "weight_decay": 1e-2}, 0.0, False),
    ("AdamW", {"lr": 5e-4, "weight_decay": 5e-4}, 0.5, False),
    ("AdamW", {"lr": 5e-4, "weight_decay": 5e-4}, 0.0, True),
]
IN_FLOAT32 = (6, 8, 11)  # those that are also compared in float32: one of every optimizer


@functools.cache
def recorded() -> tuple[Params, list[Params]]:
    """Returns initial parameters and 200 gradients of each, float32, from a fixed seed."""
    rng = np.random.default_rng(5)
    params = {
        name: (0.1 * rng.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()
    }
    grads = []
    for step in range(STEPS):
        scale = 10.0 ** rng.uniform(-3, 0) if step % 7 == 0 else 0.1
        grads.append(
            {
                name: (scale * rng.normal(size=shape)).astype(np.float32)
                for name, shape in SHAPES.items()
            }
        )
    return params, grads


def our_params(
    name: str, arguments: dict[str, Any], clip_norm: float, one_cycle: bool, dtype: str
) -> Params:
    """Returns our parameters after the recorded gradients, computed in `dtype`."""
    config = config_lib.default()
    settings = config.optimizer
    settings.name, settings.clip_norm = name.lower(), clip_norm
    settings.momentum = settings.weight_decay = 0.0
    for key, value in arguments.items():
        if key == "betas":
            settings.b1, settings.b2 = value
        else:
            settings[key] = value
    config.num_epochs = STEPS
    if one_cycle:
        config.schedule.name = "onecycle"
        for key, value in ONE_CYCLE.items():
            if key != "total_steps":
                config.schedule[key] = value
    schedule = RunSchedule(config, steps_per_epoch=1)

    start, grads = recorded()
    optimizer = optimizers.create(config)

    @jit
    def step(params, state, grads, values):
        state = state._replace(hyperparams=state.hyperparams | values)
        updates, state = optimizer.update(grads, state, params)
        return jax.tree.map(lambda p, u: p + u, params, updates), state

    dtype = np.dtype(dtype).type
    with jax.enable_x64(dtype == np.float64):
        params = {key: value.astype(dtype) for key, value in start.items()}
        state = optimizer.init(params)
        for i, grad in enumerate(grads):
            values = {key: dtype(value) for key, value in schedule.values(i, i).items()}
            grad = {key: value.astype(dtype) for key, value in grad.items()}
            params, state = step(params, state, grad, values)
        return {key: np.asarray(value, np.float64) for key, value in params.items()}


def their_params(
    name: str, arguments: dict[str, Any], clip_norm: float, one_cycle: bool, dtype: str
) -> Params:
    """Returns PyTorch's parameters after the recorded gradients, computed in `dtype`."""
    import torch

    start, grads = recorded()
    dtype = getattr(torch, dtype)
    params = {key: torch.nn.Parameter(torch.tensor(x, dtype=dtype)) for key, x in start.items()}
    groups, arguments = [*params.values()], dict(arguments)
    if not arguments.pop("decay_norms_and_biases", True):
        vectors = [param for param in groups if param.ndim == 1]
        groups = [{"params": [param for param in groups if param.ndim > 1]}]
        groups.append({"params": vectors, "weight_decay": 0.0})
    optimizer = getattr(torch.optim, name)(groups, **arguments)
    one_cycle = one_cycle and torch.optim.lr_scheduler.OneCycleLR(optimizer, **ONE_CYCLE)
    for step in grads:
        for key, param in params.items():
            param.grad = torch.tensor(step[key], dtype=dtype)
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(params.values(), clip_norm)
        optimizer.step()
        if one_cycle:
            one_cycle.step()
    return {key: param.detach().numpy() for key, param in params.items()}


def _declare(case: Case, dtype: str) -> None:
    name, arguments, clip_norm, one_cycle = case
    settings = [f"{key} {value}" for key, value in arguments.items() if key != "lr"]
    settings += [f"gradients clipped to {clip_norm}"] * bool(clip_norm)
    settings += ["OneCycleLR cycling its momentum"] * one_cycle
    against = [f"torch.optim.{name}"] + ["torch.nn.utils.clip_grad_norm_"] * bool(clip_norm)
    row(
        ", ".join([f"{name}: {STEPS} steps", *settings, *["in float32"] * (dtype == "float32")]),
        group=GROUP,
        against=", ".join(against),
        tolerance=1e-12 if dtype == "float64" else 1e-6,
        reason=f"{dtype} rounding, step after step",
        dtype=dtype,
    )(lambda: (our_params(*case, dtype), their_params(*case, dtype)))


_KERNELS_ONLY = {"lr": 1e-3, "weight_decay": 1e-2, "decay_norms_and_biases": False}

for _case in (*CASES, ("AdamW", _KERNELS_ONLY, 0.0, False)):
    _declare(_case, "float64")
for _index in IN_FLOAT32:
    _declare(CASES[_index], "float32")
