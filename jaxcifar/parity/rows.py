"""Rows of the parity page: what is compared with what and how closely, and how a row is run.

A row is a function that computes the same on both sides; the decorator `row` declares it:

    @row("linear", group="Layers", against="torch.nn.Linear", tolerance=1e-12, reason="...")
    def linear(): return ours, theirs

Both are an array, or dictionaries of arrays by name. Nothing else is declared anywhere.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import numpy as np

from jaxcifar.spec import first_line

Arrays = Mapping[str, np.ndarray]


class Mismatch(Exception):
    """Two sides that cannot be compared number by number: the message says why."""


class Measure(NamedTuple):
    """How far two sides are apart: `distances` returns a number by name of an array."""

    unit: str  # after the number on the page
    meaning: str  # of the unit
    distances: Callable[[Arrays, Arrays], dict[str, float]]
    digits: str = ".2g"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A comparison; `function` returns ours and theirs."""

    what: str
    group: str
    against: str  # the function of PyTorch or torchvision
    tolerance: float
    reason: str  # of the tolerance, or of a difference by design
    measure: Measure
    dtype: Literal["float32", "float64"]  # of our side
    by_design: bool
    function: Callable[[], tuple]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A row's outcome."""

    row: Row
    seconds: float
    difference: float = math.nan
    where: str = ""  # the name of the array with the largest difference
    count: int = 0  # numbers compared
    error: str = ""  # why there is no difference to state

    @property
    def agrees(self) -> bool:
        """Whether the row is as it claims: within the tolerance, or, by design, outside."""
        return not self.error and (self.difference > self.row.tolerance) == self.row.by_design


ROWS: dict[tuple[str, str], Row] = {}  # by group and what


def row(
    what: str,
    *,
    group: str,
    against: str,
    tolerance: float,
    reason: str,
    measure: Measure | None = None,
    dtype: Literal["float32", "float64"] = "float64",
    by_design: bool = False,
) -> Callable[[Callable], Callable]:
    """Declares a row; a decorator of a function () -> (ours, theirs).

    Args:
        what: what is compared; no other row of the group has it.
        group: the heading that it stands under.
        against: the name of PyTorch's function.
        tolerance: the largest difference that passes.
        reason: why it is not smaller.
        measure: how differences are measured (default: RELATIVE).
        dtype: what our side computes in; float64 is enabled in JAX while the row runs.
        by_design: the two differ, and `reason` says why: the row fails if they do not.
    """

    def register(function: Callable) -> Callable:
        if (group, what) in ROWS:
            raise ValueError(f"there is a row {what!r} in {group} already")
        ROWS[group, what] = Row(
            what=what,
            group=group,
            against=against,
            tolerance=tolerance,
            reason=reason,
            measure=measure or RELATIVE,
            dtype=dtype,
            by_design=by_design,
            function=function,
        )
        return function

    return register


def run(row: Row) -> Result:
    """Runs a row. What it raises is its result: a row that fails."""
    started = time.perf_counter()
    try:
        with (
            jax.enable_x64(row.dtype == "float64"),
            jax.default_matmul_precision("highest"),  # no TF32 on a GPU
        ):
            ours, theirs = (_by_name(side) for side in row.function())
        _check_comparable(ours, theirs)
        distances = row.measure.distances(ours, theirs)
        where = max(distances, key=distances.get)
        if not all(map(math.isfinite, distances.values())):
            raise Mismatch("the difference is not finite")
        outcome = {
            "difference": distances[where],
            "where": where,
            "count": sum(array.size for array in ours.values()),
        }
    except Exception as error:
        kind = "" if isinstance(error, Mismatch) else f"{type(error).__name__}: "
        outcome = {"error": kind + first_line(error)}
    return Result(row=row, seconds=time.perf_counter() - started, **outcome)


def _by_name(side: object) -> dict[str, np.ndarray]:
    named = side if isinstance(side, Mapping) else {"": side}
    return {name: np.asarray(array) for name, array in named.items()}


def _check_comparable(ours: Arrays, theirs: Arrays) -> None:
    if missing := sorted(set(theirs) - set(ours)):
        raise Mismatch(f"ours lacks {', '.join(missing)}")
    if unexpected := sorted(set(ours) - set(theirs)):
        raise Mismatch(f"theirs lacks {', '.join(unexpected)}")
    if not sum(array.size for array in ours.values()):
        raise Mismatch("nothing was compared")
    for name in ours:
        for side, array in (("ours", ours[name]), ("theirs", theirs[name])):
            if not np.isfinite(array).all():
                raise Mismatch(f"{name or 'the result'} is not finite: {side}")


