"""Writes optimizers.npz: parameters after 200 steps of PyTorch's optimizers on recorded gradients.

python tests/golden/make_optimizers.py

The gradients come from `recorded()`, which tests call too, and are not stored.

`cases` holds each case as JSON: the optimizer's class, its arguments, the clip norm and whether
OneCycleLR runs; `<dtype>_<i>_<parameter>` is the i-th case's parameter at the end, as PyTorch
computes it in float32 and in float64. They differ: float32's own rounding moves AdamW's parameters
by up to 1e-5 of their size, since it rounds 1 - lr · weight_decay.
"""

import json
import pathlib

import numpy as np

STEPS = 200
SHAPES = {"kernel": (3, 3, 4, 6), "bias": (6,), "scale": (8,), "matrix": (30, 20)}
ONE_CYCLE = {"max_lr": 5e-3, "total_steps": STEPS, "pct_start": 0.1, "div_factor": 10.0}
CASES = [
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


def recorded() -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
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


def torch_params(
    name: str, arguments: dict, clip_norm: float, one_cycle: bool, dtype: str
) -> dict[str, np.ndarray]:
    """Returns PyTorch's parameters after the recorded gradients, computed in `dtype`."""
    import torch

    start, grads = recorded()
    dtype = getattr(torch, dtype)
    params = {key: torch.nn.Parameter(torch.tensor(x, dtype=dtype)) for key, x in start.items()}
    optimizer = getattr(torch.optim, name)(params.values(), **arguments)
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


def main() -> None:
    """Writes the file next to this one."""
    arrays = {
        f"{dtype}_{i}_{key}": value
        for dtype in ("float32", "float64")
        for i, case in enumerate(CASES)
        for key, value in torch_params(*case, dtype).items()
    }
    np.savez_compressed(
        pathlib.Path(__file__).with_name("optimizers.npz"),
        cases=[json.dumps(case) for case in CASES],
        **arrays,
    )


if __name__ == "__main__":
    main()
