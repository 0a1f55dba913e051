"""The corruption benchmark, scored corruption by corruption: generated, or in a directory as
released (CIFAR-10-C, CIFAR-100-C) or as a challenge's unlabeled files.

<name>.npy          uint8 [5·N, H, W, 3]: the N test images at severity 1, then at 2, ..., 5
labels.npy          integers [5·N]; with the released files only
distortion00.npy    ... distortion18.npy: the challenge's files, likewise, without labels

(Hendrycks & Dietterich 2019, arXiv:1903.12261.)
"""

import functools
import hashlib
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxcifar import cache, errors, manifest, optional
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.spec import ConfigError

NUM_SEVERITIES = 5
DISTORTIONS = tuple(f"distortion{index:02d}" for index in range(19))
_OPTIONAL = {"frost"}  # which needs photographs to be generated


class Benchmark(NamedTuple):
    """The images of every corruption: files, checked, or generated."""

    load: dict[str, Callable[[], np.ndarray]]  # by corruption or distortion: uint8 [5·N, H, W, 3]
    labels: np.ndarray | None  # int64 [5·N]; None in a challenge
    num_images: int  # 5·N
    identity: str  # tells benchmarks apart


def open_benchmark(config: ConfigDict, test: Dataset) -> Benchmark | None:
    """Returns the benchmark that `config.eval.ood_dir` names: none, that in a directory (see
    `find`), or that of the test images (see `generated`).

    Raises:
        ConfigError: see `find`.
    """
    if not config.eval.ood_dir:
        return None
    if config.eval.ood_dir == "generate":
        return generated(test, config.seed)
    size = test.images.shape[1]
    return find(config.eval.ood_dir, len(test.class_names), size)


def generated(test: Dataset, seed: int) -> Benchmark:
    """Returns the `available` corruptions of test images, each generated when it is loaded."""
    from jaxcifar import corruptions  # lazy: commands should not wait for JAX

    def generate(name: str) -> np.ndarray:
        return np.concatenate([x for *_, x in corruptions.generate(test.images, seed, [name])])

    return Benchmark(
        {name: functools.partial(generate, name) for name in corruptions.available()},
        np.tile(test.labels, NUM_SEVERITIES),
        NUM_SEVERITIES * len(test),
        f"generated {test.fingerprint()} {seed}",
    )


def find(directory: str, num_classes: int, image_size: int) -> Benchmark:
    """Returns the benchmark in a directory, after checking every file's name, shape and dtype.

    Args:
        directory: the directory.
        num_classes: labels are less than this.
        image_size: height and width of the images in pixels.

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
    files = [root / f"{name}.npy" for name in order if name in names]
    shape = _check_images(files[0], image_size)
    for path in files:
        if (other := _check_images(path, image_size)) != shape:
            raise ConfigError(
                f"{str(path)!r} has the shape {list(other)}, but {files[0].name} has {list(shape)}"
            )
    times = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return Benchmark(
        {path.stem: functools.partial(np.load, path, mmap_mode="r") for path in files},
        None if is_challenge else _labels(root, shape[0], num_classes),
        shape[0],
        repr(times),
    )


def predictions(
    benchmark: Benchmark,
    compute: Callable[..., np.ndarray],
    version: Any,
    directory: pathlib.Path,
    on_batch: Callable[[int, int], None],
) -> dict[str, np.ndarray]:
    """Returns the predicted classes by corruption, int16 [5·N]; one is loaded at a time. They are
    kept in a directory, so that an interrupted pass continues, until `forget_predictions`.

    Args:
        benchmark: the images.
        compute: fn(images uint8 [5·N, H, W, 3], on_batch) -> logits float32 [5·N, C].
        version: what the logits depend on beside the images: a tree of arrays, numbers and text.
        directory: where predictions are kept, in a directory of their own.
        on_batch: called with counts of images, done and in all, after every batch.
    """
    import jax  # lazy: commands should not wait for it

    digest = hashlib.blake2b(benchmark.identity.encode(), digest_size=8)
    for leaf in jax.tree.leaves(version):
        digest.update(repr(leaf).encode() if np.ndim(leaf) == 0 else np.asarray(leaf).tobytes())
    partial = directory / f"corruption-predictions-{digest.hexdigest()}"
    predicted, total = {}, benchmark.num_images * len(benchmark.load)

    def predict(name: str) -> np.ndarray:
        before = len(predicted) * benchmark.num_images
        logits = compute(
            benchmark.load[name](), on_batch=lambda done, _: on_batch(before + done, total)
        )
        return logits.argmax(-1).astype(np.int16)

    for name in benchmark.load:
        predicted[name] = cache.load_or_make(
            partial / f"{name}.npy", functools.partial(predict, name)
        )
    return predicted


def forget_predictions(directory: pathlib.Path) -> None:
    """Deletes the predictions that are kept in a directory, once their scores are on the disk."""
    for partial in directory.glob("corruption-predictions-*"):
        shutil.rmtree(partial, ignore_errors=True)


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
    if "frost" not in result["accuracy"]:
        lines.append(f"without frost (to generate it: {optional.install('imagecorruptions')})")
    return "\n".join(lines)


def write_submission(path: pathlib.Path, predicted: Mapping[str, np.ndarray]) -> int:
    """Writes a challenge's submission and returns its number of rows: a CSV `id,label` with ids
    `<file>_<severity>_<index>`, atomically.

    Raises:
        OSError: it cannot be written.
    """
    with manifest.replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("id,label\n")
        for name, classes in predicted.items():
            for severity, row in enumerate(classes.reshape(NUM_SEVERITIES, -1), 1):
                file.writelines(f"{name}_{severity}_{i},{c}\n" for i, c in enumerate(row))
    return sum(map(len, predicted.values()))


def _check_images(path: pathlib.Path, size: int) -> tuple[int, ...]:
    with errors.reading(f"the benchmark file {str(path)!r}", "download it again"):
        array = np.lib.format.open_memmap(path, mode="r")
    shape = array.shape
    is_whole = len(shape) == 4 and shape[0] and not shape[0] % NUM_SEVERITIES
    if array.dtype != np.uint8 or not is_whole or shape[1:] != (size, size, 3):
        raise ConfigError(
            f"{str(path)!r} has {array.dtype} {list(shape)}: it must be uint8 "
            f"[5·N, {size}, {size}, 3]"
        )
    return shape


def _labels(root: pathlib.Path, count: int, num_classes: int) -> np.ndarray:
    path = root / "labels.npy"
    with errors.reading(f"the benchmark file {str(path)!r}", "download it again"):
        labels = np.asarray(np.lib.format.open_memmap(path, mode="r"))
    is_valid = labels.shape == (count,) and np.issubdtype(labels.dtype, np.integer)
    if not is_valid or labels.min() < 0 or labels.max() >= num_classes:
        raise ConfigError(
            f"{str(path)!r} has {labels.dtype} {list(labels.shape)}: it must be integers [{count}] "
            f"from 0 to {num_classes - 1}, the model's classes"
        )
    return labels.astype(np.int64)