# --- measures -------------------------------------------------------------------------------------


def _same_shapes(ours: Arrays, theirs: Arrays) -> None:
    for name, array in ours.items():
        if array.shape != theirs[name].shape:
            raise Mismatch(f"{name or 'the result'} is {array.shape}, theirs {theirs[name].shape}")


def _absolute(ours: Arrays, theirs: Arrays) -> dict[str, float]:
    _same_shapes(ours, theirs)
    return {
        name: float(np.abs(np.subtract(array, theirs[name], dtype=np.float64)).max(initial=0))
        for name, array in ours.items()
    }


def _relative(ours: Arrays, theirs: Arrays) -> dict[str, float]:
    largest = {name: float(np.abs(array).max(initial=0)) for name, array in theirs.items()}
    floor = 1e-6 * max(largest.values()) or 1.0
    return {
        name: difference / max(largest[name], floor)
        for name, difference in _absolute(ours, theirs).items()
    }


def _pixels(ours: Arrays, theirs: Arrays) -> dict[str, float]:
    _same_shapes(ours, theirs)
    return {
        name: float((np.abs(array - theirs[name]) > 0.5).any(-1).mean((-2, -1)).max())
        for name, array in ours.items()
    }


def _kolmogorov_smirnov(ours: Arrays, theirs: Arrays, slack: float = 1e-6) -> dict[str, float]:
    """Returns the two-sample statistic by name: the smallest, if values may differ by `slack`,
    which by default is rounding.
    """
    statistics = {}
    for name in ours:
        a, b = (np.sort(side[name], axis=None).astype(np.float64) for side in (ours, theirs))
        excess = [
            np.searchsorted(values, values, "right") / len(values)
            - np.searchsorted(others, values + slack, "right") / len(others)
            for values, others in ((a, b), (b, a))
        ]
        distance = max(0.0, *(e.max() for e in excess))
        statistics[name] = distance * math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    return statistics


def _standard_errors(ours: Arrays, theirs: Arrays) -> dict[str, float]:
    """Returns, of the samples' means and mean squares, the larger difference by name."""
    distances = {}
    for name in ours:
        for kind, power in (("mean", 1), ("mean square", 2)):
            a, b = (side[name].astype(np.float64).ravel() ** power for side in (ours, theirs))
            error = math.sqrt(a.var() / len(a) + b.var() / len(b))
            distances[f"{kind} of {name}"] = float(abs(a.mean() - b.mean()) / error)
    return distances


ABSOLUTE = Measure("", "the largest absolute difference", _absolute)
RELATIVE = Measure(
    "of the largest",
    "the largest difference within an array, as a part of the array's largest value (at least a "
    "millionth of the row's largest, which gives arrays of zeros a scale)",
    _relative,
)
PIXELS = Measure(
    "of the pixels",
    "the share of pixels that differ, in the image in which it is largest",
    _pixels,
    ".2%",
)
LEVELS = Measure(
    "of 255 levels",
    "the largest distance of our value from those that torchvision rounds to its integer",
    _absolute,
)
DISTRIBUTION = Measure(
    "K–S",
    "the Kolmogorov–Smirnov statistic of two samples: the largest distance of their distribution "
    "functions, times √(nm / (n + m)). Samples of one distribution exceed 2.69 once in a million",
    _kolmogorov_smirnov,
)
DISTRIBUTION_OF_LEVELS = Measure(
    "K–S, 8 bits",
    "the same, where values may differ by 2/255, because torchvision rounds them to 8 bits",
    lambda ours, theirs: _kolmogorov_smirnov(ours, theirs, slack=2 / 255),
)
STANDARD_ERRORS = Measure(
    "standard errors",
    "the difference of two samples' means, or of their mean squares, in standard errors. Samples "
    "of one distribution exceed 6 once in 500 million",
    _standard_errors,
)
K_S_LIMIT = math.sqrt(math.log(2e6) / 2)  # 2.69

FLOAT64 = "float64 rounding"
EXACT = "no rounding is involved"
