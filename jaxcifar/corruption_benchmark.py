"""The corruption benchmark in a directory, scored file by file: as released (CIFAR-10-C,
CIFAR-100-C), or a challenge's unlabeled files.

<name>.npy          uint8 [5·N, 32, 32, 3]: the N test images at severity 1, then at 2, ..., 5
labels.npy          integers [5·N]; with the released files only
distortion00.npy    ... distortion18.npy: the challenge's files, likewise, without labels

(Hendrycks & Dietterich 2019, arXiv:1903.12261.)
"""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxcifar import cache, errors
from jaxcifar.spec import ConfigError

NUM_SEVERITIES = 5
DISTORTIONS = tuple(f"distortion{index:02d}" for index in range(19))
_OPTIONAL = {"frost"}  # which needs photographs to be generated


class Benchmark(NamedTuple):
    """The files of a benchmark, checked."""

    files: dict[str, pathlib.Path]  # by corruption or distortion
    labels: np.ndarray | None  # int64 [5·N]; None in a challenge

    @property
    def num_images(self) -> int:
        """Number of images in each file."""
        return len(np.load(next(iter(self.files.values())), mmap_mode="r"))


def find(directory: str, num_classes: int) -> Benchmark:
    """Returns the benchmark in a directory, after checking every file's name, shape and dtype.

    Args:
        directory: the directory.
        num_classes: labels are less than this.

    Raises:
        ConfigError: files are missing, unexpected or of another shape or dtype.
    """
    from jaxcifar.corruptions import EXTRA, STANDARD  # lazy: commands should not wait for JAX

    root = pathlib.Path(directory)
    if not root.is_dir():
        raise ConfigError(f"ood_dir={directory!r} is not a folder")
    names = {path.stem for path in root.glob("*.npy")}
    is_challenge = any(name.startswith("distortion") for name in names)
    expected = set(DISTORTIONS) if is_challenge else {*STANDARD, *EXTRA, "labels"}
    missing = sorted(expected - names - _OPTIONAL)
    unexpected = sorted(names - expected)
    if missing or unexpected:
        problems = [f"lacks {', '.join(f'{n}.npy' for n in missing)}"] if missing else []
        problems += [f"has also {', '.join(f'{n}.npy' for n in unexpected)}"] if unexpected else []
        raise ConfigError(f"ood_dir={directory!r} {' and '.join(problems)}")
    order = DISTORTIONS if is_challenge else (*STANDARD, *EXTRA)
    files = {name: root / f"{name}.npy" for name in order if name in names}
    shapes = {name: _check_images(path) for name, path in files.items()}
    shape = next(iter(shapes.values()))
    for name, other in shapes.items():
        if other != shape:
            raise ConfigError(
                f"{str(files[name])!r} has the shape {list(other)}, but "
                f"{next(iter(files))}.npy has {list(shape)}"
            )
    return Benchmark(files, None if is_challenge else _labels(root, shape[0], num_classes))


def predictions(
    benchmark: Benchmark,
    compute_logits: Callable[[np.ndarray], np.ndarray],
    partial: pathlib.Path,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields each file's name and predicted classes, int16 [5·N]. One file is mapped at a time.

    Args:
        benchmark: the files.
        compute_logits: fn(images uint8 [5·N, 32, 32, 3]) -> logits float32 [5·N, C].
        partial: a directory that keeps the predictions of the files done, so that an interrupted
            pass continues after those. Its name must tell models and files apart.
    """
    for name, path in benchmark.files.items():

        def predict(path: pathlib.Path = path) -> np.ndarray:
            return compute_logits(np.load(path, mmap_mode="r")).argmax(-1).astype(np.int16)

        yield name, cache.load_or_make(partial / f"{name}.npy", predict)


def scores(
    predicted: Mapping[str, np.ndarray], labels: np.ndarray, clean_accuracy: float | None
) -> dict[str, Any]:
    """Returns the accuracies in percent, JSON-serializable: of each corruption at each severity,
    and their means over all corruptions and over the standard 15 (of those that there are).

    Args:
        predicted: classes int [5·N] by corruption.
        labels: int [5·N].
        clean_accuracy: of the uncorrupted images, for the relative score; None where unknown.
    """
    from jaxcifar.corruptions import STANDARD  # lazy: commands should not wait for JAX

    accuracies = {
        name: (100 * (classes == labels).reshape(NUM_SEVERITIES, -1).mean(-1)).tolist()
        for name, classes in predicted.items()
    }

    def mean(names: list[str]) -> float | None:
        return float(np.mean([accuracies[name] for name in names])) if names else None

    everything = mean(list(accuracies))
    standard = [name for name in STANDARD if name in accuracies]
    return {
        "accuracy": accuracies,
        "mean": everything,
        "num_corruptions": len(accuracies),
        "mean_standard": mean(standard),
        "num_standard": len(standard),
        "relative": everything / clean_accuracy if clean_accuracy else None,
    }


def table(result: Mapping[str, Any]) -> str:
    """Returns the scores as a table: a row for each corruption, a column for each severity."""
    lines = [f"{'accuracy, %':<18} " + " ".join(f"{s:>5}" for s in (1, 2, 3, 4, 5)) + "   mean"]
    for name, row in result["accuracy"].items():
        cells = " ".join(f"{value:5.1f}" for value in row)
        lines.append(f"{name:<18} {cells}  {np.mean(row):5.1f}")
    lines.append(f"{'mean of ' + str(result['num_corruptions']):<18} {result['mean']:36.2f}")
    if result["num_standard"]:
        label = f"of {result['num_standard']} standard"
        lines.append(f"{label:<18} {result['mean_standard']:36.2f}")
    return "\n".join(lines)


def write_submission(path: pathlib.Path, predicted: Mapping[str, np.ndarray]) -> int:
    """Writes a challenge's submission and returns its number of rows: a CSV `id,label` with ids
    `<file>_<severity>_<index>`, atomically.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    count = 0
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write("id,label\n")
            for name, classes in predicted.items():
                for severity, row in enumerate(classes.reshape(NUM_SEVERITIES, -1), 1):
                    file.writelines(f"{name}_{severity}_{i},{c}\n" for i, c in enumerate(row))
                    count += len(row)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _check_images(path: pathlib.Path) -> tuple[int, ...]:
    with errors.reading(f"the benchmark file {str(path)!r}", "download it again"):
        array = np.load(path, mmap_mode="r")
    shape = array.shape
    is_whole = len(shape) == 4 and shape[0] and not shape[0] % NUM_SEVERITIES
    if array.dtype != np.uint8 or not is_whole or shape[1:] != (32, 32, 3):
        raise ConfigError(
            f"{str(path)!r} has {array.dtype} {list(shape)}: it must be uint8 [5·N, 32, 32, 3]"
        )
    return shape


def _labels(root: pathlib.Path, count: int, num_classes: int) -> np.ndarray:
    path = root / "labels.npy"
    with errors.reading(f"the benchmark file {str(path)!r}", "download it again"):
        labels = np.load(path)
    is_valid = labels.shape == (count,) and np.issubdtype(labels.dtype, np.integer)
    if not is_valid or labels.min() < 0 or labels.max() >= num_classes:
        raise ConfigError(
            f"{str(path)!r} has {labels.dtype} {list(labels.shape)}: it must be integers [{count}] "
            f"from 0 to {num_classes - 1}, the model's classes"
        )
    return labels.astype(np.int64)
