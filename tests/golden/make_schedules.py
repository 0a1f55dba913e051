"""Writes schedules.npz: PyTorch's learning rate and momentum at every step of full runs.

python tests/golden/make_schedules.py

The cases are the parity page's. `cases` holds each as JSON: the schedule's class, its arguments,
the steps and the warm-up; `values_<i>` is the i-th case's float32 [steps + 1, 2]: the learning rate
and the momentum that the optimizer has after 0, 1, ... `steps` calls of `scheduler.step()`.
"""

import json
import pathlib

import numpy as np

from jaxcifar.parity.schedules import (
    CASES,
    PLATEAU_CASES,
    plateau_metrics,
    their_plateau,
    their_values,
)


def main() -> None:
    """Writes the file next to this one."""
    arrays = {f"values_{i}": their_values(*case).astype(np.float32) for i, case in enumerate(CASES)}
    metrics = plateau_metrics()
    np.savez_compressed(
        pathlib.Path(__file__).with_name("schedules.npz"),
        cases=[json.dumps(case) for case in CASES],
        plateau_cases=[json.dumps(case) for case in PLATEAU_CASES],
        plateau_metrics=metrics,
        plateau_values=np.array([their_plateau(case, 0.1, metrics) for case in PLATEAU_CASES]),
        **arrays,
    )


if __name__ == "__main__":
    main()
