"""All rows, by group in the order of the page, and how they are run.

Importing this imports JAX, PyTorch and torchvision.
"""

import concurrent.futures
import datetime
from collections.abc import Iterator

import jax
import torch

from jaxcifar import environment
from jaxcifar.parity import (
    by_design,
    given,
    initialization,
    layers,
    mixing,
    networks,
    optimizers,
    policies,
    random_transforms,
    rows,
    schedules,
    training,
    transforms,
)
from jaxcifar.parity.rows import Result, Row
from jaxcifar.torchvision_compat import import_torchvision

_MODULES = (
    layers,
    networks,
    initialization,
    optimizers,
    schedules,
    transforms,
    policies,
    random_transforms,
    mixing,
    training,
    by_design,
)
GROUPS = tuple(dict.fromkeys(module.GROUP for module in _MODULES))
_BESIDE = (networks.GROUP, training.GROUP)


def versions() -> str:
    """Returns what is compared, on what, and when, in one line.

    Raises:
        ConfigError: JAX cannot start.
    """
    given.compiler_options()  # the first use of JAX
    ours = environment.versions()
    parts = [f"{name} {ours[name]}" for name in ("jaxcifar", "jax", "flax", "optax")]
    parts += [f"torch {torch.__version__}", f"torchvision {import_torchvision().__version__}"]
    parts += [f"Python {ours['python']}", f"JAX on {jax.devices()[0].device_kind}, PyTorch on cpu"]
    return " · ".join([*parts, datetime.date.today().isoformat()])


def all_rows() -> list[Row]:
    """Returns the rows in the order of the page."""
    return sorted(rows.ROWS.values(), key=lambda row: GROUPS.index(row.group))


def run_all() -> Iterator[Result]:
    """Yields the results of all rows, in the order of the page.

    Most of the time goes into compiling, which is why two threads share the rows: one has the whole
    networks, which draw nothing with PyTorch's global generator, so that the other's draws are the
    same every time.
    """
    torch.set_num_threads(1)  # PyTorch's and XLA's threads would wait for each other
    given.compiler_options()  # here, in one thread: it starts JAX
    lanes = [concurrent.futures.ThreadPoolExecutor(1) for _ in range(2)]
    try:
        futures = [lanes[row.group in _BESIDE].submit(rows.run, row) for row in all_rows()]
        for future in futures:
            yield future.result()
    finally:
        for lane in lanes:
            lane.shutdown(wait=False, cancel_futures=True)
