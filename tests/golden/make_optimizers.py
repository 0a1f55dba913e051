"""Writes optimizers.npz: parameters after 200 steps of PyTorch's optimizers on recorded gradients.

python tests/golden/make_optimizers.py

The cases and the gradients are the parity page's; the gradients are not stored.

`cases` holds each case as JSON: the optimizer's class, its arguments, the clip norm and whether
OneCycleLR runs; `<dtype>_<i>_<parameter>` is the i-th case's parameter at the end, as PyTorch
computes it in float64 and, of `IN_FLOAT32`, in float32. They differ: float32's own rounding moves
AdamW's parameters by up to 1e-5 of their size, since it rounds 1 - lr · weight_decay.
"""

import json
import pathlib

import numpy as np

from jaxcifar.parity.optimizers import CASES, IN_FLOAT32, their_params


def main() -> None:
    """Writes the file next to this one."""
    arrays = {
        f"{dtype}_{i}_{key}": value
        for dtype in ("float32", "float64")
        for i, case in enumerate(CASES)
        if dtype == "float64" or i in IN_FLOAT32
        for key, value in their_params(*case, dtype).items()
    }
    np.savez_compressed(
        pathlib.Path(__file__).with_name("optimizers.npz"),
        cases=[json.dumps(case) for case in CASES],
        **arrays,
    )


if __name__ == "__main__":
    main()
